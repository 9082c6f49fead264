// SPDX-License-Identifier: Apache-2.0
#include "ann/costs.h"

#include <algorithm>

namespace ec::ann {
namespace {

constexpr float kMostTime = 1e9f;  // nanoseconds
constexpr float kMostRatio = 1e6f;
constexpr float kMostRows = 4e9f;
constexpr float kMostSquare = 1e31f;  // of rows of at most 1e15
constexpr float kMostScale = 1e16f;
constexpr float kMostSlack = 1e3f;

void clamp(float* value, float least, float most) { *value = std::clamp(*value, least, most); }

void clamp_rows(int32_t* rows) { *rows = std::max(*rows, 0); }

}  // namespace

void bound(Costs* costs) {
  for (float* time : {&costs->code_query, &costs->listed_row, &costs->nearby_row, &costs->refine_row,
                      &costs->rescore_row, &costs->centroid, &costs->list_query}) {
    clamp(time, 0.0f, kMostTime);
  }
  clamp(&costs->rows, 0.0f, kMostRows);
  clamp(&costs->row_square, 0.0f, kMostSquare);
  clamp(&costs->usual_distance, 0.0f, kMostRatio);
  clamp(&costs->head_scale, 0.0f, kMostScale);
  for (int level = 0; level < kLevels; ++level) {
    clamp(&costs->tail_share[level], 0.0f, 1.0f);  // by Cauchy and Schwarz a tail adds no more
    clamp(&costs->code_error[level], 0.0f, kMostRatio);
    clamp(&costs->code_margin[level], 0.0f, kMostRatio);
    clamp(&costs->refined[level], 0.0f, kMostRows);
    clamp(&costs->rescored[level], 0.0f, kMostRows);
    clamp(&costs->cell_reach[level], -kMostRatio, kMostRatio);
    for (int share = 0; share < kShareCount; ++share) {
      float& slack = costs->slack[share][level];
      clamp(&slack, kNotReached, kMostSlack);
      // What a level does not reach, no higher one does.
      if (slack < 0.0f || (level > 0 && costs->slack[share][level - 1] < 0.0f)) slack = kNotReached;
      clamp(&costs->graph_time[share][level], 0.0f, kMostTime);
      clamp_rows(&costs->graph_steps[share][level]);
      clamp_rows(&costs->cell_rows[share][level]);
    }
  }
}

}  // namespace ec::ann
