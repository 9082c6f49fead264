# SPDX-License-Identifier: Apache-2.0
"""Vectors that lie as sentence embeddings do: what they are about, what kind they are, families.

The model: a common direction, two trees of ever smaller clusters in each of which a row has a place
of its own, families of near duplicates that share both places, and noise; each Gaussian, with a
share of the variance and a power of one spectrum. The constants were fitted once to a set of 20,000
sentence embeddings (MiniLM, 384 dimensions) of descriptions of software packages.

| 20,000 rows | embeddings | `mixture` |
|---|---|---|
| norm of the mean | 0.42 | 0.46 |
| variance in the first 8, 32, 128, 256 principal directions | .19 .44 .82 .98 | .19 .44 .78 .93 |
| cosine of two rows: 1 %, 50 %, 99 % of the pairs below | -.03 .17 .45 | .02 .20 .52 |
| cosine to the nearest row: 5 %, 50 %, 95 % of the rows below | .54 .76 .98 | .53 .75 .92 |
| cosine to the 10th nearest | .45 .57 .85 | .45 .63 .82 |
| cosine to the 1000th nearest | .23 .33 .43 | .25 .35 .50 |
| local dimension (MLE, 100 neighbours): 10 %, 50 %, 90 % | 9 19 32 | 9 17 31 |
| ten nearest rows in the nearest 1, 4, 16 of 256 k-means cells | .56 .80 .93 | .69 .84 .92 |

"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LATENT = 384  # dimensions of the clusters; vectors of more dimensions are turned into them
MEAN_NORM = 0.424
# The spectrum: (i + OFFSET) ** -POWER * exp(-i / FADE).
SPECTRUM_OFFSET, SPECTRUM_POWER, SPECTRUM_FADE = 6.0, 0.426, 212.0
# Where LATENT is less than the dimensions asked for, the variance in the others.
REST_SHARE = 0.02


@dataclass(frozen=True)
class Level:
    """One generation of clusters: how many a parent has, and how their centres spread."""

    children: int  # 0: as many as the rows find, sizes falling as a power law
    exponent: float  # of the law of the sizes
    share: float  # of the variance, in units of all shares
    flatness: float  # the power of the spectrum; below 1 in more directions than the whole
    spread: float  # standard deviation of the logarithm of a cluster's distance to its parent


TREES = (
    (
        Level(21, 1.13, 0.115, 0.58, 0.05),
        Level(36, 1.00, 0.234, 1.18, 0.27),
        Level(50, 0.90, 0.044, 0.50, 0.25),
    ),
    (
        Level(18, 1.27, 0.082, 0.48, 0.00),
        Level(14, 0.70, 0.156, 0.73, 0.20),
    ),
)
FAMILIES = Level(0, 2.08, 0.023, 1.30, 0.66)
NOISE_SHARE, NOISE_FLATNESS = 0.116, 0.54
NOISE_SPREAD_OF_FAMILIES, NOISE_SPREAD_OF_ROWS = 0.57, 0.18
# Columns of `Mixture.clusters`: three generations of the first tree, two of the second, families.
TOPIC, SUBTOPIC, SUBSUBTOPIC, KIND, SUBKIND, FAMILY = range(6)
_MOST_CHILDREN = 1_000_003


@dataclass(frozen=True, eq=False)
class Mixture:
    """Rows of unit length, and the cluster of each row on every level."""

    vectors: NDArray[np.float32]  # (n, dim)
    clusters: NDArray[np.int64]  # (n, 6), numbered from 0 within a column


def zipf(rng: np.random.Generator, rows: int, values: int, exponent: float) -> NDArray[np.int64]:
    """Draw from 0 to values - 1, value i with a weight of (i + 1) ** -exponent."""
    weights = np.cumsum(np.arange(1.0, values + 1) ** -exponent)
    drawn: NDArray[np.int64] = np.searchsorted(weights, rng.random(rows) * weights[-1], "right")
    return drawn


def _children(rng: np.random.Generator, level: Level, rows: int) -> NDArray[np.int64]:
    if level.children:
        return zipf(rng, rows, level.children, level.exponent)
    drawn = (1.0 - rng.random(rows)) ** (-1.0 / level.exponent)
    return np.minimum(drawn, _MOST_CHILDREN).astype(np.int64) - 1


def _scales(flatness: float, share: float, size: int) -> NDArray[np.float32]:
    """Return the standard deviation in each latent direction."""
    place = np.arange(size)
    spectrum = (place + SPECTRUM_OFFSET) ** -SPECTRUM_POWER * np.exp(-place / SPECTRUM_FADE)
    variance = spectrum**flatness
    scales: NDArray[np.float32] = np.sqrt(share * variance / variance.sum()).astype(np.float32)
    return scales


def _add_level(
    rng: np.random.Generator,
    x: NDArray[np.float32],
    parents: NDArray[np.int64],
    level: Level,
    unit: float,
) -> NDArray[np.int64]:
    """Move rows to the centres of clusters of their parents; return the clusters."""
    keys = parents * (_MOST_CHILDREN + 1) + _children(rng, level, len(x))
    found, inverse = np.unique(keys, return_inverse=True)
    clusters: NDArray[np.int64] = inverse
    centres = rng.standard_normal((len(found), x.shape[1]), dtype=np.float32)
    centres *= _scales(level.flatness, level.share * unit, x.shape[1])
    centres *= np.exp(level.spread * rng.standard_normal((len(found), 1), dtype=np.float32))
    step = max(1, (1 << 24) // x.shape[1])
    for start in range(0, len(x), step):
        x[start : start + step] += centres[clusters[start : start + step]]
    return clusters


def _latent(rng: np.random.Generator, rows: int, size: int) -> Mixture:
    levels = [level for tree in TREES for level in tree]
    shares = sum(level.share for level in (*levels, FAMILIES)) + NOISE_SHARE
    unit = (1.0 - MEAN_NORM**2) / shares
    mean = rng.standard_normal(size)
    x = np.tile((MEAN_NORM / np.linalg.norm(mean) * mean).astype(np.float32), (rows, 1))
    clusters, places = [], np.zeros(rows, np.int64)
    for tree in TREES:
        parents = np.zeros(rows, np.int64)
        for level in tree:
            parents = _add_level(rng, x, parents, level, unit)
            clusters.append(parents)
        places = np.unique(places * (rows + 1) + parents, return_inverse=True)[1]
    family = _add_level(rng, x, places, FAMILIES, unit)
    noise = rng.standard_normal((rows, size), dtype=np.float32)
    noise *= _scales(NOISE_FLATNESS, NOISE_SHARE * unit, size)
    of_family = rng.standard_normal((int(family.max()) + 1, 1), dtype=np.float32)
    of_row = rng.standard_normal((rows, 1), dtype=np.float32)
    noise *= np.exp(NOISE_SPREAD_OF_FAMILIES * of_family[family] + NOISE_SPREAD_OF_ROWS * of_row)
    x += noise
    return Mixture(x, np.stack([*clusters, family], axis=1))


def mixture(rows: int, dim: int, seed: int) -> Mixture:
    """Return `rows` rows of `dim` dimensions, turned so that no axis stands out."""
    rng = np.random.default_rng([7, dim, seed])
    latent = _latent(rng, rows, min(dim, LATENT))
    size = latent.vectors.shape[1]
    turn = np.linalg.qr(rng.standard_normal((dim, size)))[0].T.astype(np.float32)
    vectors = latent.vectors @ turn
    if dim > size:
        step = max(1, (1 << 25) // dim)
        scale = np.float32(np.sqrt(REST_SHARE / dim))
        for start in range(0, rows, step):
            part = vectors[start : start + step]
            part += scale * rng.standard_normal(part.shape, dtype=np.float32)
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return Mixture(vectors, latent.clusters)
