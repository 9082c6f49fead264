// SPDX-License-Identifier: Apache-2.0
// What it takes on this machine to score, refine and measure a row.
#pragma once

#include <chrono>

#include "ann/calibrate/samples.h"

namespace ec::ann {

inline double nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

// The times of *costs, from code_query to list_query. Requires: the index has a graph.
void time_rows(const IndexData& index, const Samples& samples, Costs* costs);

}  // namespace ec::ann
