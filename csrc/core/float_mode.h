// SPDX-License-Identifier: Apache-2.0
// Rounding and denormal mode of a thread. Workers take the caller's, so that a result does not
// depend on which thread made it.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ec {

#if defined(__x86_64__)
using FloatMode = uint32_t;
constexpr uint32_t kExceptionFlags = 0x3f;  // sticky; they are no part of the mode
inline FloatMode float_mode() { return _mm_getcsr() & ~kExceptionFlags; }
inline void set_float_mode(FloatMode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
using FloatMode = uint64_t;
inline FloatMode float_mode() {
  uint64_t mode = 0;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#endif

}  // namespace ec
