# SPDX-License-Identifier: Apache-2.0
"""Rows to measure on: made here with the geometry of sentence embeddings, or real glosses."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from embedcore import datasets
from numpy.typing import NDArray

Rows = NDArray[np.float32]

GLOSSES = Path(__file__).parents[2] / "examples" / "data" / "glosses.npz"

# Cosines of pairs of MiniLM sentence embeddings over many topics.
MEAN_COSINE, COSINE_SPREAD = 0.18, 0.10
CLUSTERS, CLUSTER_SHARE = 64, 0.25
DUPLICATE_SHARE = 0.05
_CHUNK = 8192


def _spectrum(columns: int) -> NDArray[np.float64]:
    """Return falling variances of sum 1 whose squares give the cosines their spread."""
    wanted = (COSINE_SPREAD / (1.0 - MEAN_COSINE)) ** 2
    ranks = np.arange(1, columns + 1, dtype=np.float64)
    low, high = 0.0, 4.0  # exponents; with few columns even equal variances spread more
    for _ in range(60):
        middle = (low + high) / 2
        variances = ranks**-middle
        variances /= variances.sum()
        if float(variances @ variances) > wanted:
            high = middle
        else:
            low = middle
    variances = ranks**-low
    variances /= variances.sum()
    return variances


def _rotate(rows: Rows, rng: np.random.Generator) -> Rows:
    """Mix the columns by the Kronecker product of two random rotations, cheap for any width.

    Without it the falling variances would be those of single columns, which rounding would notice.
    """
    columns = rows.shape[1]
    height = max(a for a in range(1, int(np.sqrt(columns)) + 1) if columns % a == 0)
    left, right = (
        np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
        for size in (height, columns // height)
    )
    mixed: Rows = left @ (rows.reshape(len(rows), height, -1) @ right)
    return mixed.reshape(rows.shape)


def anisotropic(count: int, columns: int, seed: int = 0) -> Rows:
    """Return unit rows from 64 clusters around a common direction, in a falling spectrum."""
    rng = np.random.default_rng([seed, columns])
    scale = np.sqrt(_spectrum(columns)).astype(np.float32)
    centres = rng.standard_normal((CLUSTERS, columns), dtype=np.float32) * scale
    direction = rng.standard_normal(columns)
    direction *= np.sqrt(MEAN_COSINE / (1.0 - MEAN_COSINE)) / np.linalg.norm(direction)
    rows = np.empty((count, columns), dtype=np.float32)
    turn = int(rng.integers(1 << 31))
    for start in range(0, count, _CHUNK):
        part = rows[start : start + _CHUNK]
        rng.standard_normal(part.shape, dtype=np.float32, out=part)
        part *= scale * np.float32(np.sqrt(1.0 - CLUSTER_SHARE))
        kind = rng.integers(CLUSTERS, size=len(part))
        part += centres[kind] * np.float32(np.sqrt(CLUSTER_SHARE))
        part += direction.astype(np.float32)
        part[:] = _rotate(part, np.random.default_rng(turn))
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def near_duplicates(rows: Rows, seed: int = 1) -> Rows:
    """Make 5 % of the rows copies of others, with noise of 1e-7 to 0.1 of their length."""
    rng = np.random.default_rng(seed)
    copies = rng.choice(len(rows), int(np.ceil(DUPLICATE_SHARE * len(rows))), replace=False)
    result = rows.copy()
    noise = rng.standard_normal((len(copies), rows.shape[1]), dtype=np.float32)
    size = 10.0 ** rng.uniform(-7.0, -1.0, (len(copies), 1)) / np.sqrt(rows.shape[1])
    result[copies] = rows[rng.integers(len(rows), size=len(copies))] + noise * size
    result /= np.linalg.norm(result, axis=1, keepdims=True)
    return result


def glosses() -> Rows:
    """Return the committed sample in random order: all of it in a checkout, else the wheel's."""
    rows = datasets.load_glosses(GLOSSES if GLOSSES.exists() else None).vectors
    return rows[np.random.default_rng(0).permutation(len(rows))]


@lru_cache(maxsize=2)
def pool(kind: str, count: int, columns: int) -> Rows:
    """Return `count` rows: "made", "lengths" (unequal), "duplicates", "[duplicate ]glosses"."""
    if kind == "glosses":
        return glosses()[:count]
    rows = anisotropic(count, columns)
    if kind == "duplicates":
        rows = near_duplicates(rows)
    if kind == "duplicate glosses":
        rows = near_duplicates(glosses()[:count])
    if kind == "lengths":
        lengths = np.random.default_rng(2).lognormal(0.0, 0.2, (count, 1)).astype(np.float32)
        rows = rows * lengths
    return rows
