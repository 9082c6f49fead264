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
  ec_depth_metric metric;
  // Chord and arc: EC_PRECISION_FLOAT32 splits each number in two for the tensor cores, BFLOAT16 does not.
  ec_precision precision;
  const void* weights;  // one a corpus row, float32 or float64, in any unit; NULL: all 1
  ec_dtype weights_dtype;
  int64_t weights_stride;  // elements
  int64_t groups;          // >= 1
  // Rows order[starts[g]] to order[starts[g + 1] - 1] of the corpus are group g.
  const int64_t* starts;  // on the host: groups + 1, from 0 to the rows, not falling; NULL: one group
  const int64_t* order;   // on the device, each row of the corpus once; NULL: rows as they are
  // Mahalanobis and AI-IRW: weight, in [0, 1], of the multiple of the identity that the covariance is
  // shrunk to; below 0: 0 where the covariance has an inverse, else Ledoit and Wolf's. Without an inverse
  // all depths of the group are NaN.
  double shrinkage;
  // Where the covariance of a corpus in one group is kept between calls that differ in x alone: memory of
  // the size that ec_cuda_depth_covariance_bytes tells, on a boundary of 256 bytes; NULL: it is found each
  // time.
  void* covariance;
  int32_t covariance_found;  // nonzero: it is there, from an earlier call
  // Halfspace, projection, IRW and AI-IRW: one a row of the matrix, float64, contiguous, on the device.
  const double* directions;
  int64_t direction_count;  // 1 to 2^20
  // Cosine: what ec_cuda_depth_direction_sums has found, or NULL. The corpus is not looked at then.
  const double* sums;
} ec_cuda_depth_options;

// Bytes of scratch that ec_cuda_depth_score takes for arguments of these shapes and dtypes. Data pointers
// are not read.
EC_API ec_status ec_cuda_depth_workspace(const ec_cuda_place* place, const ec_matrix* x,
                                         const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                         int64_t* bytes, ec_error* error);

// depths[x->rows][groups], double where x is float64, else float: as ec_depth_score (embedcore.h).
// corpus == NULL: the corpus is x, and each row is left out of its own group. workspace: on a boundary of
// 256 bytes.
// Complexity: O((n + m) d) for cosine, O((n + m) d^2 + d^3) for Mahalanobis, O((n + m) (d + log m)) for
// each direction (AI-IRW: for each group, and as Mahalanobis), O(n m d) else.
EC_API ec_status ec_cuda_depth_score(const ec_cuda_place* place, const ec_matrix* x,
                                     const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                     void* workspace, void* depths, ec_error* error);

EC_API ec_status ec_cuda_depth_covariance_bytes(const ec_cuda_place* place, const ec_matrix* x,
                                                const ec_matrix* corpus,
                                                const ec_cuda_depth_options* options, int64_t* bytes,
                                                ec_error* error);

// What cosine depth keeps of a corpus: sums[columns + 1] on the device, of weight * row / |row|, then of
// the weights. Sums of parts are those of the whole. options: metric (cosine), weights. workspace: of the
// size that ec_cuda_depth_workspace tells for x = corpus, without a corpus.
EC_API ec_status ec_cuda_depth_direction_sums(const ec_cuda_place* place, const ec_matrix* corpus,
                                              const ec_cuda_depth_options* options, void* workspace,
                                              double* sums, ec_error* error);

// Looks at the values of all arguments, waits for the stream, and names the first bad one. workspace: 24
// bytes on a boundary of 8.
EC_API ec_status ec_cuda_depth_check(const ec_cuda_place* place, const ec_matrix* x,
                                     const ec_matrix* corpus, const ec_cuda_depth_options* options,
                                     void* workspace, ec_error* error);

// What gradients of depths are made of. With t_ij what the depth of row i of x averages over rows j of the
// corpus (cosine: c; chord, arc, L2: the distance; spatial: u_ij' e_i, u_ij the unit vector from row j to
// row i and e_i the direction of their mean):
typedef struct ec_cuda_depth_gradient {
  ec_depth_metric metric;  // cosine, chord, arc, L2, spatial
  // [x->rows]: the gradient of the mean of t_ij (of spatial, of the depth) over the sum of its weights.
  const float* pull;
  const float* weights;  // [corpus rows]
  // Rows side by side; NULL: not wanted. Without a corpus, of_x has both parts and of_corpus is not used.
  float* of_x;
  float* of_corpus;
  double* of_weights;  // [corpus rows]: sum of pull_i t_ij, of spatial its negative; NULL: not wanted
} ec_cuda_depth_gradient;

// Bytes of scratch that ec_cuda_depth_gradient_run takes for arguments of these shapes and dtypes. Data
// pointers are not read.
EC_API ec_status ec_cuda_depth_gradient_workspace(const ec_cuda_place* place, const ec_matrix* x,
                                                  const ec_matrix* corpus,
                                                  const ec_cuda_depth_gradient* gradient, int64_t* bytes,
                                                  ec_error* error);

// Pairs of equal rows (under the angular metrics of one direction, under arc of opposite ones too) add no
// gradient. Matrices are float16, bfloat16 or float32. workspace: on a boundary of 256 bytes.
// Complexity: O((n + m) d) for cosine, O(n m d) else; the same bits each time.
EC_API ec_status ec_cuda_depth_gradient_run(const ec_cuda_place* place, const ec_matrix* x,
                                            const ec_matrix* corpus, const ec_cuda_depth_gradient* gradient,
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

// ---- filtered search ------------------------------------------------------------------------------
// The rows nearest to each query among those that pass its filter, by looking at all that pass, or through
// a graph. Rows lie in slots; a filter is bits, bit i % 32 of word i / 32 for slot i, and then the list of
// the slots that pass.

typedef enum ec_ann_metric { EC_ANN_COSINE = 0, EC_ANN_IP = 1, EC_ANN_L2 = 2 } ec_ann_metric;
typedef enum ec_ann_number {
  EC_ANN_FLOAT32 = 0,
  EC_ANN_FLOAT16 = 1,
  EC_ANN_BFLOAT16 = 2,
  EC_ANN_INT8 = 3,
  EC_ANN_CODES = 4  // of an index that has not kept its vectors
} ec_ann_number;

typedef struct ec_cuda_ann_index {
  ec_ann_metric metric;
  ec_ann_number number;  // of the vectors
  int64_t rows;          // slots, those of deleted rows included; below 2^32 - 1
  int64_t columns;       // of the vectors, or of their codes
  int64_t row_stride;    // elements
  const void* vectors;
  const float* inverse_norms;  // cosine: 1 / |x| of each row
  // Near the rows, as many numbers as queries have columns; of codes what they were made with.
  const float* mean;
  const int64_t* ids;  // of the slots, what results name
  // Written by ec_cuda_ann_encode. On boundaries of 256 bytes.
  void* codes;       // rows times columns, rounded up to a multiple of 32, of bfloat16
  float* offsets;    // one a row
  float* norms;      // one a row
  float* roughness;  // one
  // Of codes, which are the vectors (csrc/ann/codes.h): byte b of column j stands for scale * (b - 128),
  // what axis j has of the row less the mean. They are what distances come from; offsets are given.
  const float* scales;  // [rows][2]: of the first head_columns, and of the others
  const float* axes;    // [columns][query_columns]
  int64_t head_columns;
  int64_t query_columns;  // other than codes: as columns, whatever is here
} ec_cuda_ann_index;

EC_API ec_status ec_cuda_ann_encode(const ec_cuda_place* place, const ec_cuda_ann_index* index,
                                    ec_error* error);

// Words of the bits of one filter.
EC_API int64_t ec_cuda_ann_filter_words(int64_t rows);

// Filters as steps over a stack of bits (csrc/ann/attributes/steps.h).
typedef struct ec_cuda_ann_programs {
  // Of each column: its kind and the addresses of its codes, offsets, keys and nulls, 0 for none
  // (csrc/ann/attributes/column.h).
  const int64_t* columns;
  const int64_t* steps;   // rows of four numbers
  const int64_t* starts;  // of each program, and where the last ends
  const int64_t* constants;
  int64_t programs;
  int64_t rows;
  const uint32_t* alive;  // bits; NULL: every slot
} ec_cuda_ann_programs;

// bits[programs][words]: the living rows that pass.
EC_API ec_status ec_cuda_ann_evaluate(const ec_cuda_place* place, const ec_cuda_ann_programs* programs,
                                      uint32_t* bits, ec_error* error);
// bits[words]: slots order[i] with mask[i * stride] != 0; order NULL: slots i.
EC_API ec_status ec_cuda_ann_mark_mask(const ec_cuda_place* place, const uint8_t* mask, int64_t stride,
                                       const uint32_t* order, int64_t count, int64_t rows, uint32_t* bits,
                                       ec_error* error);
// bits[words]: slots known_slots[j] with known_ids[j], which ascend, among ids.
EC_API ec_status ec_cuda_ann_mark_ids(const ec_cuda_place* place, const int64_t* ids, int64_t count,
                                      const int64_t* known_ids, const uint32_t* known_slots, int64_t known,
                                      int64_t rows, uint32_t* bits, ec_error* error);
// bits[filters][words] of filters whose own are at sources[filters].
EC_API ec_status ec_cuda_ann_gather(const ec_cuda_place* place, const uint32_t* const* sources,
                                    int64_t filters, int64_t rows, uint32_t* bits, ec_error* error);
// slots[filters][stride], ascending, and counts[filters], from bits[filters][words]. stride >= the most
// that pass. slots NULL: counts alone. workspace: 8 bytes for each 256 words of all filters.
EC_API ec_status ec_cuda_ann_list(const ec_cuda_place* place, const uint32_t* bits, int64_t filters,
                                  int64_t rows, uint32_t* slots, int64_t stride, int64_t* counts,
                                  void* workspace, ec_error* error);

// Walks through the graph of an index of less than 2^31 rows, for queries that are not exact.
typedef struct ec_cuda_ann_graph {
  const uint32_t* links;    // [rows][32], 2^32 - 1 behind the last of a row
  const uint32_t* entries;  // rows of an even spread, where walks begin
  int64_t entry_count;
  const uint32_t* alive;  // bits; NULL: every slot. Scans by bits ask it too, whatever the base
  // Walks keep the best rows that they meet: `base` (64, 128, 256 or 512) where all rows pass, 2^i times as
  // many, 512 at most, where a fraction of 0.9 / 2^i or more does. least[i]: rows that must pass for a scan
  // to be slower.
  int32_t base;
  int64_t least[4];
} ec_cuda_ann_graph;

typedef struct ec_cuda_ann_search_options {
  int32_t k;  // 1 to 1024
  // 0: the nearest by products of bfloat16, measured anew; else queries of which that may leave out a row
  // are compared with all vectors that pass.
  int32_t exact;
  // Queries in the order in which they are taken, by positions; NULL: in their own.
  const int32_t* order;
  // Of each position its filter, -1 for none; NULL: `filter` for all.
  const int32_t* which;
  int32_t filter;
  // Tiles of positions, 128 at most and of one filter: where each begins, and where the last ends; NULL:
  // 128 each.
  const int32_t* firsts;
  int64_t tiles;
  int64_t positions;  // queries that are answered
  // Filters whose slots and counts the search writes itself, from their bits, where it needs them; 0: they
  // are there, as ec_cuda_ann_list writes them.
  int64_t listed;
  uint32_t* slots;
  int64_t slots_stride;
  int64_t* counts;
  const uint32_t* bits;   // of the filters, on 16 bytes
  const uint32_t* every;  // the slots of living rows; NULL: all
  int64_t living;
  const ec_cuda_ann_graph* graph;  // NULL: everything is scanned
  // [queries][5], or NULL: how each was answered. How many rows pass; the rows that a walk keeps, 0: none
  // was planned; the rows that it has scored; what found the candidates: 0 the walk, 1 a scan of the rows
  // that pass, 2 one of all rows by bits; how many rows were measured.
  int64_t* explanations;
} ec_cuda_ann_search_options;

EC_API ec_status ec_cuda_ann_search_workspace(const ec_cuda_place* place, const ec_cuda_ann_index* index,
                                              const ec_matrix* queries,
                                              const ec_cuda_ann_search_options* options, int64_t* bytes,
                                              ec_error* error);
// ids[queries][k] (-1: none) and distances[queries][k] (infinite: none) by ascending distance, equal ones
// by id, and counts[queries]: min(k, rows that pass). A query that is not finite, zero under the cosine, or
// else longer than 1e15 has no rows, and NaN for distances. queries: not float64. exact: not of codes.
// workspace: on a boundary of 256 bytes.
// Complexity: O(queries rows columns) over the rows that pass.
EC_API ec_status ec_cuda_ann_search(const ec_cuda_place* place, const ec_cuda_ann_index* index,
                                    const ec_matrix* queries, const ec_cuda_ann_search_options* options,
                                    void* workspace, int64_t* ids, float* distances, int64_t* counts,
                                    ec_error* error);

// ---- builds of indexes on the CPU -----------------------------------------------------------------

// Cells that builds look around in. Slots are in their order.
typedef struct ec_cuda_ann_cells {
  const uint32_t* members;    // the slots that others may be linked to, ascending; NULL: all
  const uint32_t* start;      // of each cell where its slots are in members, and where the last ends
  const uint32_t* cell_of;    // of each slot its cell
  const int64_t* near_cells;  // [cells][near_each]: the nearest first, itself among them; -1: none
  int64_t cells;              // at most 2^18
  int32_t near_each;
} ec_cuda_ann_cells;

// slots[groups][stride], counts[groups]: for each `group` of slots [first, first + count), ascending, the
// members of its own cells and of those nearest to one of them, taken whole until there are `wanted`.
// stride: at least wanted - 1 and the most that a cell has.
EC_API ec_status ec_cuda_ann_list_near(const ec_cuda_place* place, const ec_cuda_ann_cells* cells,
                                       int64_t first, int64_t count, int64_t group, int64_t wanted,
                                       uint32_t* slots, int64_t stride, int64_t* counts, ec_error* error);

// Links for a graph, chosen for slots [first, first + count) of an index whose slots are in the order of
// cells. Candidates are the rows nearest to each and, of some cells around its own, one row each.
typedef struct ec_cuda_ann_link_options {
  int64_t first, count;
  const int64_t* near;  // [count][near_each], as ec_cuda_ann_search gives them where ids are slots
  int32_t near_each;    // with far_each 127 at most
  int32_t far_each;     // cells, at most near_each of them
  const ec_cuda_ann_cells* cells;
  uint64_t seed;
  int32_t degree;  // links of a row
  int32_t least;   // if it has as many candidates
} ec_cuda_ann_link_options;

// links[count][degree], the nearest first, 2^32 - 1 behind the last: of the candidates of each row those
// that are nearer to it than to any that was taken before, filled up to `least` with the nearest of the
// others. By distances between codes, to inner products too. Complexity: O(count 128^2 columns).
EC_API ec_status ec_cuda_ann_choose_links(const ec_cuda_place* place, const ec_cuda_ann_index* index,
                                          const ec_cuda_ann_link_options* options, uint32_t* links,
                                          ec_error* error);

// Codes and cells as the CPU makes them (csrc/ann/codes.h, csrc/ann/build/build.h), bit by bit where it has
// fused multiply-adds, but for codes where a sum of float64 is rounded to float32.

typedef struct ec_cuda_ann_byte_codes {
  const float* axes;  // [code_columns][columns, rounded up to a multiple of 16], zeros at the end
  int64_t code_columns;
  int64_t head_bytes;  // a multiple of 64, 512 at most
  int64_t tail_bytes;  // a multiple of 64, with room for what the head has none for; 0: it has for all
  // Written. On boundaries of 16 bytes.
  uint8_t* heads;  // [rows][head_bytes]
  uint8_t* tails;  // [rows][tail_bytes]
  float* squares;  // [rows]: |x - mean|^2
} ec_cuda_ann_byte_codes;

// Of `rows` there are metric, number (not EC_ANN_CODES), rows, columns, row_stride, vectors and mean.
EC_API ec_status ec_cuda_ann_byte_codes_workspace(const ec_cuda_ann_index* rows,
                                                  const ec_cuda_ann_byte_codes* codes, int64_t* bytes,
                                                  ec_error* error);
// workspace: on a boundary of 256 bytes. Complexity: O(rows columns code_columns).
EC_API ec_status ec_cuda_ann_make_byte_codes(const ec_cuda_place* place, const ec_cuda_ann_index* rows,
                                             const ec_cuda_ann_byte_codes* codes, void* workspace,
                                             ec_error* error);

typedef struct ec_cuda_ann_heads {
  const uint8_t* heads;  // [rows][head_bytes], as above
  int64_t head_bytes;
  const float* squares;
} ec_cuda_ann_heads;

// k-means over the heads of some rows.
typedef struct ec_cuda_ann_grouping {
  const uint32_t* drawn;   // [cells]: the rows that are centroids at first
  int64_t cells;           // at least 1, below 2^31
  const uint32_t* sample;  // [sampled]: rows whose means centroids become
  int64_t sampled;
  int32_t moves;          // so many times
  const uint32_t* slots;  // [count]: rows that are grouped then
  int64_t count;
  uint32_t* cell_of;  // [count]: written, the number of the nearest centroid, the first of equals
} ec_cuda_ann_grouping;

EC_API ec_status ec_cuda_ann_group_workspace(const ec_cuda_ann_heads* heads,
                                             const ec_cuda_ann_grouping* grouping, int64_t* bytes,
                                             ec_error* error);
// workspace: on a boundary of 256 bytes. Complexity: O((moves sampled + count) cells head_bytes).
EC_API ec_status ec_cuda_ann_group(const ec_cuda_place* place, const ec_cuda_ann_heads* heads,
                                   const ec_cuda_ann_grouping* grouping, void* workspace, ec_error* error);
// means[cells][head_bytes]: heads of the means of the rows i < count with each number in cell_of, with an
// offset of -|mean|^2 / 2; zeros where there are none. Complexity: O(count (cells + head_bytes)).
EC_API ec_status ec_cuda_ann_cell_means(const ec_cuda_place* place, const ec_cuda_ann_heads* heads,
                                        const uint32_t* cell_of, int64_t count, int64_t cells,
                                        uint8_t* means, ec_error* error);

#ifdef __cplusplus
}
#endif

#endif  // EMBEDCORE_EMBEDCORE_CUDA_H_
