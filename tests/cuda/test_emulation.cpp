// SPDX-License-Identifier: Apache-2.0
// The emulation by which kernels run without a GPU: what it computes, and which mistakes it finds.
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/hopper.cuh"
#include "common/tensor_core.cuh"
#include "native/check.h"

namespace {

using ec::cuda::shared_memory;

constexpr unsigned kAll = 0xffffffffu;

template <class Kernel>
void launch(unsigned grid, unsigned block, size_t shared_bytes, const Kernel& kernel) {
  ec::emulation::launch({grid}, {block}, shared_bytes, 0, kernel);
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
  ec::emulation::launch(grid, block, 0, 0, kernel);
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
    CHECK(__shfl_xor_sync(kAll, lane, 16, 8) == (lane < 16 ? lane : lane ^ 16));
    CHECK(__ballot_sync(kAll, lane % 3 == 0) == 0x49249249u);
    CHECK(__any_sync(kAll, lane == 7) != 0 && __any_sync(kAll, 0) == 0);
    // Halves of a warp go different ways.
    const unsigned mine = lane < 16 ? 0xffffu : 0xffff0000u;
    for (int i = 0; i < (lane < 16 ? 3 : 5); ++i) CHECK(__ballot_sync(mine, 1) == mine);
    __syncwarp();
  });
}

void copies_are_made_when_waited_for() {
  struct Rows {
    float values[3][32][4];
  };
  std::vector<float> from(3 * 32 * 4);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i);
  launch(1, 32, sizeof(Rows), [&] {
    auto& shared = shared_memory<Rows>();
    const unsigned t = threadIdx.x;
    for (int group = 0; group < 3; ++group) {
      ec::cuda::async_copy(shared.values[group][t], &from[(group * 32 + t) * 4], group != 1);
      ec::cuda::async_commit();
    }
    ec::cuda::async_wait<2>();
    CHECK(shared.values[0][t][3] == from[t * 4 + 3] && std::isnan(shared.values[1][t][0]));
    ec::cuda::async_wait<0>();
    __syncthreads();
    CHECK(shared.values[1][31 - t][2] == 0.0f && shared.values[2][31 - t][2] == from[(95 - t) * 4 + 2]);
  });
  CHECK(refused("before its copies", 32, sizeof(Rows), [&] {
    ec::cuda::async_copy(shared_memory<Rows>().values[0][threadIdx.x], from.data(), true);
  }));
}

// Against plain loops: a (16 x 16) and b (16 x 8) of small whole numbers.
void tensor_cores_multiply() {
  struct Tiles {
    ec::cuda::BFloat a[16][16], b[8][16], b_rows[16][8];  // b column by column, and row by row
  };
  const auto number = [](int i, int k, int step) { return static_cast<float>((step * i + 3 * k) % 7 - 3); };
  launch(1, 32, sizeof(Tiles), [&] {
    auto& shared = shared_memory<Tiles>();
    const int lane = static_cast<int>(threadIdx.x);
    const auto bits = [](float a) { return static_cast<uint16_t>(__float_as_uint(a) >> 16); };
    for (int i = lane; i < 16 * 16; i += 32) shared.a[i / 16][i % 16] = {bits(number(i / 16, i % 16, 5))};
    for (int i = lane; i < 8 * 16; i += 32) shared.b[i / 16][i % 16] = {bits(number(i / 16, i % 16, 2))};
    __syncthreads();
    ec::cuda::FragmentA a;
    ec::cuda::load_matrices(&shared.a[lane % 16][lane / 16 * 8], a.pairs);
    unsigned of_b[4];
    ec::cuda::load_matrices(&shared.b[lane % 8][lane / 8 % 2 * 8], of_b);
    // From its rows, b's fragment is that of the transposes.
    for (int i = lane; i < 16 * 8; i += 32) shared.b_rows[i / 8][i % 8] = shared.b[i % 8][i / 8];
    __syncthreads();
    unsigned transposed[4];
    ec::cuda::load_matrices_transposed(&shared.b_rows[lane % 16][0], transposed);
    for (int i = 0; i < 2; ++i) CHECK(transposed[i] == of_b[i]);
    ec::cuda::FragmentC c = {{1.0f, 1.0f, 1.0f, 1.0f}};
    ec::cuda::multiply_add(a, {{of_b[0], of_b[1]}}, c);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = 1.0f;
      for (int k = 0; k < 16; ++k) sum += number(row, k, 5) * number(column, k, 2);
      CHECK(c.numbers[i] == sum);
    }
  });
}

using ec::cuda::BFloat;
using ec::cuda::CopyBarrier;
constexpr int kOthers = ec::cuda::kProductColumns, kWide = ec::cuda::kPanelColumns;

// Tiles from kSwizzleBytes on, as much as is needed before that, and barriers.
struct Operands {
  BFloat a[ec::cuda::kPanelRows * kWide], b[kOthers * kWide];
  CopyBarrier full;
  unsigned counted;
};
constexpr size_t kOperandBytes = sizeof(Operands) + ec::cuda::kSwizzleBytes;

Operands& operands() {
  unsigned char* memory = ec::cuda::shared_array<unsigned char>(kOperandBytes);
  const unsigned beyond = ec::cuda::shared_address(memory) % ec::cuda::kSwizzleBytes;
  CHECK(beyond != 0);  // as it may be
  return *reinterpret_cast<Operands*>(memory + (ec::cuda::kSwizzleBytes - beyond));
}

template <class Kernel>
void launch_wide(unsigned block, size_t shared_bytes, const Kernel& kernel) {
  ec::emulation::launch({1}, {block}, shared_bytes, shared_bytes, kernel);
}

// A block of rows x 64 numbers as products want it.
std::vector<BFloat> packed(int rows, int step) {
  std::vector<BFloat> block(static_cast<size_t>(rows * kWide));
  for (int i = 0; i < rows; ++i)
    for (int k = 0; k < kWide; ++k)
      block[static_cast<size_t>(ec::cuda::place_in_panel(i, k / 8) + k % 8)] = {
          static_cast<uint16_t>(__float_as_uint(static_cast<float>((step * i + 3 * k) % 7 - 3)) >> 16)};
  return block;
}

// Two stages, the second over the first, by bulk copies and the products of a warpgroup.
void warpgroups_multiply() {
  const std::vector<BFloat> a = packed(ec::cuda::kPanelRows, 5), b = packed(kOthers, 2);
  launch_wide(128, kOperandBytes, [&] {
    Operands& shared = operands();
    const int t = static_cast<int>(threadIdx.x), lane = t % 32;
    const auto copy = [&] {
      arrive_and_expect(shared.full, sizeof shared.a + sizeof shared.b);
      bulk_copy(shared.a, a.data(), sizeof shared.a, shared.full);
      bulk_copy(shared.b, b.data(), sizeof shared.b, shared.full);
    };
    if (t == 0) {
      init_barrier(shared.full, 1);
      shared.counted = 0;
      ec::cuda::publish_barriers();
      copy();
    }
    __syncthreads();
    float c[ec::cuda::kThreadNumbers];
    for (unsigned stage = 0; stage < 2; ++stage) {
      wait_for_phase(shared.full, stage % 2);
      const uint64_t rows = ec::cuda::tile_descriptor(ec::cuda::shared_address(shared.a)),
                     others = ec::cuda::tile_descriptor(ec::cuda::shared_address(shared.b));
      ec::cuda::products_fence();
      for (int k = 0; k < 4; ++k) {
        const uint64_t step = static_cast<uint64_t>(k) * ec::cuda::kNextStep;
        if (stage == 0 && k == 0)
          ec::cuda::multiply_tiles(c, rows, others);
        else
          ec::cuda::multiply_add_tiles(c, rows + step, others + step);
      }
      ec::cuda::products_commit();
      CHECK(std::isnan(c[0]));
      ec::cuda::products_end(c);
      if (stage == 0 && lane == 0 && ec::cuda::count_up_to(shared.counted, 3)) copy();
    }
    for (int i = 0; i < ec::cuda::kThreadNumbers; ++i) {
      const int row = t / 32 * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = 0.0f;
      for (int k = 0; k < kWide; ++k)
        sum += 2.0f * static_cast<float>((5 * row + 3 * k) % 7 - 3) *
               static_cast<float>((2 * column + 3 * k) % 7 - 3);
      CHECK(c[i] == sum);
    }
  });
}

// What is copied in bulk is there when its barrier says so, and not before.
void bulk_copies_are_waited_for() {
  struct Numbers {
    float values[256];
    CopyBarrier full;
  };
  std::vector<float> from(256, 1.0f);
  int early = 0;
  const auto kernel = [&] {
    auto& shared = shared_memory<Numbers>();
    if (threadIdx.x == 0) {
      ec::cuda::init_barrier(shared.full, 2);
      ec::cuda::arrive_and_expect(shared.full, sizeof shared.values);
      ec::cuda::bulk_copy(shared.values, from.data(), sizeof shared.values, shared.full);
      early += std::isnan(shared.values[7]) ? 1 : 0;
    }
    __syncthreads();
    ec::cuda::wait_for_phase(shared.full, 1);  // the phase before the first
    __syncthreads();
    if (threadIdx.x == 33) ec::cuda::arrive(shared.full);
    ec::cuda::wait_for_phase(shared.full, 0);
    CHECK(shared.values[threadIdx.x] == 1.0f);
  };
  for (int attempt = 0; attempt < 5; ++attempt) launch(1, 64, sizeof(Numbers), kernel);
  CHECK(early == 5);
  CHECK(refused("before its bulk copies", 1, sizeof(Numbers), [&] {
    auto& shared = shared_memory<Numbers>();
    ec::cuda::init_barrier(shared.full, 1);
    ec::cuda::arrive_and_expect(shared.full, sizeof shared.values);
    ec::cuda::bulk_copy(shared.values, from.data(), sizeof shared.values, shared.full);
  }));
}

void broken_rules_of_barriers_are_refused() {
  struct Numbers {
    float values[8];
    CopyBarrier full;
  };
  const std::vector<float> from(8, 1.0f);
  const auto with_barrier = [](unsigned arrivals, const auto& body) {
    return [=, &body] {
      auto& shared = shared_memory<Numbers>();
      if (threadIdx.x == 0) ec::cuda::init_barrier(shared.full, arrivals);
      __syncthreads();
      body(shared);
    };
  };
  const auto none = [](Numbers& shared) { ec::cuda::wait_for_phase(shared.full, 0); };
  CHECK(refused("a phase of a barrier", 32, sizeof(Numbers), with_barrier(1, none)));
  const auto odd = [&](Numbers& shared) {
    ec::cuda::bulk_copy(shared.values + 1, from.data(), 16, shared.full);
  };
  CHECK(refused("on 16 bytes", 32, sizeof(Numbers), with_barrier(1, odd)));
  const auto far = [&](Numbers& shared) {
    ec::cuda::bulk_copy(shared.values, from.data(), 4096, shared.full);
  };
  CHECK(refused("not of shared memory", 32, sizeof(Numbers), with_barrier(1, far)));
  CHECK(refused("before it is made", 32, sizeof(Numbers),
                [] { ec::cuda::arrive(shared_memory<Numbers>().full); }));
}

void broken_rules_of_products_are_refused() {
  const auto refused_here = [](const char* words, const auto& kernel) {
    try {
      launch_wide(128, kOperandBytes, kernel);
    } catch (const std::logic_error& error) {
      return std::string(error.what()).find(words) != std::string::npos;
    }
    return false;
  };
  const auto product = [](unsigned a_offset, uint64_t swizzle) {
    Operands& shared = operands();
    float c[ec::cuda::kThreadNumbers];
    const unsigned a = ec::cuda::shared_address(shared.a) + a_offset;
    const uint64_t layout = (ec::cuda::tile_descriptor(0) & ~(uint64_t{3} << 62)) | swizzle << 62;
    ec::cuda::multiply_tiles(c, layout | a >> 4,
                             ec::cuda::tile_descriptor(ec::cuda::shared_address(shared.b)));
    ec::cuda::products_commit();
    ec::cuda::products_end(c);
  };
  CHECK(!refused_here("", [&] { product(0, 1); }));
  CHECK(refused_here("layout that is swapped", [&] { product(0, 2); }));
  CHECK(refused_here("not begin on 1024", [&] { product(128, 1); }));
  CHECK(refused_here("outside of shared", [&] { product(1024 * 220, 1); }));
  CHECK(refused_here("different products", [&] { product(threadIdx.x < 64 ? 0 : 1024, 1); }));
  CHECK(refused_here("rest of its warpgroup", [&] {
    if (threadIdx.x >= 32) product(0, 1);
  }));
}

void a_kernel_that_shares_much() { shared_memory<Reversed>().values[0] = 1; }

void much_shared_memory_must_be_allowed() {
  const size_t bytes = size_t{100} << 10;
  bool failed = false;
  try {
    ec::cuda::launch(&a_kernel_that_shares_much, {1}, {32}, bytes);
  } catch (const std::logic_error&) {
    failed = true;
  }
  CHECK(failed);
  ec::cuda::allow_shared(&a_kernel_that_shares_much, bytes);
  ec::cuda::launch(&a_kernel_that_shares_much, {1}, {32}, bytes);
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
  CHECK(refused("48 KB", 32, size_t{49} << 10, [] {}));
  launch(1, 32, 0, [] { __syncthreads(); });  // and the next launch is a fresh one
}

}  // namespace

int main() {
  shared_memory_and_barriers();
  indices_of_three_axes();
  lanes_exchange();
  copies_are_made_when_waited_for();
  tensor_cores_multiply();
  warpgroups_multiply();
  bulk_copies_are_waited_for();
  broken_rules_of_barriers_are_refused();
  broken_rules_of_products_are_refused();
  much_shared_memory_must_be_allowed();
  atomics_add_up();
  a_missing_barrier_is_seen();
  unwritten_memory_is_seen();
  broken_rules_are_refused();
  return check::report();
}
