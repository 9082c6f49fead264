# SPDX-License-Identifier: Apache-2.0
"""Moments of a corpus that comes in parts: those of `Moments`, and what its shrinkage needs.

Ledoit and Wolf's intensity needs the sum of the fourth powers of the rows' distances from the final
mean. It is kept mergeable: with y a row less the mean of its part and q = y'y, the sums of q y and
of q^2 can be moved to any other mean exactly, as the scatter can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._covariance import Floats, Moments, Whitener, choose_whitener, chunks


@dataclass
class StreamedMoments:
    """Moments about the mean up to the fourth, as far as they are needed."""

    moments: Moments
    third: Floats  # (d,): sum of weight * q * y
    fourth: float  # sum of weight * q^2
    # By shrinkage and whether rows had weights: O(d^3) to make.
    _whiteners: dict[tuple[float | str, bool], Whitener] = field(default_factory=dict, repr=False)

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")  # see `whitener`
    def of(cls, rows: NDArray[Any], weights: Floats | None) -> StreamedMoments:
        """Return the moments of `rows` (m, d); O(m d^2)."""
        moments = Moments.of(rows, weights)
        third, fourth = np.zeros(rows.shape[1]), 0.0
        for start, block in chunks(rows):
            w = np.ones(len(block)) if weights is None else weights[start : start + len(block)]
            centred = block - moments.mean
            squares = (centred * centred).sum(axis=1)
            third += (w * squares) @ centred
            fourth += float(w @ (squares * squares))
        return cls(moments, third, fourth)

    @np.errstate(over="ignore", invalid="ignore")
    def plus(self, other: StreamedMoments) -> StreamedMoments:
        """Return the moments of the rows of both."""
        mine, theirs = self.moments, other.moments
        both = Moments(mine.weight, mine.mean, mine.scatter.copy(), mine.used)
        both.merge(theirs)
        third_a, fourth_a = self._about(both.mean)
        third_b, fourth_b = other._about(both.mean)
        return StreamedMoments(both, third_a + third_b, fourth_a + fourth_b)

    def _about(self, mean: Floats) -> tuple[Floats, float]:
        """Return `third` and `fourth` about another mean: y becomes y - gap; y sums to zero."""
        weight, scatter = self.moments.weight, self.moments.scatter
        gap = mean - self.moments.mean
        turned = scatter @ gap
        trace, square = float(np.trace(scatter)), float(gap @ gap)
        third = self.third - 2.0 * turned - (trace + weight * square) * gap
        fourth = self.fourth - 4.0 * float(self.third @ gap) + 4.0 * float(gap @ turned)
        return third, fourth + (2.0 * trace + weight * square) * square

    def whitener(self, where: str, shrinkage: float | str, *, weighted: bool) -> Whitener:
        """Return the whitener that `depth.score` makes of the same rows.

        Raises
        ------
        ValueError
            If the covariance is singular and is not shrunk, there are too few rows for one, or
            their values are too large for sums of their powers.
        """
        key = (shrinkage, weighted)
        if key not in self._whiteners:
            if self.moments.used < 2:
                weighty = " of positive weight" if weighted else ""
                raise ValueError(
                    f"{where}: the corpus must have at least 2 rows{weighty} for a covariance; got "
                    f"{self.moments.used}."
                )
            if not (np.isfinite(self.fourth) and np.isfinite(self.moments.scatter).all()):
                raise ValueError(
                    f"{where}: the corpus must have rows whose fourth powers float64 can sum, so "
                    "values below about 1e75; got larger ones. Divide all rows by one number."
                )
            ddof = 0 if weighted else 1
            self._whiteners[key] = choose_whitener(
                where, "the corpus", self.moments, lambda: self.fourth, shrinkage, ddof
            )
        return self._whiteners[key]
