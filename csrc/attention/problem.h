// SPDX-License-Identifier: Apache-2.0
// A checked problem: where sequences lie, which of their tokens count, and how the work is cut.
#pragma once

#include <cmath>
#include <cstdint>

#include "attention/kernels.h"
#include "capi/embedcore.h"
#include "core/workspace.h"

namespace ec {

// One number of any dtype.
double array_value(const ec_array& array, int64_t element);

// What must hold of a problem before any of it is used, its numbers included.
ec_status check_problem(const ec_attention_problem& problem, ec_error* error);

// A run of tokens of one sequence, done by one task. Runs are fixed by the problem, not by the threads.
struct Segment {
  int64_t sequence;
  int64_t first, last;  // tokens of the sequence
  int64_t slot;         // where a partial result goes; -1 where the segment is its whole sequence
};

class Layout {
 public:
  explicit Layout(const ec_attention_problem& problem) : problem_(problem) {}

  bool ragged() const { return problem_.offsets != nullptr; }
  // Tokens of a sequence that may count.
  int64_t length(int64_t b) const {
    if (ragged()) return problem_.offsets[b + 1] - problem_.offsets[b];
    return problem_.lengths == nullptr ? problem_.tokens : problem_.lengths[b];
  }
  // Tokens of a sequence that there are.
  int64_t room(int64_t b) const { return ragged() ? length(b) : problem_.tokens; }

  // Element of the first token of a sequence in an array whose first two axes are sequence and token.
  int64_t origin(const int64_t* stride, int64_t b) const {
    return ragged() ? problem_.offsets[b] * stride[1] : b * stride[0];
  }
  // Element of token 0 of a head in arrays like scores, and the step from head to head.
  int64_t score_origin(int64_t b) const {
    return ragged() ? problem_.offsets[b] : b * problem_.heads * problem_.tokens;
  }
  int64_t score_step() const { return problem_.tokens; }
  // Element of token 0 in C-contiguous arrays [sequence][token].
  int64_t token_origin(int64_t b) const { return ragged() ? problem_.offsets[b] : b * problem_.tokens; }

  int64_t all_tokens() const;  // sum of the lengths

 private:
  const ec_attention_problem& problem_;
};

// All segments of a problem, in order. Each sequence has at least one, empty where it has no tokens.
class Segments {
 public:
  bool build(const ec_attention_problem& problem);
  int64_t count() const { return list_.size(); }
  const Segment& operator[](int64_t i) const { return list_[i]; }
  int64_t slots() const { return slots_; }  // segments of sequences that have several

 private:
  NearBuffer<Segment, 2 << 10> list_;
  int64_t slots_ = 0;
};

// Tokens of one block that count.
struct Block {
  int64_t tokens = 0;
  int64_t token[kBlockTokens];  // place in the sequence
  bool contiguous = true;       // token[t] = token[0] + t
};

// Walks the tokens of a segment that count, block by block.
class BlockWalk {
 public:
  BlockWalk(const ec_attention_problem& problem, const Segment& segment);
  // False, and an empty block, at the end.
  bool next(Block* block);

 private:
  bool counts(int64_t token) const;

  const ec_attention_problem& problem_;
  int64_t at_, last_;
  int64_t keep_origin_, mask_origin_;
};

// The temperatures of one sequence, inverted.
template <class Real>
void inverse_temperatures(const ec_attention_problem& problem, int64_t sequence, Real* inverse);

// Whether 1 bounds every score of this sequence from above and its weights relative to that bound are
// normal numbers.
template <class Real>
bool scores_bounded(const ec_attention_problem& problem, const Real* inverse);

}  // namespace ec
