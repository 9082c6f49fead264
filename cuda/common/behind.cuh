// SPDX-License-Identifier: Apache-2.0
// Kernels of one call that come close behind one another: blocks of the next are brought to the device
// while the one before still runs, so that its start is not waited for (programmatic dependent launch,
// compute capability 9.0 and later; elsewhere these are launches like others).
//
// What has to hold:
// 1. All threads of a kernel that is launched so begin with wait_for_kernel_before(), ahead of any memory
//    of the device, and on every way. It returns when the kernel before is done as a whole and what that
//    wrote can be seen. So nothing is read too early, and nothing written that the kernel before still
//    reads, as scratch that is used again.
// 2. The first kernel of a call is launched as usual. What is before it on the stream is not ours: a copy,
//    a fill, or a kernel of which we do not know whether it has waited itself.
// That is enough for all of the stream, and not the kernel before alone: that one could not be done without
// having waited for the one before it, and so on to the first, which began when all else was done. A kernel
// that left without a wait could be done while others before it still run, and (1) would break behind it.
//
// let_next_begin() says nothing of memory, and may come first. When all blocks of a kernel have said it, or
// left, those of the next may come to wherever there is room. Blocks of this one are all there by then, so
// that none needs room which one that waits for it has taken.
//
// In the capture of a graph such a launch becomes an edge between the nodes of both kernels.
#pragma once

#include "common/platform.h"

namespace ec::cuda {

#if defined(__CUDACC__)

// The targets whose code waits are those of the devices where blocks may come early.
inline bool device_lets_begin() {
  int device = 0, major = 0;
  note(cudaGetDevice(&device));
  note(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major >= 9;
}

template <class... Parameters>
void launch_behind(void (*kernel)(Parameters...), const Dim3& grid, const Dim3& block, size_t shared_bytes,
                   Stream stream, typename AsIs<Parameters>::Type... arguments) {
  void* places[] = {static_cast<void*>(&arguments)...};
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t how = {};
  how.gridDim = grid;
  how.blockDim = block;
  how.dynamicSmemBytes = shared_bytes;
  how.stream = stream;
  how.attrs = &early;
  how.numAttrs = device_lets_begin() ? 1 : 0;
  note(cudaLaunchKernelExC(&how, reinterpret_cast<const void*>(kernel), places));
}

__device__ __forceinline__ void wait_for_kernel_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#else

template <class... Parameters>
void launch_behind(void (*kernel)(Parameters...), const Dim3& grid, const Dim3& block, size_t shared_bytes,
                   typename AsIs<Parameters>::Type... arguments) {
  const size_t allowed = emulation::allowed_shared(reinterpret_cast<const void*>(kernel));
  emulation::launch_behind(grid, block, shared_bytes, allowed, [&] { kernel(arguments...); });
}

inline void wait_for_kernel_before() { emulation::wait_for_kernel_before(); }
inline void let_next_begin() {}

#endif

// What all threads of a kernel that is launched behind another, or has others behind it, begin with.
__device__ __forceinline__ void begin_behind() {
  wait_for_kernel_before();
  let_next_begin();
}

}  // namespace ec::cuda

// As EC_LAUNCH, right behind another kernel of the same call.
#if defined(__CUDACC__)
#define EC_LAUNCH_BEHIND(kernel, grid, block, shared_bytes, stream, ...) \
  ::ec::cuda::launch_behind(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#else
#define EC_LAUNCH_BEHIND(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), ::ec::cuda::launch_behind(kernel, {grid}, {block}, shared_bytes, __VA_ARGS__))
#endif
