# SPDX-License-Identifier: Apache-2.0
"""Location and covariance of a corpus, in float64, mergeable; Mahalanobis distances, leave-one-out.

Linear algebra of O(d^3) is NumPy's; it runs on NumPy's own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK_ROWS = 8192


def chunks(rows: NDArray[Any]) -> Iterator[tuple[int, Floats]]:
    """Yield (first row, float64 copy) of blocks of rows."""
    for start in range(0, len(rows), _CHUNK_ROWS):
        # In one order, so that equal rows give equal bits in whatever layout they come.
        yield start, rows[start : start + _CHUNK_ROWS].astype(np.float64, order="C")


@dataclass
class Moments:
    """Weighted first and second moments of rows, about their mean."""

    weight: float
    mean: Floats
    scatter: Floats
    used: int  # rows of positive weight

    @classmethod
    def of(cls, rows: NDArray[Any], weights: Floats | None = None) -> Moments:
        """Return the moments of `rows` (m, d); O(m d^2)."""
        columns = rows.shape[1]
        result = cls(0.0, np.zeros(columns), np.zeros((columns, columns)), 0)
        for start, block in chunks(rows):
            w = np.ones(len(block)) if weights is None else weights[start : start + len(block)]
            total = float(w.sum())
            if total == 0.0:
                continue
            mean = w @ block / total
            centred = block - mean
            used = int(np.count_nonzero(w))
            result.merge(cls(total, mean, (centred * w[:, None]).T @ centred, used))
        return result

    def merge(self, other: Moments) -> None:
        """Add the rows of `other` (Chan, Golub and LeVeque 1979)."""
        total = self.weight + other.weight
        if total == 0.0:
            return
        gap = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(gap, gap) * (self.weight * other.weight / total)
        self.mean = self.mean + gap * (other.weight / total)
        self.weight = total
        self.used += other.used

    def fourth_of(self, rows: NDArray[Any], weights: Floats | None) -> float:
        """Sum over `rows` of weight times the fourth power of the distance from the mean."""
        fourth = 0.0
        for start, block in chunks(rows):
            w = np.ones(len(block)) if weights is None else weights[start : start + len(block)]
            fourth += float(w @ ((block - self.mean) ** 2).sum(axis=1) ** 2)
        return fourth

    def ledoit_wolf(self, fourth: float) -> float:
        """Return the shrinkage intensity of Ledoit and Wolf (2004) towards a multiple of I.

        `fourth` as of `fourth_of` the same rows. In [0, 1]; 1 for a corpus whose covariance is a
        multiple of the identity already.
        """
        covariance_norm = float((self.scatter**2).sum()) / self.weight**2
        columns = len(self.mean)
        scale = float(np.trace(self.scatter)) / self.weight / columns
        spread = covariance_norm - columns * scale**2
        noise = (fourth / self.weight - covariance_norm) / self.used
        return float(min(max(noise, 0.0) / spread, 1.0)) if spread > 0.0 else 1.0


class Whitener:
    """Squared Mahalanobis distances to a corpus, and directions that whiten it.

    The covariance is (1 - s) S + s (trace S / d) I with S = scatter / (weight - ddof). It is held
    by the eigenvectors of the scatter, in which leaving one row out is a change of the diagonal and
    a rank-one downdate: exact leave-one-out costs O(d) a row once the row is rotated.
    """

    def __init__(self, moments: Moments, shrinkage: float, ddof: int) -> None:
        self._moments = moments
        self._shrinkage = shrinkage
        self._ddof = ddof
        values, self._vectors = np.linalg.eigh(moments.scatter)
        self._values = np.maximum(values, 0.0)

    @property
    def singular(self) -> bool:
        """Whether the covariance has no usable inverse."""
        diagonal = self._diagonal(np.array([self._moments.weight]), np.array([self._trace]))[0]
        top = float(diagonal.max())
        return not float(diagonal.min()) > top * len(diagonal) * np.finfo(np.float64).eps * 8

    @property
    def _trace(self) -> float:
        return float(self._values.sum())

    def _diagonal(self, weight: Floats, trace: Floats) -> Floats:
        """Eigenvalues (r, d) of the covariance for total weights and traces of the scatter (r,)."""
        scale = 1.0 / (weight - self._ddof)
        target = self._shrinkage * trace * scale / len(self._values)
        diagonal: Floats = (1 - self._shrinkage) * scale[:, None] * self._values + target[:, None]
        return diagonal

    def squared_distances(self, rows: NDArray[Any]) -> Floats:
        """Squared distances (n,) of `rows` (n, d); O(n d^2)."""
        result = np.empty(len(rows))
        diagonal = self._diagonal(np.array([self._moments.weight]), np.array([self._trace]))
        for start, block in chunks(rows):
            rotated = (block - self._moments.mean) @ self._vectors
            result[start : start + len(block)] = (rotated * rotated / diagonal).sum(axis=1)
        return result

    def squared_distances_left_out(self, rows: NDArray[Any], weights: Floats | None) -> Floats:
        """Return the same for rows of the corpus itself, each against all the others."""
        result = np.empty(len(rows))
        total = self._moments.weight
        for start, block in chunks(rows):
            w = np.ones(len(block)) if weights is None else weights[start : start + len(block)]
            centred = block - self._moments.mean
            rotated = centred @ self._vectors
            rest = total - w
            downdate = total * w / rest
            squares = rotated * rotated
            diagonal = self._diagonal(rest, self._trace - downdate * squares.sum(axis=1))
            with np.errstate(divide="ignore", invalid="ignore"):
                plain = (squares / diagonal).sum(axis=1)
                factor = 1.0 - (1 - self._shrinkage) / (rest - self._ddof) * downdate * plain
                left_out = (total / rest) ** 2 * plain / factor
            # Without the row its direction has no variance left: infinitely far.
            result[start : start + len(block)] = np.where(factor > 1e-12, left_out, np.inf)
        return result

    def whiten_directions(self, directions: Floats) -> Floats:
        """Directions (p, d) whose products with rows are those of the given with whitened rows."""
        diagonal = self._diagonal(np.array([self._moments.weight]), np.array([self._trace]))[0]
        whitened: Floats = directions @ ((self._vectors / np.sqrt(diagonal)) @ self._vectors.T)
        return whitened


def choose_whitener(
    where: str,
    corpus: str,
    moments: Moments,
    fourth: Callable[[], float],
    shrinkage: float | str,
    ddof: int,
) -> Whitener:
    """Return the whitener of a corpus; ``"auto"`` shrinks where the covariance has no inverse.

    `corpus`: what an error calls the corpus. `fourth`: see `Moments.ledoit_wolf`.

    Raises
    ------
    ValueError
        If the covariance is singular and `shrinkage` is 0.
    """
    if shrinkage == "auto":
        # Leaving a row out must leave full rank.
        if moments.used > len(moments.mean) + 1:
            plain = Whitener(moments, 0.0, ddof)
            if not plain.singular:
                return plain
        shrinkage = moments.ledoit_wolf(fourth())
    result = Whitener(moments, float(shrinkage), ddof)
    if result.singular:
        raise ValueError(
            f"{where}: {corpus} must have a covariance of full rank unless it is shrunk; got a "
            "singular one. Use shrinkage='auto' or a number in (0, 1]; rows that are all equal "
            "have no covariance to shrink."
        )
    return result
