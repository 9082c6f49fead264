# SPDX-License-Identifier: Apache-2.0
"""Attributes for the rows of a mixture: tied to its clusters, half tied, and not at all.

Their frequencies, and how often a row and its ten nearest agree, follow a package index: a section
(58 values; neighbours agree in 0.4 of all pairs, chance is 0.05), a maintainer (some 1,500 values;
0.37), a flag (2 values; 0.65), a state (4 values; 0.63), a priority (5 values, one of which has
99.5 % of the rows; by chance), two sizes over six decades, a count, and two kinds of sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.ann.columns import Columns, Sets
from bench.ann.geometry import FAMILY, SUBTOPIC, TOPIC, zipf

SECTIONS, SECTION_FADE = 58, 10.0
OWNERS, OWNER_EXPONENT = 1500, 0.8
STATES = (0.636, 0.184, 0.176, 0.004)
PRIORITIES = (0.9946, 0.0034, 0.0009, 0.0007, 0.0004)
# Which level of clusters decides, and for which share of the rows; chance decides for the others.
SECTION_LEVEL, SECTION_SHARE = TOPIC, 0.62
OWNER_LEVEL, OWNER_SHARE = SUBTOPIC, 0.67
FLAG_LEVEL, FLAG_SHARE = SUBTOPIC, 0.6
STATE_LEVEL, STATE_SHARE = SUBTOPIC, 0.6
# Logarithms of numbers: mean, standard deviation.
SIZES = {"size": (5.4, 2.6), "weight": (11.0, 2.5), "links": (1.2, 1.1)}
NUMBER_LEVELS = {SUBTOPIC: 0.3, FAMILY: 0.2}  # share of the variance that a level decides

GLOBAL_NEEDS, LOCAL_NEEDS, NEEDS_EXPONENT = 1000, 16, 1.1
GLOBAL_TAGS, LOCAL_TAGS, TAGS_EXPONENT = 400, 6, 1.0


def _drawn(rng: np.random.Generator, weights: NDArray[np.float64], rows: int) -> NDArray[np.int32]:
    summed = np.cumsum(weights)
    found: NDArray[np.int64] = np.searchsorted(summed, rng.random(rows) * summed[-1], "right")
    return found.astype(np.int32)


def _tied(
    rng: np.random.Generator,
    cluster: NDArray[np.int64],
    share: float,
    weights: NDArray[np.float64],
) -> NDArray[np.int32]:
    """Draw a value for each row: the cluster's for a share of them, its own for the others."""
    of_cluster = _drawn(rng, weights, int(cluster.max()) + 1)
    own = _drawn(rng, weights, len(cluster))
    found: NDArray[np.int32] = np.where(rng.random(len(cluster)) < share, of_cluster[cluster], own)
    return found


def _number(
    rng: np.random.Generator, clusters: NDArray[np.int64], mean: float, deviation: float
) -> NDArray[np.int64]:
    rest = 1.0 - sum(NUMBER_LEVELS.values())
    found = np.sqrt(rest) * rng.standard_normal(len(clusters))
    for level, share in NUMBER_LEVELS.items():
        cluster = clusters[:, level]
        found += np.sqrt(share) * rng.standard_normal(int(cluster.max()) + 1)[cluster]
    drawn: NDArray[np.int64] = np.floor(np.exp(mean + deviation * found)).astype(np.int64)
    return drawn


def _sets(
    rng: np.random.Generator,
    sizes: NDArray[np.int64],
    cluster: NDArray[np.int64],
    common: tuple[int, float],
    local: tuple[int, float],
) -> Sets:
    """Draw sets: codes that all share, and for a share of the draws codes of the row's cluster."""
    codes_shared, exponent = common
    codes_local, share = local
    rows = np.repeat(np.arange(len(sizes)), sizes)
    shared = zipf(rng, len(rows), codes_shared, exponent)
    own = cluster[rows] * codes_local + zipf(rng, len(rows), codes_local, 1.0) + codes_shared
    drawn = np.where(rng.random(len(rows)) < share, own, shared)
    codes = np.unique(drawn, return_inverse=True)[1]
    count = int(codes.max(initial=0)) + 1
    pairs = np.unique(rows * count + codes)
    starts = np.searchsorted(pairs // count, np.arange(len(sizes) + 1))
    return Sets(starts, pairs % count)


def attributes(clusters: NDArray[np.int64], seed: int) -> Columns:
    """Return columns for rows of these clusters, (n, levels)."""
    rng = np.random.default_rng([8, seed])
    rows = len(clusters)

    def tied(level: int, share: float, weights: NDArray[np.float64]) -> NDArray[np.int32]:
        return _tied(rng, clusters[:, level], share, weights)

    ranks = np.arange(1.0, OWNERS + 1)
    categories = {
        "section": tied(SECTION_LEVEL, SECTION_SHARE, np.exp(-ranks[:SECTIONS] / SECTION_FADE)),
        "owner": tied(OWNER_LEVEL, OWNER_SHARE, ranks**-OWNER_EXPONENT),
        "flag": tied(FLAG_LEVEL, FLAG_SHARE, np.ones(2)),
        "priority": _drawn(rng, np.array(PRIORITIES), rows),
        "state": tied(STATE_LEVEL, STATE_SHARE, np.array(STATES)),
    }
    numbers = {name: _number(rng, clusters, *law) for name, law in SIZES.items()}
    needed = np.floor(np.exp(1.1 + 0.9 * rng.standard_normal(rows))).astype(np.int64)
    tagged = np.where(rng.random(rows) < 0.45, 1 + rng.geometric(0.3, rows), 0)
    sets = {
        "needs": _sets(
            rng, np.minimum(needed, 300), clusters[:, SUBTOPIC],
            (GLOBAL_NEEDS, NEEDS_EXPONENT), (LOCAL_NEEDS, 0.7),
        ),
        "tags": _sets(
            rng, np.minimum(tagged, 60), clusters[:, TOPIC],
            (GLOBAL_TAGS, TAGS_EXPONENT), (LOCAL_TAGS, 0.7),
        ),
    }  # fmt: skip
    return Columns(rows, categories, numbers, sets)
