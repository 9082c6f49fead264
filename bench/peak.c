/* SPDX-License-Identifier: Apache-2.0 */
/* What one core can do: multiply-adds from registers, and reading memory.
 *
 * Each loop keeps more independent accumulators than the latency of its instruction asks for.
 * Compiled by bench/peak.py for the machine it runs on, with contraction, so that a * b + c is one
 * instruction.
 */

#include <stddef.h>
#include <string.h>

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

/* The accumulators have names: compilers leave arrays of them in memory. */
#define EACH_OF_12(DO) DO(a) DO(b) DO(c) DO(d) DO(e) DO(f) DO(g) DO(h) DO(i) DO(j) DO(k) DO(l)
#if defined(__AVX512F__) || defined(__aarch64__)
#define ACCUMULATORS 16
#define EACH(DO) EACH_OF_12(DO) DO(m) DO(n) DO(o) DO(p)
#else
#define ACCUMULATORS 12
#define EACH(DO) EACH_OF_12(DO)
#endif

typedef float Floats __attribute__((vector_size(WIDTH)));
typedef unsigned long long Words __attribute__((vector_size(WIDTH)));

/* Keeps a value in a register, whatever the optimizer can prove about it. */
#if defined(__x86_64__)
#define KEEP(x) __asm__ volatile("" : "+v"(x));
#elif defined(__aarch64__)
#define KEEP(x) __asm__ volatile("" : "+w"(x));
#else
#define KEEP(x) __asm__ volatile("" : "+m"(x));
#endif

double fma_flops_per_round(void) { return 2.0 * ACCUMULATORS * (WIDTH / sizeof(float)); }

void fma_rounds(size_t rounds) {
  Floats factor, term;
  for (size_t lane = 0; lane < WIDTH / sizeof(float); ++lane) factor[lane] = term[lane] = 0.5f;
  KEEP(factor)
  KEEP(term)
#define START(sum) Floats sum = term;
#define STEP(sum) sum = sum * factor + term;
  EACH(START)
  for (size_t round = 0; round < rounds; ++round) {
    EACH(STEP)
    EACH(KEEP)
  }
#undef START
#undef STEP
}

/* Of bfloat16 pairs into float32; 0 flops where the machine has no such instruction. */
#if defined(__AVX512BF16__)
#include <immintrin.h>

double dot_flops_per_round(void) { return 4.0 * ACCUMULATORS * 16; }

void dot_rounds(size_t rounds) {
  __m512bh ones;
  unsigned short bits[32];
  for (int lane = 0; lane < 32; ++lane) bits[lane] = 0x3f80;
  memcpy(&ones, bits, sizeof ones);
#define START(sum) __m512 sum = _mm512_setzero_ps();
#define STEP(sum) sum = _mm512_dpbf16_ps(sum, ones, ones);
  EACH(START)
  for (size_t round = 0; round < rounds; ++round) {
    EACH(STEP)
    EACH(KEEP)
  }
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>

double dot_flops_per_round(void) { return 4.0 * ACCUMULATORS * 4; }

void dot_rounds(size_t rounds) {
  const bfloat16x8_t ones = vdupq_n_bf16(vcvth_bf16_f32(1.0f));
#define START(sum) float32x4_t sum = vdupq_n_f32(0.0f);
#define STEP(sum) sum = vbfdotq_f32(sum, ones, ones);
  EACH(START)
  for (size_t round = 0; round < rounds; ++round) {
    EACH(STEP)
    EACH(KEEP)
  }
}
#else
double dot_flops_per_round(void) { return 0.0; }

void dot_rounds(size_t rounds) { (void)rounds; }
#endif

/* Of tiles of bfloat16 into float32; 0 flops where the machine or its system has none. */
#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

static int tiles_allowed(void) {
  enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

#define SUMS 6
double tile_flops_per_round(void) { return tiles_allowed() ? 2.0 * SUMS * 16 * 16 * 32 : 0.0; }

void tile_rounds(size_t rounds) {
  struct {
    unsigned char palette, start, reserved[14];
    unsigned short bytes[16];
    unsigned char lines[16];
  } shapes __attribute__((aligned(64)));
  memset(&shapes, 0, sizeof shapes);
  shapes.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    shapes.bytes[tile] = 64;
    shapes.lines[tile] = 16;
  }
  /* gcc's own intrinsic leaves the shapes unwritten. */
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
  for (size_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
    _tile_dpbf16ps(5, 6, 7);
  }
  _tile_release();
}
#else
double tile_flops_per_round(void) { return 0.0; }

void tile_rounds(size_t rounds) { (void)rounds; }
#endif

/* Reads `count` times; the size is rounded down to whole steps of 4 vectors. */
void read_bytes(const unsigned char* from, size_t size_bytes, size_t count) {
  for (size_t pass = 0; pass < count; ++pass) {
    Words sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
    for (size_t i = 0; i + 4 * WIDTH <= size_bytes; i += 4 * WIDTH) {
      Words part[4];
      for (int line = 0; line < 4 * WIDTH; line += 64) __builtin_prefetch(from + i + line + 4096);
      memcpy(part, from + i, sizeof part);
      sum0 ^= part[0];
      sum1 ^= part[1];
      sum2 ^= part[2];
      sum3 ^= part[3];
    }
    KEEP(sum0)
    KEEP(sum1)
    KEEP(sum2)
    KEEP(sum3)
  }
}
