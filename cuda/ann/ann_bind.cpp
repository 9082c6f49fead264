// SPDX-License-Identifier: Apache-2.0
// Filtered search on the GPU as Python calls it. Shapes and dtypes are Python's word (ann/_on_device.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "python/arrays.h"
#include "python/raise.h"

namespace py = pybind11;

namespace {

// An address, and how many are there or how far apart they are.
using Part = std::tuple<uintptr_t, int64_t>;

template <class T>
T* start_of(const Part& part) {
  return ecpy::pointer_of<T>(std::get<0>(part));
}

// An index on the device, whose arrays Python keeps.
struct Index {
  // Rows, columns, elements between rows; of codes: columns of their heads, and of queries.
  using Sizes = std::array<int64_t, 5>;
  // Vectors, inverse norms, mean, ids, codes, offsets, norms, roughness; of codes: scales, axes.
  using Arrays = std::array<uintptr_t, 10>;

  Index(int metric, int number, const Sizes& sizes, const Arrays& arrays) {
    given.metric = static_cast<ec_ann_metric>(metric);
    given.number = static_cast<ec_ann_number>(number);
    given.rows = sizes[0];
    given.columns = sizes[1];
    given.row_stride = sizes[2];
    given.vectors = ecpy::pointer_of<const void>(arrays[0]);
    given.inverse_norms = ecpy::pointer_of<const float>(arrays[1]);
    given.mean = ecpy::pointer_of<const float>(arrays[2]);
    given.ids = ecpy::pointer_of<const int64_t>(arrays[3]);
    given.codes = ecpy::pointer_of<void>(arrays[4]);
    given.offsets = ecpy::pointer_of<float>(arrays[5]);
    given.norms = ecpy::pointer_of<float>(arrays[6]);
    given.roughness = ecpy::pointer_of<float>(arrays[7]);
    given.scales = ecpy::pointer_of<const float>(arrays[8]);
    given.axes = ecpy::pointer_of<const float>(arrays[9]);
    given.head_columns = sizes[3];
    given.query_columns = sizes[4];
  }

  ec_cuda_ann_index given = {};
};

void encode(const char* where, const ecpy::PlaceNumbers& place, const Index& index) {
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_encode(at, &index.given, error);
  });
}

// arrays: columns, steps, starts, constants, alive.
void evaluate(const char* where, const ecpy::PlaceNumbers& place, const std::array<uintptr_t, 5>& arrays,
              int64_t programs, int64_t rows, uintptr_t bits) {
  const auto at = [&](size_t i) { return ecpy::pointer_of<const int64_t>(arrays[i]); };
  const ec_cuda_ann_programs given = {
      at(0), at(1), at(2), at(3), programs, rows, ecpy::pointer_of<const uint32_t>(arrays[4])};
  ecpy::start(where, place, [&](const ec_cuda_place* on, ec_error* error) {
    return ec_cuda_ann_evaluate(on, &given, ecpy::pointer_of<uint32_t>(bits), error);
  });
}

void mark_mask(const char* where, const ecpy::PlaceNumbers& place, const Part& mask, const Part& order,
               int64_t rows, uintptr_t bits) {
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_mark_mask(at, start_of<const uint8_t>(mask), std::get<1>(mask),
                                 start_of<const uint32_t>(order), std::get<1>(order), rows,
                                 ecpy::pointer_of<uint32_t>(bits), error);
  });
}

// known: addresses of ids and of slots, and how many there are.
void mark_ids(const char* where, const ecpy::PlaceNumbers& place, const Part& ids,
              const std::tuple<uintptr_t, uintptr_t, int64_t>& known, int64_t rows, uintptr_t bits) {
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_mark_ids(at, start_of<const int64_t>(ids), std::get<1>(ids),
                                ecpy::pointer_of<const int64_t>(std::get<0>(known)),
                                ecpy::pointer_of<const uint32_t>(std::get<1>(known)), std::get<2>(known),
                                rows, ecpy::pointer_of<uint32_t>(bits), error);
  });
}

// sources: addresses of the bits of so many filters.
void gather(const char* where, const ecpy::PlaceNumbers& place, const Part& sources, int64_t rows,
            uintptr_t bits) {
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_gather(at, start_of<const uint32_t* const>(sources), std::get<1>(sources), rows,
                              ecpy::pointer_of<uint32_t>(bits), error);
  });
}

// bits: of so many filters; slots: so many apart; 0: counts alone.
void list(const char* where, const ecpy::PlaceNumbers& place, const Part& bits, int64_t rows,
          const Part& slots, uintptr_t counts, const py::object& allocate) {
  const int64_t filters = std::get<1>(bits), words = filters * ec_cuda_ann_filter_words(rows);
  void* workspace = ecpy::allocated(allocate, words / 256 * 8);
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_list(at, start_of<const uint32_t>(bits), filters, rows, start_of<uint32_t>(slots),
                            std::get<1>(slots), ecpy::pointer_of<int64_t>(counts), workspace, error);
  });
}

// Addresses of order, which and firsts; the filter of all; tiles; positions.
using Positions = std::tuple<uintptr_t, uintptr_t, uintptr_t, int, int64_t, int64_t>;
// Addresses of slots, counts, bits and every; elements between the slots of filters; living rows; filters
// that have to be listed.
using Lists = std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t, int64_t>;

// Addresses of links, entries and alive; entries; base; least. Base 0: everything is scanned.
using GraphNumbers = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t, int, std::array<int64_t, 4>>;

ec_cuda_ann_graph graph_of(const GraphNumbers& numbers) {
  const auto& [links, entries, alive, count, base, least] = numbers;
  return {ecpy::pointer_of<const uint32_t>(links),
          ecpy::pointer_of<const uint32_t>(entries),
          count,
          ecpy::pointer_of<const uint32_t>(alive),
          base,
          {least[0], least[1], least[2], least[3]}};
}

// results: addresses of ids, distances and counts, and of explanations, 0 for none.
void search(const char* where, const ecpy::PlaceNumbers& place_numbers, const Index& index,
            const ecpy::MatrixNumbers& queries_numbers, int k, bool exact, const Positions& positions,
            const Lists& lists, const GraphNumbers& graph_numbers, const std::array<uintptr_t, 4>& results,
            const py::object& allocate) {
  ec_cuda_ann_search_options options = {};
  options.k = k;
  options.exact = exact ? 1 : 0;
  options.order = ecpy::pointer_of<const int32_t>(std::get<0>(positions));
  options.which = ecpy::pointer_of<const int32_t>(std::get<1>(positions));
  options.firsts = ecpy::pointer_of<const int32_t>(std::get<2>(positions));
  options.filter = std::get<3>(positions);
  options.tiles = std::get<4>(positions);
  options.positions = std::get<5>(positions);
  options.slots = ecpy::pointer_of<uint32_t>(std::get<0>(lists));
  options.counts = ecpy::pointer_of<int64_t>(std::get<1>(lists));
  options.bits = ecpy::pointer_of<const uint32_t>(std::get<2>(lists));
  options.every = ecpy::pointer_of<const uint32_t>(std::get<3>(lists));
  options.slots_stride = std::get<4>(lists);
  options.living = std::get<5>(lists);
  options.listed = std::get<6>(lists);
  const ec_cuda_ann_graph graph = graph_of(graph_numbers);
  options.graph = &graph;
  options.explanations = ecpy::pointer_of<int64_t>(results[3]);
  const ec_cuda_place place = ecpy::place_of(place_numbers);
  const ec_matrix queries = ecpy::matrix_of(queries_numbers);
  ec_error error = {};
  int64_t bytes = 0;
  ecpy::check_status(
      where, ec_cuda_ann_search_workspace(&place, &index.given, &queries, &options, &bytes, &error), error);
  void* workspace = ecpy::allocated(allocate, bytes);
  ecpy::start(where, place_numbers, [&](const ec_cuda_place* at, ec_error* failure) {
    return ec_cuda_ann_search(at, &index.given, &queries, &options, workspace,
                              ecpy::pointer_of<int64_t>(results[0]), ecpy::pointer_of<float>(results[1]),
                              ecpy::pointer_of<int64_t>(results[2]), failure);
  });
}

// Addresses of members, starts, of each slot its cell, and those near each; cells; how many near each.
using Cells = std::tuple<std::array<uintptr_t, 4>, int64_t, int>;

ec_cuda_ann_cells cells_of(const Cells& cells) {
  const auto& [arrays, count, near_each] = cells;
  return {ecpy::pointer_of<const uint32_t>(arrays[0]),
          ecpy::pointer_of<const uint32_t>(arrays[1]),
          ecpy::pointer_of<const uint32_t>(arrays[2]),
          ecpy::pointer_of<const int64_t>(arrays[3]),
          count,
          near_each};
}

// slots: first, how many, and of a group; lists: their address, stride, and address of counts.
void list_near(const char* where, const ecpy::PlaceNumbers& place, const Cells& cells,
               const std::array<int64_t, 3>& slots, int64_t wanted,
               const std::tuple<uintptr_t, int64_t, uintptr_t>& lists) {
  const ec_cuda_ann_cells given = cells_of(cells);
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_list_near(at, &given, slots[0], slots[1], slots[2], wanted,
                                 ecpy::pointer_of<uint32_t>(std::get<0>(lists)), std::get<1>(lists),
                                 ecpy::pointer_of<int64_t>(std::get<2>(lists)), error);
  });
}

// First slot, slots; the nearest of each and how many; cells, and how many are weighed.
using Candidates = std::tuple<int64_t, int64_t, Part, Cells, int>;

// links: [slots][degree].
void choose_links(const char* where, const ecpy::PlaceNumbers& place, const Index& index,
                  const Candidates& candidates, uint64_t seed, int degree, int least, uintptr_t links) {
  const auto& [first, count, near, cells, far_each] = candidates;
  const ec_cuda_ann_cells given = cells_of(cells);
  ec_cuda_ann_link_options options = {};
  options.first = first;
  options.count = count;
  options.near = start_of<const int64_t>(near);
  options.near_each = static_cast<int32_t>(std::get<1>(near));
  options.far_each = far_each;
  options.cells = &given;
  options.seed = seed;
  options.degree = degree;
  options.least = least;
  ecpy::start(where, place, [&](const ec_cuda_place* at, ec_error* error) {
    return ec_cuda_ann_choose_links(at, &index.given, &options, ecpy::pointer_of<uint32_t>(links), error);
  });
}

}  // namespace

void register_ann(py::module_& module) {
  py::class_<Index>(module, "AnnIndex")
      .def(py::init<int, int, const Index::Sizes&, const Index::Arrays&>());
  module.def("ann_encode", &encode);
  module.def("ann_filter_words", &ec_cuda_ann_filter_words);
  module.def("ann_evaluate", &evaluate);
  module.def("ann_mark_mask", &mark_mask);
  module.def("ann_mark_ids", &mark_ids);
  module.def("ann_gather", &gather);
  module.def("ann_list", &list);
  module.def("ann_search", &search);
  module.def("ann_list_near", &list_near);
  module.def("ann_choose_links", &choose_links);
}
