// SPDX-License-Identifier: Apache-2.0
// Distances between coded rows; see build/graph_kernels.h for what each kernel does.
#include EC_ISA_HEADER
#include "ann/build/graph_kernels.h"
#include "core/isa_table.h"

namespace ec {
namespace EC_ISA {

#define EC_UNROLL _Pragma("GCC unroll 16")

constexpr int kStripLeft = 4;   // rows of left that are taken together
constexpr int kStripWide = 64;  // columns between two passes over a strip's sums

// sums[r * kStripWide + c] = left row r . right row c for as many pairs as there are lanes.
template <int kLeft>
static inline void dot_tile(const int8_t* const* left, const uint8_t* const* right, int64_t bytes,
                            float* sums) {
  constexpr int kRight = kLanes / kLeft;
  VS acc[kLanes];
  EC_UNROLL for (int i = 0; i < kLanes; ++i) acc[i] = (VS)zero_int();
  for (int64_t k = 0; k < bytes; k += kByteStep) {
    EC_UNROLL for (int i = 0; i < kLanes; ++i) {
      acc[i] = dot_bytes(acc[i], right[i % kRight] + k, left[i / kRight] + k);
    }
  }
  VF wide[kLanes];
  EC_UNROLL for (int i = 0; i < kLanes; ++i) wide[i] = to_float((VI)acc[i]);
  float pairs[kLanes];
  store(pairs, sum_each(wide));
  EC_UNROLL for (int r = 0; r < kLeft; ++r) {
    __builtin_memcpy(sums + r * kStripWide, pairs + r * kRight, sizeof(float) * kRight);
  }
}

static inline void fetch(const uint8_t* row, int64_t bytes) {
  for (int64_t k = 0; k < bytes; k += 64) __builtin_prefetch(row + k, 0, 3);
}

// Distances of one left row to the columns of a strip.
static inline void finish_row(const LeftCodes& left, int64_t row, const RightCodes& right, int64_t first,
                              int64_t columns, const float* heads, const float* tails, float* out) {
  const VF norm = set1(left.norm[row]);
  const VF head_bias = set1(kBytesFromMiddle ? 0.0f : left.head_bias[row]),
           head_scale = set1(-2.0f * left.head_scale[row]);
  const VF tail_bias = set1(kBytesFromMiddle ? 0.0f : left.tail_bias[row]),
           tail_scale = set1(-2.0f * left.tail_scale[row]);
  for (int64_t c = 0; c < columns; c += kLanes) {
    VF d = add(norm, load(right.norm + first + c));
    const VF head = mul(sub(load(heads + c), head_bias), load(right.head_scale + first + c));
    d = fma(head, head_scale, d);
    if (left.tail_bytes > 0) {
      const VF tail = mul(sub(load(tails + c), tail_bias), load(right.tail_scale + first + c));
      d = fma(tail, tail_scale, d);
    }
    store(out + first + c, max(d, zero()));
  }
}

// kLeft rows of left, from row on; the last of them again where there are fewer.
template <int kLeft>
static void strip(const LeftCodes& left, int64_t row, int64_t rows, const RightCodes& right,
                  int64_t columns, float* out, int64_t stride) {
  constexpr int kRight = kLanes / kLeft;
  const int64_t row_bytes = left.head_bytes + left.tail_bytes;
  const int8_t *heads[kLeft], *tails[kLeft];
  for (int r = 0; r < kLeft; ++r) {
    heads[r] = left.bytes + (row + (r < rows ? r : rows - 1)) * row_bytes;
    tails[r] = heads[r] + left.head_bytes;
  }
  float head_sums[kLeft * kStripWide], tail_sums[kLeft * kStripWide];
  for (int64_t first = 0; first < columns; first += kStripWide) {
    const int64_t wide = columns - first < kStripWide ? columns - first : kStripWide;
    for (int64_t c = 0; c < wide; c += kRight) {
      if (kLeft == 1) {
        for (int64_t ahead = first + c + kLanes; ahead < first + c + 2 * kLanes && ahead < columns;
             ++ahead) {
          fetch(right.heads[ahead], left.head_bytes);
          if (left.tail_bytes > 0) fetch(right.tails[ahead], left.tail_bytes);
        }
      }
      dot_tile<kLeft>(heads, right.heads + first + c, left.head_bytes, head_sums + c);
      if (left.tail_bytes > 0) {
        dot_tile<kLeft>(tails, right.tails + first + c, left.tail_bytes, tail_sums + c);
      }
    }
    for (int r = 0; r < kLeft && r < rows; ++r) {
      finish_row(left, row + r, right, first, wide, head_sums + r * kStripWide, tail_sums + r * kStripWide,
                 out + r * stride);
    }
  }
}

static void distances(const LeftCodes& left, int64_t rows, const RightCodes& right, int64_t columns,
                      float* out, int64_t stride) {
  int64_t row = 0;
  for (; rows - row > 1; row += kStripLeft) {
    const int64_t some = rows - row < kStripLeft ? rows - row : kStripLeft;
    strip<kStripLeft>(left, row, some, right, columns, out + row * stride, stride);
  }
  if (row < rows) strip<1>(left, row, 1, right, columns, out + row * stride, stride);
}

// Keys of the lanes of a set, from the lowest.
static inline int64_t put_keys(unsigned lanes, const float* values, const uint32_t* slots, uint64_t* keys) {
  int64_t found = 0;
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    uint32_t bits;
    __builtin_memcpy(&bits, values + lane, sizeof(bits));
    keys[found++] = (static_cast<uint64_t>(bits) << 32) | slots[lane];
  }
  return found;
}

static inline unsigned first_lanes(int64_t count) { return count >= kLanes ? ~0u : (1u << count) - 1u; }

static int64_t collect(const float* values, int64_t count, float limit, const uint32_t* slots,
                       uint64_t* keys) {
  int64_t found = 0;
  const VF most = set1(limit);
  for (int64_t c = 0; c < count; c += kLanes) {
    const unsigned near = mask_bits(greater(most, load(values + c))) & first_lanes(count - c);
    if (near != 0) found += put_keys(near, values + c, slots + c, keys + found);
  }
  return found;
}

static int64_t collect_products(const float* products, const float* norms, int64_t count, float norm,
                                float limit, const uint32_t* slots, uint64_t* keys) {
  int64_t found = 0;
  const VF most = set1(limit), own = set1(norm), twice = set1(2.0f);
  for (int64_t c = 0; c < count; c += kLanes) {
    const VF value = fnma(twice, load(products + c), add(own, load(norms + c)));
    const unsigned near = mask_bits(greater(most, value)) & first_lanes(count - c);
    if (near == 0) continue;
    float values[kLanes];
    store(values, max(value, zero()));
    found += put_keys(near, values, slots + c, keys + found);
  }
  return found;
}

static int64_t nearest(const float* values, int64_t count) {
  VF least = set1(values[0]);
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) least = min(least, load(values + c));
  float lanes[kLanes];
  store(lanes, least);
  float value = lanes[0];
  for (int i = 1; i < kLanes; ++i) value = lanes[i] < value ? lanes[i] : value;
  for (; c < count; ++c) value = values[c] < value ? values[c] : value;
  for (c = 0; c < count; ++c) {
    if (values[c] == value) return c;
  }
  return 0;
}

static int32_t make_signed(const uint8_t* codes, int64_t bytes, int8_t* out) {
  int32_t sum = 0;
  for (int64_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<int8_t>(codes[i] ^ 0x80);
    sum += out[i];
  }
  return sum;
}

static void add_scaled(const uint8_t* codes, int64_t count, float scale, float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    sums[i] += scale * static_cast<float>(static_cast<int>(codes[i]) - 128);
  }
}

static const GraphKernels kTable = {distances, collect, collect_products, nearest, make_signed, add_scaled};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(GraphKernels, graph)
