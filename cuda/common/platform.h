// SPDX-License-Identifier: Apache-2.0
// What kernels are compiled with: CUDA, or C++ over the emulation, by which CI runs them without a GPU.
//
// Shared memory comes from shared_memory<T>(), T a struct of what the block shares, or from shared_array<T>
// (its count), both from the start; EC_LAUNCH says how many bytes there are.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

namespace ec::cuda {

template <class T>
__device__ __forceinline__ T* shared_array(size_t) {
  extern __shared__ __align__(128) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

using Stream = cudaStream_t;
using Dim3 = dim3;

// The first failure of this library's calls in this thread since it was last asked (last_failure of
// device.h forgets it). It is kept beside the runtime's own record, which other libraries write and read
// too: theirs is neither taken for ours nor lost.
inline cudaError_t& own_failure() {
  static thread_local cudaError_t first = cudaSuccess;
  return first;
}
inline void note(cudaError_t code) {
  if (own_failure() == cudaSuccess) own_failure() = code;
}
inline bool launches_failed() { return own_failure() != cudaSuccess; }

inline void fill(void* memory, int byte, size_t bytes, Stream stream) {
  note(cudaMemsetAsync(memory, byte, bytes, stream));
}
// That a block of the device in use may ask for.
inline size_t most_shared_bytes() {
  int device = 0, bytes = 0;
  note(cudaGetDevice(&device));
  note(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<size_t>(bytes);
}
// Beyond 48 KB a kernel has to ask for what its blocks share. It asks for all there is: another thread may
// launch it with more at the same time.
template <class Kernel>
void allow_shared(Kernel* kernel, size_t) {
  note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            static_cast<int>(most_shared_bytes())));
}

template <class T>
struct AsIs {
  using Type = T;
};
template <class... Parameters>
void launch(void (*kernel)(Parameters...), const Dim3& grid, const Dim3& block, size_t shared_bytes,
            Stream stream, typename AsIs<Parameters>::Type... arguments) {
  void* places[] = {static_cast<void*>(&arguments)...};
  note(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, places, shared_bytes, stream));
}

// Blocks of the grid in clusters of that size, of which it has whole ones along each axis.
template <class... Parameters>
void launch_clusters(void (*kernel)(Parameters...), const Dim3& cluster, const Dim3& grid,
                     const Dim3& block, size_t shared_bytes, Stream stream,
                     typename AsIs<Parameters>::Type... arguments) {
  void* places[] = {static_cast<void*>(&arguments)...};
  cudaLaunchAttribute size = {};
  size.id = cudaLaunchAttributeClusterDimension;
  size.val.clusterDim.x = cluster.x;
  size.val.clusterDim.y = cluster.y;
  size.val.clusterDim.z = cluster.z;
  cudaLaunchConfig_t how = {};
  how.gridDim = grid;
  how.blockDim = block;
  how.dynamicSmemBytes = shared_bytes;
  how.stream = stream;
  how.attrs = &size;
  how.numAttrs = 1;
  note(cudaLaunchKernelExC(&how, reinterpret_cast<const void*>(kernel), places));
}

}  // namespace ec::cuda

#define EC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::ec::cuda::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define EC_LAUNCH_CLUSTERS(kernel, cluster, grid, block, shared_bytes, stream, ...) \
  ::ec::cuda::launch_clusters(kernel, cluster, grid, block, shared_bytes, stream, __VA_ARGS__)

#else

#include "emulation/emulation.h"

namespace ec::cuda {

template <class T>
T* shared_array(size_t count) {
  if (emulation::shared_bytes() < count * sizeof(T))
    emulation::refuse("a block shares more than it was launched with", {__FILE__, __LINE__});
  return static_cast<T*>(emulation::shared_memory());
}

using Stream = void*;
using Dim3 = emulation::Size3;

inline void fill(void* memory, int byte, size_t bytes, Stream) {
  ++emulation::started();
  std::memset(memory, byte, bytes);
}
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  emulation::allowed_shared(reinterpret_cast<const void*>(kernel)) = bytes;
}
inline size_t most_shared_bytes() { return emulation::most_shared(); }
inline bool launches_failed() { return false; }

template <class T>
struct AsIs {
  using Type = T;
};
template <class... Parameters>
void launch_clusters(void (*kernel)(Parameters...), const Dim3& cluster, const Dim3& grid,
                     const Dim3& block, size_t shared_bytes, typename AsIs<Parameters>::Type... arguments) {
  const size_t allowed = emulation::allowed_shared(reinterpret_cast<const void*>(kernel));
  emulation::launch(grid, block, shared_bytes, allowed, [&] { kernel(arguments...); }, cluster);
}
template <class... Parameters>
void launch(void (*kernel)(Parameters...), const Dim3& grid, const Dim3& block, size_t shared_bytes,
            typename AsIs<Parameters>::Type... arguments) {
  launch_clusters(kernel, {}, grid, block, shared_bytes, arguments...);
}

}  // namespace ec::cuda

#define EC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), ::ec::cuda::launch(kernel, {grid}, {block}, shared_bytes, __VA_ARGS__))
#define EC_LAUNCH_CLUSTERS(kernel, cluster, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), ::ec::cuda::launch_clusters(kernel, cluster, {grid}, {block}, shared_bytes, __VA_ARGS__))

#endif

namespace ec::cuda {

inline void clear(void* memory, size_t bytes, Stream stream) { fill(memory, 0, bytes, stream); }

// What the threads of a block share, as one struct.
template <class T>
__device__ __forceinline__ T& shared_memory() {
  return *shared_array<T>(1);
}

}  // namespace ec::cuda
