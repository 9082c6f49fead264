// SPDX-License-Identifier: Apache-2.0
// Versions of the vectors: rows added and removed.
#include "ann/vectors.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "ann/encode_all.h"
#include "core/parallel.h"

namespace ec::ann {
namespace {

constexpr double kMostSquare = 1e30;  // squares of distances stay far from the end of float32
// Under the cosine: of rows that are shorter, products with unit queries would lose digits.
constexpr double kLeastSquare = 1e-60;
constexpr int64_t kNoRow = std::numeric_limits<int64_t>::max();

void keep_least(std::atomic<int64_t>& least, int64_t row) {
  int64_t seen = least;
  while (row < seen && !least.compare_exchange_weak(seen, row)) {
  }
}

struct RowFaults {
  std::atomic<int64_t> not_finite{kNoRow};
  std::atomic<int64_t> too_long{kNoRow};
  std::atomic<int64_t> zero{kNoRow};
  std::atomic<int64_t> too_short{kNoRow};
};

// Copies rows [first, last), notes faults, writes inverse norms where they are wanted.
void take_rows(const IndexData& index, const void* rows, int64_t stride_bytes, int64_t first, int64_t last,
               unsigned char* to, float* inverse_norms, RowFaults& faults) {
  const VectorKernels& vectors = index.vector_kernels(*ann_raw_kernels(current_isa()));
  std::vector<float> wide(static_cast<size_t>(index.dim));
  for (int64_t i = first; i < last; ++i) {
    const char* from = static_cast<const char*>(rows) + i * stride_bytes;
    std::memcpy(to + i * index.row_bytes(), from, static_cast<size_t>(index.row_bytes()));
    vectors.widen(from, index.dim, wide.data());
    double square = 0.0;
    for (const float number : wide) square += static_cast<double>(number) * number;
    if (!std::isfinite(square)) keep_least(faults.not_finite, i);
    if (square > kMostSquare) keep_least(faults.too_long, i);
    if (index.metric != Metric::kCosine) continue;
    if (square < kLeastSquare) keep_least(square == 0.0 ? faults.zero : faults.too_short, i);
    inverse_norms[i] = square > 0.0 ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
  }
}

void raise_faults(const RowFaults& faults) {
  const int64_t row = std::min(
      {faults.not_finite.load(), faults.too_long.load(), faults.zero.load(), faults.too_short.load()});
  if (row == kNoRow) return;
  const char* what = row == faults.not_finite ? " holds NaN or an infinite number"
                     : row == faults.too_long ? " is longer than 1e15"
                     : row == faults.zero     ? " is zero, which has no direction for metric 'cosine'"
                                              : " is shorter than 1e-30, too short for metric 'cosine'";
  throw std::invalid_argument("row " + std::to_string(row) + what);
}

std::shared_ptr<const AllowedSet> alive_after_growth(const std::shared_ptr<const AllowedSet>& alive,
                                                     int64_t old_rows, int64_t rows) {
  if (alive == nullptr) return nullptr;
  auto grown = std::make_shared<AllowedSet>(*alive);
  grown->rows = rows;
  grown->count += rows - old_rows;
  grown->bits.resize(static_cast<size_t>(word_count(rows)), 0);
  for (int64_t i = old_rows; i < rows; ++i)
    grown->bits[static_cast<size_t>(i >> 6)] |= uint64_t{1} << (i & 63);
  return grown;
}

constexpr int64_t kTakeBlock = 256;

}  // namespace

Vectors::Vectors(int64_t dim, Metric metric, VectorDtype dtype) {
  auto data = std::make_shared<IndexData>();
  data->dim = dim;
  data->metric = metric;
  data->dtype = dtype;
  data_ = std::move(data);
}

Vectors Vectors::append(const void* rows, int64_t count, int64_t stride_bytes, int threads) const {
  auto next = std::make_shared<IndexData>(*data_);
  IndexData& index = *next;
  const int64_t old_rows = index.rows;
  if (count > static_cast<int64_t>(kNoSlot) - old_rows) {
    throw std::invalid_argument("an index holds at most 4294967294 rows");
  }
  unsigned char* raw = nullptr;
  AlignedBuffer<unsigned char> passing_by;  // the rows of an index that keeps none
  float* inverse_norms = nullptr;
  if (index.raw_dropped) {
    if (!passing_by.allocate(count * index.row_bytes())) throw std::bad_alloc();
    raw = passing_by.data();
  } else {
    index.raw = index.raw.extended(count * index.row_bytes(), &raw);
  }
  if (index.metric == Metric::kCosine)
    index.inverse_norms = index.inverse_norms.extended(count, &inverse_norms);
  RowFaults faults;
  std::atomic<bool> out_of_memory{false};
  const int64_t blocks = (count + kTakeBlock - 1) / kTakeBlock;
  parallel_for(blocks, threads, nullptr, [&](int64_t block, int) {
    try {
      const int64_t first = block * kTakeBlock;
      take_rows(index, rows, stride_bytes, first, std::min(first + kTakeBlock, count), raw, inverse_norms,
                faults);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
  raise_faults(faults);
  if (index.trained()) {
    const CodeShape& shape = index.codec->shape();
    uint8_t *heads = nullptr, *tails = nullptr;
    index.heads = index.heads.extended(count * shape.head_bytes, &heads);
    index.tails = index.tails.extended(count * shape.tail_bytes, &tails);
    encode_all(index, raw, count, threads, heads, tails, nullptr);
  }
  index.rows += count;
  index.alive = alive_after_growth(index.alive, old_rows, index.rows);
  return Vectors(std::move(next));
}

Vectors Vectors::remove(const int64_t* slots, int64_t count) const {
  auto next = std::make_shared<IndexData>(*data_);
  auto alive = std::make_shared<AllowedSet>();
  if (next->alive != nullptr) {
    *alive = *next->alive;
  } else {
    alive->rows = alive->count = next->rows;
    alive->dense = true;
    alive->bits.assign(static_cast<size_t>(word_count(next->rows)), ~uint64_t{0});
    if (next->rows % 64 != 0) alive->bits.back() = (uint64_t{1} << (next->rows % 64)) - 1;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t slot = slots[i];
    if (slot < 0 || slot >= next->rows)
      throw std::invalid_argument("slot " + std::to_string(slot) + " is not there");
    uint64_t& word = alive->bits[static_cast<size_t>(slot >> 6)];
    const uint64_t bit = uint64_t{1} << (slot & 63);
    alive->count -= (word & bit) != 0 ? 1 : 0;
    word &= ~bit;
  }
  next->alive = alive->count == next->rows ? nullptr : alive;
  return Vectors(std::move(next));
}

Vectors Vectors::drop_raw() const {
  if (!data_->trained()) throw std::invalid_argument("an index without codes needs its vectors");
  auto next = std::make_shared<IndexData>(*data_);
  next->raw = {};
  next->raw_dropped = true;
  return Vectors(std::move(next));
}

}  // namespace ec::ann
