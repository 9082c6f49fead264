// SPDX-License-Identifier: Apache-2.0
#include "core/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/errors.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace ec {
namespace {

constexpr const char* kNames[kIsaCount] = {"baseline",  "avx2", "avx512", "avx512dot",
                                           "avx512amx", "neon", "neondot"};

// The build defines one macro for each row of isa.cmake.
#ifndef EC_HAVE_BASELINE
#define EC_HAVE_BASELINE 0
#endif
#ifndef EC_HAVE_AVX2
#define EC_HAVE_AVX2 0
#endif
#ifndef EC_HAVE_AVX512
#define EC_HAVE_AVX512 0
#endif
#ifndef EC_HAVE_AVX512DOT
#define EC_HAVE_AVX512DOT 0
#endif
#ifndef EC_HAVE_AVX512AMX
#define EC_HAVE_AVX512AMX 0
#endif
#ifndef EC_HAVE_NEON
#define EC_HAVE_NEON 0
#endif
#ifndef EC_HAVE_NEONDOT
#define EC_HAVE_NEONDOT 0
#endif

constexpr bool kCompiled[kIsaCount] = {EC_HAVE_BASELINE != 0,  EC_HAVE_AVX2 != 0,      EC_HAVE_AVX512 != 0,
                                       EC_HAVE_AVX512DOT != 0, EC_HAVE_AVX512AMX != 0, EC_HAVE_NEON != 0,
                                       EC_HAVE_NEONDOT != 0};

constexpr int kNone = -1;

struct Probe {
  bool runs[kIsaCount] = {};
  int best = 0;
};

#if defined(__x86_64__)
bool bit(unsigned word, int index) { return ((word >> index) & 1U) != 0; }

// XCR0: the register state that the operating system saves on a context switch.
unsigned long long saved_register_state() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

// Linux gives tiles to processes that ask (Documentation/arch/x86/xstate.rst). Numbers of its ABI, spelt
// here because old headers lack the names.
constexpr int kTileData = 18;
#if defined(__linux__)
bool tiles_on_request() {
  constexpr int kSupported = 0x1021;  // ARCH_GET_XCOMP_SUPP
  unsigned long long features = 0;
  return syscall(SYS_arch_prctl, kSupported, &features) == 0 && (features >> kTileData & 1) != 0;
}
bool request_tiles() {
  constexpr int kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#else
bool tiles_on_request() { return false; }
bool request_tiles() { return false; }
#endif

void probe_processor(bool* runs) {
  constexpr unsigned long long kAvxState = 0x06;     // xmm, ymm
  constexpr unsigned long long kAvx512State = 0xe6;  // and opmask, upper zmm, zmm16-31
  constexpr unsigned long long kTileState = 0x60000;
  runs[static_cast<int>(Isa::kBaseline)] = true;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return;
  const bool osxsave = bit(c, 27);
  const bool avx = bit(c, 28);
  const bool fma = bit(c, 12);
  const bool f16c = bit(c, 29);
  if (!osxsave || !avx || !fma || !f16c) return;
  const unsigned long long state = saved_register_state();
  if ((state & kAvxState) != kAvxState) return;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return;
  const unsigned last_subleaf = a;
  const bool avx2 = bit(b, 5);
  const bool avx512 = bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);  // F, DQ, BW, VL
  const bool vnni = bit(c, 11);
  const bool amx = bit(d, 22) && bit(d, 24) && bit(d, 25);  // BF16, tiles, INT8
  runs[static_cast<int>(Isa::kAvx2)] = avx2;
  if (!avx2 || !avx512 || (state & kAvx512State) != kAvx512State) return;
  runs[static_cast<int>(Isa::kAvx512)] = true;
  if (last_subleaf < 1 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return;
  const bool bf16 = bit(a, 5);
  runs[static_cast<int>(Isa::kAvx512Dot)] = vnni && bf16;
  runs[static_cast<int>(Isa::kAvx512Amx)] =
      vnni && bf16 && amx && (state & kTileState) == kTileState && tiles_on_request();
}
#elif defined(__aarch64__)
// Bits of the kernel's ABI (arch/arm64/include/uapi/asm/hwcap.h), spelt here because old C
// libraries lack the newer names.
void probe_processor(bool* runs) {
  constexpr unsigned long kHalfScalar = 1UL << 9;   // HWCAP_FPHP
  constexpr unsigned long kHalfVector = 1UL << 10;  // HWCAP_ASIMDHP
  constexpr unsigned long kDot = 1UL << 20;         // HWCAP_ASIMDDP
  constexpr unsigned long kBf16 = 1UL << 14;        // HWCAP2_BF16
  constexpr unsigned long kNeeded = kHalfScalar | kHalfVector | kDot;
  runs[static_cast<int>(Isa::kNeon)] = true;
  runs[static_cast<int>(Isa::kNeonDot)] =
      (getauxval(AT_HWCAP) & kNeeded) == kNeeded && (getauxval(AT_HWCAP2) & kBf16) != 0;
}
#endif

Probe make_probe() {
  Probe probe;
  probe_processor(probe.runs);
  for (int i = 0; i < kIsaCount; ++i) {
    probe.runs[i] = probe.runs[i] && kCompiled[i];
    if (probe.runs[i]) probe.best = i;
  }
  return probe;
}

// Both are set when the library is loaded: a fork never meets them half made.
const Probe g_probe = make_probe();

int find_running(const char* name) {
  for (int i = 0; i < kIsaCount; ++i) {
    if (g_probe.runs[i] && std::strcmp(kNames[i], name) == 0) return i;
  }
  return kNone;
}

// A value that does not run here is ignored: a library cannot report from its loading. A caller
// that wants to know passes the value to ec_set_isa; the Python package does.
int forced_by_environment() {
  const char* name = std::getenv("EMBEDCORE_ISA");
  return name != nullptr && name[0] != '\0' ? find_running(name) : kNone;
}

std::atomic<int> g_forced{forced_by_environment()};

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }
bool isa_compiled(Isa isa) { return kCompiled[static_cast<int>(isa)]; }
bool isa_runs(Isa isa) { return g_probe.runs[static_cast<int>(isa)]; }

Isa current_isa() {
  const int value = g_forced.load(std::memory_order_relaxed);
  return static_cast<Isa>(value == kNone ? g_probe.best : value);
}

#if defined(__x86_64__)
bool tiles_permitted() {
  // Asking twice is harmless, and a fork never meets a lock.
  enum State { kUnknown, kNo, kYes };
  static std::atomic<int> state{kUnknown};
  if (state.load(std::memory_order_relaxed) == kUnknown)
    state.store(request_tiles() ? kYes : kNo, std::memory_order_relaxed);
  return state.load(std::memory_order_relaxed) == kYes;
}
#else
bool tiles_permitted() { return false; }
#endif

ec_status force_isa(const char* name, ec_error* error) {
  if (name == nullptr || name[0] == '\0') {
    g_forced.store(kNone, std::memory_order_relaxed);
    return EC_OK;
  }
  const int found = find_running(name);
  if (found != kNone) {
    g_forced.store(found, std::memory_order_relaxed);
    return EC_OK;
  }
  char running[64] = "";
  for (int i = 0; i < kIsaCount; ++i) {
    if (!g_probe.runs[i]) continue;
    if (running[0] != '\0') std::strcat(running, ", ");
    std::strcat(running, kNames[i]);
  }
  return fail(error, EC_INVALID_VALUE, "name", -1,
              "'name' must be an instruction set that runs here (%s); got '%.40s'", running, name);
}

}  // namespace ec
