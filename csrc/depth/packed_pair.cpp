// SPDX-License-Identifier: Apache-2.0
#include "depth/packed_pair.h"

namespace ec {

ec_status PackedPair::pack(Packing packing, Precision precision, const RunOptions& run, FirstFault* x_fault,
                           FirstFault* corpus_fault) {
  const int width = product_kernels(run.isa)->panel_rows;
  const bool ordered = parts_.labels != nullptr
                           ? corpus_order_.build(parts_.labels, corpus_.rows(), parts_.groups, width)
                           : corpus_order_.build(corpus_.rows(), width);
  if (!ordered || (!self_ && !x_order_.build(x_.rows(), width))) return EC_OUT_OF_MEMORY;
  const MatrixRows* other = self_ ? nullptr : &x_;
  if (packing == Packing::kShifted && !origin_.fit(corpus_, other)) return EC_OUT_OF_MEMORY;
  const ec_status status = pack_once(packing, precision, run, x_fault, corpus_fault);
  const bool too_large = x_fault->too_large() || corpus_fault->too_large();
  if (status != EC_OK || !too_large || x_fault->any() || corpus_fault->any()) return status;
  origin_.rescale(corpus_, other);
  return pack_once(packing, precision, run, x_fault, corpus_fault);
}

ec_status PackedPair::pack_once(Packing packing, Precision precision, const RunOptions& run,
                                FirstFault* x_fault, FirstFault* corpus_fault) {
  RowTransform transform;
  if (packing == Packing::kShifted) transform = origin_.transform();
  const ec_status status = pack_panels(corpus_, corpus_order_, parts_.weights, transform, precision,
                                       run.isa, run.threads, run.monitor, &corpus_panels_, corpus_fault);
  if (status != EC_OK || self_) return status;
  return pack_panels(x_, x_order_, nullptr, transform, precision, run.isa, run.threads, run.monitor,
                     &x_panels_, x_fault);
}

}  // namespace ec
