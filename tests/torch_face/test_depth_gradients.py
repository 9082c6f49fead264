# SPDX-License-Identifier: Apache-2.0
"""Gradients of `torch.depth_score`: finite differences, dense autograd, kinks and magnitudes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from embedcore.torch import depth_score  # noqa: E402

METRICS = ("cosine", "chord", "arc", "l2", "spatial", "mahalanobis")
SCALE_FREE = tuple(metric for metric in METRICS if metric != "l2")
DISTANCES = ("chord", "arc", "l2", "spatial")


def normal(rows: int, columns: int, seed: int, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)


def weights_of(rows: int) -> Any:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(rows, generator=generator, dtype=torch.float64) + 0.1


def gradients(
    of: Callable[..., Any], x: Any, corpus: Any, weights: Any, **options: Any
) -> list[Any]:
    """Return the gradients of a fixed mixture of the depths by all tensors that are there."""
    leaves = [
        None if t is None else t.detach().clone().requires_grad_() for t in (x, corpus, weights)
    ]
    depths = of(leaves[0], leaves[1], weights=leaves[2], **options)
    mixture = torch.linspace(-1.0, 2.0, len(x), dtype=torch.float64)
    wanted = [leaf for leaf in leaves if leaf is not None]
    return list(torch.autograd.grad((depths.double() * mixture).sum(), wanted))


def worst(got: list[Any], expected: list[Any]) -> float:
    """Return the largest error relative to the largest entry."""
    return max(
        float((a.double() - b.double()).abs().max() / b.double().abs().max())
        for a, b in zip(got, expected, strict=True)
    )


# Finite differences ------------------------------------------------------------------------------

WHAT = ("x", "corpus", "x corpus", "self", "x corpus weights", "self weights", "weights")


def check_gradients(what: str, x: Any, corpus: Any, **options: Any) -> None:
    own = "self" in what
    given = {"x": x, "corpus": None if own else corpus, "weights": None}
    if "weights" in what:
        given["weights"] = weights_of(len(x if own else corpus))
    names = [name for name in given if name in what.replace("self", "x").split()]

    def depths(*tensors: Any) -> Any:
        return depth_score(**{**given, **dict(zip(names, tensors, strict=True))}, **options)

    leaves = [given[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(depths, leaves)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("metric", METRICS)
def test_finite_differences(metric: str, what: str) -> None:
    check_gradients(what, normal(6, 3, 1) + 0.3, normal(9, 3, 2), metric=metric)


@pytest.mark.parametrize("shrinkage", ["auto", 0.3, 1.0])
@pytest.mark.parametrize("what", WHAT)
def test_finite_differences_of_shrunk_covariances(what: str, shrinkage: Any) -> None:
    # Fewer rows than columns: "auto" estimates an intensity, about 0.4 here.
    x, corpus = normal(5, 7, 3), normal(6, 7, 4)
    stretch = torch.arange(1.0, 8.0, dtype=torch.float64)
    check_gradients(what, x * stretch, corpus * stretch, metric="mahalanobis", shrinkage=shrinkage)


@pytest.mark.parametrize("metric", DISTANCES)
def test_finite_differences_of_close_pairs(metric: str) -> None:
    x = normal(5, 3, 1)
    corpus = torch.cat(
        [x[:2] * (1 + 1e-4 * normal(2, 3, 3)), -x[2:3] * (1 + 1e-4 * normal(1, 3, 4))]
    )
    corpus = torch.cat([corpus, normal(4, 3, 2)]).requires_grad_()
    x.requires_grad_()
    # Spatial depth turns within the distance of the pair, 1e-4: steps must be far below it.
    assert torch.autograd.gradcheck(
        lambda a, b: depth_score(a, b, metric=metric), (x, corpus), eps=1e-8, rtol=1e-3, atol=1e-4
    )


# Many blocks -------------------------------------------------------------------------------------


def dense(x: Any, corpus: Any, *, metric: str, weights: Any) -> Any:
    """Return the depths through an n x m matrix, for Torch to differentiate."""
    among = x if corpus is None else corpus
    w = (torch.ones(len(among)).double() if weights is None else weights).expand(len(x), -1)
    if corpus is None:
        w = w * (1.0 - torch.eye(len(x), dtype=torch.float64))
    share = w / w.sum(1, keepdim=True)
    if metric in ("cosine", "chord", "arc"):
        x, among = (t / torch.linalg.vector_norm(t, dim=1, keepdim=True) for t in (x, among))
    gaps = x[:, None] - among[None]
    if corpus is None:
        gaps = gaps + torch.eye(len(x), dtype=torch.float64)[:, :, None]  # has no weight
    distance = torch.linalg.vector_norm(gaps, dim=2)
    if metric == "spatial":
        mean = (share[:, :, None] * gaps / distance[:, :, None]).sum(1)
        return 1.0 - torch.linalg.vector_norm(mean, dim=1)
    if metric == "l2":
        return 1.0 / (1.0 + (share * distance).sum(1))
    if metric == "cosine":
        return 2.0 - (share * distance.square() / 2.0).sum(1)
    if metric == "chord":
        return 2.0 - (share * distance).sum(1)
    return math.pi - (share * 2.0 * (distance / 2.0).clamp(max=0.9999).asin()).sum(1)


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("metric", ["cosine", *DISTANCES])
def test_blocks_agree_with_dense_autograd(
    metric: str, own: bool, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, corpus = normal(41, 6, 1) + 0.5, None if own else normal(53, 6, 2) + 0.5
    weights = weights_of(41 if own else 53) if weighted else None
    if weights is not None:
        weights[4] = 0.0
    arguments = (x, corpus, weights)
    expected = gradients(dense, *arguments, metric=metric)
    for rows in (1024, 16, 41):
        monkeypatch.setattr("embedcore.torch._depth_pairs.BLOCK_ROWS", rows)
        monkeypatch.setattr("embedcore.torch._depth_pairs.CHUNK_ROWS", rows)
        got = gradients(depth_score, *arguments, metric=metric)
        assert worst(got, expected) < 1e-11
        narrow = [None if t is None else t.float() for t in arguments]
        # Sums of up to 53 float32 products of rows that are far from each other.
        assert worst(gradients(depth_score, *narrow, metric=metric), expected) < 5e-6


# Precision ---------------------------------------------------------------------------------------


def rows_with_close_pairs(dtype: Any) -> tuple[Any, Any]:
    x, corpus = normal(150, 24, 1) + 2.0, normal(230, 24, 2) + 2.0
    corpus[:20] = x[:20] * (1 + 1e-4 * normal(20, 24, 3))
    corpus[20:30] = x[20:30]
    corpus[40:50] = -x[40:50] * (1 + 1e-3 * normal(10, 24, 4))
    return x.to(dtype), corpus.to(dtype)


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("metric", METRICS)
def test_float32_is_right_at_close_pairs(metric: str, own: bool) -> None:
    x, corpus = rows_with_close_pairs(torch.float32)
    arguments = (corpus, None, None) if own else (x, corpus, None)
    got = gradients(depth_score, *arguments, metric=metric)
    wide = [None if t is None else t.double() for t in arguments]
    assert worst(got, gradients(depth_score, *wide, metric=metric)) < 5e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_rounds_the_float32_gradient(metric: str, dtype: Any) -> None:
    x, corpus = normal(40, 8, 1, dtype), normal(50, 8, 2, dtype)
    got = gradients(depth_score, x, corpus, weights_of(50).float(), metric=metric)
    wide = gradients(depth_score, x.float(), corpus.float(), weights_of(50).float(), metric=metric)
    assert [g.dtype for g in got] == [dtype, dtype, torch.float32]
    for a, b in zip(got, wide, strict=True):
        assert torch.equal(a, b.to(a.dtype))


@pytest.mark.parametrize("metric", METRICS)
def test_tensors_of_different_dtypes(metric: str) -> None:
    x, corpus = normal(20, 4, 1, torch.float32), normal(30, 4, 2, torch.float32)
    expected = gradients(depth_score, x.double(), corpus.double(), None, metric=metric)
    for arguments in ((x.double(), corpus, None), (x, corpus.double(), None)):
        got = gradients(depth_score, *arguments, metric=metric)
        assert [g.dtype for g in got] == [t.dtype for t in arguments[:2]]
        assert worst(got, expected) < 5e-6


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-200, 1e200])
@pytest.mark.parametrize("metric", SCALE_FREE)
def test_rows_of_any_magnitude(metric: str, scale: float) -> None:
    dtype = torch.float64 if abs(math.log10(scale)) > 37 else torch.float32
    x, corpus = normal(20, 3, 1, dtype), normal(30, 3, 2, dtype)
    expected = gradients(depth_score, x, corpus, None, metric=metric)
    got = gradients(depth_score, x * scale, corpus * scale, None, metric=metric)
    assert worst([g * scale for g in got], expected) < (1e-5 if dtype == torch.float32 else 1e-12)
    assert gradients(depth_score, x * scale, corpus * scale, None, metric="l2")[0].isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_layout_does_not_matter(metric: str) -> None:
    x, corpus = normal(20, 4, 1, torch.float32), normal(30, 4, 2, torch.float32)
    expected = gradients(depth_score, x, corpus, None, metric=metric)
    strided = torch.zeros(20, 12)[:, 1::3]
    strided.copy_(x)
    strided.requires_grad_()
    transposed = corpus.T.contiguous().T.requires_grad_()
    depths = depth_score(strided, transposed, metric=metric)
    mixture = torch.linspace(-1.0, 2.0, 20, dtype=torch.float64)
    got = torch.autograd.grad((depths.double() * mixture).sum(), (strided, transposed))
    assert worst(list(got), expected) < 1e-6
    (alone,) = torch.autograd.grad(
        (depth_score(x, transposed, metric=metric).double() * mixture).sum(), transposed
    )
    assert torch.equal(alone, got[1])


# Kinks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", DISTANCES)
def test_equal_rows_add_nothing(metric: str, dtype: Any) -> None:
    x, corpus = normal(6, 4, 1, dtype), normal(5, 4, 2, dtype)
    among = torch.cat([corpus, x[:1]])
    w = torch.ones(6, dtype=dtype)
    w[5] = 0.0  # its row then counts in no sum, and takes no part in the slope either
    leaf = x[:1].clone().requires_grad_()
    with_weight = depth_score(leaf, among, metric=metric)
    (got,) = torch.autograd.grad(with_weight.sum(), leaf)
    without = depth_score(leaf, among, metric=metric, weights=w)
    (alone,) = torch.autograd.grad(without.sum(), leaf)
    # The pair adds to the mean's denominator alone.
    factor = 5.0 / 6.0
    if metric == "l2":
        factor *= float((with_weight / without).detach() ** 2)
    torch.testing.assert_close(got, alone * factor, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["cosine", *DISTANCES])
def test_gradients_of_equal_rows_are_finite(metric: str, dtype: Any) -> None:
    rows = torch.ones(30, 3, dtype=dtype)
    rows[1] = 2.0
    rows[2:4] = -1.0
    for arguments in ((rows, None, None), (rows, rows, None), (rows[:1], rows[4:], None)):
        assert all(g.isfinite().all() for g in gradients(depth_score, *arguments, metric=metric))
    (own,) = gradients(depth_score, rows[4:], None, None, metric=metric)
    assert float(own.abs().max()) <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("metric", ["cosine", "chord", "arc"])
def test_angular_gradients_are_orthogonal_to_their_rows(metric: str) -> None:
    x, corpus = normal(20, 5, 1), normal(30, 5, 2)
    of_x, of_corpus = gradients(depth_score, x, corpus, None, metric=metric)
    assert float((of_x * x).sum(1).abs().max()) < 1e-14
    assert float((of_corpus * corpus).sum(1).abs().max()) < 1e-14


def test_spatial_depth_is_flat_at_its_maximum() -> None:
    corpus = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    x = torch.zeros(1, 2, requires_grad=True)
    depths = depth_score(x, corpus, metric="spatial")
    depths.sum().backward()
    assert depths.item() == 1.0 and torch.equal(x.grad, torch.zeros(1, 2))


def test_mahalanobis_of_a_row_that_alone_spans_a_direction() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [4.0, 1.0], [1.5, 3.0]]).double()
    depths = depth_score(x, metric="mahalanobis")
    (got,) = gradients(depth_score, x, None, None, metric="mahalanobis")
    assert depths[4] == 0.0 and got.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_repeat_bit_by_bit(metric: str) -> None:
    x, corpus = rows_with_close_pairs(torch.float32)
    weights = weights_of(len(corpus)).float()
    first, second = (gradients(depth_score, x, corpus, weights, metric=metric) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_steps_move_rows_into_the_corpus(metric: str) -> None:
    x, corpus = normal(10, 4, 1, torch.float32), normal(60, 4, 2, torch.float32) + 2.0
    x.requires_grad_()
    before = depth_score(x, corpus, metric=metric).mean()
    optimizer = torch.optim.Adam([x], lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        (-depth_score(x, corpus, metric=metric).mean()).backward()
        optimizer.step()
    assert depth_score(x, corpus, metric=metric).mean() > before + 0.1
