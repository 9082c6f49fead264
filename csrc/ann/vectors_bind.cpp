// SPDX-License-Identifier: Apache-2.0
// The vectors of an index as Python calls them; arguments have been checked and laid out by Python.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "ann/build_steps_python.h"
#include "ann/parts.h"
#include "ann/vectors.h"
#include "python/gil.h"
#include "python/monitor.h"

namespace py = pybind11;

namespace {

using ec::ann::Vectors;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// Runs work without the lock; its exceptions go on from here.
template <class Work>
auto unlocked(Work&& work) {
  std::optional<decltype(work())> result;
  std::exception_ptr error;
  bool interrupted = false;
  ecpy::without_gil([&] {
    try {
      result.emplace(work());
    } catch (const ec::ann::Interrupted&) {
      interrupted = true;
    } catch (...) {
      error = std::current_exception();
    }
    return 0;
  });
  if (interrupted && PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (interrupted) throw std::runtime_error("interrupted");
  if (error) std::rethrow_exception(error);
  return std::move(*result);
}

ec::ann::Metric metric_of(const std::string& name) {
  if (name == "cosine") return ec::ann::Metric::kCosine;
  if (name == "ip") return ec::ann::Metric::kInnerProduct;
  if (name == "l2") return ec::ann::Metric::kL2;
  throw py::value_error("'metric' is unknown");
}

constexpr const char* kMetricNames[] = {"cosine", "ip", "l2"};
constexpr const char* kDtypeNames[] = {"float32", "float16", "bfloat16", "int8"};

ec::VectorDtype dtype_of(const std::string& name) {
  for (int i = 0; i < ec::kVectorDtypes; ++i) {
    if (name == kDtypeNames[i]) return static_cast<ec::VectorDtype>(i);
  }
  throw py::value_error("'dtype' is unknown");
}

// Rows of dim numbers whose last axis is contiguous.
Vectors append(const Vectors& vectors, const py::array& rows, int threads) {
  const ec::ann::IndexData& index = vectors.data();
  const int64_t number_bytes = ec::ann::IndexData::number_bytes(index.dtype);
  // NumPy may give an array without rows any strides.
  if (rows.ndim() != 2 || rows.shape(1) != index.dim || rows.itemsize() != number_bytes ||
      (index.dim > 1 && rows.shape(0) > 0 && rows.strides(1) != number_bytes)) {
    throw py::value_error("rows must be a matrix of the index's width and dtype");
  }
  const void* data = rows.data();
  const int64_t count = rows.shape(0), stride = rows.strides(0);
  return unlocked([&] { return vectors.append(data, count, stride, threads); });
}

Vectors delete_rows(const Vectors& vectors, const Array<int64_t>& slots) {
  const int64_t* data = slots.data();
  const int64_t count = slots.size();
  return unlocked([&] { return vectors.remove(data, count); });
}

py::tuple build(const Vectors& vectors, const std::optional<Array<float>>& basis,
                const std::optional<Array<float>>& mean, int64_t head_bytes, int threads, uint64_t seed,
                py::object progress, const py::object& steps) {
  ec::ann::BuildRequest request;
  if (basis) {
    const int64_t dim = vectors.data().dim;
    if (!mean || basis->ndim() != 2 || basis->shape(1) != dim || basis->shape(0) < 1 ||
        basis->shape(0) > dim || mean->size() != dim || head_bytes < 64 || head_bytes % 64 != 0) {
      throw py::value_error("'basis' must have shape (code dims, dim), 'mean' dim numbers");
    }
    request.basis = basis->data();
    request.mean = mean->data();
    request.shape.code_dims = basis->shape(0);
    request.shape.head_bytes = head_bytes;
    const int64_t left = request.shape.code_dims - request.shape.head_numbers();
    request.shape.tail_bytes = left > 0 ? ec::round_up(left, 64) : 0;
  }
  request.threads = threads;
  request.seed = seed;
  const ecpy::PyMonitor monitor(std::move(progress));
  request.monitor = monitor.get();
  std::optional<ecpy::PythonSteps> asked;
  if (!steps.is_none() && basis) request.steps = &asked.emplace(steps, *basis, *mean);
  std::vector<int64_t> order;
  Vectors built = unlocked([&] { return vectors.build(request, &order); });
  return py::make_tuple(std::move(built),
                        Array<int64_t>(static_cast<py::ssize_t>(order.size()), order.data()));
}

Vectors merge(const Vectors& vectors, int threads, py::object progress) {
  const ecpy::PyMonitor monitor(std::move(progress));
  return unlocked([&] { return vectors.merge(threads, monitor.get()); });
}

Vectors calibrate(const Vectors& vectors, const std::optional<Array<float>>& queries, int threads) {
  const ecpy::PyMonitor monitor;
  if (queries && (queries->ndim() != 2 || queries->shape(1) != vectors.data().dim)) {
    throw py::value_error("'queries' must have the index's width");
  }
  const float* data = queries ? queries->data() : nullptr;
  const int64_t count = queries ? queries->shape(0) : 0;
  return unlocked([&] { return vectors.calibrate(data, count, threads, monitor.get()); });
}

// What search and explain have in common.
struct Search {
  ec::ann::SearchRequest request;
  ecpy::PyMonitor monitor;

  Search(const Vectors& vectors, const Array<float>& queries, int64_t k,
         const std::shared_ptr<ec::ann::Filters>& filters, const std::optional<Array<int32_t>>& which,
         float recall, int64_t effort, bool exact, int threads) {
    const ec::ann::IndexData& index = vectors.data();
    if (queries.ndim() != 2 || queries.shape(1) != index.dim || k < 1) {
      throw py::value_error("'queries' must have the index's width");
    }
    if (exact && index.raw_dropped) throw py::value_error("an index without vectors has no exact search");
    request.queries = queries.data();
    request.count = queries.shape(0);
    request.wanted = {k, recall, effort, exact};
    request.threads = threads;
    request.monitor = monitor.get();
    if (!filters) return;
    if (filters->rows() != index.rows)
      throw py::value_error("'filters' are of another version of the index");
    if (!which || which->size() != request.count)
      throw py::value_error("'which' must name a filter a query");
    for (int64_t i = 0; i < request.count; ++i) {
      if (which->data()[i] < -1 || which->data()[i] >= filters->size()) {
        throw py::value_error("'which' is out of range");
      }
    }
    request.filters = filters.get();
    request.which = which->data();
  }

  void run(const Vectors& vectors, ec::ann::Explanation* explanations) {
    const ec_status status =
        ecpy::without_gil([&] { return ec::ann::search(vectors.data(), request, explanations); });
    if (status == EC_OUT_OF_MEMORY) throw std::bad_alloc();
    if (status == EC_INTERRUPTED) {
      if (PyErr_Occurred() == nullptr) PyErr_SetNone(PyExc_KeyboardInterrupt);
      throw py::error_already_set();
    }
  }
};

void search(const Vectors& vectors, const Array<float>& queries, int64_t k,
            const std::shared_ptr<ec::ann::Filters>& filters, const std::optional<Array<int32_t>>& which,
            float recall, int64_t effort, bool exact, int threads, Array<int64_t> slots,
            Array<float> distances, Array<int64_t> counts) {
  Search one(vectors, queries, k, filters, which, recall, effort, exact, threads);
  if (slots.size() != one.request.count * k || distances.size() != slots.size() ||
      counts.size() != one.request.count) {
    throw py::value_error("results must have shapes (n, k), (n, k) and (n,)");
  }
  one.request.slots = slots.mutable_data();
  one.request.distances = distances.mutable_data();
  one.request.counts = counts.mutable_data();
  one.run(vectors, nullptr);
}

py::dict as_dict(const ec::ann::Explanation& explanation, const ec::ann::IndexData& index) {
  const ec::ann::Plan& plan = explanation.plan;
  const ec::ann::Work& work = explanation.work;
  py::dict result;
  result["plan"] = ec::ann::plan_name(plan.kind);
  result["passing"] = plan.passing;
  result["live"] = index.live();
  result["local_share"] = plan.local_share;
  result["estimated_seconds"] = plan.seconds;
  result["kept"] = plan.kept;
  result["slack"] = plan.slack;
  result["cells_ranked"] = work.cells_ranked;
  result["codes_scored"] = work.heads_scored;
  result["codes_refined"] = work.tails_added;
  result["expanded"] = work.steps;
  result["rescored"] = work.rescored;
  result["gave_up"] = work.gave_up;
  return result;
}

py::list explain(const Vectors& vectors, const Array<float>& queries, int64_t k,
                 const std::shared_ptr<ec::ann::Filters>& filters,
                 const std::optional<Array<int32_t>>& which, float recall, int64_t effort, bool exact,
                 int threads) {
  k = std::min(k, std::max<int64_t>(vectors.data().rows, 1));
  Search one(vectors, queries, k, filters, which, recall, effort, exact, threads);
  const auto count = static_cast<size_t>(one.request.count);
  std::vector<int64_t> slots(count * static_cast<size_t>(k)), counts(count);
  std::vector<float> distances(count * static_cast<size_t>(k));
  std::vector<ec::ann::Explanation> explanations(count);
  one.request.slots = slots.data();
  one.request.distances = distances.data();
  one.request.counts = counts.data();
  one.run(vectors, explanations.data());
  py::list result;
  for (const ec::ann::Explanation& explanation : explanations) {
    result.append(as_dict(explanation, vectors.data()));
  }
  return result;
}

py::object live_bits(const Vectors& vectors) {
  const auto& alive = vectors.data().alive;
  if (alive == nullptr) return py::none();
  return Array<uint64_t>(static_cast<py::ssize_t>(alive->bits.size()), alive->bits.data());
}

// The numbers of some rows; bfloat16 as uint16.
py::array rows_of(const Vectors& vectors, const Array<int64_t>& slots) {
  const ec::ann::IndexData& index = vectors.data();
  if (index.raw_dropped) throw py::value_error("the vectors were dropped");
  const char* kinds[] = {"float32", "float16", "uint16", "int8"};
  const py::dtype kind(kinds[static_cast<int>(index.dtype)]);
  py::array rows(kind, {slots.size(), static_cast<py::ssize_t>(index.dim)});
  auto* to = static_cast<unsigned char*>(rows.mutable_data());
  for (py::ssize_t i = 0; i < slots.size(); ++i) {
    const int64_t slot = slots.data()[i];
    if (slot < 0 || slot >= index.rows) throw py::value_error("a slot is out of range");
    std::memcpy(to + i * index.row_bytes(), index.raw.data() + slot * index.row_bytes(),
                static_cast<size_t>(index.row_bytes()));
  }
  return rows;
}

py::dtype dtype_of_part(ec::ann::PartType type) {
  const char* names[] = {"uint8", "uint32", "uint64", "int64", "float32", "float64"};
  return py::dtype(names[static_cast<int>(type)]);
}

py::dict parts(const Vectors& vectors) {
  py::dict result;
  ec::ann::visit_parts(vectors.data(), [&](const ec::ann::Part& part) {
    result[part.name] = py::array(dtype_of_part(part.type), {part.count}, part.data);
  });
  return result;
}

// Arrays are borrowed: the index keeps the dictionary.
Vectors from_parts(const py::dict& arrays) {
  const auto find = [&](const char* name, ec::ann::PartType type) -> ec::ann::Part {
    if (!arrays.contains(name))
      throw py::value_error(std::string("the index is damaged: no part '") + name + "'");
    const auto array = py::cast<py::array>(arrays[name]);
    if (!array.dtype().is(dtype_of_part(type)) && !array.dtype().equal(dtype_of_part(type))) {
      throw py::value_error(std::string("the index is damaged: part '") + name + "' has the wrong dtype");
    }
    const bool aligned =
        reinterpret_cast<uintptr_t>(array.data()) % static_cast<uintptr_t>(array.itemsize()) == 0;
    if (array.ndim() != 1 || !(array.flags() & py::array::c_style) || !aligned) {
      throw py::value_error(std::string("the index is damaged: part '") + name +
                            "' is not laid out in a row");
    }
    return {name, type, array.data(), array.size()};
  };
  // Released with the lock, from whatever thread drops the last version.
  std::shared_ptr<void> owner(new py::dict(arrays), [](void* kept) {
    const PyGILState_STATE state = ecpy::take_lock([] { return PyGILState_Ensure(); });
    delete static_cast<py::dict*>(kept);
    PyGILState_Release(state);
  });
  return Vectors(ec::ann::from_parts(find, std::move(owner)));
}

py::dict nbytes(const Vectors& vectors) {
  const ec::ann::IndexData& index = vectors.data();
  py::dict result;
  result["vectors"] = index.raw.size_bytes() + index.inverse_norms.size_bytes();
  result["codes"] = index.heads.size_bytes() + index.tails.size_bytes() +
                    (index.trained() ? index.codec->size_bytes() : 0);
  result["graph"] = index.links.size_bytes();
  result["cells"] =
      index.cells == nullptr
          ? int64_t{0}
          : static_cast<int64_t>((index.cells->members.size() + index.cells->start.size()) * 4) +
                index.cells->centroids.size();
  result["live"] = index.alive == nullptr ? int64_t{0} : static_cast<int64_t>(index.alive->bits.size() * 8);
  return result;
}

}  // namespace

void register_ann_vectors(py::module_& m) {
  py::class_<Vectors>(m, "AnnVectors")
      .def(py::init([](int64_t dim, const std::string& metric, const std::string& dtype) {
             if (dim < 1) throw py::value_error("'dim' must be positive");
             return Vectors(dim, metric_of(metric), dtype_of(dtype));
           }),
           py::arg("dim"), py::arg("metric"), py::arg("dtype"))
      .def("append", &append, py::arg("rows"), py::arg("threads"))
      .def("delete", &delete_rows, py::arg("slots"))
      .def("build", &build, py::arg("basis"), py::arg("mean"), py::arg("head_bytes"), py::arg("threads"),
           py::arg("seed"), py::arg("progress"), py::arg("steps") = py::none())
      .def("merge", &merge, py::arg("threads"), py::arg("progress") = py::none())
      .def("calibrate", &calibrate, py::arg("queries"), py::arg("threads"))
      .def("drop_raw", [](const Vectors& vectors) { return vectors.drop_raw(); })
      .def("search", &search, py::arg("queries"), py::arg("k"), py::arg("filters"), py::arg("which"),
           py::arg("recall"), py::arg("effort"), py::arg("exact"), py::arg("threads"),
           py::arg("slots").noconvert(), py::arg("distances").noconvert(), py::arg("counts").noconvert())
      .def("explain", &explain, py::arg("queries"), py::arg("k"), py::arg("filters"), py::arg("which"),
           py::arg("recall"), py::arg("effort"), py::arg("exact"), py::arg("threads"))
      .def("live_bits", &live_bits)
      .def("vectors", &rows_of, py::arg("slots"))
      .def("nbytes", &nbytes)
      .def("parts", &parts)
      .def_static("from_parts", &from_parts, py::arg("parts"))
      .def_property_readonly("rows", [](const Vectors& v) { return v.data().rows; })
      .def_property_readonly("live", [](const Vectors& v) { return v.data().live(); })
      .def_property_readonly("graph_rows", [](const Vectors& v) { return v.data().graph_rows; })
      .def_property_readonly("trained_rows", [](const Vectors& v) { return v.data().trained_rows; })
      .def_property_readonly("calibrated_rows",
                             [](const Vectors& v) { return static_cast<int64_t>(v.data().costs.rows); })
      .def_property_readonly("trained", [](const Vectors& v) { return v.data().trained(); })
      .def_property_readonly("raw_dropped", [](const Vectors& v) { return v.data().raw_dropped; })
      .def_property_readonly("dim", [](const Vectors& v) { return v.data().dim; })
      .def_property_readonly(
          "metric", [](const Vectors& v) { return kMetricNames[static_cast<int>(v.data().metric)]; })
      .def_property_readonly(
          "dtype", [](const Vectors& v) { return kDtypeNames[static_cast<int>(v.data().dtype)]; });
}
