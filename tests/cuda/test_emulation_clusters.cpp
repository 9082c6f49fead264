// SPDX-License-Identifier: Apache-2.0
// Clusters of blocks on the emulation: what they exchange, and which mistakes are found.
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "common/cluster.cuh"
#include "native/check.h"

namespace {

using ec::cuda::CopyBarrier;
using ec::cuda::shared_memory;
using ec::cuda::store_there;
using ec::cuda::wait_for_neighbours;

// What a block of a cluster gets from the others.
struct Received {
  float values[2][32][4];
  CopyBarrier full[2];  // of each row
  CopyBarrier never_made;
};

template <class Kernel>
void launch_pairs(const Kernel& kernel, const ec::cuda::Dim3& grid = {2}) {
  ec::emulation::launch(grid, {32}, sizeof(Received), 0, kernel, {1, grid.y, 1});
}

Received& received(bool synced = true) {
  auto& shared = shared_memory<Received>();
  if (threadIdx.x == 0)
    for (CopyBarrier& full : shared.full) ec::cuda::init_barrier(full, 1);
  if (synced) {
    ec::cuda::cluster_arrive();
    ec::cuda::cluster_wait();
  }
  return shared;
}

// One row of this block to its neighbour.
void store_row(Received& shared, int row, float value) {
  const float numbers[4] = {value, value + 1.0f, value + 2.0f, value + 3.0f};
  uint4 bits;
  std::memcpy(&bits, numbers, sizeof bits);
  store_there(1 - blockIdx.y, shared.values[row][threadIdx.x], bits, shared.full[row]);
}

constexpr unsigned kRowBytes = 32 * 16;
const ec::cuda::Dim3 kPairs{3, 2};

// Two rows with a barrier each: who sends round r + 2 has had round r + 1, which was sent when round r was
// there and read.
void blocks_of_a_cluster_exchange() {
  int right = 0;
  launch_pairs(
      [&] {
        Received& shared = received();
        CHECK(ec::emulation::cluster_rank() == blockIdx.y && ec::emulation::cluster_size() == 2);
        for (unsigned round = 0; round < 4; ++round) {
          const auto row = static_cast<int>(round % 2);
          if (threadIdx.x == 0) ec::cuda::arrive_and_expect(shared.full[row], kRowBytes);
          store_row(shared, row, static_cast<float>(100 * blockIdx.y + round));
          wait_for_neighbours(shared.full[row], round / 2);
          const auto from = static_cast<float>(100 * (1 - blockIdx.y) + round);
          right += shared.values[row][31 - threadIdx.x][3] == from + 3.0f;
          __syncthreads();
        }
      },
      kPairs);
  CHECK(right == 4 * 3 * 2 * 32);
}

// Without a wait some of what is sent is found unwritten.
void a_missing_wait_is_seen() {
  int early = 0;
  for (int attempt = 0; attempt < 10; ++attempt)
    launch_pairs(
        [&] {
          Received& shared = received();
          if (threadIdx.x == 0) ec::cuda::arrive_and_expect(shared.full[0], kRowBytes);
          store_row(shared, 0, 1.0f);
          early += std::isnan(shared.values[0][31 - threadIdx.x][0]) ? 1 : 0;
          wait_for_neighbours(shared.full[0], 0);
          CHECK(shared.values[0][31 - threadIdx.x][0] == 1.0f);
        },
        kPairs);
  CHECK(early > 0);
}

// Numbers that two rounds find unwritten with one barrier: it counts bytes of the next round for this one.
// With one row, moreover, its reader may still need it.
int unwritten_with_one_barrier(int rows) {
  int unwritten = 0;
  for (int attempt = 0; attempt < 200; ++attempt) {
    try {
      launch_pairs(
          [&] {
            Received& shared = received();
            for (unsigned round = 0; round < 2; ++round) {
              const int row = rows == 1 ? 0 : static_cast<int>(round);
              if (threadIdx.x == 0) ec::cuda::arrive_and_expect(shared.full[0], kRowBytes);
              store_there(1 - blockIdx.y, shared.values[row][threadIdx.x], uint4{}, shared.full[0]);
              wait_for_neighbours(shared.full[0], round);
              unwritten += std::isnan(shared.values[row][31 - threadIdx.x][0]) ? 1 : 0;
              __syncthreads();
            }
          },
          kPairs);
    } catch (const std::logic_error&) {  // a block may even have left
    }
  }
  return unwritten;
}

// Whether one of some launches ends with an exception that says so.
template <class Kernel>
bool refused_in_a_cluster(const char* words, const Kernel& kernel, const ec::cuda::Dim3& grid = {1, 2}) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    try {
      launch_pairs(kernel, grid);
    } catch (const std::logic_error& error) {
      if (std::string(error.what()).find(words) != std::string::npos) return true;
    }
  }
  return false;
}

void broken_rules_of_clusters_are_refused() {
  using ec::cuda::cluster_arrive;
  using ec::cuda::cluster_wait;
  CHECK(refused_in_a_cluster("and has not arrived", [] { cluster_wait(); }));
  CHECK(refused_in_a_cluster("again and has not waited", [] {
    cluster_arrive();
    cluster_arrive();
  }));
  CHECK(refused_in_a_cluster("and not waited", [] { cluster_arrive(); }));
  const auto two_barriers = [] {
    if (blockIdx.y == 0)
      cluster_arrive();
    else
      cluster_arrive();
    cluster_wait();
  };
  CHECK(refused_in_a_cluster("different barriers", two_barriers));
  CHECK(refused_in_a_cluster("the barrier of its cluster", [] {
    if (blockIdx.y == 1 && threadIdx.x == 7) return;
    cluster_arrive();
    cluster_wait();
  }));
  CHECK(refused_in_a_cluster("known to run", [] { store_row(received(false), 0, 1.0f); }));
  CHECK(refused_in_a_cluster("no block of that rank", [&] {
    Received& shared = received();
    store_there(2, shared.values[0][threadIdx.x], uint4{}, shared.full[0]);
  }));
  CHECK(refused_in_a_cluster("on 16 bytes", [&] {
    Received& shared = received();
    store_there(0, shared.values[0][threadIdx.x] + 1, uint4{}, shared.full[0]);
  }));
  float elsewhere[4];
  CHECK(refused_in_a_cluster("not of shared memory", [&] {
    Received& shared = received();
    store_there(0, elsewhere, uint4{}, shared.full[0]);
  }));
  CHECK(refused_in_a_cluster("before it is made", [&] {
    Received& shared = received();
    store_there(0, shared.values[0][threadIdx.x], uint4{}, shared.never_made);
  }));
  // The neighbour does not stay until it has what is sent to it.
  const auto one_leaves = [] {
    Received& shared = received();
    if (blockIdx.y == 0) store_row(shared, 0, 1.0f);
  };
  CHECK(refused_in_a_cluster("may have left", one_leaves));
  // The barrier of the cluster does not wait for what is stored asynchronously.
  CHECK(refused_in_a_cluster("leaves before all is there", [] {
    store_row(received(), 0, 1.0f);
    cluster_arrive();
    cluster_wait();
  }));
  const auto whole = [](const ec::cuda::Dim3& grid, const ec::cuda::Dim3& cluster) {
    try {
      ec::emulation::launch(grid, {32}, 0, 0, [] {}, cluster);
    } catch (const std::logic_error& error) {
      return std::string(error.what()).find("whole clusters") == std::string::npos;
    }
    return true;
  };
  CHECK(whole({4, 2}, {2, 2}) && !whole({4, 3}, {1, 2}) && !whole({3}, {2}) && !whole({16}, {16}));
}

}  // namespace

int main() {
  blocks_of_a_cluster_exchange();
  a_missing_wait_is_seen();
  CHECK(unwritten_with_one_barrier(1) > 0 && unwritten_with_one_barrier(2) > 0);
  broken_rules_of_clusters_are_refused();
  return check::report();
}
