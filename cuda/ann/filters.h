// SPDX-License-Identifier: Apache-2.0
// Filters as the device has them: programs over columns, masks, ids. Each becomes bits: bit i % 32 of word
// i / 32 says whether slot i passes.
//
// A program is what AnnTable.steps gives (csrc/ann/attributes/steps.h): steps over a stack of bits, of
// which 32 are enough.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ec::cuda::ann {

constexpr int kFilterThreads = 256;
constexpr int kWordBits = 32;

// Numbers are those of StepKind and ColumnKind of csrc/ann/attributes.
enum class StepKind : int64_t {
  kPushFalse,
  kPushTrue,
  kNot,
  kAnd,
  kOr,
  kPushNull,
  kPushNotNull,
  kPushCode,
  kPushCodes,
  kPushInterval,
  kPushPoints
};
struct Step {
  StepKind kind;
  int64_t column;
  int64_t first, last;
};

constexpr int64_t kCategory = 1;  // of a column; others are told apart by what they have
struct Column {
  int64_t kind;
  const int32_t* codes;    // category: one a row, -1 for null; set: of all rows in turn
  const int64_t* offsets;  // set: rows + 1
  const int64_t* keys;     // numeric
  const uint8_t* nulls;    // numeric and set; null while no row is null

  __device__ bool is_null(int64_t slot) const {
    return kind == kCategory ? codes[slot] < 0 : nulls != nullptr && nulls[slot] != 0;
  }
};

struct FilterPrograms {
  const Column* columns;
  const Step* steps;
  const int64_t* starts;  // of each program, and where the last ends
  const int64_t* constants;
  int64_t count, rows;
  const unsigned* alive;  // null: every slot
  unsigned* bits;         // [count][words]
  int64_t words;
};

// Lists of the slots that pass filters.
struct Listing {
  const unsigned* bits;  // [filters][words]
  int64_t filters, rows;
  uint32_t* slots;  // [filters][stride]; null: counts alone
  int64_t stride;
  int64_t* counts;     // [filters]
  int64_t* of_chunks;  // scratch, of list_workspace_bytes
  const int* unless;   // whether nobody wants the slots, and they are left out; null: somebody does
};

// Ids that living rows have, ascending, and the slots of these.
struct IdTable {
  const int64_t* ids;
  const uint32_t* slots;
  int64_t count;
};

}  // namespace ec::cuda::ann
