// SPDX-License-Identifier: Apache-2.0
// Links chosen on the emulation, against the rule in whole numbers: codes are such, so that distances are
// exact in either, ties too.
#include "ann/links.h"
#include "ann_model.h"

using namespace ann_model;

namespace {

constexpr uint64_t kSeed = 77;

// Rows in cells of 1 to 20, some cells without members, and what is known of each.
struct Rows {
  Rows(int64_t rows, int columns, int most, bool all_take_part) : data(Metric::kL2, rows, columns, 3) {
    numbers::Source source(5);
    const auto below = [&](int64_t bound) {
      return static_cast<int64_t>((source.next() * 0.5 + 0.5) * static_cast<double>(bound)) % bound;
    };
    for (int64_t i = 0; i < rows; ++i)
      for (int k = 0; k < data.index.padded; ++k)
        data.index.codes[i * data.index.padded + k] = ec::cuda::rounded(
            k < columns ? static_cast<float>(below(2 * most + 1) - most) : 0.0f, BFloat{});
    cell_start = {0};
    for (int64_t i = 0; i < rows;) {
      const int64_t end = std::min(rows, i + 1 + below(20));
      const bool take_part = all_take_part || below(4) > 0;
      for (; i < end; ++i) {
        cell_of.push_back(static_cast<uint32_t>(cell_start.size() - 1));
        if (take_part) members.push_back(static_cast<uint32_t>(i));
      }
      cell_start.push_back(static_cast<uint32_t>(members.size()));
    }
  }

  int64_t cells() const { return static_cast<int64_t>(cell_start.size()) - 1; }
  int64_t code(int64_t row, int k) const {
    return static_cast<int64_t>(to_float(data.index.codes[row * data.index.padded + k]));
  }
  int64_t distance(int64_t a, int64_t b) const {
    int64_t sum = 0;
    for (int k = 0; k < data.index.columns; ++k)
      sum += (code(a, k) - code(b, k)) * (code(a, k) - code(b, k));
    return sum;
  }

  Data data;
  std::vector<uint32_t> members, cell_start, cell_of;
};

using Candidate = std::pair<int64_t, uint32_t>;  // distance, slot

// The rule, one candidate after another.
std::vector<uint32_t> rule(const Rows& rows, std::vector<Candidate> candidates, int degree, int least) {
  std::sort(candidates.begin(), candidates.end());
  std::vector<Candidate> links, dropped;
  for (const Candidate& one : candidates) {
    if (static_cast<int>(links.size()) == degree) break;
    const bool is_dropped = std::any_of(links.begin(), links.end(), [&](const Candidate& link) {
      return rows.distance(link.second, one.second) <= one.first;
    });
    (is_dropped ? dropped : links).push_back(one);
  }
  for (size_t i = 0; i < dropped.size() && static_cast<int>(links.size()) < least; ++i)
    links.push_back(dropped[i]);
  std::sort(links.begin(), links.end());
  std::vector<uint32_t> slots(static_cast<size_t>(degree), 0xffffffffu);
  for (size_t i = 0; i < links.size(); ++i) slots[i] = links[i].second;
  return slots;
}

struct Shape {
  int64_t rows;
  int columns, near, far, degree, least;
  int most = 3;  // of codes
};

void agree(const Shape& shape, bool all_take_part) {
  const Rows rows(shape.rows, shape.columns, shape.most, all_take_part);
  numbers::Source source(9);
  const auto below = [&](int64_t bound) {
    return static_cast<int64_t>((source.next() * 0.5 + 0.5) * static_cast<double>(bound)) % bound;
  };
  const int64_t first = shape.rows / 3, count = std::min<int64_t>(shape.rows - first, 6);
  std::vector<int64_t> near;  // of any rows, the row itself and none among them, and some twice
  for (int64_t i = 0; i < count * shape.near; ++i) near.push_back(below(shape.rows + 2) - 1);
  for (int64_t& slot : near)
    if (slot == shape.rows) slot = first;
  const int near_each = shape.far + 3;  // of which some are weighed
  std::vector<int64_t> near_cells;      // and where there are none
  for (int64_t i = 0; i < rows.cells() * near_each; ++i) near_cells.push_back(below(rows.cells() + 1) - 1);
  std::vector<uint32_t> links(static_cast<size_t>(count * shape.degree), 1u);
  LinkProblem problem = {};
  problem.index = rows.data.index;
  problem.first = first, problem.count = count;
  problem.near = near.data(), problem.near_each = shape.near;
  problem.cells = {all_take_part ? nullptr : rows.members.data(),
                   rows.cell_start.data(),
                   rows.cell_of.data(),
                   near_cells.data(),
                   rows.cells(),
                   near_each};
  problem.far_each = shape.far;
  problem.seed = kSeed;
  problem.degree = shape.degree, problem.least = shape.least;
  problem.links = links.data();
  CHECK(run_choose_links(problem, nullptr));
  for (int64_t i = 0; i < count; ++i) {
    const auto own = static_cast<uint32_t>(first + i);
    std::vector<uint32_t> slots;
    for (int j = 0; j < shape.near; ++j) {
      const int64_t slot = near[static_cast<size_t>(i * shape.near + j)];
      if (slot >= 0) slots.push_back(static_cast<uint32_t>(slot));
    }
    for (int j = 0; j < shape.far; ++j) {
      const int64_t near_cell =
          near_cells[rows.cell_of[own] * static_cast<size_t>(near_each) + static_cast<size_t>(j)];
      if (near_cell < 0) continue;
      const auto cell = static_cast<size_t>(near_cell);
      const uint32_t start = rows.cell_start[cell], size = rows.cell_start[cell + 1] - start;
      if (size == 0) continue;
      slots.push_back(rows.members[start + one_of(size, kSeed, own, j)]);
    }
    std::sort(slots.begin(), slots.end());
    slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
    std::vector<Candidate> candidates;
    for (const uint32_t slot : slots)
      if (slot != own) candidates.emplace_back(rows.distance(own, slot), slot);
    const auto begin = links.begin() + static_cast<std::ptrdiff_t>(i * shape.degree);
    CHECK(rule(rows, candidates, shape.degree, shape.least) ==
          std::vector<uint32_t>(begin, begin + shape.degree));
  }
}

void links_are_those_of_the_rule() {
  for (const Shape& shape : {Shape{1, 1, 1, 1, 32, 16},
                             {3, 5, 2, 0, 4, 4},
                             {40, 32, 0, 9, 32, 16},
                             {90, 33, 31, 0, 32, 16},      // a warp's worth, and one less
                             {90, 8, 32, 1, 3, 2},         // more than the degree
                             {300, 20, 63, 1, 32, 16, 1},  // many at the same distance
                             {300, 200, 81, 32, 32, 16},
                             {500, 160, 95, 32, 32, 20},  // a whole tile
                             {500, 3, 127, 0, 100, 90}})  // few links, and nearly all wanted
    for (const bool all : {true, false}) agree(shape, all);
}

// Rows that are all the same drop each other: what is left is filled up with the lowest slots.
void equal_rows_are_taken_by_slot() {
  Shape shape = {200, 40, 90, 0, 32, 16};
  shape.most = 0;
  agree(shape, true);
}

void too_many_rows_are_refused() {
  LinkProblem problem = {};
  const uint64_t before = ec::emulation::started();
  CHECK(run_choose_links(problem, nullptr));
  problem.count = int64_t{1} << 31;
  CHECK(!run_choose_links(problem, nullptr));
  CHECK(ec::emulation::started() == before);
}

}  // namespace

int main() {
  links_are_those_of_the_rule();
  equal_rows_are_taken_by_slot();
  too_many_rows_are_refused();
  return check::report();
}
