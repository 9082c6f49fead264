// SPDX-License-Identifier: Apache-2.0
// The attributes of every slot. A table never changes: what writes makes the next one, which shares with
// the last all that stayed as it was.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ann/attributes/column.h"
#include "core/internal.h"

namespace ec::ann {

// What a table takes in memory, in bytes.
struct TableBytes {
  int64_t values = 0;
  int64_t dictionaries = 0;
  int64_t indexes = 0;
};

class Table {
 public:
  using Pointer = std::shared_ptr<const Table>;
  using ColumnPointer = std::shared_ptr<const Column>;

  Table() = default;

  int64_t rows() const { return rows_; }
  const std::vector<ColumnPointer>& columns() const { return columns_; }
  // Null when there is none of that name.
  EC_INTERNAL const Column* find(std::string_view name) const;

  // Throw KindError or ValueError (std::invalid_argument) and leave nothing behind.

  // rows more; columns that are not given are null there.
  EC_INTERNAL Pointer append(int64_t rows, const std::vector<Payload>& payloads) const;
  // Other values for slots; of equal slots the last counts. Requires: payloads of slots.size() rows.
  EC_INTERNAL Pointer update(const int64_t* slots, int64_t count,
                             const std::vector<Payload>& payloads) const;
  // Row i of the new table is row order[i] of this one.
  EC_INTERNAL Pointer take(const int64_t* order, int64_t count) const;
  EC_INTERNAL TableBytes size_bytes() const;

  // Checks everything in columns that come from outside but their dictionaries, and indexes them.
  EC_INTERNAL static Pointer from_columns(int64_t rows, std::vector<Column> columns);

 private:
  static Pointer make(int64_t rows, std::vector<Column> columns);

  int64_t rows_ = 0;
  std::vector<ColumnPointer> columns_;
  std::unordered_map<std::string_view, const Column*> by_name_;  // names are those of columns_
};

}  // namespace ec::ann
