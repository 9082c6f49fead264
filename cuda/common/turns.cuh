// SPDX-License-Identifier: Apache-2.0
// Blocks of one launch that take turns. The emulation runs them one after another: who waits there for a
// turn that has not come would wait for ever.
#pragma once

#include "common/platform.h"

namespace ec::cuda {

#if defined(__CUDACC__)

// By all threads of a block, until a turn has come; they see all that was written before it was given.
__device__ __forceinline__ void wait_for_turn(const int* turn, int number) {
  if (threadIdx.x == 0) {
    int now;
    for (;;) {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
      if (now == number) break;
      __nanosleep(100);
    }
  }
  __syncthreads();
}
// By all threads, when what they have written is for the next to see.
__device__ __forceinline__ void give_turn(int* turn, int number) {
  __syncthreads();
  if (threadIdx.x == 0)
    asm volatile("st.release.gpu.global.s32 [%0], %1;" : : "l"(turn), "r"(number) : "memory");
}

#else

inline void wait_for_turn(const int* turn, int number, EC_CALLED_FROM) {
  if (*turn != number) emulation::refuse("a block waits for one that has not run", EC_HERE);
  __syncthreads(file, line);
}
inline void give_turn(int* turn, int number, EC_CALLED_FROM) {
  __syncthreads(file, line);
  if (threadIdx.x == 0) *turn = number;
}

#endif

}  // namespace ec::cuda
