// SPDX-License-Identifier: Apache-2.0
// The C ABI of embedcore: the only header that other languages need.
//
// Every function returns an ec_status and never throws, prints or aborts on input. On failure the
// message, the name of the argument and the first offending row (or -1) are in *error.
#ifndef EMBEDCORE_EMBEDCORE_H_
#define EMBEDCORE_EMBEDCORE_H_

#include <stdint.h>

#if defined(_WIN32)
#define EC_API __declspec(dllexport)
#else
#define EC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EC_ABI_VERSION 1

typedef enum ec_status {
  EC_OK = 0,
  EC_INVALID_VALUE = 1,  // a wrong shape or value
  EC_INVALID_TYPE = 2,   // a wrong dtype
  EC_OUT_OF_MEMORY = 3,
  EC_INTERRUPTED = 4,  // the monitor asked to stop
  EC_UNSUPPORTED = 5,  // this build or this processor cannot do it
  EC_DEVICE_ERROR = 6  // CUDA: no driver, no such device, or a call that failed
} ec_status;

typedef struct ec_error {
  int64_t row;        // first offending row, -1 where none
  char argument[16];  // name of the offending argument, "" where none
  char message[232];  // what must hold and what it was
} ec_error;

typedef enum ec_dtype { EC_FLOAT16 = 0, EC_BFLOAT16 = 1, EC_FLOAT32 = 2, EC_FLOAT64 = 3 } ec_dtype;

// Rows of vectors. The last axis is contiguous; rows lie row_stride elements apart (may be 0 or negative).
typedef struct ec_matrix {
  const void* data;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;  // elements
  ec_dtype dtype;
} ec_matrix;

// Called on the calling thread, a few times a second, with the fraction done; nonzero asks to stop.
typedef struct ec_monitor {
  int (*poll)(void* context, double fraction);
  void* context;
} ec_monitor;

// ---- controls -------------------------------------------------------------------------------------

EC_API int ec_abi_version(void);
EC_API const char* ec_version(void);
EC_API const char* ec_build_info(void);  // compiler, architecture and build type, in words

// Threads used by a call that does not name a number. 1 in a forked child of a process that used more.
EC_API int ec_get_num_threads(void);
EC_API void ec_set_num_threads(int threads);     // < 1 restores the default
EC_API const char* ec_num_threads_source(void);  // what the number comes from, in words

// Instruction sets: "baseline", "avx2", "avx512", "avx512dot", "avx512amx"; "neon", "neondot".
EC_API const char* ec_get_isa(void);
EC_API ec_status ec_set_isa(const char* name, ec_error* error);  // NULL or "" restores the best one
EC_API int ec_list_isas(const char** names, int capacity);       // those that this processor runs

// ---- statistical depth ----------------------------------------------------------------------------
// Definitions and sources: docs of embedcore.depth.

typedef enum ec_depth_metric {
  EC_DEPTH_COSINE = 0,
  EC_DEPTH_CHORD = 1,
  EC_DEPTH_ARC = 2,
  EC_DEPTH_L2 = 3,
  EC_DEPTH_SPATIAL = 4,
  EC_DEPTH_HALFSPACE = 5,
  EC_DEPTH_PROJECTION = 6,
  EC_DEPTH_IRW = 7,
  EC_DEPTH_MAHALANOBIS = 8,  // these two: ec_cuda_depth_score alone
  EC_DEPTH_AI_IRW = 9
} ec_depth_metric;

typedef enum ec_precision {
  EC_PRECISION_FLOAT32 = 0,
  EC_PRECISION_BFLOAT16 = 1,
  EC_PRECISION_INT8 = 2
} ec_precision;

typedef struct ec_depth_options {
  ec_depth_metric metric;
  ec_precision precision;  // chord and arc; others ignore it
  int32_t threads;         // < 1: ec_get_num_threads()
  int32_t raw_sums;        // nonzero: sums over the corpus instead of depths (not the random directions)
  const float* weights;    // one a corpus row, finite and >= 0; NULL: all 1
  const int32_t* labels;   // group of each corpus row, in [0, groups); NULL: one group
  int64_t groups;          // >= 1
  const ec_matrix* directions;  // halfspace, projection, IRW: one direction a row
  const ec_monitor* monitor;    // may be NULL
} ec_depth_options;

// depths[x.rows][groups]: the depth of each row of x in each group of the corpus. corpus == NULL: the
// corpus is x, and each row is left out of its own group.
// raw_sums: the weighted sum over the group of cos (cosine), of the distance (chord, arc, L2), or of the
// unit differences (spatial: depths[x.rows][groups][columns]).
EC_API ec_status ec_depth_score(const ec_matrix* x, const ec_matrix* corpus,
                                const ec_depth_options* options, double* depths, ec_error* error);

// Checks the arguments of ec_depth_score, the values of both matrices included, and computes nothing.
EC_API ec_status ec_depth_check(const ec_matrix* x, const ec_matrix* corpus,
                                const ec_depth_options* options, ec_error* error);

// The sufficient statistic of cosine depth: sums[groups][columns] of weight * row / |row|, and
// totals[groups] of the weights. options: weights, labels, groups, threads, monitor.
EC_API ec_status ec_depth_direction_sums(const ec_matrix* corpus, const ec_depth_options* options,
                                         double* sums, double* totals, ec_error* error);

// cosine_sums[x.rows][groups]: (row / |row|) . sums[group].
EC_API ec_status ec_depth_cosine_sums(const ec_matrix* x, const double* sums, int64_t groups,
                                      int32_t threads, const ec_monitor* monitor, double* cosine_sums,
                                      ec_error* error);

// ---- low-rank attention ---------------------------------------------------------------------------
// Definitions and sources: docs of embedcore.attention.

// Up to three axes; strides in elements, 0 where an axis is broadcast.
typedef struct ec_array {
  const void* data;
  int64_t stride[3];
  ec_dtype dtype;
} ec_array;

typedef enum ec_activation { EC_ACTIVATION_NONE = 0, EC_ACTIVATION_TANH = 1 } ec_activation;
typedef enum ec_head_norm { EC_HEAD_NORM_NONE = 0, EC_HEAD_NORM_L2 = 1 } ec_head_norm;

// Dense: sequences of `tokens` tokens each, of which lengths[b] count (all where lengths is NULL).
// Ragged (offsets not NULL): sequence b is the tokens offsets[b] to offsets[b + 1] of `tokens` in all;
// arrays then have no sequence axis: stride[0] is not used, except of query and temperature.
typedef struct ec_attention_problem {
  int64_t sequences, tokens, heads, key_columns, value_columns;
  ec_array key;                // [sequence][token][column]; columns are contiguous
  ec_array value;              // the same, and of the same dtype; data NULL: the keys are the values
  ec_array query;              // [sequence][column][head]; data NULL: all scores are 0
  int32_t query_per_sequence;  // 0: one factor for all sequences; stride[0] is not used then
  const int64_t* offsets;      // sequences + 1, from 0 to tokens, not falling
  const int64_t* lengths;
  const uint8_t* keep;  // [sequence][token]: 0 leaves a token out; NULL: none
  int64_t keep_stride[2];
  ec_array mask;         // [sequence][token], added after activation and norm; -infinity leaves a token out
  ec_array bias;         // [sequence][token][head], added before the activation
  ec_array temperature;  // [sequence][head]; data NULL: fixed_temperature
  double fixed_temperature;
  ec_activation activation;
  ec_head_norm norm;
  int32_t threads;            // < 1: ec_get_num_threads()
  const ec_monitor* monitor;  // may be NULL
} ec_attention_problem;

// C-contiguous. "real" is double where the keys are float64, else float. out has the dtype of the keys.
typedef struct ec_attention_result {
  void* out;      // [sequence][head][value column]
  void* lse;      // [sequence][head] real; may be NULL
  void* scores;   // query . key, [sequence][head][token] real (ragged [head][token]); may be NULL
  void* weights;  // the same shape; may be NULL
  void* wide;     // out before it is rounded: real; may be NULL
} ec_attention_result;

typedef struct ec_attention_gradient {
  // grad_out, out, lse and, with a query, scores are required.
  const ec_array* grad_out;  // [sequence][head][value column], columns contiguous
  const ec_array* grad_lse;  // [sequence][head]; may be NULL
  // Shaped like scores, real, C-contiguous; may be NULL. Where given, the values are read once more.
  const void* grad_weights;
  // What ec_attention_forward gave for the same problem. out may be `wide` instead: gradients of half
  // dtypes are more exact by it.
  const void* out;
  ec_dtype out_dtype;
  const void* lse;
  const void* scores;
  // Results, each NULL where it is not wanted; C-contiguous.
  void* grad_key;    // like the keys, C-contiguous, in their dtype; where value is NULL, the whole gradient
  void* grad_value;  // like the values
  void* grad_query;  // [sequence, or 1][head][column] real; 1 without query_per_sequence
  void* grad_temperature;  // [sequence][head] real, not summed
  void* grad_bias;         // shaped like scores, real, not summed
  void* grad_mask;         // [sequence][token] real (ragged [token])
  int32_t accumulate;      // nonzero: grad_key += instead of =
} ec_attention_gradient;

// Complexity: 4 heads columns operations a valid token; tokens are read once and the others never.
EC_API ec_status ec_attention_forward(const ec_attention_problem* problem,
                                      const ec_attention_result* result, ec_error* error);

// Complexity: 8 heads columns operations a valid token.
EC_API ec_status ec_attention_backward(const ec_attention_problem* problem,
                                       const ec_attention_gradient* gradient, ec_error* error);

#ifdef __cplusplus
}
#endif

#endif  // EMBEDCORE_EMBEDCORE_H_
