// SPDX-License-Identifier: Apache-2.0
// The few lines of test framework that the native tests need.
#pragma once

#include <cstdio>

namespace check {

inline int& failures() {
  static int count = 0;
  return count;
}

inline void that(bool holds, const char* text, const char* file, int line) {
  if (holds) return;
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
  ++failures();
}

inline int report() {
  if (failures() == 0) return 0;
  std::fprintf(stderr, "%d checks failed\n", failures());
  return 1;
}

}  // namespace check

#define CHECK(condition) check::that((condition), #condition, __FILE__, __LINE__)
