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

static double dot(const float* row, const float* other, int64_t columns) {
  VF sums[kSums] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kSums * kLanes <= columns; i += kSums * kLanes)
    for (int s = 0; s < kSums; ++s)
      sums[s] = fma(load(row + i + s * kLanes), load(other + i + s * kLanes), sums[s]);
  for (; i + kLanes <= columns; i += kLanes) sums[0] = fma(load(row + i), load(other + i), sums[0]);
  double total = total_of(sums);
  for (; i < columns; ++i) total += static_cast<double>(row[i]) * static_cast<double>(other[i]);
  return total;
}

static double sum_squares(const float* row, int64_t columns) { return dot(row, row, columns); }

static void add_scaled(const float* row, float scale, int64_t columns, float* to) {
  const VF factor = set1(scale);
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) store(to + i, fma(factor, load(row + i), load(to + i)));
  for (; i < columns; ++i) to[i] += scale * row[i];
}

static void shift_scale(const float* row, const float* center, float scale, int64_t columns,
                        float* to) {
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

static void pack_float(const float* row, int64_t columns, uint32_t* to) {
  for (int64_t i = 0; i < columns; ++i) memcpy(to + i * kPanelRows, row + i, sizeof(float));
}

// Round to nearest even. Requires: finite, so that the carry never reaches an infinity that is wrong.
static inline uint32_t bfloat_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

// Sums that give the scale of a rounded row.
struct RoundedSums {
  float product = 0.0f;  // row . q
  float square = 0.0f;   // q . q

  inline void add(float value, float rounded) {
    product += value * rounded;
    square += rounded * rounded;
  }
  inline float scale() const { return square > 0.0f ? product / square : 0.0f; }
};

static inline uint32_t add_bfloat(float value, RoundedSums* sums) {
  const uint32_t bits = bfloat_bits(value);
  sums->add(value, bfloat_to_float(static_cast<uint16_t>(bits)));
  return bits;
}

static void pack_bfloat(const float* row, int64_t columns, uint32_t* to, float* scale) {
  const int64_t pairs = columns / 2;
  RoundedSums sums;
  for (int64_t k = 0; k < pairs; ++k) {
    const uint32_t low = add_bfloat(row[2 * k], &sums);
    to[k * kPanelRows] = low | (add_bfloat(row[2 * k + 1], &sums) << 16);
  }
  if (columns & 1) to[pairs * kPanelRows] = add_bfloat(row[columns - 1], &sums);
  *scale = sums.scale();
}

static inline int32_t steps(float value, float per_step) {
  const float scaled = value * per_step;
  return static_cast<int32_t>(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
}

static inline uint32_t pack_group(const float* row, int count, float per_step, int32_t* total,
                                  RoundedSums* sums) {
  uint32_t group = 0;
  for (int i = 0; i < count; ++i) {
    const int32_t step = steps(row[i], per_step);
    *total += step;
    sums->add(row[i], static_cast<float>(step));
    group |= kInt8Group == 4 ? (static_cast<uint32_t>(step) & 0xffu) << (8 * i)
                             : (static_cast<uint32_t>(step) & 0xffffu) << (16 * i);
  }
  return group;
}

static void pack_int8(const float* row, int64_t columns, uint32_t* to, float* scale, int32_t* bias) {
  VF largest_lanes = zero();
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) largest_lanes = max(largest_lanes, abs(load(row + i)));
  float lanes[kLanes], largest = 0.0f;
  store(lanes, largest_lanes);
  for (int lane = 0; lane < kLanes; ++lane) largest = lanes[lane] > largest ? lanes[lane] : largest;
  for (; i < columns; ++i) {
    const float size = row[i] < 0.0f ? -row[i] : row[i];
    largest = size > largest ? size : largest;
  }
  const float per_step = largest > 0.0f ? 127.0f / largest : 0.0f;
  const int64_t groups = columns / kInt8Group;
  int32_t total = 0;
  RoundedSums sums;
  for (int64_t k = 0; k < groups; ++k)
    to[k * kPanelRows] = pack_group(row + k * kInt8Group, kInt8Group, per_step, &total, &sums);
  const int rest = static_cast<int>(columns - groups * kInt8Group);
  if (rest != 0) to[groups * kPanelRows] = pack_group(row + groups * kInt8Group, rest, per_step, &total, &sums);
  *scale = sums.scale();
  *bias = kInt8Bias * total;
}

static const RowKernels kTable = {convert,          sum_squares, dot,
                                  add_scaled,       shift_scale, squared_distance,
                                  pack_float,       pack_bfloat, pack_int8};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(RowKernels, row)
