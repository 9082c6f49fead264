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
  int columns;      // 0: there are none in the stages
  int padded;       // a multiple of 16
  int stride;       // of rows in shared memory, in numbers
  int piece_bytes;  // in which rows are copied: 16, 8 or 4; 0: number by number
  int first = 0;    // column of the array that they begin with

  __host__ __device__ int numbers(int tokens) const { return columns == 0 ? 0 : tokens * stride; }
};

struct TileShape {
  int tokens;  // of a tile: 4, 8, 16 or 32
  int stages;  // 1 to 4
  RowShape keys, values;
  int stage_bytes;
  int kept = 0;  // 0 or 1: tiles that stay when another is taken
};

template <int kBytes, class T>
__device__ __forceinline__ void copy_pieces(const T* from, bool present, const RowShape& shape, T* to) {
  constexpr int kPiece = kBytes / static_cast<int>(sizeof(T));
#pragma unroll(kBytes == 16 ? 4 : 1)
  for (int k = kPiece * static_cast<int>(threadIdx.x % kWarpSize); k < shape.padded;
       k += kPiece * kWarpSize)
    async_copy<kBytes>(to + k, from + k, present && k < shape.columns);
}

// Numbers [0, padded) of a row by a warp; zeros where it is not present.
template <class T>
__device__ __forceinline__ void copy_row(const T* from, bool present, const RowShape& shape, T* to) {
  if (shape.piece_bytes == 16) {
    copy_pieces<16>(from, present, shape, to);
  } else if (shape.piece_bytes == 8) {
    copy_pieces<8>(from, present, shape, to);
  } else if (shape.piece_bytes == 4) {
    copy_pieces<4>(from, present, shape, to);
  } else {
#pragma unroll 1
    for (int k = static_cast<int>(threadIdx.x) % kWarpSize; k < shape.padded; k += kWarpSize)
      to[k] = present && k < shape.columns ? from[k] : T{};
  }
}

// One tile of a piece. Of a sequence without places there is one, without tokens.
struct TileHeader {
  Piece piece;  // of a sequence below 0 where there are no more
  int64_t first;
  bool starts, stops;  // with the piece

  __device__ bool present() const { return piece.sequence >= 0; }
};

template <class T>
struct Stage {
  T *keys, *values;  // the same where the keys are the values
  // [kMostTileTokens]: what is added to the scores of a token; -infinity: it does not count.
  float* offsets;
  float* saved;  // [head][token of the tile]: scores that are read back

  __device__ Stage(const TileShape& shape, unsigned char* memory, int number) {
    unsigned char* start = memory + static_cast<int64_t>(number) * shape.stage_bytes;
    keys = reinterpret_cast<T*>(start);
    values = keys + shape.keys.numbers(shape.tokens);
    offsets = reinterpret_cast<float*>(values + shape.values.numbers(shape.tokens));
    saved = offsets + kMostTileTokens;
    if (shape.values.columns == 0) values = keys;
  }
};

// The walk of a block over its tiles, in shared memory: one thread goes on with it, ahead of the others.
// Registers are for sums.
struct TileWalk {
  static constexpr unsigned kHeaders = 8;  // of a tile, those that are copied, and one ahead of them

  PieceWalk pieces;
  TileHeader headers[kHeaders];  // of tile i: number i % kHeaders

  // Header number i, after number i - 1. only: [sequence], those to be walked; null: all.
  __device__ void step(const Sequences& sequences, const int* only, int tile_tokens, unsigned i) {
    TileHeader header = headers[(i - 1) % kHeaders];
    header.starts = header.stops;
    header.first += tile_tokens;
    if (header.starts) {
      do {
        if (!pieces.next(sequences, header.piece)) header.piece.sequence = -1;
      } while (only != nullptr && header.present() && only[header.piece.sequence] == 0);
      header.first = header.piece.first;
    }
    header.stops = !header.present() || header.first + tile_tokens >= header.piece.last;
    headers[i % kHeaders] = header;
  }
};

// Tiles of a block, in order, copied to one stage after the other.
template <class T>
class TileCopies {
 public:
  // block: its number among those that share the tokens. By all threads; the others' memory is not touched
  // before the first take. saved: scores to be copied along, or null.
  __device__ TileCopies(const AttentionProblem& problem, const Sequences& sequences, const Share& share,
                        int64_t block, const TileShape& shape, const float* saved, const int* only,
                        TileWalk& walk, unsigned char* memory)
      : problem_(problem),
        sequences_(sequences),
        shape_(shape),
        saved_(saved),
        only_(only),
        walk_(walk),
        memory_(memory) {
    if (threadIdx.x < kWarpSize) {
      const PieceWalk pieces(sequences, share, block);
      if (threadIdx.x == 0) {
        walk_.pieces = pieces;
        walk_.headers[TileWalk::kHeaders - 1].stops = true;
        for (int i = 0; i <= shape.stages; ++i) step(static_cast<unsigned>(i));
      }
    }
    __syncthreads();
    offset_ = offset_of(0);
#pragma unroll 1
    for (int i = 0; i < ahead(); ++i) copy(static_cast<unsigned>(i), i);
  }

  // Until all threads have the next tile; none may need those before any more, but the last `kept`.
  __device__ void take() {
    const int ahead = this->ahead();
    if (ahead == 1)
      async_wait<0>();
    else if (ahead > 1)
      async_wait<1>();
    __syncthreads();
    const int to = stage_ + ahead;
    copy(taken_ + static_cast<unsigned>(ahead), to < shape_.stages ? to : to - shape_.stages);
    if (ahead == 0) {
      async_wait<0>();
      __syncthreads();
    }
    if (threadIdx.x == 0) step(taken_ + static_cast<unsigned>(shape_.stages) + 1);
    __syncwarp();  // products are of whole warps
    ++taken_;
    now_ = stage_;
    stage_ = stage_ + 1 == shape_.stages ? 0 : stage_ + 1;
  }

  // Of the tile that is taken next; it stays until the one behind that is taken.
  __device__ const TileHeader& next() const { return walk_.headers[taken_ % TileWalk::kHeaders]; }
  // How many have been taken, and the header of the last but `back`.
  __device__ unsigned taken() const { return taken_; }
  __device__ const TileHeader& header(unsigned back) const {
    return walk_.headers[(taken_ - 1 - back) % TileWalk::kHeaders];
  }
  // Of what was taken, or of the last but `back` of that.
  __device__ Stage<T> stage() const { return Stage<T>(shape_, memory_, now_); }
  __device__ Stage<T> stage(int back) const {
    const int number = now_ - back;
    return Stage<T>(shape_, memory_, number < 0 ? number + shape_.stages : number);
  }

 private:
  __device__ int ahead() const { return shape_.stages - 1 - shape_.kept; }  // tiles that are copied
  __device__ void step(unsigned i) { walk_.step(sequences_, only_, shape_.tokens, i); }

  // Starts tile i. A group each time, so that waiting counts right.
  __device__ void copy(unsigned i, int stage_number) {
    const TileHeader& header = walk_.headers[i % TileWalk::kHeaders];
    if (header.present()) copy_tokens(header, Stage<T>(shape_, memory_, stage_number));
    async_commit();
    offset_ = offset_of(i + 1);
  }

  // What is added to the scores of this lane's token of tile i; -infinity: it does not count. Asked for one
  // tile ahead, so that nothing waits for it.
  __device__ float offset_of(unsigned i) const {
    const TileHeader& header = walk_.headers[i % TileWalk::kHeaders];
    const int64_t t = header.first + threadIdx.x % kWarpSize;
    float offset;
    const bool counts = header.present() && static_cast<int>(threadIdx.x) % kWarpSize < shape_.tokens &&
                        t < header.piece.last &&
                        kept(problem_, sequences_, header.piece.sequence, t, &offset);
    return counts ? offset : -HUGE_VALF;
  }

  __device__ void copy_tokens(const TileHeader& header, const Stage<T>& stage) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int64_t b = header.piece.sequence, first = header.first, last = header.piece.last;
    const unsigned counts = __ballot_sync(kAllLanes, offset_ != -HUGE_VALF);
    if (warp == 0) stage.offsets[lane] = offset_;
    if (shape_.keys.columns > 0) copy_rows(problem_.key, shape_.keys, b, first, counts, stage.keys);
    if (shape_.values.columns > 0)
      copy_rows(problem_.value.data == nullptr ? problem_.key : problem_.value, shape_.values, b, first,
                counts, stage.values);
    if (saved_ == nullptr || lane >= shape_.tokens) return;
    const float* saved = saved_ + sequences_.score_origin(b) + first;
#pragma unroll 1
    for (int64_t j = warp; j < sequences_.heads; j += kAttentionWarps)
      async_copy<4>(stage.saved + j * shape_.tokens + lane, saved + j * sequences_.tokens + lane,
                    first + lane < last);
  }

  __device__ void copy_rows(const Numbers& rows, const RowShape& row_shape, int64_t b, int64_t first,
                            unsigned counts, T* to) {
    const T* from = static_cast<const T*>(rows.data) + sequences_.origin(rows.stride, b) + row_shape.first;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) / kWarpSize; i < shape_.tokens; i += kAttentionWarps) {
      const bool present = (counts >> i & 1u) != 0;
      copy_row(from + (present ? first + i : 0) * rows.stride[1], present, row_shape,
               to + i * row_shape.stride);
    }
  }

  const AttentionProblem& problem_;
  const Sequences& sequences_;
  const TileShape& shape_;
  const float* saved_;
  const int* only_;
  TileWalk& walk_;
  unsigned char* memory_;
  unsigned taken_ = 0;  // tiles
  int stage_ = 0, now_ = 0;
  float offset_;  // of the tile that is copied next
};

}  // namespace ec::cuda
