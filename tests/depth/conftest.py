# SPDX-License-Identifier: Apache-2.0
"""What tests of `depth.score` share: the comparison with the oracle, and its tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth._score import _random_directions
from oracle import depths as oracle

Array = np.ndarray[Any, Any]

DIRECTIONS = 40
SEED = 3

# float32 unit rows: a cosine is off by a few 2^-24 (rows and products rounded), about 2e-7 at any
# width. chord and arc multiply it by at most 1 / chord = 16, as pairs with |cosine| > 1 - 1/512 are
# taken from their difference; that is the bound of one pair, and means over pairs lie far below it.
# For l2 and spatial a squared distance is at least 1/128 of the squared norms that cancel in it: a
# distance is good to 64 times 2e-7, and depth to a quarter of that for l2. float32 results add
# pi * 2^-25.
TOLERANCES = {
    "cosine": 6e-7,
    "chord": 3.2e-6,
    "arc": 3.2e-6,
    "l2": 3.2e-6,
    "spatial": 1.3e-5,
    "mahalanobis": 1e-7,
}


def tolerance_of(metric: str, corpus_rows: int) -> float:
    """Largest error of one depth."""
    if metric in TOLERANCES:
        return TOLERANCES[metric]
    # Projections are float32: a value may change sides with a neighbour 1e-7 away, one row in a
    # tail. MAD divides an error of 1e-6 by its own size.
    return 1e-4 if metric == "projection" else 1.01 / corpus_rows + 1e-7


def reference(x: Array, corpus: Array | None, metric: str, **options: Any) -> Array:
    """Depths by the oracle; options as of depth.score, offsets excepted."""
    if metric in oracle.DIRECTIONAL:
        options["u"] = _random_directions(x, DIRECTIONS, SEED)
    if metric in ("mahalanobis", "ai_irw") and options.get("weights") is not None:
        options["ddof"] = 0
    rows = x.astype(np.float64)
    if metric == "ai_irw" and corpus is None:
        return _ai_irw_of_own_rows(rows, **options)
    wide = None if corpus is None else corpus.astype(np.float64)
    return oracle.score(rows, wide, metric=metric, **options)


def _ai_irw_of_own_rows(
    rows: Array, u: Array, weights: Array | None = None, groups: Array | None = None, ddof: int = 1
) -> Array:
    """A row is left out of the depth, not of the covariance that whitens."""
    labels = np.zeros(len(rows), int) if groups is None else groups
    w = np.ones(len(rows)) if weights is None else weights
    result = np.empty((len(rows), len(np.unique(labels))))
    for g, name in enumerate(np.unique(labels)):
        member = labels == name
        covariance = oracle.covariance(rows[member], w[member], 0.0, ddof)
        along = u @ oracle.inverse_square_root(covariance)
        depths = oracle.score(rows, metric="irw", u=along, weights=weights, groups=labels)
        result[:, g] = depths[:, g]
    return result[:, 0] if groups is None else result


def score(x: Any, corpus: Any, metric: str, **options: Any) -> Any:
    """`depth.score` with the directions of `reference`."""
    if metric in oracle.DIRECTIONAL:
        options.update(n_directions=DIRECTIONS, seed=SEED)
    return depth.score(x, corpus, metric=metric, **options)


@pytest.fixture
def score_reference() -> Callable[..., Array]:
    return reference


@pytest.fixture
def agrees() -> Callable[..., Array]:
    """Compare one call with the oracle; returns the depths."""

    def check(
        x: Array,
        corpus: Array | None = None,
        *,
        metric: str,
        expected: Array | None = None,
        tolerance: float | None = None,
        **options: Any,
    ) -> Array:
        if expected is None:
            expected = reference(x, corpus, metric, **options)
        got = np.asarray(score(x, corpus, metric, **options))
        assert got.dtype == (np.float64 if x.dtype == np.float64 else np.float32)
        assert got.shape == expected.shape
        limit = tolerance or tolerance_of(metric, len(x if corpus is None else corpus))
        np.testing.assert_allclose(got, expected, rtol=0, atol=limit)
        return got

    return check
