// SPDX-License-Identifier: Apache-2.0
// The C ABI of builds with the help of the GPU, but for lists of near rows and the choice of links.
#include "ann/byte_codes.h"
#include "ann/cells.h"
#include "ann/given_index.h"
#include "common/device.h"
#include "core/errors.h"

namespace ec::cuda::ann {
namespace {

constexpr int64_t kMostRows = 0xffffffffll;

bool are_heads(int64_t bytes) { return bytes >= 64 && bytes <= kMostHeadBytes && bytes % 64 == 0; }

ec_status prepare(const ec_cuda_ann_index* given, const ec_cuda_ann_byte_codes* wanted, IndexRows* rows,
                  ByteCodes* codes, ec_error* error) {
  ec_status status = check_given(given, "rows", error);
  if (status == EC_OK) status = check_given(wanted, "codes", error);
  if (status == EC_OK) status = make_index(*given, rows, error);
  if (status != EC_OK) return status;
  const int64_t in_tail = wanted->code_columns - (wanted->head_bytes - 16);
  const bool sound = rows->kind != RowKind::kCodes && are_heads(wanted->head_bytes) &&
                     wanted->code_columns >= 1 && wanted->code_columns <= rows->columns &&
                     wanted->tail_bytes >= max(in_tail, int64_t{0}) && wanted->tail_bytes % 64 == 0 &&
                     wanted->tail_bytes <= rows->columns + 64;
  if (!sound)
    return fail(
        error, EC_INVALID_VALUE, "codes", -1,
        "'codes' must be of rows that are no codes, and have 1 to %d columns, heads of 64 to %d bytes "
        "and tails for the rest, in multiples of 64",
        rows->columns, kMostHeadBytes);
  *codes = {wanted->axes,
            static_cast<int>(wanted->code_columns),
            static_cast<int>(wanted->head_bytes),
            static_cast<int>(wanted->tail_bytes),
            wanted->heads,
            wanted->tails,
            wanted->squares};
  return EC_OK;
}

ec_status prepare(const ec_cuda_ann_heads* given, HeadRows* rows, ec_error* error) {
  const ec_status status = check_given(given, "heads", error);
  if (status != EC_OK) return status;
  if (!are_heads(given->head_bytes))
    return fail(error, EC_INVALID_VALUE, "heads", -1,
                "'heads' must have 64 to %d bytes, a multiple of 64; got %lld", kMostHeadBytes,
                static_cast<long long>(given->head_bytes));
  *rows = {given->heads, static_cast<int>(given->head_bytes), given->squares};
  return EC_OK;
}

ec_status prepare(const ec_cuda_ann_heads* heads, const ec_cuda_ann_grouping* given, HeadRows* rows,
                  Grouping* grouping, ec_error* error) {
  ec_status status = prepare(heads, rows, error);
  if (status == EC_OK) status = check_given(given, "grouping", error);
  if (status != EC_OK) return status;
  const bool sound = given->cells >= 1 && given->sampled >= 0 && given->sampled < kMostRows &&
                     given->moves >= 0 && given->count >= 0 && given->count < kMostRows;
  if (!sound)
    return fail(
        error, EC_INVALID_VALUE, "grouping", -1,
        "'grouping' must have cells, moves that are not negative, and fewer than 2^32 - 1 rows; got "
        "%lld cells, %d moves, %lld and %lld rows",
        static_cast<long long>(given->cells), static_cast<int>(given->moves),
        static_cast<long long>(given->sampled), static_cast<long long>(given->count));
  *grouping = {
      given->drawn, given->cells, given->sample, given->sampled, given->sampled > 0 ? given->moves : 0,
      given->slots, given->count, given->cell_of};
  return EC_OK;
}

}  // namespace
}  // namespace ec::cuda::ann

using namespace ec::cuda::ann;
using ec::check_given;
using ec::cuda::CurrentDevice;
using ec::cuda::started;
using ec::cuda::Stream;

ec_status ec_cuda_ann_byte_codes_workspace(const ec_cuda_ann_index* given,
                                           const ec_cuda_ann_byte_codes* wanted, int64_t* bytes,
                                           ec_error* error) {
  IndexRows rows;
  ByteCodes codes;
  const ec_status status = prepare(given, wanted, &rows, &codes, error);
  if (status == EC_OK) *bytes = static_cast<int64_t>(byte_codes_workspace(rows, codes));
  return status;
}

ec_status ec_cuda_ann_make_byte_codes(const ec_cuda_place* place, const ec_cuda_ann_index* given,
                                      const ec_cuda_ann_byte_codes* wanted, void* workspace,
                                      ec_error* error) {
  ec_status status = check_given(place, "place", error);
  IndexRows rows;
  ByteCodes codes;
  if (status == EC_OK) status = prepare(given, wanted, &rows, &codes, error);
  ec::cuda::DeviceFacts facts;
  if (status == EC_OK) status = ec::cuda::find_device(place->device, &facts, error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  return started(
      run_byte_codes(rows, codes, facts.multiprocessors, workspace, static_cast<Stream>(place->stream)),
      error);
}

ec_status ec_cuda_ann_group_workspace(const ec_cuda_ann_heads* heads, const ec_cuda_ann_grouping* given,
                                      int64_t* bytes, ec_error* error) {
  HeadRows rows;
  Grouping grouping;
  const ec_status status = prepare(heads, given, &rows, &grouping, error);
  if (status == EC_OK) *bytes = static_cast<int64_t>(grouping_workspace(rows, grouping));
  return status;
}

ec_status ec_cuda_ann_group(const ec_cuda_place* place, const ec_cuda_ann_heads* heads,
                            const ec_cuda_ann_grouping* given, void* workspace, ec_error* error) {
  ec_status status = check_given(place, "place", error);
  HeadRows rows;
  Grouping grouping;
  if (status == EC_OK) status = prepare(heads, given, &rows, &grouping, error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  return started(run_grouping(rows, grouping, workspace, static_cast<Stream>(place->stream)), error);
}

ec_status ec_cuda_ann_cell_means(const ec_cuda_place* place, const ec_cuda_ann_heads* heads,
                                 const uint32_t* cell_of, int64_t count, int64_t cells, uint8_t* means,
                                 ec_error* error) {
  ec_status status = check_given(place, "place", error);
  HeadRows rows;
  if (status == EC_OK) status = prepare(heads, &rows, error);
  if (status != EC_OK) return status;
  const CurrentDevice current(place->device);
  return started(run_cell_means(rows, cell_of, count, cells, means, static_cast<Stream>(place->stream)),
                 error);
}
