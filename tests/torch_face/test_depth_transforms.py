# SPDX-License-Identifier: Apache-2.0
"""`torch.depth_score` under Torch's transforms: opcheck, compile, export, vmap, grad, autocast."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from embedcore.torch import depth_score  # noqa: E402

METRICS = ("cosine", "chord", "arc", "l2", "spatial", "mahalanobis")


def normal(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
def test_operators_are_registered_right(metric: str, dtype: Any) -> None:
    forward = torch.ops.embedcore.depth_score.default
    backward = torch.ops.embedcore.depth_score_backward.default
    x, corpus, weights = normal(7, 3).to(dtype), normal(9, 3, seed=1).to(dtype), torch.rand(9)
    for tensors in ((x, None, None), (x, corpus, weights)):
        leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
        torch.library.opcheck(forward, (*leaves, metric, 0.25, 1, ""))
        depths = forward(*tensors, metric, 0.25, 1, "")
        wanted = [t is not None for t in tensors]
        given = (torch.ones_like(depths), depths, *tensors, metric, 0.25, 1, "", *wanted)
        torch.library.opcheck(backward, given)


@pytest.mark.parametrize("metric", METRICS)
def test_compiles_without_breaks(metric: str) -> None:
    def loss(x: Any, corpus: Any) -> Any:
        return depth_score(x * 2.0, corpus, metric=metric).sin().sum() + x.sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    corpus = normal(9, 3, seed=1).requires_grad_()
    for rows in (7, 11):
        x = normal(rows, 3).requires_grad_()
        assert torch.equal(compiled(x, corpus), loss(x, corpus))
        expected = torch.autograd.grad(loss(x, corpus), (x, corpus))
        got = torch.autograd.grad(compiled(x, corpus), (x, corpus))
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


class Scored(torch.nn.Module):
    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, x: Any, corpus: Any) -> Any:
        return depth_score(x, corpus, metric=self.metric)


@pytest.mark.parametrize("metric", METRICS)
def test_exports_with_any_number_of_rows(metric: str) -> None:
    rows = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        Scored(metric), (normal(7, 3), normal(9, 3)), dynamic_shapes=(rows, rows)
    )
    x, corpus = normal(20, 3, seed=2), normal(31, 3, seed=3)
    got = program.module()(x, corpus)
    assert torch.equal(got, depth_score(x, corpus, metric=metric))
    assert any("embedcore.depth_score" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize("metric", METRICS)
def test_maps_over_batches(metric: str) -> None:
    x, corpus = normal(4, 7, 3), normal(9, 4, 3, seed=1)

    def scored(a: Any, b: Any) -> Any:
        return depth_score(a, b, metric=metric)

    for axes in ((0, None), (0, 1), (None, 1)):
        of_x, of_corpus = x if axes[0] == 0 else x[0], corpus if axes[1] == 1 else corpus[:, 0]
        got = torch.vmap(scored, in_dims=axes)(of_x, of_corpus)
        for number in range(4):
            a = x[number] if axes[0] == 0 else x[0]
            b = corpus[:, number] if axes[1] == 1 else corpus[:, 0]
            # More rows in one call may be added in another order.
            torch.testing.assert_close(got[number], scored(a, b), rtol=1e-6, atol=1e-6)
    own = torch.vmap(lambda a: scored(a, None))(x)
    assert torch.equal(own, torch.stack([scored(a, None) for a in x]))


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_functions_map_over_batches(metric: str) -> None:
    x, corpus, weights = normal(4, 7, 3), normal(4, 9, 3, seed=1), torch.rand(9) + 0.1

    def loss(a: Any, b: Any, w: Any) -> Any:
        return depth_score(a, b, metric=metric, weights=w).square().sum()

    by_function = torch.func.grad(loss, argnums=(0, 1, 2))
    got = torch.vmap(by_function, in_dims=(0, 0, None))(x, corpus, weights)
    for number in range(4):
        leaves = [t.clone().requires_grad_() for t in (x[number], corpus[number], weights)]
        expected = torch.autograd.grad(loss(*leaves), leaves)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a[number], b)
        single = by_function(x[number], corpus[number], weights)
        assert all(torch.equal(a, b) for a, b in zip(single, expected, strict=True))


@pytest.mark.parametrize("metric", METRICS)
def test_jacobians_map_over_gradients(metric: str) -> None:
    x, corpus = normal(5, 3).double(), normal(9, 3, seed=1).double()
    got = torch.func.jacrev(lambda a: depth_score(a, corpus, metric=metric))(x)
    leaf = x.clone().requires_grad_()
    depths = depth_score(leaf, corpus, metric=metric)
    for number in range(5):
        (expected,) = torch.autograd.grad(depths[number], leaf, retain_graph=True)
        torch.testing.assert_close(got[number], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", METRICS)
def test_autocast_changes_nothing(metric: str, dtype: Any) -> None:
    def gradients() -> list[Any]:
        x, corpus = (normal(n, 16, seed=n).to(dtype).requires_grad_() for n in (30, 40))
        depths = depth_score(x, corpus, metric=metric)
        return [depths, *torch.autograd.grad(depths.square().sum(), (x, corpus))]

    expected = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradients()
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("metric", METRICS)
def test_second_derivatives_are_refused(metric: str) -> None:
    x = normal(7, 3).requires_grad_()
    (first,) = torch.autograd.grad(depth_score(x, metric=metric).sum(), x, create_graph=True)
    assert first.isfinite().all()
    text = r"torch\.depth_score: has first derivatives only; got a request for second derivatives"
    with pytest.raises(NotImplementedError, match=text):
        first.sum().backward()


def test_without_gradients_nothing_is_kept() -> None:
    x = normal(7, 3).requires_grad_()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert not depth_score(x).requires_grad
    assert not depth_score(x.detach()).requires_grad
