// Counts the bytes that operator new has given out in this program, to test that a claim in a file
// never becomes an allocation. Linking heap_watch.cc replaces operator new.
#pragma once

#include <cstddef>

namespace thimble {

// The most that was held at once since HeapWatch was made, beyond what was held then.
class HeapWatch {
 public:
  HeapWatch();
  [[nodiscard]] size_t peak_bytes() const;

 private:
  size_t start_;
};

}  // namespace thimble
