// SPDX-License-Identifier: Apache-2.0
// What the tensor cores and the copy engine do for a warp, each as one function, with the layouts of their
// fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16"): lane l is number l % 4 of group l / 4.
#pragma once

#include <cstdint>

#include "common/numbers.cuh"

namespace ec::cuda {

// Of a (16 rows, 16 columns): rows l / 4 and l / 4 + 8 by turns, columns 2 (l % 4) and + 8, pairs of bf16
// or of float16.
struct FragmentA {
  unsigned pairs[4];
};
// Of b (16 rows, 8 columns), given as its transpose: column l / 4, rows 2 (l % 4) and + 8.
struct FragmentB {
  unsigned pairs[2];
};
// Of c (16 rows, 8 columns): [0, 1] row l / 4, columns 2 (l % 4) and + 1; [2, 3] row l / 4 + 8.
struct FragmentC {
  float numbers[4];
};
// The same of whole numbers, where a and b have bytes for halves of their numbers: twice as many columns
// of a, and rows of b.
struct FragmentI {
  int numbers[4];
};

#if defined(__CUDACC__)

__device__ __forceinline__ void multiply_add(const FragmentA& a, const FragmentB& b, FragmentC& c) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.numbers[0]), "+f"(c.numbers[1]), "+f"(c.numbers[2]), "+f"(c.numbers[3])
      : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]),
        "r"(b.pairs[1]));
}

// The same of float16.
__device__ __forceinline__ void multiply_add(const FragmentA& a, const FragmentB& b, FragmentC& c, Half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.numbers[0]), "+f"(c.numbers[1]), "+f"(c.numbers[2]), "+f"(c.numbers[3])
      : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]),
        "r"(b.pairs[1]));
}
__device__ __forceinline__ void multiply_add(const FragmentA& a, const FragmentB& b, FragmentC& c, BFloat) {
  multiply_add(a, b, c);
}

// Bytes of a have no sign, those of b have.
__device__ __forceinline__ void multiply_add(const FragmentA& a, const FragmentB& b, FragmentI& c) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(c.numbers[0]), "+r"(c.numbers[1]), "+r"(c.numbers[2]), "+r"(c.numbers[3])
      : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]),
        "r"(b.pairs[1]));
}

// Four matrices of 8 rows of 16 bytes each in shared memory; lane l gives the address of row l % 8 of
// matrix l / 8, and gets of each matrix numbers 2 (l % 4) and + 1 of row l / 4.
__device__ __forceinline__ void load_matrices(const void* row, unsigned (&pairs)[4]) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(address)
               : "memory");
}

// The same of the matrices' transposes: numbers 2 (l % 4) and + 1 of column l / 4.
__device__ __forceinline__ void load_matrices_transposed(const void* row, unsigned (&pairs)[4]) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(address)
               : "memory");
}

// kBytes (16, 8 or 4) to shared memory, some time before async_wait for their group returns. from is not
// read where `present` is false: zeros are written.
template <int kBytes = 16>
__device__ __forceinline__ void async_copy(void* to, const void* from, bool present) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = present ? kBytes : 0;
  if constexpr (kBytes == 16)  // past the first cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(address), "l"(from), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;"
                 :
                 : "r"(address), "l"(from), "r"(bytes), "n"(kBytes)
                 : "memory");
}
// Ends a group of copies of this thread.
__device__ __forceinline__ void async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }
// Waits until no more than kLeft groups of this thread are under way.
template <int kLeft>
__device__ __forceinline__ void async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kLeft) : "memory");
}

#else

template <class Number>
float low_of(unsigned pair) {
  return to_float(Number{static_cast<uint16_t>(pair)});
}
template <class Number>
float high_of(unsigned pair) {
  return low_of<Number>(pair >> 16);
}

// term(x, y): what a word of a row and one of a column add to the sum of the two.
template <class Sums, class Term>
void multiply_words(const FragmentA& a, const FragmentB& b, Sums& c, const Term& term,
                    const emulation::Place& place) {
  struct Both {
    FragmentA a;
    FragmentB b;
  };
  const Both own = {a, b};
  const unsigned char* given = emulation::meet(0xffffffffu, &own, sizeof own, place);
  const auto of_lane = [&](int lane) {
    Both both;
    std::memcpy(&both, given + static_cast<size_t>(lane) * emulation::kMostLaneBytes, sizeof both);
    return both;
  };
  const int group = emulation::lane() / 4, number = emulation::lane() % 4;
  for (int half = 0; half < 2; ++half) {
    for (int column = 0; column < 2; ++column) {
      auto sum = c.numbers[2 * half + column];
      for (int step = 0; step < 4; ++step) {  // four lanes of a group hold a row, as they hold a column
        const Both row = of_lane(4 * group + step), other = of_lane(4 * (2 * number + column) + step);
        for (int part = 0; part < 2; ++part) sum += term(row.a.pairs[half + 2 * part], other.b.pairs[part]);
      }
      c.numbers[2 * half + column] = sum;
    }
  }
}

template <class Number>
void multiply_add(const FragmentA& a, const FragmentB& b, FragmentC& c, Number, EC_CALLED_FROM) {
  multiply_words(
      a, b, c,
      [](unsigned x, unsigned y) {
        return low_of<Number>(x) * low_of<Number>(y) + high_of<Number>(x) * high_of<Number>(y);
      },
      EC_HERE);
}

inline void multiply_add(const FragmentA& a, const FragmentB& b, FragmentI& c, EC_CALLED_FROM) {
  multiply_words(
      a, b, c,
      [](unsigned x, unsigned y) {
        int sum = 0;
        for (int at = 0; at < 32; at += 8)
          sum += static_cast<int>(x >> at & 0xffu) * static_cast<int8_t>(y >> at);
        return sum;
      },
      EC_HERE);
}

inline void multiply_add(const FragmentA& a, const FragmentB& b, FragmentC& c, EC_CALLED_FROM) {
  multiply_add(a, b, c, BFloat{}, file, line);
}

inline void load_matrices(const void* row, unsigned (&pairs)[4], EC_CALLED_FROM) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    emulation::refuse("a row of a matrix is not on 16 bytes", EC_HERE);
  const unsigned char* given = emulation::meet(0xffffffffu, row, 16, EC_HERE);
  for (int matrix = 0; matrix < 4; ++matrix) {
    const int from = 8 * matrix + emulation::lane() / 4;
    std::memcpy(&pairs[matrix],
                given + static_cast<size_t>(from) * emulation::kMostLaneBytes + 4 * (emulation::lane() % 4),
                4);
  }
}

inline void load_matrices_transposed(const void* row, unsigned (&pairs)[4], EC_CALLED_FROM) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    emulation::refuse("a row of a matrix is not on 16 bytes", EC_HERE);
  const unsigned char* given = emulation::meet(0xffffffffu, row, 16, EC_HERE);
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t numbers[2];
    for (int i = 0; i < 2; ++i) {
      const int from = 8 * matrix + 2 * (emulation::lane() % 4) + i;
      std::memcpy(
          &numbers[i],
          given + static_cast<size_t>(from) * emulation::kMostLaneBytes + 2 * (emulation::lane() / 4), 2);
    }
    pairs[matrix] = numbers[0] | static_cast<unsigned>(numbers[1]) << 16;
  }
}

template <int kBytes = 16>
void async_copy(void* to, const void* from, bool present, EC_CALLED_FROM) {
  if (reinterpret_cast<uintptr_t>(to) % kBytes != 0 ||
      (present && reinterpret_cast<uintptr_t>(from) % kBytes != 0))
    emulation::refuse("what is copied asynchronously is not on as many bytes", EC_HERE);
  emulation::async_copy(to, present ? from : nullptr, kBytes);
}
inline void async_commit() { emulation::async_commit(); }
template <int kLeft>
void async_wait() {
  emulation::async_wait(kLeft);
}

#endif

}  // namespace ec::cuda
