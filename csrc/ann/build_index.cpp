// SPDX-License-Identifier: Apache-2.0
// From vectors to an index: codes, cells, slots in the order of the cells, links.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <stdexcept>

#include "ann/encode_all.h"
#include "ann/vectors.h"
#include "core/parallel.h"

namespace ec::ann {
namespace {

void check(ec_status status) {
  if (status == EC_INTERRUPTED) throw Interrupted();
  if (status == EC_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status != EC_OK) throw std::runtime_error("the build failed");
}

constexpr int64_t kMoveBlock = 1024;

// to[i] = from[order[i]] for rows of row_bytes.
void gather_rows(const unsigned char* from, int64_t row_bytes, const std::vector<int64_t>& order,
                 int threads, unsigned char* to) {
  const auto count = static_cast<int64_t>(order.size());
  parallel_for((count + kMoveBlock - 1) / kMoveBlock, threads, nullptr, [&](int64_t block, int) {
    const int64_t last = std::min((block + 1) * kMoveBlock, count);
    for (int64_t i = block * kMoveBlock; i < last; ++i) {
      std::memcpy(to + i * row_bytes, from + order[static_cast<size_t>(i)] * row_bytes,
                  static_cast<size_t>(row_bytes));
    }
  });
}

template <class T>
SharedArray<T> gathered(const SharedArray<T>& from, int64_t row_length, const std::vector<int64_t>& order,
                        int threads) {
  T* to = nullptr;
  SharedArray<T> array = SharedArray<T>::make(static_cast<int64_t>(order.size()) * row_length, &to);
  gather_rows(reinterpret_cast<const unsigned char*>(from.data()),
              row_length * static_cast<int64_t>(sizeof(T)), order, threads,
              reinterpret_cast<unsigned char*>(to));
  return array;
}

std::vector<int64_t> live_slots(const IndexData& index) {
  std::vector<int64_t> slots;
  slots.reserve(static_cast<size_t>(index.live()));
  for (int64_t i = 0; i < index.rows; ++i) {
    if (index.is_alive(i)) {
      slots.push_back(i);
    }
  }
  return slots;
}

std::vector<float> centred_squares(const IndexData& index) {
  std::vector<float> squares(static_cast<size_t>(index.rows));
  for (int64_t i = 0; i < index.rows; ++i) squares[static_cast<size_t>(i)] = centred_square(index, i);
  return squares;
}

CodedRows coded_rows(const IndexData& index, const float* norms) {
  return {index.codec->shape(), index.heads.data(),
          index.codec->shape().tail_bytes > 0 ? index.tails.data() : nullptr, norms, index.rows};
}

// Rows of a damaged file that was opened without its checksums may be anything.
void check_norms(const std::vector<float>& norms) {
  constexpr float kMost = 1e31f;  // of rows that append takes, twice 1e15 squared
  for (const float norm : norms) {
    if (!(norm <= kMost)) {
      throw std::invalid_argument("ann.Index: its vectors are damaged; a row is not finite or too long.");
    }
  }
}

template <class T>
void compose(std::vector<int64_t>& order, const std::vector<T>& after) {
  std::vector<int64_t> composed(after.size());
  for (size_t i = 0; i < after.size(); ++i) composed[i] = order[after[i]];
  order = std::move(composed);
}

}  // namespace

float centred_square(const IndexData& index, int64_t slot) {
  const CodeShape& shape = index.codec->shape();
  const uint8_t* head = index.heads.data() + slot * shape.head_bytes;
  const RowFactors& factors = factors_of(head, shape);
  if (index.metric != Metric::kInnerProduct) return -2.0f * factors.offset;
  const auto part = [](const uint8_t* bytes, int64_t count, float scale) {
    int64_t sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += (bytes[k] - 128) * (bytes[k] - 128);
    return static_cast<float>(sum) * scale * scale;
  };
  return part(head, shape.head_numbers(), factors.head_scale) +
         part(index.tails.data() + slot * shape.tail_bytes, shape.tail_bytes, factors.tail_scale);
}

Vectors Vectors::build(const BuildRequest& request, std::vector<int64_t>* order) const {
  const IndexData& old = *data_;
  if (request.basis == nullptr && !old.trained()) {
    throw std::invalid_argument("an untrained index needs a basis");
  }
  if (request.basis != nullptr && old.raw_dropped) {
    throw std::invalid_argument("an index without vectors keeps its basis");
  }
  const int threads = request.threads;
  BuildOptions options = {kDegree, threads, request.seed, request.monitor, nullptr};
  *order = live_slots(old);
  auto next = std::make_shared<IndexData>(old);
  IndexData& index = *next;
  index.rows = static_cast<int64_t>(order->size());
  index.graph_rows = index.trained_rows = 0;
  index.alive = nullptr;
  index.links = {};
  index.cells = nullptr;
  if (!old.raw_dropped) index.raw = gathered(old.raw, old.row_bytes(), *order, threads);
  if (old.metric == Metric::kCosine) index.inverse_norms = gathered(old.inverse_norms, 1, *order, threads);
  std::vector<float> norms;
  if (request.basis == nullptr) {
    index.heads = gathered(old.heads, old.codec->shape().head_bytes, *order, threads);
    index.tails = gathered(old.tails, old.codec->shape().tail_bytes, *order, threads);
    norms = centred_squares(index);
  } else {
    CodeShape shape = request.shape;
    shape.dim = index.dim;
    index.codec = std::make_shared<Codec>(shape, index.metric, request.mean, request.basis);
    uint8_t *heads = nullptr, *tails = nullptr;
    index.heads = SharedArray<uint8_t>::make(index.rows * shape.head_bytes, &heads);
    index.tails = SharedArray<uint8_t>::make(index.rows * shape.tail_bytes, &tails);
    norms.resize(static_cast<size_t>(index.rows));
    encode_all(index, index.raw.data(), index.rows, threads, heads, tails, norms.data());
    check_norms(norms);
  }
  auto cells = std::make_shared<Cells>();
  check(make_cells(coded_rows(index, norms.data()), options, cells.get()));
  std::vector<int64_t> by_cell(cells->members.begin(), cells->members.end());
  if (!old.raw_dropped) index.raw = gathered(index.raw, old.row_bytes(), by_cell, threads);
  if (old.metric == Metric::kCosine)
    index.inverse_norms = gathered(index.inverse_norms, 1, by_cell, threads);
  index.heads = gathered(index.heads, index.codec->shape().head_bytes, by_cell, threads);
  index.tails = gathered(index.tails, index.codec->shape().tail_bytes, by_cell, threads);
  std::vector<float> ordered_norms(norms.size());
  for (size_t i = 0; i < norms.size(); ++i) ordered_norms[i] = norms[static_cast<size_t>(by_cell[i])];
  compose(*order, by_cell);
  std::iota(cells->members.begin(), cells->members.end(), 0u);
  const ChooseLinks choose = [&](const Cells& all, const Twins& twins) {
    return request.choose_links(index, all, twins);
  };
  if (request.choose_links && !old.raw_dropped) options.choose_links = &choose;
  uint32_t* links = nullptr;
  index.links = SharedArray<uint32_t>::make(index.rows * kDegree, &links);
  check(make_graph(coded_rows(index, ordered_norms.data()), *cells, options, links));
  index.cells = std::move(cells);
  index.graph_rows = index.trained_rows = index.rows;
  index.costs = measure_costs(index, nullptr, 0, threads, request.monitor);
  return Vectors(std::move(next));
}

Vectors Vectors::merge(int threads, const ec_monitor* monitor) const {
  const IndexData& old = *data_;
  if (old.graph_rows == 0 || old.graph_rows == old.rows) return *this;
  auto next = std::make_shared<IndexData>(old);
  IndexData& index = *next;
  uint32_t* links = nullptr;
  index.links = SharedArray<uint32_t>::make(index.rows * kDegree, &links);
  std::memcpy(links, old.links.data(), static_cast<size_t>(old.links.size_bytes()));
  auto cells = std::make_shared<Cells>();
  cells->members = old.cells->members;
  cells->start = old.cells->start;
  const AlignedBuffer<uint8_t>& centroids = old.cells->centroids;
  if (!cells->centroids.allocate(centroids.size())) throw std::bad_alloc();
  std::memcpy(cells->centroids.data(), centroids.data(), static_cast<size_t>(centroids.size()));
  const std::vector<float> norms = centred_squares(index);
  const BuildOptions options = {kDegree, threads, 0, monitor, nullptr};
  check(insert_rows(coded_rows(index, norms.data()), old.graph_rows, options, cells.get(), links));
  index.cells = std::move(cells);
  index.graph_rows = index.rows;
  return Vectors(std::move(next));
}

Vectors Vectors::calibrate(const float* queries, int64_t count, int threads,
                           const ec_monitor* monitor) const {
  auto next = std::make_shared<IndexData>(*data_);
  const Costs costs = measure_costs(*next, queries, count, threads, monitor);
  if (costs.measured) next->costs = costs;
  return Vectors(std::move(next));
}

}  // namespace ec::ann
