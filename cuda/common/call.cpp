// SPDX-License-Identifier: Apache-2.0
// How calls end, on a device and on the emulation.
#include "common/device.h"
#include "core/errors.h"

namespace ec::cuda {

ec_status started(bool all, ec_error* error) {
  const ec_status status = last_failure(error);
  if (status != EC_OK || all) return status;
  return fail(error, EC_UNSUPPORTED, "", -1, "the problem has more parts than a GPU takes at once");
}

}  // namespace ec::cuda
