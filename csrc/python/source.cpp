// SPDX-License-Identifier: Apache-2.0
#include "python/source.h"

#include <pybind11/numpy.h>

#include <atomic>

#include "python/raise.h"

namespace py = pybind11;

namespace ecpy {
namespace {

// ---- names that outlive the interpreter's modules -----------------------------------------------

// Leaked on purpose: views may still be made while modules are torn down.
struct Names {
  PyObject* ndarray;
  PyObject* exchange_api = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  PyObject* dlpack = PyUnicode_InternFromString("__dlpack__");
  PyObject* dlpack_device = PyUnicode_InternFromString("__dlpack_device__");
  PyObject* requires_grad = PyUnicode_InternFromString("requires_grad");
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  Names() : ndarray(py::object(py::module_::import("numpy").attr("ndarray")).release().ptr()) {}
};

const Names& names() {
  static const Names* value = new Names;
  return *value;
}

// ---- NumPy --------------------------------------------------------------------------------------

// NumPy's type numbers below kFirstUserType are fixed; those above are given out at run time.
constexpr int kFirstUserType = 256;
constexpr int kWritable = 0x0400;  // NPY_ARRAY_WRITEABLE
std::atomic<int> g_bfloat16_number{-1};

bool is_bfloat16(const py::dtype& dtype, int number) {
  if (number == g_bfloat16_number.load(std::memory_order_relaxed)) return true;
  if (dtype.itemsize() != 2 || std::string(py::str(dtype)) != "bfloat16") return false;
  g_bfloat16_number.store(number, std::memory_order_relaxed);
  return true;
}

// False for dtypes that have no DLPack name: objects, strings, dates, records.
bool numpy_type(const py::dtype& dtype, dlpack::DataType* type) {
  const int number = dtype.num();
  uint8_t code = 0;
  if (number >= kFirstUserType) {
    if (!is_bfloat16(dtype, number)) return false;
    code = dlpack::kBfloat;
  } else if (number == 0) {
    code = dlpack::kBool;
  } else if (number <= 10) {
    code = number % 2 == 1 ? dlpack::kInt : dlpack::kUnsigned;
  } else if (number <= 13 || number == 23) {
    code = dlpack::kFloat;
  } else if (number <= 16) {
    code = dlpack::kComplex;
  } else {
    return false;
  }
  *type = {code, static_cast<uint8_t>(dtype.itemsize() * 8), 1};
  return true;
}

std::string dtype_text(const py::dtype& dtype) { return py::str(dtype); }

void refuse_mask(py::handle array, const Argument& argument) {
  if (!py::hasattr(array, "mask")) return;
  raise_type("%s: '%s' must not be a masked array, because the mask would be ignored; got %s.",
             argument.where, argument.name, Py_TYPE(array.ptr())->tp_name);
}

Source open_numpy(py::handle object, const Argument& argument) {
  auto array = py::reinterpret_borrow<py::array>(object);
  const py::dtype dtype = array.dtype();
  Source source;
  if (!numpy_type(dtype, &source.type)) {
    raise_type("%s: '%s' must have a numeric dtype; got %s.", argument.where, argument.name,
               dtype_text(dtype).c_str());
  }
  const char order = dtype.byteorder();
  if (order != '=' && order != '|') {
    raise_type("%s: '%s' must be in this machine's byte order; got dtype %s.", argument.where,
               argument.name, dtype_text(dtype).c_str());
  }
  source.axes = static_cast<int>(array.ndim());
  for (int axis = 0; axis < source.axes && axis < kMostAxes; ++axis) {
    source.shape[axis] = array.shape(axis);
    source.stride_bytes[axis] = array.strides(axis);
  }
  source.data = static_cast<char*>(const_cast<void*>(array.data()));
  source.writable = (array.flags() & kWritable) != 0;
  source.owner = Owner(std::move(array));
  return source;
}

// ---- DLPack -------------------------------------------------------------------------------------

std::string device_name(const dlpack::Device& device) {
  const char* name = "device type ";
  switch (device.type) {
    case dlpack::kCuda:
    case dlpack::kCudaManaged:
      name = "cuda:";
      break;
    case dlpack::kMetal:
      name = "metal:";
      break;
    case dlpack::kRocm:
      name = "rocm:";
      break;
    default:
      return name + std::to_string(static_cast<int>(device.type));
  }
  return name + std::to_string(device.id);
}

void check_device(const dlpack::Device& device, const Argument& argument) {
  if (device.type == dlpack::kCpu || device.type == dlpack::kCudaHost || device.type == dlpack::kRocmHost) {
    return;
  }
  raise_type("%s: '%s' must be on the CPU; got device %s.", argument.where, argument.name,
             device_name(device).c_str());
}

void read_tensor(const dlpack::Tensor& tensor, const Argument& argument, Source* source) {
  check_device(tensor.device, argument);
  source->type = tensor.dtype;
  source->axes = tensor.ndim;
  source->data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  const int64_t item_bytes = tensor.dtype.bits * tensor.dtype.lanes / 8;
  int64_t c_order = item_bytes;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (axis < kMostAxes) {
      source->shape[axis] = tensor.shape[axis];
      source->stride_bytes[axis] = tensor.strides != nullptr ? tensor.strides[axis] * item_bytes : c_order;
    }
    c_order *= tensor.shape[axis];
  }
  if (tensor.data == nullptr && c_order != 0) {
    raise_type("%s: '%s' must have memory; got an array without data (a fake or traced tensor?).",
               argument.where, argument.name);
  }
}

// Turns an exporter's exception into a TypeError that names the argument, with the old one as its
// cause. Torch writes its stack below the first line.
[[noreturn]] void raise_not_exported(const Argument& argument, py::error_already_set& cause) {
  std::string reason = py::str(cause.value());
  reason = reason.substr(0, reason.find('\n'));
  const std::string text = std::string(argument.where) + ": '" + argument.name +
                           "' must be an array that DLPack can describe; its own library says: " + reason;
  py::raise_from(cause, PyExc_TypeError, text.c_str());
  throw py::error_already_set();
}

struct ExchangeType {
  PyTypeObject* type = nullptr;
  const dlpack::ExchangeApi* api = nullptr;
  bool has_requires_grad = false;
  bool has_is_neg = false;
};

const dlpack::ExchangeApi* usable_api(PyObject* capsule) {
  void* pointer = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
  if (pointer == nullptr) throw py::error_already_set();
  auto* api = static_cast<dlpack::ExchangeApi*>(pointer);
  while (api != nullptr && api->version.major != 1) api = api->previous;
  return api;
}

// Looked up on the type; the first few types that have one are remembered, and kept alive so that
// their addresses stay theirs. Guarded by the GIL.
ExchangeType find_exchange(PyTypeObject* type) {
  constexpr int kRemembered = 4;
  static ExchangeType remembered[kRemembered];
  for (const ExchangeType& known : remembered) {
    if (known.type == type) return known;
  }
  auto* type_object = reinterpret_cast<PyObject*>(type);
  if (PyObject_HasAttr(type_object, names().exchange_api) == 0) return {};
  auto capsule = py::reinterpret_steal<py::object>(PyObject_GetAttr(type_object, names().exchange_api));
  if (!capsule) throw py::error_already_set();
  ExchangeType found;
  found.type = type;
  found.api = usable_api(capsule.ptr());
  found.has_requires_grad = PyObject_HasAttr(type_object, names().requires_grad) != 0;
  found.has_is_neg = PyObject_HasAttr(type_object, names().is_neg) != 0;
  for (ExchangeType& slot : remembered) {
    if (slot.type != nullptr) continue;
    Py_INCREF(type_object);
    slot = found;
    break;
  }
  return found;
}

void refuse_grad(py::handle tensor, const Argument& argument) {
  auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(tensor.ptr(), names().requires_grad));
  if (!value) throw py::error_already_set();
  if (value.ptr() != Py_True) return;
  raise_type(
      "%s: '%s' must not require grad, because %s is not differentiable; got a tensor with "
      "requires_grad=True. Use %s.detach().",
      argument.where, argument.name, argument.where, argument.name);
}

// Torch may hold a tensor as the negative of its memory (the imaginary part of a conjugate), which
// the C exchange API passes over in silence.
void refuse_negated(py::handle tensor, const Argument& argument) {
  auto value = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor.ptr(), names().is_neg));
  if (!value) throw py::error_already_set();
  if (value.ptr() != Py_True) return;
  raise_type(
      "%s: '%s' must hold its values in memory; got a tensor with the negative bit. Use "
      "%s.resolve_neg().",
      argument.where, argument.name, argument.name);
}

Source open_exchange(py::handle tensor, const ExchangeType& type, const Argument& argument) {
  if (type.has_requires_grad && !argument.may_require_grad) refuse_grad(tensor, argument);
  if (type.has_is_neg) refuse_negated(tensor, argument);
  dlpack::VersionedTensor* exported = nullptr;
  if (type.api->tensor_from_object(tensor.ptr(), &exported) != 0) {
    py::error_already_set cause;
    raise_not_exported(argument, cause);
  }
  Source source;
  source.owner = Owner(exported);
  source.exchange = type.api;
  source.writable = (exported->flags & dlpack::kFlagReadOnly) == 0;
  read_tensor(exported->tensor, argument, &source);
  return source;
}

// Takes the tensor out of a capsule, which is renamed as the specification wants.
Source open_capsule(const py::object& capsule, const Argument& argument) {
  Source source;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    auto* exported =
        static_cast<dlpack::VersionedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (exported->version.major != 1) {
      raise_type("%s: '%s' must be exported by DLPack version 1; got version %u.", argument.where,
                 argument.name, exported->version.major);
    }
    PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
    source.owner = Owner(exported);
    source.writable = (exported->flags & dlpack::kFlagReadOnly) == 0;
    read_tensor(exported->tensor, argument, &source);
    return source;
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") == 0) {
    raise_type("%s: '%s' must have a __dlpack__ method that returns a new DLPack capsule; got %s.",
               argument.where, argument.name, Py_TYPE(capsule.ptr())->tp_name);
  }
  auto* exported = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  source.owner = Owner(exported);
  source.writable = true;
  read_tensor(exported->tensor, argument, &source);
  return source;
}

Source open_dlpack(py::handle array, const Argument& argument) {
  if (!argument.may_require_grad && py::hasattr(array, names().requires_grad)) refuse_grad(array, argument);
  py::object capsule;
  try {
    const auto device = array.attr(names().dlpack_device)().cast<py::tuple>();
    check_device({static_cast<dlpack::DeviceType>(device[0].cast<int>()), device[1].cast<int>()}, argument);
    const auto exporter = array.attr(names().dlpack);
    try {
      capsule = exporter(py::arg("max_version") = py::make_tuple(1, 0));
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      capsule = exporter();  // a producer from before version 1
    }
  } catch (py::error_already_set& cause) {
    if (cause.matches(PyExc_BufferError)) raise_not_exported(argument, cause);
    throw;
  }
  return open_capsule(capsule, argument);
}

}  // namespace

Source open_source(py::handle array, const Argument& argument) {
  PyTypeObject* type = Py_TYPE(array.ptr());
  if (reinterpret_cast<PyObject*>(type) == names().ndarray) return open_numpy(array, argument);
  const ExchangeType exchange = find_exchange(type);
  if (exchange.api != nullptr) return open_exchange(array, exchange, argument);
  if (py::isinstance<py::array>(array)) {
    refuse_mask(array, argument);
    return open_numpy(array, argument);
  }
  if (py::hasattr(array, names().dlpack)) return open_dlpack(array, argument);
  if (PyObject_CheckBuffer(array.ptr()) != 0) {
    auto view = py::reinterpret_steal<py::object>(PyMemoryView_FromObject(array.ptr()));
    if (!view) throw py::error_already_set();
    const py::array seen = py::module_::import("numpy").attr("asarray")(view);
    return open_numpy(seen, argument);
  }
  raise_type(
      "%s: '%s' must be an array (NumPy, Torch, or another with __dlpack__ or the buffer "
      "protocol); got %s. Use numpy.asarray(%s).",
      argument.where, argument.name, type->tp_name, argument.name);
}

std::string type_name(const dlpack::DataType& type) {
  const char* kind = "float";
  switch (type.code) {
    case dlpack::kInt:
      kind = "int";
      break;
    case dlpack::kUnsigned:
      kind = "uint";
      break;
    case dlpack::kFloat:
      break;
    case dlpack::kBfloat:
      kind = "bfloat";
      break;
    case dlpack::kComplex:
      kind = "complex";
      break;
    case dlpack::kBool:
      return "bool";
    default:
      return "DLPack type " + std::to_string(type.code) + " of " + std::to_string(type.bits) + " bits";
  }
  return kind + std::to_string(type.bits);
}

std::string shape_text(py::handle array) {
  py::list sizes;
  if (py::hasattr(array, "shape")) {
    for (py::handle size : array.attr("shape")) sizes.append(size);
  }
  return py::str(py::tuple(sizes));
}

}  // namespace ecpy
