// SPDX-License-Identifier: Apache-2.0
// Depth from C: which of 1000 noisy copies of a direction is the most central, and what an error looks
// like.
#include <embedcore.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { kRows = 1000, kColumns = 64 };

// Uniform in [-1, 1).
static float noise(void) { return 2.0f * (float)rand() / ((float)RAND_MAX + 1.0f) - 1.0f; }

// Row i lies around (1, ..., 1); the higher i, the farther off.
static void fill(float* x) {
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kColumns; ++j) x[i * kColumns + j] = 1.0f + 0.002f * (float)i * noise();
}

// The leave-one-out arc depth of every row among the others.
static ec_status score(const float* x, double* depths, ec_error* error) {
  const ec_matrix rows = {x, kRows, kColumns, kColumns, EC_FLOAT32};
  ec_depth_options options = {0};
  options.metric = EC_DEPTH_ARC;
  options.groups = 1;
  return ec_depth_score(&rows, NULL, &options, depths, error);
}

int main(void) {
  static float x[kRows * kColumns];
  static double depths[kRows];
  ec_error error;

  printf("embedcore %s, %s, %d threads\n", ec_version(), ec_get_isa(), ec_get_num_threads());
  fill(x);
  if (score(x, depths, &error) != EC_OK) {
    fprintf(stderr, "'%s' row %lld: %s\n", error.argument, (long long)error.row, error.message);
    return 1;
  }
  int deepest = 0, outermost = 0;
  for (int i = 1; i < kRows; ++i) {
    if (depths[i] > depths[deepest]) deepest = i;
    if (depths[i] < depths[outermost]) outermost = i;
  }
  printf("deepest: row %d (%.4f); outermost: row %d (%.4f)\n", deepest, depths[deepest], outermost,
         depths[outermost]);

  x[17 * kColumns] = NAN;
  if (score(x, depths, &error) != EC_INVALID_VALUE) return 1;
  printf("row %lld of '%s' is refused: it %s\n", (long long)error.row, error.argument, error.message);
  return deepest < outermost ? 0 : 1;
}
