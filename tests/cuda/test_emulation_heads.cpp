// SPDX-License-Identifier: Apache-2.0
// The emulation's products with few columns, tiles of several arrays, and barriers of some threads: as
// common/hopper_heads.cuh says.
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/hopper_heads.cuh"
#include "native/check.h"

namespace {

using ec::cuda::BFloat;
using ec::cuda::CopyBarrier;
using ec::cuda::Half;

constexpr int kRows = ec::cuda::kPanelRows, kColumns = ec::cuda::kPanelColumns;
constexpr size_t kBytes = sizeof(BFloat) * kRows * kColumns * 2 + 2 * ec::cuda::kSwizzleBytes;

float number(int i, int k) { return static_cast<float>((5 * i + 3 * k) % 7 - 3) / 4.0f; }

void launch(unsigned threads, const std::function<void()>& kernel) {
  ec::emulation::launch({1}, {threads}, kBytes, size_t{227} << 10, kernel);
}

unsigned char* operands() {
  auto* memory = ec::cuda::shared_array<unsigned char>(kBytes);
  constexpr unsigned kStep = ec::cuda::kSwizzleBytes;
  return memory + (kStep - ec::cuda::shared_address(memory) % kStep) % kStep;
}

// c of a (64 x 64), which may be turned, and b (2 n x 64), by all threads of a warpgroup.
template <class T, int n, bool kTurned>
void multiply() {
  launch(128, [] {
    T* a = reinterpret_cast<T*>(operands());
    T* b = a + kRows * kColumns;
    const int t = static_cast<int>(threadIdx.x), lane = t % 32;
    for (int at = t; at < kRows * kColumns; at += 128) {
      const int row = at / kColumns, k = at % kColumns;
      const int place = ec::cuda::place_in_panel(row, k / 8) + k % 8;
      a[place] = ec::cuda::rounded(kTurned ? number(k, row) : number(row, k), T{});
      if (row < 2 * n) b[place] = ec::cuda::rounded(number(row + 1, k), T{});
    }
    ec::cuda::publish_writes();
    __syncthreads();
    const uint64_t rows = ec::cuda::tile_descriptor(ec::cuda::shared_address(a)),
                   others = ec::cuda::tile_descriptor(ec::cuda::shared_address(b));
    const uint64_t step = kTurned ? ec::cuda::kNextTurnedStep : ec::cuda::kNextStep;
    float c[n];
    ec::cuda::products_fence();
    ec::cuda::multiply_tiles<kTurned>(c, rows, others, T{});
    for (unsigned k = 1; k < 4; ++k)
      ec::cuda::multiply_add_tiles<kTurned>(c, rows + k * step, others + k * ec::cuda::kNextStep, T{});
    ec::cuda::products_commit();
    CHECK(std::isnan(c[0]));
    ec::cuda::products_end(c);
    for (int i = 0; i < n; ++i) {
      const int row = t / 32 * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = 0.0f;
      for (int k = 0; k < kColumns; ++k) sum += number(row, k) * number(column + 1, k);
      CHECK(c[i] == sum);
    }
  });
}

// Rows that lie apart, of several arrays; what is beyond any end is zeros, and is not copied.
void tiles_of_arrays() {
  constexpr int64_t kArrays = 3, kLength = 20, kOwn = 70, kApart = 88, kAll = 24 * kApart;
  std::vector<uint16_t> from(kArrays * kAll, 0xffff);
  for (int64_t i = 0; i < kArrays; ++i)
    for (int64_t t = 0; t < kLength; ++t)
      for (int64_t k = 0; k < kOwn; ++k)
        from[static_cast<size_t>(i * kAll + t * kApart + k)] =
            static_cast<uint16_t>(1 + i * 7 + t * 70 + k);
  ec::cuda::TileMap map;
  CHECK(ec::cuda::make_tile_map({from.data(), kOwn, kLength, kApart, kArrays, kAll}, 8, &map));
  const uint64_t before = ec::emulation::copied_bytes();
  launch(32, [&] {
    auto* tile = reinterpret_cast<uint16_t*>(operands());
    auto& there = *reinterpret_cast<CopyBarrier*>(tile + 8 * kColumns);
    if (threadIdx.x == 0) {
      ec::cuda::init_barrier(there, 1);
      ec::cuda::publish_barriers();
      ec::cuda::arrive_and_expect(there, 8 * kColumns * 2);
      ec::cuda::copy_tile(tile, map, 64, 16, 1, there);
    }
    __syncwarp();
    ec::cuda::wait_for_phase(there, 0);
    for (int t = 0; t < 8; ++t)
      for (int k = 0; k < kColumns; ++k) {
        const bool own = t < 4 && k < 6;
        const uint16_t is = tile[ec::cuda::place_in_panel(t, k / 8) + k % 8];
        CHECK(is == (own ? 1 + 7 + (16 + t) * 70 + 64 + k : 0));
      }
  });
  CHECK(ec::emulation::copied_bytes() - before == 4 * 6 * 2);
}

void some_threads_wait_for_one_another() {
  int told = 0;
  launch(96, [&] {
    if (threadIdx.x >= 64) return;
    if (threadIdx.x == 5) told = 1;
    ec::cuda::sync_threads<64>(1);
    CHECK(told == 1);
  });
  bool refused = false;
  try {
    launch(96, [] {
      if (threadIdx.x != 5) ec::cuda::sync_threads<96>(1);
    });
  } catch (const std::logic_error& error) {
    refused = std::string(error.what()).find("at a barrier of some threads") != std::string::npos;
  }
  CHECK(refused);
}

template <class T>
void multiply_all() {
  multiply<T, 8, false>();
  multiply<T, 8, true>();
  multiply<T, 16, false>();
  multiply<T, 16, true>();
  multiply<T, 32, false>();
  multiply<T, 32, true>();
}

}  // namespace

int main() {
  multiply_all<BFloat>();
  multiply_all<Half>();
  tiles_of_arrays();
  some_threads_wait_for_one_another();
  return check::report();
}
