// SPDX-License-Identifier: Apache-2.0
#include "emulation/hopper.h"

#include <array>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "common/numbers.cuh"

namespace ec::emulation {
namespace {

struct Barrier {
  unsigned expected = 0, arrived = 0;
  int64_t bytes = 0;  // announced and not yet copied
  unsigned phase = 0;

  void end_phase_if_done() {
    if (arrived < expected || bytes != 0) return;
    arrived = 0;
    ++phase;
    notify();
  }
};

struct Product {
  float* numbers;
  int columns;
  uint64_t a, b;
  bool accumulate;
  Operands operands;
  size_t order;  // among those of the warpgroup
};

// Products of one thread. Numbers under way are kept here; what the thread sees of them is not a number.
struct Products {
  std::vector<Product> open;  // of no group yet
  std::deque<std::vector<Product>> groups;
  std::map<float*, std::vector<float>> under_way;
  size_t asked = 0;
};

// What the threads of a warpgroup ask for must be the same.
struct Asked {
  uint64_t a, b;
  bool accumulate;
  Operands operands;
  int threads;
};

// Of a warpgroup, or several.
struct GroupBarrier {
  size_t group = 0;
  int arrived = 0;
  unsigned phase = 0;
};

struct State {
  uint64_t cluster = 0;
  std::map<std::pair<const void*, int>, GroupBarrier> group_barriers;  // of each block
  std::map<const void*, Barrier> barriers;
  std::map<size_t, Products> products;          // of each thread
  std::map<size_t, std::vector<Asked>> groups;  // of each warpgroup, in order
};

State& state() {
  static State one;
  if (one.cluster != cluster_number()) {
    one = State();
    one.cluster = cluster_number();
  }
  return one;
}

Barrier& barrier_at(const void* memory, const Place& place) {
  const auto found = state().barriers.find(memory);
  if (found == state().barriers.end()) refuse("a barrier is used before it is made", place);
  return found->second;
}

// One operand: rows of 64 numbers of two bytes in groups of 8, whose pieces of 16 bytes are swapped by row.
struct Operand {
  unsigned start, group_bytes;

  Operand(uint64_t descriptor, const Place& place)
      : start(static_cast<unsigned>(descriptor & 0x3fff) << 4),
        group_bytes(static_cast<unsigned>(descriptor >> 32 & 0x3fff) << 4) {
    if (descriptor >> 62 != 1) refuse("a tile is not in the layout that is swapped by 128 bytes", place);
    if ((descriptor >> 49 & 7) != 0) refuse("a tile has a base offset", place);
    if (start % 1024 >= 128 || start % 32 != 0) refuse("a tile does not begin on 1024 bytes", place);
    if (group_bytes % 1024 != 0) refuse("groups of 8 rows are not on 1024 bytes", place);
  }

  // Piece `piece` of a row, 8 numbers as floats.
  void read_piece(int row, int piece, bool half, float* to, const Place& place) const {
    const unsigned plain = start + static_cast<unsigned>(row) / 8 * group_bytes +
                           static_cast<unsigned>(row) % 8 * 128 + static_cast<unsigned>(piece) * 16;
    const unsigned address = plain ^ (plain >> 7 & 7) << 4;
    if (address < kSharedStart || address + 16 > kSharedStart + shared_bytes())
      refuse("a tile lies outside of shared memory", place);
    uint16_t bits[8];
    std::memcpy(bits, static_cast<const unsigned char*>(shared_memory()) + (address - kSharedStart), 16);
    for (int i = 0; i < 8; ++i)
      to[i] = half ? cuda::to_float(cuda::Half{bits[i]}) : cuda::to_float(cuda::BFloat{bits[i]});
  }
  // 16 numbers of a row.
  void read(int row, bool half, float (&to)[kProductSteps], const Place& place) const {
    for (int piece = 0; piece < 2; ++piece) read_piece(row, piece, half, to + 8 * piece, place);
  }
  // Of a transpose.
  void read_turned(int row, bool half, float (&to)[kProductSteps], const Place& place) const {
    if (start % 1024 != 0) refuse("a tile that is turned does not begin on 1024 bytes", place);
    for (int k = 0; k < kProductSteps; ++k) {
      float numbers[8];
      read_piece(k, row / 8, half, numbers, place);
      to[k] = numbers[row % 8];
    }
  }
};

// This thread's part: rows 16 w + l / 4 and + 8 of warp w, columns 8 j + 2 (l % 4) and + 1.
void compute(const Product& product, float* numbers, const Place& place) {
  const Operand a(product.a, place), b(product.b, place);
  const int in_group = static_cast<int>(thread_number() % kGroupThreads), l = in_group % kWarpLanes;
  const int row = in_group / kWarpLanes * 16 + l / 4;
  float rows[2][kProductSteps], other[kProductSteps];
  const bool is_half = product.operands.half;
  for (int i = 0; i < 2; ++i) {
    if (product.operands.turned)
      a.read_turned(row + 8 * i, is_half, rows[i], place);
    else
      a.read(row + 8 * i, is_half, rows[i], place);
  }
  for (int j = 0; j < product.columns / 8; ++j) {
    for (int part = 0; part < 2; ++part) {
      b.read(8 * j + 2 * (l % 4) + part, is_half, other, place);
      for (int half = 0; half < 2; ++half) {
        float& number = numbers[4 * j + 2 * half + part];
        float sum = product.accumulate ? number : 0.0f;
        for (int k = 0; k < kProductSteps; ++k) sum += rows[half][k] * other[k];
        number = sum;
      }
    }
  }
}

}  // namespace

unsigned shared_address(const void* memory, const Place& place) {
  const auto* at = static_cast<const unsigned char*>(memory);
  const auto* start = static_cast<const unsigned char*>(shared_memory());
  if (at < start || at >= start + shared_bytes()) refuse("an address is not of shared memory", place);
  return kSharedStart + static_cast<unsigned>(at - start);
}

void init_barrier(void* barrier, unsigned arrivals, const Place& place) {
  if (shared_address(barrier, place) % 8 != 0) refuse("a barrier is not on 8 bytes", place);
  if (arrivals == 0) refuse("a barrier expects no arrivals", place);
  Barrier made;
  made.expected = arrivals;
  state().barriers[barrier] = made;
}

void arrive(void* barrier, unsigned bytes, const Place& place) {
  Barrier& at = barrier_at(barrier, place);
  at.bytes += bytes;
  if (++at.arrived > at.expected) refuse("more arrive at a barrier than it expects", place);
  at.end_phase_if_done();
}

void wait_for_phase(void* barrier, unsigned parity, const Place& place) {
  const Barrier* at = &barrier_at(barrier, place);
  wait_until([=] { return at->phase % 2 != parity; }, "a phase of a barrier", place);
}

void bulk_copy(void* to, const void* from, unsigned bytes, void* barrier, const Place& place) {
  if (bytes == 0 || bytes % 16 != 0 || shared_address(to, place) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(from) % 16 != 0)
    refuse("what is copied in bulk is not on 16 bytes", place);
  shared_address(static_cast<unsigned char*>(to) + bytes - 1, place);
  Barrier* at = &barrier_at(barrier, place);
  std::memset(to, 0xff, bytes);
  later([=] {
    std::memcpy(to, from, bytes);
    at->bytes -= bytes;
    at->end_phase_if_done();
  });
}

void copy_tile(void* to, const TileMap& map, int64_t column, int64_t row, int64_t array, void* barrier,
               const Place& place) {
  constexpr int64_t kColumns = 64, kPiece = 8;  // numbers; pieces of a row are swapped by its number
  const unsigned start = shared_address(to, place), bytes = static_cast<unsigned>(map.tile_rows) * 128;
  if (start % 1024 != 0) refuse("a tile is not copied to 1024 bytes", place);
  if (reinterpret_cast<uintptr_t>(map.numbers) % 16 != 0 || map.row_stride % 8 != 0 ||
      map.array_stride % 8 != 0 || map.tile_rows > 256 || map.rows < 1 || map.arrays < 1)
    refuse("a map is not of rows on 16 bytes, or of more than 256", place);
  auto* tile = static_cast<unsigned char*>(to);
  shared_address(tile + bytes - 1, place);
  Barrier* at = &barrier_at(barrier, place);
  std::memset(to, 0xff, bytes);
  later([=] {
    for (int64_t i = 0; i < map.tile_rows; ++i) {
      for (int64_t k = 0; k < kColumns; ++k) {
        unsigned char* place_of_number = tile + i * 128 + (k / kPiece ^ i % 8) * 16 + k % kPiece * 2;
        const int64_t number = column + k;
        const bool there = row + i >= 0 && row + i < map.rows && number >= 0 && number < map.columns &&
                           array >= 0 && array < map.arrays;
        std::memset(place_of_number, 0, 2);
        if (!there) continue;
        std::memcpy(place_of_number,
                    static_cast<const unsigned char*>(map.numbers) +
                        (array * map.array_stride + (row + i) * map.row_stride + number) * 2,
                    2);
        copied_bytes() += 2;
      }
    }
    at->bytes -= bytes;
    at->end_phase_if_done();
  });
}

void store_there(unsigned rank, void* to, const void* from, void* barrier, const Place& place) {
  std::array<unsigned char, kStoredBytes> value;
  if (shared_address(to, place) % value.size() != 0)
    refuse("what is stored in a neighbour is not on 16 bytes", place);
  void* there = neighbour(to, value.size(), rank, place);
  Barrier* at = &barrier_at(neighbour(barrier, sizeof(uint64_t), rank, place), place);
  std::memcpy(value.data(), from, value.size());
  std::memset(there, 0xff, value.size());
  later_in(rank, [=] {
    std::memcpy(there, value.data(), value.size());
    at->bytes -= static_cast<int64_t>(value.size());
    at->end_phase_if_done();
  });
}

void sync_threads(int number, int threads, const Place& place) {
  if (number < 1 || number > 15) refuse("a barrier of some threads has a number from 1 to 15", place);
  const size_t group = thread_in_block() / static_cast<size_t>(threads);
  GroupBarrier* at = &state().group_barriers[{shared_memory(), number}];
  if (at->arrived == 0) at->group = group;
  if (at->group != group) refuse("warpgroups share a barrier", place);
  const unsigned phase = at->phase;
  if (++at->arrived == threads) {
    at->arrived = 0;
    ++at->phase;
    notify();
  }
  wait_until([=] { return at->phase != phase; }, "the others at a barrier of some threads", place);
}

void multiply_tiles(float* numbers, int columns, uint64_t a, uint64_t b, bool accumulate,
                    const Place& place, const Operands& operands) {
  const size_t thread = thread_number();
  meet(0xffffffffu, &a, sizeof a, place);  // the lanes of a warp ask together
  Products& own = state().products[thread];
  std::vector<Asked>& asked = state().groups[thread / kGroupThreads];
  const size_t order = own.asked++;
  if (order == asked.size()) asked.push_back({a, b, accumulate, operands, 0});
  Asked& of_group = asked[order];
  if (of_group.a != a || of_group.b != b || of_group.accumulate != accumulate ||
      of_group.operands.turned != operands.turned || of_group.operands.half != operands.half)
    refuse("threads of a warpgroup ask for different products", place);
  ++of_group.threads;
  notify();
  auto& kept = own.under_way[numbers];
  if (kept.empty()) {
    kept.assign(numbers, numbers + columns / 2);
    for (int i = 0; i < columns / 2; ++i) numbers[i] = std::numeric_limits<float>::quiet_NaN();
  }
  own.open.push_back({numbers, columns, a, b, accumulate, operands, order});
}

void products_commit() {
  Products& own = state().products[thread_number()];
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}

void products_wait(int groups_left, const Place& place) {
  const size_t thread = thread_number();
  Products& own = state().products[thread];
  const std::vector<Asked>& asked = state().groups[thread / kGroupThreads];
  for (; own.groups.size() > static_cast<size_t>(groups_left); own.groups.pop_front()) {
    for (const Product& product : own.groups.front()) {
      const size_t order = product.order;
      wait_until([&asked, order] { return asked[order].threads == kGroupThreads; },
                 "the rest of its warpgroup", place);
      compute(product, own.under_way[product.numbers].data(), place);
    }
  }
  if (own.groups.empty() && own.open.empty()) {
    for (const auto& [numbers, kept] : own.under_way)
      std::memcpy(numbers, kept.data(), kept.size() * sizeof(float));
    own.under_way.clear();
  }
  meet(0xffffffffu, &groups_left, sizeof groups_left,
       place);  // what a warp has waited for all its lanes have
}

}  // namespace ec::emulation
