// SPDX-License-Identifier: Apache-2.0
// Kernels over single rows; see rows.h for what each does.
#include "product/rows.h"

#include <string.h>

#include EC_ISA_HEADER
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

constexpr int kPanelRows = kLanes * kTileVectors;
constexpr int kSums = 4;  // independent sums, to hide the latency of fma
// Rows follow one another in memory and are read for the first time by a dot product: what lies this many
// floats ahead, in the next row too, is fetched, across the page borders where the hardware stops.
constexpr int kFetchAhead = 1024;

static inline float half_to_float(const uint16_t* p) {
  uint16_t padded[kLanes] = {*p};
  float wide[kLanes];
  store(wide, load_half(padded));
  return wide[0];
}

static inline float bfloat_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

static void convert(const void* row, int dtype, int64_t columns, float* to) {
  int64_t i = 0;
  if (dtype == EC_FLOAT16) {
    const uint16_t* from = static_cast<const uint16_t*>(row);
    for (; i + kLanes <= columns; i += kLanes) store(to + i, load_half(from + i));
    for (; i < columns; ++i) to[i] = half_to_float(from + i);
  } else if (dtype == EC_BFLOAT16) {
    const uint16_t* from = static_cast<const uint16_t*>(row);
    for (; i + kLanes <= columns; i += kLanes) store(to + i, load_bfloat(from + i));
    for (; i < columns; ++i) to[i] = bfloat_to_float(from[i]);
  } else if (dtype == EC_FLOAT32) {
    memcpy(to, row, static_cast<size_t>(columns) * sizeof(float));
  } else {
    const double* from = static_cast<const double*>(row);
    for (; i + kLanes <= columns; i += kLanes) store(to + i, load_double(from + i));
    for (; i < columns; ++i) to[i] = static_cast<float>(from[i]);
  }
}

static inline double total_of(const VF* sums) {
  return sum_wide(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

static inline void fetch_ahead(const float* at) {
  for (int64_t line = 0; line < kSums * kLanes; line += 16) __builtin_prefetch(at + kFetchAhead + line);
}

static double dot(const float* row, const float* other, int64_t columns) {
  VF sums[kSums] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kSums * kLanes <= columns; i += kSums * kLanes) {
    fetch_ahead(row + i);
    for (int s = 0; s < kSums; ++s)
      sums[s] = fma(load(row + i + s * kLanes), load(other + i + s * kLanes), sums[s]);
  }
  for (; i + kLanes <= columns; i += kLanes) sums[0] = fma(load(row + i), load(other + i), sums[0]);
  double total = total_of(sums);
  for (; i < columns; ++i) total += static_cast<double>(row[i]) * static_cast<double>(other[i]);
  return total;
}

static double sum_squares(const float* row, int64_t columns) { return dot(row, row, columns); }

static double dot_and_squares(const float* row, const float* other, int64_t columns, double* squares) {
  VF dots[kSums] = {zero(), zero(), zero(), zero()}, sums[kSums] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kSums * kLanes <= columns; i += kSums * kLanes) {
    fetch_ahead(row + i);
    for (int s = 0; s < kSums; ++s) {
      const VF value = load(row + i + s * kLanes);
      dots[s] = fma(value, load(other + i + s * kLanes), dots[s]);
      sums[s] = fma(value, value, sums[s]);
    }
  }
  for (; i + kLanes <= columns; i += kLanes) {
    const VF value = load(row + i);
    dots[0] = fma(value, load(other + i), dots[0]);
    sums[0] = fma(value, value, sums[0]);
  }
  double dot_total = total_of(dots), square_total = total_of(sums);
  for (; i < columns; ++i) {
    const double value = static_cast<double>(row[i]);
    dot_total += value * static_cast<double>(other[i]);
    square_total += value * value;
  }
  *squares = square_total;
  return dot_total;
}

static void add_scaled(const float* row, float scale, int64_t columns, float* to) {
  const VF factor = set1(scale);
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) store(to + i, fma(factor, load(row + i), load(to + i)));
  for (; i < columns; ++i) to[i] += scale * row[i];
}

static void shift_scale(const float* row, const float* center, float scale, int64_t columns, float* to) {
  const VF factor = set1(scale);
  int64_t i = 0;
  if (center == nullptr) {
    for (; i + kLanes <= columns; i += kLanes) store(to + i, mul(factor, load(row + i)));
    for (; i < columns; ++i) to[i] = scale * row[i];
    return;
  }
  for (; i + kLanes <= columns; i += kLanes)
    store(to + i, mul(factor, sub(load(row + i), load(center + i))));
  for (; i < columns; ++i) to[i] = scale * (row[i] - center[i]);
}

static double squared_distance(const float* a, float scale_a, const float* b, float scale_b,
                               int64_t columns) {
  const VF factor_a = set1(scale_a), factor_b = set1(scale_b);
  VF sums[kSums] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kSums * kLanes <= columns; i += kSums * kLanes)
    for (int s = 0; s < kSums; ++s) {
      const int64_t at = i + s * kLanes;
      const VF gap = sub(mul(factor_a, load(a + at)), mul(factor_b, load(b + at)));
      sums[s] = fma(gap, gap, sums[s]);
    }
  for (; i + kLanes <= columns; i += kLanes) {
    const VF gap = sub(mul(factor_a, load(a + i)), mul(factor_b, load(b + i)));
    sums[0] = fma(gap, gap, sums[0]);
  }
  double total = total_of(sums);
  for (; i < columns; ++i) {
    const float gap = scale_a * a[i] - scale_b * b[i];
    total += static_cast<double>(gap) * static_cast<double>(gap);
  }
  return total;
}

// Replaces row by its rounded values and returns the scale (row . q) / (q . q). Rounding is what rounds a
// vector; the last, partial vector is padded with zeros.
template <class Rounding>
static inline float round_row(float* row, int64_t columns, const Rounding& rounding) {
  VF product = zero(), square = zero();
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    const VF value = load(row + i);
    const VF rounded = rounding(value);
    product = fma(value, rounded, product);
    square = fma(rounded, rounded, square);
    store(row + i, rounded);
  }
  if (i < columns) {
    float padded[kLanes] = {};
    memcpy(padded, row + i, static_cast<size_t>(columns - i) * sizeof(float));
    const VF value = load(padded);
    const VF rounded = rounding(value);
    product = fma(value, rounded, product);
    square = fma(rounded, rounded, square);
    store(padded, rounded);
    memcpy(row + i, padded, static_cast<size_t>(columns - i) * sizeof(float));
  }
  const double squares = sum_wide(square);
  return squares > 0.0 ? static_cast<float>(sum_wide(product) / squares) : 0.0f;
}

static inline uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// A word comes from two values or more, so words never overtake the values that are still to be read.
static inline void set_word(float* row, int64_t index, uint32_t word) {
  memcpy(row + index, &word, sizeof word);
}

static void round_bfloat(float* row, int64_t columns, float* scale) {
  *scale = round_row(row, columns, [](VF value) { return round_to_bfloat(value); });
  const int64_t pairs = columns / 2;
  for (int64_t k = 0; k < pairs; ++k)
    set_word(row, k, (float_bits(row[2 * k]) >> 16) | float_bits(row[2 * k + 1]));
  if (columns & 1) set_word(row, pairs, float_bits(row[columns - 1]) >> 16);
}

static inline float largest_magnitude(const float* row, int64_t columns) {
  VF lanes_largest = zero();
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) lanes_largest = max(lanes_largest, abs(load(row + i)));
  float lanes[kLanes], largest = 0.0f;
  store(lanes, lanes_largest);
  for (int lane = 0; lane < kLanes; ++lane) largest = lanes[lane] > largest ? lanes[lane] : largest;
  for (; i < columns; ++i) {
    const float size = row[i] < 0.0f ? -row[i] : row[i];
    largest = size > largest ? size : largest;
  }
  return largest;
}

// A 32-bit group of steps. Requires: row holds whole numbers in [-127, 127].
static inline uint32_t step_group(const float* row, int64_t count, int32_t* total) {
  uint32_t group = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t step = static_cast<int32_t>(row[i]);
    *total += step;
    group |= kInt8Group == 4 ? (static_cast<uint32_t>(step) & 0xffu) << (8 * i)
                             : (static_cast<uint32_t>(step) & 0xffffu) << (16 * i);
  }
  return group;
}

static void round_int8(float* row, int64_t columns, float* scale, int32_t* bias) {
  const float largest = largest_magnitude(row, columns);
  const float per_step = largest > 0.0f ? 127.0f / largest : 0.0f;
  *scale = round_row(row, columns,
                     [per_step](VF value) { return to_float(round_to_int(mul(value, set1(per_step)))); });
  const int64_t groups = columns / kInt8Group;
  const int64_t rest = columns - groups * kInt8Group;
  int32_t total = 0;
  for (int64_t k = 0; k < groups; ++k)
    set_word(row, k, step_group(row + k * kInt8Group, kInt8Group, &total));
  if (rest != 0) set_word(row, groups, step_group(row + groups * kInt8Group, rest, &total));
  *bias = kInt8Bias * total;
}

static void interleave(const float* rows, int64_t stride, int64_t groups, uint32_t* to) {
  for (int64_t k = 0; k < groups; ++k, to += kPanelRows)
    for (int r = 0; r < kLanes; ++r) memcpy(to + r, rows + r * stride + k, sizeof(uint32_t));
}

static const RowKernels kTable = {convert,     sum_squares,      dot,          dot_and_squares, add_scaled,
                                  shift_scale, squared_distance, round_bfloat, round_int8,      interleave};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(RowKernels, row)
