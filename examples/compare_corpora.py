# SPDX-License-Identifier: Apache-2.0
"""Which of several corpora differ? Depth rank-sum tests of all pairs, corrected for their number.

To see what no difference looks like, one class is cut at random into two corpora.
"""

from __future__ import annotations

import argparse

import numpy as np
from embedcore import datasets, depth

CLASSES = ("noun.animal", "noun.body", "noun.feeling", "verb.emotion")
CUT = "noun.animal"


def corpora(glosses: datasets.Glosses) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the chosen classes and the name of the corpus of each."""
    rows = np.concatenate([glosses.rows_of(name) for name in CLASSES])
    names = np.array(glosses.class_names)[glosses.labels[rows]].astype(object)
    cut = np.flatnonzero(names == CUT)
    half = np.random.default_rng(0).permutation(cut)[: len(cut) // 2]
    names[half] = f"{CUT} (half)"
    return glosses.vectors[rows], names.astype(str)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE", help="draw the matrix of Q (needs Matplotlib)")
    path = parser.parse_args().plot

    x, names = corpora(datasets.load_glosses())
    result = depth.rank_sum_matrix(x, names, correction="holm")
    print(f"{'depth taken in':<20} {'compared':<20} {'Q':>6} {'z':>7} {'p (Holm)':>9}")
    for a, b in np.argwhere(~np.eye(len(result.labels), dtype=bool)):
        different = result.pvalue_adjusted[a, b] < 0.05
        print(
            f"{result.labels[a]:<20} {result.labels[b]:<20} {result.q[a, b]:6.3f} "
            f"{result.zscore[a, b]:7.2f} {result.pvalue_adjusted[a, b]:9.2g} "
            f"{'they differ' if different else 'no difference found'}"
        )
    if path:
        from embedcore import plot

        plot.rank_sum_heatmap(result).figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
