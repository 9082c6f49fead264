// SPDX-License-Identifier: Apache-2.0
// What Hopper (compute capability 9.0, target sm_90a) has besides: barriers in shared memory that count
// bytes, bulk copies that complete on them, and products of tiles in shared memory by a warpgroup, four
// warps that start at a multiple of four. Each is one function, which the emulation has too.
//
// Layout of an operand of a product (PTX ISA, "Asynchronous warpgroup level matrix", K-major, 128-byte
// swizzle): rows of 64 numbers of bf16, 128 bytes each, one after another from a multiple of 1024 bytes;
// piece p of 16 bytes of row r lies at place p ^ (r % 8) of the row (place_in_panel).
// Layout of the sums c (64 x 240): thread t of the warpgroup, lane l of warp w, has rows 16 w + l / 4 and
// + 8, columns 8 j + 2 (l % 4) and + 1: numbers[4 j + 2 half + part].
#pragma once

#include <cstdint>

#include "common/numbers.cuh"

#if !defined(__CUDACC__)
#include "emulation/hopper.h"
#endif

// Whether code of sm_90a may stand here; kernels are empty elsewhere.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define EC_HOPPER_CODE 1
#else
#define EC_HOPPER_CODE 0
#endif

namespace ec::cuda {

constexpr int kGroupThreads = 128;                  // of a warpgroup
constexpr int kPanelRows = 64, kPanelColumns = 64;  // of a block of a packed operand, 8 KB
constexpr int kPanelNumbers = kPanelRows * kPanelColumns;
// Of c. 256 would leave a thread 40 registers for all else, which is not enough without spills.
constexpr int kProductColumns = 240;
constexpr int kThreadNumbers = kProductColumns / 2;  // of c, that a thread has
constexpr int kProductSteps = 16;                    // numbers of a row that one product takes
constexpr unsigned kSwizzleBytes = 1024;             // boundary on which 8 rows begin

// Where piece 0..7 (8 numbers) of a row lies in an operand.
__device__ __forceinline__ int place_in_panel(int row, int piece) {
  return row * kPanelColumns + (piece ^ (row & 7)) * 8;
}

// In shared memory. It counts arrivals and bytes of a phase; phases have parities 0, 1, 0, ...
struct alignas(8) CopyBarrier {
  uint64_t state;
};

#if defined(__CUDACC__)

__device__ __forceinline__ unsigned shared_address(const void* memory) {
  return static_cast<unsigned>(__cvta_generic_to_shared(memory));
}

// By one thread, before publish_barriers by that thread and a barrier of the block.
__device__ __forceinline__ void init_barrier(CopyBarrier& barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" : : : "memory");
}
__device__ __forceinline__ void arrive(CopyBarrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(shared_address(&barrier)) : "memory");
}
// Arrives, and has the phase wait for so many bytes of bulk copies.
__device__ __forceinline__ void arrive_and_expect(CopyBarrier& barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of that parity is over; of a barrier just made, the phase before it, of parity 1, is.
__device__ __forceinline__ void wait_for_phase(CopyBarrier& barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred over;\nAGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@over bra DONE;\nbra AGAIN;\nDONE:\n}"
      :
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
}

// To shared memory, on 16 bytes as they are themselves; counted by the barrier when they are there. By one
// thread.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, unsigned bytes,
                                          CopyBarrier& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :
               : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes),
                 "r"(shared_address(&barrier))
               : "memory");
}

// Counts one more, from 0 to `last` and then from 0 again; true for who counts `last`, for whom all that
// the others did before they counted is done.
__device__ __forceinline__ bool count_up_to(unsigned& counter, unsigned last) {
  unsigned before;
  asm volatile("atom.acq_rel.cta.shared::cta.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "r"(shared_address(&counter)), "r"(last)
               : "memory");
  return before == last;
}

// Before the first product after numbers were touched.
__device__ __forceinline__ void products_fence() {
  asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}
__device__ __forceinline__ void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}
// Waits until no more than kLeft groups of products are under way.
template <int kLeft>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kLeft) : "memory");
}

// 120 operands of an asm statement, and their places in its text.
#define EC_FOUR_OF(how, numbers, i) \
  how(numbers[i]), how(numbers[(i) + 1]), how(numbers[(i) + 2]), how(numbers[(i) + 3])
#define EC_TWENTY_OF(how, numbers, i)                                                                \
  EC_FOUR_OF(how, numbers, i), EC_FOUR_OF(how, numbers, (i) + 4), EC_FOUR_OF(how, numbers, (i) + 8), \
      EC_FOUR_OF(how, numbers, (i) + 12), EC_FOUR_OF(how, numbers, (i) + 16)
#define EC_ALL_OF(how, numbers)                                                                  \
  EC_TWENTY_OF(how, numbers, 0), EC_TWENTY_OF(how, numbers, 20), EC_TWENTY_OF(how, numbers, 40), \
      EC_TWENTY_OF(how, numbers, 60), EC_TWENTY_OF(how, numbers, 80), EC_TWENTY_OF(how, numbers, 100)
#define EC_ALL_PLACES                                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "                \
  "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "      \
  "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, "      \
  "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "      \
  "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, "      \
  "%75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, "      \
  "%90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, " \
  "%105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119"

// c = a b^T, of which a has 64 rows and b 240, of 16 numbers each (see tile_descriptor). Under way until
// products_wait; c and the tiles are not to be touched before. What c was is not read: it may be nothing.
__device__ __forceinline__ void multiply_tiles(float (&numbers)[kThreadNumbers], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n240k16.f32.bf16.bf16 {" EC_ALL_PLACES
      "}, %120, %121, accumulate, 1, 1, 0, 0;\n}"
      : EC_ALL_OF("=f", numbers)
      : "l"(a), "l"(b));
}
// c += a b^T
__device__ __forceinline__ void multiply_add_tiles(float (&numbers)[kThreadNumbers], uint64_t a,
                                                   uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n240k16.f32.bf16.bf16 {" EC_ALL_PLACES
               "}, %120, %121, 1, 1, 1, 0, 0;"
               : EC_ALL_OF("+f", numbers)
               : "l"(a), "l"(b));
}

// Waits for all products, so that no reader of these numbers is moved above.
__device__ __forceinline__ void products_end(float (&numbers)[kThreadNumbers]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : EC_ALL_OF("+f", numbers) : : "memory");
}

// The lane, asked for anew, so that what is made of it takes up no register before.
__device__ __forceinline__ int lane_anew() {
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// The square root with an error of about one unit in the last place, of denormal numbers 0.
__device__ __forceinline__ float near_root(float a) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(a));
  return root;
}

// 2^a and 1 / a with errors of about two units in the last place, without denormal numbers.
__device__ __forceinline__ float near_power(float a) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(a));
  return power;
}
__device__ __forceinline__ float near_inverse(float a) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(a));
  return inverse;
}

#else

inline unsigned shared_address(const void* memory, EC_CALLED_FROM) {
  return emulation::shared_address(memory, EC_HERE);
}
inline void init_barrier(CopyBarrier& barrier, unsigned arrivals, EC_CALLED_FROM) {
  emulation::init_barrier(&barrier, arrivals, EC_HERE);
}
inline void publish_barriers() {}
inline void arrive(CopyBarrier& barrier, EC_CALLED_FROM) { emulation::arrive(&barrier, 0, EC_HERE); }
inline void arrive_and_expect(CopyBarrier& barrier, unsigned bytes, EC_CALLED_FROM) {
  emulation::arrive(&barrier, bytes, EC_HERE);
}
inline void wait_for_phase(CopyBarrier& barrier, unsigned parity, EC_CALLED_FROM) {
  emulation::wait_for_phase(&barrier, parity, EC_HERE);
}
inline void bulk_copy(void* to, const void* from, unsigned bytes, CopyBarrier& barrier, EC_CALLED_FROM) {
  emulation::bulk_copy(to, from, bytes, &barrier, EC_HERE);
}
inline bool count_up_to(unsigned& counter, unsigned last) { return atomicInc(&counter, last) == last; }
inline void __nanosleep(unsigned) {}
inline void products_fence() {}
inline void products_commit() { emulation::products_commit(); }
template <int kLeft>
void products_wait(EC_CALLED_FROM) {
  emulation::products_wait(kLeft, EC_HERE);
}
inline void multiply_tiles(float (&numbers)[kThreadNumbers], uint64_t a, uint64_t b, EC_CALLED_FROM) {
  emulation::multiply_tiles(numbers, kProductColumns, a, b, false, EC_HERE);
}
inline void multiply_add_tiles(float (&numbers)[kThreadNumbers], uint64_t a, uint64_t b, EC_CALLED_FROM) {
  emulation::multiply_tiles(numbers, kProductColumns, a, b, true, EC_HERE);
}
inline void products_end(float (&)[kThreadNumbers], EC_CALLED_FROM) {
  emulation::products_wait(0, EC_HERE);
}
inline int lane_anew() { return emulation::lane(); }
inline float near_root(float a) { return std::sqrt(a); }
inline float near_power(float a) { return std::exp2(a); }
inline float near_inverse(float a) { return 1.0f / a; }

#endif

// Numbers [0, 16) of the rows of an operand that begins at `address`, which is on kSwizzleBytes; the next
// 16 are kNextStep further, up to four times.
__device__ __forceinline__ uint64_t tile_descriptor(unsigned address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{kSwizzleBytes >> 4} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;
  return kSwizzle128 | kEightRows | kUnused | (address >> 4 & 0x3fff);
}
constexpr uint64_t kNextStep = kProductSteps * sizeof(BFloat) >> 4;

}  // namespace ec::cuda
