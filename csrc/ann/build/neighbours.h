// SPDX-License-Identifier: Apache-2.0
// What rows may be linked to: of every new row the nearest, nearly (the best by whole codes of the best by
// their leading numbers in the nearest cells), and a few farther ones, of cells around it. Those are what
// leads a search from one cluster to the next: in a cluster of many rows all the nearest lie in it too.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/build/build.h"
#include "ann/build/code_blocks.h"
#include "ann/build/twins.h"

namespace ec {
namespace ann {

// What a build works on. Twins take no part.
struct GraphRows {
  const CodedRows& rows;
  const Twins& twins;
  int64_t first_new = 0;  // rows before it are linked already

  bool is_twin(int64_t slot) const { return twins.role[slot] == TwinRole::kTwin; }
  // How many links a row may have, those to its twins apart.
  int64_t room_of(int64_t slot, int64_t degree) const {
    return twins.role[slot] == TwinRole::kFirst ? degree - kTwinLinks : degree;
  }
  int64_t count_new() const { return rows.rows - first_new; }
};

// keys[(slot - first_new) * room ...], ascending; count of them are valid.
struct NeighbourLists {
  int64_t room = 0;
  AlignedBuffer<Key> keys;
  std::vector<uint16_t> count;

  Key* of(int64_t i) { return keys.data() + i * room; }
  const Key* of(int64_t i) const { return keys.data() + i * room; }
};

constexpr int64_t kNeighbours = 80;  // of a row, that are weighed

struct NeighbourEffort {
  int64_t kept = kNeighbours;
  int64_t farther = 32;     // cells around it of which one row each is added
  int64_t scanned = 16384;  // rows of the nearest cells, by their leading numbers
  int64_t numbers = 96;     // so many of them
  int64_t rescored = 144;   // of these by whole codes

  int64_t room() const { return kept + farther + kColumnStep; }  // collect writes whole vectors
};

// Throws std::bad_alloc.
ec_status find_neighbours(const GraphRows& graph, const Cells& cells, const BuildOptions& options,
                          const NeighbourEffort& effort, NeighbourLists* lists);

}  // namespace ann
}  // namespace ec
