// SPDX-License-Identifier: Apache-2.0
// From vectors to an index: codes, cells, slots in the order of the cells, links.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "ann/calibrate/calibrate.h"
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

// One build, step by step.
class IndexBuild {
 public:
  IndexBuild(const IndexData& old, const BuildRequest& request)
      : old_(old),
        request_(request),
        steps_(request.steps),
        next_(std::make_shared<IndexData>(old)),
        index_(*next_) {
    options_.threads = request.threads;
    options_.seed = request.seed;
    options_.monitor = request.monitor;
    options_.steps = steps_;
  }

  std::shared_ptr<const IndexData> run(std::vector<int64_t>* order) {
    take_live_rows(order);
    request_.basis == nullptr ? keep_codes(*order) : encode();
    auto cells = std::make_shared<Cells>();
    check(make_cells(coded_rows(index_, norms_.data()), options_, cells.get()));
    const std::vector<int64_t> by_cell(cells->members.begin(), cells->members.end());
    sort_by_cell(*cells, by_cell);
    compose(*order, by_cell);
    std::iota(cells->members.begin(), cells->members.end(), 0u);
    index_.cells = cells;
    index_.graph_rows = index_.trained_rows = index_.rows;
    link(*cells, by_cell);
    if (!calibration_) begin_calibration();
    index_.costs = calibration_->measure();
    return std::move(next_);
  }

 private:
  // Without those that are dead; vectors that are all alive are moved once, when there are cells.
  void take_live_rows(std::vector<int64_t>* order) {
    *order = live_slots(old_);
    index_.rows = static_cast<int64_t>(order->size());
    index_.graph_rows = index_.trained_rows = 0;
    index_.alive = nullptr;
    index_.links = {};
    index_.cells = nullptr;
    if (index_.rows == old_.rows) return;
    if (!old_.raw_dropped) index_.raw = gathered(old_.raw, old_.row_bytes(), *order, request_.threads);
    if (old_.metric == Metric::kCosine) gather(index_.inverse_norms, 1, *order);
  }

  template <class T>
  void gather(SharedArray<T>& array, int64_t row_length, const std::vector<int64_t>& order) const {
    array = gathered(array, row_length, order, request_.threads);
  }
  void gather_codes(const std::vector<int64_t>& order) {
    gather(index_.heads, index_.codec->shape().head_bytes, order);
    gather(index_.tails, index_.codec->shape().tail_bytes, order);
  }

  void keep_codes(const std::vector<int64_t>& order) {
    if (index_.rows != old_.rows) gather_codes(order);
    norms_ = centred_squares(index_);
  }

  void encode() {
    CodeShape shape = request_.shape;
    shape.dim = index_.dim;
    index_.codec = std::make_shared<Codec>(shape, index_.metric, request_.mean, request_.basis);
    index_.heads = index_.tails = {};
    norms_.resize(static_cast<size_t>(index_.rows));
    if (steps_ != nullptr) {
      steps_->encode(index_, norms_.data());
    } else {
      uint8_t *heads = nullptr, *tails = nullptr;
      make_codes(&heads, &tails);
      encode_all(index_, index_.raw.data(), index_.rows, request_.threads, heads, tails, norms_.data());
    }
    check_norms(norms_);
  }

  void make_codes(uint8_t** heads, uint8_t** tails) {
    const CodeShape& shape = index_.codec->shape();
    index_.heads = SharedArray<uint8_t>::make(index_.rows * shape.head_bytes, heads);
    index_.tails = SharedArray<uint8_t>::make(index_.rows * shape.tail_bytes, tails);
  }

  // With everything in its place, links as far as their array.
  void begin_calibration() { calibration_.emplace(index_, nullptr, 0, request_.threads, request_.monitor); }

  // All but the vectors, which move while links are chosen elsewhere.
  void sort_by_cell(const Cells& cells, const std::vector<int64_t>& by_cell) {
    if (old_.metric == Metric::kCosine) gather(index_.inverse_norms, 1, by_cell);
    if (steps_ != nullptr) {
      uint8_t *heads = nullptr, *tails = nullptr;
      make_codes(&heads, &tails);
      steps_->reorder(cells.members, heads, tails);
    } else {
      gather_codes(by_cell);
    }
    std::vector<float> ordered(norms_.size());
    for (size_t i = 0; i < norms_.size(); ++i) ordered[i] = norms_[static_cast<size_t>(by_cell[i])];
    norms_ = std::move(ordered);
  }

  void link(const Cells& cells, const std::vector<int64_t>& by_cell) {
    const auto move_vectors = [&] {
      if (!old_.raw_dropped) gather(index_.raw, index_.row_bytes(), by_cell);
    };
    const ChooseLinks choose = [&](const Cells& all, const Twins& twins) {
      steps_->begin_links(index_, all, twins);
      move_vectors();
      begin_calibration();
      calibration_->look();
      return steps_->links();
    };
    if (steps_ != nullptr) {
      options_.choose_links = &choose;
    } else {
      move_vectors();
    }
    uint32_t* links = nullptr;
    index_.links = SharedArray<uint32_t>::make(index_.rows * kDegree, &links);
    check(make_graph(coded_rows(index_, norms_.data()), cells, options_, links));
  }

  const IndexData& old_;
  const BuildRequest& request_;
  BuildSteps* const steps_;
  BuildOptions options_;
  std::shared_ptr<IndexData> next_;
  IndexData& index_;
  std::vector<float> norms_;  // |x - mean|^2 of each row
  std::optional<Calibration> calibration_;
};

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
  return Vectors(IndexBuild(old, request).run(order));
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
  BuildOptions options;
  options.threads = threads;
  options.monitor = monitor;
  check(insert_rows(coded_rows(index, norms.data()), old.graph_rows, options, cells.get(), links));
  index.cells = std::move(cells);
  index.graph_rows = index.rows;
  return Vectors(std::move(next));
}

Vectors Vectors::calibrate(const float* queries, int64_t count, int threads,
                           const ec_monitor* monitor) const {
  auto next = std::make_shared<IndexData>(*data_);
  const Costs costs = Calibration(*next, queries, count, threads, monitor).measure();
  if (costs.measured) next->costs = costs;
  return Vectors(std::move(next));
}

}  // namespace ec::ann
