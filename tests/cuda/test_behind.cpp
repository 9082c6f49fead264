// SPDX-License-Identifier: Apache-2.0
// Kernels behind one another: each of their threads has to wait.
#include <stdexcept>
#include <string>
#include <vector>

#include "common/behind.cuh"
#include "native/check.h"

namespace {

using ec::cuda::wait_for_kernel_before;

__global__ void write_numbers(int* numbers) {
  numbers[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<int>(blockIdx.x + threadIdx.x);
}
// waiting: threads of each block, of which others leave at once; twice: they wait again.
__global__ void double_numbers(int* numbers, unsigned waiting, bool twice) {
  if (threadIdx.x >= waiting) return;
  wait_for_kernel_before();
  if (twice) wait_for_kernel_before();
  numbers[blockIdx.x * blockDim.x + threadIdx.x] *= 2;
}

bool is_refused(unsigned waiting, bool twice) {
  std::vector<int> numbers(3 * 64);
  EC_LAUNCH(write_numbers, 3, 64, 0, nullptr, numbers.data());
  try {
    EC_LAUNCH_BEHIND(double_numbers, 3, 64, 0, nullptr, numbers.data(), waiting, twice);
  } catch (const std::logic_error& error) {
    return std::string(error.what()).find("has to wait") != std::string::npos;
  }
  for (int i = 0; i < 3 * 64; ++i) CHECK(numbers[static_cast<size_t>(i)] == 2 * (i / 64 + i % 64));
  return false;
}

}  // namespace

int main() {
  CHECK(!is_refused(64, false));
  CHECK(is_refused(63, false));
  CHECK(is_refused(0, false));
  CHECK(is_refused(64, true));
  return check::report();
}
