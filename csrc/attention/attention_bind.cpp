// SPDX-License-Identifier: Apache-2.0
// Attention as Python calls it: views in, results into the caller's arrays.
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <optional>

#include "python/gil.h"
#include "python/monitor.h"
#include "python/raise.h"
#include "python/strided.h"

namespace py = pybind11;

namespace {

using ecpy::Argument;
using ecpy::IndexView;
using ecpy::LastAxis;
using ecpy::StridedView;

constexpr double kKeepGilBelow = 1 << 20;  // operations: below, releasing costs more than it gives
constexpr int64_t kAnySize = -1;

long long as_long(int64_t value) { return static_cast<long long>(value); }

ec_array as_array(const StridedView& view) {
  return {view.data(), {view.stride(0), view.stride(1), view.stride(2)}, view.dtype()};
}

std::string size_text(std::initializer_list<int64_t> shape) {
  std::string text = "(";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += size == kAnySize ? std::string("any") : std::to_string(size);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

bool has_shape(const StridedView& view, std::initializer_list<int64_t> shape, bool broadcast) {
  if (view.axes() != static_cast<int>(shape.size())) return false;
  int axis = 0;
  for (const int64_t size : shape) {
    const int64_t have = view.shape(axis++);
    if (have != size && size != kAnySize && !(broadcast && have == 1)) return false;
  }
  return true;
}

void check_shape(const StridedView& view, const Argument& argument, std::initializer_list<int64_t> shape,
                 bool broadcast = false) {
  if (has_shape(view, shape, broadcast)) return;
  ecpy::raise_value("%s: '%s' must have shape %s; got shape %s.", argument.where, argument.name,
                    size_text(shape).c_str(), ecpy::shape_text(view).c_str());
}

// Views of one problem; the ec_attention_problem points into them.
class Problem {
 public:
  Problem(const char* where, py::handle key, py::handle value, py::handle query, py::handle offsets,
          py::handle lengths, py::handle mask, py::handle bias, py::handle temperature, int activation,
          int norm, int threads)
      : where_(where),
        key_name_(query.is_none() ? "tokens" : "key"),
        key_(ecpy::view_strided(key, of(key_name_), LastAxis::kContiguous)) {
    problem_.activation = static_cast<ec_activation>(activation);
    problem_.norm = static_cast<ec_head_norm>(norm);
    problem_.threads = threads;
    set_tokens(offsets);
    set_value(value);
    set_query(query);
    set_lengths(lengths);
    set_mask(mask);
    set_bias(bias);
    set_temperature(temperature);
  }

  Argument of(const char* name) const { return {where_, name, true}; }
  const char* where() const { return where_; }
  ec_attention_problem& get() { return problem_; }
  ec_dtype real() const { return key_.dtype() == EC_FLOAT64 ? EC_FLOAT64 : EC_FLOAT32; }
  bool ragged() const { return offsets_.has_value(); }

  // Heads are those of the query, or what the result has room for.
  void set_heads(int64_t heads) {
    if (problem_.query.data == nullptr) problem_.heads = heads;
    check_heads();
    if (bias_) check_bias();
    if (temperature_) check_temperature();
  }

  bool large() const {
    return static_cast<double>(problem_.heads) * static_cast<double>(problem_.key_columns) *
               static_cast<double>(problem_.tokens) *
               static_cast<double>(ragged() ? 1 : problem_.sequences) >
           kKeepGilBelow;
  }

  void refuse_bool(const StridedView& view, const char* name) const {
    if (view.is_bool())
      ecpy::raise_type("%s: '%s' must be float16, bfloat16, float32 or float64; got bool.", where_, name);
  }

 private:
  void set_tokens(py::handle offsets) {
    if (key_.is_bool())
      ecpy::raise_type("%s: '%s' must be float16, bfloat16, float32 or float64; got bool.", where_,
                       key_name_);
    if (!offsets.is_none()) {
      offsets_ = ecpy::view_indices(offsets, of("cu_seqlens"));
      if (offsets_->size() < 1)
        ecpy::raise_value(
            "%s: 'cu_seqlens' must have one number more than there are sequences; got shape (0,).", where_);
      if (key_.axes() != 2)
        ecpy::raise_value("%s: '%s' must have shape (tokens, columns) with 'cu_seqlens'; got shape %s.",
                          where_, key_name_, ecpy::shape_text(key_).c_str());
      problem_.offsets = offsets_->data();
      problem_.sequences = offsets_->size() - 1;
    } else {
      if (key_.axes() != 3)
        ecpy::raise_value("%s: '%s' must have shape (sequences, tokens, columns); got shape %s.", where_,
                          key_name_, ecpy::shape_text(key_).c_str());
      problem_.sequences = key_.shape(0);
    }
    problem_.tokens = key_.shape(key_.axes() - 2);
    problem_.key_columns = key_.shape(key_.axes() - 1);
    problem_.value_columns = problem_.key_columns;
    if (problem_.key_columns < 1)
      ecpy::raise_value("%s: '%s' must have at least one column; got shape %s.", where_, key_name_,
                        ecpy::shape_text(key_).c_str());
    problem_.key = tokens_array(key_);
  }

  // Strides of [sequence][token][column].
  ec_array tokens_array(const StridedView& view) const {
    ec_array array = as_array(view);
    if (ragged()) array = {array.data, {0, view.stride(0), view.stride(1)}, array.dtype};
    return array;
  }

  void set_value(py::handle value) {
    if (value.is_none()) return;
    value_ = ecpy::view_strided(value, of("value"), LastAxis::kContiguous);
    if (value_->is_bool() || value_->dtype() != key_.dtype())
      ecpy::raise_type("%s: 'value' must have the dtype of 'key' (%s); got %s.", where_,
                       ecpy::dtype_name(key_.dtype()),
                       value_->is_bool() ? "bool" : ecpy::dtype_name(value_->dtype()));
    if (ragged())
      check_shape(*value_, of("value"), {problem_.tokens, kAnySize});
    else
      check_shape(*value_, of("value"), {problem_.sequences, problem_.tokens, kAnySize});
    problem_.value = tokens_array(*value_);
    problem_.value_columns = value_->shape(value_->axes() - 1);
  }

  void set_query(py::handle query) {
    if (query.is_none()) return;
    query_ = ecpy::view_strided(query, of("query"));
    refuse_bool(*query_, "query");
    const int axes = query_->axes();
    if (axes != 2 && axes != 3)
      ecpy::raise_value(
          "%s: 'query' must have shape (columns, heads) or (sequences, columns, heads); got shape %s.",
          where_, ecpy::shape_text(*query_).c_str());
    if (query_->shape(axes - 2) != problem_.key_columns)
      ecpy::raise_value("%s: 'query' must have as many rows as 'key' has columns (%lld); got shape %s.",
                        where_, as_long(problem_.key_columns), ecpy::shape_text(*query_).c_str());
    if (axes == 3 && query_->shape(0) != problem_.sequences)
      ecpy::raise_value("%s: 'query' must have one factor for each sequence (%lld); got shape %s.", where_,
                        as_long(problem_.sequences), ecpy::shape_text(*query_).c_str());
    problem_.heads = query_->shape(axes - 1);
    problem_.query = as_array(*query_);
    if (axes == 2)
      problem_.query = {query_->data(), {0, query_->stride(0), query_->stride(1)}, query_->dtype()};
    problem_.query_per_sequence = axes == 3 ? 1 : 0;
  }

  void check_heads() const {
    if (problem_.heads < 1)
      ecpy::raise_value("%s: 'query' must have at least one head (column); got shape %s.", where_,
                        query_ ? ecpy::shape_text(*query_).c_str() : "(0,)");
  }

  void set_lengths(py::handle lengths) {
    if (lengths.is_none()) return;
    if (ragged()) ecpy::raise_value("%s: 'lengths' must not be given with 'cu_seqlens'.", where_);
    lengths_ = ecpy::view_indices(lengths, of("lengths"));
    if (lengths_->size() != problem_.sequences)
      ecpy::raise_value("%s: 'lengths' must have one number for each sequence (%lld); got shape (%lld,).",
                        where_, as_long(problem_.sequences), as_long(lengths_->size()));
    problem_.lengths = lengths_->data();
  }

  void set_mask(py::handle mask) {
    if (mask.is_none()) return;
    mask_ = ecpy::view_strided(mask, of("mask"));
    if (ragged())
      check_shape(*mask_, of("mask"), {problem_.tokens});
    else
      check_shape(*mask_, of("mask"), {problem_.sequences, problem_.tokens});
    ec_array array = as_array(*mask_);
    if (ragged()) array = {array.data, {0, mask_->stride(0), 0}, array.dtype};
    if (mask_->is_bool()) {
      problem_.keep = static_cast<const uint8_t*>(array.data);
      problem_.keep_stride[0] = array.stride[0];
      problem_.keep_stride[1] = array.stride[1];
    } else {
      problem_.mask = array;
    }
  }

  void set_bias(py::handle bias) {
    if (bias.is_none()) return;
    bias_ = ecpy::view_strided(bias, of("bias"));
    refuse_bool(*bias_, "bias");
    problem_.bias = as_array(*bias_);
    if (ragged()) problem_.bias = {bias_->data(), {0, bias_->stride(0), bias_->stride(1)}, bias_->dtype()};
  }

  void check_bias() const {
    if (ragged())
      check_shape(*bias_, of("bias"), {problem_.tokens, problem_.heads}, true);
    else
      check_shape(*bias_, of("bias"), {problem_.sequences, problem_.tokens, problem_.heads}, true);
  }

  void check_temperature() const {
    check_shape(*temperature_, of("temperature"), {problem_.sequences, problem_.heads}, true);
  }

  void set_temperature(py::handle temperature) {
    if (PyFloat_CheckExact(temperature.ptr())) {
      problem_.fixed_temperature = PyFloat_AS_DOUBLE(temperature.ptr());
      return;
    }
    temperature_ = ecpy::view_strided(temperature, of("temperature"));
    refuse_bool(*temperature_, "temperature");
    problem_.temperature = as_array(*temperature_);
  }

  const char* where_;
  const char* key_name_;  // as the caller's argument is called
  StridedView key_;
  std::optional<StridedView> value_, query_, mask_, bias_, temperature_;
  std::optional<IndexView> offsets_, lengths_;
  ec_attention_problem problem_ = {};
};

// The caller's array: of this dtype and shape, C-contiguous and, to be written, writable.
class Target {
 public:
  Target(const Problem& problem, const char* name, py::handle array, ec_dtype dtype,
         std::initializer_list<int64_t> shape, bool written = true) {
    if (array.is_none()) return;
    const Argument argument = problem.of(name);
    view_ = ecpy::view_strided(array, argument);
    if (view_->is_bool() || view_->dtype() != dtype)
      ecpy::raise_type("%s: '%s' must have dtype %s; got %s.", argument.where, name,
                       ecpy::dtype_name(dtype),
                       view_->is_bool() ? "bool" : ecpy::dtype_name(view_->dtype()));
    check_shape(*view_, argument, shape);
    if (!view_->c_contiguous())
      ecpy::raise_value("%s: '%s' must be C-contiguous; got strides that are not.", argument.where, name);
    if (written && !view_->writable())
      ecpy::raise_value("%s: '%s' must be writable and aligned; got a read-only array.", argument.where,
                        name);
  }

  void* data() const { return view_ ? view_->data() : nullptr; }
  const StridedView& view() const { return *view_; }

 private:
  std::optional<StridedView> view_;
};

// Shapes that depend on whether sequences are ragged.
Target score_target(Problem& problem, const char* name, py::handle array, bool written = true) {
  const ec_attention_problem& p = problem.get();
  if (problem.ragged()) return {problem, name, array, problem.real(), {p.heads, p.tokens}, written};
  return {problem, name, array, problem.real(), {p.sequences, p.heads, p.tokens}, written};
}

Target token_target(Problem& problem, const char* name, py::handle array, ec_dtype dtype, int64_t columns) {
  const ec_attention_problem& p = problem.get();
  if (problem.ragged()) return {problem, name, array, dtype, {p.tokens, columns}};
  return {problem, name, array, dtype, {p.sequences, p.tokens, columns}};
}

template <class Call>
void run(const Problem& problem, bool large, Call&& call) {
  ec_error error = {};
  const ec_status status = large ? ecpy::without_gil([&] { return call(&error); }) : call(&error);
  ecpy::check_status(problem.where(), status, error);
}

void attention_forward(const char* where, py::handle key, py::handle value, py::handle query,
                       py::handle offsets, py::handle lengths, py::handle mask, py::handle bias,
                       py::handle temperature, int activation, int norm, int threads, py::handle out,
                       py::handle lse, py::handle scores, py::handle weights, py::handle wide) {
  Problem problem(where, key, value, query, offsets, lengths, mask, bias, temperature, activation, norm,
                  threads);
  ec_attention_problem& p = problem.get();
  if (out.is_none()) ecpy::raise_type("%s: 'out' must be an array for the result; got None.", where);
  if (p.query.data == nullptr) {
    const StridedView view = ecpy::view_strided(out, problem.of("out"));
    problem.set_heads(view.axes() == 3 ? view.shape(1) : 1);
  } else {
    problem.set_heads(p.heads);
  }
  const Target out_target(problem, "out", out, p.key.dtype, {p.sequences, p.heads, p.value_columns});
  const Target lse_target(problem, "lse", lse, problem.real(), {p.sequences, p.heads});
  const Target score = score_target(problem, "scores", scores);
  const Target weight = score_target(problem, "weights", weights);
  const Target wide_target(problem, "wide", wide, problem.real(), {p.sequences, p.heads, p.value_columns});
  ecpy::PyMonitor monitor;
  p.monitor = monitor.get();
  const ec_attention_result result = {out_target.data(), lse_target.data(), score.data(), weight.data(),
                                      wide_target.data()};
  run(problem, problem.large(), [&](ec_error* error) { return ec_attention_forward(&p, &result, error); });
}

// The dtype that the forward pass's result has here: that of the keys, or real for the one not rounded.
ec_dtype real_or(ec_dtype dtype, py::handle out, const Problem& problem) {
  if (out.is_none() || dtype == problem.real()) return dtype;
  const StridedView view = ecpy::view_strided(out, problem.of("out"));
  return view.dtype() == problem.real() ? problem.real() : dtype;
}

void attention_backward(const char* where, py::handle key, py::handle value, py::handle query,
                        py::handle offsets, py::handle lengths, py::handle mask, py::handle bias,
                        py::handle temperature, int activation, int norm, int threads, py::handle grad_out,
                        py::handle out, py::handle lse, py::handle scores, py::handle grad_lse,
                        py::handle grad_weights, py::handle grad_key, py::handle grad_value,
                        py::handle grad_query, py::handle grad_temperature, py::handle grad_bias,
                        py::handle grad_mask, bool accumulate) {
  Problem problem(where, key, value, query, offsets, lengths, mask, bias, temperature, activation, norm,
                  threads);
  ec_attention_problem& p = problem.get();
  const StridedView grad = ecpy::view_strided(grad_out, problem.of("grad_out"), LastAxis::kContiguous);
  problem.refuse_bool(grad, "grad_out");
  problem.set_heads(grad.axes() == 3 ? grad.shape(1) : 1);
  check_shape(grad, problem.of("grad_out"), {p.sequences, p.heads, p.value_columns});
  const ec_dtype real = problem.real();
  const Target out_view(problem, "out", out, real_or(p.key.dtype, out, problem),
                        {p.sequences, p.heads, p.value_columns}, false);
  const Target lse_view(problem, "lse", lse, real, {p.sequences, p.heads}, false);
  const Target score = score_target(problem, "scores", scores, false);
  const Target weights_gradient = score_target(problem, "grad_weights", grad_weights, false);
  const Target grad_keys = token_target(problem, "grad_key", grad_key, p.key.dtype, p.key_columns);
  const Target grad_values = token_target(problem, "grad_value", grad_value, p.key.dtype, p.value_columns);
  const Target grad_queries(problem, "grad_query", grad_query, real,
                            {p.query_per_sequence != 0 ? p.sequences : 1, p.heads, p.key_columns});
  const Target grad_temperatures(problem, "grad_temperature", grad_temperature, real,
                                 {p.sequences, p.heads});
  const Target grad_biases = score_target(problem, "grad_bias", grad_bias);
  std::optional<Target> grad_masks;
  if (problem.ragged())
    grad_masks.emplace(problem, "grad_mask", grad_mask, real, std::initializer_list<int64_t>{p.tokens});
  else
    grad_masks.emplace(problem, "grad_mask", grad_mask, real,
                       std::initializer_list<int64_t>{p.sequences, p.tokens});
  if (out_view.data() == nullptr || lse_view.data() == nullptr ||
      (p.query.data != nullptr && score.data() == nullptr))
    ecpy::raise_value("%s: 'out', 'lse' and 'scores' must be what the forward pass gave; got None.", where);
  const ec_array grad_array = as_array(grad);
  ec_array lse_array = {};
  std::optional<StridedView> lse_gradient;
  if (!grad_lse.is_none()) {
    lse_gradient = ecpy::view_strided(grad_lse, problem.of("grad_lse"));
    problem.refuse_bool(*lse_gradient, "grad_lse");
    check_shape(*lse_gradient, problem.of("grad_lse"), {p.sequences, p.heads});
    lse_array = as_array(*lse_gradient);
  }
  ecpy::PyMonitor monitor;
  p.monitor = monitor.get();
  ec_attention_gradient gradient = {};
  gradient.grad_out = &grad_array;
  gradient.grad_lse = lse_gradient ? &lse_array : nullptr;
  gradient.grad_weights = weights_gradient.data();
  gradient.out = out_view.data();
  gradient.out_dtype = out_view.view().dtype();
  gradient.lse = lse_view.data();
  gradient.scores = score.data();
  gradient.grad_key = grad_keys.data();
  gradient.grad_value = grad_values.data();
  gradient.grad_query = grad_queries.data();
  gradient.grad_temperature = grad_temperatures.data();
  gradient.grad_bias = grad_biases.data();
  gradient.grad_mask = grad_masks->data();
  gradient.accumulate = accumulate ? 1 : 0;
  run(problem, problem.large(),
      [&](ec_error* error) { return ec_attention_backward(&p, &gradient, error); });
}

}  // namespace

void register_attention(py::module_& module) {
  module.def("attention_forward", &attention_forward, py::arg("where"), py::arg("key"), py::arg("value"),
             py::arg("query"), py::arg("offsets"), py::arg("lengths"), py::arg("mask"), py::arg("bias"),
             py::arg("temperature"), py::arg("activation"), py::arg("norm"), py::arg("threads"),
             py::arg("out"), py::arg("lse"), py::arg("scores"), py::arg("weights"),
             py::arg("wide") = py::none(), py::pos_only());
  module.def("attention_backward", &attention_backward);
}
