# SPDX-License-Identifier: Apache-2.0
"""The fit behind `depth.estimate`: one block of rows against the sampled rows.

The basis is 1, z, z^2 - E z^2, with z the cosine less its mean over the corpus, over its deviation.
The means of these over the corpus are 1, 0, 0, so that the first coefficient is the mean distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._covariance import Floats

Floats32 = NDArray[np.float32]
Places = tuple[NDArray[np.int64], NDArray[np.int64]]

# One-sided 98.75 % point of the normal distribution, and -log(1.25 %): see `_allowances`.
_NORMAL_POINT = 2.2414
_UNSEEN = math.log(80.0)
# Float32 cosines are off by 1e-7, which must not look like spread. Cosines that are all equal, or
# have two values, leave a coefficient open, which is then taken small.
_LEAST_SPREAD = 1e-3
_RIDGE = 1e-5
# Beyond this the cosine has lost the distance, which is taken from the rows' difference (or sum).
_NEAR = 1.0 - 1.0 / 512.0
_NEAR_PAIRS = 4096
# Where the rest beyond the sampled cosines is looked at.
_GRID = np.cos(np.linspace(np.pi, 0.0, 65))


def largest_distance(metric: str) -> float:
    """Return the distance of opposite rows; depth is what the mean distance lacks of it."""
    return math.pi if metric == "arc" else 2.0


def distance_of(metric: str, cosines: Any) -> Any:
    """Return the distances at cosines in [-1, 1], in their dtype."""
    return np.arccos(cosines) if metric == "arc" else np.sqrt(2 - 2 * cosines)


def pairs(metric: str, unit: Floats32, sampled: Floats32) -> tuple[Floats32, Floats32]:
    """Cosines and distances (n, s) of unit rows (n, d) with the sampled ones (s, d)."""
    cosines = unit @ sampled.T
    np.clip(cosines, -1.0, 1.0, out=cosines)
    distances = distance_of(metric, cosines)
    rows, others = np.nonzero(np.abs(cosines) > np.float32(_NEAR))
    for first in range(0, len(rows), _NEAR_PAIRS):
        i, j = rows[first : first + _NEAR_PAIRS], others[first : first + _NEAR_PAIRS]
        opposite = cosines[i, j] < 0
        gap = unit[i].astype(np.float64) - np.where(opposite, -1.0, 1.0)[:, None] * sampled[j]
        chord = np.minimum(np.sqrt((gap * gap).sum(axis=1)), 2.0)
        if metric == "arc":
            arc = 2.0 * np.arcsin(0.5 * chord)
            distances[i, j] = np.where(opposite, math.pi - arc, arc)
        else:
            distances[i, j] = np.where(opposite, np.sqrt(4.0 - chord * chord), chord)
    return cosines, distances


@dataclass(frozen=True)
class Spread:
    """Mean and variance (n,) of each row's cosines with the whole corpus: exact."""

    mean: Floats
    variance: Floats

    @property
    def scale(self) -> Floats:
        """What z is measured in."""
        scale: Floats = np.maximum(np.sqrt(self.variance), _LEAST_SPREAD)
        return scale

    def basis(self, cosines: Any) -> tuple[Any, Any]:
        """Return z and z^2 - E z^2 (n, s), in the dtype of `cosines`."""
        scale = self.scale.astype(cosines.dtype)[:, None]
        z = (cosines - self.mean.astype(cosines.dtype)[:, None]) / scale
        return z, z * z - (self.variance / self.scale**2).astype(cosines.dtype)[:, None]


def fit(
    metric: str, cosines: Floats32, distances: Floats32, own: Places, spread: Spread
) -> tuple[Floats, Floats, Floats]:
    """Return mean distances (n,) in the corpus and the ends of their intervals.

    `own`: places where a row meets itself, which do not count. Overwrites `distances`.
    """
    z, bent = spread.basis(cosines)
    # About the distance at the mean cosine: float32 sums of small numbers.
    origin = distance_of(metric, np.clip(spread.mean, -1.0, 1.0)).astype(np.float32)
    distances -= origin[:, None]
    for column in (z, bent, distances):
        column[own] = 0.0
    count = np.full(len(z), z.shape[1], np.float64)
    np.subtract.at(count, own[0], 1.0)
    fitted = _least_squares(z, bent, distances, count)
    distances -= fitted[:, :1].astype(np.float32)
    distances -= fitted[:, 1:2].astype(np.float32) * z
    distances -= fitted[:, 2:].astype(np.float32) * bent
    distances[own] = 0.0
    squares = np.einsum("ns,ns->n", distances, distances).astype(np.float64)
    fitted[:, 0] += origin
    beyond = _beyond(metric, fitted, spread, z.min(axis=1), z.max(axis=1))
    below, above = _allowances(squares, count, beyond)
    mean = fitted[:, 0]
    most = largest_distance(metric)
    low, middle, high = (np.clip(end, 0.0, most) for end in (mean - below, mean, mean + above))
    return middle, low, high


def _least_squares(z: Floats32, bent: Floats32, y: Floats32, count: Floats) -> Floats:
    """Coefficients (n, 3); the ridge keeps the last two finite and does not touch the first."""
    sums = [column.sum(axis=1).astype(np.float64) / count for column in (z, bent, y)]
    mean_z, mean_bent, mean_y = sums

    def covariance(a: Floats32, b: Floats32, mean_a: Floats, mean_b: Floats) -> Floats:
        products: Floats = np.einsum("ns,ns->n", a, b).astype(np.float64) / count
        return products - mean_a * mean_b

    zz = covariance(z, z, mean_z, mean_z) + _RIDGE
    zb = covariance(z, bent, mean_z, mean_bent)
    bb = covariance(bent, bent, mean_bent, mean_bent) + _RIDGE
    zy = covariance(z, y, mean_z, mean_y)
    by = covariance(bent, y, mean_bent, mean_y)
    determinant = zz * bb - zb * zb
    slope = (bb * zy - zb * by) / determinant
    bend = (zz * by - zb * zy) / determinant
    return np.stack([mean_y - slope * mean_z - bend * mean_bent, slope, bend], axis=1)


def _beyond(metric: str, fitted: Floats, spread: Spread, least: Floats32, most: Floats32) -> Floats:
    """Distance less the fit (n, grid) at cosines beyond the sampled ones; 0 between them."""
    grid_z, grid_bent = spread.basis(np.tile(_GRID, (len(fitted), 1)))
    curve = fitted[:, :1] + fitted[:, 1:2] * grid_z + fitted[:, 2:] * grid_bent
    unseen = (grid_z <= least[:, None]) | (grid_z >= most[:, None])
    return np.where(unseen, distance_of(metric, _GRID) - curve, 0.0)


def _allowances(squares: Floats, count: Floats, beyond: Floats) -> tuple[Floats, Floats]:
    """Return what the mean distance (n,) may lie below and above its estimate.

    Each end may fail with 1.25 % for the sampled part (normal) and 1.25 % for corpus rows beyond
    the least or greatest sampled cosine: a share p of the corpus is missed by s rows with
    (1 - p)^s <= exp(-s p). Such rows move the mean by at most their share times the largest rest
    beyond the sampled cosines.
    """
    share = _UNSEEN / count
    error = _NORMAL_POINT * np.sqrt(squares / (count - 3) / count)
    below = error + share * np.maximum(-beyond.min(axis=1), 0.0)
    above = error + share * np.maximum(beyond.max(axis=1), 0.0)
    return below, above
