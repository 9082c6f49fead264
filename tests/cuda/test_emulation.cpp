// SPDX-License-Identifier: Apache-2.0
// The emulation by which kernels run without a GPU: what it computes, and which mistakes it finds.
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/platform.h"
#include "native/check.h"

namespace {

using ec::cuda::shared_memory;

constexpr unsigned kAll = 0xffffffffu;

template <class Kernel>
void launch(unsigned grid, unsigned block, size_t shared_bytes, const Kernel& kernel) {
  EC_LAUNCH(kernel, grid, block, shared_bytes, nullptr);
}

// Whether a launch ends with an exception that says so.
template <class Kernel>
bool refused(const char* words, unsigned block, size_t shared_bytes, const Kernel& kernel) {
  try {
    launch(1, block, shared_bytes, kernel);
  } catch (const std::logic_error& error) {
    return std::string(error.what()).find(words) != std::string::npos;
  }
  return false;
}

struct Reversed {
  int values[256];
};

void shared_memory_and_barriers() {
  std::vector<int> out(3 * 256, -1);
  launch(3, 256, sizeof(Reversed), [&] {
    auto& shared = shared_memory<Reversed>();
    const unsigned t = threadIdx.x;
    shared.values[t] = static_cast<int>(blockIdx.x * 256 + t);
    __syncthreads();
    out[blockIdx.x * 256 + t] = shared.values[255 - t];
    __syncthreads();
    shared.values[t] = -2;
  });
  for (int block = 0; block < 3; ++block)
    for (int t = 0; t < 256; ++t) CHECK(out[static_cast<size_t>(block * 256 + t)] == block * 256 + 255 - t);
}

void indices_of_three_axes() {
  std::set<std::vector<unsigned>> seen;
  const ec::cuda::Dim3 grid{2, 3, 2}, block{3, 2, 4};
  const auto kernel = [&] {
    CHECK(gridDim.y == 3 && blockDim.z == 4);
    seen.insert({blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z});
  };
  EC_LAUNCH(kernel, grid, block, 0, nullptr);
  CHECK(seen.size() == 2 * 3 * 2 * 3 * 2 * 4);
}

void lanes_exchange() {
  launch(1, 64, 0, [] {
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    int sum = lane + 100 * warp;
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAll, sum, step);
    CHECK(sum == 31 * 16 + 3200 * warp);
    CHECK(__shfl_sync(kAll, lane, 5) == 5);
    CHECK(__shfl_sync(kAll, lane, 1, 8) == lane / 8 * 8 + 1);
    CHECK(__shfl_down_sync(kAll, lane, 3) == (lane < 29 ? lane + 3 : lane));
    CHECK(__shfl_down_sync(kAll, lane, 3, 16) == (lane % 16 < 13 ? lane + 3 : lane));
    CHECK(__shfl_xor_sync(kAll, 0.5 * lane, 1) == 0.5 * (lane ^ 1));
    CHECK(__ballot_sync(kAll, lane % 3 == 0) == 0x49249249u);
    CHECK(__any_sync(kAll, lane == 7) != 0 && __any_sync(kAll, 0) == 0);
    // Halves of a warp go different ways.
    const unsigned mine = lane < 16 ? 0xffffu : 0xffff0000u;
    for (int i = 0; i < (lane < 16 ? 3 : 5); ++i) CHECK(__ballot_sync(mine, 1) == mine);
    __syncwarp();
  });
}

void atomics_add_up() {
  int sum = 0;
  unsigned last = 0, turn = 0;
  launch(4, 96, 0, [&] {
    atomicAdd(&sum, 1);
    if (threadIdx.x == 0 && atomicInc(&turn, gridDim.x - 1) == gridDim.x - 1) last = blockIdx.x + 1;
  });
  CHECK(sum == 4 * 96 && last > 0 && turn == 0);
}

// Threads come in many orders: what depends on one is found within a few launches.
void a_missing_barrier_is_seen() {
  bool wrong = false;
  for (int attempt = 0; attempt < 20; ++attempt)
    launch(1, 64, sizeof(Reversed), [&] {
      auto& shared = shared_memory<Reversed>();
      shared.values[threadIdx.x] = 1;
      wrong |= shared.values[63 - threadIdx.x] != 1;
    });
  CHECK(wrong);
}

void unwritten_memory_is_seen() {
  struct Floats {
    float values[32];
  };
  int missing = 0;
  for (int attempt = 0; attempt < 2; ++attempt)
    launch(2, 32, sizeof(Floats), [&] {
      auto& shared = shared_memory<Floats>();
      missing += std::isnan(shared.values[threadIdx.x]) ? 1 : 0;
      __syncthreads();
      shared.values[threadIdx.x] = 1.0f;
    });
  CHECK(missing == 4 * 32);
}

void broken_rules_are_refused() {
  // Within a macro all of it would stand in one line.
  const auto two_barriers = [] {
    if (threadIdx.x < 32)
      __syncthreads();
    else
      __syncthreads();
  };
  CHECK(refused("different barriers", 64, 0, two_barriers));
  CHECK(refused("have left", 64, 0, [] {
    if (threadIdx.x == 5) return;
    __syncthreads();
  }));
  const auto two_places = [] {
    if (threadIdx.x < 16)
      __syncwarp();
    else
      __syncwarp();
  };
  CHECK(refused("different places", 32, 0, two_places));
  CHECK(refused("have left", 32, 0, [] {
    if (threadIdx.x == 31) return;
    __syncwarp();
  }));
  CHECK(refused("not in the mask", 32, 0, [] { __syncwarp(0xffffu); }));
  CHECK(refused("not in the mask", 32, 0, [] {
    if (threadIdx.x < 16) __shfl_sync(0xffffu, 1, 20);
  }));
  CHECK(refused("shares more", 32, 4, [] { shared_memory<Reversed>().values[0] = 1; }));
  CHECK(refused("1024 threads", 1025, 0, [] {}));
  CHECK(refused("227 KB", 32, size_t{228} << 10, [] {}));
  launch(1, 32, 0, [] { __syncthreads(); });  // and the next launch is a fresh one
}

}  // namespace

int main() {
  shared_memory_and_barriers();
  indices_of_three_axes();
  lanes_exchange();
  atomics_add_up();
  a_missing_barrier_is_seen();
  unwritten_memory_is_seen();
  broken_rules_are_refused();
  return check::report();
}
