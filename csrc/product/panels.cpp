// SPDX-License-Identifier: Apache-2.0
#include "product/panels.h"

#include <cstring>

#include "core/isa_table.h"
#include "core/parallel.h"

EC_IMPORT_TABLES(ProductKernels, product)

namespace ec {

bool SlotOrder::build(int64_t rows, int panel_rows) {
  groups = 1;
  slots = round_up(rows, panel_rows);
  panels = slots / panel_rows;
  if (!row.allocate(slots) || !group.allocate(panels)) return false;
  for (int64_t slot = 0; slot < slots; ++slot) row.data()[slot] = slot < rows ? slot : -1;
  for (int64_t panel = 0; panel < panels; ++panel) group.data()[panel] = 0;
  return true;
}

bool SlotOrder::build(const int32_t* labels, int64_t rows, int64_t group_count, int panel_rows) {
  groups = group_count;
  AlignedBuffer<int64_t> next;  // first free slot of each group
  if (!next.allocate(groups)) return false;
  for (int64_t g = 0; g < groups; ++g) next.data()[g] = 0;
  for (int64_t i = 0; i < rows; ++i) ++next.data()[labels[i]];
  slots = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t size = next.data()[g];
    next.data()[g] = slots;
    slots += round_up(size, panel_rows);
  }
  panels = slots / panel_rows;
  if (!row.allocate(slots) || !group.allocate(panels)) return false;
  for (int64_t slot = 0; slot < slots; ++slot) row.data()[slot] = -1;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t end = g + 1 < groups ? next.data()[g + 1] : slots;
    for (int64_t panel = next.data()[g] / panel_rows; panel < end / panel_rows; ++panel)
      group.data()[panel] = static_cast<int32_t>(g);
  }
  for (int64_t i = 0; i < rows; ++i) row.data()[next.data()[labels[i]]++] = i;
  return true;
}

namespace {

class Packer {
 public:
  Packer(const MatrixRows& rows, const SlotOrder& order, const float* weights,
         const RowTransform& transform, Isa isa, Panels* panels, FirstFault* fault)
      : rows_(rows),
        order_(order),
        weights_(weights),
        transform_(transform),
        row_kernels_(*row_kernels(isa)),
        panels_(*panels),
        fault_(*fault) {}

  // scratch holds 2 * columns floats.
  void pack_panel(int64_t panel, float* scratch) {
    const int width = panels_.panel_rows;
    uint32_t* words = panels_.words.data() + panel * panels_.word_groups * width;
    // The last row is padding if any is; and a last group of columns may be filled in part only.
    const bool padded = order_.row.data()[(panel + 1) * width - 1] < 0;
    const int64_t kept = padded ? 0 : panels_.word_groups - 1;
    std::memset(words + kept * width, 0,
                static_cast<size_t>((panels_.word_groups - kept) * width) * sizeof(uint32_t));
    for (int r = 0; r < width; ++r) {
      const int64_t slot = panel * width + r;
      const int64_t row = order_.row.data()[slot];
      panels_.weight.data()[slot] = row < 0 ? 0.0f : weights_ == nullptr ? 1.0f : weights_[row];
      panels_.squared_norm.data()[slot] = 0.0f;
      if (panels_.precision != Precision::kFloat32) panels_.scale.data()[slot] = 0.0f;
      if (panels_.precision == Precision::kInt8) panels_.bias.data()[slot] = 0;
      if (row >= 0) pack_slot(slot, row, words + r, scratch);
    }
  }

 private:
  void pack_slot(int64_t slot, int64_t row, uint32_t* to, float* scratch) {
    const int64_t columns = rows_.columns();
    float* values = scratch + columns;
    RowFault fault;
    if (transform_.to_unit) {
      UnitRow unit;
      fault = rows_.as_unit(row, scratch, &unit);
      if (fault == RowFault::kNone)
        row_kernels_.shift_scale(unit.values, nullptr, unit.scale, columns, values);
    } else {
      fault = rows_.as_shifted(row, transform_.center, transform_.center_float, transform_.scale, values);
    }
    if (fault != RowFault::kNone) {
      fault_.report(row, fault);
      return;
    }
    panels_.squared_norm.data()[slot] = static_cast<float>(row_kernels_.sum_squares(values, columns));
    if (panels_.precision == Precision::kFloat32)
      row_kernels_.pack_float(values, columns, to);
    else if (panels_.precision == Precision::kBFloat16)
      row_kernels_.pack_bfloat(values, columns, to, &panels_.scale.data()[slot]);
    else
      row_kernels_.pack_int8(values, columns, to, &panels_.scale.data()[slot], &panels_.bias.data()[slot]);
  }

  const MatrixRows& rows_;
  const SlotOrder& order_;
  const float* weights_;
  const RowTransform& transform_;
  const RowKernels& row_kernels_;
  Panels& panels_;
  FirstFault& fault_;
};

}  // namespace

ec_status pack_panels(const MatrixRows& rows, const SlotOrder& order, const float* weights,
                      const RowTransform& transform, Precision precision, Isa isa, int threads,
                      const ec_monitor* monitor, Panels* panels, FirstFault* fault) {
  const ProductKernels& product = *product_kernels(isa);
  const int per_group = precision == Precision::kFloat32    ? 1
                        : precision == Precision::kBFloat16 ? 2
                                                            : product.int8_group;
  panels->precision = precision;
  panels->panel_rows = product.panel_rows;
  panels->word_groups = (rows.columns() + per_group - 1) / per_group;
  int64_t words = 0;
  if (!multiply_sizes(order.slots, panels->word_groups, &words)) return EC_OUT_OF_MEMORY;
  // The rows of a tile are fetched ahead of their use, past the end of the last panel: only the address
  // is formed there.
  if (!panels->words.allocate(words) || !panels->squared_norm.allocate(order.slots) ||
      !panels->weight.allocate(order.slots))
    return EC_OUT_OF_MEMORY;
  if (precision != Precision::kFloat32 && !panels->scale.allocate(order.slots)) return EC_OUT_OF_MEMORY;
  if (precision == Precision::kInt8 && !panels->bias.allocate(order.slots)) return EC_OUT_OF_MEMORY;
  // Several panels a task, so that small problems stay on one thread.
  const int64_t panels_per_task = 1 + (int64_t{1} << 17) / (product.panel_rows * rows.columns() + 1);
  const int64_t tasks = (order.panels + panels_per_task - 1) / panels_per_task;
  AlignedBuffer<float> scratch;
  const int64_t scratch_each = round_up(2 * rows.columns(), 16);
  if (!scratch.allocate(worker_count(tasks, threads) * scratch_each)) return EC_OUT_OF_MEMORY;
  Packer packer(rows, order, weights, transform, isa, panels, fault);
  return parallel_for(tasks, threads, monitor, [&](int64_t task, int worker) {
    const int64_t end = (task + 1) * panels_per_task;
    for (int64_t panel = task * panels_per_task; panel < end && panel < order.panels; ++panel)
      packer.pack_panel(panel, scratch.data() + worker * scratch_each);
  });
}

}  // namespace ec
