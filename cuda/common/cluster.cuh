// SPDX-License-Identifier: Apache-2.0
// What blocks of a cluster (compute capability 9.0 and later) do with one another, each as one function,
// which the emulation has too. Blocks store into each other's shared memory, and a barrier there
// (hopper.cuh) counts what has arrived: that costs no fence of all memory, as the cluster's own barrier
// does, which is for the start alone.
#pragma once

#include "common/hopper.cuh"

// Whether code for clusters may stand here; kernels are empty elsewhere.
#if !defined(__CUDACC__) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define EC_CLUSTER_CODE 1
#else
#define EC_CLUSTER_CODE 0
#endif

namespace ec::cuda {

#if defined(__CUDACC__)

// The barrier of the cluster: what threads did before they arrived is done for those that have waited.
// Memory of a neighbour may be used from the first on: it may not have begun before.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" : : : "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" : : : "memory");
}

// An address of shared memory as it is in block `rank` of the cluster.
__device__ __forceinline__ unsigned address_there(const void* memory, unsigned rank) {
  unsigned address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(memory)), "r"(rank));
  return address;
}

// 16 bytes to where `to`, which is on 16 bytes, lies in block `rank` of the cluster; counted by the barrier
// there that lies where `barrier` does.
__device__ __forceinline__ void store_there(unsigned rank, void* to, const uint4& bits,
                                            CopyBarrier& barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];"
               :
               : "r"(address_there(to, rank)), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w),
                 "r"(address_there(&barrier, rank))
               : "memory");
}

// As wait_for_phase, of what neighbours have stored.
__device__ __forceinline__ void wait_for_neighbours(CopyBarrier& barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred over;\nAGAIN:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n"
      "@over bra DONE;\nbra AGAIN;\nDONE:\n}"
      :
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
}

#else

inline void cluster_arrive(EC_CALLED_FROM) { emulation::cluster_arrive(EC_HERE); }
inline void cluster_wait(EC_CALLED_FROM) { emulation::cluster_wait(EC_HERE); }
inline void store_there(unsigned rank, void* to, const uint4& bits, CopyBarrier& barrier, EC_CALLED_FROM) {
  emulation::store_there(rank, to, &bits, &barrier, EC_HERE);
}
inline void wait_for_neighbours(CopyBarrier& barrier, unsigned parity, EC_CALLED_FROM) {
  emulation::wait_for_phase(&barrier, parity, EC_HERE);
}

#endif

// What is stored at once.
template <class From>
__device__ __forceinline__ uint4 bits_of(const From& from) {
  static_assert(sizeof(From) == sizeof(uint4), "16 bytes");
  uint4 bits;
  memcpy(&bits, &from, sizeof bits);
  return bits;
}

// What was stored so, in one piece: a copy to the numbers themselves would be byte by byte.
template <class To>
__device__ __forceinline__ void load_at_once(const uint4& from, To& to) {
  static_assert(sizeof(To) == sizeof(uint4), "16 bytes");
  const uint4 bits = from;
  memcpy(&to, &bits, sizeof to);
}

}  // namespace ec::cuda
