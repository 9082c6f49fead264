// SPDX-License-Identifier: Apache-2.0
#include "ann/calibrate/samples.h"

#include <cmath>

#include "ann/search/distances.h"
#include "ann/search/prepare.h"

namespace ec::ann {
namespace {

constexpr int64_t kSamples = 640;
constexpr int64_t kDetailed = 160;
// Best codes among which the nearest of all rows are looked for, and in detail those at the least share: so
// many times more until they lie in the first part of them, where codes tell them apart badly.
constexpr int64_t kPool = 64, kDeepPool = 512, kDeepestPool = 1 << 16;
constexpr int64_t kPoolPart = 4;
constexpr float kDeepShare = 0.8f;  // of what their tails may add
constexpr size_t kSeenCodes = 2048;
constexpr int64_t kSetRows = 1 << 14;  // whole words of a set
// Samples that go through the rows together: rows then come from memory once for all of them, and there are
// tasks enough for many threads.
constexpr size_t kTogether = 8;
static_assert(kTogether <= kQueryBlock, "each has a pool");

// A list that keeps so many.
Plan deep_plan(int64_t kept) {
  Plan plan;
  plan.rank = plan.kept = kept;
  plan.tail_share = kDeepShare;
  return plan;
}

}  // namespace

Samples::Samples(const IndexData& index, const float* queries, int64_t count, int threads,
                 const ec_monitor* monitor)
    : index_(index), threads_(threads), monitor_(monitor) {
  queries == nullptr ? choose_rows() : take_queries(queries, count);
  choose_detailed();
  choose_sets();
}

// The rows that pass at each share; nested: what passes at a small one passes at a greater.
void Samples::choose_sets() {
  std::array<uint64_t, kShareCount> limits;
  for (size_t share = 0; share < limits.size(); ++share) {
    limits[share] = static_cast<uint64_t>(static_cast<double>(kShares[share]) * 4294967296.0);
    sets_[share].rows = index_.rows;
    sets_[share].dense = true;
    sets_[share].bits.assign(static_cast<size_t>(word_count(index_.rows)), 0);
  }
  each_of(static_cast<size_t>((index_.rows + kSetRows - 1) / kSetRows), [&](size_t block) {
    const int64_t first = static_cast<int64_t>(block) * kSetRows;
    std::array<int64_t, kShareCount> counts = {};
    for (int64_t i = first; i < std::min(index_.rows, first + kSetRows); ++i) {
      if (!index_.is_alive(i)) continue;
      const uint64_t drawn = scrambled(static_cast<uint64_t>(i) + 1) >> 32;
      for (size_t share = 0; share < limits.size() && drawn < limits[share]; ++share) {
        set_bit(sets_[share].bits.data(), i);
        ++counts[share];
      }
    }
    for (size_t share = 0; share < counts.size(); ++share)
      __atomic_fetch_add(&sets_[share].count, counts[share], __ATOMIC_RELAXED);
  });
}

void Samples::take_queries(const float* queries, int64_t count) {
  const int64_t taken = std::min<int64_t>(count, kSamples);
  for (int64_t i = 0; i < taken; ++i) {
    const float* from = queries + (i * count / taken) * index_.dim;
    samples_.push_back({std::vector<float>(from, from + index_.dim), kNoSlot});
  }
}

// Brings the detailed ones, of every region, to the front.
void Samples::choose_detailed() {
  const size_t count = samples_.size();
  detailed_ = std::min(count, static_cast<size_t>(kDetailed));
  for (size_t i = 0; i < detailed_; ++i) std::swap(samples_[i], samples_[i * count / detailed_]);
}

void Samples::choose_rows() {
  if (!index_.trained()) return;
  const int64_t dim = index_.dim;
  const CodeShape& shape = index_.codec->shape();
  const VectorKernels& vectors = index_.vector_kernels(*ann_raw_kernels(current_isa()));
  const int64_t rows = index_.graph_rows;
  const int64_t taken = std::min(kSamples, rows / 4);
  for (int64_t i = 0; i < taken; ++i) {
    // One of each stretch of slots, so that every region has its share.
    const int64_t first = i * rows / taken, last = (i + 1) * rows / taken;
    const int64_t slot = first + static_cast<int64_t>(scrambled(static_cast<uint64_t>(i) + 77) %
                                                      static_cast<uint64_t>(last - first));
    if (!index_.is_alive(slot)) continue;
    Sample sample;
    sample.vector.resize(static_cast<size_t>(dim));
    sample.left_out = static_cast<uint32_t>(slot);
    if (index_.raw_dropped) {
      index_.codec->decode_row(index_.heads.data() + slot * shape.head_bytes,
                               index_.tails.data() + slot * shape.tail_bytes, sample.vector.data());
    } else {
      vectors.widen(index_.raw.data() + slot * index_.row_bytes(), dim, sample.vector.data());
    }
    samples_.push_back(std::move(sample));
  }
}

void Samples::look() {
  look_into_cells();
  seen_.resize(size());
  each_of((size() + kTogether - 1) / kTogether, [&](size_t group) {
    const size_t first = group * kTogether;
    look_at(first, std::min(kTogether, size() - first));
  });
}

// Which cell each row is in, and how many of a cell pass.
void Samples::look_into_cells() {
  const Cells& cells = *index_.cells;
  const auto count = static_cast<size_t>(cells.cells());
  cell_of_.assign(static_cast<size_t>(index_.rows), 0);
  for (std::vector<int32_t>& rows : cell_rows_) rows.assign(count, 0);
  each_of(count, [&](size_t cell) {
    for (uint32_t i = cells.start[cell]; i < cells.start[cell + 1]; ++i) {
      const uint32_t slot = cells.members[i];
      cell_of_[slot] = static_cast<uint32_t>(cell);
      for (size_t share = 0; share < sets_.size(); ++share)
        cell_rows_[share][cell] += test_bit(sets_[share].bits.data(), slot) ? 1 : 0;
    }
  });
}

// Places in codes, nearest first, and their distances.
std::vector<size_t> Samples::true_order(const float* vector, const std::vector<Candidate>& codes,
                                        std::vector<double>* distances) const {
  std::vector<uint32_t> slots(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) slots[i] = codes[i].slot;
  distances->resize(slots.size());
  if (index_.raw_dropped) {
    code_distances(index_, codes.data(), slots.size(), vector, distances->data());
  } else {
    true_distances(index_, *ann_raw_kernels(current_isa()), slots.data(),
                   static_cast<int64_t>(slots.size()), vector, distances->data());
  }
  std::vector<size_t> order(slots.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return (*distances)[a] < (*distances)[b]; });
  return order;
}

// The true neighbours, found among the best codes, of some samples. Those whose pools are not deep enough
// go through the rows once more.
void Samples::look_at(size_t first, size_t count) {
  Scratch& scratch = Scratch::of_this_thread();
  std::vector<float> vectors;
  std::vector<int64_t> order;
  for (size_t i = 0; i < count; ++i) {
    const std::vector<float>& vector = samples_[first + i].vector;
    vectors.insert(vectors.end(), vector.begin(), vector.end());
    order.push_back(static_cast<int64_t>(i));
  }
  PreparedQueries prepared(index_, vectors.data(), order.data(), static_cast<int64_t>(count), scratch);
  prepared.encode_all();
  const Passing alive(index_.alive.get(), index_.rows);
  std::vector<Query> queries;
  std::vector<int64_t> deep;
  for (size_t i = 0; i < count; ++i) {
    const auto lane = static_cast<int64_t>(i);
    queries.emplace_back(index_, alive, prepared.vector(lane), prepared.code(lane), scratch, lane);
    queries.back().leave_out(samples_[first + i].left_out);
    deep.push_back(first + i < detailed_ ? kDeepPool : kPool);
  }
  std::vector<size_t> left(count);
  for (size_t i = 0; i < count; ++i) left[i] = i;
  while (!left.empty()) {
    for (const size_t i : left) queries[i].start_list(deep_plan(std::min(deep[i], index_.live())));
    alive.for_each_block(0, index_.rows, scratch.slots.data(), kScoreBlock,
                         [&](const uint32_t* slots, int64_t some) {
                           for (const size_t i : left) queries[i].offer_block(slots, some);
                         });
    const auto found = [&](size_t i) {
      const auto lane = static_cast<int64_t>(i);
      return look_at_codes(first + i, deep[i], queries[i].listed(), *prepared.code(lane),
                           prepared.vector(lane), queries[i]);
    };
    left.erase(std::remove_if(left.begin(), left.end(), found), left.end());
    for (const size_t i : left) deep[i] *= kPoolPart;
  }
}

// What the best codes of a sample tell; false where more of them are needed.
bool Samples::look_at_codes(size_t number, int64_t deep, std::vector<Candidate> codes,
                            const QueryCode& code, const float* vector, Query& query) {
  Seen& seen = seen_[number];
  const bool detailed = number < detailed_;
  std::sort(codes.begin(), codes.end(), better);
  std::vector<double> distances;
  const std::vector<size_t> order = true_order(vector, codes, &distances);
  const auto nearest =
      static_cast<std::ptrdiff_t>(std::min(order.size(), static_cast<size_t>(kMeasuredResults)));
  const size_t last = nearest == 0 ? 0 : *std::max_element(order.begin(), order.begin() + nearest);
  if (static_cast<int64_t>(last) * kPoolPart >= deep && deep < std::min(index_.live(), kDeepestPool))
    return false;
  const std::vector<Candidate> cells = query.rank_cells();
  seen.distance = query.distance_of(cells.front());
  if (detailed) note_bars(query, code, vector, codes, order, distances, &seen);
  for (int share = 0; share < (detailed ? kShareCount : 1); ++share) {
    const Passing passing(&sets_[static_cast<size_t>(share)], index_.rows);
    for (const size_t at : order) {
      if (seen.nearest[share].size() == static_cast<size_t>(kMeasuredResults)) break;
      if (passing.has(codes[at].slot)) seen.nearest[share].push_back(codes[at].slot);
    }
    if (!detailed || seen.nearest[share].empty()) continue;
    // What a search has for a bar in the end: of the codes, not of the rows.
    int64_t better_codes = 0;
    float bar = 0.0f;
    for (const Candidate& candidate : codes) {
      if (!passing.has(candidate.slot)) continue;
      bar = candidate.score;
      if (++better_codes == kMeasuredResults) break;
    }
    look_at_cells(share, query, cells, bar, &seen);
  }
  return true;
}

// codes: best first; order: of them, nearest first.
void Samples::note_bars(const Query& query, const QueryCode& code, const float* vector,
                        const std::vector<Candidate>& codes, const std::vector<size_t>& order,
                        const std::vector<double>& distances, Seen* seen) const {
  const size_t count = std::min(order.size(), static_cast<size_t>(kMeasuredResults));
  if (count == 0) return;
  const float code_bar = codes[count - 1].score;
  const float true_bar = score_of_distance(index_, code, vector, distances[order[count - 1]]);
  const float length = std::sqrt(code.square);
  seen->length = length;
  const auto look = [&](const Candidate& candidate) {
    const RowFactors& row = query.factors(candidate.slot);
    const float unit = row.head_scale * length;
    return SeenCode{code_bar - query.head_score(candidate.slot), code.tail_norm * row.tail_norm,
                    unit > 0.0f ? (true_bar - candidate.score) / unit : 0.0f};
  };
  for (size_t rank = 0; rank < count; ++rank) {
    const Candidate& candidate = codes[order[rank]];
    const SeenCode found = look(candidate);
    // Of a neighbour whose code falls behind the bar, the bar's margin makes up for that.
    const float behind = std::max(0.0f, code_bar - candidate.score);
    const float missing = found.missing - behind;
    const float unit = query.factors(candidate.slot).head_scale * length;
    seen->tail_share.push_back(found.most > 0.0f ? missing / found.most : missing <= 0.0f ? -1.0f : 1.0f);
    seen->code_error.push_back(found.error);
    // What noise alone may do, wherever other rows are as near: it is the same for all queries.
    const float noise = score_of_distance(index_, code, vector, distances[order[rank]]) - candidate.score;
    seen->code_margin.push_back(unit > 0.0f ? std::max(behind, noise) / unit : 0.0f);
  }
  for (size_t i = 0; i < std::min(codes.size(), kSeenCodes); ++i) seen->codes.push_back(look(codes[i]));
}

// What finds the cells of the neighbours at a share, whose codes set this bar.
void Samples::look_at_cells(int share, const Query& query, const std::vector<Candidate>& cells, float bar,
                            Seen* seen) const {
  std::vector<float> reach_of(cells.size());
  for (const Candidate& cell : cells) {
    reach_of[cell.slot] = query.reach_to(cell, bar);
    seen->rows[share].push_back({reach_of[cell.slot], cell_rows_[share][cell.slot]});
  }
  for (const uint32_t slot : seen->nearest[share]) {
    if (slot < index_.graph_rows) seen->cell_reach[share].push_back(reach_of[cell_of_[slot]]);
  }
}

}  // namespace ec::ann
