// SPDX-License-Identifier: Apache-2.0
#include "depth/preparation.cuh"

namespace ec::cuda {

void run_preparation(const Preparation& given, Stream stream) {
  const AnyRows &first = given.sides[0].rows, &second = given.sides[1].rows;
  if (given.count == 2 && (first.kind != second.kind || whole_pieces(first) != whole_pieces(second))) {
    Preparation alone = given;
    alone.count = 1;
    run_preparation(alone, stream);
    run_preparation({{given.sides[1], {}}, 1}, stream);
    return;
  }
  int64_t blocks = 0;
  for (int side = 0; side < given.count; ++side) blocks += given.sides[side].segments.count;
  with_pieces(first, [&](auto number, auto pieces, auto whole) {
    using T = decltype(number);
    constexpr int kPieces = decltype(pieces)::value, kColumns = kPieces * kWarpPieceColumns<T>;
    const Dim3 grid{static_cast<unsigned>(blocks), static_cast<unsigned>(ceiling(first.columns, kColumns)),
                    1};
    constexpr bool kWhole = decltype(whole)::value;
    const auto kernel = given.sides[0].packing.keeps() ? prepare_rows<T, kPieces, kWhole, true>
                                                       : prepare_rows<T, kPieces, kWhole, false>;
    EC_LAUNCH(kernel, grid, kPreparationThreads,
              static_cast<size_t>(min(first.columns, int64_t{kColumns})) * sizeof(double), stream, given);
  });
}

}  // namespace ec::cuda
