// libFuzzer target: any bytes as a model file. Start it with files of tests/data as the corpus:
//   cmake -B build/fuzz -DCMAKE_CXX_COMPILER=clang++-14 -DTHIMBLE_FUZZ=ON
//         -DCMAKE_CXX_FLAGS=-fsanitize=fuzzer-no-link,address,undefined
//   ninja -C build/fuzz gguf_fuzz && build/fuzz/gguf_fuzz -max_len=65536 corpus/
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "daemon/model/model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = thimble::MemoryFile(std::as_bytes(std::span(data, size)));
  const auto model = thimble::LoadModel(*file);
  if (!model.ok()) return 0;
  for (const thimble::TensorInfo& tensor : (*model)->gguf.tensors) {
    if (tensor.offset > size || tensor.bytes > size - tensor.offset) std::abort();
  }
  return 0;
}
