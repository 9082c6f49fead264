// SPDX-License-Identifier: Apache-2.0
// Depths from one-dimensional projections on directions that all rows share.
//
// For a unit direction u, with p_j = u'X_j the projections of a corpus and t = u'x:
//   halfspace   min over u of min(P(p <= t), P(p >= t))   Tukey ("Mathematics and the picturing of data",
//               1975), over the given directions instead of all; both sides are closed, so that u stands
//               for -u too. Never below the exact depth, and falling to it as directions are added.
//   irw         mean over u of min(P(p <= t), P(p >= t))   integrated rank-weighted: Ramsay, Durocher and
//               Leblanc (J. Multivariate Analysis 2019); AI-IRW of Staerman, Mozharovskyi and Clemencon
//               (2021) is the same after whitening.
//   projection  1 / (1 + max over u of |t - med(p)| / MAD(p))   Stahel (1981) and Donoho (1982), as a depth
//               Zuo (Annals of Statistics 2003). MAD is the median of |p - med(p)|, without a factor for
//               consistency; the median of an even number is the mean of the two in the middle. Where MAD
//               is 0 the ratio is 0 for t = med(p) and infinite elsewhere.
// P is the weighted share of the corpus. Where a row is scored in its own corpus, it is left out: of the
// counts, the median and the MAD, exactly.
//
// Numerics: projections are float32 sums over the columns of rows moved towards the origin; equal rows have
// equal projections wherever they lie, so ties are ties. Everything after that is exact for ranks, and
// float32 for medians. Results do not depend on the number of threads.
// Cost: (n + m) d P for the products and (n + m) P for the rest; nothing is sorted but crowded buckets.
#pragma once

#include "depth/mean_direction.h"

namespace ec {

struct ProjectionProblem {
  const MatrixRows* x;
  const MatrixRows* corpus;     // null: the corpus is x, and each row is left out of its own group
  CorpusParts parts;            // of the corpus; the projection depth takes no weights
  const ec_matrix* directions;  // one a row, of any length
  ec_depth_metric metric;       // EC_DEPTH_HALFSPACE, EC_DEPTH_PROJECTION or EC_DEPTH_IRW
};

// depths[n][groups]. Requires: every group has a row of positive weight, for a row in its own group another
// than itself; fewer than 2^31 rows.
ec_status project_depths(const ProjectionProblem& problem, const RunOptions& run, double* depths,
                         FirstFault* x_fault, FirstFault* corpus_fault, FirstFault* direction_fault);

}  // namespace ec
