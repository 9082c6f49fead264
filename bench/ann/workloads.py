# SPDX-License-Identifier: Apache-2.0
"""Eleven ways to filter, query i with a filter of its own; and bands of how much passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.ann.columns import Columns, Tree

# Largest share of the rows that passes in each band but the last.
BAND_LIMITS = (0.001, 0.01, 0.1, 0.5)
BANDS = ("<=0.1%", "0.1-1%", "1-10%", "10-50%", ">50%")
# Which bands a workload can fall in.
CELLS = {
    "none": (4,),
    "em": (0, 1, 2, 3, 4),
    "em_rand": (0, 1, 2, 3, 4),
    "em_neg": (1, 2, 3),
    "r": (0, 1, 2, 3, 4),
    "r_rand": (0, 1, 2, 3, 4),
    "emis": (0, 1, 2, 3),
    "emis_rand": (0, 1, 2, 3),
    "and": (0, 1, 2, 3),
    "or": (1, 2, 3),
    "not": (3, 4),
}
MEANING = {
    "none": "no filter",
    "em": "the query's own value of a category",
    "em_rand": "any value of a category, all alike",
    "em_neg": "the section whose centre is farthest from the query",
    "r": "a window of a number that holds the query's own",
    "r_rand": "a window of a number, anywhere",
    "emis": "a member of the query's own set",
    "emis_rand": "any member of sets",
    "and": "own section and a window of the size",
    "or": "own section or a member of its set",
    "not": "not the own section",
}
EQUAL_COLUMNS = ("section", "owner", "flag", "priority")
WINDOW_COLUMNS = ("size", "weight", "links")
SET_COLUMNS = ("needs", "tags")
NARROWEST, WIDEST = 0.0005, 0.9
FAR_SHARE = 0.0025  # of the rows, that a section far from the query has at least


def band_of(share: float) -> int:
    """Return the place in `BANDS`."""
    return int(np.searchsorted(BAND_LIMITS, share))


class _Maker:
    """Draws filters; `base` and `own` are the attributes of the rows and of the queries."""

    def __init__(self, base: Columns, own: Columns, seed: int) -> None:
        self.base, self.own = base, own
        self.rng = np.random.default_rng([9, seed])
        self._sorted = {name: np.sort(column) for name, column in base.numbers.items()}

    def equal(self, i: int, name: str) -> Tree:
        return ("eq", name, int(self.own.categories[name][i]))

    def any_equal(self, i: int, name: str) -> Tree:
        return ("eq", name, int(self.rng.choice(np.unique(self.base.categories[name]))))

    def window(self, i: int, name: str, least: float = NARROWEST, own: bool = True) -> Tree:
        """A window between two ranks, its width log-uniform."""
        ordered = self._sorted[name]
        rows = len(ordered)
        width = int(np.ceil(rows * np.exp(self.rng.uniform(np.log(least), np.log(WIDEST)))))
        first, last = 0, rows - width
        if own:
            place = int(np.searchsorted(ordered, self.own.numbers[name][i]))
            first = min(max(0, place - width + 1), last)
            last = min(max(first, place), last)
        start = int(self.rng.integers(first, last + 1))
        return ("range", name, int(ordered[start]), int(ordered[start + width - 1]))

    def _by_frequency(self, name: str, codes: NDArray[np.int64]) -> Tree:
        """Of some codes the one whose frequency is nearest to one drawn log-uniformly."""
        counts = np.log(np.maximum(self.base.sets[name].counts[codes], 1))
        drawn = self.rng.uniform(np.log(5), np.log(0.3 * self.base.rows))
        return ("has", name, int(codes[np.abs(counts - drawn).argmin()]))

    def member(self, i: int, name: str) -> Tree:
        """A member of the query's own set; of its other one, or any, where that is empty."""
        for one in (name, *SET_COLUMNS):
            codes = self.own.sets[one].of_row(i)
            codes = codes[codes < len(self.base.sets[one].counts)]
            if len(codes):
                return self._by_frequency(one, codes)
        return self.any_member(i, name)

    def any_member(self, i: int, name: str) -> Tree:
        counts = self.base.sets[name].counts
        return self._by_frequency(name, np.flatnonzero(counts > 0))


def _far_sections(
    base: Columns, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return for each query the section, of those with enough rows, with the farthest centre."""
    codes = base.categories["section"]
    counts = np.bincount(codes)
    large = np.flatnonzero(counts >= max(1, FAR_SHARE * len(codes)))
    centres = np.stack([vectors[codes == code].mean(axis=0) for code in large])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    far: NDArray[np.int64] = large[(queries @ centres.T).argmin(axis=1)]
    return far


def make(
    base: Columns,
    own: Columns,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    seed: int,
) -> dict[str, list[Tree]]:
    """Return the filters of each workload, one for each query."""
    maker = _Maker(base, own, seed)
    far = _far_sections(base, vectors, queries)

    def turn(names: tuple[str, ...], i: int) -> str:
        return names[i % len(names)]

    ways: dict[str, Callable[[int], Tree]] = {
        "none": lambda i: ("all",),
        "em": lambda i: maker.equal(i, turn(EQUAL_COLUMNS, i)),
        "em_rand": lambda i: maker.any_equal(i, turn(EQUAL_COLUMNS, i)),
        "em_neg": lambda i: ("eq", "section", int(far[i])),
        "r": lambda i: maker.window(i, turn(WINDOW_COLUMNS, i)),
        "r_rand": lambda i: maker.window(i, turn(WINDOW_COLUMNS, i), own=False),
        "emis": lambda i: maker.member(i, turn(SET_COLUMNS, i)),
        "emis_rand": lambda i: maker.any_member(i, turn(SET_COLUMNS, i)),
        "and": lambda i: ("and", maker.equal(i, "section"), maker.window(i, "size", 0.005)),
        "or": lambda i: ("or", maker.equal(i, "section"), maker.member(i, "needs")),
        "not": lambda i: ("not", maker.equal(i, "section")),
    }
    return {name: [way(i) for i in range(len(queries))] for name, way in ways.items()}
