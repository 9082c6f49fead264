// SPDX-License-Identifier: Apache-2.0
// What attention reads beside the tokens, on the emulation: queries of every kind and order give the same
// bits, and sums of lengths are right however many there are.
#include "attention_call.h"

#include "attention/plan.cuh"

namespace {

using attention_call::Call;
using attention_call::kind_of;
using attention_call::same_results;
using attention_model::Model;
using attention_model::Shape;
using numbers::Array;

constexpr auto kDense = attention_model::kDense;
constexpr auto kTanh = EC_ACTIVATION_TANH;
constexpr auto kNormed = EC_HEAD_NORM_L2;

// Numbers that all kinds have.
void round_query(Model& model) {
  for (double& number : model.query) number = std::round(std::fmin(std::fmax(number, -1.5), 1.5) * 64) / 64;
}

// The query of a model in another kind, each head's numbers together or each column's, with others between
// them; lives as long as the call that it is given to.
Array put_query(Call& call, ec_dtype kind, bool heads_apart, int64_t gap) {
  const Shape& shape = call.model.shape;
  const int64_t outer = heads_apart ? shape.heads : shape.key_columns;
  const int64_t inner = heads_apart ? shape.key_columns : shape.heads, apart = inner + gap;
  std::vector<double> all(static_cast<size_t>(outer * apart), NAN);
  for (int64_t j = 0; j < shape.heads; ++j)
    for (int64_t k = 0; k < shape.key_columns; ++k)
      all[static_cast<size_t>(heads_apart ? j * apart + k : k * apart + j)] =
          call.model.query[static_cast<size_t>(k * shape.heads + j)];
  Array query(kind, all);
  call.problem.query = {query.data(), {0, heads_apart ? 1 : apart, heads_apart ? apart : 1}, kind_of(kind)};
  return query;
}

void queries_of_every_kind() {
  const Shape shapes[] = {
      {"vectors", 1, 20, 16, 200, 0, kDense, kTanh, kNormed},
      {"more than a round", 1, 20, 12, 520, 0, kDense, kTanh, kNormed},
      {"odd numbers", 2, 20, 9, 104, 0, kDense, kTanh, kNormed},
  };
  for (const Shape& shape : shapes) {
    Model model(shape);
    round_query(model);
    for (const ec_dtype dtype : {EC_BFLOAT16, EC_FLOAT16, EC_FLOAT32}) {
      for (const bool hopper : {false, true}) {
        if (hopper && dtype == EC_FLOAT32) continue;
        Call plain(model, dtype);
        plain.problem.hopper = hopper;
        plain.forward(2);
        plain.backward(2);
        for (const ec_dtype kind : {EC_BFLOAT16, EC_FLOAT16, EC_FLOAT32, EC_FLOAT64}) {
          for (const bool heads_apart : {false, true}) {
            for (const int64_t gap : {0, 3}) {
              Call call(model, dtype);
              call.problem.hopper = hopper;
              const Array query = put_query(call, kind, heads_apart, gap);
              call.forward(2);
              CHECK(same_results(call, plain));
              if (hopper) continue;
              call.backward(2);
              CHECK(call.grad_key.bytes == plain.grad_key.bytes);
            }
          }
        }
      }
    }
  }
}

void lengths_add_up() {
  using ec::cuda::kAttentionThreads;
  for (const int64_t count : {0, 1, 7, 8, 9, 255, 2048, 2049, 5000}) {
    std::vector<int64_t> counts(static_cast<size_t>(count)), begins(counts.size() + 1, -1);
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<int64_t>(i * 37 % 101) - 9;
    constexpr int64_t kMost = 80;
    EC_LAUNCH(ec::cuda::add_counts, 1, kAttentionThreads, ec::cuda::kAttentionWarps * sizeof(int64_t),
              nullptr, counts.data(), count, kMost, begins.data());
    int64_t sum = 0;
    for (size_t i = 0; i <= counts.size(); ++i) {
      CHECK(begins[i] == sum);
      if (i < counts.size()) sum += std::max(int64_t{0}, std::min(counts[i], kMost));
    }
  }
}

}  // namespace

int main() {
  lengths_add_up();
  queries_of_every_kind();
  return check::report();
}
