// SPDX-License-Identifier: Apache-2.0
// Register-tiled products of packed panels; see product.h for what each must hold.
#include "product/product.h"

#include EC_ISA_HEADER
#include "core/isa_table.h"

#define EC_UNROLL _Pragma("GCC unroll 8")

namespace ec {
namespace EC_ISA {

constexpr int kPanelRows = kLanes * kTileVectors;
// How far ahead, in groups, the rows of the broadcast side are fetched: they lie a panel's width apart,
// so that the hardware sees one new cache line at every step.
constexpr int kPrefetchGroups = 16;

struct FloatStep {
  using Sum = VF;
  static inline Sum start() { return zero(); }
  static inline VI broadcast(const uint32_t* a) { return broadcast_group(a); }
  static inline Sum step(Sum sum, VI a, VI b) { return fma(as_float(a), as_float(b), sum); }
};

struct BFloatStep {
  using Sum = VF;
  static inline Sum start() { return zero(); }
  static inline VI broadcast(const uint32_t* a) { return broadcast_group(a); }
  static inline Sum step(Sum sum, VI a, VI b) { return dot_bfloat_pairs(sum, a, b); }
};

struct Int8Step {
  using Sum = VS;
  static inline Sum start() { return (VS)zero_int(); }
  static inline VI broadcast(const uint32_t* a) { return broadcast_int8_group(a); }
  static inline Sum step(Sum sum, VI a, VI b) { return dot_int8(sum, a, b); }
};

template <class Step>
struct Tile {
  typename Step::Sum sum[kTileRows][kTileVectors];
};

template <class Step>
static inline __attribute__((always_inline)) void multiply(const uint32_t* a, const uint32_t* b,
                                                           int64_t groups, Tile<Step>& tile) {
  EC_UNROLL for (int r = 0; r < kTileRows; ++r) EC_UNROLL for (int v = 0; v < kTileVectors; ++v)
      tile.sum[r][v] = Step::start();
  for (int64_t k = 0; k < groups; ++k, a += kPanelRows, b += kPanelRows) {
    __builtin_prefetch(a + kPrefetchGroups * kPanelRows);
    VI column[kTileVectors];
    EC_UNROLL for (int v = 0; v < kTileVectors; ++v) column[v] = load_int(b + v * kLanes);
    EC_UNROLL for (int r = 0; r < kTileRows; ++r) {
      const VI row = Step::broadcast(a + r);
      EC_UNROLL for (int v = 0; v < kTileVectors; ++v) tile.sum[r][v] =
          Step::step(tile.sum[r][v], row, column[v]);
    }
  }
}

static void product_float(const uint32_t* a, const uint32_t* b, int64_t groups, bool accumulate, float* c) {
  Tile<FloatStep> tile;
  multiply<FloatStep>(a, b, groups, tile);
  EC_UNROLL for (int r = 0; r < kTileRows; ++r) EC_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    float* to = c + r * kPanelRows + v * kLanes;
    store(to, accumulate ? add(load(to), tile.sum[r][v]) : tile.sum[r][v]);
  }
}

static void product_bfloat(const uint32_t* a, const uint32_t* b, int64_t groups, bool accumulate,
                           const ProductScales* scales, float* c) {
  Tile<BFloatStep> tile;
  multiply<BFloatStep>(a, b, groups, tile);
  EC_UNROLL for (int r = 0; r < kTileRows; ++r) EC_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    float* to = c + r * kPanelRows + v * kLanes;
    VF sum = accumulate ? add(load(to), tile.sum[r][v]) : tile.sum[r][v];
    if (scales != nullptr)
      sum = mul(sum, mul(load(scales->column_scale + v * kLanes), set1(scales->row_scale[r])));
    store(to, sum);
  }
}

static void product_int8(const uint32_t* a, const uint32_t* b, int64_t groups, const ProductScales& scales,
                         float* c) {
  Tile<Int8Step> tile;
  multiply<Int8Step>(a, b, groups, tile);
  EC_UNROLL for (int r = 0; r < kTileRows; ++r) EC_UNROLL for (int v = 0; v < kTileVectors; ++v) {
    const VF scale = mul(load(scales.column_scale + v * kLanes), set1(scales.row_scale[r]));
    const VI sum = sub_int((VI)tile.sum[r][v], load_int(scales.column_bias + v * kLanes));
    store(c + r * kPanelRows + v * kLanes, mul(to_float(sum), scale));
  }
}

static const ProductKernels kTable = {kLanes,    kTileRows,     kPanelRows,     kInt8Group,
                                      kInt8Bias, product_float, product_bfloat, product_int8};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(ProductKernels, product)
