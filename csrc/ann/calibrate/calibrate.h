// SPDX-License-Identifier: Apache-2.0
// The costs of an index, measured in two parts. Throws Interrupted, std::bad_alloc.
#pragma once

#include "ann/calibrate/samples.h"

namespace ec::ann {

class Calibration {
 public:
  // queries ([count][dim]) null: rows of the index stand in for them.
  Calibration(const IndexData& index, const float* queries, int64_t count, int threads,
              const ec_monitor* monitor)
      : index_(index), samples_(index_, queries, count, threads, monitor) {}

  // The greater part, for which links need not be there yet; their array must. Made by measure() if it was
  // not before.
  void look();
  Costs measure();

 private:
  bool possible() const { return samples_.size() > 0 && index_.trained() && index_.graph_rows > 0; }
  void find_bars(Costs* costs) const;
  void find_cells(Costs* costs) const;
  void look_at_rows(Costs* costs) const;
  void find_slacks(int share, Costs* costs) const;
  void time_walks(int share, Costs* costs) const;
  template <class Body>
  void walk(size_t number, int share, const Costs& costs, float recall, float slack, Body&& body) const;

  IndexData index_;  // its costs are those known so far
  Samples samples_;
  Costs costs_;
  bool looked_ = false;
};

}  // namespace ec::ann
