// SPDX-License-Identifier: Apache-2.0
// Whole vectors: widening, true distances, projection and quantising; see raw_kernels.h.
#include "ann/raw_kernels.h"

#include EC_ISA_HEADER
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

#define EC_UNROLL _Pragma("GCC unroll 16")

// A dtype: one vector of numbers, and one number, as floats.
struct Float32 {
  using Number = float;
  static inline VF get(const Number* p) { return load(p); }
};
struct Float16 {
  using Number = uint16_t;
  static inline VF get(const Number* p) { return load_half(p); }
};
struct BFloat16 {
  using Number = uint16_t;
  static inline VF get(const Number* p) { return load_bfloat(p); }
};
struct Int8 {
  using Number = int8_t;
  static inline VF get(const Number* p) {
    float wide[kLanes];
    EC_UNROLL for (int i = 0; i < kLanes; ++i) wide[i] = static_cast<float>(p[i]);
    return load(wide);
  }
};

// The last, incomplete vector, zeros behind it.
template <class Dtype>
static inline VF get_last(const typename Dtype::Number* p, int64_t count) {
  typename Dtype::Number held_back[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) held_back[i] = p[i];
  return Dtype::get(held_back);
}

template <class Dtype>
static void widen(const void* row, int64_t dim, float* to) {
  const auto* from = static_cast<const typename Dtype::Number*>(row);
  int64_t k = 0;
  for (; k + kLanes <= dim; k += kLanes) store(to + k, Dtype::get(from + k));
  if (k == dim) return;
  float last[kLanes];
  store(last, get_last<Dtype>(from + k, dim - k));
  for (int64_t i = k; i < dim; ++i) to[i] = last[i - k];
}

struct Dot {
  static inline VF step(VF acc, VF x, VF q) { return fma(x, q, acc); }
};
struct Square {
  static inline VF step(VF acc, VF x, VF q) {
    const VF difference = sub(x, q);
    return fma(difference, difference, acc);
  }
};

constexpr int kRowsTogether = 4;  // as many reads from memory go on at once
constexpr int kSums = 2;          // of a row

// sums[i] of rows[i]; meanwhile lines of `next` are fetched (its rows may be any address).
template <class Dtype, class Term>
static inline void reduce_rows(const typename Dtype::Number* const* rows, const float* query, int64_t dim,
                               const typename Dtype::Number* const* next, double* out) {
  constexpr int64_t kStep = kSums * kLanes;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(typename Dtype::Number));
  VF sums[kRowsTogether][kSums];
  EC_UNROLL for (int i = 0; i < kRowsTogether; ++i) {
    EC_UNROLL for (int s = 0; s < kSums; ++s) sums[i][s] = zero();
  }
  int64_t k = 0, fetched = 0;
  for (; k + kStep <= dim; k += kStep) {
    for (; fetched < k + kStep; fetched += kLine) {
      EC_UNROLL for (int i = 0; i < kRowsTogether; ++i) __builtin_prefetch(next[i] + fetched, 0, 3);
    }
    EC_UNROLL for (int s = 0; s < kSums; ++s) {
      const VF q = load(query + k + s * kLanes);
      EC_UNROLL for (int i = 0; i < kRowsTogether; ++i) {
        sums[i][s] = Term::step(sums[i][s], Dtype::get(rows[i] + k + s * kLanes), q);
      }
    }
  }
  for (int last = 0; k < dim; ++last, k += kLanes) {
    const VF q = k + kLanes <= dim ? load(query + k) : get_last<Float32>(query + k, dim - k);
    EC_UNROLL for (int i = 0; i < kRowsTogether; ++i) {
      const VF x = k + kLanes <= dim ? Dtype::get(rows[i] + k) : get_last<Dtype>(rows[i] + k, dim - k);
      sums[i][last] = Term::step(sums[i][last], x, q);
    }
  }
  EC_UNROLL for (int i = 0; i < kRowsTogether; ++i) out[i] = sum_wide(add(sums[i][0], sums[i][1]));
}

template <class Dtype, class Term>
static void reduce_listed(const void* rows, int64_t row_bytes, const uint32_t* slots, int64_t count,
                          const float* query, int64_t dim, double* out) {
  using Number = typename Dtype::Number;
  const auto* base = static_cast<const char*>(rows);
  const auto point = [=](int64_t first, const Number** to) {
    for (int i = 0; i < kRowsTogether; ++i) {
      const int64_t at = first + i < count ? first + i : count - 1;
      to[i] = reinterpret_cast<const Number*>(base + slots[at] * row_bytes);
    }
  };
  const Number* here[kRowsTogether];
  const Number* next[kRowsTogether];
  if (count > 0) point(0, next);
  for (int64_t first = 0; first < count; first += kRowsTogether) {
    for (int i = 0; i < kRowsTogether; ++i) here[i] = next[i];
    point(first + kRowsTogether, next);
    double sums[kRowsTogether];
    reduce_rows<Dtype, Term>(here, query, dim, next, sums);
    for (int i = 0; i < kRowsTogether && first + i < count; ++i) out[first + i] = sums[i];
  }
}

template <class Dtype>
static constexpr VectorKernels vector_kernels() {
  return {widen<Dtype>, reduce_listed<Dtype, Dot>, reduce_listed<Dtype, Square>};
}

// ---- projection -----------------------------------------------------------------------------------

// Adds `count` terms to sums of kRows rows with kVectors vectors of columns of a panel. out: kRows rows,
// first of all set to zero when they are the first terms.
template <int kRows, int kVectors>
static inline void project_tile(const float* rows, int64_t dim, const float* panel, int64_t count,
                                bool first, float* out, int64_t columns) {
  VF sums[kRows][kVectors];
  EC_UNROLL for (int i = 0; i < kRows; ++i) {
    EC_UNROLL for (int v = 0; v < kVectors; ++v) {
      sums[i][v] = first ? zero() : load(out + i * columns + v * kLanes);
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    VF direction[kVectors];
    EC_UNROLL for (int v = 0; v < kVectors; ++v) direction[v] =
        load(panel + k * kProjectColumns + v * kLanes);
    EC_UNROLL for (int i = 0; i < kRows; ++i) {
      const VF number = set1(rows[i * dim + k]);
      EC_UNROLL for (int v = 0; v < kVectors; ++v) sums[i][v] = fma(number, direction[v], sums[i][v]);
    }
  }
  EC_UNROLL for (int i = 0; i < kRows; ++i) {
    EC_UNROLL for (int v = 0; v < kVectors; ++v) store(out + i * columns + v * kLanes, sums[i][v]);
  }
}

// Sums of a row on its own would wait for each other, so that it takes as many columns as it can.
constexpr int kRowVectors = kProjectColumns / kLanes <= 12 ? kProjectColumns / kLanes : kTileVectors;

template <int kRows, int kVectors>
static inline void project_rows(const float* rows, int64_t dim, const float* panel, int64_t count,
                                bool first, float* out, int64_t columns) {
  static_assert(kProjectColumns % (kVectors * kLanes) == 0, "whole tiles");
  for (int j = 0; j < kProjectColumns; j += kVectors * kLanes) {
    project_tile<kRows, kVectors>(rows, dim, panel + j, count, first, out + j, columns);
  }
}

constexpr int64_t kProjectStep = 128;  // terms between two panels: theirs stay in the first cache

static void project(const float* rows, int64_t count, const float* basis, int64_t dim, int64_t columns,
                    float* out) {
  for (int64_t j = 0; j < columns; j += kProjectColumns) {
    const float* panel = basis + j * dim;
    for (int64_t k = 0; k < dim; k += kProjectStep) {
      const int64_t terms = dim - k < kProjectStep ? dim - k : kProjectStep;
      const float* here = panel + k * kProjectColumns;
      int64_t i = 0;
      for (; i + kTileRows <= count; i += kTileRows) {
        project_rows<kTileRows, kTileVectors>(rows + i * dim + k, dim, here, terms, k == 0,
                                              out + i * columns + j, columns);
      }
      for (; i < count; ++i) {
        project_rows<1, kRowVectors>(rows + i * dim + k, dim, here, terms, k == 0, out + i * columns + j,
                                     columns);
      }
    }
  }
}

constexpr float kLeastCoded = 1e-35f;  // whose step has an inverse

static float quantise(const float* numbers, int64_t count, int64_t padded, uint8_t* bytes) {
  VF most = zero();
  int64_t whole = 0;
  for (; whole + kLanes <= count; whole += kLanes) most = max(most, abs(load(numbers + whole)));
  float largest = 0.0f, lanes[kLanes];
  store(lanes, most);
  EC_UNROLL for (int i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  for (int64_t k = whole; k < count; ++k) {
    const float size = numbers[k] < 0.0f ? -numbers[k] : numbers[k];
    largest = size > largest ? size : largest;
  }
  const float scale = largest > kLeastCoded ? largest / 127.0f : 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  for (int64_t k = 0; k < count; ++k) {
    const float steps = numbers[k] * inverse + 128.5f;  // positive: cut off is rounded
    bytes[k] = static_cast<uint8_t>(static_cast<int>(steps < 255.0f ? steps : 255.0f));
  }
  for (int64_t k = count; k < padded; ++k) bytes[k] = 128;
  return scale;
}

static const AnnRawKernels kTable = {{vector_kernels<Float32>(), vector_kernels<Float16>(),
                                      vector_kernels<BFloat16>(), vector_kernels<Int8>()},
                                     project,
                                     quantise};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(AnnRawKernels, ann_raw)
