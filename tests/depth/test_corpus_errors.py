# SPDX-License-Identifier: Apache-2.0
"""What `depth.Corpus` says about bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth import _corpus_rows

ROWS = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32) + 1
FITTED = r"depth.Corpus.{}: the corpus must be fitted first"


def with_row(row: int, value: float, rows: int = 20) -> Any:
    changed = np.ones((rows, 4), np.float32)
    changed[row] = value
    return changed


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"metric": "cosin"},
            ValueError,
            r"depth.Corpus: 'metric' must be one of.*mean 'cosine'\?",
        ),
        ({"metric": 3}, TypeError, r"'metric' must be a string"),
        ({"precision": "int4"}, ValueError, r"'precision' must be one of"),
        ({"metric": "l2", "precision": "int8"}, ValueError, r"'precision' must be 'float32' for"),
        ({"shrinkage": "some"}, TypeError, r"'shrinkage' must be 'auto' or a number in \[0, 1\]"),
        ({"shrinkage": 1.5}, ValueError, r"'shrinkage' must lie in \[0, 1\]; got 1.5"),
        ({"n_directions": 0}, ValueError, r"'n_directions' must be from 1"),
        ({"seed": -1}, ValueError, r"'seed' must be at least 0"),
        ({"seed": 1.0}, TypeError, r"'seed' must be an integer"),
    ],
)
def test_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        depth.Corpus(**options)


def test_not_fitted(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=FITTED.format("score")):
        depth.Corpus().score(ROWS)
    with pytest.raises(ValueError, match=FITTED.format("save")):
        depth.Corpus().save(tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        ([[1.0, 2.0]], TypeError, r"'x' must be an array.*got list"),
        (np.ones((3, 4), np.int64), TypeError, r"'x' must be float16.*got int64"),
        (np.ones((3, 4), bool), TypeError, r"'x' must be float16"),
        (np.ones((3, 4), np.complex64), TypeError, r"'x' must be"),
        (np.ones((3, 4), object), TypeError, r"'x' must have a numeric dtype; got object"),
        (np.ones(4), ValueError, r"'x' must be a 2-D array of shape \(rows, columns\)"),
        (np.ones((0, 4)), ValueError, r"'x' must have at least one row"),
        (
            np.ones((3, 5)),
            ValueError,
            r"'x' must have the same number of columns as the corpus \(4\)",
        ),
        (with_row(7, np.nan), ValueError, r"'x' must be finite.*row 7"),
        (with_row(7, np.inf), ValueError, r"'x' must be finite.*row 7"),
    ],
)
@pytest.mark.parametrize("method", ["update", "score"])
@pytest.mark.parametrize("metric", ["cosine", "arc", "l2", "mahalanobis", "irw"])
def test_rows(metric: str, method: str, x: Any, error: type[Exception], words: str) -> None:
    built = depth.Corpus(metric, n_directions=4).fit(ROWS)
    with pytest.raises(error, match=rf"depth.Corpus.{method}: {words}"):
        getattr(built, method)(x)
    assert len(built) == 20


@pytest.mark.parametrize("metric", ["cosine", "chord", "arc"])
def test_zero_rows_have_no_direction(metric: str) -> None:
    for method in ("fit", "update"):
        with pytest.raises(ValueError, match=rf"depth.Corpus.{method}: 'x' .*zero.*row 3"):
            getattr(depth.Corpus(metric), method)(with_row(3, 0.0))
    with pytest.raises(ValueError, match=r"depth.Corpus.score: 'x' .*zero.*row 3"):
        depth.Corpus(metric).fit(ROWS).score(with_row(3, 0.0))


def test_a_bad_row_is_named_by_its_place_in_all_of_x(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_corpus_rows, "BLOCK_BYTES", 1 << 12)
    for metric in ("arc", "l2"):
        with pytest.raises(ValueError, match=r"'x' must be finite.*row 2500"):
            depth.Corpus(metric).fit(ROWS).score(with_row(2500, np.nan, rows=3000))


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (np.ones(19), ValueError, r"'weights' must have one number for each row"),
        (-np.ones(20), ValueError, r"'weights' must be finite and not negative; weight 0"),
        (np.zeros(20), ValueError, r"'(weights|x)' must have .*positive"),
        (np.full(20, np.nan), ValueError, r"'weights' must be finite"),
        (np.ones(20, int), TypeError, r"'weights' must be float"),
    ],
)
@pytest.mark.parametrize("metric", ["cosine", "arc", "mahalanobis"])
def test_weights(metric: str, weights: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"depth.Corpus.fit: {words}"):
        depth.Corpus(metric).fit(ROWS, weights=weights)


def test_weights_where_none_belong() -> None:
    with pytest.raises(ValueError, match="'weights' must be None for metric 'projection'"):
        depth.Corpus("projection").fit(ROWS, weights=np.ones(20))
    with pytest.raises(ValueError, match="'weights' must be None unless left_out=True"):
        depth.Corpus().fit(ROWS).score(ROWS, weights=np.ones(20))


def test_leaving_out() -> None:
    with pytest.raises(ValueError, match="'left_out' must be False for metric 'projection'"):
        depth.Corpus("projection").fit(ROWS).score(ROWS, left_out=True)
    weighted = depth.Corpus("arc").fit(ROWS, weights=np.ones(20))
    with pytest.raises(ValueError, match="'weights' must hold the weights of the rows of 'x'"):
        weighted.score(ROWS, left_out=True)
    for metric in ("cosine", "arc", "l2", "spatial"):
        one = depth.Corpus(metric).fit(ROWS[:1])
        with pytest.raises(ValueError, match=r"must have weight beside each row of 'x'.*row 0"):
            one.score(ROWS[:1], left_out=True)


def test_weights_that_no_sum_holds() -> None:
    with pytest.raises(ValueError, match="'weights' must have a positive sum in float64; got inf"):
        depth.Corpus("mahalanobis").fit(ROWS, weights=np.full(20, 1e308))


def test_moments_that_overflow() -> None:
    corpus = depth.Corpus("mahalanobis").fit(ROWS.astype(np.float64) * 1e200)
    with pytest.raises(ValueError, match=r"fourth powers .* Divide all rows by one number"):
        corpus.score(ROWS)


def test_covariance_of_too_little() -> None:
    with pytest.raises(ValueError, match="must have at least 2 rows for a covariance; got 1"):
        depth.Corpus("mahalanobis").fit(ROWS[:1]).score(ROWS)
    with pytest.raises(ValueError, match="must have a covariance of full rank"):
        depth.Corpus("mahalanobis", shrinkage=0.0).fit(ROWS[:3]).score(ROWS)


def test_merging_what_does_not_fit() -> None:
    built = depth.Corpus().fit(ROWS)
    with pytest.raises(
        TypeError, match=r"depth.Corpus.merge: 'other' must be a Corpus; got ndarray"
    ):
        built.merge(ROWS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'other' must have the same metric and options"):
        built.merge(depth.Corpus("arc").fit(ROWS))
    with pytest.raises(ValueError, match=r"'other' must have the same number of columns .*\(4\)"):
        built.merge(depth.Corpus().fit(np.ones((3, 5))))


def test_out_is_checked_before_the_work() -> None:
    built = depth.Corpus("arc").fit(ROWS)
    with pytest.raises(TypeError, match=r"depth.Corpus.score: 'out' must be float32; got float64"):
        built.score(ROWS, out=np.zeros(20))
    with pytest.raises(ValueError, match=r"depth.Corpus.score: 'out' must have .*\(20,\)"):
        built.score(ROWS, out=np.zeros(19, np.float32))
    with pytest.raises(ValueError, match="'threads' must be from 1"):
        built.score(ROWS, threads=0)
