// SPDX-License-Identifier: Apache-2.0
// The vectors of an index: an immutable value with operations that give the next version.
#pragma once

#include <memory>
#include <vector>

#include "ann/index_data.h"
#include "ann/search/search.h"
#include "core/internal.h"

namespace ec::ann {

struct BuildRequest {
  CodeShape shape;               // dim is filled in
  const float* mean = nullptr;   // null: the codec that there is is kept
  const float* basis = nullptr;  // [code_dims][dim]
  int threads = 0;
  uint64_t seed = 0;
  const ec_monitor* monitor = nullptr;
  // Does most of a build in its place, if there is a basis; null: nothing does.
  BuildSteps* steps = nullptr;
};

// Thrown when the monitor asked to stop; nothing has changed then.
struct EC_INTERNAL Interrupted{};

class EC_INTERNAL Vectors {
 public:
  Vectors(int64_t dim, Metric metric, VectorDtype dtype);
  explicit Vectors(std::shared_ptr<const IndexData> data) : data_(std::move(data)) {}

  const IndexData& data() const { return *data_; }

  // rows: [count] of dim numbers of this dtype, stride_bytes apart. Throws std::invalid_argument naming the
  // row for NaN and infinite numbers, and zero rows under cosine; std::bad_alloc.
  Vectors append(const void* rows, int64_t count, int64_t stride_bytes, int threads) const;
  // Dead slots are ignored. Throws std::invalid_argument for a slot out of range.
  Vectors remove(const int64_t* slots, int64_t count) const;
  // Drops dead rows, trains, orders rows by cell, links them, measures costs. order[new slot] = old slot.
  // Throws Interrupted, std::bad_alloc.
  Vectors build(const BuildRequest& request, std::vector<int64_t>* order) const;
  // Links the tail.
  Vectors merge(int threads, const ec_monitor* monitor) const;
  // Costs measured anew; queries ([count][dim]) null: rows of the index stand in for them.
  Vectors calibrate(const float* queries, int64_t count, int threads, const ec_monitor* monitor) const;
  // Without the vectors as given: distances come from the codes then. Requires a trained index.
  Vectors drop_raw() const;

 private:
  std::shared_ptr<const IndexData> data_;
};

// |x - mean|^2 of a coded row: from its offset or, for ip, from its bytes.
float centred_square(const IndexData& index, int64_t slot);

}  // namespace ec::ann
