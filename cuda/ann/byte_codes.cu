// SPDX-License-Identifier: Apache-2.0
#include "ann/byte_codes.cuh"

#include "common/workspace.h"

namespace ec::cuda::ann {
namespace {

// Rows that are turned at a time, and what they take.
struct TurnLayout {
  TurnLayout(const IndexRows& rows, const ByteCodes& codes, void* workspace) : arena(workspace) {
    turned.padded = static_cast<int>(ceiling(rows.columns, kAxisStep)) * kAxisStep;
    turned.stride = static_cast<int>(ceiling(codes.dims, kTogether)) * kTogether;
    const int64_t tiles = codes.scratch_numbers / (turned.padded + turned.stride) / kTurnTile;
    most = min(rows.rows, max(int64_t{1}, tiles) * kTurnTile);
    turned.centred = arena.take<float>(most * turned.padded);
    turned.numbers = arena.take<float>(most * turned.stride);
  }

  Arena arena;
  TurnedRows turned = {};
  int64_t most = 0;
};

}  // namespace

size_t byte_codes_workspace(const IndexRows& rows, const ByteCodes& codes) {
  return TurnLayout(rows, codes, nullptr).arena.used();
}

bool run_byte_codes(const IndexRows& rows, const ByteCodes& codes, int multiprocessors, void* workspace,
                    Stream stream) {
  const TurnLayout layout(rows, codes, workspace);
  TurnedRows turned = layout.turned;
  allow_shared(turn_rows, sizeof(TurnShared));
  for (turned.first = 0; turned.first < rows.rows; turned.first += layout.most) {
    turned.count = min(layout.most, rows.rows - turned.first);
    const int64_t blocks = ceiling(turned.count, kRowWarps);
    EC_LAUNCH(centre_rows, static_cast<unsigned>(min(blocks, int64_t{8} * multiprocessors)), kRowThreads, 0,
              stream, rows, codes, turned);
    const int64_t tiles = ceiling(turned.count, kTurnTile) * ceiling(codes.dims, kTurnTile);
    EC_LAUNCH(turn_rows, static_cast<unsigned>(tiles), kTurnThreads, sizeof(TurnShared), stream, codes,
              turned);
    EC_LAUNCH(write_codes, static_cast<unsigned>(blocks), kRowThreads, 0, stream, codes, turned,
              rows.metric != Metric::kInnerProduct);
  }
  return !launches_failed();
}

}  // namespace ec::cuda::ann
