// SPDX-License-Identifier: Apache-2.0
// Which instruction set a call uses. Kernel tables are looked up once per call, in the driver.
#pragma once

#include "capi/embedcore.h"

namespace ec {

// In order of preference, lowest first. The names are those of csrc/cmake/isa.cmake.
enum class Isa { kBaseline, kAvx2, kAvx512, kAvx512Dot, kAvx512Amx, kNeon, kNeonDot };
constexpr int kIsaCount = 7;

const char* isa_name(Isa isa);
bool isa_compiled(Isa isa);  // this build has its kernels
bool isa_runs(Isa isa);      // compiled, and this processor and operating system run it

// The forced one (ec_set_isa, or EMBEDCORE_ISA read once at load), else the best that runs.
Isa current_isa();

// The operating system lets this process use tile registers, which it is asked for at the first call: from
// then on it saves more at each signal, and alternative stacks of signals must have room for that. Where it
// refuses, the kernels of AVX-512 run. Requires: isa_runs(Isa::kAvx512Amx).
bool tiles_permitted();

// Forces the named one; null or "" goes back to the best. What ec_set_isa does.
ec_status force_isa(const char* name, ec_error* error);

}  // namespace ec
