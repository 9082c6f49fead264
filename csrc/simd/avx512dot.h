// SPDX-License-Identifier: Apache-2.0
// AVX-512 with BF16 and VNNI: avx512.h with its dot-product steps in single instructions.
#pragma once

#include "simd/avx512.h"
