// SPDX-License-Identifier: Apache-2.0
// Which rows there are ways to along links, and from which: on all threads, the same for any number.
#pragma once

#include <cstdint>
#include <vector>

#include "ann/build/neighbours.h"

namespace ec {
namespace ann {

class Reach {
 public:
  // Throws std::bad_alloc.
  Reach(const GraphRows& graph, const BuildOptions& options, const uint32_t* links)
      : graph_(graph), options_(options), links_(links), queue_(graph.rows.rows) {}

  // Sets marks ([rows], else 0) of a row and of all that there are ways to from it. EC_INTERRUPTED.
  ec_status mark_from(uint32_t row, std::vector<uint8_t>* marks);
  // Of a row and of most, twins apart, that have a way to it: those with a way of links that are mutual.
  ec_status mark_most_to(uint32_t row, std::vector<uint8_t>* marks);

 private:
  template <class Accept>
  ec_status spread(uint32_t row, std::vector<uint8_t>* marks, const Accept& accept);
  const uint32_t* links_of(int64_t row) const { return links_ + row * options_.degree; }
  bool leads_to(uint32_t from, uint32_t to) const;

  const GraphRows& graph_;
  const BuildOptions& options_;
  const uint32_t* links_;        // [rows][degree]
  std::vector<uint32_t> queue_;  // marked rows, each once
};

}  // namespace ann
}  // namespace ec
