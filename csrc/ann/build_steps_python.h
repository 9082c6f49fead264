// SPDX-License-Identifier: Apache-2.0
// Steps of a build that a Python object does (BuildSteps of python/embedcore/ann/_state.py).
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "ann/build/twins.h"
#include "ann/index_data.h"
#include "python/gil.h"

namespace ecpy {

// Holds the interpreter lock.
class Locked {
 public:
  Locked() : state_(take_lock([] { return PyGILState_Ensure(); })) {}
  Locked(const Locked&) = delete;
  ~Locked() { PyGILState_Release(state_); }

 private:
  PyGILState_STATE state_;
};

// Arrays that Python gives are checked for their sizes, and numbers of rows and cells for their range.
class PythonSteps final : public ec::ann::BuildSteps {
 public:
  // basis and mean: of the codes that are to be made, (numbers, dim) and (dim,).
  PythonSteps(const pybind11::object& steps, const pybind11::object& basis, const pybind11::object& mean)
      : steps_(steps), basis_(basis), mean_(mean) {}

  void encode(const ec::ann::IndexData& index, float* norms) override {
    const Locked locked;
    rows_ = index.rows;
    shape_ = index.codec->shape();
    copy("norms",
         steps_.attr("encode")(seen(index.raw.data(), index.raw.size()), basis_, mean_, shape_.head_bytes,
                               shape_.tail_bytes),
         norms, rows_);
  }

  std::vector<uint32_t> group(const std::vector<uint32_t>& slots, const std::vector<uint32_t>& sample,
                              const std::vector<uint32_t>& drawn, int moves) override {
    const Locked locked;
    const pybind11::object found = steps_.attr("group")(seen(slots), seen(sample), seen(drawn), moves);
    std::vector<uint32_t> cell_of(slots.size());
    copy("cells", found, cell_of.data(), static_cast<int64_t>(slots.size()));
    if (std::any_of(cell_of.begin(), cell_of.end(), [&](uint32_t cell) { return cell >= drawn.size(); }))
      throw pybind11::value_error("build_device: a cell is out of range");
    return cell_of;
  }

  void take_means(const std::vector<uint32_t>& cell_of, int64_t cells, uint8_t* heads) override {
    const Locked locked;
    copy("means", steps_.attr("means")(seen(cell_of), cells), heads, cells * shape_.head_bytes);
  }

  void reorder(const std::vector<uint32_t>& order, uint8_t* heads, uint8_t* tails) override {
    const Locked locked;
    steps_.attr("reorder")(seen(order), seen(heads, rows_ * shape_.head_bytes),
                           seen(tails, rows_ * shape_.tail_bytes));
  }

  void begin_links(const ec::ann::IndexData& index, const ec::ann::Cells& cells,
                   const ec::ann::Twins& twins) override {
    const Locked locked;
    pybind11::array_t<bool> are_twins(static_cast<pybind11::ssize_t>(rows_));
    for (int64_t i = 0; i < rows_; ++i)
      are_twins.mutable_data()[i] = twins.role[static_cast<size_t>(i)] == ec::ann::TwinRole::kTwin;
    steps_.attr("begin_links")(seen(index.inverse_norms.data(), index.inverse_norms.size()),
                               seen(cells.start), centroids_of(cells), are_twins);
  }

  std::vector<uint32_t> links() override {
    const Locked locked;
    std::vector<uint32_t> chosen(static_cast<size_t>(rows_ * ec::ann::kDegree));
    steps_.attr("links")(seen(chosen.data(), static_cast<int64_t>(chosen.size())));
    const auto is_wrong = [&](uint32_t slot) { return slot >= rows_ && slot != ec::ann::kNoSlot; };
    if (std::any_of(chosen.begin(), chosen.end(), is_wrong))
      throw pybind11::value_error("build_device: a link is out of range");
    return chosen;
  }

 private:
  // Not copied: Python reads it, or writes to it, before it returns.
  template <class Number>
  static pybind11::array_t<Number> seen(const Number* data, int64_t count) {
    return pybind11::array_t<Number>(static_cast<pybind11::ssize_t>(count), data, pybind11::none());
  }
  template <class Number>
  static pybind11::array_t<Number> seen(const std::vector<Number>& numbers) {
    return seen(numbers.data(), static_cast<int64_t>(numbers.size()));
  }

  template <class Number>
  static void copy(const char* name, const pybind11::object& given, Number* to, int64_t count) {
    const auto array = pybind11::cast<pybind11::array_t<Number, pybind11::array::c_style>>(given);
    if (array.size() != count)
      throw pybind11::value_error("build_device: " + std::string(name) + " must be " +
                                  std::to_string(count) + " numbers");
    if (count > 0) std::memcpy(to, array.data(), static_cast<size_t>(count) * sizeof(Number));
  }

  // Of each cell, [cells][numbers], what the bytes of its centroid stand for.
  pybind11::array_t<float> centroids_of(const ec::ann::Cells& cells) const {
    const int64_t numbers = shape_.head_numbers();
    pybind11::array_t<float> centroids(
        {static_cast<pybind11::ssize_t>(cells.cells()), static_cast<pybind11::ssize_t>(numbers)});
    float* to = centroids.mutable_data();
    for (int64_t c = 0; c < cells.cells(); ++c) {
      const uint8_t* head = cells.centroids.data() + c * shape_.head_bytes;
      const float scale = ec::ann::factors_of(head, shape_).head_scale;
      for (int64_t k = 0; k < numbers; ++k) *to++ = scale * static_cast<float>(head[k] - 128);
    }
    return centroids;
  }

  const pybind11::object steps_, basis_, mean_;
  int64_t rows_ = 0;
  ec::ann::CodeShape shape_;
};

}  // namespace ecpy
