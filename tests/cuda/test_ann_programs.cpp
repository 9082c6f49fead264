// SPDX-License-Identifier: Apache-2.0
// Programs of filters as a warp runs them for many rows at once: the bits that a plain stack gives.
#include <cstdint>
#include <vector>

#include "ann/ann.h"
#include "ann/filters.h"
#include "native/check.h"
#include "native/numbers.h"

namespace {

using namespace ec::cuda::ann;

constexpr int64_t kValues = 9;  // that columns have

struct Table {
  Table(int64_t rows, bool some_dead) : alive(static_cast<size_t>(filter_words(rows))), rows(rows) {
    numbers::Source source(static_cast<uint64_t>(rows));
    const auto draw = [&](int64_t end) {
      return static_cast<int64_t>((source.next() + 1.0) * 0.499 * end);
    };
    offsets.push_back(0);
    for (int64_t row = 0; row < rows; ++row) {
      keys.push_back(draw(kValues) - 4);
      others.push_back(draw(kValues));
      nulls.push_back(draw(4) == 0 ? 1 : 0);
      codes.push_back(static_cast<int32_t>(draw(kValues)) - 1);
      for (int64_t i = draw(4); i > 0; --i) members.push_back(static_cast<int32_t>(draw(kValues)));
      offsets.push_back(static_cast<int64_t>(members.size()));
      if (!some_dead || draw(5) != 0) alive[static_cast<size_t>(row / 32)] |= 1u << (row % 32);
    }
    columns = {{0, nullptr, nullptr, keys.data(), nullptr},
               {0, nullptr, nullptr, others.data(), nulls.data()},
               {kCategory, codes.data(), nullptr, nullptr, nullptr},
               {2, members.data(), offsets.data(), nullptr, nulls.data()}};
  }

  bool lives(int64_t row) const { return (alive[static_cast<size_t>(row / 32)] >> (row % 32) & 1u) != 0; }

  std::vector<unsigned> alive;
  std::vector<int64_t> keys, others, offsets;
  std::vector<uint8_t> nulls;
  std::vector<int32_t> codes, members;
  std::vector<Column> columns;
  int64_t rows;
};

const std::vector<int64_t> kConstants = {-3, 0, 2, 5, 8};

// A step that pushes, of number `kind` of ten.
Step pushing(int64_t kind, int64_t first) {
  switch (kind) {
    case 0:
      return {StepKind::kPushFalse, 0, 0, 0};
    case 1:
      return {StepKind::kPushTrue, 0, 0, 0};
    case 2:
      return {StepKind::kPushPoints, 1, 1, 4};
    case 3:
      return {StepKind::kPushNull, first % 4, 0, 0};
    case 4:
      return {StepKind::kPushNotNull, first % 4, 0, 0};
    case 5:
      return {StepKind::kPushCode, 2 + first % 2, first, 0};
    case 6:
      return {StepKind::kPushCodes, 2 + first % 2, 1, 5};
    default:
      return {StepKind::kPushInterval, kind % 2, first - 3, first};
  }
}

bool is_constant(const Step& step, int64_t value) {
  for (int64_t i = step.first; i < step.last; ++i)
    if (kConstants[static_cast<size_t>(i)] == value) return true;
  return false;
}

bool pushed(const Table& table, const Step& step, int64_t row) {
  const auto at = static_cast<size_t>(row);
  const bool one = step.column % 2 != 0,
             is_null = step.column == 2 ? table.codes[at] < 0 : one && table.nulls[at] != 0;
  const int64_t key = one ? table.others[at] : table.keys[at];
  const auto code_passes = [&](int32_t code) {
    return step.kind == StepKind::kPushCode ? code == step.first : code >= 0 && is_constant(step, code);
  };
  switch (step.kind) {
    case StepKind::kPushFalse:
    case StepKind::kPushTrue:
      return step.kind == StepKind::kPushTrue;
    case StepKind::kPushNull:
    case StepKind::kPushNotNull:
      return is_null == (step.kind == StepKind::kPushNull);
    case StepKind::kPushInterval:
      return !is_null && step.first <= key && key <= step.last;
    case StepKind::kPushPoints:
      return !is_null && is_constant(step, key);
    default:
      break;
  }
  if (step.column == 2) return code_passes(table.codes[at]);
  for (int64_t i = table.offsets[at]; i < table.offsets[at + 1]; ++i)
    if (code_passes(table.members[static_cast<size_t>(i)])) return true;
  return false;
}

bool passes(const Table& table, const std::vector<Step>& steps, int64_t row) {
  std::vector<bool> stack;
  for (const Step& step : steps) {
    if (step.kind == StepKind::kNot) {
      stack.back() = !stack.back();
    } else if (step.kind == StepKind::kAnd || step.kind == StepKind::kOr) {
      const bool top = stack.back();
      stack.pop_back();
      stack.back() = step.kind == StepKind::kAnd ? stack.back() && top : stack.back() || top;
    } else {
      stack.push_back(pushed(table, step, row));
    }
  }
  return table.lives(row) && stack.back();
}

// Of a program each push `deep` deep before what is there becomes one again.
std::vector<Step> some_program(numbers::Source& source, int deep) {
  const auto draw = [&](int64_t end) { return static_cast<int64_t>((source.next() + 1.0) * 0.499 * end); };
  std::vector<Step> steps;
  for (int i = 0; i < deep; ++i) {
    steps.push_back(pushing(draw(10), draw(kValues)));
    if (draw(3) == 0) steps.push_back({StepKind::kNot, 0, 0, 0});
  }
  for (int i = 1; i < deep; ++i) {
    steps.push_back({draw(2) == 0 ? StepKind::kAnd : StepKind::kOr, 0, 0, 0});
    if (draw(3) == 0) steps.push_back({StepKind::kNot, 0, 0, 0});
  }
  return steps;
}

void programs_are_stacks(int64_t rows, bool some_dead) {
  const Table table(rows, some_dead);
  numbers::Source source(7);
  std::vector<std::vector<Step>> programs;
  for (const int deep : {1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 7, 31, 32})
    programs.push_back(some_program(source, deep));
  for (int64_t kind = 0; kind < 10; ++kind) programs.push_back({pushing(kind, kind - 2)});
  std::vector<Step> steps;
  std::vector<int64_t> starts = {0};
  for (const std::vector<Step>& own : programs) {
    steps.insert(steps.end(), own.begin(), own.end());
    starts.push_back(static_cast<int64_t>(steps.size()));
  }
  const int64_t words = filter_words(rows), count = static_cast<int64_t>(programs.size());
  std::vector<unsigned> bits(static_cast<size_t>(words * count), 0xffffffffu);
  CHECK(run_programs({table.columns.data(), steps.data(), starts.data(), kConstants.data(), count, rows,
                      some_dead ? table.alive.data() : nullptr, bits.data(), words},
                     nullptr));
  for (int64_t program = 0; program < count; ++program) {
    int wrong = 0;
    for (int64_t row = 0; row < 32 * words; ++row) {
      const bool found = (bits[static_cast<size_t>(program * words + row / 32)] >> (row % 32) & 1u) != 0;
      if (found != (row < rows && passes(table, programs[static_cast<size_t>(program)], row))) ++wrong;
    }
    CHECK(wrong == 0);
  }
}

}  // namespace

int main() {
  for (const int64_t rows : {1, 31, 257, 1000, 8193})
    for (const bool some_dead : {false, true}) programs_are_stacks(rows, some_dead);
  return check::report();
}
