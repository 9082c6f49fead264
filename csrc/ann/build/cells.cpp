// SPDX-License-Identifier: Apache-2.0
// Cells: k-means on a sample, all rows to their nearest centroid, and large cells cut.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "ann/build/build.h"
#include "ann/build/k_means.h"
#include "ann/build/random.h"

namespace ec {
namespace ann {

namespace {

constexpr int64_t kLeastRows = 8;     // a cell has on average, where there are as many
constexpr int64_t kSampledRows = 64;  // of a cell, at most
constexpr int kIterations = 6;
constexpr int64_t kMostOfMean = 3;  // a cell larger than this times the mean is cut

class CellMaker {
 public:
  CellMaker(const CodedRows& rows, const BuildOptions& options)
      : rows_(rows), options_(options), k_means_(rows, options) {}

  ec_status make(Cells* cells) {
    const double wanted = 2.0 * std::sqrt(static_cast<double>(rows_.rows));
    const int64_t count =
        std::max<int64_t>(1, std::min(static_cast<int64_t>(wanted), rows_.rows / kLeastRows));
    mean_ = (rows_.rows + count - 1) / count;
    std::vector<uint32_t> all(rows_.rows);
    for (int64_t i = 0; i < rows_.rows; ++i) all[i] = static_cast<uint32_t>(i);
    Grouping grouping;
    ec_status status = group(all, count, &grouping);
    if (status == EC_OK) status = cut_large(grouping);
    return status == EC_OK ? finish(cells) : status;
  }

 private:
  // All of the slots around centroids found on some of them.
  ec_status group(const std::vector<uint32_t>& slots, int64_t count, Grouping* grouping) {
    std::vector<uint32_t> sample(slots);
    const int64_t most = count * kSampledRows;
    if (most < static_cast<int64_t>(slots.size())) {
      RandomStream random(options_.seed + 1);
      for (int64_t i = 0; i < most; ++i) {
        std::swap(sample[i], sample[i + random.below(static_cast<int64_t>(sample.size()) - i)]);
      }
      sample.resize(most);
      std::sort(sample.begin(), sample.end());
    }
    const std::vector<uint32_t> drawn = drawn_of(sample, count);
    if (options_.steps != nullptr) {
      grouping->cell_of = options_.steps->group(slots, sample, drawn, kIterations);
      grouping->sort(slots, count);
      return EC_OK;
    }
    Centroids centroids;
    ec_status status = k_means_.run(sample, drawn, kIterations, &centroids);
    if (status == EC_OK) status = k_means_.assign(slots, centroids.view(rows_.shape), grouping);
    return status;
  }

  std::vector<uint32_t> drawn_of(std::vector<uint32_t> slots, int64_t count) const {
    RandomStream random(options_.seed);
    for (int64_t c = 0; c < count; ++c) {
      std::swap(slots[c], slots[c + random.below(static_cast<int64_t>(slots.size()) - c)]);
    }
    slots.resize(count);
    return slots;
  }

  // Takes over the cells of a grouping; those too large in parts.
  ec_status cut_large(const Grouping& grouping) {
    for (size_t c = 0; c + 1 < grouping.start.size(); ++c) {
      const auto first = grouping.members.begin() + grouping.start[c];
      const auto last = grouping.members.begin() + grouping.start[c + 1];
      const std::vector<uint32_t> members(first, last);
      const int64_t size = static_cast<int64_t>(members.size());
      if (size <= kMostOfMean * mean_) {
        take(members);
        continue;
      }
      Grouping parts;
      const ec_status status = group(members, (size + mean_ - 1) / mean_, &parts);
      if (status != EC_OK) return status;
      for (size_t p = 0; p + 1 < parts.start.size(); ++p) {
        chop(std::vector<uint32_t>(parts.members.begin() + parts.start[p],
                                   parts.members.begin() + parts.start[p + 1]));
      }
    }
    return EC_OK;
  }

  // Rows that k-means does not part (equal ones) by their number.
  void chop(const std::vector<uint32_t>& members) {
    const int64_t size = static_cast<int64_t>(members.size());
    const int64_t piece = size > kMostOfMean * mean_ ? mean_ : size;
    for (int64_t first = 0; first < size; first += piece) {
      take(std::vector<uint32_t>(members.begin() + first, members.begin() + std::min(size, first + piece)));
    }
  }

  void take(const std::vector<uint32_t>& members) {
    if (members.empty()) return;
    members_.insert(members_.end(), members.begin(), members.end());
    start_.push_back(static_cast<uint32_t>(members_.size()));
  }

  ec_status finish(Cells* cells) {
    Grouping grouping;
    grouping.members = std::move(members_);
    grouping.start = std::move(start_);
    Centroids centroids;
    if (!centroids.allocate(static_cast<int64_t>(grouping.start.size()) - 1, rows_.shape)) {
      return EC_OUT_OF_MEMORY;
    }
    const ec_status status = take_means(grouping, &centroids);
    if (status != EC_OK) return status;
    note_radii(grouping, &centroids);
    cells->members = std::move(grouping.members);
    cells->start = std::move(grouping.start);
    cells->centroids = std::move(centroids.heads);
    return EC_OK;
  }

  ec_status take_means(const Grouping& grouping, Centroids* centroids) const {
    if (options_.steps == nullptr) return k_means_.move_centroids(grouping, centroids);
    const auto cells = static_cast<int64_t>(centroids->norms.size());
    std::vector<uint32_t> cell_of(grouping.members.size());
    for (int64_t c = 0; c < cells; ++c) {
      for (uint32_t i = grouping.start[c]; i < grouping.start[c + 1]; ++i) {
        cell_of[grouping.members[i]] = static_cast<uint32_t>(c);
      }
    }
    options_.steps->take_means(cell_of, cells, centroids->heads.data());
    centroids->norms = centroid_norms(centroids->heads.data(), cells, rows_.shape);
    return EC_OK;
  }

  // Root mean square distances of cells' rows to their centroids.
  void note_radii(const Grouping& grouping, Centroids* centroids) const {
    for (size_t c = 0; c + 1 < grouping.start.size(); ++c) {
      double sum = 0.0;
      for (uint32_t i = grouping.start[c]; i < grouping.start[c + 1]; ++i) {
        sum += rows_.norms[grouping.members[i]] - centroids->norms[c];
      }
      const double mean = sum / (grouping.start[c + 1] - grouping.start[c]);
      centroids->set_radius(static_cast<int64_t>(c), static_cast<float>(std::sqrt(std::max(0.0, mean))),
                            rows_.shape);
    }
  }

  const CodedRows& rows_;
  const BuildOptions& options_;
  const KMeans k_means_;
  int64_t mean_ = 1;  // rows of a cell
  std::vector<uint32_t> members_;
  std::vector<uint32_t> start_ = {0};
};

}  // namespace

ec_status make_cells(const CodedRows& rows, const BuildOptions& options, Cells* cells) {
  try {
    if (rows.rows == 0) {
      cells->members.clear();
      cells->start.assign(1, 0);
      return cells->centroids.allocate(0) ? EC_OK : EC_OUT_OF_MEMORY;
    }
    return CellMaker(rows, options).make(cells);
  } catch (const std::bad_alloc&) {
    return EC_OUT_OF_MEMORY;
  }
}

ec_status join_cells(const CodedRows& rows, int64_t first_new, const BuildOptions& options, Cells* cells) {
  const int64_t count = cells->cells();
  std::vector<uint32_t> news(rows.rows - first_new);
  for (size_t i = 0; i < news.size(); ++i) news[i] = static_cast<uint32_t>(first_new + i);
  const std::vector<float> norms = centroid_norms(cells->centroids.data(), count, rows.shape);
  CodedRows centroids;
  centroids.shape = rows.shape;
  centroids.shape.tail_bytes = 0;
  centroids.heads = cells->centroids.data();
  centroids.norms = norms.data();
  centroids.rows = count;
  Grouping grouping;
  const ec_status status = KMeans(rows, options).assign(news, centroids, &grouping);
  if (status != EC_OK) return status;
  std::vector<uint32_t> members, start(1, 0);
  members.reserve(cells->members.size() + news.size());
  start.reserve(cells->start.size());
  for (int64_t c = 0; c < count; ++c) {
    members.insert(members.end(), cells->members.begin() + cells->start[c],
                   cells->members.begin() + cells->start[c + 1]);
    members.insert(members.end(), grouping.members.begin() + grouping.start[c],
                   grouping.members.begin() + grouping.start[c + 1]);
    start.push_back(static_cast<uint32_t>(members.size()));
  }
  cells->members.swap(members);
  cells->start.swap(start);
  return EC_OK;
}

}  // namespace ann
}  // namespace ec
