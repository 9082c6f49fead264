// SPDX-License-Identifier: Apache-2.0
// Lloyd's iteration over the heads of coded rows.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/build/build.h"
#include "ann/build/code_blocks.h"

namespace ec {
namespace ann {

// Centroids as coded rows that have heads alone.
struct Centroids {
  AlignedBuffer<uint8_t> heads;
  std::vector<float> norms;

  bool allocate(int64_t count, const CodeShape& shape);  // std::bad_alloc
  CodedRows view(const CodeShape& shape) const;
  // Kept where rows keep the norm of their tail.
  void set_radius(int64_t i, float radius, const CodeShape& shape);
  // Centroid i becomes the mean of these rows' heads, quantised. sums: scratch for a head's numbers.
  void set_mean(int64_t i, const CodedRows& rows, const uint32_t* slots, int64_t count, float* sums,
                const GraphKernels& kernels);
};

// Norms of cells' centroids, from the offsets in their factors.
std::vector<float> centroid_norms(const uint8_t* heads, int64_t cells, const CodeShape& shape);

// Rows by the nearest of some centroids.
struct Grouping {
  std::vector<uint32_t> cell_of;  // of each slot of the list
  std::vector<uint32_t> members;  // slots by cell, in the order of the list
  std::vector<uint32_t> start;    // cells + 1

  // Members by cell_of of the slots.
  void sort(const std::vector<uint32_t>& slots, int64_t cells);
};

class KMeans {
 public:
  KMeans(const CodedRows& rows, const BuildOptions& options);

  // Members get the nearest centroid, the first of equals. Throws std::bad_alloc.
  ec_status assign(const std::vector<uint32_t>& slots, const CodedRows& centroids,
                   Grouping* grouping) const;
  // Every cell's centroid becomes the mean of its members; one without members stays.
  ec_status move_centroids(const Grouping& grouping, Centroids* centroids) const;
  // Centroids after some iterations over the slots, from rows that were drawn. Throws std::bad_alloc.
  ec_status run(const std::vector<uint32_t>& slots, const std::vector<uint32_t>& drawn, int iterations,
                Centroids* centroids) const;

 private:
  const CodedRows heads_;  // without their tails
  const BuildOptions& options_;
  const GraphKernels& kernels_;
};

// Rows [first_new, rows.rows) become members of the cell with the nearest centroid. Throws std::bad_alloc.
ec_status join_cells(const CodedRows& rows, int64_t first_new, const BuildOptions& options, Cells* cells);

}  // namespace ann
}  // namespace ec
