# SPDX-License-Identifier: Apache-2.0
"""Permutation null of the depth rank-sum test: relabel the pooled rows, recompute all depths.

Leave-one-out depths are not exchangeable with the other sample's, so permuting the depths would not
be a valid test. Relabelling rows and starting again is: under the null hypothesis every labelling
is as likely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ._null import Floats, mid_ranks, quality_index
from ._pairs import MEAN_DISTANCE, distances, largest_value, prepare

Flags = NDArray[np.bool_]
Say = Callable[[float], object]

_CHUNK = 1 << 21  # numbers held at once in each work array, for moderate n
_MIN_LABELLINGS, _MAX_LABELLINGS = 256, 1024


def _labellings(total: int, n: int, draws: int, rng: np.random.Generator) -> Iterator[Flags]:
    """Yield (b, total) flags of the reference rows; the first labelling is the observed one."""
    step = min(_MAX_LABELLINGS, max(_MIN_LABELLINGS, _CHUNK // total))
    observed = np.arange(total) < n
    for start in range(0, draws + 1, step):
        flags = np.tile(observed, (min(step, draws + 1 - start), 1))
        first = 1 if start == 0 else 0
        flags[first:] = rng.permuted(flags[first:], axis=1)
        yield flags


def _told(labellings: Iterator[Flags], total: int, say: Say | None) -> Iterator[Flags]:
    """Yield the labellings; tell the fraction of `total` that has been dealt with."""
    done = 0
    for flags in labellings:
        yield flags
        done += len(flags)
        if say is not None:
            say(done / total)


def _sums_to_reference(rows: Floats, flags: Flags, metric: str) -> Floats:
    """Return (b, total) sums of distances: of each row to the reference rows of each labelling.

    O(b total d) for cosine, which is linear in the rows. Otherwise blocks of the distance matrix
    are made and multiplied by the labels, one after the other: O(total^2 (d + b)) time, never
    total^2 memory.
    """
    labels = flags.astype(np.float64)
    if metric == "cosine":
        return np.asarray(labels.sum(axis=1)[:, None] - (labels @ rows) @ rows.T)
    total = len(rows)
    sums = np.empty((len(flags), total))
    step = max(1, _CHUNK // total)
    for start in range(0, total, step):
        block = distances(rows, rows[start : start + step], metric)
        block[np.arange(start, start + block.shape[1]), np.arange(block.shape[1])] = 0
        sums[:, start : start + step] = labels @ block
    return sums


def _quality_of_each(depths: Floats, flags: Flags) -> Floats:
    """Q of each (depths, reference flags) row, by one sort; rows with ties by mid-ranks."""
    total = depths.shape[1]
    order = np.argsort(depths, axis=1)
    other = ~np.take_along_axis(flags, order, axis=1)
    m = int(other[0].sum())
    rank_sums = other @ np.arange(1.0, total + 1)
    ordered = np.take_along_axis(depths, order, axis=1)
    for i in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)):
        rank_sums[i] = mid_ranks(depths[i])[~flags[i]].sum()
    return np.asarray((rank_sums - m * (m + 1) / 2) / (m * (total - m)))


def _permuted_pairs(
    rows: NDArray[np.generic], n: int, metric: str, labellings: Iterator[Flags]
) -> Floats:
    prepared = prepare(rows, metric, largest_value(rows))
    results = []
    for flags in labellings:
        sums = _sums_to_reference(prepared, flags, metric)
        means = np.where(flags, sums / (n - 1), sums / n)  # a row's distance to itself is zero
        results.append(_quality_of_each(-means, flags))
    return np.concatenate(results)


def permuted_quality(
    rows: NDArray[np.generic],
    n: int,
    metric: str,
    draws: int,
    rng: np.random.Generator,
    depths: Callable[[NDArray[np.generic], NDArray[np.generic]], tuple[Floats, Floats]],
    say: Say | None = None,
) -> tuple[float, Floats]:
    """Q as observed (the first ``n`` rows are the reference) and under ``draws`` random labellings.

    ``depths(reference, other)`` is called once per labelling for metrics without a pair kernel;
    ``say`` with the fraction done.
    """
    labellings = _told(_labellings(len(rows), n, draws, rng), draws + 1, say)
    if metric in MEAN_DISTANCE:
        values = _permuted_pairs(rows, n, metric, labellings)
    else:
        values = np.array(
            [
                quality_index(*depths(rows[flag], rows[~flag]))
                for flags in labellings
                for flag in flags
            ]
        )
    return float(values[0]), values[1:]
