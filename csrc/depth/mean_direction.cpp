// SPDX-License-Identifier: Apache-2.0
#include "depth/mean_direction.h"

#include <cstring>

#include "core/parallel.h"

namespace ec {

namespace {

// Partial sums are kept for each block of rows and added in order, so the number of threads does not
// show in the result. Float sums are emptied into double ones before they lose digits.
constexpr int64_t kMaxBlocks = 256;
constexpr int64_t kMinBlockRows = 256;
constexpr int64_t kRowsPerFloatSum = 64;

struct RowBlock {
  int64_t group, begin, end;  // into the rows ordered by group
};

struct BlockPlan {
  AlignedBuffer<int64_t> order;  // rows ordered by group; unused with one group
  AlignedBuffer<RowBlock> blocks;
  int64_t count = 0;
  bool ordered = false;

  bool build(int64_t rows, const CorpusParts& parts) {
    const int64_t block_rows =
        kMinBlockRows > rows / kMaxBlocks + 1 ? kMinBlockRows : rows / kMaxBlocks + 1;
    AlignedBuffer<int64_t> start;
    if (!start.allocate(parts.groups + 1) || !blocks.allocate(rows / block_rows + parts.groups + 1))
      return false;
    std::memset(start.data(), 0, static_cast<size_t>(parts.groups + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < rows; ++i) ++start.data()[parts.group(i) + 1];
    for (int64_t g = 0; g < parts.groups; ++g) {
      start.data()[g + 1] += start.data()[g];
      for (int64_t begin = start.data()[g]; begin < start.data()[g + 1]; begin += block_rows) {
        const int64_t end = begin + block_rows;
        blocks.data()[count++] = {g, begin, end < start.data()[g + 1] ? end : start.data()[g + 1]};
      }
    }
    ordered = parts.labels != nullptr;
    if (!ordered) return true;
    if (!order.allocate(rows)) return false;
    for (int64_t i = 0; i < rows; ++i) order.data()[start.data()[parts.group(i)]++] = i;
    return true;
  }

  int64_t row(int64_t position) const { return ordered ? order.data()[position] : position; }
};

void empty_into(float* from, int64_t columns, double* to) {
  for (int64_t i = 0; i < columns; ++i) {
    to[i] += static_cast<double>(from[i]);
    from[i] = 0.0f;
  }
}

// unit . (sum - weight unit), for rows that make up most of the sum.
double dot_without(const UnitRow& unit, const double* sum, double weight, int64_t columns) {
  double total = 0.0;
  for (int64_t i = 0; i < columns; ++i) total += unit.value(i) * (sum[i] - weight * unit.value(i));
  return total;
}

}  // namespace

ec_status sum_directions(const MatrixRows& rows, const CorpusParts& parts, const RunOptions& run,
                         double* sums, double* weight_totals, FirstFault* fault) {
  const RowKernels& kernels = *row_kernels(run.isa);
  const int64_t columns = rows.columns();
  BlockPlan plan;
  if (!plan.build(rows.rows(), parts)) return EC_OUT_OF_MEMORY;
  AlignedBuffer<double> partial;  // [blocks][columns + 1], the last is the sum of weights
  AlignedBuffer<float> scratch;   // [workers][2][columns]
  const int64_t scratch_each = 2 * round_up(columns, 16);
  if (!partial.allocate(plan.count * (columns + 1)) ||
      !scratch.allocate(worker_count(plan.count, run.threads) * scratch_each))
    return EC_OUT_OF_MEMORY;
  const double mean_weight = parts.mean_weight(rows.rows());
  const ec_status status =
      parallel_for(plan.count, run.threads, run.monitor, [&](int64_t task, int worker) {
        const RowBlock block = plan.blocks.data()[task];
        float* row_scratch = scratch.data() + worker * scratch_each;
        float* float_sum = row_scratch + scratch_each / 2;
        double* sum = partial.data() + task * (columns + 1);
        std::memset(float_sum, 0, static_cast<size_t>(columns) * sizeof(float));
        std::memset(sum, 0, static_cast<size_t>(columns + 1) * sizeof(double));
        int64_t in_float_sum = 0;
        for (int64_t position = block.begin; position < block.end; ++position) {
          const int64_t row = plan.row(position);
          UnitRow unit;
          const RowFault found = rows.as_unit(row, row_scratch, &unit);
          if (found != RowFault::kNone) {
            fault->report(row, found);
            continue;
          }
          const double weight = parts.weight(row);
          sum[columns] += weight;
          if (parts.dwarfs(row, mean_weight)) {
            for (int64_t i = 0; i < columns; ++i) sum[i] += weight * unit.value(i);
            continue;
          }
          kernels.add_scaled(unit.values, unit.scale * static_cast<float>(weight), columns, float_sum);
          if (++in_float_sum % kRowsPerFloatSum == 0) empty_into(float_sum, columns, sum);
        }
        empty_into(float_sum, columns, sum);
      });
  if (status != EC_OK) return status;
  std::memset(sums, 0, static_cast<size_t>(parts.groups * columns) * sizeof(double));
  for (int64_t g = 0; g < parts.groups; ++g) weight_totals[g] = 0.0;
  for (int64_t b = 0; b < plan.count; ++b) {
    const int64_t group = plan.blocks.data()[b].group;
    const double* sum = partial.data() + b * (columns + 1);
    for (int64_t i = 0; i < columns; ++i) sums[group * columns + i] += sum[i];
    weight_totals[group] += sum[columns];
  }
  return EC_OK;
}

ec_status sum_cosines(const MatrixRows& rows, const double* sums, int64_t groups,
                      const CorpusParts* own_parts, const RunOptions& run, double* cosine_sums,
                      FirstFault* fault) {
  const RowKernels& kernels = *row_kernels(run.isa);
  const int64_t columns = rows.columns();
  const int64_t tasks = (rows.rows() + kMinBlockRows - 1) / kMinBlockRows;
  const int64_t scratch_each = round_up(columns, 16);
  AlignedBuffer<float> direction, scratch;
  if (!direction.allocate(groups * columns) ||
      !scratch.allocate(worker_count(tasks, run.threads) * scratch_each))
    return EC_OUT_OF_MEMORY;
  const double mean_weight = own_parts == nullptr ? 1.0 : own_parts->mean_weight(rows.rows());
  for (int64_t i = 0; i < groups * columns; ++i) direction.data()[i] = static_cast<float>(sums[i]);
  return parallel_for(tasks, run.threads, run.monitor, [&](int64_t task, int worker) {
    const int64_t begin = task * kMinBlockRows;
    const int64_t end = begin + kMinBlockRows < rows.rows() ? begin + kMinBlockRows : rows.rows();
    float* row_scratch = scratch.data() + worker * scratch_each;
    for (int64_t row = begin; row < end; ++row) {
      double* to = cosine_sums + row * groups;
      UnitRow unit;
      const RowFault found = rows.as_unit_with_dot(row, direction.data(), row_scratch, &unit, &to[0]);
      if (found != RowFault::kNone) {
        fault->report(row, found);
        continue;
      }
      for (int64_t g = 1; g < groups; ++g)
        to[g] = kernels.dot(unit.values, direction.data() + g * columns, columns) *
                static_cast<double>(unit.scale);
      if (own_parts == nullptr) continue;
      const int64_t own_group = own_parts->group(row);
      to[own_group] -= own_parts->weight(row);
      if (own_parts->dwarfs(row, mean_weight))
        to[own_group] = dot_without(unit, sums + own_group * columns, own_parts->weight(row), columns);
    }
  });
}

}  // namespace ec
