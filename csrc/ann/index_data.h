// SPDX-License-Identifier: Apache-2.0
// One version of an index: what a search reads. Never changed once it is shared.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ann/allowed.h"
#include "ann/attributes/bits.h"
#include "ann/attributes/shared_array.h"
#include "ann/build/build.h"
#include "ann/codec.h"
#include "ann/costs.h"

namespace ec::ann {

constexpr int kDegree = 32;

struct IndexData {
  int64_t dim = 0;
  Metric metric = Metric::kCosine;
  VectorDtype dtype = VectorDtype::kFloat32;
  int64_t rows = 0;          // slots, dead ones included
  int64_t graph_rows = 0;    // slots [graph_rows, rows) are the tail: scanned, not linked
  int64_t trained_rows = 0;  // rows of the last build; the first ones of each cell lie side by side
  bool raw_dropped = false;

  SharedArray<unsigned char> raw;           // [rows][row_bytes()], as given; empty when dropped
  SharedArray<float> inverse_norms;         // cosine: 1 / |x|; else empty
  std::shared_ptr<const Codec> codec;       // null: untrained, no codes
  SharedArray<uint8_t> heads;               // [rows][head_bytes]
  SharedArray<uint8_t> tails;               // [rows][tail_bytes]
  SharedArray<uint32_t> links;              // [graph_rows][kDegree]
  std::shared_ptr<const Cells> cells;       // of slots [0, graph_rows)
  std::shared_ptr<const AllowedSet> alive;  // null: every slot
  Costs costs;

  int64_t row_bytes() const { return dim * number_bytes(dtype); }
  int64_t live() const { return alive == nullptr ? rows : alive->count; }
  bool trained() const { return codec != nullptr; }
  bool is_alive(int64_t slot) const { return alive == nullptr || test_bit(alive->bits.data(), slot); }
  const VectorKernels& vector_kernels(const AnnRawKernels& kernels) const {
    return kernels.vectors[static_cast<int>(dtype)];
  }
  static int64_t number_bytes(VectorDtype dtype) {
    return dtype == VectorDtype::kFloat32 ? 4 : dtype == VectorDtype::kInt8 ? 1 : 2;
  }
};

}  // namespace ec::ann
