// SPDX-License-Identifier: Apache-2.0
// From coded rows to an index: k-means cells, then a pruned neighbour graph.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "ann/codes.h"
#include "capi/embedcore.h"
#include "core/workspace.h"

namespace ec {
namespace ann {

// Coded rows, in slot order. norms[i] = |x_i - mean|^2 of what was coded (for cosine of the unit vector).
struct CodedRows {
  CodeShape shape;
  const uint8_t* heads = nullptr;
  const uint8_t* tails = nullptr;  // null where tail_bytes is 0
  const float* norms = nullptr;
  int64_t rows = 0;
};

struct Cells;
struct IndexData;
struct Twins;

// Does most of a build in its place, where all rows are new: a device, say, to which rows are sent once.
// Steps are asked for in this order, `group` any number of times. Each may throw.
class BuildSteps {
 public:
  virtual ~BuildSteps() = default;
  // norms[i] = |x_i - mean|^2 of the rows of an index that has its vectors and codec; codes are kept where
  // they are made.
  virtual void encode(const IndexData& index, float* norms) = 0;
  // Of each of the slots the nearest of some centroids, the first of equals: of drawn rows, which move so
  // many times to the means of those rows of the sample that are nearest to them.
  virtual std::vector<uint32_t> group(const std::vector<uint32_t>& slots,
                                      const std::vector<uint32_t>& sample,
                                      const std::vector<uint32_t>& drawn, int moves) = 0;
  // heads[cells][head_bytes]: the means of the rows with each number in cell_of [rows].
  virtual void take_means(const std::vector<uint32_t>& cell_of, int64_t cells, uint8_t* heads) = 0;
  // Row i is row order[i] from now on; the codes of all rows.
  virtual void reorder(const std::vector<uint32_t>& order, uint8_t* heads, uint8_t* tails) = 0;
  // Begins to choose the links of an index that has codes and inverse norms in that order.
  virtual void begin_links(const IndexData& index, const Cells& cells, const Twins& twins) = 0;
  // [rows][degree], kNoSlot behind the last of a row.
  virtual std::vector<uint32_t> links() = 0;
};

// Chooses the links of all rows: [rows][degree], kNoSlot behind the last of a row.
using ChooseLinks = std::function<std::vector<uint32_t>(const Cells& cells, const Twins& twins)>;

struct BuildOptions {
  int degree = 32;
  int threads = 0;
  uint64_t seed = 0;
  const ec_monitor* monitor = nullptr;
  // Chooses links in place of the build, where all rows are new; null: the build does. It may throw.
  const ChooseLinks* choose_links = nullptr;
  // Where make_cells has rows whose codes are elsewhere, what has them; null: they are here.
  BuildSteps* steps = nullptr;
};

// Cell c holds the slots members[start[c]] ... members[start[c + 1] - 1], ascending.
struct Cells {
  std::vector<uint32_t> members;
  std::vector<uint32_t> start;  // cells + 1
  // Heads, [cells][head_bytes]. Their offset is -|centroid|^2 / 2 for every metric, their tail_norm the
  // root mean square distance of the cell's rows.
  AlignedBuffer<uint8_t> centroids;
  int64_t cells() const { return start.empty() ? 0 : static_cast<int64_t>(start.size()) - 1; }
};

// k-means over the heads. Deterministic for a seed at any number of threads. EC_INTERRUPTED,
// EC_OUT_OF_MEMORY.
ec_status make_cells(const CodedRows& rows, const BuildOptions& options, Cells* cells);

// links[i * degree ...]: neighbours of row i, kNoSlot where there are fewer; nearest first but for those
// added last so that from every row there is a way to every other. Rows with equal codes hang on the first
// of them. EC_INTERRUPTED, EC_OUT_OF_MEMORY.
ec_status make_graph(const CodedRows& rows, const Cells& cells, const BuildOptions& options,
                     uint32_t* links);

// Rows [first_new, rows.rows) join: cells' members and start grow, links of the new rows are made and
// links of old rows take them in. links has room for all rows. EC_INTERRUPTED, EC_OUT_OF_MEMORY: cells and
// links are then of no use.
ec_status insert_rows(const CodedRows& rows, int64_t first_new, const BuildOptions& options, Cells* cells,
                      uint32_t* links);

}  // namespace ann
}  // namespace ec
