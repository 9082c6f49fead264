// SPDX-License-Identifier: Apache-2.0
// Products of Hopper with few columns: a has 64 rows, b 16, 32 or 64, of bf16 or of float16 (see
// hopper.cuh). a may be turned: it is given as its transpose then, 16 rows of 64 numbers each, which lie as
// rows of an operand do, and its next 16 rows are kNextTurnedStep further.
//
// Layout of the sums c (64 x 2 n): as of those of 240 columns; a thread has n of them.
#pragma once

#include "common/hopper_tiles.cuh"

namespace ec::cuda {

constexpr uint64_t kNextTurnedStep = kProductSteps * kPanelColumns * sizeof(BFloat) >> 4;

#if defined(__CUDACC__)

// A barrier of so many threads of a block; `number` is theirs, from 1 on.
template <int kThreads>
__device__ __forceinline__ void sync_threads(int number) {
  asm volatile("bar.sync %0, %1;" : : "r"(number), "n"(kThreads) : "memory");
}

// Rows of a map of several arrays (make_tile_map of TiledArrays), from `row` of array number `array` on.
__device__ __forceinline__ void copy_tile(void* to, const TileMap& map, int column, int row, int array,
                                          CopyBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4}], [%5];"
      :
      : "r"(shared_address(to)), "l"(&map), "r"(column), "r"(row), "r"(array), "r"(shared_address(&barrier))
      : "memory");
}

#define EC_EIGHT_OF(how, numbers, i) EC_FOUR_OF(how, numbers, i), EC_FOUR_OF(how, numbers, (i) + 4)
#define EC_8_OF(how, numbers) EC_EIGHT_OF(how, numbers, 0)
#define EC_16_OF(how, numbers) EC_8_OF(how, numbers), EC_EIGHT_OF(how, numbers, 8)
#define EC_32_OF(how, numbers) \
  EC_16_OF(how, numbers), EC_EIGHT_OF(how, numbers, 16), EC_EIGHT_OF(how, numbers, 24)
#define EC_8_PLACES "%0, %1, %2, %3, %4, %5, %6, %7"
#define EC_16_PLACES EC_8_PLACES ", %8, %9, %10, %11, %12, %13, %14, %15"
#define EC_32_PLACES \
  EC_16_PLACES       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

// multiply_tiles<kTurned> and multiply_add_tiles<kTurned> of n numbers of a thread, and of one kind of
// operands; and products_end, which of 32 numbers hopper_tiles.cuh has.
#define EC_FEW_COLUMNS(n, columns, place_a, place_b, place_turned, Number, kind)                           \
  template <bool kTurned>                                                                                  \
  __device__ __forceinline__ void multiply_tiles(float(&numbers)[n], uint64_t a, uint64_t b, Number) {     \
    asm volatile(                                                                                          \
        "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 0, 0;\n"                                       \
        "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." kind "." kind " {" EC_##n##_PLACES          \
        "}, %" place_a ", %" place_b ", accumulate, 1, 1, %" place_turned ", 0;\n}"                        \
        : EC_##n##_OF("=f", numbers)                                                                       \
        : "l"(a), "l"(b), "n"(kTurned ? 1 : 0));                                                           \
  }                                                                                                        \
  template <bool kTurned>                                                                                  \
  __device__ __forceinline__ void multiply_add_tiles(float(&numbers)[n], uint64_t a, uint64_t b, Number) { \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." kind "." kind " {" EC_##n##_PLACES \
                 "}, %" place_a ", %" place_b ", 1, 1, 1, %" place_turned ", 0;"                           \
                 : EC_##n##_OF("+f", numbers)                                                              \
                 : "l"(a), "l"(b), "n"(kTurned ? 1 : 0));                                                  \
  }
#define EC_FEW_COLUMNS_END(n)                                                                   \
  __device__ __forceinline__ void products_end(float(&numbers)[n]) {                            \
    asm volatile("wgmma.wait_group.sync.aligned 0;" : EC_##n##_OF("+f", numbers) : : "memory"); \
  }
EC_FEW_COLUMNS(8, "16", "8", "9", "10", BFloat, "bf16")
EC_FEW_COLUMNS(8, "16", "8", "9", "10", Half, "f16")
EC_FEW_COLUMNS_END(8)
EC_FEW_COLUMNS(16, "32", "16", "17", "18", BFloat, "bf16")
EC_FEW_COLUMNS(16, "32", "16", "17", "18", Half, "f16")
EC_FEW_COLUMNS_END(16)
EC_FEW_COLUMNS(32, "64", "32", "33", "34", BFloat, "bf16")
EC_FEW_COLUMNS(32, "64", "32", "33", "34", Half, "f16")

#else

template <int kThreads>
void sync_threads(int number, EC_CALLED_FROM) {
  emulation::sync_threads(number, kThreads, EC_HERE);
}
inline void copy_tile(void* to, const TileMap& map, int column, int row, int array, CopyBarrier& barrier,
                      EC_CALLED_FROM) {
  emulation::copy_tile(to, map, column, row, array, &barrier, EC_HERE);
}
inline emulation::Operands operands(bool turned, BFloat) { return {turned, false}; }
inline emulation::Operands operands(bool turned, Half) { return {turned, true}; }
template <bool kTurned, int kNumbers, class Number>
void multiply_tiles(float (&numbers)[kNumbers], uint64_t a, uint64_t b, Number kind, EC_CALLED_FROM) {
  emulation::multiply_tiles(numbers, 2 * kNumbers, a, b, false, EC_HERE, operands(kTurned, kind));
}
template <bool kTurned, int kNumbers, class Number>
void multiply_add_tiles(float (&numbers)[kNumbers], uint64_t a, uint64_t b, Number kind, EC_CALLED_FROM) {
  emulation::multiply_tiles(numbers, 2 * kNumbers, a, b, true, EC_HERE, operands(kTurned, kind));
}

#endif

}  // namespace ec::cuda
