// SPDX-License-Identifier: Apache-2.0
// Rows of the cells around groups of rows, listed on the emulation, against the same cell by cell.
#include <algorithm>

#include "ann/near_rows.h"
#include "native/check.h"
#include "native/numbers.h"

using namespace ec::cuda::ann;

namespace {

struct Shape {
  int64_t rows, cells, near_each, group, wanted;
  bool all_take_part = true;
};

int64_t below(numbers::Source& source, int64_t bound) {
  return static_cast<int64_t>((source.next() * 0.5 + 0.5) * static_cast<double>(bound)) % bound;
}

// Cells of any sizes, none among them.
struct World {
  explicit World(const Shape& shape) {
    numbers::Source source(3);
    for (int64_t i = 0; i < shape.rows; ++i)
      cell_of.push_back(static_cast<uint32_t>(below(source, shape.cells)));
    std::sort(cell_of.begin(), cell_of.end());
    start.assign(static_cast<size_t>(shape.cells) + 1, 0);
    for (size_t i = 0; i < cell_of.size(); ++i) {
      if (!shape.all_take_part && below(source, 3) == 0) continue;
      members.push_back(static_cast<uint32_t>(i));
      ++start[cell_of[i] + 1];
    }
    for (size_t c = 1; c < start.size(); ++c) start[c] += start[c - 1];
    for (int64_t cell = 0; cell < shape.cells; ++cell) {
      near.push_back(cell);  // then any others, some twice, and -1
      for (int64_t i = 1; i < shape.near_each; ++i) near.push_back(below(source, shape.cells + 1) - 1);
    }
  }

  int64_t size(int64_t cell) const {
    return start[static_cast<size_t>(cell) + 1] - start[static_cast<size_t>(cell)];
  }

  std::vector<uint32_t> cell_of, start, members;
  std::vector<int64_t> near;
};

std::vector<uint32_t> expected(const World& world, const Shape& shape, int64_t begin, int64_t end) {
  const int64_t first = world.cell_of[static_cast<size_t>(begin)];
  const int64_t last = world.cell_of[static_cast<size_t>(end - 1)];
  std::vector<int64_t> taken;
  int64_t rows = 0;
  const auto take = [&](int64_t cell) {
    if (cell < 0 || rows >= shape.wanted) return;
    if (std::find(taken.begin(), taken.end(), cell) != taken.end()) return;
    taken.push_back(cell);
    rows += world.size(cell);
  };
  for (int64_t cell = first; cell <= last; ++cell) take(cell);
  for (int64_t rank = 0; rank < shape.near_each; ++rank)
    for (int64_t cell = first; cell <= last; ++cell)
      take(world.near[static_cast<size_t>(cell * shape.near_each + rank)]);
  std::sort(taken.begin(), taken.end());
  std::vector<uint32_t> slots;
  for (const int64_t cell : taken)
    for (uint32_t i = world.start[static_cast<size_t>(cell)];
         i < world.start[static_cast<size_t>(cell) + 1]; ++i)
      slots.push_back(world.members[i]);
  return slots;
}

void agree(const Shape& shape) {
  const World world(shape);
  int64_t most = 0;
  for (int64_t cell = 0; cell < shape.cells; ++cell) most = std::max(most, world.size(cell));
  const int64_t first = shape.rows / 5, count = shape.rows - first - shape.rows / 7;
  const int64_t groups = (count + shape.group - 1) / shape.group, stride = shape.wanted - 1 + most;
  std::vector<uint32_t> slots(static_cast<size_t>(groups * stride), 7u);
  std::vector<int64_t> counts(static_cast<size_t>(groups), -1);
  NearRowsProblem problem = {};
  problem.cells = {shape.all_take_part ? nullptr : world.members.data(),
                   world.start.data(),
                   world.cell_of.data(),
                   world.near.data(),
                   shape.cells,
                   static_cast<int>(shape.near_each)};
  problem.first = first, problem.count = count, problem.group = shape.group;
  problem.wanted = shape.wanted;
  problem.slots = slots.data(), problem.stride = stride, problem.counts = counts.data();
  CHECK(run_list_near_rows(problem, nullptr));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = first + g * shape.group, end = std::min(first + count, begin + shape.group);
    const std::vector<uint32_t> right = expected(world, shape, begin, end);
    CHECK(counts[static_cast<size_t>(g)] == static_cast<int64_t>(right.size()));
    CHECK(std::equal(right.begin(), right.end(), slots.begin() + g * stride));
  }
}

}  // namespace

int main() {
  for (const bool all : {true, false}) {
    agree({600, 40, 12, 64, 150, all});
    agree({600, 40, 40, 64, 5000, all});  // more than there are
    agree({300, 700, 50, 40, 90, all});   // many cells of a row or none, more than a block has threads
    agree({90, 1, 1, 16, 10, all});
    agree({500, 32, 8, 500, 1, all});
    agree({513, 64, 33, 128, 200, all});
  }
  NearRowsProblem nothing = {};
  CHECK(run_list_near_rows(nothing, nullptr));
  return check::report();
}
