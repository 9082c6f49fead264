// SPDX-License-Identifier: Apache-2.0
// A corpus and the rows that are scored in it, packed alike: what every depth over pairs starts from.
#pragma once

#include "depth/mean_direction.h"
#include "depth/origin.h"
#include "product/panels.h"

namespace ec {

enum class Packing { kUnit, kShifted };  // rows as directions, or moved to the origin of the corpus

class PackedPair {
 public:
  // corpus may be null: the corpus is x, packed once.
  PackedPair(const MatrixRows& x, const MatrixRows* corpus, const CorpusParts& parts)
      : x_(x), corpus_(corpus == nullptr ? x : *corpus), self_(corpus == nullptr), parts_(parts) {}

  // Faults of x and of the corpus (of x too where it is the corpus) are reported, and EC_OK returned.
  ec_status pack(Packing packing, Precision precision, const RunOptions& run, FirstFault* x_fault,
                 FirstFault* corpus_fault);

  bool self() const { return self_; }
  const MatrixRows& x() const { return x_; }
  const MatrixRows& corpus() const { return corpus_; }
  const SlotOrder& x_order() const { return self_ ? corpus_order_ : x_order_; }
  const SlotOrder& corpus_order() const { return corpus_order_; }
  const Panels& x_panels() const { return self_ ? corpus_panels_ : x_panels_; }
  const Panels& corpus_panels() const { return corpus_panels_; }
  const Origin& origin() const { return origin_; }

 private:
  ec_status pack_once(Packing packing, Precision precision, const RunOptions& run, FirstFault* x_fault,
                      FirstFault* corpus_fault);

  const MatrixRows& x_;
  const MatrixRows& corpus_;
  const bool self_;
  const CorpusParts parts_;
  Origin origin_;
  SlotOrder x_order_, corpus_order_;
  Panels x_panels_, corpus_panels_;
};

}  // namespace ec
