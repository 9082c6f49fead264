// SPDX-License-Identifier: Apache-2.0
// The controls of the C ABI: version, threads, instruction set.
#include "capi/embedcore.h"
#include "core/dispatch.h"
#include "core/parallel.h"

int ec_abi_version(void) { return EC_ABI_VERSION; }

const char* ec_version(void) { return EC_VERSION; }

int ec_get_num_threads(void) { return ec::num_threads(); }

void ec_set_num_threads(int threads) { ec::set_num_threads(threads); }

const char* ec_get_isa(void) { return ec::isa_name(ec::current_isa()); }

ec_status ec_set_isa(const char* name, ec_error* error) { return ec::force_isa(name, error); }

int ec_list_isas(const char** names, int capacity) {
  int count = 0;
  for (int i = 0; i < ec::kIsaCount; ++i) {
    const auto isa = static_cast<ec::Isa>(i);
    if (!ec::isa_runs(isa)) continue;
    if (names != nullptr && count < capacity) names[count] = ec::isa_name(isa);
    ++count;
  }
  return count;
}

const char* ec_num_threads_source(void) { return ec::num_threads_source(); }

#if defined(__clang__)
#define EC_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define EC_COMPILER "gcc " __VERSION__
#else
#define EC_COMPILER "unknown compiler"
#endif
#if defined(__x86_64__)
#define EC_ARCHITECTURE "x86-64"
#elif defined(__aarch64__)
#define EC_ARCHITECTURE "aarch64"
#else
#define EC_ARCHITECTURE "unknown architecture"
#endif
#if defined(NDEBUG)
#define EC_BUILD_TYPE "release"
#else
#define EC_BUILD_TYPE "debug"
#endif

const char* ec_build_info(void) { return EC_COMPILER ", " EC_ARCHITECTURE ", " EC_BUILD_TYPE; }
