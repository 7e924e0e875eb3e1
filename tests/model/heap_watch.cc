#include "tests/model/heap_watch.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {
size_t held = 0;
size_t peak = 0;
}  // namespace

void* operator new(size_t bytes) {
  void* memory = std::malloc(std::max<size_t>(bytes, 1));
  if (memory == nullptr) throw std::bad_alloc();
  held += malloc_usable_size(memory);
  peak = std::max(peak, held);
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory != nullptr) held -= malloc_usable_size(memory);
  std::free(memory);
}
void operator delete(void* memory, size_t /*bytes*/) noexcept { operator delete(memory); }

namespace thimble {

HeapWatch::HeapWatch() : start_(held) { peak = held; }
size_t HeapWatch::peak_bytes() const { return peak - start_; }

}  // namespace thimble
