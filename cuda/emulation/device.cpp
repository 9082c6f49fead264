// SPDX-License-Identifier: Apache-2.0
// The emulation as a device of its own: number 0, whose memory is that of the process.
#include "common/device.h"

#include <cstring>

#include "core/errors.h"

namespace ec::cuda {

constexpr int kMultiprocessors = 2;  // few, so that small problems make blocks go round

ec_status count_devices(int32_t* count, ec_error*) {
  *count = 1;
  return EC_OK;
}

ec_status find_device(int32_t device, DeviceFacts* facts, ec_error* error) {
  if (device != 0)
    return fail(error, EC_INVALID_VALUE, "device", -1, "'device' must be 0; got %d",
                static_cast<int>(device));
  *facts = {kMultiprocessors, 8, 0};
  return EC_OK;
}

CurrentDevice::CurrentDevice(int32_t) {}
CurrentDevice::~CurrentDevice() = default;

ec_status last_failure(ec_error*) { return EC_OK; }

ec_status read_back(void* to, const void* from, int64_t bytes, void*, ec_error*) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return EC_OK;
}

}  // namespace ec::cuda

ec_status ec_cuda_device_count(int32_t* count, ec_error* error) {
  return ec::cuda::count_devices(count, error);
}

const char* ec_cuda_build_info(void) { return "emulation"; }
