// SPDX-License-Identifier: Apache-2.0
// Low-rank attention on the GPU, on the caller's stream and in the caller's workspace. Formulas:
// attention/attention_math.h. What each field means: ec_attention_problem and its results (embedcore.h);
// here all pointers, those of offsets and lengths too, are to the memory of the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/attention_math.h"
#include "common/numbers.cuh"

namespace ec::cuda {

// Up to three axes; strides in numbers, 0 where an axis is broadcast.
struct Numbers {
  const void* data;
  int64_t stride[3];
  NumberKind kind;
};

// Keys and values are float32, float16 or bfloat16, of one kind; all else may be float64 too. Lengths and
// offsets beyond the tokens are taken as if they ended there.
struct AttentionProblem {
  int64_t sequences, tokens, heads, key_columns, value_columns;
  Numbers key;    // [sequence][token][column]; columns are contiguous
  Numbers value;  // data null: the keys are the values
  Numbers query;  // [sequence][column][head]; data null: all scores are 0
  bool query_per_sequence;
  const int64_t* offsets;  // ragged: [sequences + 1], and arrays have no sequence axis; else null
  const int64_t* lengths;  // null: all tokens
  const uint8_t* keep;     // [sequence][token]; null: all
  int64_t keep_stride[2];
  Numbers mask;         // [sequence][token]
  Numbers bias;         // [sequence][token][head]
  Numbers temperature;  // [sequence][head]; data null: fixed_temperature
  double fixed_temperature;
  Activation activation;
  HeadNorm norm;
  bool clusters = false;  // the device runs blocks in clusters
  bool hopper = false;    // the device runs hopper/: the forward is taken there where it fits
};

// C-contiguous; each but out may be null.
struct AttentionResult {
  void* out;       // [sequence][head][value column], of the kind of the keys
  float* lse;      // [sequence][head]
  float* scores;   // [sequence][head][token], ragged [head][token]
  float* weights;  // the same
  float* wide;     // out before it is rounded
  int8_t* rest;    // what rounding has left of out, of 16 bits (rest.cuh)
};

struct AttentionGradient {
  // [sequence][head][value column]; columns contiguous. With tensor cores it is rounded to the keys' kind.
  Numbers grad_out;
  Numbers grad_lse;           // [sequence][head]; data may be null
  const float* grad_weights;  // like scores; may be null
  // What the forward gave: out may be `wide`; rest, which may be null, belongs to out of the keys' kind.
  // Scores are needed where there is a query.
  const void* out;
  NumberKind out_kind;
  const int8_t* rest;
  const float *lse, *scores;
  // Results, each null where it is not wanted; C-contiguous.
  void *grad_key, *grad_value;  // of the kind of the keys
  float* grad_query;            // [sequence, or 1][head][column]
  float* grad_temperature;      // [sequence][head], not summed
  float* grad_bias;             // like scores, not summed
  float* grad_mask;             // [sequence][token]
  bool accumulate;              // grad_key += instead of =; grad_value is written
};

// Whether a tile of these rows fits what a block of the device in use shares, and how many bytes a row of
// the keys and one of the values may have together that it does.
bool attention_supported(const AttentionProblem& problem);
int64_t attention_most_row_bytes(const AttentionProblem& problem);

// Each run starts kernels and returns whether all could be started. Requires: a supported problem with one
// head and one column at least, shapes that fit, a workspace of that size on a boundary of 256 bytes.
// Results do not depend on chance, but on the number of multiprocessors.
size_t attention_forward_workspace_bytes(const AttentionProblem& problem, const AttentionResult& result,
                                         int multiprocessors);
bool run_attention_forward(const AttentionProblem& problem, const AttentionResult& result,
                           int multiprocessors, void* workspace, Stream stream);

size_t attention_backward_workspace_bytes(const AttentionProblem& problem,
                                          const AttentionGradient& gradient, int multiprocessors);
bool run_attention_backward(const AttentionProblem& problem, const AttentionGradient& gradient,
                            int multiprocessors, void* workspace, Stream stream);

}  // namespace ec::cuda
