// SPDX-License-Identifier: Apache-2.0
// Times of Hopper's kernels on a GPU, alone: nvcc with hopper_pairs.cu, for sm_90a. Arguments: rows, rows
// of the corpus (0: the rows are the corpus), columns, 1 for strict, 1 for weights.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "depth/hopper/hopper_pairs.h"
#include "depth/pairwise.cuh"

using namespace ec::cuda;

namespace {

void must(cudaError_t code) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(code));
  std::exit(1);
}

template <class T>
T* take(int64_t count) {
  void* memory = nullptr;
  must(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(T)));
  return static_cast<T*>(memory);
}

// Sums of four evenly distributed numbers about a little more than 0.
__global__ void fill(BFloat* to, int64_t count, unsigned seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint64_t state = (static_cast<uint64_t>(i) + seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    state = (state ^ state >> 27) * 0x94d049bb133111ebu;
    float sum = 0.05f - 2.0f;
    for (int k = 0; k < 4; ++k) sum += static_cast<float>(state >> 16 * k & 0xffff) / 65536.0f;
    to[i] = {static_cast<uint16_t>(__float_as_uint(sum) >> 16)};
  }
}

__global__ void fill_weights(float* to, int64_t count, double* total) {
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) to[i] = 1.0f;
  if (threadIdx.x == 0) *total = static_cast<double>(count);
}

}  // namespace

int main(int count, char** arguments) {
  const auto given = [&](int i, int64_t otherwise) {
    return i < count ? static_cast<int64_t>(std::atoll(arguments[i])) : otherwise;
  };
  const int64_t rows = given(1, 100000), others = given(2, 100000), columns = given(3, 1024);
  const bool strict = given(4, 0) != 0, weighted = given(5, 0) != 0, own = others == 0;
  const int64_t corpus = own ? rows : others;
  int device = 0, multiprocessors = 0;
  must(cudaGetDevice(&device));
  must(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  BFloat *x = take<BFloat>(rows * columns), *y = own ? x : take<BFloat>(others * columns);
  fill<<<1024, 256>>>(x, rows * columns, 1);
  if (!own) fill<<<1024, 256>>>(y, others * columns, 2);
  double* total = take<double>(1);
  float* weights = take<float>(corpus);
  fill_weights<<<1, 256>>>(weights, corpus, total);
  for (const ec::PairMetric metric : {ec::PairMetric::kArc, ec::PairMetric::kChord}) {
    const HopperPairs pairs = {metric,
                               {x, rows, columns, columns, NumberKind::kBFloat16},
                               own,
                               {y, corpus, columns, columns, NumberKind::kBFloat16},
                               weighted ? weights : nullptr,
                               strict,
                               total,
                               take<Scaling>(rows),
                               take<Scaling>(corpus),
                               take<int>(1),
                               take<PairSums>(rows)};
    const size_t bytes = hopper_pairs_workspace_bytes(pairs, multiprocessors);
    void* workspace = take<char>(static_cast<int64_t>(bytes));
    cudaEvent_t start, end;
    must(cudaEventCreate(&start));
    must(cudaEventCreate(&end));
    for (int attempt = 0; attempt < 5; ++attempt) {
      must(cudaEventRecord(start));
      run_hopper_pairs(pairs, multiprocessors, workspace, nullptr);
      must(cudaEventRecord(end));
      must(cudaDeviceSynchronize());
      must(cudaGetLastError());
      float milliseconds = 0.0f;
      must(cudaEventElapsedTime(&milliseconds, start, end));
      PairSums first;
      must(cudaMemcpy(&first, pairs.sums, sizeof first, cudaMemcpyDeviceToHost));
      const double seconds = 1e-3 * static_cast<double>(milliseconds);
      std::printf(
          "%s %lld x %lld x %lld%s%s: %.3f ms, %.1f TFLOP/s of pairs, mean distance of row 0 %.9f\n",
          metric == ec::PairMetric::kArc ? "arc" : "chord", static_cast<long long>(rows),
          static_cast<long long>(corpus), static_cast<long long>(columns), own ? " own" : "",
          strict ? " strict" : "", 1e3 * seconds,
          2e-12 * static_cast<double>(rows) * static_cast<double>(corpus) * static_cast<double>(columns) /
              seconds,
          first.distances / static_cast<double>(own ? rows - 1 : corpus));
    }
    must(cudaFree(workspace));
  }
  return 0;
}
