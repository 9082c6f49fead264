// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <utility>

#include "core/workspace.h"
#include "native/check.h"

namespace {

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 64 == 0; }

void memory_is_aligned_and_writable() {
  for (int64_t count : {0, 1, 15, 16, 17, 1000}) {
    ec::AlignedBuffer<float> buffer;
    CHECK(buffer.allocate(count));
    CHECK(aligned(buffer.data()) && buffer.data() != nullptr);
    CHECK(buffer.size() == count);
    for (int64_t i = 0; i < count; ++i) buffer[i] = static_cast<float>(i);
  }
}

void impossible_sizes_fail() {
  ec::AlignedBuffer<double> buffer;
  CHECK(buffer.allocate(8));
  CHECK(!buffer.allocate(-1));
  CHECK(buffer.data() == nullptr && buffer.size() == 0);
  CHECK(!buffer.allocate(INT64_MAX));
  CHECK(!buffer.allocate(INT64_MAX / 8));
  CHECK(buffer.data() == nullptr && buffer.size() == 0);
}

void moves_leave_one_owner() {
  ec::AlignedBuffer<int> a;
  CHECK(a.allocate(4));
  const int* memory = a.data();
  ec::AlignedBuffer<int> b(std::move(a));
  CHECK(b.data() == memory && b.size() == 4);
  ec::AlignedBuffer<int> c;
  c = std::move(b);
  CHECK(c.data() == memory && c.size() == 4);
}

void near_memory_gives_way_to_the_heap() {
  ec::NearBuffer<float, 256> buffer;
  for (int64_t count : {0, 1, 64, 65, 1000, 7}) {
    CHECK(buffer.allocate(count));
    CHECK(aligned(buffer.data()) && buffer.size() == count);
    const auto* first = reinterpret_cast<const unsigned char*>(buffer.data());
    const auto* object = reinterpret_cast<const unsigned char*>(&buffer);
    CHECK((first >= object && first < object + sizeof buffer) == (count <= 64));
    for (int64_t i = 0; i < count; ++i) buffer[i] = static_cast<float>(i);
  }
  CHECK(!buffer.allocate(-1) && buffer.data() == nullptr && buffer.size() == 0);
  CHECK(!buffer.allocate(INT64_MAX) && buffer.data() == nullptr && buffer.size() == 0);
}

void sizes_do_not_wrap() {
  int64_t result = 0;
  CHECK(ec::multiply_sizes(3, 5, &result) && result == 15);
  CHECK(ec::multiply_sizes(0, INT64_MAX, &result) && result == 0);
  CHECK(!ec::multiply_sizes(INT64_MAX, 2, &result));
  CHECK(!ec::multiply_sizes(-1, 2, &result));
  CHECK(ec::add_sizes(INT64_MAX - 1, 1, &result) && result == INT64_MAX);
  CHECK(!ec::add_sizes(INT64_MAX, 1, &result));
  CHECK(!ec::add_sizes(-1, 1, &result));
  CHECK(ec::round_up(0, 16) == 0 && ec::round_up(1, 16) == 16 && ec::round_up(16, 16) == 16);
}

}  // namespace

int main() {
  memory_is_aligned_and_writable();
  impossible_sizes_fail();
  moves_leave_one_owner();
  near_memory_gives_way_to_the_heap();
  sizes_do_not_wrap();
  return check::report();
}
