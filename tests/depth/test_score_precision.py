# SPDX-License-Identifier: Apache-2.0
"""Reduced precision: the promised errors on real embeddings, and sense elsewhere."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import datasets, depth
from oracle import depths as oracle

Array = np.ndarray[Any, Any]

SAMPLE = Path(__file__).parents[2] / "examples" / "data" / "glosses.npz"
# bfloat16 and int8: what the docstring promises. float32: the error of a cosine, 2e-7, with the
# slope 1 / chord of a typical pair (chord > 1), and rounding.
LIMITS = {"float32": 5e-7, "bfloat16": 1e-5, "int8": 5e-5}
REDUCED = ("bfloat16", "int8")
QUERIES = 1000


@cache
def glosses() -> Array:
    path = SAMPLE if SAMPLE.exists() else None  # the installed package has a part of them
    return datasets.load_glosses(path).vectors


@cache
def with_near_duplicates() -> Array:
    """5 % of the rows become copies of others, moved by 1e-3 to 1e-1."""
    rng = np.random.default_rng(8)
    rows = glosses().copy()
    count, columns = len(rows) // 20, rows.shape[1]
    noise = rng.standard_normal((count, columns)) / math.sqrt(columns)
    noise *= 10 ** rng.uniform(-3, -1, (count, 1))
    moved = rng.choice(len(rows), count, replace=False)
    rows[moved] = rows[rng.integers(0, len(rows), count)] + noise
    return rows


CORPORA = {"glosses": glosses, "near duplicates": with_near_duplicates}


def unit(rows: Array) -> Array:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def mean_distances(metric: str, x: Array, corpus: Array | None) -> Array:
    """Mean distance of each row to the corpus, in float64; near pairs from their difference."""
    a = unit(x)
    b = a if corpus is None else unit(corpus)
    squared = 2 - 2 * (a @ b.T)
    for i, j in np.argwhere(squared < 0.01):
        squared[i, j] = ((a[i] - b[j]) ** 2).sum()
    chords = np.sqrt(squared)
    values = chords if metric == "chord" else 2 * np.arcsin(np.minimum(chords / 2, 1))
    return values.sum(axis=1) / (len(b) - (corpus is None))


@cache
def exact(metric: str, name: str, own: bool) -> Array:
    rows = CORPORA[name]()
    top = 2.0 if metric == "chord" else math.pi
    if own:
        return top - mean_distances(metric, rows, None)
    return top - mean_distances(metric, rows[:QUERIES], rows[QUERIES:])


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_errors_on_real_embeddings(
    isa: str, metric: str, name: str, own: bool, precision: str
) -> None:
    rows = CORPORA[name]().astype(np.float64)
    among = (rows,) if own else (rows[:QUERIES], rows[QUERIES:])
    got = depth.score(*among, metric=metric, precision=precision)
    assert np.abs(got - exact(metric, name, own)).max() <= LIMITS[precision]


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_groups_and_weights(isa: str, metric: str, precision: str) -> None:
    rows = with_near_duplicates()[::5]
    labels = np.arange(len(rows)) % 4
    weights = np.random.default_rng(1).uniform(0.5, 1.5, len(rows))
    for corpus in (None, rows[::-1]):
        options = {"metric": metric, "groups": labels, "weights": weights}
        wide = rows.astype(np.float64)
        full = depth.score(wide, corpus, **options)
        got = depth.score(wide, corpus, precision=precision, **options)
        # A quarter of the rows, whose rounding errors average out less: twice the error.
        np.testing.assert_allclose(got, full, rtol=0, atol=2 * LIMITS[precision])


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_a_corpus_of_near_rows_is_taken_in_float32(metric: str, precision: str) -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal(64) + 0.01 * rng.standard_normal((200, 64))
    plain = depth.score(rows, metric=metric)
    assert depth.score(rows, metric=metric, precision=precision).tobytes() == plain.tobytes()


@pytest.mark.parametrize("precision", REDUCED)
def test_cosine_needs_no_precision(precision: str) -> None:
    rows = glosses()[:300]
    plain = depth.score(rows, metric="cosine")
    assert depth.score(rows, metric="cosine", precision=precision).tobytes() == plain.tobytes()


EXPECTED: dict[tuple[Any, ...], Array] = {}


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_widths_that_fill_no_group(isa: str, metric: str, own: bool) -> None:
    # At d = 16 the rounding of bfloat16 (2^-9 of an element) and int8 (half 1/127 of the largest)
    # moves a cosine by 3e-4 and 1.5e-3 (root mean square). The correction takes off what the mean
    # slope makes of that; the slopes' spread, 0.15, stays, over the root of 80 pairs: 5e-6 and
    # 2.5e-5. The limits are 8 and 5 times as much, for the largest of 160 rows.
    limits = {"bfloat16": 4e-5, "int8": 1.2e-4}
    for columns in (12, 15, 16, 17, 31, 32, 33, 65, 127):
        rows = np.random.default_rng(columns).standard_normal((120, columns))
        among = (rows, None) if own else (rows[:40], rows[40:])
        key = (metric, own, columns)
        if key not in EXPECTED:
            EXPECTED[key] = oracle.score(*among, metric=metric)
        full = depth.score(*among, metric=metric)
        for precision in REDUCED:
            got = depth.score(*among, metric=metric, precision=precision)
            assert got.tobytes() != full.tobytes()  # it was taken
            np.testing.assert_allclose(got, EXPECTED[key], rtol=0, atol=limits[precision])


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("metric", ["chord", "arc"])
def test_duplicates_are_exact(isa: str, metric: str, precision: str) -> None:
    rows = np.random.default_rng(4).standard_normal((1, 50))
    same = np.repeat(rows, 40, axis=0)
    top = 2.0 if metric == "chord" else math.pi
    assert (depth.score(same, metric=metric, precision=precision) == top).all()
    assert (depth.score(same, same, metric=metric, precision=precision) == top).all()
