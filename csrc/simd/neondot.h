// SPDX-License-Identifier: Apache-2.0
// aarch64 NEON with the dot-product and bf16 extensions: neon.h in single instructions.
#pragma once

#include "simd/neon.h"
