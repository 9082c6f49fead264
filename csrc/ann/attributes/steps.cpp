// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/steps.h"

#include <algorithm>

#include "ann/attributes/program.h"

namespace ec::ann {

namespace {

class Writer {
 public:
  Writer(const Program& program, const Table& table, Steps* to) : program_(program), to_(*to) {
    for (size_t i = 0; i < table.columns().size(); ++i) columns_.push_back(table.columns()[i].get());
    // Children come before their parents.
    for (const Node& node : program.nodes) bits_.push_back(bits_of(node));
  }

  // Depth of recursion: that of the program, kMostDepth at most.
  void write(const Node& node) {
    switch (node.kind) {
      case Node::Kind::kLeaf:
        return write_leaf(program_.predicates[static_cast<size_t>(node.begin)]);
      case Node::Kind::kNot:
        write(program_.nodes[static_cast<size_t>(child(node.begin))]);
        return push(StepKind::kNot);
      case Node::Kind::kAnd:
        return write_children(node, StepKind::kAnd);
      case Node::Kind::kOr:
        return write_children(node, StepKind::kOr);
      default:
        return push(node.kind == Node::Kind::kAll ? StepKind::kPushTrue : StepKind::kPushFalse);
    }
  }

 private:
  int32_t child(int32_t place) const { return program_.children[static_cast<size_t>(place)]; }

  std::vector<int32_t> deepest_first(const Node& node) const {
    std::vector<int32_t> order;
    for (int32_t i = node.begin; i < node.end; ++i) order.push_back(child(i));
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return bits_[static_cast<size_t>(a)] > bits_[static_cast<size_t>(b)];
    });
    return order;
  }

  // How high the stack gets: all children but the first find the result of those before them on it.
  int bits_of(const Node& node) const {
    if (node.kind == Node::Kind::kNot) return bits_[static_cast<size_t>(child(node.begin))];
    if (node.kind != Node::Kind::kAnd && node.kind != Node::Kind::kOr) return 1;
    const std::vector<int32_t> order = deepest_first(node);
    const int first = bits_[static_cast<size_t>(order[0])];
    return order.size() == 1 ? first : std::max(first, bits_[static_cast<size_t>(order[1])] + 1);
  }

  void write_children(const Node& node, StepKind kind) {
    const std::vector<int32_t> order = deepest_first(node);
    for (size_t i = 0; i < order.size(); ++i) {
      write(program_.nodes[static_cast<size_t>(order[i])]);
      if (i > 0) push(kind);
    }
  }

  void write_leaf(const Predicate& predicate) {
    const auto found = std::find(columns_.begin(), columns_.end(), predicate.column);
    const int64_t column = found - columns_.begin();
    switch (predicate.test) {
      case Test::kNull:
        return push(StepKind::kPushNull, column);
      case Test::kNotNull:
        return push(StepKind::kPushNotNull, column);
      case Test::kCode:
        return push(StepKind::kPushCode, column, predicate.code);
      case Test::kCodes:
        return push_any(StepKind::kPushCodes, column, predicate.codes);
      case Test::kInterval:
        return push(StepKind::kPushInterval, column, predicate.low, predicate.high);
      case Test::kPoints:
        return push_any(StepKind::kPushPoints, column, predicate.points);
      default:
        return push(StepKind::kPushFalse);
    }
  }

  template <class Value>
  void push_any(StepKind kind, int64_t column, const std::vector<Value>& values) {
    const auto first = static_cast<int64_t>(to_.constants.size());
    to_.constants.insert(to_.constants.end(), values.begin(), values.end());
    push(kind, column, first, static_cast<int64_t>(to_.constants.size()));
  }

  void push(StepKind kind, int64_t column = 0, int64_t first = 0, int64_t last = 0) {
    to_.steps.push_back({kind, column, first, last});
  }

  const Program& program_;
  Steps& to_;
  std::vector<const Column*> columns_;
  std::vector<int> bits_;
};

}  // namespace

Steps steps_of(const Table& table, const std::vector<std::string_view>& programs) {
  Steps steps;
  Program program;
  for (const std::string_view bytes : programs) {
    parse_program(bytes, table, &program);
    Writer(program, table, &steps).write(program.root());
    steps.starts.push_back(static_cast<int64_t>(steps.steps.size()));
  }
  return steps;
}

}  // namespace ec::ann
