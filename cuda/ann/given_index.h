// SPDX-License-Identifier: Apache-2.0
// An index as the C ABI has it, in the form of the kernels.
#pragma once

#include "ann/index.h"
#include "capi/embedcore_cuda.h"

namespace ec::cuda::ann {

ec_status make_index(const ec_cuda_ann_index& given, IndexRows* index, ec_error* error);

}  // namespace ec::cuda::ann
