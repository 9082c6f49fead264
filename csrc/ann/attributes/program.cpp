// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/program.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "ann/attributes/bind_values.h"
#include "ann/attributes/errors.h"
#include "ann/attributes/text.h"

namespace ec::ann {

namespace {

constexpr uint8_t kAndCode = 32;
constexpr uint8_t kOrCode = 33;
constexpr uint8_t kNotCode = 34;
constexpr uint8_t kAllCode = 48;
constexpr uint8_t kNoneCode = 49;

[[noreturn]] void fail_malformed(const std::string& why) {
  fail_value("the bytes of the filter are malformed: " + why);
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  bool at_end() const { return bytes_.empty(); }
  size_t left() const { return bytes_.size(); }

  // Requires a little-endian machine, as all that embedcore has kernels for are.
  template <class Number>
  Number number() {
    Number value;
    std::memcpy(&value, text(sizeof(Number)).data(), sizeof(Number));
    return value;
  }

  std::string_view text(size_t size) {
    if (size > bytes_.size()) fail_malformed("they end early");
    const std::string_view text = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return text;
  }

  Value value() {
    Value value;
    value.tag = static_cast<Value::Tag>(number<uint8_t>());
    switch (value.tag) {
      case Value::Tag::kBool:
        value.integer = number<uint8_t>() != 0 ? 1 : 0;
        break;
      case Value::Tag::kInteger:
      case Value::Tag::kDatetime:
        value.integer = number<int64_t>();
        break;
      case Value::Tag::kNumber:
        value.number = number<double>();
        break;
      case Value::Tag::kText:
        value.text = text(number<uint32_t>());
        break;
      default:
        fail_malformed("a value has the tag " + std::to_string(static_cast<int>(value.tag)));
    }
    return value;
  }

  void values(int64_t count, std::vector<Value>* values) {
    // A value has two bytes at least: no count makes more room than the bytes that are there.
    if (count > static_cast<int64_t>(left() / 2)) fail_malformed("they end early");
    values->reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values->push_back(value());
  }

 private:
  std::string_view bytes_;
};

[[noreturn]] void fail_unknown(const Table& table, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Table::ColumnPointer& column : table.columns()) names.push_back(*column->name);
  std::string message = "column " + quoted(name) + " is unknown";
  const int64_t nearest = nearest_name(name, names);
  if (nearest >= 0)
    fail_value(message + "; did you mean " + quoted(names[static_cast<size_t>(nearest)]) + "?");
  if (names.empty()) fail_value(message + "; there are no columns");
  const size_t shown = std::min<size_t>(names.size(), 10);
  message += names.size() > shown ? "; some of the columns are " : "; the columns are ";
  for (size_t i = 0; i < shown; ++i) message += (i == 0 ? "" : ", ") + quoted(names[i]);
  fail_value(message);
}

class Parser {
 public:
  Parser(std::string_view bytes, const Table& table, Program* program)
      : reader_(bytes), table_(table), program_(*program) {}

  void run() {
    while (!reader_.at_end()) step(reader_.number<uint8_t>());
    if (stack_.size() != 1)
      fail_malformed("they leave " + std::to_string(stack_.size()) + " results where one is needed");
  }

 private:
  void step(uint8_t code) {
    switch (code) {
      case kAndCode:
        return combine(Node::Kind::kAnd, reader_.number<uint32_t>());
      case kOrCode:
        return combine(Node::Kind::kOr, reader_.number<uint32_t>());
      case kNotCode:
        return combine(Node::Kind::kNot, 1);
      case kAllCode:
        return push(constant(Node::Kind::kAll));
      case kNoneCode:
        return push(constant(Node::Kind::kNone));
      default:
        if (code < 1 || code > static_cast<uint8_t>(Operation::kIsNull))
          fail_malformed("there is no operation " + std::to_string(code));
        leaf(static_cast<Operation>(code));
    }
  }

  void push(const Node& node) {
    stack_.push_back(static_cast<int32_t>(program_.nodes.size()));
    program_.nodes.push_back(node);
  }

  Node constant(Node::Kind kind) const {
    Node node;
    node.kind = kind;
    node.expected = kind == Node::Kind::kAll ? table_.rows() : 0;
    return node;
  }

  // The last arity results become the children of one node.
  void combine(Node::Kind kind, int64_t arity) {
    if (arity < 1 || arity > static_cast<int64_t>(stack_.size()))
      fail_malformed("an operation takes " + std::to_string(arity) + " results of " +
                     std::to_string(stack_.size()));
    Node node;
    node.kind = kind;
    node.begin = static_cast<int32_t>(program_.children.size());
    node.expected = kind == Node::Kind::kAnd ? table_.rows() : 0;
    for (size_t i = stack_.size() - static_cast<size_t>(arity); i < stack_.size(); ++i) {
      const Node& child = program_.nodes[static_cast<size_t>(stack_[i])];
      node.depth = std::max(node.depth, child.depth + 1);
      if (kind == Node::Kind::kAnd) node.expected = std::min(node.expected, child.expected);
      if (kind == Node::Kind::kOr) node.expected = std::min(node.expected + child.expected, table_.rows());
      if (kind == Node::Kind::kNot) node.expected = table_.rows() - child.expected;
      program_.children.push_back(stack_[i]);
    }
    if (node.depth > kMostDepth)
      fail_value("a filter may be nested " + std::to_string(kMostDepth) + " deep at most");
    node.end = static_cast<int32_t>(program_.children.size());
    stack_.resize(stack_.size() - static_cast<size_t>(arity));
    push(node);
  }

  void leaf(Operation operation) {
    const std::string_view name = reader_.text(reader_.number<uint16_t>());
    const Column* column = table_.find(name);
    if (column == nullptr) fail_unknown(table_, name);
    check_operation(*column, operation);
    values_.clear();
    reader_.values(operand_count(operation), &values_);
    if (operation != Operation::kContainsAll || values_.size() < 2)
      return push_leaf(bind(*column, operation, values_));
    const std::vector<Predicate> each = bind_each(*column, values_);
    for (const Predicate& predicate : each) push_leaf(predicate);
    if (each.size() > 1) combine(Node::Kind::kAnd, static_cast<int64_t>(each.size()));
  }

  int64_t operand_count(Operation operation) {
    switch (operation) {
      case Operation::kIsIn:
      case Operation::kContainsAny:
      case Operation::kContainsAll:
        return reader_.number<uint32_t>();
      case Operation::kBetween:
        return 2;
      case Operation::kIsNull:
        return 0;
      default:
        return 1;
    }
  }

  void push_leaf(Predicate predicate) {
    Node node;
    node.kind = Node::Kind::kLeaf;
    node.begin = static_cast<int32_t>(program_.predicates.size());
    node.expected = predicate.expected;
    program_.predicates.push_back(std::move(predicate));
    push(node);
  }

  Reader reader_;
  const Table& table_;
  Program& program_;
  std::vector<int32_t> stack_;
  std::vector<Value> values_;
};

}  // namespace

void parse_program(std::string_view bytes, const Table& table, Program* program) {
  program->nodes.clear();
  program->children.clear();
  program->predicates.clear();
  if (static_cast<int64_t>(bytes.size()) > kMostProgramBytes)
    fail_value("a filter may have " + std::to_string(kMostProgramBytes) + " bytes at most; got " +
               std::to_string(bytes.size()));
  Parser(bytes, table, program).run();
}

}  // namespace ec::ann
