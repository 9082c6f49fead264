// SPDX-License-Identifier: Apache-2.0
#include "depth/cosine.h"

#include "depth/cosine.cuh"

namespace ec::cuda {
namespace {

constexpr int kBlocksEach = 4;  // of a multiprocessor
constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// As many as keep the device busy, and no more than there are rows for.
unsigned block_count(int64_t rows, int multiprocessors) {
  const int64_t wanted = (rows + kCosineWarps - 1) / kCosineWarps,
                most = int64_t{kBlocksEach} * multiprocessors;
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

struct Workspace {
  double* total;
  double* partial_weight;  // [blocks]
  float* direction;        // [columns]
  float* partial;          // [blocks][columns]

  // Lays it out from a start, which may be null, and tells where it ends.
  static Workspace at(unsigned char* start, unsigned blocks, int64_t columns, size_t* bytes) {
    size_t used = 0;
    const auto take = [&](size_t count, size_t size) {
      unsigned char* found = start == nullptr ? nullptr : start + used;
      used += aligned(count * size);
      return found;
    };
    Workspace space;
    space.total = reinterpret_cast<double*>(take(1, sizeof(double)));
    space.partial_weight = reinterpret_cast<double*>(take(blocks, sizeof(double)));
    space.direction = reinterpret_cast<float*>(take(static_cast<size_t>(columns), sizeof(float)));
    space.partial = reinterpret_cast<float*>(take(blocks * static_cast<size_t>(columns), sizeof(float)));
    *bytes = used;
    return space;
  }
};

const Matrix& corpus_of(const CosineProblem& problem) {
  return problem.corpus.data == nullptr ? problem.rows : problem.corpus;
}

template <class T>
Rows<T> rows_of(const Matrix& matrix) {
  return {static_cast<const T*>(matrix.data), matrix.count, matrix.stride,
          static_cast<int>(matrix.columns)};
}

template <class T, int kVectors>
void launch_sums(const Rows<T>& rows, const float* weights, const Workspace& space, unsigned blocks,
                 Stream stream) {
  const int width = kVectors * kWarpColumns;
  const unsigned strips = static_cast<unsigned>((rows.columns + width - 1) / width);
  const int strip = rows.columns < width ? rows.columns : width;
  const size_t shared = (kCosineWarps + static_cast<size_t>(strip + 1) / 2) * sizeof(double);
  const Dim3 grid{blocks, strips, 1};
  const auto kernel =
      whole_vectors(rows) ? sum_unit_rows<T, kVectors, true> : sum_unit_rows<T, kVectors, false>;
  EC_LAUNCH(kernel, grid, kCosineThreads, shared, stream, rows, weights, space.partial,
            space.partial_weight);
}

template <class T>
void sum_corpus(const CosineProblem& problem, const Workspace& space, unsigned blocks, Stream stream) {
  const Rows<T> rows = rows_of<T>(corpus_of(problem));
  const int vectors = (rows.columns + kWarpColumns - 1) / kWarpColumns;
  const auto launch = vectors <= 1   ? launch_sums<T, 1>
                      : vectors <= 2 ? launch_sums<T, 2>
                      : vectors <= 4 ? launch_sums<T, 4>
                      : vectors <= 8 ? launch_sums<T, 8>
                                     : launch_sums<T, 16>;
  launch(rows, problem.weights, space, blocks, stream);
}

template <class T>
void score_rows(const CosineProblem& problem, const Workspace& space, int multiprocessors, Stream stream) {
  const Rows<T> rows = rows_of<T>(problem.rows);
  const bool own = problem.corpus.data == nullptr;
  const auto kernel = whole_vectors(rows) ? score_cosine<T, true> : score_cosine<T, false>;
  const unsigned blocks = block_count(rows.count, multiprocessors);
  EC_LAUNCH(kernel, blocks, kCosineThreads, 0, stream, rows, space.direction, space.total,
            own ? problem.weights : nullptr, own, problem.depths);
}

template <class Body>
void with_numbers(NumberKind kind, const Body& body) {
  if (kind == NumberKind::kFloat32)
    body(float{});
  else if (kind == NumberKind::kFloat16)
    body(Half{});
  else
    body(BFloat{});
}

}  // namespace

size_t cosine_workspace_bytes(const CosineProblem& problem, int multiprocessors) {
  const Matrix& corpus = corpus_of(problem);
  size_t bytes = 0;
  Workspace::at(nullptr, block_count(corpus.count, multiprocessors), corpus.columns, &bytes);
  return bytes;
}

void run_cosine(const CosineProblem& problem, int multiprocessors, void* workspace, Stream stream) {
  if (problem.rows.count == 0) return;
  const Matrix& corpus = corpus_of(problem);
  const unsigned blocks = block_count(corpus.count, multiprocessors);
  const int columns = static_cast<int>(corpus.columns);
  size_t bytes = 0;
  const Workspace space = Workspace::at(static_cast<unsigned char*>(workspace), blocks, columns, &bytes);
  with_numbers(corpus.kind,
               [&](auto number) { sum_corpus<decltype(number)>(problem, space, blocks, stream); });
  const unsigned column_blocks = static_cast<unsigned>((columns + kCosineThreads - 1) / kCosineThreads);
  EC_LAUNCH(add_blocks, column_blocks, kCosineThreads, 0, stream, space.partial, space.partial_weight,
            static_cast<int>(blocks), columns, space.direction, space.total);
  with_numbers(problem.rows.kind,
               [&](auto number) { score_rows<decltype(number)>(problem, space, multiprocessors, stream); });
}

}  // namespace ec::cuda
