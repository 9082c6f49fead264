// SPDX-License-Identifier: Apache-2.0
// The part of the DLPack 1.x specification (dmlc.github.io/dlpack) that a consumer needs.
// Layouts are those of the specification; names are ours.
#pragma once

#include <cstdint>

namespace ecpy::dlpack {

enum DeviceType : int32_t {
  kCpu = 1,
  kCuda = 2,
  kCudaHost = 3,
  kMetal = 8,
  kRocm = 10,
  kRocmHost = 11,
  kCudaManaged = 13,
};

enum TypeCode : uint8_t {
  kInt = 0,
  kUnsigned = 1,
  kFloat = 2,
  kBfloat = 4,
  kComplex = 5,
  kBool = 6,
};

struct Version {
  uint32_t major;
  uint32_t minor;
};

struct Device {
  DeviceType type;
  int32_t id;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // elements; null means C order
  uint64_t byte_offset;
};

// What a capsule named "dltensor" holds: producers that do not know version 1.
struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor* self);
};

// What a capsule named "dltensor_versioned" holds.
struct VersionedTensor {
  Version version;
  void* context;
  void (*deleter)(VersionedTensor* self);
  uint64_t flags;
  Tensor tensor;
};
constexpr uint64_t kFlagReadOnly = 1;

// type(x).__dlpack_c_exchange_api__, a capsule named "dlpack_exchange_api". Functions return 0, or
// -1 with a Python exception set.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  int (*allocate)(Tensor* prototype, VersionedTensor** out, void* error_context,
                  void (*set_error)(void* error_context, const char* kind, const char* message));
  int (*tensor_from_object)(void* object, VersionedTensor** out);
  int (*tensor_to_object)(VersionedTensor* tensor, void** out_object);  // takes the tensor over
  int (*borrowed_tensor_from_object)(void* object, Tensor* out);        // may be null
  int (*current_work_stream)(DeviceType type, int32_t id, void** out_stream);
};

}  // namespace ecpy::dlpack
