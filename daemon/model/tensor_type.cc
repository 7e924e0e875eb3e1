// The table of tensor types. Called by: GGUF parsing, the plan, the kernels. Memory: static only.
#include "daemon/model/tensor_type.h"

#include <array>
#include <cassert>

namespace thimble {
namespace {

// Indexed by ggml's number; a hole has block_elements 0. Sizes as in ggml-common.h: a block of 32
// has one or two half floats before (or, in the K types of 256, beside 4- to 8-bit sub-scales) its
// values.
constexpr std::array<TensorTypeTraits, 31> kTypes = [] {
  std::array<TensorTypeTraits, 31> types{};
  auto set = [&types](TensorType type, TensorTypeTraits traits) {
    types[static_cast<uint32_t>(type)] = traits;
  };
  set(TensorType::kF32, {"F32", 1, 4, false});
  set(TensorType::kF16, {"F16", 1, 2, false});
  set(TensorType::kQ4_0, {"Q4_0", 32, 2 + 16, true});
  set(TensorType::kQ4_1, {"Q4_1", 32, 2 + 2 + 16, true});
  set(TensorType::kQ5_0, {"Q5_0", 32, 2 + 4 + 16, true});
  set(TensorType::kQ5_1, {"Q5_1", 32, 2 + 2 + 4 + 16, true});
  set(TensorType::kQ8_0, {"Q8_0", 32, 2 + 32, true});
  set(TensorType::kQ2_K, {"Q2_K", 256, 16 + 64 + 2 + 2, true});
  set(TensorType::kQ3_K, {"Q3_K", 256, 32 + 64 + 12 + 2, true});
  set(TensorType::kQ4_K, {"Q4_K", 256, 2 + 2 + 12 + 128, true});
  set(TensorType::kQ5_K, {"Q5_K", 256, 2 + 2 + 12 + 32 + 128, true});
  set(TensorType::kQ6_K, {"Q6_K", 256, 128 + 64 + 16 + 2, true});
  set(TensorType::kIQ4_NL, {"IQ4_NL", 32, 2 + 16, true});
  set(TensorType::kIQ4_XS, {"IQ4_XS", 256, 2 + 2 + 4 + 128, true});
  set(TensorType::kBF16, {"BF16", 1, 2, false});
  return types;
}();

}  // namespace

const TensorTypeTraits* FindTensorType(uint32_t ggml_type) {
  if (ggml_type >= kTypes.size() || kTypes[ggml_type].block_elements == 0) return nullptr;
  return &kTypes[ggml_type];
}

const TensorTypeTraits& Traits(TensorType type) {
  const TensorTypeTraits* traits = FindTensorType(static_cast<uint32_t>(type));
  assert(traits != nullptr);
  return *traits;
}

}  // namespace thimble
