# SPDX-License-Identifier: Apache-2.0
"""`depth.Corpus`: parts against the whole, leaving out, options and errors."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import embedcore
import numpy as np
import pytest
from embedcore import depth
from embedcore.depth import _corpus_rows
from embedcore.depth._score import _random_directions
from oracle.depths import DIRECTIONAL, METRICS
from oracle.depths import score as oracle_score
from support.kinds import to_torch

CUTS = [0, 40, 41, 150, 200]
DIRECTIONS, SEED = 25, 3
# A block of rows has an origin and float32 sums of its own; in one call there is one block.
MAPPED = 1e-5

Rows = np.ndarray[Any, Any]


def made(metric: str, **options: Any) -> depth.Corpus:
    if metric in DIRECTIONAL:
        options |= {"n_directions": DIRECTIONS, "seed": SEED}
    return depth.Corpus(metric, **options)


def mapped(rows: Rows, folder: Path) -> Rows:
    """The same rows in a file."""
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")  # type: ignore[no-any-return]


def data(rows: int = 200, columns: int = 9) -> tuple[Rows, Rows, Rows]:
    rng = np.random.default_rng(1)
    corpus = (rng.standard_normal((rows, columns)) + 0.4).astype(np.float32)
    corpus[7] = corpus[3]
    x = (rng.standard_normal((30, columns)) + 0.4).astype(np.float32)
    x[5] = corpus[3]
    weights = rng.random(rows).astype(np.float32)
    weights[11] = 0.0
    return x, corpus, weights


def score_options(metric: str) -> dict[str, Any]:
    """For `depth.score`: what `made` gives the corpus."""
    directional = {"n_directions": DIRECTIONS, "seed": SEED} if metric in DIRECTIONAL else {}
    return {"metric": metric, **directional}


def expected(x: Rows | None, corpus: Rows, metric: str, weights: Rows | None) -> Rows:
    options: dict[str, Any] = {}
    if metric in DIRECTIONAL:
        options["u"] = _random_directions(corpus, DIRECTIONS, SEED)
    if weights is not None:
        options["ddof"] = 0
    if x is None:
        return oracle_score(corpus, metric=metric, weights=weights, **options)
    return oracle_score(x, corpus, metric=metric, weights=weights, **options)


def parts(metric: str, corpus: Rows, weights: Rows | None) -> list[depth.Corpus]:
    return [
        made(metric).fit(corpus[a:b], weights=None if weights is None else weights[a:b])
        for a, b in pairwise(CUTS)
    ]


def cases() -> list[Any]:
    both = [(metric, weighted) for metric in METRICS for weighted in (False, True)]
    return [case for case in both if case != ("projection", True)]


@pytest.mark.parametrize(("metric", "weighted"), cases())
def test_a_corpus_in_parts_is_the_corpus(metric: str, weighted: bool) -> None:
    x, corpus, all_weights = data()
    weights = all_weights if weighted else None
    want = expected(x, corpus, metric, weights)
    whole = made(metric).fit(corpus, weights=weights)
    updated = made(metric)
    for a, b in pairwise(CUTS):
        updated.update(corpus[a:b], weights=None if weights is None else weights[a:b])
    first, *others = pickle.loads(pickle.dumps(parts(metric, corpus, weights)))
    for other in others:
        first.merge(other)
    for built in (whole, updated, first):
        assert len(built) == 200
        np.testing.assert_allclose(built.score(x), want, atol=2e-6)
    assert np.abs(updated.score(x) - whole.score(x)).max() <= 1e-6
    assert np.abs(first.score(x) - whole.score(x)).max() <= 1e-6


@pytest.mark.parametrize(("metric", "weighted"), [c for c in cases() if c[0] != "projection"])
def test_rows_of_the_corpus_are_left_out(metric: str, weighted: bool) -> None:
    _, corpus, all_weights = data()
    weights = all_weights if weighted else None
    built = made(metric).fit(corpus[:90], weights=None if weights is None else weights[:90])
    built.update(corpus[90:], weights=None if weights is None else weights[90:])
    got = built.score(corpus, left_out=True, weights=weights)
    if metric == "ai_irw":  # whitened by the whole corpus, as in depth.score
        options = {"n_directions": DIRECTIONS, "seed": SEED, "weights": weights}
        np.testing.assert_allclose(got, depth.score(corpus, metric=metric, **options), atol=3e-6)
        return
    np.testing.assert_allclose(got, expected(None, corpus, metric, weights), atol=3e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_score_and_corpus_agree_with_more_columns_than_rows(metric: str) -> None:
    rng = np.random.default_rng(5)
    corpus, x = rng.standard_normal((30, 40)), rng.standard_normal((6, 40))
    options = {"n_directions": DIRECTIONS, "seed": SEED}
    built = made(metric).fit(corpus[:11]).update(corpus[11:])
    np.testing.assert_allclose(
        built.score(x), depth.score(x, corpus, metric=metric, **options), atol=1e-6
    )


@pytest.mark.parametrize("used", [5, 9, 10, 40])
@pytest.mark.parametrize("metric", ["mahalanobis", "ai_irw"])
def test_rows_without_weight_change_nothing(metric: str, used: int) -> None:
    # Shrinkage depends on the number of rows: here below, at and above that of the columns.
    x, corpus, _ = data(50, 8)
    weights = (np.arange(50) < used).astype(np.float64)
    options = {"n_directions": DIRECTIONS, "seed": SEED}
    wanted = depth.score(x, corpus[:used], metric=metric, weights=weights[:used], **options)
    got = depth.score(x, corpus, metric=metric, weights=weights, **options)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    built = made(metric).fit(corpus[::2], weights=weights[::2])
    built.update(corpus[1::2], weights=weights[1::2])
    assert len(built) == 50
    np.testing.assert_allclose(built.score(x), wanted, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-320, 1e-60, 1e60, 1e308])
def test_the_unit_of_weights_is_no_part_of_mahalanobis_depth(unit: float) -> None:
    x, corpus, _ = data()
    wanted = depth.score(x, corpus, metric="mahalanobis", weights=np.ones(200))
    got = depth.score(x, corpus, metric="mahalanobis", weights=np.full(200, unit))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("unit", [2.0**-400, 2.0**-60, 2.0**90, 2.0**400])
@pytest.mark.parametrize("metric", ["cosine", "mahalanobis", "arc", "irw"])
def test_the_unit_of_weights_is_no_part_of_a_corpus(metric: str, unit: float) -> None:
    x, corpus, weights = data()
    weights = weights.astype(np.float64)
    if metric in ("arc", "irw") and abs(np.log2(unit)) > 100:
        with pytest.raises(ValueError, match="'weights' must have a largest value between"):
            made(metric).fit(corpus, weights=weights * unit)
        return
    plain, scaled = (made(metric).fit(corpus, weights=weights * u) for u in (1.0, unit))
    np.testing.assert_allclose(scaled.score(x), plain.score(x), rtol=1e-6)
    wanted = plain.score(corpus, left_out=True, weights=weights)
    got = scaled.score(corpus, left_out=True, weights=weights * unit)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("unit", [2.0**-660, 2.0**660])
@pytest.mark.parametrize("metric", ["l2", "spatial", "halfspace", "projection", "irw"])
def test_rows_of_any_size(metric: str, unit: float, tmp_path: Path) -> None:
    x, corpus = (rows.astype(np.float64) * unit for rows in data()[:2])
    wanted = depth.score(x, corpus, **score_options(metric))
    for rows in (corpus, mapped(corpus, tmp_path)):
        got = made(metric).fit(rows).score(x)
        np.testing.assert_allclose(got, wanted, rtol=MAPPED, atol=1e-6)


@pytest.mark.parametrize("metric", ["halfspace", "projection", "irw"])
def test_a_row_far_beyond_float32_is_the_outermost(metric: str) -> None:
    x, corpus, _ = data()
    far = corpus.astype(np.float64)
    far[150] = 1e200
    wanted = depth.score(x.astype(np.float64), far, **score_options(metric))
    np.testing.assert_allclose(made(metric).fit(far).score(x), wanted, atol=1e-5)
    assert made(metric).fit(corpus).score(far[150:151])[0] < 1e-6


def test_shrinkage_is_that_of_the_rows_far_from_the_origin() -> None:
    corpus = np.random.default_rng(2).standard_normal((40, 60)) * np.arange(1, 61) + 1e3
    built = depth.Corpus("mahalanobis").fit(corpus[:3]).update(corpus[3:20])
    built.merge(depth.Corpus("mahalanobis").fit(corpus[20:]))
    want = depth.score(corpus, corpus, metric="mahalanobis")
    np.testing.assert_allclose(built.score(corpus), want, rtol=1e-9)
    fixed = depth.Corpus("mahalanobis", shrinkage=0.5).fit(corpus)
    want = depth.score(corpus, corpus, metric="mahalanobis", shrinkage=0.5)
    np.testing.assert_allclose(fixed.score(corpus), want, rtol=1e-9)


@pytest.mark.parametrize("metric", ["chord", "arc", "l2", "spatial", "irw"])
def test_blocks_of_any_size_give_one_result(
    metric: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    corpus = (rng.standard_normal((5000, 7)) + 0.3).astype(np.float32)
    weights = (np.arange(5000) % 3).astype(np.float32)
    weights[1024:2048] = 0.0  # a block without weight
    want = depth.score(
        corpus[:2500], corpus, metric=metric, weights=weights, n_directions=DIRECTIONS, seed=SEED
    )
    built = made(metric).fit(mapped(corpus, tmp_path), weights=weights)
    first = built.score(corpus[:2500])
    # A few ranks of 5000 along 25 directions, where projections are as good as equal.
    np.testing.assert_allclose(first, want, atol=1e-4 if metric == "irw" else MAPPED)
    monkeypatch.setattr(_corpus_rows, "BLOCK_BYTES", 1 << 14)
    # Each block has its own origin in float32, and rows of 7 columns lie close to one another.
    bound = 5e-6 if metric == "spatial" else 1e-6
    assert np.abs(built.score(corpus[:2500]) - first).max() <= bound


@pytest.mark.parametrize("metric", ["cosine", "chord", "arc", "l2", "halfspace"])
def test_threads_do_not_change_the_result(metric: str) -> None:
    x, corpus, _ = data()
    built = made(metric).fit(corpus[:150]).update(corpus[150:])
    want = built.score(x, threads=1)
    for threads in (2, 7):
        embedcore.set_num_threads(threads)
        again = made(metric).fit(corpus[:150]).update(corpus[150:])
        assert np.array_equal(again.score(x), want)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_reduced_precision_stays_within_its_bound(precision: str) -> None:
    x, corpus, _ = data(columns=64)
    exact = depth.Corpus("arc").fit(corpus).score(x)
    got = depth.Corpus("arc", precision=precision).fit(corpus[:60]).update(corpus[60:]).score(x)
    assert np.abs(got - exact).max() < 5e-4


def test_spatial_sums_of_rows_that_nearly_meet(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    corpus = rng.standard_normal((60, 8)) + 1e3
    corpus[30:] = corpus[:30] + 1e-7 * rng.standard_normal((30, 8))
    rows = mapped(corpus, tmp_path)
    built = depth.Corpus("spatial").fit(rows[:20]).update(rows[20:])
    want = expected(corpus, corpus, "spatial", None)
    np.testing.assert_allclose(built.score(corpus), want, atol=1e-6)


@pytest.mark.parametrize("metric", ["halfspace", "irw"])
def test_equal_rows_tie_wherever_they_are(metric: str) -> None:
    row = np.random.default_rng(0).standard_normal(12) + 50
    built = made(metric).fit(np.tile(row, (3, 1))).update(np.tile(row, (30, 1)))
    assert (built.score(np.tile(row, (9, 1))) == 1.0).all()


def test_dtypes_kinds_and_outputs() -> None:
    x, corpus, _ = data()
    built = depth.Corpus("arc").fit(to_torch(corpus[:90])).update(corpus[90:].astype(np.float16))
    got = built.score(to_torch(x))
    assert type(got).__name__ == "Tensor"
    np.testing.assert_allclose(got.numpy(), depth.score(x, corpus, metric="arc"), atol=1e-3)
    assert built.score(x.astype(np.float64)).dtype == np.float64
    out = np.zeros(len(x), np.float32)
    assert built.score(x, out=out) is out
    assert np.array_equal(out, built.score(x))


def test_fit_starts_anew_and_update_starts_too() -> None:
    x, corpus, _ = data()
    built = depth.Corpus().fit(corpus).fit(corpus[:50])
    assert len(built) == 50
    assert np.array_equal(built.score(x), depth.Corpus().update(corpus[:50]).score(x))
    assert np.array_equal(depth.Corpus().merge(built).score(x), built.score(x))
    assert len(built.merge(depth.Corpus())) == 50
    assert len(built.merge(built)) == 100


def test_repr_says_what_it_is() -> None:
    assert repr(depth.Corpus("l2")) == "Corpus(metric='l2', not fitted)"
    built = depth.Corpus("l2").fit(data()[1])
    assert repr(built) == "Corpus(metric='l2', rows=200, columns=9)"
    assert len(depth.Corpus()) == 0 and built.metric == "l2"


def test_progress_ends_at_one() -> None:
    x, corpus, _ = data()
    for metric in ("arc", "irw"):
        said: list[float] = []
        made(metric).fit(corpus[:150]).update(corpus[150:]).score(x, progress=said.append)
        assert said == sorted(said) and said[-1] == 1.0


def test_a_failed_update_leaves_the_corpus_as_it_was() -> None:
    x, corpus, _ = data()
    built = depth.Corpus("mahalanobis").fit(corpus)
    want = built.score(x)
    bad = corpus.copy()
    bad[4, 2] = np.nan
    for call in (built.fit, built.update):
        with pytest.raises(ValueError, match=r"'x' must be finite.*row 4"):
            call(bad)
    assert np.array_equal(built.score(x), want)
