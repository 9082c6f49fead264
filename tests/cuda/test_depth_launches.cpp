// SPDX-License-Identifier: Apache-2.0
// How many kernels a call starts: of small problems their starts take longer than all else.
#include "depth_model.h"
#include "emulation/block.h"

using namespace depth_model;

namespace {

uint64_t started_by(const Call& call) {
  const uint64_t before = ec::emulation::started();
  agree(call);
  return ec::emulation::started() - before;
}

// Sums of directions, with unit rows where there are pairs; the pairs, or the sums of those sums; depths.
void one_group_without_weights_takes_three() {
  const int64_t columns = 40;
  const Array x(random_rows(30, columns, 1), columns), y(random_rows(300, columns, 2), columns);
  for (const Metric metric : kAngular)
    for (const Array* corpus : {&y, static_cast<const Array*>(nullptr)})
      for (const bool hopper : {false, true}) {
        Call call = {metric, &x, corpus};
        call.hopper = hopper;
        CHECK(started_by(call) == 3);
      }
}

// Sides of two kinds are prepared by a kernel each.
void sides_of_two_kinds_take_one_more() {
  const int64_t columns = 24;
  const Array x(random_rows(9, columns, 3), columns),
      y(random_rows(70, columns, 4), columns, NumberKind::kBFloat16);
  CHECK(started_by({Metric::kArc, &x, &y}) == 4);
  CHECK(started_by({Metric::kCosine, &x, &y}) == 3);  // of which only the corpus is prepared
}

}  // namespace

int main() {
  one_group_without_weights_takes_three();
  sides_of_two_kinds_take_one_more();
  return check::report();
}
