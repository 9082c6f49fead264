// SPDX-License-Identifier: Apache-2.0
// Ranks and medians of projections; see projection.h.
//
// Numerics: comparisons and counts alone for ranks, so they are those of the float32 projections exactly.
// The bucket of a value is a monotone function of it, whatever its rounding: values in later buckets are
// larger, values in earlier ones smaller.
#include "depth/projection.h"

#include <string.h>

#include EC_ISA_HEADER
#include "core/isa_table.h"
#include "depth/projection_buckets.h"

namespace ec {
namespace EC_ISA {

constexpr int kPanelRows = kLanes * kTileVectors;
constexpr int64_t kLongestScan = 4 * kLanes;  // buckets beyond this are sorted and searched
constexpr int64_t kLongestInsertion = 48;
constexpr int64_t kSelectBuckets = 4096;
constexpr int64_t kPanelsAhead = 3;
constexpr int kSample = 32;
static_assert(kOverread >= kLanes, "a vector may start at the last value");

static inline int count_bits(unsigned bits) {
#if defined(__POPCNT__) || defined(__aarch64__)
  return __builtin_popcount(bits);
#else
  static_assert(kLanes == 4, "one hexadecimal digit for each mask");
  return static_cast<int>((0x4332322132212110u >> (4 * bits)) & 15u);
#endif
}

// Panels lie too far apart for the hardware to see the next one coming. Past the last one only the address
// is formed.
static inline const float* panel_of(const ProjectedRows& rows, int64_t panel) {
  const float* at = rows.first + panel * rows.panel_stride;
  for (int i = 0; i < kPanelRows; i += 16) __builtin_prefetch(at + kPanelsAhead * rows.panel_stride + i);
  return at;
}

static void pad(float* values, int64_t count) {
  for (int64_t i = 0; i < kOverread; ++i) values[count + i] = kInfinity;
}

static void collect(const ProjectedRows& rows, int64_t count, float* to, float* low, float* high) {
  int64_t taken = 0;
  for (int64_t panel = 0; taken < count; ++panel) {
    const int64_t wanted = count - taken < kPanelRows ? count - taken : kPanelRows;
    memcpy(to + taken, panel_of(rows, panel), static_cast<size_t>(wanted) * sizeof(float));
    taken += wanted;
  }
  pad(to, count);
  find_extremes(to, count, low, high);
}

static bool all_equal(const float* values, int64_t count) {
  int64_t i = 1;
  while (i < count && values[i] == values[0]) ++i;
  return i == count;
}

static void sort_buckets(const ProjectionOrder& order, const ProjectionScratch& scratch) {
  int64_t* weights = order.weight_before;
  for (int64_t b = 0; b < order.buckets; ++b) {
    const int64_t begin = order.start[b], size = order.start[b + 1] - begin;
    if (size <= (weights == nullptr ? kLongestScan : 1)) continue;
    if (weights == nullptr && all_equal(order.values + begin, size)) continue;
    int64_t* bucket_weights = weights == nullptr ? nullptr : weights + begin;
    if (size <= kLongestInsertion)
      sort_short(order.values + begin, bucket_weights, size);
    else
      sort_long(order.values + begin, bucket_weights, size, scratch);
  }
}

// Where a sample lies in a small part of the range, buckets are spent on that part: Tukey's outer fences.
// Values outside go to the first and last bucket.
static void trim_range(const float* values, int64_t count, float* low, float* high) {
  if (count < 8 * kSample) return;
  float sample[kSample], least = kInfinity, most = -kInfinity;
  for (int s = 0; s < kSample; ++s) {
    sample[s] = values[s * count / kSample];
    least = sample[s] < least ? sample[s] : least;
    most = sample[s] > most ? sample[s] : most;
  }
  if (4.0f * (most - least) > *high - *low) return;
  sort_short(sample, nullptr, kSample);
  const float first = sample[kSample / 4], third = sample[3 * kSample / 4], width = 3.0f * (third - first);
  if (!(width > 0.0f)) return;
  *low = first - width > *low ? first - width : *low;
  *high = third + width < *high ? third + width : *high;
}

static void order(const float* values, int64_t count, float low, float high, const int64_t* weights,
                  const ProjectionScratch& scratch, ProjectionOrder* order) {
  order->count = count;
  trim_range(values, count, &low, &high);
  order->low = low;
  order->scale = bucket_scale(low, high, order->buckets);
  memset(order->start, 0, static_cast<size_t>(order->buckets + 2) * sizeof(int32_t));
  count_buckets(values, count, bucketing(low, order->scale, order->buckets), scratch.bucket,
                order->start + 2);
  int32_t* next = order->start + 1;  // first free place of each bucket; in the end, where the bucket ends
  for (int64_t b = 1; b < order->buckets; ++b) next[b] += next[b - 1];
  for (int64_t i = 0; i < count; ++i) {
    const int32_t at = next[scratch.bucket[i]]++;
    order->values[at] = values[i];
    if (weights != nullptr) order->weight_before[at] = weights[i];
  }
  pad(order->values, count);
  sort_buckets(*order, scratch);
  if (weights == nullptr) return;
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t weight = order->weight_before[i];
    order->weight_before[i] = total;
    total += weight;
  }
  order->weight_before[count] = total;
}

// ---- ranks ----------------------------------------------------------------------------------------

struct Rank {
  int64_t less, at_most;  // values < t, values <= t
};

template <bool kOrEqual>
static inline int64_t count_below(const float* values, int64_t count, float t) {
  const float* at = values;
  for (; count > 1; count -= count / 2) {  // without branches: their outcomes are anybody's guess
    const float probe = at[count / 2 - 1];
    at = (kOrEqual ? probe <= t : probe < t) ? at + count / 2 : at;
  }
  return at - values + (count == 1 && (kOrEqual ? *at <= t : *at < t) ? 1 : 0);
}

// Values of a sorted bucket [begin, end).
static __attribute__((noinline)) Rank search(const float* values, int64_t begin, int64_t end, float t) {
  if (values[begin] == values[end - 1])
    return {values[begin] < t ? end : begin, values[begin] <= t ? end : begin};
  Rank rank;
  rank.less = begin + count_below<false>(values + begin, end - begin, t);
  rank.at_most = rank.less;
  if (rank.less < end && values[rank.less] == t)
    rank.at_most += count_below<true>(values + rank.less, end - rank.less, t);
  return rank;
}

// Values beyond the bucket, which the last vector may hold, are larger than t.
static inline Rank rank_in(const ProjectionOrder& order, int32_t bucket, float t) {
  const int64_t begin = order.start[bucket], end = order.start[bucket + 1];
  const VF own = set1(t);
  VF values = load(order.values + begin);
  Rank rank;
  rank.less = begin + count_bits(mask_bits(greater(own, values)));
  rank.at_most = begin + kLanes - count_bits(mask_bits(greater(values, own)));
  if (__builtin_expect(end - begin <= kLanes, 1)) return rank;
  if (end - begin > kLongestScan) return search(order.values, begin, end, t);
  for (int64_t i = begin + kLanes; i < end; i += kLanes) {
    values = load(order.values + i);
    rank.less += count_bits(mask_bits(greater(own, values)));
    rank.at_most += kLanes - count_bits(mask_bits(greater(values, own)));
  }
  return rank;
}

struct Sum {
  static inline int64_t combine(int64_t a, int64_t b) { return a + b; }
};
struct Least {
  static inline int64_t combine(int64_t a, int64_t b) { return a < b ? a : b; }
};

template <class Combine, bool kWeighted>
static void combine_tails(const ProjectionOrder& order, const ProjectedRows& rows, int64_t* tails) {
  const Bucketing buckets = bucketing(order.low, order.scale, order.buckets);
  const int64_t total = kWeighted ? order.weight_before[order.count] : order.count;
  int32_t bucket[kPanelRows];
  for (int64_t panel = 0; panel < rows.panels; ++panel, tails += kPanelRows) {
    const float* t = panel_of(rows, panel);
    for (int v = 0; v < kTileVectors; ++v)
      store_int(bucket + v * kLanes, buckets.bucket(load(t + v * kLanes)));
    for (int i = 0; i < kPanelRows; ++i) {
      const Rank rank = rank_in(order, bucket[i], t[i]);
      const int64_t below = kWeighted ? order.weight_before[rank.at_most] : rank.at_most;
      const int64_t above = total - (kWeighted ? order.weight_before[rank.less] : rank.less);
      tails[i] = Combine::combine(tails[i], below < above ? below : above);
    }
  }
}

template <class Combine>
static void take_tails(const ProjectionOrder& order, const ProjectedRows& rows, int64_t* tails) {
  if (order.weight_before != nullptr)
    combine_tails<Combine, true>(order, rows, tails);
  else
    combine_tails<Combine, false>(order, rows, tails);
}

static void add_tails(const ProjectionOrder& order, const ProjectedRows& rows, int64_t* tails) {
  take_tails<Sum>(order, rows, tails);
}

static void least_tails(const ProjectionOrder& order, const ProjectedRows& rows, int64_t* tails) {
  take_tails<Least>(order, rows, tails);
}

// ---- medians --------------------------------------------------------------------------------------

// Copies the values whose bucket is the wanted one. Returns their number.
static int64_t take_bucket(const float* values, int64_t count, const Bucketing& buckets, int64_t wanted,
                           float* to) {
  const VF bucket = set1(static_cast<float>(wanted));
  int64_t taken = 0;
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF own = to_float(buckets.bucket(load(values + i)));
    const unsigned outside = mask_bits(greater(own, bucket)) | mask_bits(greater(bucket, own));
    for (unsigned inside = ~outside & ((1u << kLanes) - 1u); inside != 0; inside &= inside - 1) {
      const int64_t at = i + __builtin_ctz(inside);
      if (at < count) to[taken++] = values[at];
    }
  }
  return taken;
}

static float select_sorted(const float* values, int64_t count, int64_t k,
                           const ProjectionScratch& scratch) {
  for (int64_t i = 0; i < count; ++i) scratch.keys[i] = static_cast<uint64_t>(ordered_key(values[i])) << 32;
  return value_of_key(static_cast<uint32_t>(radix_sort(scratch.keys, count)[k] >> 32));
}

// The value of rank k, from 0. Requires: kOverread floats may be read beyond the last.
static float select_rank(const float* values, int64_t count, int64_t k, const ProjectionScratch& scratch) {
  int32_t sizes[kSelectBuckets];
  const float* from = values;
  float* to = scratch.selected;
  float* other = scratch.selected + count + kOverread;
  while (count > kLongestInsertion) {
    float low, high;
    find_extremes(from, count, &low, &high);
    if (low == high) return low;
    int64_t bucket_count = count / 8 + 2;
    if (bucket_count > kSelectBuckets) bucket_count = kSelectBuckets;
    const Bucketing buckets = bucketing(low, bucket_scale(low, high, bucket_count), bucket_count);
    memset(sizes, 0, static_cast<size_t>(bucket_count) * sizeof(int32_t));
    count_buckets(from, count, buckets, scratch.bucket, sizes);
    int64_t wanted = 0;
    for (; k >= sizes[wanted]; ++wanted) k -= sizes[wanted];
    // Differences too small for the scale: all values share a bucket.
    if (sizes[wanted] == count) return select_sorted(from, count, k, scratch);
    count = take_bucket(from, count, buckets, wanted, to);
    from = to;
    to = other;
    other = const_cast<float*>(from);
  }
  memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  sort_short(to, nullptr, count);
  return to[k];
}

// The values around rank k: [0] of rank k - 1, [1] of rank k, [2] of rank k + 1. Where there is none, what
// stands there is infinite.
static void select_around(const float* values, int64_t count, int64_t k, const ProjectionScratch& scratch,
                          float around[3]) {
  const float middle = select_rank(values, count, k, scratch);
  const VF own = set1(middle);
  VF below = set1(-kInfinity), above = set1(kInfinity);
  int64_t less = 0, more = 0;
  for (int64_t i = 0; i < count; i += kLanes) {
    const VF value = load(values + i);  // infinite beyond the last
    const VM smaller = greater(own, value), larger = greater(value, own);
    less += count_bits(mask_bits(smaller));
    more += count_bits(mask_bits(larger));
    below = max(below, select(smaller, value, set1(-kInfinity)));
    above = min(above, select(larger, value, set1(kInfinity)));
  }
  const int64_t at_most = (count + kLanes - 1) / kLanes * kLanes - more;
  float belows[kLanes], aboves[kLanes], largest_below = -kInfinity, least_above = kInfinity;
  store(belows, below);
  store(aboves, above);
  for (int lane = 0; lane < kLanes; ++lane) {
    largest_below = belows[lane] > largest_below ? belows[lane] : largest_below;
    least_above = aboves[lane] < least_above ? aboves[lane] : least_above;
  }
  around[0] = k - 1 < less ? largest_below : middle;
  around[1] = middle;
  around[2] = k + 1 < at_most ? middle : least_above;
}

static float median_of(const float* values, int64_t count, const ProjectionScratch& scratch) {
  float around[3];
  select_around(values, count, count / 2, scratch, around);
  return count % 2 != 0 ? around[1] : 0.5f * (around[0] + around[1]);
}

static void take_deviations(const float* values, int64_t count, float median, float* to) {
  const VF center = set1(median);
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, abs(sub(load(values + i), center)));
  pad(to, count);
}

static void spread(const float* values, int64_t count, float* work, const ProjectionScratch& scratch,
                   float* median, float* deviation) {
  *median = median_of(values, count, scratch);
  take_deviations(values, count, *median, work);
  *deviation = median_of(work, count, scratch);
}

// With s the sorted values and h = count / 2: an even sample keeps s[h] when a value up to s[h - 1] is
// missing, else s[h - 1]; an odd one keeps the two of s[h - 1], s[h], s[h + 1] that are then in the middle.
static LeftOutMedian left_out_median(const float* values, int64_t count, const ProjectionScratch& scratch) {
  float around[3];
  select_around(values, count, count / 2, scratch, around);
  if (count % 2 == 0) return {around[0], {around[1], around[1], around[0]}};
  return {around[1],
          {0.5f * (around[1] + around[2]), 0.5f * (around[0] + around[2]), 0.5f * (around[0] + around[1])}};
}

static void left_out_spread(const float* values, int64_t count, float* work,
                            const ProjectionScratch& scratch, LeftOutSpread* spread) {
  spread->center = left_out_median(values, count, scratch);
  for (int side = 0; side < 3; ++side) {
    if (side > 0 && spread->center.median[side] == spread->center.median[side - 1]) {
      spread->deviation[side] = spread->deviation[side - 1];
      continue;
    }
    take_deviations(values, count, spread->center.median[side], work);
    spread->deviation[side] = left_out_median(work, count, scratch);
  }
}

static inline VF outlying(VF distance, VF deviation) {
  return select(greater(distance, zero()), div(distance, deviation), zero());
}

static void worst_outlying(const ProjectedRows& rows, float median, float deviation, float* worst) {
  const VF center = set1(median), unit = set1(deviation);
  for (int64_t panel = 0; panel < rows.panels; ++panel, worst += kPanelRows) {
    const float* own = panel_of(rows, panel);
    for (int v = 0; v < kPanelRows; v += kLanes) {
      const VF t = load(own + v);
      store(worst + v, max(load(worst + v), outlying(abs(sub(t, center)), unit)));
    }
  }
}

static inline VF take_side(VM below, VM above, float if_below, float if_equal, float if_above) {
  return select(below, set1(if_below), select(above, set1(if_above), set1(if_equal)));
}

static inline VF left_out_outlying(VF t, const LeftOutSpread& spread) {
  const LeftOutMedian *center = &spread.center, *by_side = spread.deviation;
  const VM below = greater(set1(center->pivot), t), above = greater(t, set1(center->pivot));
  const VF median = take_side(below, above, center->median[0], center->median[1], center->median[2]);
  const VF distance = abs(sub(t, median));
  const VF pivot = take_side(below, above, by_side[0].pivot, by_side[1].pivot, by_side[2].pivot);
  VF deviation[3];
  for (int i = 0; i < 3; ++i)
    deviation[i] =
        take_side(below, above, by_side[0].median[i], by_side[1].median[i], by_side[2].median[i]);
  return outlying(distance, select(greater(pivot, distance), deviation[0],
                                   select(greater(distance, pivot), deviation[2], deviation[1])));
}

static void worst_left_out(const ProjectedRows& rows, const LeftOutSpread& spread, float* worst) {
  for (int64_t panel = 0; panel < rows.panels; ++panel, worst += kPanelRows) {
    const float* own = panel_of(rows, panel);
    for (int v = 0; v < kPanelRows; v += kLanes) {
      const VF t = load(own + v);
      store(worst + v, max(load(worst + v), left_out_outlying(t, spread)));
    }
  }
}

static const ProjectionKernels kTable = {collect, order,           add_tails,      least_tails,
                                         spread,  left_out_spread, worst_outlying, worst_left_out};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(ProjectionKernels, projection)
