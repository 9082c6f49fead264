// SPDX-License-Identifier: Apache-2.0
// The C ABI of filtered search on the GPU.
#include "ann/ann.h"
#include "ann/filters.h"
#include "ann/given_index.h"
#include "ann/hopper/hopper_scan.h"
#include "ann/links.h"
#include "common/device.h"
#include "core/errors.h"

namespace ec::cuda::ann {

ec_status make_index(const ec_cuda_ann_index& given, IndexRows* index, ec_error* error) {
  if (given.metric < EC_ANN_COSINE || given.metric > EC_ANN_L2)
    return fail(error, EC_INVALID_VALUE, "metric", -1, "'metric' is unknown; got ec_ann_metric %d",
                static_cast<int>(given.metric));
  if (given.number < EC_ANN_FLOAT32 || given.number > EC_ANN_CODES)
    return fail(error, EC_INVALID_TYPE, "number", -1, "'number' is unknown; got ec_ann_number %d",
                static_cast<int>(given.number));
  if (given.rows < 0 || given.rows >= 0xffffffffll || given.columns < 1 || given.columns > (1 << 24))
    return fail(error, EC_INVALID_VALUE, "index", -1,
                "'index' must have fewer than 2^32 - 1 rows and at most 2^24 columns; got %lld and %lld",
                static_cast<long long>(given.rows), static_cast<long long>(given.columns));
  const bool coded = given.number == EC_ANN_CODES;
  if (coded && (given.query_columns < given.columns || given.query_columns > (1 << 24) ||
                given.head_columns < 0 || given.scales == nullptr || given.axes == nullptr))
    return fail(error, EC_INVALID_VALUE, "index", -1,
                "'index' must have scales, axes and no fewer columns of queries (%lld) than codes (%lld)",
                static_cast<long long>(given.query_columns), static_cast<long long>(given.columns));
  *index = {static_cast<Metric>(given.metric),
            static_cast<RowKind>(given.number),
            given.rows,
            given.row_stride,
            static_cast<int>(given.columns),
            static_cast<int>(ceiling(given.columns, kCodeStep)) * kCodeStep,
            given.vectors,
            given.inverse_norms,
            given.mean,
            given.ids,
            static_cast<BFloat*>(given.codes),
            given.offsets,
            given.norms,
            given.roughness,
            {given.scales, given.axes, static_cast<int>(coded ? min(given.head_columns, given.columns) : 0),
             static_cast<int>(coded ? given.query_columns : given.columns)}};
  return EC_OK;
}

namespace {

ec_status take_cells(const ec_cuda_ann_cells* given, BuildCells* cells, ec_error* error) {
  const ec_status status = check_given(given, "cells", error);
  if (status != EC_OK) return status;
  if (given->cells < 0 || given->cells > kMostCells)
    return fail(error, EC_INVALID_VALUE, "cells", -1, "'cells' must be from 0 to %lld; got %lld",
                static_cast<long long>(kMostCells), static_cast<long long>(given->cells));
  if (given->near_each < 0)
    return fail(error, EC_INVALID_VALUE, "cells", -1,
                "'cells' must have a 'near_each' that is not negative; got %d",
                static_cast<int>(given->near_each));
  *cells = {given->members,    given->start, given->cell_of,
            given->near_cells, given->cells, given->near_each};
  return EC_OK;
}

// A search in the form of the kernels.
struct Prepared {
  SearchProblem problem = {};
  Graph graph = {};
  int multiprocessors = 0;

  ec_status prepare(const ec_cuda_place* place, const ec_cuda_ann_index* index, const ec_matrix* queries,
                    const ec_cuda_ann_search_options* options, ec_error* error) {
    ec_status status = check_given(place, "place", error);
    if (status == EC_OK) status = check_given(index, "index", error);
    if (status == EC_OK) status = check_given(queries, "queries", error);
    if (status == EC_OK) status = check_given(options, "options", error);
    if (status == EC_OK) status = make_index(*index, &problem.index, error);
    if (status == EC_OK) status = check(*queries, *options, error);
    if (status != EC_OK) return status;
    fill_in(*queries, *options);
    DeviceFacts facts;
    status = find_device(place->device, &facts, error);
    multiprocessors = facts.multiprocessors;
    problem.hopper = runs_hopper_scan(facts.major, facts.minor);
    return status;
  }

 private:
  ec_status check(const ec_matrix& queries, const ec_cuda_ann_search_options& options,
                  ec_error* error) const {
    if (queries.columns != problem.index.coded.query_columns)
      return fail(error, EC_INVALID_VALUE, "queries", -1, "'queries' must have %d columns; got %lld",
                  problem.index.coded.query_columns, static_cast<long long>(queries.columns));
    if (options.exact != 0 && problem.index.kind == RowKind::kCodes)
      return fail(error, EC_INVALID_VALUE, "exact", -1, "'exact' must be 0 for an index of codes");
    if (queries.dtype == EC_FLOAT64)
      return fail(error, EC_INVALID_TYPE, "queries", -1,
                  "'queries' must be float16, bfloat16 or float32 on the GPU; got float64");
    if (options.k < 1 || options.k > kMostResults)
      return fail(error, EC_INVALID_VALUE, "k", -1, "'k' must be from 1 to %d on the GPU; got %d",
                  static_cast<int>(kMostResults), static_cast<int>(options.k));
    const bool sound = options.positions >= 0 && options.tiles >= 0 &&
                       (options.order != nullptr || options.positions <= queries.rows) &&
                       (options.positions == 0 || options.tiles > 0);
    if (!sound)
      return fail(error, EC_INVALID_VALUE, "options", -1,
                  "'options' must have positions and tiles of the queries");
    const bool listable = options.listed == 0 || (options.listed > 0 && options.slots != nullptr &&
                                                  options.counts != nullptr && options.bits != nullptr);
    if (!listable)
      return fail(error, EC_INVALID_VALUE, "options", -1,
                  "'options' must have slots, counts and bits of the filters that are to be listed");
    const ec_cuda_ann_graph* given = options.graph;
    if (given == nullptr || given->base == 0) return EC_OK;
    const bool power =
        given->base >= 64 && given->base <= kMostPool && (given->base & (given->base - 1)) == 0;
    if (!power || given->base < options.k || problem.index.rows >= int64_t{1} << 31)
      return fail(
          error, EC_INVALID_VALUE, "graph", -1,
          "'graph' must have a base of 64, 128, 256 or 512, k (%d) at least, and less than 2^31 rows; "
          "got %d and %lld",
          static_cast<int>(options.k), static_cast<int>(given->base),
          static_cast<long long>(problem.index.rows));
    return EC_OK;
  }

  void fill_in(const ec_matrix& queries, const ec_cuda_ann_search_options& options) {
    problem.queries = {queries.data, queries.rows, queries.row_stride, queries.columns,
                       kind_of(queries.dtype)};
    problem.count = options.positions;
    problem.order = options.order;
    problem.which = options.which;
    problem.firsts = options.firsts;
    problem.filter = options.filter;
    problem.tiles = options.tiles;
    problem.listed = options.listed;
    problem.slots = options.slots;
    problem.slots_stride = options.slots_stride;
    problem.counts = options.counts;
    problem.bits = options.bits;
    problem.every = options.every;
    problem.explanations = reinterpret_cast<Explanation*>(options.explanations);
    problem.every_count = options.living;
    problem.k = options.k;
    problem.certain = options.exact != 0;
    if (options.graph != nullptr) problem.alive = options.graph->alive;
    if (options.graph == nullptr || options.graph->base == 0) return;
    const ec_cuda_ann_graph& given = *options.graph;
    graph = {
        given.links,
        given.entries,
        given.entry_count,
        given.alive,
        {given.base, {given.least[0], given.least[1], given.least[2], given.least[3]}, options.living}};
    problem.graph = &graph;
  }
};

Stream stream_of(const ec_cuda_place* place) { return static_cast<Stream>(place->stream); }

}  // namespace
}  // namespace ec::cuda::ann

using namespace ec::cuda::ann;
using ec::check_given;
using ec::cuda::CurrentDevice;
using ec::cuda::DeviceFacts;
using ec::cuda::started;

ec_status ec_cuda_ann_encode(const ec_cuda_place* place, const ec_cuda_ann_index* given, ec_error* error) {
  ec_status status = check_given(place, "place", error);
  if (status == EC_OK) status = check_given(given, "index", error);
  IndexRows index;
  if (status == EC_OK) status = make_index(*given, &index, error);
  DeviceFacts facts;
  if (status == EC_OK) status = ec::cuda::find_device(place->device, &facts, error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  return started(run_encode(index, facts.multiprocessors, stream_of(place)), error);
}

int64_t ec_cuda_ann_filter_words(int64_t rows) { return filter_words(rows); }

ec_status ec_cuda_ann_evaluate(const ec_cuda_place* place, const ec_cuda_ann_programs* given,
                               uint32_t* bits, ec_error* error) {
  ec_status status = check_given(place, "place", error);
  if (status == EC_OK) status = check_given(given, "programs", error);
  if (status != EC_OK) return status;
  const FilterPrograms programs = {reinterpret_cast<const Column*>(given->columns),
                                   reinterpret_cast<const Step*>(given->steps),
                                   given->starts,
                                   given->constants,
                                   given->programs,
                                   given->rows,
                                   given->alive,
                                   bits,
                                   filter_words(given->rows)};
  const CurrentDevice current(place->device);
  return started(run_programs(programs, stream_of(place)), error);
}

ec_status ec_cuda_ann_mark_mask(const ec_cuda_place* place, const uint8_t* mask, int64_t stride,
                                const uint32_t* order, int64_t count, int64_t rows, uint32_t* bits,
                                ec_error* error) {
  const ec_status status = check_given(place, "place", error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  return started(run_mark_mask(mask, stride, order, count, rows, bits, stream_of(place)), error);
}

ec_status ec_cuda_ann_mark_ids(const ec_cuda_place* place, const int64_t* ids, int64_t count,
                               const int64_t* known_ids, const uint32_t* known_slots, int64_t known,
                               int64_t rows, uint32_t* bits, ec_error* error) {
  const ec_status status = check_given(place, "place", error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  const IdTable table = {known_ids, known_slots, known};
  return started(run_mark_ids(ids, count, table, rows, bits, stream_of(place)), error);
}

ec_status ec_cuda_ann_gather(const ec_cuda_place* place, const uint32_t* const* sources, int64_t filters,
                             int64_t rows, uint32_t* bits, ec_error* error) {
  const ec_status status = check_given(place, "place", error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  return started(run_gather(sources, filters, rows, bits, stream_of(place)), error);
}

ec_status ec_cuda_ann_list(const ec_cuda_place* place, const uint32_t* bits, int64_t filters, int64_t rows,
                           uint32_t* slots, int64_t stride, int64_t* counts, void* workspace,
                           ec_error* error) {
  const ec_status status = check_given(place, "place", error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  const Listing lists = {bits,   filters, rows, slots, stride, counts, static_cast<int64_t*>(workspace),
                         nullptr};
  return started(run_list(lists, stream_of(place)), error);
}

ec_status ec_cuda_ann_search_workspace(const ec_cuda_place* place, const ec_cuda_ann_index* index,
                                       const ec_matrix* queries, const ec_cuda_ann_search_options* options,
                                       int64_t* bytes, ec_error* error) {
  Prepared prepared;
  const ec_status status = prepared.prepare(place, index, queries, options, error);
  if (status != EC_OK) return status;
  *bytes = static_cast<int64_t>(search_workspace_bytes(prepared.problem, prepared.multiprocessors));
  return EC_OK;
}

ec_status ec_cuda_ann_search(const ec_cuda_place* place, const ec_cuda_ann_index* index,
                             const ec_matrix* queries, const ec_cuda_ann_search_options* options,
                             void* workspace, int64_t* ids, float* distances, int64_t* counts,
                             ec_error* error) {
  Prepared prepared;
  const ec_status status = prepared.prepare(place, index, queries, options, error);
  if (status != EC_OK) return status;
  prepared.problem.ids = ids;
  prepared.problem.distances = distances;
  prepared.problem.found = counts;
  const CurrentDevice current(place->device);
  return started(run_search(prepared.problem, prepared.multiprocessors, workspace, stream_of(place)),
                 error);
}

ec_status ec_cuda_ann_list_near(const ec_cuda_place* place, const ec_cuda_ann_cells* cells, int64_t first,
                                int64_t count, int64_t group, int64_t wanted, uint32_t* slots,
                                int64_t stride, int64_t* counts, ec_error* error) {
  ec_status status = check_given(place, "place", error);
  NearRowsProblem problem = {};
  if (status == EC_OK) status = take_cells(cells, &problem.cells, error);
  if (status != EC_OK) return status;
  if (first < 0 || count < 0 || group < 1)
    return ec::fail(error, EC_INVALID_VALUE, "group", -1,
                    "'group' must be at least 1, 'first' and 'count' not negative; got %lld, %lld and %lld",
                    static_cast<long long>(group), static_cast<long long>(first),
                    static_cast<long long>(count));
  if (wanted < 1 || stride < wanted)
    return ec::fail(error, EC_INVALID_VALUE, "stride", -1,
                    "'stride' must be at least 'wanted', and that 1; got %lld and %lld",
                    static_cast<long long>(stride), static_cast<long long>(wanted));
  problem.first = first;
  problem.count = count;
  problem.group = group;
  problem.wanted = wanted;
  problem.slots = slots;
  problem.stride = stride;
  problem.counts = counts;
  const CurrentDevice current(place->device);
  return started(run_list_near_rows(problem, stream_of(place)), error);
}

ec_status ec_cuda_ann_choose_links(const ec_cuda_place* place, const ec_cuda_ann_index* given,
                                   const ec_cuda_ann_link_options* options, uint32_t* links,
                                   ec_error* error) {
  ec_status status = check_given(place, "place", error);
  if (status == EC_OK) status = check_given(given, "index", error);
  if (status == EC_OK) status = check_given(options, "options", error);
  LinkProblem problem = {};
  if (status == EC_OK) status = make_index(*given, &problem.index, error);
  if (status == EC_OK) status = take_cells(options->cells, &problem.cells, error);
  if (status != EC_OK) return status;
  const bool sound = options->first >= 0 && options->count >= 0 &&
                     options->first <= problem.index.rows - options->count && options->near_each >= 0 &&
                     options->far_each >= 0 && options->near_each <= kMostCandidates &&
                     options->far_each <= kMostCandidates - options->near_each &&
                     options->far_each <= problem.cells.near_each && options->degree >= 1 &&
                     options->least <= options->degree;
  if (!sound)
    return ec::fail(
        error, EC_INVALID_VALUE, "options", -1,
        "'options' must have slots of the index, at most %d candidates each, and a degree of at least "
        "1 and 'least'",
        kMostCandidates);
  problem.first = options->first;
  problem.count = options->count;
  problem.near = options->near;
  problem.near_each = options->near_each;
  problem.far_each = options->far_each;
  problem.seed = options->seed;
  problem.degree = options->degree;
  problem.least = options->least;
  problem.links = links;
  const CurrentDevice current(place->device);
  return started(run_choose_links(problem, stream_of(place)), error);
}
