// SPDX-License-Identifier: Apache-2.0
// Codes and cells of builds on the emulation, against loops that do the same one after another.
#include "ann/byte_codes.h"
#include "ann/cells.h"
#include "ann_model.h"

using namespace ann_model;

namespace {

constexpr int kFactors = 16;

// Memory on 16 bytes, as codes have to be.
struct Bytes {
  explicit Bytes(int64_t size) : words(static_cast<size_t>(size / 16 + 1), {7, 7, 7, 7}) {}
  uint8_t* data() { return reinterpret_cast<uint8_t*>(words.data()); }
  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(words.data()); }
  std::vector<uint4> words;
};

float factor(const uint8_t* head, int head_bytes, int number) {
  float value;
  std::memcpy(&value, head + head_bytes - kFactors + 4 * number, sizeof value);
  return value;
}

// ---- codes ------------------------------------------------------------------------------------------

// Vectors of any kind, side by side, and what their numbers are.
struct Vectors {
  Vectors(RowKind kind, int64_t rows, int columns, uint64_t seed) : numbers(rows * columns) {
    numbers::Source source(seed);
    for (int64_t i = 0; i < rows * columns; ++i) {
      const auto x = static_cast<float>(source.next() + 0.3);
      const auto at = static_cast<size_t>(i);
      if (kind == RowKind::kFloat32) {
        numbers[at] = x;
        append(&x, sizeof x);
      } else if (kind == RowKind::kInt8) {
        const auto byte = static_cast<int8_t>(x * 90.0f);
        numbers[at] = byte;
        append(&byte, 1);
      } else {
        const numbers::Format& format = kind == RowKind::kFloat16 ? numbers::kHalf : numbers::kBfloat;
        const uint16_t bits = numbers::nearest(format, x);
        numbers[at] = static_cast<float>(numbers::value_of(format, bits));
        append(&bits, sizeof bits);
      }
    }
  }
  void append(const void* from, size_t size) {
    const auto* start = static_cast<const unsigned char*>(from);
    memory.insert(memory.end(), start, start + size);
  }
  void clear_row(int64_t row, int columns) {
    const size_t size = memory.size() / numbers.size() * static_cast<size_t>(columns);
    std::fill_n(memory.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * size), size, 0);
    std::fill_n(numbers.begin() + row * columns, columns, 0.0f);
  }

  std::vector<float> numbers;
  std::vector<unsigned char> memory;
};

struct CodeShape {
  int64_t rows;
  int columns, dims, head_bytes, tail_bytes;
  int64_t scratch = int64_t{1} << 26;
};

struct Model {
  std::vector<uint8_t> head, tail;
  float head_scale = 0.0f, tail_scale = 0.0f, tail_norm = 0.0f, square = 0.0f;
};

float round_to_bytes(const std::vector<float>& numbers, int room, std::vector<uint8_t>* bytes) {
  float largest = 0.0f;
  for (const float x : numbers) largest = std::max(largest, std::fabs(x));
  const float scale = largest > 1e-35f ? largest / 127.0f : 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  for (const float x : numbers) bytes->push_back(static_cast<uint8_t>(x * inverse + 128.5f));
  bytes->resize(static_cast<size_t>(room), 128);
  return scale;
}

Model model_of(const Vectors& vectors, int64_t row, Metric metric, const CodeShape& shape,
               const std::vector<float>& mean, const std::vector<float>& axes, int padded) {
  std::vector<float> x(vectors.numbers.begin() + row * shape.columns,
                       vectors.numbers.begin() + (row + 1) * shape.columns);
  double length = 0.0, square = 0.0;
  for (const float one : x) length += double{one} * double{one};
  for (size_t k = 0; k < x.size(); ++k) {
    if (metric == Metric::kCosine && length > 0.0)
      x[k] = static_cast<float>(double{x[k]} * (1.0 / std::sqrt(length)));
    x[k] -= mean[k];
    square += double{x[k]} * double{x[k]};
  }
  std::vector<float> numbers;
  for (int j = 0; j < shape.dims; ++j) {
    float sum = 0.0f;
    for (int k = 0; k < shape.columns; ++k)
      sum = std::fma(x[static_cast<size_t>(k)], axes[static_cast<size_t>(j * padded + k)], sum);
    numbers.push_back(sum);
  }
  Model model;
  model.square = static_cast<float>(square);
  const int room = shape.head_bytes - kFactors, in_head = std::min(shape.dims, room);
  const std::vector<float> head(numbers.begin(), numbers.begin() + in_head);
  const std::vector<float> tail(numbers.begin() + in_head, numbers.end());
  model.head_scale = round_to_bytes(head, room, &model.head);
  if (shape.tail_bytes == 0) return model;
  model.tail_scale = round_to_bytes(tail, shape.tail_bytes, &model.tail);
  double norm = 0.0;
  for (const float one : tail) norm += double{one} * double{one};
  model.tail_norm = static_cast<float>(std::sqrt(norm));
  return model;
}

bool near(float a, float b) { return std::fabs(a - b) <= 2e-6f * std::max(std::fabs(a), std::fabs(b)); }

// Bytes that are not the model's, which are one off at most.
int64_t others(const uint8_t* found, const std::vector<uint8_t>& wanted) {
  int64_t count = 0;
  for (size_t k = 0; k < wanted.size(); ++k) {
    CHECK(std::abs(found[k] - wanted[k]) <= 1);
    count += found[k] != wanted[k] ? 1 : 0;
  }
  return count;
}

void codes_agree(Metric metric, RowKind kind, const CodeShape& shape) {
  Vectors vectors(kind, shape.rows, shape.columns, 11);
  if (shape.rows > 2) vectors.clear_row(shape.rows / 2, shape.columns);
  numbers::Source source(13);
  const int padded = (shape.columns + kAxisStep - 1) / kAxisStep * kAxisStep;
  Bytes axes_memory(int64_t{4} * shape.dims * padded);
  std::vector<float> axes(static_cast<size_t>(shape.dims * padded), 0.0f), mean, squares;
  for (int j = 0; j < shape.dims; ++j)
    for (int k = 0; k < shape.columns; ++k)
      axes[static_cast<size_t>(j * padded + k)] = static_cast<float>(source.next() * 0.2);
  std::memcpy(axes_memory.data(), axes.data(), 4 * axes.size());
  for (int k = 0; k < shape.columns; ++k) mean.push_back(static_cast<float>(source.next() * 0.1));
  squares.assign(static_cast<size_t>(shape.rows), -1.0f);
  Bytes heads(shape.rows * shape.head_bytes), tails(shape.rows * shape.tail_bytes);
  IndexRows rows = {};
  rows.metric = metric, rows.kind = kind, rows.rows = shape.rows;
  rows.stride = rows.columns = shape.columns;
  rows.vectors = vectors.memory.data(), rows.mean = mean.data();
  ByteCodes codes = {reinterpret_cast<const float*>(axes_memory.data()),
                     shape.dims,
                     shape.head_bytes,
                     shape.tail_bytes,
                     heads.data(),
                     tails.data(),
                     squares.data(),
                     shape.scratch};
  Bytes workspace(static_cast<int64_t>(byte_codes_workspace(rows, codes)));
  CHECK(run_byte_codes(rows, codes, 2, workspace.data(), nullptr));
  int64_t off = 0;
  for (int64_t i = 0; i < shape.rows; ++i) {
    const Model model = model_of(vectors, i, metric, shape, mean, axes, padded);
    const uint8_t* head = heads.data() + i * shape.head_bytes;
    off += others(head, model.head) + others(tails.data() + i * shape.tail_bytes, model.tail);
    CHECK(near(squares[static_cast<size_t>(i)], model.square));
    CHECK(near(factor(head, shape.head_bytes, 0), model.head_scale));
    CHECK(near(factor(head, shape.head_bytes, 1),
               metric == Metric::kInnerProduct ? 0.0f : -0.5f * model.square));
    CHECK(near(factor(head, shape.head_bytes, 2), model.tail_scale));
    CHECK(near(factor(head, shape.head_bytes, 3), model.tail_norm));
  }
  CHECK(off * 10000 <= shape.rows * shape.dims);
}

void codes_are_those_of_the_loops() {
  for (const Metric metric : kMetrics) {
    codes_agree(metric, RowKind::kFloat32, {1, 1, 1, 64, 0});
    codes_agree(metric, RowKind::kFloat32, {130, 33, 33, 64, 0});
    codes_agree(metric, RowKind::kFloat32, {40, 150, 140, 64, 128});  // two tiles of axes
  }
  for (const RowKind kind : {RowKind::kFloat16, RowKind::kBFloat16, RowKind::kInt8}) {
    codes_agree(Metric::kCosine, kind, {20, 19, 19, 64, 0});
    codes_agree(Metric::kL2, kind, {20, 64, 52, 64, 64});
  }
  // Numbers that just fill a head, and one more; rows that are taken a tile at a time.
  codes_agree(Metric::kL2, RowKind::kFloat32, {9, 48, 48, 64, 0});
  codes_agree(Metric::kL2, RowKind::kFloat32, {9, 49, 49, 64, 64});
  codes_agree(Metric::kCosine, RowKind::kFloat32, {300, 20, 17, 64, 0, 1});
}

// ---- cells ------------------------------------------------------------------------------------------

struct Heads {
  Heads(int64_t rows, int head_bytes, int most, uint64_t seed)
      : count(rows), head_bytes(head_bytes), memory(rows * head_bytes) {
    numbers::Source source(seed);
    for (int64_t i = 0; i < rows; ++i) {
      uint8_t* head = memory.data() + i * head_bytes;
      for (int k = 0; k < head_bytes - kFactors; ++k)
        head[k] = static_cast<uint8_t>(128 + static_cast<int>(source.next() * most));
      const float factors[4] = {static_cast<float>(0.01 + 0.005 * source.next()), -1.0f, 3.0f, 4.0f};
      std::memcpy(head + head_bytes - kFactors, factors, sizeof factors);
      squares.push_back(0.0f);
      for (int k = 0; k < head_bytes - kFactors; ++k)
        squares.back() += factors[0] * factors[0] * static_cast<float>((head[k] - 128) * (head[k] - 128));
    }
  }
  int numbers() const { return head_bytes - kFactors; }
  const uint8_t* head(int64_t i) const { return memory.data() + i * head_bytes; }
  ec::cuda::ann::HeadRows rows() const { return {memory.data(), head_bytes, squares.data()}; }

  int64_t count;
  int head_bytes;
  Bytes memory;
  std::vector<float> squares;
};

struct Centroid {
  std::vector<int> bytes;
  float scale = 0.0f, norm = 0.0f;
};

Centroid mean_of(const Heads& heads, const std::vector<uint32_t>& slots) {
  std::vector<float> sums(static_cast<size_t>(heads.numbers()), 0.0f);
  for (const uint32_t slot : slots) {
    const float scale = factor(heads.head(slot), heads.head_bytes, 0);
    for (int k = 0; k < heads.numbers(); ++k)
      sums[static_cast<size_t>(k)] += scale * static_cast<float>(heads.head(slot)[k] - 128);
  }
  float most = 0.0f;
  for (const float sum : sums) most = std::max(most, std::fabs(sum));
  const float step = most / 127.0f, inverse = step > 0.0f ? 1.0f / step : 0.0f;
  Centroid centroid;
  int64_t square = 0;
  for (const float sum : sums) {
    centroid.bytes.push_back(static_cast<int>(std::lrint(sum * inverse)));
    square += centroid.bytes.back() * centroid.bytes.back();
  }
  centroid.scale = step / static_cast<float>(slots.size());
  centroid.norm = centroid.scale * centroid.scale * static_cast<float>(square);
  return centroid;
}

std::vector<uint32_t> assigned(const Heads& heads, const std::vector<Centroid>& centroids,
                               const std::vector<uint32_t>& slots) {
  std::vector<uint32_t> cell_of;
  for (const uint32_t slot : slots) {
    float least = INFINITY;
    uint32_t cell = 0;
    for (size_t c = 0; c < centroids.size(); ++c) {
      int64_t product = 0;
      for (int k = 0; k < heads.numbers(); ++k)
        product += (heads.head(slot)[k] - 128) * centroids[c].bytes[static_cast<size_t>(k)];
      const float one = static_cast<float>(product) * centroids[c].scale;
      const float distance =
          std::max(0.0f, std::fma(one, -2.0f * factor(heads.head(slot), heads.head_bytes, 0),
                                  heads.squares[slot] + centroids[c].norm));
      if (distance < least) least = distance, cell = static_cast<uint32_t>(c);
    }
    cell_of.push_back(cell);
  }
  return cell_of;
}

std::vector<uint32_t> members_of(const std::vector<uint32_t>& slots, const std::vector<uint32_t>& cell_of,
                                 size_t cell) {
  std::vector<uint32_t> members;
  for (size_t i = 0; i < slots.size(); ++i)
    if (cell_of[i] == cell) members.push_back(slots[i]);
  return members;
}

void groups_agree(const Heads& heads, int64_t cells, int64_t step, int moves) {
  std::vector<uint32_t> drawn, sample, slots;
  for (int64_t c = 0; c < cells; ++c) drawn.push_back(static_cast<uint32_t>((c * 7919 + 3) % heads.count));
  for (int64_t i = 0; i < heads.count; i += step) sample.push_back(static_cast<uint32_t>(i));
  for (int64_t i = heads.count > 5 ? 2 : 0; i < heads.count; ++i) slots.push_back(static_cast<uint32_t>(i));
  std::vector<uint32_t> found(slots.size(), 77u);
  const Grouping grouping = {drawn.data(),
                             cells,
                             sample.data(),
                             static_cast<int64_t>(sample.size()),
                             moves,
                             slots.data(),
                             static_cast<int64_t>(slots.size()),
                             found.data()};
  Bytes workspace(static_cast<int64_t>(grouping_workspace(heads.rows(), grouping)));
  CHECK(run_grouping(heads.rows(), grouping, workspace.data(), nullptr));
  std::vector<Centroid> centroids;
  for (const uint32_t slot : drawn) centroids.push_back(mean_of(heads, {slot}));
  for (int i = 0; i < moves; ++i) {
    const std::vector<uint32_t> cell_of = assigned(heads, centroids, sample);
    for (size_t c = 0; c < centroids.size(); ++c) {
      const std::vector<uint32_t> members = members_of(sample, cell_of, c);
      if (!members.empty()) centroids[c] = mean_of(heads, members);
    }
  }
  CHECK(found == assigned(heads, centroids, slots));
}

void groups_are_those_of_the_loops() {
  groups_agree(Heads(1, 64, 100, 1), 1, 1, 2);
  groups_agree(Heads(127, 64, 127, 2), 5, 1, 3);
  groups_agree(Heads(129, 512, 127, 3), 129, 2, 1);  // most numbers; two tiles of centroids
  groups_agree(Heads(300, 128, 2, 4), 130, 1, 2);    // many at the same distance
  groups_agree(Heads(90, 192, 0, 5), 6, 1, 2);       // rows are all zeros
  groups_agree(Heads(2500, 64, 127, 6), 3, 1, 2);    // looked through, and added, in parts
  groups_agree(Heads(40, 64, 127, 7), 4, 1, 0);
}

void means_are_heads() {
  for (const int64_t rows : {1, 40, 2300}) {
    const Heads heads(rows, 128, 127, 8);
    constexpr int64_t kCells = 5;
    std::vector<uint32_t> slots, cell_of;
    for (int64_t i = 0; i < rows; ++i) {
      slots.push_back(static_cast<uint32_t>(i));
      cell_of.push_back(static_cast<uint32_t>(i * i % 3 + (i > 1500 ? 1 : 0)));  // none of the last
    }
    Bytes means(kCells * heads.head_bytes);
    CHECK(run_cell_means(heads.rows(), cell_of.data(), rows, kCells, means.data(), nullptr));
    for (int64_t c = 0; c < kCells; ++c) {
      const std::vector<uint32_t> members = members_of(slots, cell_of, static_cast<size_t>(c));
      const uint8_t* head = means.data() + c * heads.head_bytes;
      const Centroid wanted = members.empty() ? Centroid{} : mean_of(heads, members);
      for (int k = 0; k < heads.numbers(); ++k)
        CHECK(head[k] == (members.empty() ? 0 : wanted.bytes[static_cast<size_t>(k)] + 128));
      const float factors[4] = {wanted.scale, -0.5f * wanted.norm, 0.0f, 0.0f};
      for (int i = 0; i < 4; ++i) CHECK(factor(head, heads.head_bytes, i) == factors[i]);
    }
  }
}

void what_cannot_be_launched() {
  const Heads heads(3, 64, 9, 9);
  Grouping grouping = {};
  const uint64_t before = ec::emulation::started();
  grouping.cells = int64_t{1} << 31;
  CHECK(!run_grouping(heads.rows(), grouping, nullptr, nullptr));
  CHECK(!run_cell_means(heads.rows(), nullptr, 0, int64_t{1} << 31, nullptr, nullptr));
  grouping.cells = 1;
  CHECK(run_grouping(heads.rows(), grouping, nullptr, nullptr));
  CHECK(run_cell_means(heads.rows(), nullptr, 0, 0, nullptr, nullptr));
  CHECK(ec::emulation::started() == before);
}

}  // namespace

int main() {
  codes_are_those_of_the_loops();
  groups_are_those_of_the_loops();
  means_are_heads();
  what_cannot_be_launched();
  return check::report();
}
