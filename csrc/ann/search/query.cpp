// SPDX-License-Identifier: Apache-2.0
// Plans without the graph: exact, list and cells; and what all plans end with.
#include "ann/search/query.h"

#include <algorithm>
#include <cmath>

#include "ann/search/distances.h"
#include "core/isa_table.h"

EC_IMPORT_TABLES(AnnKernels, ann)
EC_IMPORT_TABLES(AnnRawKernels, ann_raw)

namespace ec::ann {

Query::Query(const IndexData& index, Passing passing, const float* vector, const QueryCode* code,
             Scratch& scratch, int64_t lane)
    : index_(index),
      passing_(passing),
      vector_(vector),
      code_(code),
      scratch_(scratch),
      pool_(scratch.pools[static_cast<size_t>(lane)]),
      kernels_(*ann_kernels(current_isa())),
      raw_kernels_(*ann_raw_kernels(current_isa())) {
  scratch_.slots.resize(2 * kScoreBlock);
  scratch_.scores.resize(2 * kScoreBlock);
  scratch_.found.clear();
}

void Query::run(const Plan& plan, int64_t k) {
  switch (plan.kind) {
    case PlanKind::kEmpty:
      return;
    case PlanKind::kExact:
      return exact(std::min(k, plan.passing));
    case PlanKind::kGraph:
      if (walk_graph(plan)) return rescore(pool_.items(), k, plan.code_error);
      work_.gave_up = true;
      [[fallthrough]];
    case PlanKind::kList:
      start_list(plan);
      passing_.for_each_block(0, index_.rows, scratch_.slots.data(), kScoreBlock,
                              [&](const uint32_t* slots, int64_t count) { offer_block(slots, count); });
      return finish_list(plan, k);
    case PlanKind::kCells:
      return rescore(best_of_cells(plan, plan.rank), k, plan.code_error);
  }
}

void Query::start_list(const Plan& plan) {
  reach_ = plan.tail_share * code_->tail_norm;
  pool_.reset(plan.kept, plan.rank, plan.code_margin * std::sqrt(code_->square));
}

void Query::finish_list(const Plan& plan, int64_t k) { rescore(pool_.items(), k, plan.code_error); }

std::vector<Candidate>& Query::best_of_list(const Plan& plan) {
  start_list(plan);
  passing_.for_each_block(0, index_.rows, scratch_.slots.data(), kScoreBlock,
                          [&](const uint32_t* slots, int64_t count) { offer_block(slots, count); });
  return pool_.items();
}

std::vector<Candidate>& Query::best_of_cells(const Plan& plan, int64_t rows) {
  start_list(plan);
  std::vector<Candidate>& cells = rank_cells();
  for (Candidate& cell : cells) cell.score = nearest_in(cell, plan.cell_reach);
  std::make_heap(cells.begin(), cells.end(), worse);
  collect_cells(rows, true, 0);
  return pool_.items();
}

// Scores rows by their heads and what their tails may add, then by whole codes those that reach the bar.
void Query::offer_block(const uint32_t* slots, int64_t count) {
  static_assert(kScoreBlock % kScoresWritten == 0, "scores are read as far as they are written");
  float* scores = scratch_.scores.data();
  kernels_.score_listed(index_.heads.data(), index_.codec->shape().head_bytes, slots, count, *code_, reach_,
                        scores);
  work_.heads_scored += count;
  std::vector<Candidate>& promising = scratch_.promising;
  promising.clear();
  const float bar = pool_.bar();
  for (int64_t first = 0; first < count; first += kScoresWritten) {
    int any = 0;
    for (int64_t i = first; i < first + kScoresWritten; ++i) any |= scores[i] > bar ? 1 : 0;
    if (any == 0) continue;
    for (int64_t i = first; i < std::min(first + kScoresWritten, count); ++i) {
      if (scores[i] > bar && slots[i] != left_out_) promising.push_back({scores[i], slots[i]});
    }
  }
  // The best of many raise the bar for the others; more of them each time, because what few do not thin out
  // (rows that are all about as far) many do not either.
  auto best = static_cast<std::ptrdiff_t>(pool_.rank());
  for (; static_cast<std::ptrdiff_t>(promising.size()) > 2 * best; best *= 2) {
    std::nth_element(promising.begin(), promising.begin() + best, promising.end(), better);
    offer_codes(promising.data(), static_cast<size_t>(best));
    const float raised = pool_.bar();
    promising.erase(std::remove_if(promising.begin() + best, promising.end(),
                                   [=](const Candidate& each) { return each.score <= raised; }),
                    promising.end());
    promising.erase(promising.begin(), promising.begin() + best);
  }
  if (!promising.empty()) offer_codes(promising.data(), promising.size());
}

void Query::offer_codes(Candidate* promising, size_t count) {
  complete(promising, count);
  for (size_t i = 0; i < count; ++i) pool_.offer(promising[i].score, promising[i].slot);
}

// ---- cells ----------------------------------------------------------------------------------------

std::vector<Candidate>& Query::rank_cells() {
  if (cells_ranked_) return scratch_.cell_order;
  cells_ranked_ = true;
  const Cells& cells = *index_.cells;
  const int64_t count = cells.cells();
  const CodeShape& shape = index_.codec->shape();
  const bool inner_product = index_.metric == Metric::kInnerProduct;
  scratch_.cell_order.resize(static_cast<size_t>(count));
  for (int64_t first = 0; first < count; first += kScoreBlock) {
    const int64_t here = std::min(kScoreBlock, count - first);
    kernels_.score_range(cells.centroids.data(), shape.head_bytes, first, here, *code_, 0.0f,
                         scratch_.scores.data());
    for (int64_t i = 0; i < here; ++i) {
      const auto cell = static_cast<uint32_t>(first + i);
      float score = scratch_.scores[static_cast<size_t>(i)];
      if (inner_product)
        score -= factors_of(cells.centroids.data() + cell * shape.head_bytes, shape).offset;
      scratch_.cell_order[cell] = {score, cell};
    }
  }
  work_.cells_ranked = count;
  // Cells are taken off, nearest first, as far as a plan goes.
  std::make_heap(scratch_.cell_order.begin(), scratch_.cell_order.end(), worse);
  return scratch_.cell_order;
}

// A row x of a cell with centroid c and radius r scores, with e a unit vector from c to x,
// (x - mean) . q = score(c) + r e . q for ip, and (x - mean) . q - |x - mean|^2 / 2 = score(c) + r e . (q -
// c) - r^2 / 2 else.
struct Query::CellView {
  float radius, length, offset;
};

// What a row at the radius may score above its centroid, and what codes may be wrong by: else no reach
// would make up for that, where rows are nearer than codes tell.
float Query::most_above(const CellView& cell) const {
  return cell.radius * cell.length + index_.costs.head_scale * std::sqrt(code_->square);
}

Query::CellView Query::view(const Candidate& cell) const {
  const CodeShape& shape = index_.codec->shape();
  const float radius =
      factors_of(index_.cells->centroids.data() + cell.slot * shape.head_bytes, shape).tail_norm;
  if (index_.metric == Metric::kInnerProduct) return {radius, std::sqrt(code_->square), 0.0f};
  return {radius, std::sqrt(std::max(0.0f, code_->square - 2.0f * cell.score)), -0.5f * radius * radius};
}

float Query::nearest_in(const Candidate& cell, float cell_reach) const {
  const CellView seen = view(cell);
  return cell.score + cell_reach * most_above(seen) + seen.offset;
}

float Query::reach_to(const Candidate& cell, float bar) const {
  const CellView seen = view(cell);
  const float most = most_above(seen), missing = bar - cell.score - seen.offset;
  return most > 0.0f ? missing / most : missing > 0.0f ? 1.0f : -1.0f;
}

constexpr float kTightCell = 0.1f;

float Query::distance_of(const Candidate& cell) const {
  const CellView seen = view(cell);
  const float usual_length = std::sqrt(index_.costs.row_square);
  if (index_.metric == Metric::kInnerProduct) {
    // Of directions: the length of a query changes nothing.
    const float most = std::max(std::sqrt(code_->square) * usual_length, 1e-30f);
    return std::sqrt(std::max(0.0f, 2.0f - 2.0f * cell.score / most));
  }
  // Rows in a tight cell do not make everything else unusual.
  return seen.length / std::max({seen.radius, kTightCell * usual_length, 1e-15f});
}

bool Query::usual() {
  const std::vector<Candidate>& cells = rank_cells();
  return cells.empty() || distance_of(cells.front()) <= index_.costs.usual_distance;
}

float Query::local_share() {
  const Cells& cells = *index_.cells;
  std::vector<Candidate> order = rank_cells();
  const int64_t enough = std::min<int64_t>(index_.graph_rows, 1024);
  int64_t seen = 0, pass = 0;
  while (seen < enough && !order.empty()) {
    std::pop_heap(order.begin(), order.end(), worse);
    const uint32_t cell = order.back().slot;
    order.pop_back();
    for (uint32_t i = cells.start[cell]; i < cells.start[cell + 1]; ++i) {
      pass += passing_.has(cells.members[i]) ? 1 : 0;
    }
    seen += cells.start[cell + 1] - cells.start[cell];
  }
  return static_cast<float>(pass) / static_cast<float>(std::max<int64_t>(seen, 1));
}

// The square of the distance at which rows score so. Scores fall by half of it; for ip, distances are those
// to rows of the usual length.
float Query::square_at(float score) const {
  const float rows = index_.metric == Metric::kInnerProduct ? index_.costs.row_square : 0.0f;
  return std::max(0.0f, code_->square + rows - 2.0f * score);
}

// The score of what is (1 + slack) times as far as a score of `bar`.
float Query::beyond(float bar, float slack) const {
  return bar - 0.5f * ((1.0f + slack) * (1.0f + slack) - 1.0f) * square_at(bar);
}

constexpr float kLeastSlack = 1e-4f;  // with which what scores like the bar itself is not passed over

// The slack above which `score` is not beyond a score of `bar`.
float Query::slack_to(float score, float bar) const {
  if (score > bar) return 0.0f;
  const float square = square_at(bar);
  const float slack = square > 0.0f ? std::sqrt(1.0f + 2.0f * (bar - score) / square) - 1.0f : INFINITY;
  return std::max(slack, kLeastSlack);
}

constexpr int64_t kGlance = 8;             // rows of a cell that is only glanced at
constexpr int64_t kRowsBetweenLooks = 64;  // rows scored before a look at what they changed

// Scores the passing rows of cells in their order: until there are `wanted_rows`; with `further` also of
// all cells whose score reaches the bar. Then a few rows each of `glances` more.
void Query::collect_cells(int64_t wanted_rows, bool further, int glances) {
  const Cells& cells = *index_.cells;
  std::vector<Candidate>& order = rank_cells();
  int64_t scored = 0, count = 0;
  const auto flush = [&] {
    if (count > 0) offer_block(scratch_.slots.data(), count);
    scored += count;
    count = 0;
  };
  while (!order.empty()) {
    if (scored + count >= wanted_rows) {
      if (count >= kRowsBetweenLooks || scored < wanted_rows) flush();
      if (!further || order.front().score < pool_.best()) break;
    }
    std::pop_heap(order.begin(), order.end(), worse);
    const uint32_t cell = order.back().slot;
    order.pop_back();
    for (uint32_t i = cells.start[cell]; i < cells.start[cell + 1]; ++i) {
      const uint32_t slot = cells.members[i];
      scratch_.slots[static_cast<size_t>(count)] = slot;
      count += passing_.has(slot) ? 1 : 0;
      if (count == kScoreBlock) flush();
    }
  }
  for (int glanced = 0; glanced < glances && !order.empty(); ++glanced) {
    std::pop_heap(order.begin(), order.end(), worse);
    const uint32_t cell = order.back().slot;
    order.pop_back();
    int64_t taken = 0;
    for (uint32_t i = cells.start[cell]; i < cells.start[cell + 1] && taken < kGlance; ++i) {
      const uint32_t slot = cells.members[i];
      if (!passing_.has(slot)) continue;
      scratch_.slots[static_cast<size_t>(count++)] = slot;
      ++taken;
      if (count == kScoreBlock) flush();
    }
  }
  flush();
  if (index_.graph_rows < index_.rows) {
    passing_.for_each_block(index_.graph_rows, index_.rows, scratch_.slots.data(), kScoreBlock,
                            [&](const uint32_t* slots, int64_t some) { offer_block(slots, some); });
  }
}

// ---- what plans end with --------------------------------------------------------------------------

const RowFactors& Query::factors(uint32_t slot) const {
  const CodeShape& shape = index_.codec->shape();
  return factors_of(index_.heads.data() + slot * shape.head_bytes, shape);
}

float Query::head_score(uint32_t slot) const {
  const int64_t head_bytes = index_.codec->shape().head_bytes;
  float scores[kScoresWritten];
  kernels_.score_range(index_.heads.data(), head_bytes, slot, 1, *code_, 0.0f, scores);
  return scores[0];
}

// From scores that tails may reach to those that they do reach.
void Query::complete(Candidate* candidates, size_t count) {
  const CodeShape& shape = index_.codec->shape();
  if (shape.tail_bytes == 0) return;
  constexpr size_t kTogether = kScoresWritten;
  const auto fetch = [&](size_t first) {
    for (size_t i = first; i < std::min(count, first + kTogether); ++i) {
      const uint8_t* tail = index_.tails.data() + candidates[i].slot * shape.tail_bytes;
      for (int64_t at = 0; at < shape.tail_bytes; at += 64) __builtin_prefetch(tail + at);
    }
  };
  fetch(0);
  for (size_t first = 0; first < count; first += kTogether) {
    fetch(first + kTogether);
    const size_t some = std::min(kTogether, count - first);
    uint32_t slots[kTogether];
    float scores[kTogether] = {};
    for (size_t i = 0; i < some; ++i) {
      slots[i] = candidates[first + i].slot;
      scores[i] = candidates[first + i].score;
    }
    kernels_.add_tails(index_.heads.data(), shape.head_bytes, index_.tails.data(), shape.tail_bytes, slots,
                       static_cast<int64_t>(some), *code_, reach_, scores);
    for (size_t i = 0; i < some; ++i) candidates[first + i].score = scores[i];
  }
  work_.tails_added += static_cast<int64_t>(count);
}

// The pool keeps float32 distances: so many rows more than asked for are kept, and ordered in float64.
constexpr int64_t kSpareForRounding = 8;

void Query::exact(int64_t k) {
  if (passing_.count() <= kScoreBlock) {
    scratch_.chosen.clear();
    passing_.for_each_block(0, index_.rows, scratch_.slots.data(), kScoreBlock,
                            [&](const uint32_t* slots, int64_t count) { measure(slots, count); });
    return keep_nearest(k);
  }
  pool_.reset(k + kSpareForRounding, k + kSpareForRounding, 0.0f);
  passing_.for_each_block(0, index_.rows, scratch_.slots.data(), kScoreBlock,
                          [&](const uint32_t* slots, int64_t count) {
                            scratch_.chosen.clear();
                            measure(slots, count);
                            for (const Measured& row : scratch_.chosen) {
                              pool_.offer(-static_cast<float>(row.distance), row.slot);
                            }
                          });
  scratch_.chosen.clear();
  const std::vector<Candidate>& best = pool_.items();
  measure(best.data(), best.size());
  work_.rescored = passing_.count();  // the best have been measured once more
  keep_nearest(k);
}

// Rows chosen by their codes, measured: the k best, then those that rounding may have put behind them.
void Query::rescore(std::vector<Candidate>& candidates, int64_t k, float code_error) {
  scratch_.chosen.clear();
  const size_t count = candidates.size(), first = std::min(count, static_cast<size_t>(k));
  if (index_.raw_dropped) {
    scratch_.distances.resize(count);
    code_distances(index_, candidates.data(), count, vector_, scratch_.distances.data());
    for (size_t i = 0; i < count; ++i)
      scratch_.chosen.push_back({scratch_.distances[i], candidates[i].slot});
    work_.rescored += static_cast<int64_t>(count);
    return keep_nearest(k);
  }
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(first),
                   candidates.end(), better);
  measure(candidates.data(), first);
  double farthest = 0.0;
  for (size_t i = 0; i < scratch_.chosen.size(); ++i) {
    farthest = i == 0 ? scratch_.chosen[i].distance : std::max(farthest, scratch_.chosen[i].distance);
  }
  const float bar = score_of_distance(index_, *code_, vector_, farthest);
  const float error = code_error * std::sqrt(code_->square);
  const auto others = candidates.begin() + static_cast<std::ptrdiff_t>(first);
  const auto end = std::remove_if(others, candidates.end(), [&](const Candidate& other) {
    return other.score + error * factors(other.slot).head_scale < bar;
  });
  measure(candidates.data() + first, static_cast<size_t>(end - others));
  keep_nearest(k);
}

void Query::measure(const Candidate* candidates, size_t count) {
  std::vector<uint32_t>& slots = scratch_.slots;
  slots.resize(std::max(slots.size(), count));
  for (size_t i = 0; i < count; ++i) slots[i] = candidates[i].slot;
  measure(slots.data(), static_cast<int64_t>(count));
}

void Query::measure(const uint32_t* slots, int64_t count) {
  scratch_.distances.resize(static_cast<size_t>(count));
  true_distances(index_, raw_kernels_, slots, count, vector_, scratch_.distances.data());
  for (int64_t i = 0; i < count; ++i) {
    scratch_.chosen.push_back({scratch_.distances[static_cast<size_t>(i)], slots[i]});
  }
  work_.rescored += count;
}

void Query::keep_nearest(int64_t k) {
  std::vector<Measured>& rows = scratch_.chosen;
  const size_t kept = std::min(rows.size(), static_cast<size_t>(k));
  std::partial_sort(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(kept), rows.end(),
                    [](const Measured& a, const Measured& b) {
                      return a.distance != b.distance ? a.distance < b.distance : a.slot < b.slot;
                    });
  scratch_.found.resize(kept);
  for (size_t i = 0; i < kept; ++i)
    scratch_.found[i] = {static_cast<float>(rows[i].distance), rows[i].slot};
}

}  // namespace ec::ann
