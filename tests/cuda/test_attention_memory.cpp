// SPDX-License-Identifier: Apache-2.0
// The memory of attention: what its blocks share on several devices, and what it takes beside the tokens
// and their gradients, as calls of a large GPU are laid out: at most a twentieth of the tokens, and the
// scores.
#include "attention_call.h"

namespace {

using ec::cuda::AttentionGradient;
using ec::cuda::AttentionProblem;
using ec::cuda::AttentionResult;
using ec::cuda::NumberKind;

constexpr int kMultiprocessors = 132;

struct Shape {
  int64_t sequences, tokens, columns;
};

AttentionProblem problem_of(const Shape& shape, int64_t heads, NumberKind kind) {
  static const float somewhere = 0.0f;
  AttentionProblem problem = {};
  problem.sequences = shape.sequences;
  problem.tokens = shape.tokens;
  problem.heads = heads;
  problem.key_columns = problem.value_columns = shape.columns;
  problem.key = {nullptr, {shape.tokens * shape.columns, shape.columns, 1}, kind};
  problem.query = {&somewhere, {0, heads, 1}, NumberKind::kFloat32};
  problem.fixed_temperature = 0.25;
  problem.activation = ec::Activation::kTanh;
  problem.norm = ec::HeadNorm::kL2;
  problem.clusters = true;
  return problem;
}

// Of what the forward keeps rest takes heads / (2 tokens) of the tokens, so that sequences of 64 heads have
// to be of more than 640 tokens for the whole to be a twentieth.
void scratch_is_a_twentieth(const Shape& shape, int64_t heads, NumberKind kind) {
  const AttentionProblem problem = problem_of(shape, heads, kind);
  const int64_t tokens = 2 * shape.sequences * shape.tokens * shape.columns;
  const int64_t scores = 4 * shape.sequences * shape.tokens * heads;
  const int64_t rows = shape.sequences * heads;
  const int64_t kept = rows * (shape.columns + 4);  // rest and lse
  float somewhere = 0.0f;
  AttentionGradient gradient = {};
  gradient.grad_out.kind = kind;
  gradient.grad_query = &somewhere;
  const auto backward = static_cast<int64_t>(
      ec::cuda::attention_backward_workspace_bytes(problem, gradient, kMultiprocessors));
  CHECK(kept + backward <= tokens / 20);
  // While there are no gradients of the tokens yet.
  const auto forward = static_cast<int64_t>(
      ec::cuda::attention_forward_workspace_bytes(problem, AttentionResult{}, kMultiprocessors));
  CHECK(kept + forward + scores <= tokens + scores);
  if (kept + backward > tokens / 20)
    std::fprintf(stderr, "%d heads, %d x %d x %d: %.2f %%\n", static_cast<int>(heads),
                 static_cast<int>(shape.sequences), static_cast<int>(shape.tokens),
                 static_cast<int>(shape.columns),
                 100.0 * static_cast<double>(kept + backward) / static_cast<double>(tokens));
}

void scratch_is_a_twentieth_of_the_tokens() {
  const Shape shapes[] = {{256, 512, 768}, {32, 2048, 768}, {32, 8192, 1024}, {512, 512, 384}};
  for (const NumberKind kind : {NumberKind::kBFloat16, NumberKind::kFloat16}) {
    for (const Shape& shape : shapes)
      for (const int64_t heads : {8, 16, 32}) scratch_is_a_twentieth(shape, heads, kind);
    for (const int64_t columns : {384, 768, 1024})
      for (const int64_t heads : {33, 64}) scratch_is_a_twentieth({128, 2048, columns}, heads, kind);
    scratch_is_a_twentieth({64, 2048, 1536}, 16, kind);
  }
}

// On devices whose blocks share less, all is right, and rows are refused from where they do not fit.
void blocks_share_what_the_device_has() {
  const attention_model::Shape shapes[] = {
      {"tight", 2, 40, 30, 200, 0, attention_model::kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_L2},
      {"tight, values", 1, 20, 6, 1000, 500, attention_model::kDense, EC_ACTIVATION_NONE,
       EC_HEAD_NORM_NONE},
      {"tight, 60 heads", 1, 50, 60, 104, 0, attention_model::kDense, EC_ACTIVATION_TANH, EC_HEAD_NORM_L2},
  };
  const size_t before = ec::emulation::most_shared();
  for (const size_t kilobytes : {99, 163, 227}) {
    ec::emulation::most_shared() = kilobytes << 10;
    for (const attention_model::Shape& shape : shapes) {
      attention_model::Model model(shape);
      const attention_model::Wanted wanted(model);
      for (const ec_dtype dtype : {EC_FLOAT32, EC_BFLOAT16, EC_FLOAT16}) {
        attention_call::Call call(model, dtype);
        call.forward(2);
        attention_call::results_are_right(call, wanted);
        call.backward(2, false, dtype);
        attention_call::gradients_are_right(call, wanted);
      }
    }
    for (const bool others : {false, true}) {
      AttentionProblem problem = problem_of({1, 8, 16}, 16, NumberKind::kBFloat16);
      if (others) problem.value = problem.key, problem.value.data = problem.query.data;
      const int64_t most = ec::cuda::attention_most_row_bytes(problem);
      CHECK(most > static_cast<int64_t>(kilobytes << 10) / 5);
      problem.key_columns = most / 2 - (others ? 16 : 0);
      problem.value_columns = others ? 16 : problem.key_columns;
      CHECK(ec::cuda::attention_supported(problem));
      problem.key_columns += 1;
      if (!others) problem.value_columns += 1;
      CHECK(!ec::cuda::attention_supported(problem));
    }
  }
  ec::emulation::most_shared() = before;
}

}  // namespace

int main() {
  blocks_share_what_the_device_has();
  scratch_is_a_twentieth_of_the_tokens();
  return check::report();
}
