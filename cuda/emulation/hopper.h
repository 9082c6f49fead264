// SPDX-License-Identifier: Apache-2.0
// What a Hopper block does beside its threads: barriers that count bytes, bulk copies, and products of
// tiles in shared memory by groups of four warps. See common/hopper.cuh for what each is on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulation/block.h"

namespace ec::emulation {

constexpr int kGroupThreads = 128;                  // of a warpgroup
constexpr int kGroupRows = 64, kProductSteps = 16;  // rows, and numbers of them, of one product
constexpr size_t kStoredBytes = 16;                 // in a neighbour, by one thread at once
// Where a block's shared memory begins in its window: on no more than it promises.
constexpr unsigned kSharedStart = 128;

// The address of shared memory in its window.
unsigned shared_address(const void* memory, const Place& place);

void init_barrier(void* barrier, unsigned arrivals, const Place& place);
// One arrival, of a thread that first announces so many bytes.
void arrive(void* barrier, unsigned bytes, const Place& place);
// Until the phase of that parity is over.
void wait_for_phase(void* barrier, unsigned parity, const Place& place);
// What it writes is unwritten until the barrier has counted it.
void bulk_copy(void* to, const void* from, unsigned bytes, void* barrier, const Place& place);

// Arrays of rows of numbers of two bytes, of which tiles of 64 columns are copied.
struct TileMap {
  const void* numbers;
  int64_t columns, rows, row_stride, arrays, array_stride;
  int tile_rows;
};
// The same of a tile, in the layout of an operand; zeros where the array ends.
void copy_tile(void* to, const TileMap& map, int64_t column, int64_t row, int64_t array, void* barrier,
               const Place& place);
// Until so many threads, of which the first has a number that is a multiple of that, are at the barrier of
// that number, which no others use.
void sync_threads(int number, int threads, const Place& place);
// kStoredBytes to where `to` lies in block `rank` of the cluster, counted by the barrier there that lies
// where `barrier` does; unwritten until then.
void store_there(unsigned rank, void* to, const void* from, void* barrier, const Place& place);

// turned: a is given as its transpose, 16 rows of 64 numbers each; half: both are float16, not bf16.
struct Operands {
  bool turned = false, half = false;
};
// c (64 x columns) = a b^T (+ c): computed when products_wait says so; until then c is not to be read.
// numbers: columns / 2 of this thread, as common/hopper.cuh says.
void multiply_tiles(float* numbers, int columns, uint64_t a, uint64_t b, bool accumulate,
                    const Place& place, const Operands& operands = {});
void products_commit();
void products_wait(int groups_left, const Place& place);

}  // namespace ec::emulation
