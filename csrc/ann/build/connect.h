// SPDX-License-Identifier: Apache-2.0
// What makes a graph whole: from every row there is a way to every other.
#pragma once

#include <cstdint>

#include "ann/build/neighbours.h"

namespace ec {
namespace ann {

// Adds links, in the place of a row's farthest where there is no room. Throws std::bad_alloc.
ec_status connect(const GraphRows& graph, const Cells& cells, const BuildOptions& options, uint32_t* links);

}  // namespace ann
}  // namespace ec
