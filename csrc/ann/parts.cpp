// SPDX-License-Identifier: Apache-2.0
#include "ann/parts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace ec::ann {
namespace {

enum HeaderField {
  kVersion,
  kDim,
  kMetric,
  kDtype,
  kRows,
  kGraphRows,
  kTrainedRows,
  kRawDropped,
  kCodeDims,
  kHeadBytes,
  kTailBytes,
  kDegreeField,
  kHeaderFields
};
constexpr int64_t kPartsVersion = 1;
constexpr int64_t kMostDims = int64_t{1} << 24;
// What no rows of at most 1e15 (vectors.cpp) and orthonormal axes exceed. Within these no score can
// overflow, so that none is NaN, which would have no place in an order.
constexpr int64_t kMostPlaneBytes = int64_t{1} << 16;
constexpr float kMostStep = 1e14f;
constexpr float kMostLength = 2e16f;
constexpr float kMostSquare = 1e31f;
constexpr double kMostAxis = 2.0;

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("the index is damaged: " + what);
}

void require(bool holds, const char* what) {
  if (!holds) refuse(what);
}

// Every number of the costs, in one order for writing and reading.
template <class Visit>
void visit_costs(Costs& costs, Visit&& visit) {
  visit(costs.rows);
  visit(costs.code_query);
  visit(costs.listed_row);
  visit(costs.nearby_row);
  visit(costs.refine_row);
  visit(costs.rescore_row);
  visit(costs.centroid);
  visit(costs.list_query);
  visit(costs.row_square);
  visit(costs.usual_distance);
  visit(costs.head_scale);
  for (int level = 0; level < kLevels; ++level) {
    visit(costs.tail_share[level]);
    visit(costs.code_error[level]);
    visit(costs.code_margin[level]);
    visit(costs.refined[level]);
    visit(costs.rescored[level]);
    visit(costs.cell_reach[level]);
    for (int share = 0; share < kShareCount; ++share) {
      visit(costs.slack[share][level]);
      visit(costs.graph_time[share][level]);
      visit(costs.graph_steps[share][level]);
      visit(costs.cell_rows[share][level]);
    }
  }
}

std::vector<double> written_costs(const Costs& costs) {
  std::vector<double> numbers = {costs.measured ? 1.0 : 0.0};
  Costs copy = costs;
  visit_costs(copy, [&](auto& field) { numbers.push_back(static_cast<double>(field)); });
  return numbers;
}

Costs read_costs(const double* numbers, int64_t count) {
  Costs costs;
  int64_t at = 1;
  visit_costs(costs, [&](auto& field) {
    require(at < count, "costs are cut short");
    const double number = numbers[at++];
    require(std::isfinite(number), "a cost is not finite");
    using Field = std::decay_t<decltype(field)>;
    const double most = std::is_integral_v<Field> ? 2147483647.0 : 3e38;
    field = static_cast<Field>(std::clamp(number, -most, most));
  });
  require(at == count, "costs are too long");
  costs.measured = numbers[0] != 0.0;
  bound(&costs);
  return costs;
}

template <class T>
SharedArray<T> borrowed(const FindPart& find, const char* name, PartType type, int64_t count,
                        const std::shared_ptr<void>& owner) {
  const Part part = find(name, type);
  if (part.count != count) refuse(std::string("part '") + name + "' has the wrong length");
  return SharedArray<T>::borrow(static_cast<const T*>(part.data), count, owner);
}

int64_t product(int64_t a, int64_t b) {
  int64_t result = 0;
  require(multiply_sizes(a, b, &result), "a size does not fit");
  return result;
}

// False for NaN.
bool within(float value, float low, float high) { return value >= low && value <= high; }

void check_codes(const uint8_t* heads, int64_t rows, const CodeShape& shape) {
  for (int64_t i = 0; i < rows; ++i) {
    const RowFactors& factors = factors_of(heads + i * shape.head_bytes, shape);
    require(within(factors.head_scale, 0.0f, kMostStep) && within(factors.tail_scale, 0.0f, kMostStep) &&
                within(factors.offset, -kMostSquare, 0.0f) && within(factors.tail_norm, 0.0f, kMostLength),
            "a code is out of range");
  }
}

// The mean, and axes of which each is a row of basis.
void check_axes(const SharedArray<float>& mean, const SharedArray<float>& basis) {
  const auto length = [](const float* numbers, int64_t count) {
    double square = 0.0;
    for (int64_t k = 0; k < count; ++k) square += static_cast<double>(numbers[k]) * numbers[k];
    return std::sqrt(square);
  };
  const int64_t dim = mean.size();
  require(length(mean.data(), dim) <= kMostLength, "the mean is out of range");
  for (int64_t at = 0; at < basis.size(); at += dim) {
    require(length(basis.data() + at, dim) <= kMostAxis, "the basis is out of range");
  }
}

std::shared_ptr<const Cells> read_cells(const FindPart& find, const CodeShape& shape, int64_t graph_rows) {
  auto cells = std::make_shared<Cells>();
  const Part members = find("cell_members", PartType::kUint32),
             start = find("cell_start", PartType::kUint32);
  const Part centroids = find("centroids", PartType::kBytes);
  require(members.count == graph_rows && start.count >= 2, "cells have the wrong length");
  const auto* slots = static_cast<const uint32_t*>(members.data);
  const auto* starts = static_cast<const uint32_t*>(start.data);
  cells->members.assign(slots, slots + members.count);
  cells->start.assign(starts, starts + start.count);
  require(cells->start.front() == 0 && cells->start.back() == static_cast<uint64_t>(graph_rows),
          "cells do not cover the rows");
  for (size_t i = 1; i < cells->start.size(); ++i) {
    require(cells->start[i - 1] <= cells->start[i], "cells do not rise");
  }
  for (const uint32_t slot : cells->members) require(slot < graph_rows, "a cell's row is out of range");
  require(centroids.count == product(cells->cells(), shape.head_bytes), "centroids have the wrong length");
  if (!cells->centroids.allocate(centroids.count)) throw std::bad_alloc();
  std::memcpy(cells->centroids.data(), centroids.data, static_cast<size_t>(centroids.count));
  check_codes(cells->centroids.data(), cells->cells(), shape);
  return cells;
}

std::shared_ptr<const AllowedSet> read_alive(const FindPart& find, int64_t rows) {
  const Part part = find("alive", PartType::kUint64);
  if (part.count == 0) return nullptr;
  require(part.count == word_count(rows), "the live rows have the wrong length");
  auto alive = std::make_shared<AllowedSet>();
  const auto* words = static_cast<const uint64_t*>(part.data);
  alive->rows = rows;
  alive->dense = true;
  alive->bits.assign(words, words + part.count);
  if (rows % 64 != 0) require(alive->bits.back() >> (rows % 64) == 0, "dead bits are set");
  for (const uint64_t word : alive->bits) alive->count += __builtin_popcountll(word);
  return alive;
}

void read_graph(const FindPart& find, const std::shared_ptr<void>& owner, IndexData* index) {
  index->links =
      borrowed<uint32_t>(find, "links", PartType::kUint32, product(index->graph_rows, kDegree), owner);
  for (int64_t i = 0; i < index->links.size(); ++i) {
    require(index->links[i] < index->graph_rows || index->links[i] == kNoSlot, "a link is out of range");
  }
  if (index->graph_rows > 0) index->cells = read_cells(find, index->codec->shape(), index->graph_rows);
}

void read_codes(const FindPart& find, const std::shared_ptr<void>& owner, const int64_t* header,
                IndexData* index) {
  CodeShape shape;
  shape.dim = index->dim;
  shape.code_dims = header[kCodeDims];
  shape.head_bytes = header[kHeadBytes];
  shape.tail_bytes = header[kTailBytes];
  require(shape.code_dims <= index->dim && shape.head_bytes >= 64 && shape.head_bytes % 64 == 0 &&
              shape.head_bytes <= kMostPlaneBytes && shape.tail_bytes >= 0 && shape.tail_bytes % 64 == 0 &&
              shape.tail_bytes <= kMostPlaneBytes &&
              shape.head_numbers() + shape.tail_bytes >= shape.code_dims,
          "the shape of the codes");
  const SharedArray<float> mean = borrowed<float>(find, "mean", PartType::kFloat32, index->dim, owner);
  const SharedArray<float> basis =
      borrowed<float>(find, "basis", PartType::kFloat32, product(shape.code_dims, index->dim), owner);
  check_axes(mean, basis);
  index->codec = std::make_shared<Codec>(shape, index->metric, mean.data(), basis.data());
  index->heads =
      borrowed<uint8_t>(find, "heads", PartType::kBytes, product(index->rows, shape.head_bytes), owner);
  index->tails =
      borrowed<uint8_t>(find, "tails", PartType::kBytes, product(index->rows, shape.tail_bytes), owner);
  check_codes(index->heads.data(), index->rows, shape);
}

}  // namespace

void visit_parts(const IndexData& index, const std::function<void(const Part&)>& visit) {
  const CodeShape shape = index.trained() ? index.codec->shape() : CodeShape();
  const int64_t header[kHeaderFields] = {kPartsVersion,
                                         index.dim,
                                         static_cast<int64_t>(index.metric),
                                         static_cast<int64_t>(index.dtype),
                                         index.rows,
                                         index.graph_rows,
                                         index.trained_rows,
                                         index.raw_dropped ? 1 : 0,
                                         shape.code_dims,
                                         shape.head_bytes,
                                         shape.tail_bytes,
                                         kDegree};
  visit({"header", PartType::kInt64, header, kHeaderFields});
  visit({"raw", PartType::kBytes, index.raw.data(), index.raw.size()});
  visit({"inverse_norms", PartType::kFloat32, index.inverse_norms.data(), index.inverse_norms.size()});
  const bool some = index.alive != nullptr;
  visit({"alive", PartType::kUint64, some ? index.alive->bits.data() : nullptr,
         some ? static_cast<int64_t>(index.alive->bits.size()) : 0});
  const std::vector<double> costs = written_costs(index.costs);
  visit({"costs", PartType::kFloat64, costs.data(), static_cast<int64_t>(costs.size())});
  if (!index.trained()) return;
  const std::vector<float> basis = index.codec->basis();
  visit({"mean", PartType::kFloat32, index.codec->mean(), index.dim});
  visit({"basis", PartType::kFloat32, basis.data(), static_cast<int64_t>(basis.size())});
  visit({"heads", PartType::kBytes, index.heads.data(), index.heads.size()});
  visit({"tails", PartType::kBytes, index.tails.data(), index.tails.size()});
  visit({"links", PartType::kUint32, index.links.data(), index.links.size()});
  if (index.graph_rows == 0) return;
  const Cells& cells = *index.cells;
  visit({"cell_members", PartType::kUint32, cells.members.data(),
         static_cast<int64_t>(cells.members.size())});
  visit({"cell_start", PartType::kUint32, cells.start.data(), static_cast<int64_t>(cells.start.size())});
  visit({"centroids", PartType::kBytes, cells.centroids.data(), cells.centroids.size()});
}

std::shared_ptr<const IndexData> from_parts(const FindPart& find, std::shared_ptr<void> owner) {
  const Part part = find("header", PartType::kInt64);
  require(part.count == kHeaderFields, "its header has the wrong length");
  int64_t header[kHeaderFields];
  std::memcpy(header, part.data, sizeof header);
  require(header[kVersion] == kPartsVersion, "its version is unknown");
  require(header[kDim] > 0 && header[kDim] <= kMostDims, "its dimension");
  require(
      header[kMetric] >= 0 && header[kMetric] <= 2 && header[kDtype] >= 0 && header[kDtype] < kVectorDtypes,
      "its metric or dtype is unknown");
  require(header[kRows] >= 0 && header[kRows] < static_cast<int64_t>(kNoSlot), "its number of rows");
  require(header[kGraphRows] >= 0 && header[kGraphRows] <= header[kRows] && header[kDegreeField] == kDegree,
          "its graph");
  require(header[kCodeDims] >= 0, "its codes");
  auto index = std::make_shared<IndexData>();
  index->dim = header[kDim];
  index->metric = static_cast<Metric>(header[kMetric]);
  index->dtype = static_cast<VectorDtype>(header[kDtype]);
  index->rows = header[kRows];
  index->graph_rows = header[kGraphRows];
  index->trained_rows = header[kTrainedRows];
  index->raw_dropped = header[kRawDropped] != 0;
  require(!index->raw_dropped || header[kCodeDims] > 0, "it has neither vectors nor codes");
  require(index->graph_rows == 0 || header[kCodeDims] > 0, "it has a graph without codes");
  index->raw =
      borrowed<unsigned char>(find, "raw", PartType::kBytes,
                              index->raw_dropped ? 0 : product(index->rows, index->row_bytes()), owner);
  index->inverse_norms = borrowed<float>(find, "inverse_norms", PartType::kFloat32,
                                         index->metric == Metric::kCosine ? index->rows : 0, owner);
  index->alive = read_alive(find, index->rows);
  const Part costs = find("costs", PartType::kFloat64);
  require(costs.count > 0, "costs are missing");
  index->costs = read_costs(static_cast<const double*>(costs.data), costs.count);
  if (header[kCodeDims] > 0) {
    read_codes(find, owner, header, index.get());
    read_graph(find, owner, index.get());
  }
  require(!index->costs.measured || index->graph_rows > 0, "it has costs without a graph");
  return index;
}

}  // namespace ec::ann
