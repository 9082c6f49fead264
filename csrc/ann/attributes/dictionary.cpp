// SPDX-License-Identifier: Apache-2.0
#include "ann/attributes/dictionary.h"

#include <string>
#include <unordered_set>

#include "ann/attributes/errors.h"
#include "ann/attributes/text.h"

namespace ec::ann {

namespace {

constexpr int64_t kMostLabels = INT32_MAX - 1;

uint64_t cell_of(uint64_t hash, int32_t code) {
  return (hash >> 32 << 32) | (static_cast<uint32_t>(code) + 1u);
}
int32_t code_of(uint64_t cell) { return static_cast<int32_t>(static_cast<uint32_t>(cell)) - 1; }
bool same_tag(uint64_t cell, uint64_t hash) { return cell >> 32 == hash >> 32; }

}  // namespace

const char* label_kind_name(LabelKind kind) {
  switch (kind) {
    case LabelKind::kText:
      return "strings";
    case LabelKind::kInteger:
      return "integers";
    case LabelKind::kBoolean:
      return "booleans";
    default:
      return "no labels";
  }
}

Dictionary::Cells::Cells(int64_t labels) {
  uint64_t count = 16;
  while (count < 2 * static_cast<uint64_t>(labels)) count *= 2;
  mask = count - 1;
  cells = std::make_unique<std::atomic<uint64_t>[]>(count);  // value-initialised: empty
}

uint64_t Dictionary::hash_of(std::string_view text) { return hash_bytes(text.data(), text.size()); }
uint64_t Dictionary::hash_of(int64_t number) { return hash_number(static_cast<uint64_t>(number)); }

uint64_t Dictionary::hash_at(int32_t code) const {
  return kind_ == LabelKind::kText ? hash_of(text(code)) : hash_of(number(code));
}

template <class Label>
int32_t Dictionary::lookup(uint64_t hash, Label label) const {
  for (uint64_t i = hash & cells_->mask;; i = (i + 1) & cells_->mask) {
    const uint64_t cell = cells_->cells[i].load(std::memory_order_acquire);
    if (cell == 0) return -1;
    if (!same_tag(cell, hash)) continue;
    const int32_t code = code_of(cell);
    if (code < size_ && holds(code, label)) return code;
  }
}
template int32_t Dictionary::lookup(uint64_t, std::string_view) const;
template int32_t Dictionary::lookup(uint64_t, int64_t) const;

void Dictionary::insert(uint64_t hash, int32_t code) {
  uint64_t i = hash & cells_->mask;
  while (cells_->cells[i].load(std::memory_order_relaxed) != 0) i = (i + 1) & cells_->mask;
  cells_->cells[i].store(cell_of(hash, code), std::memory_order_release);
}

void Dictionary::reserve_text(const std::vector<std::string_view>& fresh) {
  int64_t total = 0;
  for (const std::string_view label : fresh) total += static_cast<int64_t>(label.size());
  int64_t end = bytes_.size();
  char* bytes = nullptr;
  int64_t* ends = nullptr;
  bytes_ = bytes_.extended(total, &bytes);
  ends_ = ends_.extended(static_cast<int64_t>(fresh.size()), &ends);
  for (const std::string_view label : fresh) {
    if (!label.empty()) std::memcpy(bytes, label.data(), label.size());
    bytes += label.size();
    end += static_cast<int64_t>(label.size());
    *ends++ = end;
  }
}

void Dictionary::reserve_text(const std::vector<int64_t>& fresh) {
  int64_t* numbers = nullptr;
  numbers_ = numbers_.extended(static_cast<int64_t>(fresh.size()), &numbers);
  for (const int64_t label : fresh) *numbers++ = label;
}

// Requires: fresh labels are distinct and none of this dictionary's.
template <class Label>
Dictionary Dictionary::grown(LabelKind kind, const std::vector<Label>& fresh) const {
  const int64_t size = size_ + static_cast<int64_t>(fresh.size());
  if (size > kMostLabels) fail_value("a column has room for " + std::to_string(kMostLabels) + " labels");
  Dictionary next = *this;
  next.kind_ = kind;
  next.reserve_text(fresh);
  next.size_ = static_cast<int32_t>(size);
  int64_t claimed = size_;
  const bool in_place = cells_ != nullptr && 2 * size <= static_cast<int64_t>(cells_->mask) + 1 &&
                        cells_->claimed.compare_exchange_strong(claimed, size);
  if (!in_place) {
    next.cells_ = std::make_shared<Cells>(size);
    next.cells_->claimed.store(size, std::memory_order_relaxed);
    for (int32_t code = 0; code < size_; ++code) next.insert(next.hash_at(code), code);
  }
  for (int32_t code = size_; code < next.size_; ++code) next.insert(next.hash_at(code), code);
  return next;
}

template <class Label>
Dictionary Dictionary::merge(LabelKind kind, const std::vector<Label>& labels,
                             std::vector<int32_t>* codes) const {
  codes->resize(labels.size());
  std::vector<Label> fresh;
  std::unordered_set<Label> seen;
  for (size_t i = 0; i < labels.size(); ++i) {
    (*codes)[i] = find(labels[i]);
    if ((*codes)[i] < 0 && seen.insert(labels[i]).second) fresh.push_back(labels[i]);
  }
  Dictionary next = fresh.empty() ? *this : grown(kind, fresh);
  for (size_t i = 0; i < labels.size(); ++i)
    if ((*codes)[i] < 0) (*codes)[i] = next.find(labels[i]);
  return next;
}

Dictionary Dictionary::merged(const Labels& labels, std::vector<int32_t>* codes) const {
  codes->clear();
  if (labels.size() == 0) return *this;
  if (labels.kind == LabelKind::kText) return merge(labels.kind, labels.text, codes);
  return merge(labels.kind, labels.numbers, codes);
}

void Dictionary::check_labels() const {
  int64_t begin = 0;
  for (int64_t i = 0; i < ends_.size(); ++i) {
    const int64_t end = ends_[i];
    if (end < begin || end > bytes_.size()) fail_value("the ends of labels must ascend within their bytes");
    if (!is_utf8({bytes_.data() + begin, static_cast<size_t>(end - begin)}))
      fail_value("label " + std::to_string(i) + " must be UTF-8");
    begin = end;
  }
  if (begin != bytes_.size()) fail_value("labels must end with the last of their bytes");
  if (kind_ != LabelKind::kBoolean) return;
  for (int64_t i = 0; i < numbers_.size(); ++i)
    if (numbers_[i] != 0 && numbers_[i] != 1) fail_value("boolean labels must be 0 or 1");
}

Dictionary Dictionary::of(LabelKind kind, SharedArray<char> bytes, SharedArray<int64_t> ends,
                          SharedArray<int64_t> numbers) {
  Dictionary dictionary;
  dictionary.kind_ = kind;
  dictionary.bytes_ = std::move(bytes);
  dictionary.ends_ = std::move(ends);
  dictionary.numbers_ = std::move(numbers);
  const bool text = kind == LabelKind::kText;
  const int64_t size = text ? dictionary.ends_.size() : dictionary.numbers_.size();
  if ((text ? dictionary.numbers_.size() : dictionary.ends_.size() + dictionary.bytes_.size()) != 0 ||
      (size == 0) != (kind == LabelKind::kNone) || size > kMostLabels)
    fail_value("labels must be of one kind");
  dictionary.check_labels();
  if (size == 0) return dictionary;
  dictionary.cells_ = std::make_shared<Cells>(size);
  dictionary.cells_->claimed.store(size, std::memory_order_relaxed);
  for (int32_t code = 0; code < static_cast<int32_t>(size); ++code) {
    const bool known = code > 0 && (text ? dictionary.find(dictionary.text(code)) >= 0
                                         : dictionary.find(dictionary.number(code)) >= 0);
    if (known) fail_value("label " + std::to_string(code) + " must be another than those before it");
    dictionary.insert(dictionary.hash_at(code), code);
    dictionary.size_ = code + 1;  // labels from here on are not looked at by find
  }
  return dictionary;
}

int64_t Dictionary::size_bytes() const {
  const int64_t cells = cells_ == nullptr ? 0 : static_cast<int64_t>(cells_->mask + 1) * 8;
  return bytes_.size_bytes() + ends_.size_bytes() + numbers_.size_bytes() + cells;
}

}  // namespace ec::ann
