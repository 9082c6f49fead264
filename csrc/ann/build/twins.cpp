// SPDX-License-Identifier: Apache-2.0
#include "ann/build/twins.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"

namespace ec {
namespace ann {

namespace {

constexpr int64_t kRowsOfTask = 1024;

// Lines are mixed one by one, eight independent words at a time.
uint64_t hash_bytes(const uint8_t* bytes, int64_t count, uint64_t hash) {
  for (int64_t k = 0; k < count; k += 64) {
    uint64_t words[8];
    std::memcpy(words, bytes + k, sizeof(words));
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 8; ++i) {
      const uint64_t mixed = (words[i] + i + 1) * (0x9e3779b97f4a7c15u + 2 * i);
      sum += mixed ^ (mixed >> 31);
    }
    hash = (hash ^ sum) * 0xd6e8feb86659fd93u;
    hash ^= hash >> 32;
  }
  return hash;
}

// A row's scales to one part in 4096: what lies that near is as good as equal.
struct RoundedScales {
  uint32_t head, tail;
};
RoundedScales rounded_scales(const uint8_t* head, const CodeShape& shape) {
  const RowFactors& factors = factors_of(head, shape);
  RoundedScales scales;
  std::memcpy(&scales.head, &factors.head_scale, sizeof(scales.head));
  std::memcpy(&scales.tail, &factors.tail_scale, sizeof(scales.tail));
  scales.head = (scales.head + (1u << 10)) >> 11;
  scales.tail = shape.tail_bytes > 0 ? (scales.tail + (1u << 10)) >> 11 : 0;
  return scales;
}

uint64_t hash_row(const CodedRows& rows, int64_t row) {
  const CodeShape& shape = rows.shape;
  const uint8_t* head = rows.heads + row * shape.head_bytes;
  uint64_t hash = hash_bytes(head, shape.head_bytes - 64, 1);
  uint8_t last[64] = {};  // with the scales in the place of the factors
  const RoundedScales scales = rounded_scales(head, shape);
  std::memcpy(last, head + shape.head_bytes - 64, 64 - kFactorBytes);
  std::memcpy(last + 64 - kFactorBytes, &scales, sizeof(scales));
  hash = hash_bytes(last, 64, hash);
  if (shape.tail_bytes > 0) hash = hash_bytes(rows.tails + row * shape.tail_bytes, shape.tail_bytes, hash);
  return hash;
}

bool equal_rows(const CodedRows& rows, int64_t a, int64_t b) {
  const CodeShape& shape = rows.shape;
  const uint8_t *one = rows.heads + a * shape.head_bytes, *other = rows.heads + b * shape.head_bytes;
  const RoundedScales scales = rounded_scales(one, shape), others = rounded_scales(other, shape);
  if (scales.head != others.head || scales.tail != others.tail) return false;
  if (std::memcmp(one, other, static_cast<size_t>(shape.head_numbers())) != 0) return false;
  return shape.tail_bytes == 0 ||
         std::memcmp(rows.tails + a * shape.tail_bytes, rows.tails + b * shape.tail_bytes,
                     static_cast<size_t>(shape.tail_bytes)) == 0;
}

struct Hashed {
  uint64_t hash;
  uint32_t slot;
};

// Which hashes there may be more than one row of: of most rows there is not, and they need no order.
class Seen {
 public:
  explicit Seen(int64_t rows) {
    size_t places = 64;
    while (places < kPlaces * static_cast<size_t>(rows)) places *= 2;
    marks_.assign(places, 0);
  }
  void note(uint64_t hash) {
    uint8_t* mark = &marks_[place(hash)];
    if (__atomic_fetch_or(mark, kOnce, __ATOMIC_RELAXED) != 0)
      __atomic_fetch_or(mark, kAgain, __ATOMIC_RELAXED);
  }
  bool once(uint64_t hash) const { return marks_[place(hash)] == kOnce; }

 private:
  static constexpr uint8_t kOnce = 1, kAgain = 2;
  static constexpr size_t kPlaces = 8;  // of a row, at least
  size_t place(uint64_t hash) const { return (hash >> 16) & (marks_.size() - 1); }

  std::vector<uint8_t> marks_;
};

// Rows that may have the hash of another, ascending.
ec_status rows_seen_again(const CodedRows& rows, const BuildOptions& options, std::vector<Hashed>* found) {
  std::vector<Hashed> hashed(rows.rows);
  Seen seen(rows.rows);
  const int64_t tasks = (rows.rows + kRowsOfTask - 1) / kRowsOfTask;
  const auto each_task = [&](const auto& body) {
    return parallel_for(tasks, options.threads, options.monitor, [&](int64_t task, int /*worker*/) {
      body(task, task * kRowsOfTask, std::min(rows.rows, (task + 1) * kRowsOfTask));
    });
  };
  ec_status status = each_task([&](int64_t /*task*/, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      hashed[i] = {hash_row(rows, i), static_cast<uint32_t>(i)};
      seen.note(hashed[i].hash);
    }
  });
  if (status != EC_OK) return status;
  std::vector<int64_t> kept(tasks);  // at the front of each task's
  status = each_task([&](int64_t task, int64_t first, int64_t last) {
    Hashed* const begin = hashed.data() + first;
    kept[task] = std::remove_if(begin, hashed.data() + last,
                                [&](const Hashed& row) { return seen.once(row.hash); }) -
                 begin;
  });
  for (int64_t task = 0; task < tasks; ++task) {
    const Hashed* begin = hashed.data() + task * kRowsOfTask;
    found->insert(found->end(), begin, begin + kept[task]);
  }
  return status;
}

}  // namespace

ec_status find_twins(const CodedRows& rows, const BuildOptions& options, Twins* twins) {
  std::vector<Hashed> hashed;
  const ec_status status = rows_seen_again(rows, options, &hashed);
  if (status != EC_OK) return status;
  std::sort(hashed.begin(), hashed.end(), [](const Hashed& a, const Hashed& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.slot < b.slot;
  });
  twins->role.assign(rows.rows, TwinRole::kNone);
  twins->members.clear();
  twins->start.assign(1, 0);
  for (size_t first = 0, last; first < hashed.size(); first = last) {
    const uint32_t slot = hashed[first].slot;
    const size_t before = twins->members.size();
    twins->members.push_back(slot);
    for (last = first + 1; last < hashed.size() && hashed[last].hash == hashed[first].hash; ++last) {
      if (!equal_rows(rows, slot, hashed[last].slot)) continue;  // of equal hash alone: on its own
      twins->role[hashed[last].slot] = TwinRole::kTwin;
      twins->members.push_back(hashed[last].slot);
    }
    if (twins->members.size() == before + 1) {
      twins->members.pop_back();
    } else {
      twins->role[slot] = TwinRole::kFirst;
      twins->start.push_back(static_cast<uint32_t>(twins->members.size()));
    }
  }
  return EC_OK;
}

void link_twins(const Twins& twins, int64_t degree, uint32_t* links) {
  std::vector<uint32_t> near;  // what the first row is linked to, twins apart
  for (size_t g = 0; g + 1 < twins.start.size(); ++g) {
    const uint32_t* members = twins.members.data() + twins.start[g];
    const int64_t count = twins.start[g + 1] - twins.start[g];
    near.clear();
    const uint32_t* first = links + static_cast<int64_t>(members[0]) * degree;
    for (int64_t f = 0; f < degree && first[f] != kNoSlot; ++f) {
      if (twins.role[first[f]] != TwinRole::kTwin) near.push_back(first[f]);
    }
    for (int64_t j = 0; j < count; ++j) {
      uint32_t* own = links + static_cast<int64_t>(members[j]) * degree;
      int64_t used = 0;
      if (j > 0) own[used++] = members[(j - 1) / kTwinLinks];
      for (int64_t child = kTwinLinks * j + 1; child <= kTwinLinks * (j + 1) && child < count; ++child) {
        own[used++] = members[child];
      }
      for (size_t f = 0; f < near.size() && used < degree; ++f) own[used++] = near[f];
      std::fill(own + used, own + degree, kNoSlot);
    }
  }
}

}  // namespace ann
}  // namespace ec
