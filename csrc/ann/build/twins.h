// SPDX-License-Identifier: Apache-2.0
// Rows with equal codes, scales nearly so. The first of them takes its place in the graph; the others, its
// twins, hang on it in a tree, so that thousands of equal rows neither fill each other's links nor part
// from the rest.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/build/build.h"

namespace ec {
namespace ann {

enum class TwinRole : uint8_t { kNone, kFirst, kTwin };

constexpr int64_t kTwinLinks = 4;  // of a row to twins after it

struct Twins {
  std::vector<TwinRole> role;     // [rows]
  std::vector<uint32_t> members;  // of all groups of two or more, ascending in each
  std::vector<uint32_t> start;    // groups + 1
};

// Throws std::bad_alloc.
ec_status find_twins(const CodedRows& rows, const BuildOptions& options, Twins* twins);

// Links of twins, and of first rows to some of them. Requires: first rows are linked; degree > kChildren
// + 1. Throws std::bad_alloc.
void link_twins(const Twins& twins, int64_t degree, uint32_t* links);

}  // namespace ann
}  // namespace ec
