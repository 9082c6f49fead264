// SPDX-License-Identifier: Apache-2.0
#include "product/panels.h"

#include <cstring>

#include "core/isa_table.h"
#include "core/parallel.h"
#include "product/product_tiles.h"

EC_IMPORT_TABLES(ProductKernels, product)
EC_IMPORT_TILED_TABLE(ProductTileKernels, product_tiles)

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
        product_(*product_kernels(isa)),
        panels_(*panels),
        fault_(*fault) {}

  // Floats of scratch that pack_panel uses.
  static int64_t scratch_floats(int64_t columns, int lanes) { return (lanes + 1) * stride_of(columns); }

  void pack_panel(int64_t panel, float* scratch) {
    const int lanes = product_.lanes;
    uint32_t* words = panels_.words.data() + panel * panels_.word_groups * panels_.panel_rows;
    const int64_t stride = stride_of(rows_.columns());
    float* packed = scratch + stride;
    for (int first = 0; first < panels_.panel_rows; first += lanes) {
      // Padding comes last: the first row tells of all.
      const bool padding = order_.row.data()[panel * panels_.panel_rows + first] < 0;
      for (int r = 0; r < lanes; ++r)
        pack_slot(panel * panels_.panel_rows + first + r, scratch, padding ? nullptr : packed + r * stride);
      if (padding)
        clear_columns(words + first);
      else
        row_kernels_.interleave(packed, stride, panels_.word_groups, words + first);
    }
  }

 private:
  void clear_columns(uint32_t* words) const {
    for (int64_t k = 0; k < panels_.word_groups; ++k)
      std::memset(words + k * panels_.panel_rows, 0,
                  static_cast<size_t>(product_.lanes) * sizeof(uint32_t));
  }

  // An odd number of cache lines, so that the rows of a vector do not share cache sets.
  static int64_t stride_of(int64_t columns) { return round_up(columns, 32) + 16; }

  // to is null for padding that nobody interleaves.
  void pack_slot(int64_t slot, float* scratch, float* to) {
    const int64_t row = order_.row.data()[slot], columns = rows_.columns();
    panels_.weight.data()[slot] = row < 0 ? 0.0f : weights_ == nullptr ? 1.0f : weights_[row];
    panels_.squared_norm.data()[slot] = 0.0f;
    if (panels_.precision != Precision::kFloat32) panels_.scale.data()[slot] = 0.0f;
    if (panels_.precision == Precision::kInt8) panels_.bias.data()[slot] = 0;
    if (to == nullptr) return;
    const RowFault fault = row < 0 ? RowFault::kNone : transform(row, slot, scratch, to);
    if (fault != RowFault::kNone) fault_.report(row, fault);
    if (row < 0 || fault != RowFault::kNone) {
      std::memset(to, 0, static_cast<size_t>(columns) * sizeof(float));
    } else if (panels_.precision == Precision::kBFloat16) {
      row_kernels_.round_bfloat(to, columns, &panels_.scale.data()[slot]);
    } else if (panels_.precision == Precision::kInt8) {
      row_kernels_.round_int8(to, columns, &panels_.scale.data()[slot], &panels_.bias.data()[slot]);
    }
  }

  RowFault transform(int64_t row, int64_t slot, float* scratch, float* to) {
    if (transform_.to_unit) {
      UnitRow unit;
      const RowFault fault = rows_.as_unit(row, scratch, &unit);
      if (fault == RowFault::kNone)
        row_kernels_.shift_scale(unit.values, nullptr, unit.scale, rows_.columns(), to);
      return fault;
    }
    const RowFault fault =
        rows_.as_shifted(row, transform_.center, transform_.center_float, transform_.scale, to);
    panels_.squared_norm.data()[slot] = static_cast<float>(row_kernels_.sum_squares(to, rows_.columns()));
    return fault;
  }

  const MatrixRows& rows_;
  const SlotOrder& order_;
  const float* weights_;
  const RowTransform& transform_;
  const RowKernels& row_kernels_;
  const ProductKernels& product_;
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
  const int64_t scratch_each = Packer::scratch_floats(rows.columns(), product.lanes);
  if (!scratch.allocate(worker_count(tasks, threads) * scratch_each)) return EC_OUT_OF_MEMORY;
  Packer packer(rows, order, weights, transform, isa, panels, fault);
  return parallel_for(tasks, threads, monitor, [&](int64_t task, int worker) {
    const int64_t end = (task + 1) * panels_per_task;
    for (int64_t panel = task * panels_per_task; panel < end && panel < order.panels; ++panel)
      packer.pack_panel(panel, scratch.data() + worker * scratch_each);
  });
}

}  // namespace ec
