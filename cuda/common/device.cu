// SPDX-License-Identifier: Apache-2.0
#include "common/device.h"

#include <cuda_runtime.h>

#include <atomic>
#include <mutex>
#include <utility>

#include "common/platform.h"
#include "core/errors.h"

namespace ec::cuda {
namespace {

constexpr int kMostDevices = 64;
constexpr int kLeastMajor = 8;  // compute capability: the tensor cores' bf16, asynchronous copies

ec_status fail_with(cudaError_t code, ec_error* error) {
  cudaGetLastError();  // not for the next call to find
  if (code == cudaErrorMemoryAllocation)
    return fail(error, EC_OUT_OF_MEMORY, "", -1, "the GPU is out of memory (%s)", cudaGetErrorString(code));
  return fail(error, EC_DEVICE_ERROR, "", -1, "CUDA failed: %s (%s)", cudaGetErrorString(code),
              cudaGetErrorName(code));
}

// What the runtime says of a driver that is missing is that it is too old.
ec_status fail_without_device(cudaError_t code, ec_error* error) {
  int driver = 0;
  const bool asked = cudaDriverGetVersion(&driver) == cudaSuccess;
  cudaGetLastError();  // not for the next call to find
  if (!asked || driver == 0)
    return fail(error, EC_DEVICE_ERROR, "", -1,
                "there is no CUDA device: no NVIDIA driver was found (libcuda.so.1)");
  if (code == cudaErrorInsufficientDriver)
    return fail(error, EC_DEVICE_ERROR, "", -1,
                "the NVIDIA driver must be for CUDA %d.%d or newer; it is for CUDA %d.%d",
                CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, driver / 1000, driver % 1000 / 10);
  if (code == cudaErrorNoDevice || code == cudaSuccess)
    return fail(error, EC_DEVICE_ERROR, "", -1,
                "there is no CUDA device: the driver has found none that this process may use");
  return fail_with(code, error);
}

// Functions of the driver, which this library does not link. Their types are those of cuda.h.
struct Driver {
  int (*get_context)(void** context) = nullptr;
  int (*set_context)(void* context) = nullptr;

  static const Driver& get() {
    static const Driver driver = found();
    return driver;
  }

 private:
  static Driver found() {
    Driver driver;
    void *get = nullptr, *set = nullptr;
    if (look_up("cuCtxGetCurrent", &get) && look_up("cuCtxSetCurrent", &set)) {
      driver.get_context = reinterpret_cast<int (*)(void**)>(get);
      driver.set_context = reinterpret_cast<int (*)(void*)>(set);
    }
    return driver;
  }
  static bool look_up(const char* name, void** function) {
    constexpr unsigned kVersion = 12000;  // of the driver's interface
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t code =
        cudaGetDriverEntryPointByVersion(name, function, kVersion, cudaEnableDefault, &result);
    if (code != cudaSuccess) cudaGetLastError();
    return code == cudaSuccess && result == cudaDriverEntryPointSuccess;
  }
};

}  // namespace

ec_status count_devices(int32_t* count, ec_error* error) {
  int found = 0;
  const cudaError_t code = cudaGetDeviceCount(&found);
  if (code != cudaSuccess || found == 0) return fail_without_device(code, error);
  *count = found;
  return EC_OK;
}

ec_status find_device(int32_t device, DeviceFacts* facts, ec_error* error) {
  static DeviceFacts known[kMostDevices];
  static std::atomic<bool> is_known[kMostDevices];
  if (device >= 0 && device < kMostDevices && is_known[device].load(std::memory_order_acquire)) {
    *facts = known[device];
    return EC_OK;
  }
  int32_t count = 0;
  const ec_status status = count_devices(&count, error);
  if (status != EC_OK) return status;
  if (device < 0 || device >= count || device >= kMostDevices)
    return fail(error, EC_INVALID_VALUE, "device", -1, "'device' must be from 0 to %d; got %d", count - 1,
                static_cast<int>(device));
  cudaError_t code = cudaDeviceGetAttribute(&facts->major, cudaDevAttrComputeCapabilityMajor, device);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&facts->minor, cudaDevAttrComputeCapabilityMinor, device);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&facts->multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (code != cudaSuccess) return fail_with(code, error);
  if (facts->major < kLeastMajor)
    return fail(error, EC_UNSUPPORTED, "device", -1,
                "'device' must have compute capability %d.0 or newer; device %d has %d.%d", kLeastMajor,
                static_cast<int>(device), facts->major, facts->minor);
  static std::mutex writing;
  const std::lock_guard<std::mutex> lock(writing);
  known[device] = *facts;
  is_known[device].store(true, std::memory_order_release);
  return EC_OK;
}

CurrentDevice::CurrentDevice(int32_t device) {
  int current = -1;
  if (cudaGetDevice(&current) != cudaSuccess || current == device) return;
  // To set the device from before again would make a context on it where there was none.
  const Driver& driver = Driver::get();
  switched_ = driver.get_context != nullptr && driver.get_context(&before_) == 0;
  cudaSetDevice(device);
}

CurrentDevice::~CurrentDevice() {
  if (switched_) Driver::get().set_context(before_);
}

ec_status last_failure(ec_error* error) {
  const cudaError_t code = std::exchange(own_failure(), cudaSuccess);
  return code == cudaSuccess ? EC_OK : fail_with(code, error);
}

ec_status read_back(void* to, const void* from, int64_t bytes, void* stream, ec_error* error) {
  const auto on = static_cast<cudaStream_t>(stream);
  cudaError_t code = cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, on);
  if (code == cudaSuccess) code = cudaStreamSynchronize(on);
  return code == cudaSuccess ? EC_OK : fail_with(code, error);
}

}  // namespace ec::cuda

ec_status ec_cuda_device_count(int32_t* count, ec_error* error) {
  return ec::cuda::count_devices(count, error);
}

#define EC_TEXT_OF(x) #x
#define EC_TEXT(x) EC_TEXT_OF(x)
const char* ec_cuda_build_info(void) {
  return "CUDA " EC_TEXT(__CUDACC_VER_MAJOR__) "." EC_TEXT(
      __CUDACC_VER_MINOR__) ", targets " EC_CUDA_TARGETS;
}
