// SPDX-License-Identifier: Apache-2.0
#include "ann/hopper/hopper_scan.h"

#include "ann/hopper/scan_tiles.cuh"

namespace ec::cuda::ann {
namespace {

constexpr int64_t kMostRows = int64_t{1} << 30;

template <bool kByBits>
void launch_tiles(const HopperScan& problem, int64_t tiles, Stream stream) {
  allow_shared(scan_tiles<kByBits>, kScanSharedBytes);
  EC_LAUNCH_BEHIND(scan_tiles<kByBits>, static_cast<unsigned>(tiles * problem.scan.segments), kScanThreads,
                   kScanSharedBytes, stream, problem);
}

}  // namespace

bool runs_hopper_scan(int major, int minor) { return major == 9 && minor == 0; }

bool fits_hopper_scan(const IndexRows& index) { return index.rows >= 1 && index.rows <= kMostRows; }

int hopper_scan_rows() { return kScanRows; }
int hopper_scan_few_rows() { return kFewRows; }

void run_hopper_scan(const ScanProblem& scan, int64_t tiles, bool by_bits, Stream stream) {
  HopperScan problem = {};
  problem.scan = scan;
  const IndexRows& index = scan.index;
  if (!make_tile_map(index.codes, index.rows, index.padded, kScanRows, &problem.rows) ||
      !make_tile_map(scan.queries.codes, scan.queries.count, index.padded, kTile, &problem.queries))
    return;
  if (by_bits)
    launch_tiles<true>(problem, tiles, stream);
  else
    launch_tiles<false>(problem, tiles, stream);
}

}  // namespace ec::cuda::ann
