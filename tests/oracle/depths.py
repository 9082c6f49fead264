# SPDX-License-Identifier: Apache-2.0
"""Float64 oracle of every depth of ``embedcore.depth.score``: one row, one corpus at a time.

D is a depth: large in the middle of the corpus, small far out. E is the (weighted) mean over the
corpus.

==============  ====================================================================
cosine          2 - E[1 - cos(x, X)]
chord           2 - E[sqrt(2 - 2 cos(x, X))]
arc             pi - E[arccos cos(x, X)]
l2              1 / (1 + E|x - X|)
spatial         1 - |E[(x - X) / |x - X|]|, where a zero difference contributes zero
mahalanobis     1 / (1 + (x - mu)' S^-1 (x - mu))
halfspace       min over directions u of min(P(u'X <= u'x), P(u'X >= u'x))
irw             mean over u of the same minimum
ai_irw          irw after whitening x and the corpus by S^-1/2
projection      1 / (1 + max over u of |u'x - med(u'X)| / MAD(u'X))
==============  ====================================================================

Sources: Liu and Singh (1993) and Pandolfo, Paindaveine and Porzio (2018) for the angular family,
Serfling (2002) for spatial, Zuo and Serfling (2000) for the rest, Staerman et al. (2021) for irw
and ai_irw.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ANGULAR = ("cosine", "chord", "arc")
DIRECTIONAL = ("halfspace", "projection", "irw", "ai_irw")
METRICS = (*ANGULAR, "l2", "spatial", "mahalanobis", *DIRECTIONAL)


def directions(count: int, columns: int, seed: int) -> Floats:
    """Return ``count`` random unit rows."""
    rows = np.random.default_rng(seed).standard_normal((count, columns))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def covariance(corpus: Floats, weights: Floats, shrinkage: float, ddof: int = 1) -> Floats:
    """(1 - s) S + s (trace S / d) I, where S has denominator (sum of weights) - ddof."""
    columns = corpus.shape[1]
    mean = weights @ corpus / weights.sum()
    centred = corpus - mean
    scatter = (centred * weights[:, None]).T @ centred / (weights.sum() - ddof)
    return (1 - shrinkage) * scatter + shrinkage * np.trace(scatter) / columns * np.eye(columns)


def inverse_square_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    result: Floats = (vectors / np.sqrt(values)) @ vectors.T
    return result


def _unit(row: Floats) -> Floats:
    return row / math.sqrt(float(row @ row))


def _angular(distance: Callable[[float], float], top: float) -> Callable[..., float]:
    def depth(x: Floats, corpus: Floats, weights: Floats, **_: object) -> float:
        total = 0.0
        for row, weight in zip(corpus, weights, strict=True):
            a, b = _unit(x), _unit(row)
            # |a - b| loses nothing near cosine 1, where 1 - a'b has cancelled.
            total += weight * distance(math.sqrt(float((a - b) @ (a - b))))
        return top - total / float(weights.sum())

    return depth


def _l2(x: Floats, corpus: Floats, weights: Floats, **_: object) -> float:
    distances = np.sqrt(((corpus - x) ** 2).sum(axis=1))
    return 1 / (1 + float(weights @ distances / weights.sum()))


def _spatial(x: Floats, corpus: Floats, weights: Floats, **_: object) -> float:
    total = np.zeros_like(x)
    for row, weight in zip(corpus, weights, strict=True):
        length = math.sqrt(float((x - row) @ (x - row)))
        if length > 0:
            total += weight * (x - row) / length
    return 1 - math.sqrt(float(total @ total)) / float(weights.sum())


def _mahalanobis(
    x: Floats, corpus: Floats, weights: Floats, shrinkage: float = 0.0, ddof: int = 1, **_: object
) -> float:
    gap = x - weights @ corpus / weights.sum()
    return 1 / (1 + float(gap @ np.linalg.inv(covariance(corpus, weights, shrinkage, ddof)) @ gap))


def _project(x: Floats, corpus: Floats, u: Floats) -> tuple[Floats, Floats]:
    """u'x and u'X in one sum: a corpus row equal to x gets the same bits and ties with it."""
    values = np.einsum("nd,pd->np", np.vstack([x, corpus]), u)
    return values[0], values[1:]


def _tails(x: Floats, corpus: Floats, weights: Floats, u: Floats) -> Floats:
    own, values = _project(x, corpus, u)
    below = weights @ (values <= own) / weights.sum()
    above = weights @ (values >= own) / weights.sum()
    return np.minimum(below, above)


def _halfspace(x: Floats, corpus: Floats, weights: Floats, *, u: Floats, **_: object) -> float:
    return float(_tails(x, corpus, weights, u).min())


def _irw(x: Floats, corpus: Floats, weights: Floats, *, u: Floats, **_: object) -> float:
    return float(_tails(x, corpus, weights, u).mean())


def _ai_irw(
    x: Floats,
    corpus: Floats,
    weights: Floats,
    *,
    u: Floats,
    shrinkage: float = 0.0,
    ddof: int = 1,
    **_: object,
) -> float:
    whiten = inverse_square_root(covariance(corpus, weights, shrinkage, ddof))
    return _irw(x, corpus, weights, u=u @ whiten)  # u'(whiten x) = (whiten u)'x


def _projection(x: Floats, corpus: Floats, weights: Floats, *, u: Floats, **_: object) -> float:
    """Unweighted: the median of an even number of values is the mean of the two in the middle."""
    own, values = _project(x, corpus, u)
    centre = np.median(values, axis=0)
    spread = np.median(np.abs(values - centre), axis=0)
    return 1 / (1 + float((np.abs(own - centre) / spread).max()))


_DEPTHS: dict[str, Callable[..., float]] = {
    "cosine": _angular(lambda chord: chord * chord / 2, 2.0),
    "chord": _angular(lambda chord: chord, 2.0),
    "arc": _angular(lambda chord: 2 * math.asin(min(1.0, chord / 2)), math.pi),
    "l2": _l2,
    "spatial": _spatial,
    "mahalanobis": _mahalanobis,
    "halfspace": _halfspace,
    "projection": _projection,
    "irw": _irw,
    "ai_irw": _ai_irw,
}


def score(
    x: ArrayLike,
    corpus: ArrayLike | None = None,
    *,
    metric: str = "cosine",
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    **options: object,
) -> Floats:
    """Depth of each row of ``x`` in ``corpus``; ``None``: in the other rows of ``x``.

    ``options``: ``u`` (directions, one a row), ``shrinkage``, ``ddof``. ``groups``: see
    ``embedcore.depth.score``; with ``corpus=None`` a row is left out of its own group only.
    """
    rows = np.asarray(x, dtype=np.float64)
    own = corpus is None
    all_rows = rows if corpus is None else np.asarray(corpus, dtype=np.float64)
    count = len(all_rows)
    weight = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    labels = np.zeros(count, dtype=np.int64) if groups is None else np.asarray(groups)
    names = np.unique(labels)
    result = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        for g, name in enumerate(names):
            member = labels == name
            if own:
                member = member & (np.arange(count) != i)
            result[i, g] = _DEPTHS[metric](row, all_rows[member], weight[member], **options)
    return result[:, 0] if groups is None else result
