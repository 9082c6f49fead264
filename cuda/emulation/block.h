// SPDX-License-Identifier: Apache-2.0
// The threads of one block, or of the blocks of a cluster, each a fiber, in an order drawn at random; one
// cluster after the other.
//
// Stricter than a GPU: all threads of a block must come to each barrier, none may have left, and lanes of a
// warp must meet at one place of the source; else the launch ends with an exception. A missing barrier
// shows as a wrong result, in some of the orders. Clusters do not run at the same time: a block that waits
// for one of another cluster never ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace ec::emulation {

struct Size3 {
  unsigned x = 1, y = 1, z = 1;
};
struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

constexpr int kWarpLanes = 32;
constexpr size_t kMostLaneBytes = 128;  // that a lane gives to the others at once
constexpr unsigned kMostThreads = 1024, kMostThreadsDeep = 64;
constexpr unsigned kMostBlocks = 0x7fffffffu, kMostBlocksAside = 65535;
constexpr unsigned kMostClusterBlocks = 8;             // that every device has room for
constexpr size_t kFreeSharedBytes = size_t{48} << 10;  // that blocks share without asking

// Where in the source something is called.
struct Place {
  const char* file;
  int line;
};

// Throws std::logic_error where the launch or the kernel breaks a rule. Blocks and threads have another
// order each time. allowed_bytes: see allowed_shared. cluster: blocks that run together.
void launch(const Size3& grid, const Size3& block, size_t shared_bytes, size_t allowed_bytes,
            const std::function<void()>& kernel, const Size3& cluster = {});
// As launch(), of a kernel that may begin before the one before it is done (common/behind.cuh): throws too
// where one of its threads has not waited for that.
void launch_behind(const Size3& grid, const Size3& block, size_t shared_bytes, size_t allowed_bytes,
                   const std::function<void()>& kernel);
void wait_for_kernel_before();
// What blocks share at most: of Hopper, 227 KB, unless a test says otherwise.
size_t& most_shared();
// Kernels that were launched, and memory that was filled on a stream: what a stream has to start.
uint64_t& started();
// Bytes that async_copy has taken from the memory of the device.
uint64_t& copied_bytes();
// What blocks of a kernel are allowed to share; 0 at first, which stands for kFreeSharedBytes.
size_t& allowed_shared(const void* kernel);

// From within a kernel.
void* shared_memory();
size_t shared_bytes();
void sync_block(const Place& place);
// Gives `bytes` of this lane to all lanes of the mask and returns what they gave: lane l's at l *
// kMostLaneBytes. Valid until the lane's next meeting.
const unsigned char* meet(unsigned mask, const void* value, size_t bytes, const Place& place);
int lane();
// The number of this thread in its cluster, block by block, that in its block, and of the cluster among all
// that have run.
size_t thread_number();
size_t thread_in_block();
uint64_t cluster_number();
// This block's number in its cluster, and how many there are.
unsigned cluster_rank();
unsigned cluster_size();
// The barrier of the cluster: each thread of all its blocks arrives, and then waits, before it arrives
// again or leaves.
void cluster_arrive(const Place& place);
void cluster_wait(const Place& place);
// Where an address of this block's shared memory lies in that of block `rank` of the cluster. Refused
// unless this thread has waited at the cluster's barrier (that block may not have begun before), and once
// a thread of that block has left.
void* neighbour(const void* memory, size_t bytes, unsigned rank, const Place& place);
// As later(); block `rank` must not end before.
void later_in(unsigned rank, std::function<void()> action);
// Leaves other threads their turns until that holds; it is asked again after each call of notify. `what`
// and the place are for the report on a block that is stuck.
void wait_until(const std::function<bool()>& holds, const char* what, const Place& place);
void notify();
// Done at a time drawn at random, or when no thread can go on: work of an engine beside the threads. A
// block must not end before. What is done calls notify where it changes what threads wait for.
void later(std::function<void()> action);
// Copies of this thread, made when it waits for them; until then what they write is unwritten. A null
// `from` stands for zeros.
void async_copy(void* to, const void* from, size_t bytes);
void async_commit();
void async_wait(int groups_left);
[[noreturn]] void refuse(const char* what, const Place& place);

}  // namespace ec::emulation
