// SPDX-License-Identifier: Apache-2.0
// The labels of a category or set column, numbered in the order in which they were met.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "ann/attributes/shared_array.h"
#include "core/internal.h"

namespace ec::ann {

enum class LabelKind : uint8_t { kNone = 0, kText = 1, kInteger = 2, kBoolean = 3 };

// "strings", ...
const char* label_kind_name(LabelKind kind);

// Labels as a caller gives them. kNone where there are none.
struct Labels {
  LabelKind kind = LabelKind::kNone;
  std::vector<std::string_view> text;  // kText
  std::vector<int64_t> numbers;        // kInteger, and kBoolean as 0 and 1

  int64_t size() const {
    return static_cast<int64_t>(kind == LabelKind::kText ? text.size() : numbers.size());
  }
};

// Immutable; a dictionary with more labels shares its memory with the one it grew from.
class Dictionary {
 public:
  LabelKind kind() const { return kind_; }
  int32_t size() const { return size_; }

  // The code of a label, -1 when it has none. Requires: kind() is that of the label, or kNone.
  int32_t find(std::string_view text) const { return size_ == 0 ? -1 : lookup(hash_of(text), text); }
  int32_t find(int64_t number) const { return size_ == 0 ? -1 : lookup(hash_of(number), number); }

  // Requires: 0 <= code < size().
  std::string_view text(int32_t code) const {
    const int64_t begin = code == 0 ? 0 : ends_[code - 1];
    return {bytes_.data() + begin, static_cast<size_t>(ends_[code] - begin)};
  }
  int64_t number(int32_t code) const { return numbers_[code]; }

  // This dictionary with labels added; codes[i] is the code of label i. Labels may be there already,
  // and may repeat. Requires: labels.kind is kind() unless one of them is kNone.
  Dictionary merged(const Labels& labels, std::vector<int32_t>* codes) const;

  // The dictionary with these labels, of which number i has code i. Throws ValueError unless they are
  // distinct and sound: text in UTF-8 with ascending ends up to its last byte, or numbers; booleans 0 or 1.
  EC_INTERNAL static Dictionary of(LabelKind kind, SharedArray<char> bytes, SharedArray<int64_t> ends,
                                   SharedArray<int64_t> numbers);

  // What is saved: the labels, one behind the other, and where each ends; or the numbers.
  const SharedArray<char>& bytes() const { return bytes_; }
  const SharedArray<int64_t>& ends() const { return ends_; }
  const SharedArray<int64_t>& numbers() const { return numbers_; }
  int64_t size_bytes() const;

 private:
  // Open addressing. A cell is (hash's upper half << 32) | code + 1, or 0. Cells are only ever
  // filled, so a reader of an older dictionary may meet codes that it does not have: it walks on.
  struct Cells {
    explicit Cells(int64_t labels);
    uint64_t mask;
    std::unique_ptr<std::atomic<uint64_t>[]> cells;
    std::atomic<int64_t> claimed{0};  // labels that some version put in here
  };

  static uint64_t hash_of(std::string_view text);
  static uint64_t hash_of(int64_t number);
  bool holds(int32_t code, std::string_view label) const { return text(code) == label; }
  bool holds(int32_t code, int64_t label) const { return number(code) == label; }
  template <class Label>
  int32_t lookup(uint64_t hash, Label label) const;
  template <class Label>
  Dictionary grown(LabelKind kind, const std::vector<Label>& fresh) const;
  template <class Label>
  Dictionary merge(LabelKind kind, const std::vector<Label>& labels, std::vector<int32_t>* codes) const;
  void reserve_text(const std::vector<std::string_view>& fresh);
  void reserve_text(const std::vector<int64_t>& fresh);
  void insert(uint64_t hash, int32_t code);
  void check_labels() const;
  uint64_t hash_at(int32_t code) const;

  LabelKind kind_ = LabelKind::kNone;
  int32_t size_ = 0;
  SharedArray<char> bytes_;
  SharedArray<int64_t> ends_;
  SharedArray<int64_t> numbers_;
  std::shared_ptr<Cells> cells_;
};

}  // namespace ec::ann
