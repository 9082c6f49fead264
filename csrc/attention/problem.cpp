// SPDX-License-Identifier: Apache-2.0
#include "attention/problem.h"

#include <algorithm>
#include <cstring>

#include "attention/check.h"
#include "core/errors.h"
#include "core/isa_table.h"

EC_IMPORT_TABLES(AttentionKernels, attention)
EC_IMPORT_TABLES(AttentionScoreKernels, attention_scores)
EC_IMPORT_TABLES_WITH_TILES(BFloatKernels, attention_bfloat)

namespace ec {
namespace {

constexpr int64_t kLeastSegment = 256;
constexpr int64_t kMostSegment = 1 << 16;  // calls are interrupted between segments
constexpr int64_t kSegmentsWanted = 64;
// Where there are this many sequences, only long ones are cut.
constexpr int64_t kManySequences = 16;
constexpr int64_t kUncutTokens = 1024;

double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent == 31  ? (fraction == 0 ? HUGE_VAL : NAN)
                 : exponent == 0 ? std::ldexp(fraction, -24)
                                 : std::ldexp(fraction + 1024, exponent - 25);
  return (bits & 0x8000) != 0 ? -value : value;
}

float bfloat_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

ec_status check_offsets(const ec_attention_problem& problem, ec_error* error) {
  const int64_t* offsets = problem.offsets;
  if (offsets[0] != 0)
    return fail(error, EC_INVALID_VALUE, "cu_seqlens", 0, "'cu_seqlens' must begin with 0; got %lld",
                static_cast<long long>(offsets[0]));
  for (int64_t b = 0; b < problem.sequences; ++b)
    if (offsets[b + 1] < offsets[b])
      return fail(error, EC_INVALID_VALUE, "cu_seqlens", b + 1,
                  "'cu_seqlens' must not fall; got %lld after %lld at index %lld",
                  static_cast<long long>(offsets[b + 1]), static_cast<long long>(offsets[b]),
                  static_cast<long long>(b + 1));
  if (offsets[problem.sequences] != problem.tokens)
    return fail(error, EC_INVALID_VALUE, "cu_seqlens", problem.sequences,
                "'cu_seqlens' must end with the number of tokens (%lld); got %lld",
                static_cast<long long>(problem.tokens), static_cast<long long>(offsets[problem.sequences]));
  return EC_OK;
}

ec_status check_lengths(const ec_attention_problem& problem, ec_error* error) {
  for (int64_t b = 0; b < problem.sequences; ++b)
    if (problem.lengths[b] < 0 || problem.lengths[b] > problem.tokens)
      return fail(error, EC_INVALID_VALUE, "lengths", b,
                  "'lengths' must be from 0 to the number of tokens (%lld); got %lld for sequence %lld",
                  static_cast<long long>(problem.tokens), static_cast<long long>(problem.lengths[b]),
                  static_cast<long long>(b));
  return EC_OK;
}

ec_status check_temperature(const ec_attention_problem& problem, ec_error* error) {
  const ec_array& array = problem.temperature;
  const bool fixed = array.data == nullptr;
  if (!fixed && problem.sequences == 0) return EC_OK;  // it may have no numbers
  const int64_t rows = fixed || array.stride[0] == 0 ? 1 : problem.sequences;
  const int64_t columns = fixed || array.stride[1] == 0 ? 1 : problem.heads;
  for (int64_t b = 0; b < rows; ++b)
    for (int64_t j = 0; j < columns; ++j) {
      const double t =
          fixed ? problem.fixed_temperature : array_value(array, b * array.stride[0] + j * array.stride[1]);
      if (t > 0.0 && !std::isinf(t)) continue;
      if (rows * columns == 1)
        return fail(error, EC_INVALID_VALUE, "temperature", -1,
                    "'temperature' must be positive and finite; got %g", t);
      return fail(error, EC_INVALID_VALUE, "temperature", b,
                  "'temperature' must be positive and finite; got %g for sequence %lld, head %lld", t,
                  static_cast<long long>(b), static_cast<long long>(j));
    }
  return EC_OK;
}

}  // namespace

double array_value(const ec_array& array, int64_t element) {
  switch (array.dtype) {
    case EC_FLOAT64:
      return static_cast<const double*>(array.data)[element];
    case EC_FLOAT32:
      return static_cast<double>(static_cast<const float*>(array.data)[element]);
    case EC_BFLOAT16:
      return static_cast<double>(bfloat_value(static_cast<const uint16_t*>(array.data)[element]));
    default:
      return half_value(static_cast<const uint16_t*>(array.data)[element]);
  }
}

ec_status check_problem(const ec_attention_problem& problem, ec_error* error) {
  ec_status status = check_attention_shapes(problem, error);
  if (status == EC_OK && problem.offsets != nullptr) status = check_offsets(problem, error);
  if (status == EC_OK && problem.lengths != nullptr) status = check_lengths(problem, error);
  return status == EC_OK ? check_temperature(problem, error) : status;
}

int64_t Layout::all_tokens() const {
  if (ragged()) return problem_.tokens;
  int64_t sum = 0;
  for (int64_t b = 0; b < problem_.sequences; ++b) sum += length(b);
  return sum;
}

bool Segments::build(const ec_attention_problem& problem) {
  const Layout layout(problem);
  const int64_t least = problem.sequences >= kManySequences ? kUncutTokens : kLeastSegment;
  const int64_t size =
      round_up(std::clamp(layout.all_tokens() / kSegmentsWanted, least, kMostSegment), kBlockTokens);
  int64_t count = 0;
  for (int64_t b = 0; b < problem.sequences; ++b)
    count += std::max<int64_t>(1, (layout.length(b) + size - 1) / size);
  if (!list_.allocate(count)) return false;
  slots_ = 0;
  int64_t at = 0;
  for (int64_t b = 0; b < problem.sequences; ++b) {
    const int64_t length = layout.length(b), pieces = std::max<int64_t>(1, (length + size - 1) / size);
    // Pieces of equal length, in whole blocks.
    const int64_t step = round_up((length + pieces - 1) / pieces, kBlockTokens);
    for (int64_t piece = 0; piece < pieces; ++piece)
      list_[at++] = {b, std::min(piece * step, length), std::min((piece + 1) * step, length),
                     pieces == 1 ? -1 : slots_++};
  }
  return true;
}

BlockWalk::BlockWalk(const ec_attention_problem& problem, const Segment& segment)
    : problem_(problem), at_(segment.first), last_(segment.last) {
  const Layout layout(problem);
  keep_origin_ = layout.origin(problem.keep_stride, segment.sequence);
  mask_origin_ = layout.origin(problem.mask.stride, segment.sequence);
}

bool BlockWalk::counts(int64_t token) const {
  if (problem_.keep != nullptr && problem_.keep[keep_origin_ + token * problem_.keep_stride[1]] == 0)
    return false;
  if (problem_.mask.data == nullptr) return true;
  return array_value(problem_.mask, mask_origin_ + token * problem_.mask.stride[1]) != -HUGE_VAL;
}

bool BlockWalk::next(Block* block) {
  int64_t tokens = 0;
  if (problem_.keep == nullptr && problem_.mask.data == nullptr) {
    tokens = std::min<int64_t>(kBlockTokens, last_ - at_);
    for (int64_t t = 0; t < tokens; ++t) block->token[t] = at_ + t;
    at_ += tokens;
  } else {
    for (; at_ < last_ && tokens < kBlockTokens; ++at_)
      if (counts(at_)) block->token[tokens++] = at_;
  }
  block->tokens = tokens;
  block->contiguous = tokens > 0 && block->token[tokens - 1] - block->token[0] == tokens - 1;
  return tokens > 0;
}

template <class Real>
void inverse_temperatures(const ec_attention_problem& problem, int64_t sequence, Real* inverse) {
  const ec_array& array = problem.temperature;
  const double largest = sizeof(Real) == sizeof(float) ? 1e37 : 1e300;
  for (int64_t j = 0; j < problem.heads; ++j) {
    const double t = array.data == nullptr
                         ? problem.fixed_temperature
                         : array_value(array, sequence * array.stride[0] + j * array.stride[1]);
    inverse[j] = static_cast<Real>(std::min(1.0 / t, largest));
  }
}
template void inverse_temperatures(const ec_attention_problem&, int64_t, float*);
template void inverse_temperatures(const ec_attention_problem&, int64_t, double*);

template <class Real>
bool scores_bounded(const ec_attention_problem& problem, const Real* inverse) {
  if (problem.mask.data != nullptr) return false;
  if (problem.activation == EC_ACTIVATION_NONE && problem.norm == EC_HEAD_NORM_NONE) return false;
  for (int64_t j = 0; j < problem.heads; ++j)
    if (static_cast<double>(inverse[j]) * kLeastBoundedTemperature > 1.0) return false;
  return true;
}
template bool scores_bounded(const ec_attention_problem&, const float*);
template bool scores_bounded(const ec_attention_problem&, const double*);

}  // namespace ec
