// SPDX-License-Identifier: Apache-2.0
// Blocks of Hopper whose warpgroups have parts of their own: some bring tiles, others multiply them
// (hopper.cuh has the layouts). Tiles of an array of rows come by a map of it, which knows where the rows
// and columns end.
//
// Layout of the sums c (64 x 256): as of those of 240 columns.
#pragma once

#include "common/hopper.cuh"
#include "common/tensor_core.cuh"
#include "common/tile_map.h"

namespace ec::cuda {

constexpr int kWideColumns = 256;               // of c
constexpr int kWideNumbers = kWideColumns / 2;  // of c, that a thread has
constexpr int kNarrowColumns = 64;              // of c where few are wanted
constexpr int kNarrowNumbers = kNarrowColumns / 2;

#if defined(__CUDACC__)

// Has columns [column, + kPanelColumns) and as many rows as the map's tiles have from `row` on copied to
// shared memory on kSwizzleBytes, in the layout of an operand, zeros where the array ends; the barrier
// counts all bytes of a tile. By one thread.
__device__ __forceinline__ void copy_tile(void* to, const TileMap& map, int column, int row,
                                          CopyBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];"
      :
      : "r"(shared_address(to)), "l"(&map), "r"(column), "r"(row), "r"(shared_address(&barrier))
      : "memory");
}
// Before the first of them.
__device__ __forceinline__ void prefetch_map(const TileMap& map) {
  asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
}

// After a thread's own writes to shared memory, before it tells others that products may read them.
__device__ __forceinline__ void publish_writes() {
  asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

// As async_copy of 16 bytes, from a row that is read piece by piece: memory gives 256 bytes to the L2
// cache.
__device__ __forceinline__ void gather_copy(void* to, const void* from, bool present) {
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(present ? 16 : 0)
               : "memory");
}

// A barrier of one warpgroup; `number` is its own, from 1 on.
__device__ __forceinline__ void sync_group(int number) {
  asm volatile("bar.sync %0, %1;" : : "r"(number), "n"(kGroupThreads) : "memory");
}

// Registers of each thread of a warpgroup, which all its threads ask for: what one gives up another takes.
template <int kRegisters>
__device__ __forceinline__ void give_up_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
}

#define EC_SIXTEEN_OF(how, numbers, i)                                                               \
  EC_FOUR_OF(how, numbers, i), EC_FOUR_OF(how, numbers, (i) + 4), EC_FOUR_OF(how, numbers, (i) + 8), \
      EC_FOUR_OF(how, numbers, (i) + 12)
#define EC_WIDE_OF(how, numbers)                                                                         \
  EC_SIXTEEN_OF(how, numbers, 0), EC_SIXTEEN_OF(how, numbers, 16), EC_SIXTEEN_OF(how, numbers, 32),      \
      EC_SIXTEEN_OF(how, numbers, 48), EC_SIXTEEN_OF(how, numbers, 64), EC_SIXTEEN_OF(how, numbers, 80), \
      EC_SIXTEEN_OF(how, numbers, 96), EC_SIXTEEN_OF(how, numbers, 112)
#define EC_WIDE_PLACES EC_ALL_PLACES ", %120, %121, %122, %123, %124, %125, %126, %127"

__device__ __forceinline__ void multiply_tiles(float (&numbers)[kWideNumbers], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" EC_WIDE_PLACES
      "}, %128, %129, accumulate, 1, 1, 0, 0;\n}"
      : EC_WIDE_OF("=f", numbers)
      : "l"(a), "l"(b));
}
__device__ __forceinline__ void multiply_add_tiles(float (&numbers)[kWideNumbers], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" EC_WIDE_PLACES
               "}, %128, %129, 1, 1, 1, 0, 0;"
               : EC_WIDE_OF("+f", numbers)
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void products_end(float (&numbers)[kWideNumbers]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : EC_WIDE_OF("+f", numbers) : : "memory");
}

#define EC_NARROW_OF(how, numbers) EC_SIXTEEN_OF(how, numbers, 0), EC_SIXTEEN_OF(how, numbers, 16)
#define EC_NARROW_PLACES                                                        \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
  "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

__device__ __forceinline__ void multiply_tiles(float (&numbers)[kNarrowNumbers], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" EC_NARROW_PLACES
      "}, %32, %33, accumulate, 1, 1, 0, 0;\n}"
      : EC_NARROW_OF("=f", numbers)
      : "l"(a), "l"(b));
}
__device__ __forceinline__ void multiply_add_tiles(float (&numbers)[kNarrowNumbers], uint64_t a,
                                                   uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" EC_NARROW_PLACES
               "}, %32, %33, 1, 1, 1, 0, 0;"
               : EC_NARROW_OF("+f", numbers)
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void products_end(float (&numbers)[kNarrowNumbers]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : EC_NARROW_OF("+f", numbers) : : "memory");
}

#else

inline void copy_tile(void* to, const TileMap& map, int column, int row, CopyBarrier& barrier,
                      EC_CALLED_FROM) {
  emulation::copy_tile(to, map, column, row, 0, &barrier, EC_HERE);
}
inline void prefetch_map(const TileMap&) {}
inline void publish_writes() {}
inline void gather_copy(void* to, const void* from, bool present, EC_CALLED_FROM) {
  async_copy(to, from, present, file, line);
}
inline void sync_group(int number, EC_CALLED_FROM) {
  emulation::sync_threads(number, kGroupThreads, EC_HERE);
}
template <int kRegisters>
void give_up_registers() {}
template <int kRegisters>
void take_registers() {}
template <int kNumbers>
void multiply_tiles(float (&numbers)[kNumbers], uint64_t a, uint64_t b, EC_CALLED_FROM) {
  emulation::multiply_tiles(numbers, 2 * kNumbers, a, b, false, EC_HERE);
}
template <int kNumbers>
void multiply_add_tiles(float (&numbers)[kNumbers], uint64_t a, uint64_t b, EC_CALLED_FROM) {
  emulation::multiply_tiles(numbers, 2 * kNumbers, a, b, true, EC_HERE);
}
template <int kNumbers>
void products_end(float (&)[kNumbers], EC_CALLED_FROM) {
  emulation::products_wait(0, EC_HERE);
}

#endif

}  // namespace ec::cuda
