// SPDX-License-Identifier: Apache-2.0
// Products of whole panels by tiles; see product_tiles.h. A panel is what tiles take as columns; as rows it
// is turned once, for all panels that it meets.
#include "product/product_tiles.h"

#include "core/isa_table.h"
#include "simd/avx512amx.h"

namespace ec {
namespace EC_ISA {

constexpr int kPanelRows = kLanes * kTileVectors;
constexpr int kPanelTiles = kPanelRows / kTileLines;
constexpr int kTileWords = kTileLines * kTileLines;
constexpr int64_t kDepths = 4;  // tiles of groups, of both panels, that stay in the first cache
static_assert(kPanelTiles == 3, "a row of tiles has three sums");
static_assert(kTurnedGroups == kTileLines, "a tile of rows is a tile of groups, turned");

static inline int64_t depths_of(int64_t groups) { return (groups + kTileLines - 1) / kTileLines; }

static void turn_panel(const uint32_t* panel, int64_t groups, uint32_t* turned) {
  for (int r = 0; r < kPanelTiles; ++r)
    for (int64_t k = 0; k < groups; k += kTileLines, turned += kTileWords)
      transpose_tile(panel + k * kPanelRows + r * kTileLines, kPanelRows, groups - k, turned, kTileLines,
                     kTileLines);
}

struct BFloatTiles {
  template <int kSum, int kA, int kB>
  static inline void multiply() {
    multiply_tiles<kSum, kA, kB>();
  }
  static inline VF to_float(VI sum) { return as_float(sum); }
};

struct Int8Tiles {
  template <int kSum, int kA, int kB>
  static inline void multiply() {
    multiply_int8_tiles<kSum, kA, kB>();
  }
  static inline VF to_float(VI sum) { return EC_ISA::to_float(sum); }
};

// The last groups, of fewer than a tile, with zeros behind them.
static void fill_rest(const uint32_t* b, int64_t groups, uint32_t* rest) {
  for (int64_t k = 0; k < kTileLines; ++k)
    for (int v = 0; v < kPanelRows; v += kLanes)
      store_int(rest + k * kPanelRows + v, k < groups ? load_int(b + k * kPanelRows + v) : zero_int());
}

template <class Tiles>
static inline __attribute__((always_inline)) void multiply_panels(const uint32_t* turned, const uint32_t* b,
                                                                  int64_t groups, float* c) {
  constexpr int64_t kLine = kPanelRows * sizeof(float);
  const int64_t depths = depths_of(groups), whole = groups / kTileLines;
  alignas(64) uint32_t rest[kTileLines * kPanelRows];
  if (whole < depths) fill_rest(b + whole * kTileLines * kPanelRows, groups - whole * kTileLines, rest);
  for (int64_t first = 0; first < depths; first += kDepths) {
    const int64_t last = first + kDepths < depths ? first + kDepths : depths;
    for (int r = 0; r < kPanelTiles; ++r) {
      float* sums = c + r * kTileLines * kPanelRows;
      if (first == 0) {
        clear_tile<0>();
        clear_tile<1>();
        clear_tile<2>();
      } else {
        load_tile<0>(sums, kLine);
        load_tile<1>(sums + kTileLines, kLine);
        load_tile<2>(sums + 2 * kTileLines, kLine);
      }
      for (int64_t d = first; d < last; ++d) {
        const uint32_t* columns = d < whole ? b + d * kTileLines * kPanelRows : rest;
        load_tile<3>(turned + (r * depths + d) * kTileWords, kTileBytes);
        load_tile<4>(columns, kLine);
        Tiles::template multiply<0, 3, 4>();
        load_tile<5>(columns + kTileLines, kLine);
        Tiles::template multiply<1, 3, 5>();
        load_tile<6>(columns + 2 * kTileLines, kLine);
        Tiles::template multiply<2, 3, 6>();
      }
      store_tile<0>(sums, kLine);
      store_tile<1>(sums + kTileLines, kLine);
      store_tile<2>(sums + 2 * kTileLines, kLine);
    }
  }
}

template <class Tiles>
static void product(const uint32_t* turned, const uint32_t* b, int64_t groups, const ProductScales& scales,
                    float* c) {
  shape_tiles(TileShapes());
  multiply_panels<Tiles>(turned, b, groups, c);
  release_tiles();
  VF column[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) column[v] = load(scales.column_scale + v * kLanes);
  for (int r = 0; r < kPanelRows; ++r) {
    const VF row = set1(scales.row_scale[r]);
    for (int v = 0; v < kTileVectors; ++v) {
      float* to = c + r * kPanelRows + v * kLanes;
      store(to, mul(Tiles::to_float(load_int(to)), mul(column[v], row)));
    }
  }
}

static const ProductTileKernels kTable = {turn_panel, product<BFloatTiles>, product<Int8Tiles>};

}  // namespace EC_ISA
}  // namespace ec

EC_EXPORT_TABLE(ProductTileKernels, product_tiles)
