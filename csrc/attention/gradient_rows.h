// SPDX-License-Identifier: Apache-2.0
// Where the gradient of keys or values goes: each token's row is written once, tokens that do not count
// get zeros.
#pragma once

#include "attention/arena.h"
#include "attention/rows.h"

namespace ec {

// From here on a gradient is written past the caches.
constexpr int64_t kStreamedBytes = int64_t{16} << 20;

template <class Row>
class GradientRows {
 public:
  using Group = typename Products<Row>::Group;

  // data: C-contiguous rows of dtype, or null: not wanted.
  GradientRows(const AttentionRun& run, const ec_attention_problem& problem, void* data, int64_t columns,
               int64_t padded, bool accumulate)
      : run_(run),
        layout_(problem),
        data_(data),
        dtype_(problem.key.dtype),
        columns_(columns),
        padded_(padded),
        accumulate_(accumulate),
        in_place_(dtype_ == KernelsOf<Row>::kDtype && columns == padded) {
    const int64_t rows = problem.offsets != nullptr ? problem.tokens : problem.sequences * problem.tokens;
    streamed_ = in_place_ && !accumulate && rows * columns * dtype_size(dtype_) >= kStreamedBytes &&
                reinterpret_cast<uintptr_t>(data) % kCacheLineBytes == 0 &&
                columns * dtype_size(dtype_) % static_cast<int64_t>(kCacheLineBytes) == 0;
  }

  struct Scratch {
    Row** rows;
    Row* padded;  // rows that are converted, and one that nobody reads

    static Scratch take(Arena& arena, const GradientRows& self) {
      if (self.data_ == nullptr) return {nullptr, nullptr};
      const int64_t count = self.in_place_ ? 1 : kBlockTokens + 1;
      return {arena.take<Row*>(kBlockTokens + kTokenPadding), arena.take<Row>(count * self.padded_)};
    }
  };

  bool wanted() const { return data_ != nullptr; }

  // The rows of the block += or = tile' factor. next: the first token of the segment not yet written.
  void write(const TokenKernels<Row>& kernels, int64_t sequence, const Block& block, const Group* tile,
             const Group* factor, int64_t groups, int64_t* next, Scratch& scratch) const {
    Row* spare = scratch.padded + (in_place_ ? 0 : kBlockTokens * padded_);
    for (int64_t t = 0; t < block.tokens; ++t) {
      skip(sequence, *next, block.token[t]);
      *next = block.token[t] + 1;
      scratch.rows[t] =
          in_place_ ? static_cast<Row*>(row(sequence, block.token[t])) : scratch.padded + t * padded_;
    }
    for (int64_t t = block.tokens; t < round_up(block.tokens, kTokenPadding); ++t) scratch.rows[t] = spare;
    if (accumulate_ && !in_place_)
      for (int64_t t = 0; t < block.tokens; ++t)
        read_row(*run_.rows, row(sequence, block.token[t]), dtype_, columns_, padded_, scratch.rows[t]);
    kernels.spread(tile, block.tokens, factor, groups, padded_, streamed_, accumulate_, scratch.rows);
    if (in_place_) return;
    for (int64_t t = 0; t < block.tokens; ++t)
      write_row(run_.tokens->convert, scratch.rows[t], columns_, dtype_, row(sequence, block.token[t]));
  }

  // Zeros for tokens first to last of a sequence, none of which counts.
  void skip(int64_t sequence, int64_t first, int64_t last) const {
    if (accumulate_ || first >= last) return;
    std::memset(row(sequence, first), 0,
                static_cast<size_t>((last - first) * columns_ * dtype_size(dtype_)));
  }

 private:
  void* row(int64_t sequence, int64_t token) const {
    return element_pointer(data_, dtype_, (layout_.token_origin(sequence) + token) * columns_);
  }

  const AttentionRun& run_;
  Layout layout_;
  void* data_;
  ec_dtype dtype_;
  int64_t columns_, padded_;
  bool accumulate_, in_place_, streamed_;
};

}  // namespace ec
