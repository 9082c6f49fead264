// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/evaluate.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "ann/attributes/bits.h"
#include "ann/attributes/program.h"
#include "ann/attributes/text.h"
#include "core/parallel.h"

namespace ec::ann {

namespace {

constexpr int64_t kTestedAtOnce = 512;           // rows, so that each level of a tree fits the stack
constexpr int64_t kInlineNanoseconds = 200'000;  // of one thread: below, waking others costs more

class Evaluation {
 public:
  Evaluation(const Program& program, int64_t rows) : program_(program), rows_(rows) {}

  // Depth of recursion: that of the program, kMostDepth at most.
  AllowedSet rows_of_node(const Node& node) const {
    switch (node.kind) {
      case Node::Kind::kLeaf:
        return rows_of(predicate(node));
      case Node::Kind::kAnd:
        return rows_of_and(node);
      case Node::Kind::kOr:
        return rows_of_or(node);
      case Node::Kind::kNot:
        return complement(rows_of_node(child(node, 0)));
      case Node::Kind::kAll:
        return full_set(rows_);
      default:
        return empty_set(rows_);
    }
  }

 private:
  const Predicate& predicate(const Node& node) const {
    return program_.predicates[static_cast<size_t>(node.begin)];
  }
  int64_t child_count(const Node& node) const { return node.end - node.begin; }
  const Node& child(const Node& node, int64_t i) const {
    return program_.nodes[static_cast<size_t>(program_.children[static_cast<size_t>(node.begin + i)])];
  }

  // The rarest child first. Once few rows are left they are tested one by one.
  AllowedSet rows_of_and(const Node& node) const {
    std::vector<const Node*> order;
    for (int64_t i = 0; i < child_count(node); ++i) order.push_back(&child(node, i));
    std::stable_sort(order.begin(), order.end(),
                     [](const Node* a, const Node* b) { return a->expected < b->expected; });
    std::vector<uint32_t> unsorted;
    if (order[0]->kind == Node::Kind::kLeaf && rows_unsorted(predicate(*order[0]), &unsorted)) {
      for (size_t i = 1; i < order.size(); ++i) keep_passing(*order[i], &unsorted);
      sort_slots(rows_, &unsorted);
      return set_of_sorted(std::move(unsorted), rows_);
    }
    AllowedSet set = rows_of_node(*order[0]);
    for (size_t i = 1; i < order.size() && set.count > 0; ++i) {
      if (set.dense) {
        set = both(set, rows_of_node(*order[i]));
      } else {
        keep_passing(*order[i], &set.slots);
        set.count = static_cast<int64_t>(set.slots.size());
      }
    }
    return set;
  }

  AllowedSet rows_of_or(const Node& node) const {
    Collector collector(rows_, node.expected);
    for (int64_t i = 0; i < child_count(node); ++i) {
      const Node& part = child(node, i);
      if (part.kind == Node::Kind::kLeaf)
        collect_rows(predicate(part), &collector);
      else
        collector.add(rows_of_node(part));
    }
    return collector.finish();
  }

  void keep_passing(const Node& node, std::vector<uint32_t>* slots) const {
    if (node.kind == Node::Kind::kLeaf && keep_by_bits(predicate(node), slots)) return;
    uint8_t pass[kTestedAtOnce];
    const int64_t size = static_cast<int64_t>(slots->size());
    uint32_t* kept = slots->data();
    for (int64_t begin = 0; begin < size; begin += kTestedAtOnce) {
      const int64_t count = std::min(kTestedAtOnce, size - begin);
      const uint32_t* part = slots->data() + begin;
      test(node, part, count, pass);
      for (int64_t i = 0; i < count; ++i) {
        *kept = part[i];
        kept += pass[i];
      }
    }
    slots->resize(static_cast<size_t>(kept - slots->data()));
  }

  // pass[i] = 1 when slots[i] passes, else 0. Requires: count <= kTestedAtOnce.
  void test(const Node& node, const uint32_t* slots, int64_t count, uint8_t* pass) const {
    switch (node.kind) {
      case Node::Kind::kLeaf:
        return test_rows(predicate(node), slots, count, pass);
      case Node::Kind::kNot:
        test(child(node, 0), slots, count, pass);
        for (int64_t i = 0; i < count; ++i) pass[i] ^= 1;
        return;
      case Node::Kind::kAnd:
      case Node::Kind::kOr:
        return test_children(node, slots, count, pass);
      default:
        std::fill(pass, pass + count, node.kind == Node::Kind::kAll ? uint8_t{1} : uint8_t{0});
    }
  }

  void test_children(const Node& node, const uint32_t* slots, int64_t count, uint8_t* pass) const {
    uint8_t part[kTestedAtOnce];
    test(child(node, 0), slots, count, pass);
    for (int64_t c = 1; c < child_count(node); ++c) {
      test(child(node, c), slots, count, part);
      if (node.kind == Node::Kind::kAnd)
        for (int64_t i = 0; i < count; ++i) pass[i] &= part[i];
      else
        for (int64_t i = 0; i < count; ++i) pass[i] |= part[i];
    }
  }

  const Program& program_;
  int64_t rows_;
};

// ---- a batch --------------------------------------------------------------------------------------------

// Equal programs of a batch.
struct Distinct {
  std::vector<std::string_view> programs;
  std::vector<int64_t> of;  // for each of the batch, its place in programs
};

Distinct distinct_of(const std::vector<std::string_view>& programs) {
  Distinct distinct;
  size_t cells = 16;
  while (cells < 2 * programs.size()) cells *= 2;
  std::vector<int64_t> table(cells, -1);
  for (const std::string_view program : programs) {
    size_t i = hash_bytes(program.data(), program.size()) & (cells - 1);
    while (table[i] >= 0 && distinct.programs[static_cast<size_t>(table[i])] != program)
      i = (i + 1) & (cells - 1);
    if (table[i] < 0) {
      table[i] = static_cast<int64_t>(distinct.programs.size());
      distinct.programs.push_back(program);
    }
    distinct.of.push_back(table[i]);
  }
  return distinct;
}

Filters::Set evaluate_one(const Table& table, std::string_view bytes, const uint64_t* live,
                          Program* program) {
  parse_program(bytes, table, program);
  auto set = std::make_shared<AllowedSet>(Evaluation(*program, table.rows()).rows_of_node(program->root()));
  if (live != nullptr) restrict_to(live, set.get());
  return set;
}

int threads_for(int64_t programs, int64_t rows, int threads) {
  return programs * (300 + rows / 32) < kInlineNanoseconds ? 1 : threads;
}

}  // namespace

ec_status evaluate(const Table& table, const std::vector<std::string_view>& programs, const uint64_t* live,
                   int threads, const ec_monitor* monitor, Filters* filters) {
  if (programs.size() == 1) {
    Program program;
    std::vector<Filters::Set> single(1, evaluate_one(table, programs[0], live, &program));
    *filters = Filters(table.rows(), std::move(single));
    return EC_OK;
  }
  const Distinct distinct = distinct_of(programs);
  const int64_t count = static_cast<int64_t>(distinct.programs.size());
  threads = threads_for(count, table.rows(), threads);
  std::vector<Program> scratch(static_cast<size_t>(worker_count(count, threads)));
  std::vector<Filters::Set> sets(static_cast<size_t>(count));
  std::vector<std::exception_ptr> failed(static_cast<size_t>(count));
  const ec_status status = parallel_for(count, threads, monitor, [&](int64_t i, int worker) {
    const size_t at = static_cast<size_t>(i);
    try {
      sets[at] = evaluate_one(table, distinct.programs[at], live, &scratch[static_cast<size_t>(worker)]);
    } catch (...) {
      failed[at] = std::current_exception();
    }
  });
  if (status != EC_OK) return status;
  for (const std::exception_ptr& failure : failed)
    if (failure != nullptr) std::rethrow_exception(failure);
  std::vector<Filters::Set> all;
  all.reserve(programs.size());
  for (const int64_t i : distinct.of) all.push_back(sets[static_cast<size_t>(i)]);
  *filters = Filters(table.rows(), std::move(all));
  return EC_OK;
}

}  // namespace ec::ann
