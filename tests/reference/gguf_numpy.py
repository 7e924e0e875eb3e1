"""GGUF files in NumPy: a reader, a writer, and what each tensor type's blocks mean.

Written from the format's definition and apart from daemon/model, so that the tests compare the engine
with something that does not share its mistakes. Called by forward.py, make_model.py and the tests.
Memory: the whole file, and tensors dequantized to float64.
"""

import struct

import numpy as np

MAGIC = b"GGUF"

# Value types of the metadata.
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
_SCALARS = {UINT8: "<B", INT8: "<b", UINT16: "<H", INT16: "<h", UINT32: "<I", INT32: "<i",
            FLOAT32: "<f", BOOL: "<?", UINT64: "<Q", INT64: "<q", FLOAT64: "<d"}

# name: (ggml's number, values of a block, bytes of a block)
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84),
    "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "IQ4_NL": (20, 32, 18),
    "IQ4_XS": (23, 256, 136),
    "BF16": (30, 1, 2),
}
_NAMES = {number: name for name, (number, _, _) in TYPES.items()}

# The sixteen values that the IQ4 types choose among.
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
                      dtype=np.float64)


def _f16(blocks, at):
    """The little-endian half at byte `at` of every block, as a float64 column [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at:at + 2]).view("<f2").astype(np.float64)


def _nibbles(packed):
    """[n, k] bytes to [n, 2k]: all low halves, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float64)


def _bits32(blocks, at):
    """The 32 bits of the four bytes at `at`, lowest first: [n, 32]."""
    return np.unpackbits(blocks[:, at:at + 4], axis=1, bitorder="little").astype(np.float64)


def _k4_scales(packed):
    """Twelve bytes to eight 6-bit scales and eight 6-bit minima, as Q4_K and Q5_K pack them."""
    p = packed.astype(np.int64)
    low, mid, high = p[:, 0:4], p[:, 4:8], p[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=1)
    minima = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], axis=1)
    return scales.astype(np.float64), minima.astype(np.float64)


def _k4_nibbles(qs):
    """128 bytes to [n, 8, 32]: each 32 bytes hold two runs of 32, low halves first."""
    q = qs.reshape(len(qs), 4, 1, 32)
    return np.concatenate([q & 15, q >> 4], axis=2).reshape(len(qs), 8, 32)


def _q4_0(b):
    return _f16(b, 0) * (_nibbles(b[:, 2:18]) - 8)


def _q4_1(b):
    return _f16(b, 0) * _nibbles(b[:, 4:20]) + _f16(b, 2)


def _q5_0(b):
    return _f16(b, 0) * (_nibbles(b[:, 6:22]) + 16 * _bits32(b, 2) - 16)


def _q5_1(b):
    return _f16(b, 0) * (_nibbles(b[:, 8:24]) + 16 * _bits32(b, 4)) + _f16(b, 2)


def _q8_0(b):
    return _f16(b, 0) * b[:, 2:34].view(np.int8).astype(np.float64)


def _two_bits(qs):
    """64 bytes to [n, 16, 16]: each half of 128 values has four planes of 32 two-bit numbers."""
    q = qs.reshape(len(qs), 2, 1, 32)
    planes = np.concatenate([(q >> shift) & 3 for shift in (0, 2, 4, 6)], axis=2)
    return planes.reshape(len(qs), 16, 16).astype(np.float64)


def _q2_k(b):
    scales = (b[:, 0:16] & 15).astype(np.float64)
    minima = (b[:, 0:16] >> 4).astype(np.float64)
    q = _two_bits(b[:, 16:80])
    d, dmin = _f16(b, 80), _f16(b, 82)
    return ((d * scales)[:, :, None] * q - (dmin * minima)[:, :, None]).reshape(len(b), 256)


def _q3_k(b):
    packed = b[:, 96:108].astype(np.int64)
    low = np.concatenate([packed[:, 0:8] & 15, packed[:, 0:8] >> 4], axis=1)
    high = np.concatenate([(packed[:, 8:12] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales = (low | (high << 4)).astype(np.float64) - 32
    # Bit k of byte l belongs to value l of the k-th run of 32; where it is clear, 4 is taken off.
    mask = np.stack([(b[:, 0:32] >> k) & 1 for k in range(8)], axis=1).reshape(len(b), 16, 16)
    q = _two_bits(b[:, 32:96]) - 4 * (1 - mask.astype(np.float64))
    return ((_f16(b, 108) * scales)[:, :, None] * q).reshape(len(b), 256)


def _q4_k(b):
    scales, minima = _k4_scales(b[:, 4:16])
    q = _k4_nibbles(b[:, 16:144]).astype(np.float64)
    return ((_f16(b, 0) * scales)[:, :, None] * q
            - (_f16(b, 2) * minima)[:, :, None]).reshape(len(b), 256)


def _q5_k(b):
    scales, minima = _k4_scales(b[:, 4:16])
    fifth = np.stack([(b[:, 16:48] >> k) & 1 for k in range(8)], axis=1).astype(np.float64)
    q = _k4_nibbles(b[:, 48:176]).astype(np.float64) + 16 * fifth
    return ((_f16(b, 0) * scales)[:, :, None] * q
            - (_f16(b, 2) * minima)[:, :, None]).reshape(len(b), 256)


def _q6_k(b):
    n = len(b)
    low = b[:, 0:128].reshape(n, 2, 64)
    high = b[:, 128:192].reshape(n, 2, 32)
    runs = [(low[:, :, 0:32] & 15) | ((high & 3) << 4),
            (low[:, :, 32:64] & 15) | (((high >> 2) & 3) << 4),
            (low[:, :, 0:32] >> 4) | (((high >> 4) & 3) << 4),
            (low[:, :, 32:64] >> 4) | ((high >> 6) << 4)]
    q = np.stack(runs, axis=2).reshape(n, 16, 16).astype(np.float64) - 32
    scales = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float64)
    return ((_f16(b, 208) * scales)[:, :, None] * q).reshape(n, 256)


def _iq4_nl(b):
    return _f16(b, 0) * IQ4_VALUES[_nibbles(b[:, 2:18]).astype(np.int64)]


def _iq4_xs(b):
    n = len(b)
    high = np.ascontiguousarray(b[:, 2:4]).view("<u2").astype(np.int64)  # [n, 1]
    low = b[:, 4:8].astype(np.int64)
    scales = np.stack([((low[:, i // 2] >> (4 * (i % 2))) & 15) | (((high[:, 0] >> (2 * i)) & 3) << 4)
                       for i in range(8)], axis=1).astype(np.float64) - 32
    q = b[:, 8:136].reshape(n * 8, 16)
    values = IQ4_VALUES[_nibbles(q).astype(np.int64)].reshape(n, 8, 32)
    return ((_f16(b, 0) * scales)[:, :, None] * values).reshape(n, 256)


_DEQUANTIZE = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
               "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
               "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs}


def dequantize(type_name, data):
    """The values of `data` (whole blocks of the type, bytes), exactly, as a flat float64 array."""
    if type_name == "F32":
        return np.frombuffer(data, "<f4").astype(np.float64)
    if type_name == "F16":
        return np.frombuffer(data, "<f2").astype(np.float64)
    if type_name == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    _, _, block_bytes = TYPES[type_name]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, block_bytes)
    return _DEQUANTIZE[type_name](blocks).reshape(-1)


class Tensor:
    """`shape` is NumPy's order: [rows, columns] for a matrix, [length] for a vector."""

    def __init__(self, type_name, shape, data):
        self.type_name, self.shape, self.data = type_name, tuple(shape), bytes(data)

    def values(self):
        return dequantize(self.type_name, self.data).reshape(self.shape)


class Reader:
    def __init__(self, path):
        with open(path, "rb") as file:
            self._bytes = file.read()
        self._at = 0
        if self._take(4) != MAGIC:
            raise ValueError(f"{path}: not a GGUF file")
        self.version = self._number("<I")
        n_tensors, n_keys = self._number("<Q"), self._number("<Q")
        self.metadata = {}
        for _ in range(n_keys):
            key = self._string()
            self.metadata[key] = self._value(self._number("<I"))
        entries = []
        for _ in range(n_tensors):
            name = self._string()
            shape = [self._number("<Q") for _ in range(self._number("<I"))]
            entries.append((name, shape[::-1], _NAMES[self._number("<I")], self._number("<Q")))
        alignment = self.metadata.get("general.alignment", 32)
        base = (self._at + alignment - 1) // alignment * alignment
        self.tensors = {}
        for name, shape, type_name, offset in entries:
            _, values, size = TYPES[type_name]
            length = int(np.prod(shape)) // values * size
            start = base + offset
            self.tensors[name] = Tensor(type_name, shape, self._bytes[start:start + length])

    def _take(self, n):
        piece = self._bytes[self._at:self._at + n]
        if len(piece) != n:
            raise ValueError("the file ends inside its header")
        self._at += n
        return piece

    def _number(self, layout):
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _string(self):
        return self._take(self._number("<Q")).decode("utf-8", "surrogateescape")

    def _value(self, kind):
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            element = self._number("<I")
            return [self._value(element) for _ in range(self._number("<Q"))]
        return self._number(_SCALARS[kind])


def _packed_string(text):
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _packed_value(kind, value):
    if kind == STRING:
        return _packed_string(value)
    if kind == ARRAY:
        element, values = value
        return struct.pack("<IQ", element, len(values)) + b"".join(
            _packed_value(element, v) for v in values)
    return struct.pack(_SCALARS[kind], value)


def write(path, metadata, tensors, alignment=32):
    """`metadata`: [(key, kind, value)], an array's value is (element kind, list). `tensors`: {name: Tensor}."""
    header = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, kind, value in metadata:
        header += _packed_string(key) + struct.pack("<I", kind) + _packed_value(kind, value)
    offset = 0
    for name, tensor in tensors.items():
        header += _packed_string(name) + struct.pack("<I", len(tensor.shape))
        header += b"".join(struct.pack("<Q", n) for n in tensor.shape[::-1])
        header += struct.pack("<IQ", TYPES[tensor.type_name][0], offset)
        offset += -(-len(tensor.data) // alignment) * alignment
    header += bytes(-len(header) % alignment)
    with open(path, "wb") as file:
        file.write(header)
        for tensor in tensors.values():
            file.write(tensor.data + bytes(-len(tensor.data) % alignment))
