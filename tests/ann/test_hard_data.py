# SPDX-License-Identifier: Apache-2.0
"""Recall where codes tell rows apart badly, and where rows or queries lie elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore.ann import Index
from numpy.typing import NDArray

Rows = NDArray[np.float32]
FOUND = 0.93
# Recall is that of all queries; of those near one part of the rows it may be lower.
FOUND_NEAR_A_PART = 0.88


def recall(index: Any, queries: Rows, k: int = 10, **options: Any) -> float:
    found, right = index.search(queries, k, **options).ids, index.search(queries, k, exact=True).ids
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(found, right, strict=True)]))


def holds(index: Any, queries: Rows, least: float = FOUND) -> None:
    assert recall(index, queries) >= least
    assert recall(index, queries, recall=0.999) >= 0.97
    assert recall(index, queries, k=1) >= least - 0.03  # 200 queries, one neighbour each


def clustered(
    rng: np.random.Generator, centres: int, dim: int, noise: float
) -> Callable[[int], Rows]:
    middle = rng.standard_normal((centres, dim))
    return lambda count: (
        middle[rng.integers(0, centres, count)] + noise * rng.standard_normal((count, dim))
    ).astype(np.float32)


def made(metric: str, rows: Rows) -> Any:
    index = Index(rows.shape[1], metric=metric)
    index.add(rows)
    return index


@pytest.mark.parametrize("noise", [0.1, 0.03, 0.01])
def test_tight_clusters(metric: str, noise: float) -> None:
    draw = clustered(np.random.default_rng(1), 10, 64, noise)
    index = made(metric, draw(4000))
    holds(index, draw(200))


@pytest.mark.parametrize("seed", range(2, 6))
def test_few_results_that_many_queries_share(seed: int) -> None:
    draw = clustered(np.random.default_rng(seed), 10, 64, 0.01)
    index, queries = made("ip", draw(4000)), draw(200)
    for k in (1, 2, 3, 5):
        assert recall(index, queries, k=k) >= 0.95


def test_near_copies_among_other_rows() -> None:
    rng = np.random.default_rng(2)
    copies = clustered(rng, 5, 96, 0.02)
    rows = np.concatenate([rng.standard_normal((5000, 96)).astype(np.float32), copies(600)])
    holds(made("cosine", rows), copies(200), FOUND_NEAR_A_PART)


@pytest.mark.parametrize("case", ["plane", "line", "one long column"])
def test_few_dimensions_that_matter(metric: str, case: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((4200, 2 if case == "plane" else 32))
    if case == "line":
        rows = rows[:, :1] * rng.standard_normal(32) + 1e-3 * rows
    elif case == "one long column":
        rows[:, 0] *= 1000
    rows = rows.astype(np.float32)
    holds(made(metric, rows[:4000]), rows[4000:])


@pytest.mark.parametrize("dim", [128, 600])
def test_rows_that_come_later_and_lie_elsewhere(metric: str, dim: int) -> None:
    rng = np.random.default_rng(4)
    fading = np.exp(-np.arange(dim) / 30)
    axes = [np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(2)]
    first, later = (
        ((rng.standard_normal((count, dim)) * fading) @ turned).astype(np.float32)
        for count, turned in zip((2100, 1700), axes, strict=True)
    )
    index = made(metric, first)
    index.add(later[:1500])
    holds(index, later[1500:], FOUND_NEAR_A_PART)


@pytest.mark.parametrize("kind", ["elsewhere", "opposite", "far"])
def test_queries_unlike_the_rows(metric: str, kind: str) -> None:
    rng = np.random.default_rng(5)
    draw = clustered(rng, 20, 64, 0.7)
    rows = draw(4000)
    queries = {
        "elsewhere": rng.standard_normal((200, 64)).astype(np.float32),
        "opposite": -rows[:200],
        "far": 100 * draw(200),
    }[kind]
    holds(made(metric, rows), queries)
