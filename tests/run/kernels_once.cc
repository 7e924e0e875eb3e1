// One product, some number of times: what scripts/count-arm has an emulator count the instructions
// of.
//   kernels_once TYPE COLUMNS OUTPUTS ROWS REPEATS
// Prints the sum of the results' bits, which is the same for every way to compute the same floats.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "daemon/run/kernels.h"

namespace thimble {
namespace {

int Run(const std::string& name, size_t columns, size_t n_outputs, size_t n_rows, int repeats) {
  uint32_t number = 0;
  while (number < 40 && (FindTensorType(number) == nullptr || FindTensorType(number)->name != name))
    ++number;
  if (number == 40 || columns == 0 || columns % FindTensorType(number)->block_elements != 0)
    return 2;
  const auto type = static_cast<TensorType>(number);
  std::vector<uint8_t> w(n_outputs * RowBytes(type, columns));
  uint32_t state = 1;
  for (uint8_t& byte : w) {
    state = state * 1664525U + 1013904223U;
    byte = (static_cast<uint8_t>(state >> 24) & 0x1B) | 0x20;  // as halves: 2^-7 to 1
  }
  std::vector<float> row(columns);
  const size_t stride = PreparedRowBytes(FormFor(type), columns);
  std::vector<uint8_t> buffer(n_rows * stride + 64);
  uint8_t* x = buffer.data() + (64 - reinterpret_cast<uintptr_t>(buffer.data()) % 64);
  for (size_t r = 0; r < n_rows; ++r) {
    for (size_t i = 0; i < columns; ++i) row[i] = static_cast<float>((i * (r + 3)) % 17) - 8.0F;
    PrepareRow(FormFor(type), row.data(), columns, x + r * stride);
  }
  std::vector<float> y(n_rows * n_outputs);
  for (int i = 0; i < repeats; ++i) {
    MatMul(type, w.data(), n_outputs, columns, x, stride, n_rows, y.data(), n_outputs);
  }
  uint64_t bits = 0;
  for (const float& value : y) {
    uint32_t one;
    std::memcpy(&one, &value, sizeof(one));
    bits = bits * 31 + one;
  }
  std::printf("%s %s %016llx\n", KernelTarget(), name.c_str(),
              static_cast<unsigned long long>(bits));
  return 0;
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const auto number = [argv](int i) { return std::strtoul(argv[i], nullptr, 10); };
  return thimble::Run(argv[1], number(2), number(3), number(4), static_cast<int>(number(5)));
}
