// SPDX-License-Identifier: Apache-2.0
// The C ABI of embedcore on the GPU: libembedcore_cuda.
//
// Arrays lie on the device. Functions start kernels on the caller's stream and return: they neither wait
// nor allocate, and may be captured into a CUDA graph, unless they say otherwise. Nothing of CUDA is
// touched before the first call, so that the library loads on machines without a GPU or a driver.
//
// Values are not looked at: a row that is not finite, and under the angular metrics a row of zeros, has
// NaN for its own results, and as a row of the corpus makes all results of its group NaN.
#ifndef EMBEDCORE_EMBEDCORE_CUDA_H_
#define EMBEDCORE_EMBEDCORE_CUDA_H_

#include "embedcore.h"

#ifdef __cplusplus
extern "C" {
#endif

// Where a call runs.
typedef struct ec_cuda_place {
  int32_t device;
  void* stream;  // a cudaStream_t of that device; NULL: its default stream
} ec_cuda_place;

// ---- devices --------------------------------------------------------------------------------------

// EC_DEVICE_ERROR, with what to do, where there is no driver, one too old, or no device.
EC_API ec_status ec_cuda_device_count(int32_t* count, ec_error* error);
EC_API const char* ec_cuda_build_info(void);  // version of the CUDA runtime and targets, in words

// ---- statistical depth ----------------------------------------------------------------------------

typedef struct ec_cuda_depth_options {
  ec_depth_metric metric;  // cosine, chord, arc, L2, spatial
  // Chord and arc: EC_PRECISION_FLOAT32 splits each number in two for the tensor cores, BFLOAT16 does not.
  ec_precision precision;
  const void* weights;  // one a corpus row, float32 or float64, in any unit; NULL: all 1
  ec_dtype weights_dtype;
  int64_t weights_stride;  // elements
  int64_t groups;          // >= 1
  // Rows order[starts[g]] to order[starts[g + 1] - 1] of the corpus are group g.
  const int64_t* starts;  // on the host: groups + 1, from 0 to the rows, not falling; NULL: one group
  const int64_t* order;   // on the device, each row of the corpus once; NULL: rows as they are
} ec_cuda_depth_options;

// Bytes of scratch that ec_cuda_depth_score takes for arguments of these shapes and dtypes. Data pointers
// are not read.
EC_API ec_status ec_cuda_depth_workspace(const ec_cuda_place* place, const ec_matrix* x,
                                         const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                         int64_t* bytes, ec_error* error);

// depths[x->rows][groups], double where x is float64, else float: as ec_depth_score (embedcore.h).
// corpus == NULL: the corpus is x, and each row is left out of its own group. workspace: on a boundary of
// 256 bytes.
// Complexity: O((n + m) d) for cosine, O(n m d) else.
EC_API ec_status ec_cuda_depth_score(const ec_cuda_place* place, const ec_matrix* x,
                                     const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                     void* workspace, void* depths, ec_error* error);

// Looks at the values of all arguments, waits for the stream, and names the first bad one. workspace: 24
// bytes on a boundary of 8.
EC_API ec_status ec_cuda_depth_check(const ec_cuda_place* place, const ec_matrix* x,
                                     const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                     void* workspace, ec_error* error);

// ---- low-rank attention ---------------------------------------------------------------------------
// As ec_attention_forward and ec_attention_backward (embedcore.h), all arrays, lengths and offsets too, on
// the device. Keys are float16, bfloat16 or float32, "real" is float; threads and monitor are not used.
// Lengths and offsets beyond the tokens are taken as if they ended there.
//
// rest (int8, [sequence][head][value column]; may be NULL): what rounding has left of out, where keys are
// float16 or bfloat16. The backward is as exact by it as by `wide`, of which it is a quarter.

EC_API ec_status ec_cuda_attention_forward_workspace(const ec_cuda_place* place,
                                                     const ec_attention_problem* problem,
                                                     const ec_attention_result* result, int64_t* bytes,
                                                     ec_error* error);
// Complexity: as ec_attention_forward; the tokens are read once. workspace: on a boundary of 256 bytes.
EC_API ec_status ec_cuda_attention_forward(const ec_cuda_place* place, const ec_attention_problem* problem,
                                           const ec_attention_result* result, int8_t* rest, void* workspace,
                                           ec_error* error);

EC_API ec_status ec_cuda_attention_backward_workspace(const ec_cuda_place* place,
                                                      const ec_attention_problem* problem,
                                                      const ec_attention_gradient* gradient, int64_t* bytes,
                                                      ec_error* error);
// rest: that of gradient->out, which has the dtype of the keys then.
EC_API ec_status ec_cuda_attention_backward(const ec_cuda_place* place, const ec_attention_problem* problem,
                                            const ec_attention_gradient* gradient, const int8_t* rest,
                                            void* workspace, ec_error* error);

#ifdef __cplusplus
}
#endif

#endif  // EMBEDCORE_EMBEDCORE_CUDA_H_
