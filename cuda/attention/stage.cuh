// SPDX-License-Identifier: Apache-2.0
// Tokens on their way through a block: tiles of a few tokens, copied ahead to stages in shared memory, so
// that each row is read once however often it is used.
//
// Memory: a stage is the rows of the keys, then of the values (where those are others), then numbers of
// each token. Rows end in zeros up to a multiple of 16 numbers, and lie an odd number of 16 bytes apart:
// matrices of 8 rows meet in no bank.
#pragma once

#include "attention/sequences.cuh"
#include "common/tensor_core.cuh"

namespace ec::cuda {

constexpr int kMostTileTokens = 32;  // one a lane
// Numbers of a row of scores in shared memory: fragments of 8 heads and 8 tokens meet in no bank.
constexpr int kScoreStride = kMostTileTokens + 8;

// The rows of one array.
struct RowShape {
  int columns;     // 0: there are none in the stages
  int padded;      // a multiple of 16
  int stride;      // of rows in shared memory, in numbers
  bool in_pieces;  // rows are copied in pieces of 16 bytes

  __host__ __device__ int numbers(int tokens) const { return columns == 0 ? 0 : tokens * stride; }
};

struct TileShape {
  int tokens;  // of a tile: 4, 8, 16 or 32
  int stages;  // 1 to 3
  RowShape keys, values;
  int stage_bytes;
};

// Numbers [0, padded) of a row by a warp; zeros where it is not present.
template <class T>
__device__ __forceinline__ void copy_row(const T* from, bool present, const RowShape& shape, T* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  constexpr int kPiece = 16 / static_cast<int>(sizeof(T));
  if (shape.in_pieces) {
    for (int k = kPiece * lane; k < shape.padded; k += kPiece * kWarpSize)
      async_copy(to + k, from + k, present && k < shape.columns);
  } else {
    for (int k = lane; k < shape.padded; k += kWarpSize)
      to[k] = present && k < shape.columns ? from[k] : T{};
  }
}

template <class T>
struct Stage {
  T *keys, *values;  // the same where the keys are the values
  // [kMostTileTokens]: what is added to the scores of a token; -infinity: it does not count.
  float* offsets;
  float* saved;  // [head][kScoreStride]: scores that are read back

  __device__ Stage(const TileShape& shape, unsigned char* memory, int number) {
    unsigned char* start = memory + static_cast<int64_t>(number) * shape.stage_bytes;
    keys = reinterpret_cast<T*>(start);
    values = keys + shape.keys.numbers(shape.tokens);
    offsets = reinterpret_cast<float*>(values + shape.values.numbers(shape.tokens));
    saved = offsets + kMostTileTokens;
    if (shape.values.columns == 0) values = keys;
  }
};

// Tiles of a block's pieces, in order, copied to one stage after the other.
template <class T>
class TileCopies {
 public:
  // saved: scores to be copied along, or null. only: [sequence], those to be walked; null: all.
  __device__ TileCopies(const AttentionProblem& problem, const Sequences& sequences, const Share& share,
                        const TileShape& shape, const float* saved, const int* only, unsigned char* memory)
      : problem_(problem),
        sequences_(sequences),
        shape_(shape),
        saved_(saved),
        only_(only),
        memory_(memory),
        pieces_(sequences, share, blockIdx.x) {
    for (int i = 0; i < shape.stages - 1; ++i) next();
  }

  // Until all threads have the next tile; none may need the one before any more.
  __device__ void take() {
    if (shape_.stages == 1) {
      __syncthreads();
      next();
      async_wait<0>();
      __syncthreads();
      return;
    }
    if (shape_.stages == 2)
      async_wait<0>();
    else
      async_wait<1>();
    __syncthreads();
    next();
  }

 private:
  // Starts one more tile. A group each time, so that waiting counts right.
  __device__ void next() {
    while (at_ >= piece_.last) {
      if (!pieces_.next(piece_)) {
        piece_.last = at_ = 0;
        async_commit();
        return;
      }
      at_ = only_ == nullptr || only_[piece_.sequence] != 0 ? piece_.first : piece_.last;
    }
    copy(at_, min(piece_.last, at_ + shape_.tokens));
    at_ += shape_.tokens;
    number_ = number_ + 1 == shape_.stages ? 0 : number_ + 1;
    async_commit();
  }

  __device__ void copy(int64_t first, int64_t last) {
    const Stage<T> stage(shape_, memory_, number_);
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int64_t b = piece_.sequence;
    const T* keys = static_cast<const T*>(problem_.key.data) + sequences_.origin(problem_.key.stride, b);
    const Numbers& value = problem_.value.data == nullptr ? problem_.key : problem_.value;
    const T* values = static_cast<const T*>(value.data) + sequences_.origin(value.stride, b);
    for (int i = warp; i < shape_.tokens; i += kAttentionWarps) {
      const int64_t t = first + i;
      float offset = 0.0f;
      const bool counts = t < last && kept(problem_, sequences_, b, t, &offset);
      if (lane == 0) stage.offsets[i] = counts ? offset : -HUGE_VALF;
      if (shape_.keys.columns > 0)
        copy_row(keys + (counts ? t : 0) * problem_.key.stride[1], counts, shape_.keys,
                 stage.keys + i * shape_.keys.stride);
      if (shape_.values.columns > 0)
        copy_row(values + (counts ? t : 0) * value.stride[1], counts, shape_.values,
                 stage.values + i * shape_.values.stride);
    }
    if (saved_ == nullptr) return;
    const float* saved = saved_ + sequences_.score_origin(b) + first;
    for (int64_t j = warp; j < sequences_.heads; j += kAttentionWarps)
      async_copy_word(stage.saved + j * kScoreStride + lane, saved + j * sequences_.tokens + lane,
                      lane < last - first);
  }

  const AttentionProblem& problem_;
  const Sequences& sequences_;
  const TileShape& shape_;
  const float* saved_;
  const int* only_;
  unsigned char* memory_;
  PieceWalk pieces_;
  Piece piece_ = {0, 0, 0, false, false};
  int64_t at_ = 0;
  int number_ = 0;
};

}  // namespace ec::cuda
