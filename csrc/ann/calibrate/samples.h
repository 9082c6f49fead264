// SPDX-License-Identifier: Apache-2.0
// What stands in for queries while costs are measured: rows of the index, each left out of what it is
// searched in, or queries that are given; and what they tell of where their true neighbours lie.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "ann/index_data.h"
#include "ann/search/query.h"
#include "ann/vectors.h"
#include "core/parallel.h"

namespace ec::ann {

struct Sample {
  std::vector<float> vector;
  uint32_t left_out = kNoSlot;
};

// How far a code is from being kept by its head, and from being measured.
struct SeenCode {
  float missing;  // of its head's score to the k-th best code
  float most;     // that its tail may add
  float error;    // from its score to the k-th nearest row's, over head_scale |q|
};

// What one sample tells.
struct Seen {
  std::vector<uint32_t> nearest[kShareCount];  // kMeasuredResults by true distance among the passing rows
  std::vector<float> cell_reach[kShareCount];  // of each: what finds its cell
  std::vector<std::pair<float, int32_t>>
      rows[kShareCount];  // of each cell: what finds it, its passing rows
  float distance = 0.0f;  // of the nearest cell
  // Of each neighbour: what keeps it in sight.
  std::vector<float> tail_share, code_error, code_margin;
  std::vector<SeenCode> codes;  // of rows near enough to matter
  float length = 0.0f;          // |q|
};

// Reproducible numbers from numbers.
inline uint64_t scrambled(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// The value that `share` of the values are not above.
template <class T>
T quantile(std::vector<T> values, double share) {
  if (values.empty()) return T{};
  const auto at =
      std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

class Samples {
 public:
  // queries ([count][dim]) null: rows. index has to outlive this.
  Samples(const IndexData& index, const float* queries, int64_t count, int threads,
          const ec_monitor* monitor);

  size_t size() const { return samples_.size(); }
  // The first of them, at least one where there are any, are looked at in full; of the others only
  // seen().nearest[0] is known, and distance.
  size_t detailed() const { return detailed_; }
  const Sample& operator[](size_t i) const { return samples_[i]; }
  const std::vector<Seen>& seen() const { return seen_; }
  // The rows that pass at kShares[share]: at random, and nested.
  const AllowedSet& set(int share) const { return sets_[static_cast<size_t>(share)]; }

  // Fills seen(). Requires: the index has codes in the order of cells, and costs.row_square; links are not
  // asked for.
  void look();
  // body(i) for every sample, on all threads. Throws Interrupted, std::bad_alloc.
  template <class Body>
  void each(Body&& body) const {
    each_of(size(), std::forward<Body>(body));
  }
  // body(i) for all i below a count, likewise.
  template <class Body>
  void each_of(size_t count, Body&& body) const;

 private:
  void take_queries(const float* queries, int64_t count);
  void choose_rows();
  void choose_detailed();
  void choose_sets();
  void look_into_cells();
  void look_at(size_t first, size_t count);
  bool look_at_codes(size_t number, int64_t deep, std::vector<Candidate> codes, const QueryCode& code,
                     const float* vector, Query& query);
  std::vector<size_t> true_order(const float* vector, const std::vector<Candidate>& codes,
                                 std::vector<double>* distances) const;
  void note_bars(const Query& query, const QueryCode& code, const float* vector,
                 const std::vector<Candidate>& codes, const std::vector<size_t>& order,
                 const std::vector<double>& distances, Seen* seen) const;
  void look_at_cells(int share, const Query& query, const std::vector<Candidate>& cells, float bar,
                     Seen* seen) const;

  const IndexData& index_;
  int threads_;
  const ec_monitor* monitor_;
  std::vector<Sample> samples_;
  size_t detailed_ = 0;
  std::array<AllowedSet, kShareCount> sets_;
  std::vector<uint32_t> cell_of_;
  std::vector<int32_t> cell_rows_[kShareCount];  // of each cell, that pass
  std::vector<Seen> seen_;
};

template <class Body>
void Samples::each_of(size_t count, Body&& body) const {
  std::atomic<bool> out_of_memory{false};
  const ec_status status =
      parallel_for(static_cast<int64_t>(count), threads_, monitor_, [&](int64_t i, int) {
        try {
          body(static_cast<size_t>(i));
        } catch (const std::bad_alloc&) {
          out_of_memory = true;
        }
      });
  if (out_of_memory || status == EC_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status == EC_INTERRUPTED) throw Interrupted();
}

}  // namespace ec::ann
