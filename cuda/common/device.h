// SPDX-License-Identifier: Apache-2.0
// What calls ask of the CUDA runtime besides kernels. The emulation is one device.
#pragma once

#include <cstdint>

#include "capi/embedcore_cuda.h"

namespace ec::cuda {

ec_status count_devices(int32_t* count, ec_error* error);

struct DeviceFacts {
  int multiprocessors = 0;
  int major = 0, minor = 0;  // compute capability
};

// Of a device, which must be one that the kernels were compiled for.
ec_status find_device(int32_t device, DeviceFacts* facts, ec_error* error);

// Makes a device the calling thread's for as long as it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int32_t device);
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice();

 private:
  bool switched_ = false;
  void* before_ = nullptr;  // the context from before, or null
};

// What has failed in the calling thread since this was last asked.
ec_status last_failure(ec_error* error);
// The end of a call: whether its kernels could be started. Not started without a failure: too large.
ec_status started(bool all, ec_error* error);

// Copies from the device when all before it on the stream is done, and waits for that.
ec_status read_back(void* to, const void* from, int64_t bytes, void* stream, ec_error* error);

}  // namespace ec::cuda
