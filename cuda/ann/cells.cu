// SPDX-License-Identifier: Apache-2.0
#include "ann/cells.cuh"

#include "common/workspace.h"

namespace ec::cuda::ann {
namespace {

constexpr int64_t kMostBlocks = 0x7fffffff;

struct GroupingLayout {
  GroupingLayout(const HeadRows& rows, const Grouping& grouping, void* workspace) : arena(workspace) {
    centroids = {grouping.cells, arena.take<int8_t>(grouping.cells * rows.head_bytes),
                 arena.take<float>(grouping.cells), arena.take<float>(grouping.cells),
                 arena.take<int>(grouping.cells)};
    cell_of = arena.take<uint32_t>(grouping.sampled);
  }

  Arena arena;
  Centroids centroids = {};
  uint32_t* cell_of = nullptr;  // of the sample
};

void launch_nearest(const HeadRows& rows, const Centroids& centroids, const uint32_t* slots, int64_t count,
                    uint32_t* cell_of, Stream stream) {
  EC_LAUNCH(find_nearest, static_cast<unsigned>(ceiling(count, kTile)), kPairThreads, sizeof(NearestShared),
            stream, rows, centroids, slots, count, cell_of);
}

}  // namespace

size_t grouping_workspace(const HeadRows& rows, const Grouping& grouping) {
  return GroupingLayout(rows, grouping, nullptr).arena.used();
}

bool run_grouping(const HeadRows& rows, const Grouping& grouping, void* workspace, Stream stream) {
  if (grouping.cells > kMostBlocks) return false;
  if (grouping.count == 0) return true;
  const GroupingLayout layout(rows, grouping, workspace);
  const Centroids& centroids = layout.centroids;
  const auto cells = static_cast<unsigned>(grouping.cells);
  allow_shared(find_nearest, sizeof(NearestShared));
  EC_LAUNCH(move_centroids, cells, kMeanThreads, sizeof(MeanShared), stream, rows, grouping.drawn, nullptr,
            grouping.cells, centroids, nullptr);
  for (int i = 0; i < grouping.moves; ++i) {
    launch_nearest(rows, centroids, grouping.sample, grouping.sampled, layout.cell_of, stream);
    EC_LAUNCH(move_centroids, cells, kMeanThreads, sizeof(MeanShared), stream, rows, grouping.sample,
              layout.cell_of, grouping.sampled, centroids, nullptr);
  }
  launch_nearest(rows, centroids, grouping.slots, grouping.count, grouping.cell_of, stream);
  return !launches_failed();
}

bool run_cell_means(const HeadRows& rows, const uint32_t* cell_of, int64_t count, int64_t cells,
                    uint8_t* heads, Stream stream) {
  if (cells > kMostBlocks) return false;
  if (cells == 0) return true;
  clear(heads, static_cast<size_t>(cells * rows.head_bytes), stream);
  EC_LAUNCH(move_centroids, static_cast<unsigned>(cells), kMeanThreads, sizeof(MeanShared), stream, rows,
            nullptr, cell_of, count, Centroids{}, heads);
  return !launches_failed();
}

}  // namespace ec::cuda::ann
