// SPDX-License-Identifier: Apache-2.0
#include "ann/build/code_blocks.h"

#include <cstring>

namespace ec {
namespace ann {

bool LeftBlock::allocate(int64_t capacity, const CodeShape& shape) {
  capacity_ = capacity;
  head_bytes_ = shape.head_bytes;
  tail_bytes_ = shape.tail_bytes;
  return bytes_.allocate(capacity * (head_bytes_ + tail_bytes_)) && factors_.allocate(5 * capacity);
}

void LeftBlock::load(const CodedRows& rows, const uint32_t* slots, int64_t count,
                     const GraphKernels& kernels) {
  float* factors = factors_.data();
  const int64_t numbers = rows.shape.head_numbers();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t slot = slots[i];
    const uint8_t* head = rows.heads + slot * head_bytes_;
    int8_t* bytes = bytes_.data() + i * (head_bytes_ + tail_bytes_);
    const RowFactors& row = factors_of(head, rows.shape);
    factors[i] = row.head_scale;
    factors[capacity_ + i] = 128.0f * static_cast<float>(kernels.make_signed(head, numbers, bytes));
    std::memset(bytes + numbers, 0, kFactorBytes);
    factors[2 * capacity_ + i] = row.tail_scale;
    factors[3 * capacity_ + i] = 0.0f;
    factors[4 * capacity_ + i] = rows.norms[slot];
    if (tail_bytes_ > 0) {
      const uint8_t* tail = rows.tails + slot * tail_bytes_;
      factors[3 * capacity_ + i] =
          128.0f * static_cast<float>(kernels.make_signed(tail, tail_bytes_, bytes + head_bytes_));
    }
  }
}

LeftCodes LeftBlock::codes() const {
  const float* factors = factors_.data();
  return {bytes_.data(),
          head_bytes_,
          tail_bytes_,
          factors,
          factors + capacity_,
          factors + 2 * capacity_,
          factors + 3 * capacity_,
          factors + 4 * capacity_};
}

bool RightBlock::allocate(int64_t capacity) {
  capacity_ = round_up(capacity, kColumnStep);
  return pointers_.allocate(2 * capacity_) && factors_.allocate(3 * capacity_);
}

void RightBlock::load(const CodedRows& rows, const uint32_t* slots, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t slot = slots[i];
    const uint8_t* head = rows.heads + slot * rows.shape.head_bytes;
    const RowFactors& row = factors_of(head, rows.shape);
    pointers_[i] = head;
    pointers_[capacity_ + i] = rows.tails == nullptr ? nullptr : rows.tails + slot * rows.shape.tail_bytes;
    factors_[i] = row.head_scale;
    factors_[capacity_ + i] = row.tail_scale;
    factors_[2 * capacity_ + i] = rows.norms[slot];
  }
  pad(count);
}

void RightBlock::move(int64_t from, int64_t to) {
  pointers_[to] = pointers_[from];
  pointers_[capacity_ + to] = pointers_[capacity_ + from];
  factors_[to] = factors_[from];
  factors_[capacity_ + to] = factors_[capacity_ + from];
  factors_[2 * capacity_ + to] = factors_[2 * capacity_ + from];
}

void RightBlock::pad(int64_t count) {
  if (count == 0) return;
  for (int64_t i = count; i < round_up(count, kColumnStep); ++i) move(count - 1, i);
}

RightCodes RightBlock::codes(int64_t first) const {
  const float* factors = factors_.data() + first;
  return {pointers_.data() + first, pointers_.data() + capacity_ + first, factors, factors + capacity_,
          factors + 2 * capacity_};
}

}  // namespace ann
}  // namespace ec
