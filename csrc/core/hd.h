// SPDX-License-Identifier: Apache-2.0
// EC_HD marks a formula that the CPU and CUDA share.
#pragma once

#if defined(__CUDACC__)
#define EC_HD __host__ __device__ __forceinline__
#else
#define EC_HD inline
#endif
