// SPDX-License-Identifier: Apache-2.0
// Links of rows, chosen among candidates by the rule of the CPU's builds (csrc/ann/build/prune.h).
#pragma once

#include "ann/index.h"
#include "ann/near_rows.h"
#include "common/platform.h"

namespace ec::cuda::ann {

constexpr int kMostCandidates = 127;  // of a row

// Candidates of a row are the rows nearest to it and, of some cells around its own, one row each.
struct LinkProblem {
  IndexRows index;
  int64_t first, count;  // slots whose links are chosen
  const int64_t* near;   // [count][near_each]: slots, -1: none
  int near_each;
  BuildCells cells;
  int far_each;  // near cells of which one row each is weighed, at most near_each
  unsigned long long seed;
  int degree, least;  // links of a row; at least so many if it has as many candidates
  uint32_t* links;    // [count][degree], the nearest first; 2^32 - 1 behind the last
};

// Which of the rows of the cell of number `far` is weighed for a slot: any, and the same each time
// (splitmix64, Steele et al., OOPSLA 2014).
__host__ __device__ inline uint32_t one_of(uint32_t rows, unsigned long long seed, uint32_t slot, int far) {
  unsigned long long a = seed + (static_cast<unsigned long long>(slot) << 8 | static_cast<unsigned>(far));
  a += 0x9e3779b97f4a7c15ull;
  a = (a ^ a >> 30) * 0xbf58476d1ce4e5b9ull;
  a = (a ^ a >> 27) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>((a ^ a >> 31) % rows);
}

// False: a grid would be too large.
bool run_choose_links(const LinkProblem& problem, Stream stream);

}  // namespace ec::cuda::ann
