// SPDX-License-Identifier: Apache-2.0
// The C ABI of depth: checks, sums (cosine, or every pair), and the step from sums to depths.
#include <cmath>
#include <cstring>
#include <new>

#include "capi/embedcore.h"
#include "core/errors.h"
#include "depth/mean_direction.h"
#include "depth/pairwise_run.h"
#include "depth/projection_run.h"
#include "depth/score.h"
#include "depth/spatial.h"

namespace ec {

namespace {

// Mean cosines beyond this have no usable slope; such corpora are taken in float32 (see near_share).
constexpr double kLargestMeanCosine = 0.98;
// Reduced precision pays as long as few pairs need exact treatment; beyond this share float32 is faster.
constexpr double kLargestNearShare = 0.02;
constexpr int64_t kSampledPairs = 256;

bool is_pairwise(ec_depth_metric metric) {
  return metric == EC_DEPTH_CHORD || metric == EC_DEPTH_ARC || metric == EC_DEPTH_L2;
}

bool is_projected(ec_depth_metric metric) {
  return metric == EC_DEPTH_HALFSPACE || metric == EC_DEPTH_PROJECTION || metric == EC_DEPTH_IRW;
}

PairMetric pair_metric(ec_depth_metric metric) {
  return metric == EC_DEPTH_CHORD ? PairMetric::kChord
         : metric == EC_DEPTH_ARC ? PairMetric::kArc
                                  : PairMetric::kL2;
}

ec_status raise_fault(const FirstFault& x_fault, const FirstFault& corpus_fault, bool self,
                      ec_error* error) {
  if (x_fault.any()) return x_fault.raise("x", error);
  if (corpus_fault.any()) return corpus_fault.raise(self ? "x" : "corpus", error);
  return EC_OK;
}

ec_status finish_status(ec_status status, ec_error* error) {
  if (status == EC_OUT_OF_MEMORY)
    return fail(error, status, "", -1, "not enough memory for the scratch space of this call");
  return status;
}

// Share of pairs, in a fixed sample, that a reduced precision would leave to exact treatment.
double near_share(const MatrixRows& x, const MatrixRows& corpus, bool self, const RowKernels& kernels,
                  float limit, float* scratch) {
  float* other_scratch = scratch + round_up(x.columns(), 16);
  uint64_t state = 0x9e3779b97f4a7c15u;
  const auto next_row = [&state](int64_t rows) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(rows));
  };
  int64_t pairs = 0, near = 0;
  for (int64_t p = 0; p < kSampledPairs; ++p) {
    const int64_t i = next_row(x.rows()), j = next_row(corpus.rows());
    if (self && i == j) continue;
    UnitRow a, b;
    if (x.as_unit(i, scratch, &a) != RowFault::kNone) return 0.0;
    if (corpus.as_unit(j, other_scratch, &b) != RowFault::kNone) return 0.0;
    const double c = kernels.dot(a.values, b.values, x.columns()) * static_cast<double>(a.scale) *
                     static_cast<double>(b.scale);
    near += std::fabs(c) > static_cast<double>(limit) ? 1 : 0;
    ++pairs;
  }
  return pairs == 0 ? 0.0 : static_cast<double>(near) / static_cast<double>(pairs);
}

class Scorer {
 public:
  Scorer(const ec_matrix& x, const ec_matrix* corpus, const ec_depth_options& options, double* depths)
      : options_(options),
        run_{current_isa(), options.threads, options.monitor},
        kernels_(*row_kernels(run_.isa)),
        x_(x, kernels_),
        corpus_(corpus == nullptr ? x : *corpus, kernels_),
        self_(corpus == nullptr),
        parts_{options.weights, options.labels, options.groups},
        depths_(depths) {}

  ec_status run(ec_error* error) {
    ec_status status = total_weights(error);
    if (status != EC_OK) return status;
    status = run_metric();
    if (status == EC_OK && direction_fault_.any()) return direction_fault_.raise("directions", error);
    if (status == EC_OK) status = raise_fault(x_fault_, corpus_fault_, self_, error);
    return finish_status(status, error);
  }

 private:
  ec_status run_metric() {
    if (is_pairwise(options_.metric)) return pairwise();
    if (options_.metric == EC_DEPTH_SPATIAL) return spatial();
    if (is_projected(options_.metric)) return projected();
    return cosine();
  }

  // Weight of each group; with leave-one-out every row must leave some weight behind.
  ec_status total_weights(ec_error* error) {
    if (!totals_.allocate(parts_.groups)) return finish_status(EC_OUT_OF_MEMORY, error);
    for (int64_t g = 0; g < parts_.groups; ++g) totals_.data()[g] = 0.0;
    for (int64_t j = 0; j < corpus_.rows(); ++j) totals_.data()[parts_.group(j)] += parts_.weight(j);
    for (int64_t g = 0; g < parts_.groups; ++g)
      if (!(totals_.data()[g] > 0.0)) return no_weight(g, -1, error);
    if (!self_ || options_.raw_sums != 0) return EC_OK;
    for (int64_t i = 0; i < x_.rows(); ++i)
      if (!(remaining_weight(i, parts_.group(i)) > 0.0)) return no_weight(parts_.group(i), i, error);
    return EC_OK;
  }

  ec_status no_weight(int64_t group, int64_t row, ec_error* error) const {
    const char* argument = self_ ? "x" : "corpus";
    if (row < 0)
      return fail(error, EC_INVALID_VALUE, argument, -1,
                  "'%s' must have a row of positive weight in every group; group %lld has none", argument,
                  static_cast<long long>(group));
    return fail(error, EC_INVALID_VALUE, argument, row,
                "'%s' must have another row of positive weight in the group of each row, which is left "
                "out of its own depth; row %lld is alone in group %lld",
                argument, static_cast<long long>(row), static_cast<long long>(group));
  }

  double remaining_weight(int64_t row, int64_t group) const {
    const double total = totals_.data()[group];
    return self_ && parts_.group(row) == group ? total - parts_.weight(row) : total;
  }

  ec_status mean_cosine_sums(double* cosine_sums) {
    AlignedBuffer<double> sums;
    if (!sums.allocate(parts_.groups * corpus_.columns())) return EC_OUT_OF_MEMORY;
    ec_status status = sum_directions(corpus_, parts_, run_, sums.data(), totals_.data(), &corpus_fault_);
    if (status != EC_OK || corpus_fault_.any()) return status;
    return sum_cosines(x_, sums.data(), parts_.groups, self_ ? &parts_ : nullptr, run_, cosine_sums,
                       self_ ? &corpus_fault_ : &x_fault_);
  }

  ec_status cosine() {
    const ec_status status = mean_cosine_sums(depths_);
    if (status != EC_OK || options_.raw_sums != 0) return status;
    for_each([this](int64_t row, int64_t group, double* value) {
      *value = 1.0 + *value / remaining_weight(row, group);
    });
    return EC_OK;
  }

  ec_status pairwise() {
    PairwiseProblem problem = {&x_, self_ ? nullptr : &corpus_, parts_, pair_metric(options_.metric),
                               Precision::kFloat32};
    ec_status status = choose_precision(&problem);
    if (status != EC_OK) return status;
    const bool corrected = problem.precision != Precision::kFloat32;
    AlignedBuffer<double> computed, exact;  // sums of cosines
    if (corrected &&
        (!computed.allocate(x_.rows() * parts_.groups) || !exact.allocate(x_.rows() * parts_.groups)))
      return EC_OUT_OF_MEMORY;
    if (corrected) {
      status = mean_cosine_sums(exact.data());
      if (status != EC_OK || corpus_fault_.any() || x_fault_.any()) return status;
    }
    status = sum_distances(problem, run_, depths_, computed.data(), &x_fault_, &corpus_fault_);
    if (status != EC_OK || corpus_fault_.any() || x_fault_.any()) return status;
    if (corrected) correct(problem.metric, computed.data(), exact.data());
    if (options_.raw_sums != 0) return EC_OK;
    for_each([&](int64_t row, int64_t group, double* value) {
      *value = depth_of_mean_distance(problem.metric, *value / remaining_weight(row, group));
    });
    return EC_OK;
  }

  ec_status spatial() {
    const SpatialProblem problem = {&x_, self_ ? nullptr : &corpus_, parts_};
    const bool raw = options_.raw_sums != 0;
    const ec_status status =
        sum_unit_differences(problem, run_, raw ? SpatialResult::kVector : SpatialResult::kLength, depths_,
                             &x_fault_, &corpus_fault_);
    if (status != EC_OK || raw) return status;
    for_each([this](int64_t row, int64_t group, double* value) {
      *value = std::fmax(0.0, 1.0 - *value / remaining_weight(row, group));
    });
    return EC_OK;
  }

  ec_status projected() {
    const ProjectionProblem problem = {&x_, self_ ? nullptr : &corpus_, parts_, options_.directions,
                                       options_.metric};
    return project_depths(problem, run_, depths_, &x_fault_, &corpus_fault_, &direction_fault_);
  }

  ec_status choose_precision(PairwiseProblem* problem) const {
    if (options_.precision == EC_PRECISION_FLOAT32 || options_.metric == EC_DEPTH_L2) return EC_OK;
    AlignedBuffer<float> scratch;
    if (!scratch.allocate(2 * round_up(x_.columns(), 16))) return EC_OUT_OF_MEMORY;
    const auto wanted = static_cast<Precision>(options_.precision);
    const float limit = near_limit(problem->metric, wanted);
    if (near_share(x_, corpus_, self_, kernels_, limit, scratch.data()) <= kLargestNearShare)
      problem->precision = wanted;
    return EC_OK;
  }

  // sum delta(c) ~ sum delta(c~) + delta'(mean c~) (sum c - sum c~), where c~ are the computed cosines
  // and sum c is known exactly.
  void correct(PairMetric metric, const double* computed, const double* exact) {
    for_each([&](int64_t row, int64_t group, double* value) {
      const int64_t at = row * parts_.groups + group;
      double mean = computed[at] / remaining_weight(row, group);
      mean = std::fmax(-kLargestMeanCosine, std::fmin(kLargestMeanCosine, mean));
      *value += pair_slope(metric, mean) * (exact[at] - computed[at]);
    });
  }

  template <class Step>
  void for_each(Step&& step) {
    for (int64_t row = 0; row < x_.rows(); ++row)
      for (int64_t group = 0; group < parts_.groups; ++group)
        step(row, group, &depths_[row * parts_.groups + group]);
  }

  const ec_depth_options& options_;
  const RunOptions run_;
  const RowKernels& kernels_;
  const MatrixRows x_, corpus_;
  const bool self_;
  const CorpusParts parts_;
  double* const depths_;
  AlignedBuffer<double> totals_;
  FirstFault x_fault_, corpus_fault_, direction_fault_;
};

}  // namespace

}  // namespace ec

extern "C" {

ec_status ec_depth_score(const ec_matrix* x, const ec_matrix* corpus, const ec_depth_options* options,
                         double* depths, ec_error* error) {
  const ec_status status = ec::check_depth_call(x, corpus, options, error);
  if (status != EC_OK) return status;
  return ec::Scorer(*x, corpus, *options, depths).run(error);
}

ec_status ec_depth_direction_sums(const ec_matrix* corpus, const ec_depth_options* options, double* sums,
                                  double* totals, ec_error* error) {
  const ec_status checked = ec::check_depth_call(corpus, nullptr, options, error);
  if (checked != EC_OK) return checked;
  const ec::RunOptions run = {ec::current_isa(), options->threads, options->monitor};
  const ec::MatrixRows rows(*corpus, *ec::row_kernels(run.isa));
  const ec::CorpusParts parts = {options->weights, options->labels, options->groups};
  ec::FirstFault fault;
  const ec_status status = ec::sum_directions(rows, parts, run, sums, totals, &fault);
  if (status == EC_OK && fault.any()) return fault.raise("corpus", error);
  return ec::finish_status(status, error);
}

ec_status ec_depth_cosine_sums(const ec_matrix* x, const double* sums, int64_t groups, int32_t threads,
                               const ec_monitor* monitor, double* cosine_sums, ec_error* error) {
  const ec::RunOptions run = {ec::current_isa(), threads, monitor};
  const ec::MatrixRows rows(*x, *ec::row_kernels(run.isa));
  ec::FirstFault fault;
  const ec_status status = ec::sum_cosines(rows, sums, groups, nullptr, run, cosine_sums, &fault);
  if (status == EC_OK && fault.any()) return fault.raise("x", error);
  return ec::finish_status(status, error);
}

}  // extern "C"
