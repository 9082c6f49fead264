// SPDX-License-Identifier: Apache-2.0
// Values put into buckets of equal width, and sorted. For kernels alone: everything is of one instruction
// set.
#pragma once

#include <string.h>

#include "depth/projection.h"

namespace ec {
namespace EC_ISA {

constexpr float kInfinity = __builtin_inff();
constexpr float kLargestFloat = 3.402823466e38f;

// ---- buckets --------------------------------------------------------------------------------------

struct Bucketing {
  VF low, scale, last;
  // Never outside [0, last], also for values outside those it was made for.
  inline VF position(VF value) const { return min(max(mul(sub(value, low), scale), zero()), last); }
  inline VI bucket(VF value) const { return round_to_int(position(value)); }
};

static inline float bucket_scale(float low, float high, int64_t buckets) {
  const float scale = static_cast<float>(buckets - 1) / (high - low);
  return scale < kLargestFloat ? scale : kLargestFloat;  // also for equal values: 0 * it is 0
}

static inline Bucketing bucketing(float low, float scale, int64_t buckets) {
  return {set1(low), set1(scale), set1(static_cast<float>(buckets - 1))};
}

// sizes[b] += the number of values in bucket b; bucket[i] = the bucket of values[i].
static void count_buckets(const float* values, int64_t count, const Bucketing& buckets, int32_t* bucket,
                          int32_t* sizes) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    store_int(bucket + i, buckets.bucket(load(values + i)));
    for (int lane = 0; lane < kLanes; ++lane) ++sizes[bucket[i + lane]];
  }
  if (i < count) store_int(bucket + i, buckets.bucket(load(values + i)));
  for (; i < count; ++i) ++sizes[bucket[i]];
}

static void find_extremes(const float* values, int64_t count, float* low, float* high) {
  VF least = set1(kInfinity), most = set1(-kInfinity);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    least = min(least, load(values + i));
    most = max(most, load(values + i));
  }
  float lows[kLanes], highs[kLanes];
  store(lows, least);
  store(highs, most);
  float smallest = kInfinity, largest = -kInfinity;
  for (int lane = 0; lane < kLanes; ++lane) {
    smallest = lows[lane] < smallest ? lows[lane] : smallest;
    largest = highs[lane] > largest ? highs[lane] : largest;
  }
  for (; i < count; ++i) {
    smallest = values[i] < smallest ? values[i] : smallest;
    largest = values[i] > largest ? values[i] : largest;
  }
  *low = smallest;
  *high = largest;
}

// ---- sorting --------------------------------------------------------------------------------------

// Unsigned integers in the order of the floats (-0 before 0).
static inline uint32_t ordered_key(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

static inline float value_of_key(uint32_t key) {
  const uint32_t bits = key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Sorts keys[count] by their high halves, least significant digit first; digits that all share are
// skipped. keys[count, 2 count) is scratch. Returns where the result lies.
static const uint64_t* radix_sort(uint64_t* keys, int64_t count) {
  uint64_t* from = keys;
  uint64_t* to = keys + count;
  for (int shift = 32; shift < 64; shift += 8) {
    int64_t next[256] = {};
    for (int64_t i = 0; i < count; ++i) ++next[(from[i] >> shift) & 255];
    if (next[(from[0] >> shift) & 255] == count) continue;
    int64_t total = 0;
    for (int digit = 0; digit < 256; ++digit) {
      const int64_t size = next[digit];
      next[digit] = total;
      total += size;
    }
    for (int64_t i = 0; i < count; ++i) to[next[(from[i] >> shift) & 255]++] = from[i];
    uint64_t* swap = from;
    from = to;
    to = swap;
  }
  return from;
}

static void sort_long(float* values, int64_t* weights, int64_t count, const ProjectionScratch& scratch) {
  for (int64_t i = 0; i < count; ++i)
    scratch.keys[i] = static_cast<uint64_t>(ordered_key(values[i])) << 32 | static_cast<uint64_t>(i);
  const uint64_t* sorted = radix_sort(scratch.keys, count);
  if (weights != nullptr) memcpy(scratch.weights, weights, static_cast<size_t>(count) * sizeof(int64_t));
  for (int64_t i = 0; i < count; ++i) {
    values[i] = value_of_key(static_cast<uint32_t>(sorted[i] >> 32));
    if (weights != nullptr) weights[i] = scratch.weights[sorted[i] & 0xffffffffu];
  }
}

static void sort_short(float* values, int64_t* weights, int64_t count) {
  for (int64_t i = 1; i < count; ++i) {
    const float value = values[i];
    const int64_t weight = weights != nullptr ? weights[i] : 0;
    int64_t j = i;
    for (; j > 0 && value < values[j - 1]; --j) {
      values[j] = values[j - 1];
      if (weights != nullptr) weights[j] = weights[j - 1];
    }
    values[j] = value;
    if (weights != nullptr) weights[j] = weight;
  }
}

}  // namespace EC_ISA
}  // namespace ec
