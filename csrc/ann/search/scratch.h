// SPDX-License-Identifier: Apache-2.0
// What one worker needs for one query at a time; kept from call to call.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ann/codec.h"
#include "ann/search/pool.h"

namespace ec::ann {

// Marks of slots that clear() forgets at once.
class Marks {
 public:
  void clear(int64_t rows) {
    if (static_cast<int64_t>(marks_.size()) < rows) {
      marks_.assign(static_cast<size_t>(rows), 0);
      now_ = 0;
    }
    if (++now_ == 0) {
      std::memset(marks_.data(), 0, marks_.size());
      now_ = 1;
    }
  }
  bool marked(uint32_t slot) const { return marks_[slot] == now_; }
  void mark(uint32_t slot) { marks_[slot] = now_; }

 private:
  std::vector<uint8_t> marks_;
  uint8_t now_ = 0;
};

struct Measured {
  double distance;
  uint32_t slot;
};

constexpr int64_t kQueryBlock = 16;   // queries projected together
constexpr int64_t kScoreBlock = 512;  // rows scored at a time

struct Scratch {
  CodecScratch codec;
  AlignedBuffer<float> unit_queries;
  AlignedBuffer<int8_t> query_bytes;
  std::vector<QueryCode> codes;
  Marks visited;
  std::array<Pool, kQueryBlock> pools;  // one for each query of a block
  std::vector<Candidate> frontier;      // heap, best on top
  std::vector<Candidate> found;
  std::vector<Candidate> cell_order;
  std::vector<uint32_t> slots;
  std::vector<float> scores;
  std::vector<double> distances;
  std::vector<uint32_t> failing;
  std::vector<Candidate> promising;
  std::vector<Measured> chosen;

  static Scratch& of_this_thread() {
    static thread_local Scratch scratch;
    return scratch;
  }
};

}  // namespace ec::ann
