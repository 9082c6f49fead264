// SPDX-License-Identifier: Apache-2.0
#include "ann/build/k_means.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "core/isa_table.h"
#include "core/parallel.h"

EC_IMPORT_TABLES(GraphKernels, graph)

namespace ec {
namespace ann {

namespace {

constexpr int64_t kRowsOfTask = 64;
constexpr int64_t kRowsOfBlock = 16;  // whose distances to all centroids are held at once

CodedRows heads_alone(CodedRows rows) {
  rows.shape.tail_bytes = 0;
  rows.tails = nullptr;
  return rows;
}

struct AssignScratch {
  LeftBlock left;
  AlignedBuffer<float> distances;
};

}  // namespace

bool Centroids::allocate(int64_t count, const CodeShape& shape) {
  norms.assign(count, 0.0f);
  return heads.allocate(count * shape.head_bytes);
}

CodedRows Centroids::view(const CodeShape& shape) const {
  CodedRows view;
  view.shape = shape;
  view.shape.tail_bytes = 0;
  view.heads = heads.data();
  view.norms = norms.data();
  view.rows = static_cast<int64_t>(norms.size());
  return view;
}

void Centroids::set_radius(int64_t i, float radius, const CodeShape& shape) {
  uint8_t* at = heads.data() + i * shape.head_bytes + shape.head_numbers();
  RowFactors factors;
  std::memcpy(&factors, at, sizeof(factors));
  factors.tail_norm = radius;
  std::memcpy(at, &factors, sizeof(factors));
}

void Centroids::set_mean(int64_t i, const CodedRows& rows, const uint32_t* slots, int64_t count,
                         float* sums, const GraphKernels& kernels) {
  const int64_t numbers = rows.shape.head_numbers();
  std::fill_n(sums, numbers, 0.0f);
  for (int64_t m = 0; m < count; ++m) {
    const uint8_t* head = rows.heads + slots[m] * rows.shape.head_bytes;
    kernels.add_scaled(head, numbers, factors_of(head, rows.shape).head_scale, sums);
  }
  float most = 0.0f;
  for (int64_t k = 0; k < numbers; ++k) most = std::max(most, std::fabs(sums[k]));
  const float step = most / 127.0f;
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  uint8_t* head = heads.data() + i * rows.shape.head_bytes;
  int64_t square = 0;
  for (int64_t k = 0; k < numbers; ++k) {
    const long byte = std::lrint(sums[k] * inverse);
    head[k] = static_cast<uint8_t>(byte + 128);
    square += byte * byte;
  }
  const float scale = step / static_cast<float>(count);
  norms[i] = scale * scale * static_cast<float>(square);
  const RowFactors factors = {scale, -0.5f * norms[i], 0.0f, 0.0f};
  std::memcpy(head + numbers, &factors, sizeof(factors));
}

std::vector<float> centroid_norms(const uint8_t* heads, int64_t cells, const CodeShape& shape) {
  std::vector<float> norms(cells);
  for (int64_t c = 0; c < cells; ++c) {
    norms[c] = -2.0f * factors_of(heads + c * shape.head_bytes, shape).offset;
  }
  return norms;
}

void Grouping::sort(const std::vector<uint32_t>& slots, int64_t cells) {
  start.assign(cells + 1, 0);
  for (const uint32_t cell : cell_of) ++start[cell + 1];
  for (int64_t c = 0; c < cells; ++c) start[c + 1] += start[c];
  std::vector<uint32_t> next(start.begin(), start.end() - 1);
  members.resize(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) members[next[cell_of[i]]++] = slots[i];
}

KMeans::KMeans(const CodedRows& rows, const BuildOptions& options)
    : heads_(heads_alone(rows)), options_(options), kernels_(*graph_kernels(current_isa())) {}

ec_status KMeans::assign(const std::vector<uint32_t>& slots, const CodedRows& centroids,
                         Grouping* grouping) const {
  const int64_t count = static_cast<int64_t>(slots.size());
  const int64_t cells = centroids.rows;
  const int64_t tasks = (count + kRowsOfTask - 1) / kRowsOfTask;
  const int64_t stride = round_up(cells, kColumnStep);
  std::vector<uint32_t> numbers(cells);
  for (int64_t c = 0; c < cells; ++c) numbers[c] = static_cast<uint32_t>(c);
  RightBlock right;
  if (!right.allocate(cells)) return EC_OUT_OF_MEMORY;
  right.load(centroids, numbers.data(), cells);
  std::vector<AssignScratch> scratch(worker_count(tasks, options_.threads));
  for (AssignScratch& each : scratch) {
    if (!each.left.allocate(kRowsOfBlock, heads_.shape) ||
        !each.distances.allocate(kRowsOfBlock * stride)) {
      return EC_OUT_OF_MEMORY;
    }
  }
  grouping->cell_of.resize(count);
  const ec_status status =
      parallel_for(tasks, options_.threads, options_.monitor, [&](int64_t task, int worker) {
        AssignScratch& mine = scratch[worker];
        const int64_t end = std::min(count, (task + 1) * kRowsOfTask);
        for (int64_t first = task * kRowsOfTask; first < end; first += kRowsOfBlock) {
          const int64_t some = std::min(kRowsOfBlock, end - first);
          mine.left.load(heads_, slots.data() + first, some, kernels_);
          kernels_.distances(mine.left.codes(), some, right.codes(0), cells, mine.distances.data(), stride);
          for (int64_t r = 0; r < some; ++r) {
            const int64_t cell = kernels_.nearest(mine.distances.data() + r * stride, cells);
            grouping->cell_of[first + r] = static_cast<uint32_t>(cell);
          }
        }
      });
  if (status != EC_OK) return status;
  grouping->sort(slots, cells);
  return EC_OK;
}

ec_status KMeans::move_centroids(const Grouping& grouping, Centroids* centroids) const {
  const int64_t cells = static_cast<int64_t>(grouping.start.size()) - 1;
  const int64_t numbers = heads_.shape.head_numbers();
  std::vector<float> sums(numbers * worker_count(cells, options_.threads));
  return parallel_for(cells, options_.threads, options_.monitor, [&](int64_t c, int worker) {
    const int64_t first = grouping.start[c], count = grouping.start[c + 1] - first;
    if (count == 0) return;
    centroids->set_mean(c, heads_, grouping.members.data() + first, count, sums.data() + worker * numbers,
                        kernels_);
  });
}

ec_status KMeans::run(const std::vector<uint32_t>& slots, const std::vector<uint32_t>& drawn,
                      int iterations, Centroids* centroids) const {
  const int64_t count = static_cast<int64_t>(drawn.size());
  std::vector<float> sums(heads_.shape.head_numbers());
  if (!centroids->allocate(count, heads_.shape)) return EC_OUT_OF_MEMORY;
  for (int64_t c = 0; c < count; ++c) centroids->set_mean(c, heads_, &drawn[c], 1, sums.data(), kernels_);
  Grouping grouping;
  for (int i = 0; i < iterations; ++i) {
    ec_status status = assign(slots, centroids->view(heads_.shape), &grouping);
    if (status == EC_OK) status = move_centroids(grouping, centroids);
    if (status != EC_OK) return status;
  }
  return EC_OK;
}

}  // namespace ann
}  // namespace ec
