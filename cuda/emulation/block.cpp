// SPDX-License-Identifier: Apache-2.0
#include "emulation/block.h"

#include <algorithm>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "emulation/cluster.h"

// As kernels know them.
ec::emulation::Size3 gridDim, blockDim;
ec::emulation::Index3 threadIdx, blockIdx;

namespace ec::emulation {
namespace {

std::mt19937_64& random_orders() {
  static std::mt19937_64 random(1);
  return random;
}

Cluster* g_cluster = nullptr;
uint64_t g_waited = 0;  // threads, for the kernel before

}  // namespace

size_t& most_shared() {
  static size_t bytes = size_t{227} << 10;
  return bytes;
}

size_t& allowed_shared(const void* kernel) {
  static std::map<const void*, size_t> allowed;
  return allowed[kernel];
}

uint64_t& started() {
  static uint64_t count = 0;
  return count;
}

uint64_t& copied_bytes() {
  static uint64_t count = 0;
  return count;
}

void launch(const Size3& grid, const Size3& block, size_t shared_bytes, size_t allowed_bytes,
            const std::function<void()>& kernel, const Size3& cluster) {
  ++started();
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > kMostThreadsDeep)
    throw std::logic_error("a block has 1 to 1024 threads, and at most 64 along z");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMostBlocks || grid.y > kMostBlocksAside ||
      grid.z > kMostBlocksAside)
    throw std::logic_error("a grid has one block at least, and at most 2^31 - 1, 65535 and 65535");
  const uint64_t together = uint64_t{cluster.x} * cluster.y * cluster.z;
  if (together == 0 || together > kMostClusterBlocks || grid.x % cluster.x != 0 ||
      grid.y % cluster.y != 0 || grid.z % cluster.z != 0)
    throw std::logic_error("a cluster has 1 to 8 blocks, and a grid whole clusters along each axis");
  if (shared_bytes > std::max(kFreeSharedBytes, std::min(allowed_bytes, most_shared())))
    throw std::logic_error("a block shares at most 48 KB, or what its kernel and the device allow");
  Cluster runner(cluster, block, shared_bytes, kernel, random_orders());
  struct Guard {
    explicit Guard(Cluster* cluster) { g_cluster = cluster; }
    ~Guard() { g_cluster = nullptr; }
  } guard(&runner);
  gridDim = grid;
  blockDim = block;
  std::vector<Index3> order;
  for (unsigned z = 0; z < grid.z; z += cluster.z)
    for (unsigned y = 0; y < grid.y; y += cluster.y)
      for (unsigned x = 0; x < grid.x; x += cluster.x) order.push_back({x, y, z});
  std::shuffle(order.begin(), order.end(), random_orders());
  for (const Index3& first : order) runner.run(first);
}

void launch_behind(const Size3& grid, const Size3& block, size_t shared_bytes, size_t allowed_bytes,
                   const std::function<void()>& kernel) {
  g_waited = 0;
  launch(grid, block, shared_bytes, allowed_bytes, kernel);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z * grid.x * grid.y * grid.z;
  if (g_waited != threads)
    throw std::logic_error("each thread of a kernel behind another has to wait for that, once");
}
void wait_for_kernel_before() { ++g_waited; }

void* shared_memory() { return g_cluster->shared(); }
size_t shared_bytes() { return g_cluster->shared_bytes(); }
void sync_block(const Place& place) { g_cluster->sync(place); }
const unsigned char* meet(unsigned mask, const void* value, size_t bytes, const Place& place) {
  return g_cluster->meet(mask, value, bytes, place);
}
int lane() { return g_cluster->lane(); }
size_t thread_number() { return g_cluster->thread_number(); }
size_t thread_in_block() { return g_cluster->thread_in_block(); }
uint64_t cluster_number() { return Cluster::number(); }
unsigned cluster_rank() { return g_cluster->rank(); }
unsigned cluster_size() { return g_cluster->size(); }
void cluster_arrive(const Place& place) { g_cluster->arrive(place); }
void cluster_wait(const Place& place) { g_cluster->wait(place); }
void* neighbour(const void* memory, size_t bytes, unsigned rank, const Place& place) {
  return g_cluster->neighbour(memory, bytes, rank, place);
}
void later_in(unsigned rank, std::function<void()> action) { g_cluster->later_in(rank, std::move(action)); }
void wait_until(const std::function<bool()>& holds, const char* what, const Place& place) {
  g_cluster->wait_until(holds, what, place);
}
void notify() { g_cluster->notify(); }
void later(std::function<void()> action) { g_cluster->later(std::move(action)); }
void async_copy(void* to, const void* from, size_t bytes) {
  if (from != nullptr) copied_bytes() += bytes;
  g_cluster->async_copy({to, from, bytes});
}
void async_commit() { g_cluster->async_commit(); }
void async_wait(int groups_left) { g_cluster->async_wait(static_cast<size_t>(groups_left)); }
void refuse(const char* what, const Place& place) { g_cluster->fail(what + (": " + text(place))); }

}  // namespace ec::emulation
