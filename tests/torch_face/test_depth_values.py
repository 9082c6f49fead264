# SPDX-License-Identifier: Apache-2.0
"""`torch.depth_score` forwards: the values and the errors of `depth.score`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from oracle import depths as oracle

torch = pytest.importorskip("torch")

from embedcore.torch import depth_score  # noqa: E402

METRICS = ("cosine", "chord", "arc", "l2", "spatial", "mahalanobis")
CASES = ("corpus", "self", "weighted corpus", "weighted self")
# depth.score multiplies pairs in float32.
NATIVE_ERROR = 1e-6


def case_of(name: str, dtype: Any) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(21, 5, generator=generator) + 0.4).to(dtype)
    corpus = (torch.randn(37, 5, generator=generator) - 0.2).to(dtype)
    weights = torch.rand(37, generator=generator, dtype=torch.float64)
    weights[3] = 0
    own = name.endswith("self")
    if not name.startswith("weighted"):
        return x, None if own else corpus, None
    return x, None if own else corpus, weights[: 21 if own else 37]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("metric", METRICS)
def test_has_the_bits_of_depth_score(metric: str, dtype: Any, case: str) -> None:
    x, corpus, weights = case_of(case, dtype)
    for of_x in (x, x.clone().requires_grad_()):
        got = depth_score(of_x, corpus, metric=metric, weights=weights)
        assert got.dtype == torch.float32 and got.requires_grad == of_x.requires_grad
        assert torch.equal(got.detach(), depth.score(x, corpus, metric=metric, weights=weights))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metric", METRICS)
def test_float64_agrees_with_the_oracle(
    metric: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, corpus, weights = case_of(case, torch.float64)
    x[4] = x[9]  # pairs at distance 0 and near it, and opposite ones
    x[10] = -3 * x[2]
    x[5] = x[6] + 1e-9
    if corpus is not None:
        corpus[7], corpus[8], corpus[9] = x[2], x[3] * (1 + 1e-11), -x[1]
    options = {} if metric != "mahalanobis" else {"ddof": 1 if weights is None else 0}
    w = None if weights is None else weights.numpy()
    expected = oracle.score(
        x.numpy(), None if corpus is None else corpus.numpy(), metric=metric, weights=w, **options
    )
    native = depth.score(x, corpus, metric=metric, weights=weights).numpy()
    for rows in (1024, 8):
        monkeypatch.setattr("embedcore.torch._depth_pairs.BLOCK_ROWS", rows)
        got = depth_score(x, corpus, metric=metric, weights=weights)
        assert got.dtype == torch.float64
        # Unit rows are off by 1e-16, so distances of 0 by that; arc of opposite rows as well.
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=3e-15)
        np.testing.assert_allclose(got.numpy(), native, rtol=0, atol=NATIVE_ERROR)


@pytest.mark.parametrize("metric", METRICS)
def test_dtypes_may_differ(metric: str) -> None:
    x, corpus, _ = case_of("corpus", torch.float32)
    expected = depth_score(x.double(), corpus.double(), metric=metric)
    for of_x, of_corpus in ((x.double(), corpus), (x, corpus.double()), (x, corpus.half())):
        got = depth_score(of_x, of_corpus, metric=metric)
        assert got.dtype == of_x.dtype
        # Half precision: at most 2^-11 of a row.
        bound = 1e-6 if of_corpus.dtype != torch.float16 else 2e-3
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("shrinkage", ["auto", 0.25, 1, np.float32(0.5)])
def test_shrinkage_and_threads_are_passed_on(shrinkage: Any) -> None:
    x, corpus, _ = case_of("corpus", torch.float32)
    for rows in (corpus, corpus[:4]):
        got = depth_score(x, rows, metric="mahalanobis", shrinkage=shrinkage)
        expected = depth.score(x, rows, metric="mahalanobis", shrinkage=shrinkage)
        assert torch.equal(got, expected)
    assert torch.equal(depth_score(x, corpus, threads=2), depth.score(x, corpus, threads=1))


def refused(kind: type[Exception], text: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(kind, match=re.escape(text)) as caught:
        depth_score(*arguments, **options)
    assert str(caught.value).startswith("torch.depth_score: ")


def test_kinds_and_devices() -> None:
    x, corpus, _ = case_of("corpus", torch.float32)
    tensor = "must be a Torch tensor; got"
    refused(TypeError, f"'x' {tensor} ndarray. For other arrays use", x.numpy())
    refused(TypeError, f"'x' {tensor} NoneType.", None)
    refused(TypeError, f"'corpus' {tensor} list.", x, corpus.tolist())
    refused(TypeError, f"'weights' {tensor} ndarray.", x, corpus, weights=np.ones(37))
    refused(TypeError, "'metric' must be a string, one of 'cosine'", x, metric=3)
    refused(ValueError, "'metric' must be one of 'cosine', 'chord'", x, metric="halfspace")
    refused(ValueError, "got 'cosin'; did you mean 'cosine'?", x, metric="cosin")
    refused(ValueError, "'threads' must be from 1 to 1024; got 0.", x, threads=0)
    refused(
        ValueError, "'shrinkage' must lie in [0, 1]; got 2.", x, metric="mahalanobis", shrinkage=2
    )
    refused(TypeError, "'shrinkage' must be 'auto' or a", x, metric="mahalanobis", shrinkage="much")
    assert depth_score(x.to("meta"), corpus.to("meta")).shape == (21,)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on another device."""

    @property
    def device(self) -> Any:
        return torch.device("cuda", 0)


def test_other_devices() -> None:
    x, corpus, _ = case_of("corpus", torch.float32)
    away = corpus.as_subclass(Elsewhere)
    text = "'corpus' must be on the device of 'x' (cpu); got device cuda:0."
    refused(TypeError, text, x, away)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_values_and_shapes_as_depth_score(metric: str, dtype: Any) -> None:
    x, corpus, _ = case_of("corpus", dtype)
    bad = corpus.clone()
    bad[6, 1] = float("nan")
    refused(ValueError, "'corpus' must be finite; row 6 holds a NaN", x, bad, metric=metric)
    refused(ValueError, "'x' must be finite; row 6 holds a NaN", bad, metric=metric)
    refused(ValueError, "'corpus' must have the same number of", x, corpus[:, :4], metric=metric)
    refused(ValueError, "'x' must have at least one row", x[:0], corpus, metric=metric)
    refused(ValueError, "'x' must be a 2-D array", x[0], corpus, metric=metric)
    refused(TypeError, "'x' must be float16, bfloat16, float32 or", x.int(), corpus, metric=metric)
    for weights, text in (
        (-torch.ones(37), "'weights' must be finite and not negative; weight 0 is -1."),
        (torch.ones(36), "'weights' must have one number for each row (37); got shape (36,)."),
    ):
        refused(ValueError, text, x, corpus, metric=metric, weights=weights)
    halves = torch.ones(37).half()
    refused(TypeError, "'weights' must be float32 or", x, corpus, metric=metric, weights=halves)
    zero = corpus.clone()
    zero[5] = 0
    if metric in ("cosine", "chord", "arc"):
        refused(ValueError, "'corpus' must not hold zero rows (they", x, zero, metric=metric)
        refused(ValueError, "'x' must not hold zero rows (they", zero, metric=metric)
    else:
        assert depth_score(x, zero, metric=metric).isfinite().all()
    lone = torch.zeros(21)
    lone[2] = 1
    with pytest.raises(ValueError, match=r"torch\.depth_score: 'x' must have (another|at least)"):
        depth_score(x, metric=metric, weights=lone)
    with pytest.raises(ValueError, match=r"torch\.depth_score: 'corpus' must have a(t least| row)"):
        depth_score(x, corpus, metric=metric, weights=torch.zeros(37))
