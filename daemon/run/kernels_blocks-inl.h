// The layouts of ggml's quantized blocks (ggml-common.h), each unpacked into the same form:
//   value = scale[group] * (q - offset) + min[group], q one unsigned (or signed) byte a value.
// The loops are plain, of constant length, and become vectors at -O2 in each target's attributes.
// Memory: writes into the caller's tile.
#include <algorithm>

#if defined(THIMBLE_KERNELS_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef THIMBLE_KERNELS_BLOCKS_INL_H_
#undef THIMBLE_KERNELS_BLOCKS_INL_H_
#else
#define THIMBLE_KERNELS_BLOCKS_INL_H_
#endif

#include "daemon/model/tensor_type.h"
#include "daemon/run/kernels_base-inl.h"

HWY_BEFORE_NAMESPACE();
namespace thimble {
namespace HWY_NAMESPACE {

// AVX512-VNNI multiplies unsigned by signed bytes: there, signed weights are stored plus 128.
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
inline constexpr bool kVnni = true;
#else
inline constexpr bool kVnni = false;
#endif
#undef THIMBLE_KERNELS_512
#undef THIMBLE_KERNELS_256
#undef THIMBLE_KERNELS_STREAM
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
#define THIMBLE_KERNELS_512 1
#else
#define THIMBLE_KERNELS_512 0
#endif
#if HWY_TARGET == HWY_AVX2
#define THIMBLE_KERNELS_256 1
#else
#define THIMBLE_KERNELS_256 0
#endif
// Rows may go straight from the blocks: kernels_stream-inl.h.
#define THIMBLE_KERNELS_STREAM (THIMBLE_KERNELS_512 || THIMBLE_KERNELS_256)
inline constexpr uint8_t kSignFlip = kVnni ? 0x80 : 0;
inline constexpr int kSignedOffset = kVnni ? 128 : 0;

inline constexpr size_t kTileOutputs = 16;
inline constexpr size_t kTileColumns = 256;
inline constexpr size_t kBlock = 32;  // values that share an activation scale
inline constexpr size_t kTileBlocks = kTileColumns / kBlock;
inline constexpr size_t kMaxGroups = kTileColumns / 16;

// 16 outputs by 256 columns of weights, unpacked. 15 KiB of stack, in the first-level cache.
struct Tile {
  alignas(64) uint8_t q[kTileOutputs][kTileColumns];
  alignas(
      64) uint8_t packed[kTileColumns / 4][kTileOutputs][4];  // q transposed in units of 4 columns
  alignas(64) float scale[kMaxGroups][kTileOutputs];
  alignas(64) float min[kMaxGroups][kTileOutputs];
  // What the blocks say, before it is multiplied out: half floats by block (by tile for the types
  // of 256) and the K types' small integers by group.
  alignas(64) uint16_t d[kTileBlocks][kTileOutputs];
  alignas(64) uint16_t m[kTileBlocks][kTileOutputs];
  alignas(64) int8_t sub_scale[kTileOutputs][kMaxGroups];
  alignas(64) uint8_t sub_min[kTileOutputs][kMaxGroups];
};

// kGroup: values that share a weight scale, 16 or 32. kMostQ: no q is above it; of signed bytes
// (xor kSignFlip) 128.
template <size_t kBytesV, size_t kElementsV, size_t kGroupV, int kOffsetV, bool kHasMinV,
          int kMostQV>
struct BlockShape {
  static constexpr size_t kBytes = kBytesV;
  static constexpr size_t kElements = kElementsV;
  static constexpr size_t kGroup = kGroupV;
  static constexpr bool kHasMin = kHasMinV;
  static constexpr int kMostQ = kMostQV;
  static constexpr bool kSigned = kMostQ == 128;
  static constexpr int kOffset = kSigned ? kSignedOffset : kOffsetV;
};

template <TensorType kType>
struct Block;

// Up to 32 bytes at a time; on the scalar target, the four of a word.
#if HWY_TARGET == HWY_SCALAR
using DPart = hn::CappedTag<uint32_t, 1>;
#else
using DPart = hn::CappedTag<uint8_t, 32>;
#endif
using VPart = hn::Vec<DPart>;
inline constexpr size_t kPartBytes = HWY_TARGET == HWY_SCALAR ? 4 : hn::MaxLanes(DPart());

HWY_INLINE VPart LoadPart(const uint8_t* from) { return LoadBytes(DPart(), from); }
HWY_INLINE void StorePart(VPart v, uint8_t* to) {
#if HWY_TARGET == HWY_SCALAR
  std::memcpy(to, &v.raw, sizeof(v.raw));
#else
  hn::StoreU(v, DPart(), to);
#endif
}
// The byte in all places.
HWY_INLINE VPart SetPart(uint8_t byte) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(DPart(), byte * 0x01010101U);
#else
  return hn::Set(DPart(), byte);
#endif
}

// q[i] = body(from[i]) for 32 bytes.
template <class Body>
HWY_INLINE void Map32(const uint8_t* from, uint8_t* q, Body body) {
  HWY_UNROLL(2)
  for (size_t i = 0; i < 32; i += kPartBytes) StorePart(body(LoadPart(from + i)), q + i);
}

// The same of two bytes.
template <class Body>
HWY_INLINE void Map32(const uint8_t* from, const uint8_t* from2, uint8_t* q, Body body) {
  HWY_UNROLL(2)
  for (size_t i = 0; i < 32; i += kPartBytes) {
    StorePart(body(LoadPart(from + i), LoadPart(from2 + i)), q + i);
  }
}

// (v >> kShift) & mask. Shifts of bytes are shifts of wider lanes and a mask: one mask serves both.
template <int kShift>
HWY_INLINE VPart Bits(VPart v, uint8_t mask) {
#if HWY_TARGET == HWY_SCALAR
  return hn::And(hn::ShiftRight<kShift>(v), SetPart(mask));
#else
  const DPart d;
  const hn::Repartition<uint16_t, DPart> d16;
  return hn::And(hn::BitCast(d, hn::ShiftRight<kShift>(hn::BitCast(d16, v))), hn::Set(d, mask));
#endif
}

// (v & mask) moved up by kShift.
template <int kShift>
HWY_INLINE VPart BitsUp(VPart v, uint8_t mask) {
  const VPart masked = hn::And(v, SetPart(mask));
#if HWY_TARGET == HWY_SCALAR
  return hn::ShiftLeft<kShift>(masked);
#else
  const DPart d;
  const hn::Repartition<uint16_t, DPart> d16;
  return hn::BitCast(d, hn::ShiftLeft<kShift>(hn::BitCast(d16, masked)));
#endif
}

HWY_INLINE void UnpackNibbles(const uint8_t* packed, uint8_t* q) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t i = 0; i < 16; i += kPartBytes) {
    const VPart v = LoadPart(packed + i);
    StorePart(Bits<0>(v, 15), q + i);
    StorePart(Bits<4>(v, 15), q + 16 + i);
  }
#else
  const hn::CappedTag<uint8_t, 16> d;
  HWY_UNROLL(1)
  for (size_t i = 0; i < 16; i += hn::Lanes(d)) {
    const auto v = hn::LoadU(d, packed + i);
    hn::StoreU(hn::And(v, hn::Set(d, 15)), d, q + i);
    hn::StoreU(hn::ShiftRight<4>(v), d, q + 16 + i);
  }
#endif
}

// The fifth bits of a block of 32: bit i belongs to value i.
HWY_INLINE void AddFifthBits(const uint8_t* bits, uint8_t* q) {
#if HWY_TARGET == HWY_SCALAR
  const uint32_t high = LoadU32(bits);
  for (uint32_t i = 0; i < 32; i += 4) {
    // Four bits, one to a byte: bit j comes to 8 j by a shift of 7 j, and the shifts do not meet.
    const uint32_t spread = (((high >> i) & 15U) * 0x00204081U) & 0x01010101U;
    StorePart(hn::Or(LoadPart(q + i), hn::Set(DPart(), spread << 4)), q + i);
  }
#else
  alignas(16) static constexpr uint8_t kByteOf[32] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1,
                                                      1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2,
                                                      2, 2, 3, 3, 3, 3, 3, 3, 3, 3};
  alignas(16) static constexpr uint8_t kBitOf[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                                     1, 2, 4, 8, 16, 32, 64, 128};
  const hn::FixedTag<uint8_t, 16> d;
  const hn::FixedTag<uint32_t, 4> d32;
  const auto all = hn::BitCast(d, hn::Set(d32, LoadU32(bits)));
  const auto bit = hn::Load(d, kBitOf);
  HWY_UNROLL(2)
  for (size_t i = 0; i < 32; i += 16) {
    const auto mine = hn::And(hn::TableLookupBytes(all, hn::Load(d, kByteOf + i)), bit);
    const auto set = hn::VecFromMask(d, hn::Eq(mine, bit));
    hn::StoreU(hn::Or(hn::LoadU(d, q + i), hn::And(set, hn::Set(d, 16))), d, q + i);
  }
#endif
}

template <>
struct Block<TensorType::kQ8_0> : BlockShape<34, 32, 32, 0, false, 128> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t b, Tile& tile) {
    tile.d[b][o] = LoadU16(block);
    Map32(block + 2, tile.q[o] + b * kBlock,
          [](VPart v) HWY_ATTR { return hn::Xor(v, SetPart(kSignFlip)); });
  }
};

template <>
struct Block<TensorType::kQ4_0> : BlockShape<18, 32, 32, 8, false, 15> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t b, Tile& tile) {
    tile.d[b][o] = LoadU16(block);
    UnpackNibbles(block + 2, tile.q[o] + b * kBlock);
  }
};

template <>
struct Block<TensorType::kQ4_1> : BlockShape<20, 32, 32, 0, true, 15> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t b, Tile& tile) {
    tile.d[b][o] = LoadU16(block);
    tile.m[b][o] = LoadU16(block + 2);
    UnpackNibbles(block + 4, tile.q[o] + b * kBlock);
  }
};

template <>
struct Block<TensorType::kQ5_0> : BlockShape<22, 32, 32, 16, false, 31> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t b, Tile& tile) {
    tile.d[b][o] = LoadU16(block);
    UnpackNibbles(block + 6, tile.q[o] + b * kBlock);
    AddFifthBits(block + 2, tile.q[o] + b * kBlock);
  }
};

template <>
struct Block<TensorType::kQ5_1> : BlockShape<24, 32, 32, 0, true, 31> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t b, Tile& tile) {
    tile.d[b][o] = LoadU16(block);
    tile.m[b][o] = LoadU16(block + 2);
    UnpackNibbles(block + 8, tile.q[o] + b * kBlock);
    AddFifthBits(block + 4, tile.q[o] + b * kBlock);
  }
};

// The 16 values a nibble of IQ4_NL and IQ4_XS stands for.
inline constexpr int8_t kNonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

HWY_INLINE void LookUpNonlinear(uint8_t* q) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(kNonlinear[q[i]]) ^ kSignFlip;
#else
  const hn::FixedTag<uint8_t, 16> d8;
  const auto table =
      hn::Xor(hn::LoadU(d8, reinterpret_cast<const uint8_t*>(kNonlinear)), hn::Set(d8, kSignFlip));
  hn::StoreU(hn::TableLookupBytes(table, hn::LoadU(d8, q)), d8, q);
  hn::StoreU(hn::TableLookupBytes(table, hn::LoadU(d8, q + 16)), d8, q + 16);
#endif
}

template <>
struct Block<TensorType::kIQ4_NL> : BlockShape<18, 32, 32, 0, false, 128> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t b, Tile& tile) {
    tile.d[b][o] = LoadU16(block);
    uint8_t* q = tile.q[o] + b * kBlock;
    UnpackNibbles(block + 2, q);
    LookUpNonlinear(q);
  }
};

// d, scales_h[2], scales_l[4], qs[128]: a 6-bit scale minus 32 for each 32 values.
template <>
struct Block<TensorType::kIQ4_XS> : BlockShape<136, 256, 32, 0, false, 128> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    tile.d[0][o] = LoadU16(block);
    const uint32_t high = LoadU16(block + 2);
    const uint32_t low = LoadU32(block + 4);
    for (uint32_t g = 0; g < 8; ++g) {
      const uint32_t six_bits = ((low >> (4 * g)) & 15U) | (((high >> (2 * g)) & 3U) << 4);
      tile.sub_scale[o][g] = static_cast<int8_t>(static_cast<int>(six_bits) - 32);
      uint8_t* q = tile.q[o] + g * 32;
      UnpackNibbles(block + 8 + g * 16, q);
      LookUpNonlinear(q);
    }
  }
};

// scales[16] (low nibble scale, high nibble min), qs[64], d, dmin: 2 bits a value, groups of 16.
template <>
struct Block<TensorType::kQ2_K> : BlockShape<84, 256, 16, 0, true, 3> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    tile.d[0][o] = LoadU16(block + 80);
    tile.m[0][o] = LoadU16(block + 82);
    for (size_t g = 0; g < 16; ++g) tile.sub_scale[o][g] = static_cast<int8_t>(block[g] & 15);
    for (size_t g = 0; g < 16; ++g) tile.sub_min[o][g] = block[g] >> 4;
    HWY_UNROLL(2)
    for (size_t half = 0; half < 2; ++half) {
      uint8_t* q = tile.q[o] + half * 128;
      const uint8_t* two_bits = block + 16 + half * 32;
      Map32(two_bits, q, [](VPart v) HWY_ATTR { return Bits<0>(v, 3); });
      Map32(two_bits, q + 32, [](VPart v) HWY_ATTR { return Bits<2>(v, 3); });
      Map32(two_bits, q + 64, [](VPart v) HWY_ATTR { return Bits<4>(v, 3); });
      Map32(two_bits, q + 96, [](VPart v) HWY_ATTR { return Bits<6>(v, 3); });
    }
  }
};

// hmask[32], qs[64], scales[12], d: 3 bits a value minus 4; 16 6-bit scales minus 32.
template <>
struct Block<TensorType::kQ3_K> : BlockShape<110, 256, 16, 4, false, 7> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    tile.d[0][o] = LoadU16(block + 108);
    // Low nibbles of scales 0-7 and 8-15, then their high bit pairs; four at a time in a word.
    const uint32_t low[2] = {LoadU32(block + 96), LoadU32(block + 100)};
    const uint32_t high = LoadU32(block + 104);
    for (uint32_t part = 0; part < 4; ++part) {
      const uint32_t nibbles = (low[part % 2] >> (part / 2 * 4)) & 0x0F0F0F0FU;
      const uint32_t six_bits = nibbles | (((high >> (2 * part)) & 0x03030303U) << 4);
      // Minus 32 in each byte without a borrow between them: bytes are below 64.
      const uint32_t scales = ((six_bits | 0x80808080U) - 0x20202020U) ^ 0x80808080U;
      std::memcpy(tile.sub_scale[o] + 4 * part, &scales, sizeof(scales));
    }
    UnpackHalf<0>(block, block + 32, tile.q[o]);
    UnpackHalf<4>(block, block + 64, tile.q[o] + 128);
  }

  // 128 values: the bit pairs of 32 bytes, and bits kFirstBit.. of the 32 bytes of third bits.
  template <int kFirstBit>
  static HWY_INLINE void UnpackHalf(const uint8_t* third, const uint8_t* two_bits, uint8_t* q) {
    UnpackPart<0, kFirstBit>(two_bits, third, q);
    UnpackPart<2, kFirstBit + 1>(two_bits, third, q + 32);
    UnpackPart<4, kFirstBit + 2>(two_bits, third, q + 64);
    UnpackPart<6, kFirstBit + 3>(two_bits, third, q + 96);
  }
  template <int kShift, int kBit>
  static HWY_INLINE void UnpackPart(const uint8_t* two_bits, const uint8_t* third, uint8_t* q) {
    Map32(two_bits, third, q, [](VPart v, VPart t) HWY_ATTR {
      return hn::Or(Bits<kShift>(v, 3), BitsUp<2>(Bits<kBit>(t, 1), 1));
    });
  }
};

// The 12 bytes of Q4_K and Q5_K: 8 scales and 8 mins of 6 bits. The first four of each are whole in
// the low bits of bytes 0-3 and 4-7; the last four have their low nibbles in bytes 8-11 and their
// high two bits above the first. Four at a time in the bytes of a word.
HWY_INLINE void UnpackSixBits(const uint8_t* packed, size_t o, Tile& tile) {
  const uint32_t a = LoadU32(packed);
  const uint32_t b = LoadU32(packed + 4);
  const uint32_t c = LoadU32(packed + 8);
  const uint32_t scales[2] = {a & 0x3F3F3F3FU, (c & 0x0F0F0F0FU) | ((a >> 2) & 0x30303030U)};
  const uint32_t mins[2] = {b & 0x3F3F3F3FU, ((c >> 4) & 0x0F0F0F0FU) | ((b >> 2) & 0x30303030U)};
  std::memcpy(tile.sub_scale[o], scales, 8);
  std::memcpy(tile.sub_min[o], mins, 8);
}

// d, dmin, scales[12], qs[128]: 64 values in 32 bytes, low nibbles first.
template <>
struct Block<TensorType::kQ4_K> : BlockShape<144, 256, 32, 0, true, 15> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    Scales(block, o, 0, tile);
    HWY_UNROLL(4)
    for (size_t part = 0; part < 4; ++part) {
      const uint8_t* nibbles = block + 16 + part * 32;
      uint8_t* q = tile.q[o] + part * 64;
      Map32(nibbles, q, [](VPart v) HWY_ATTR { return Bits<0>(v, 15); });
      Map32(nibbles, q + 32, [](VPart v) HWY_ATTR { return Bits<4>(v, 15); });
    }
  }
  static HWY_INLINE void Scales(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    tile.d[0][o] = LoadU16(block);
    tile.m[0][o] = LoadU16(block + 2);
    UnpackSixBits(block + 4, o, tile);
  }
};

// d, dmin, scales[12], qh[32], qs[128]: Q4_K with a fifth bit, bit j of qh[i] for value 32 j + i.
template <>
struct Block<TensorType::kQ5_K> : BlockShape<176, 256, 32, 0, true, 31> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    tile.d[0][o] = LoadU16(block);
    tile.m[0][o] = LoadU16(block + 2);
    UnpackSixBits(block + 4, o, tile);
    UnpackPart<0>(block, tile.q[o]);
    UnpackPart<2>(block, tile.q[o]);
    UnpackPart<4>(block, tile.q[o]);
    UnpackPart<6>(block, tile.q[o]);
  }

  // Values [32 kBit, 32 kBit + 64).
  template <int kBit>
  static HWY_INLINE void UnpackPart(const uint8_t* block, uint8_t* q) {
    const uint8_t* nibbles = block + 48 + kBit * 16;
    Map32(nibbles, block + 16, q + 32 * kBit, [](VPart v, VPart high) HWY_ATTR {
      return hn::Or(Bits<0>(v, 15), BitsUp<4>(Bits<kBit>(high, 1), 1));
    });
    Map32(nibbles, block + 16, q + 32 * kBit + 32, [](VPart v, VPart high) HWY_ATTR {
      return hn::Or(Bits<4>(v, 15), BitsUp<4>(Bits<kBit + 1>(high, 1), 1));
    });
  }
};

// ql[128], qh[64], scales[16], d: 6 bits a value minus 32, groups of 16 with a signed 8-bit scale.
template <>
struct Block<TensorType::kQ6_K> : BlockShape<210, 256, 16, 32, false, 63> {
  static HWY_INLINE void Unpack(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    Scales(block, o, 0, tile);
    HWY_UNROLL(2)
    for (size_t half = 0; half < 2; ++half) {
      uint8_t* q = tile.q[o] + half * 128;
      const uint8_t* low = block + half * 64;
      const uint8_t* high = block + 128 + half * 32;
      Map32(low, high, q,
            [](VPart v, VPart h) HWY_ATTR { return hn::Or(Bits<0>(v, 15), BitsUp<4>(h, 3)); });
      Map32(low + 32, high, q + 32,
            [](VPart v, VPart h) HWY_ATTR { return hn::Or(Bits<0>(v, 15), BitsUp<2>(h, 12)); });
      Map32(low, high, q + 64,
            [](VPart v, VPart h) HWY_ATTR { return hn::Or(Bits<4>(v, 15), Bits<0>(h, 48)); });
      Map32(low + 32, high, q + 96,
            [](VPart v, VPart h) HWY_ATTR { return hn::Or(Bits<4>(v, 15), Bits<2>(h, 48)); });
    }
  }
  static HWY_INLINE void Scales(const uint8_t* block, size_t o, size_t /*b*/, Tile& tile) {
    tile.d[0][o] = LoadU16(block + 208);
    std::memcpy(tile.sub_scale[o], block + 192, 16);
  }
};

// Rows of a tile follow each other in memory and so do tiles: fetch the same place one tile on.
template <class Shape>
HWY_INLINE void PrefetchNextTile(const uint8_t* row, size_t row_bytes) {
  const uintptr_t ahead = reinterpret_cast<uintptr_t>(row) + kTileOutputs * row_bytes;
  HWY_UNROLL(8)
  for (size_t byte = 0; byte < Shape::kBytes * (kTileColumns / Shape::kElements); byte += 64) {
    PrefetchLine(ahead + byte);
  }
}

// Of the bytes [ahead, ahead + kTileOutputs * n_blocks * kBytes) the b-th of n_blocks parts. A few
// lines with each product: all at once they would fill the processor's buffers for misses, which
// would then lie idle while it computes.
template <class Shape>
HWY_INLINE void PrefetchPart(uintptr_t ahead, size_t b) {
  constexpr size_t kPart = kTileOutputs * Shape::kBytes / (Shape::kElements / kBlock);
  HWY_UNROLL(16)
  for (size_t byte = 0; byte < kPart; byte += 64) PrefetchLine(ahead + b * kPart + byte);
}

// Calls body(block, o, b) for the blocks of a tile: outputs [0, n_outputs) of rows row_bytes apart,
// the blocks of 32 [0, n_blocks) from `weights` on.
template <class Shape, bool kPrefetch, class Body>
HWY_INLINE void ForEachBlock(const uint8_t* weights, size_t row_bytes, size_t n_outputs,
                             size_t n_blocks, Body body) {
  for (size_t o = 0; o < n_outputs; ++o) {
    const uint8_t* row = weights + o * row_bytes;
    if constexpr (kPrefetch) PrefetchNextTile<Shape>(row, row_bytes);
    if constexpr (Shape::kElements == kBlock) {
      if (n_blocks == kTileBlocks) {
        HWY_UNROLL(8)
        for (size_t b = 0; b < kTileBlocks; ++b) body(row + b * Shape::kBytes, o, b);
      } else {
        for (size_t b = 0; b < n_blocks; ++b) body(row + b * Shape::kBytes, o, b);
      }
    } else {
      body(row, o, size_t{0});
    }
  }
}

// Outputs beyond n_outputs keep what the tile held; their results are not used.
template <class Shape>
HWY_INLINE void UnpackTile(const uint8_t* weights, size_t row_bytes, size_t n_outputs,
                           size_t n_blocks, Tile& tile) {
  ForEachBlock<Shape, true>(weights, row_bytes, n_outputs, n_blocks,
                            [&tile](const uint8_t* block, size_t o, size_t b)
                                HWY_ATTR { Shape::Unpack(block, o, b, tile); });
}

}  // namespace HWY_NAMESPACE
}  // namespace thimble
HWY_AFTER_NAMESPACE();

#endif  // toggle
