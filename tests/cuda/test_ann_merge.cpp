// SPDX-License-Identifier: Apache-2.0
// Lists of all places into one, of few places and many, most of them empty or all full.
#include <algorithm>
#include <functional>
#include <vector>

#include "ann/answers.cuh"
#include "native/check.h"
#include "native/numbers.h"

namespace {

using namespace ec::cuda::ann;
using ec::cuda::kPairThreads;
using ec::cuda::kWarpSize;

constexpr int kPositions = 2;
enum class Fill { kNone, kFew, kSome, kAll };

__global__ void merge(const ScanProblem problem) {
  const int thread = static_cast<int>(threadIdx.x);
  merge_places(problem, blockIdx.x, thread % kWarpSize, thread / kWarpSize);
}

// Keys of a list, greatest first.
std::vector<Key> keys_of(Fill fill, int place, int kept, numbers::Source& source) {
  std::vector<Key> keys(static_cast<size_t>(kept));
  const int some = static_cast<int>((0.5 + 0.5 * source.next()) * kept);
  const int count = fill == Fill::kAll                      ? kept
                    : fill == Fill::kSome                   ? some
                    : fill == Fill::kFew && place % 13 == 3 ? 3
                                                            : 0;
  for (int i = 0; i < count; ++i)
    keys[static_cast<size_t>(i)] =
        key_of(static_cast<float>(source.next()), static_cast<uint32_t>(place * kept + i));
  std::sort(keys.begin(), keys.end(), std::greater<>());
  return keys;
}

void the_best_of_all_places(int places, Fill fill, int kept) {
  numbers::Source source(static_cast<uint64_t>(places));
  std::vector<Key> lists, right[kPositions];
  for (std::vector<Key>& best : right) {
    for (int place = 0; place < places; ++place) {
      const std::vector<Key> keys = keys_of(fill, place, kept, source);
      lists.insert(lists.end(), keys.begin(), keys.end());
      best.insert(best.end(), keys.begin(), keys.end());
    }
    std::sort(best.begin(), best.end(), std::greater<>());
  }
  ScanProblem problem = {};
  problem.lists = lists.data();
  problem.kept = kept;
  problem.places = problem.segments = places;
  EC_LAUNCH(merge, kPositions, kPairThreads, 0, nullptr, problem);
  for (int position = 0; position < kPositions; ++position)
    CHECK(std::equal(right[position].begin(), right[position].begin() + kept,
                     lists.begin() + position * places * kept));
}

}  // namespace

int main() {
  for (const int places : {1, 2, 8, 9, 16, 31, 32, 33, 63, 64, 65, 132, 200})
    for (const Fill fill : {Fill::kNone, Fill::kFew, Fill::kSome, Fill::kAll}) {
      the_best_of_all_places(places, fill, kWarpSize);
      if (places < 40) the_best_of_all_places(places, fill, 3 * kWarpSize);
    }
  return check::report();
}
