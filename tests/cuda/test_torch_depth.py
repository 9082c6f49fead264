# SPDX-License-Identifier: Apache-2.0
"""`embedcore.torch.depth_score` on a GPU: values, gradients and compilation, against the CPU."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from embedcore.torch import depth_score  # noqa: E402

METRICS = ("cosine", "chord", "arc", "l2", "spatial")
# Of float32 products on both sides; see tests/depth/conftest.py, and twice that for gradients.
TOLERANCE = 2e-5


def _leaves(dtype: Any) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(0)
    x, corpus = (
        (torch.randn(n, 24, generator=generator, dtype=torch.float64) + 0.3).to(dtype)
        for n in (21, 150)
    )
    return x, corpus, torch.rand(150, generator=generator) + 0.1


def _run(device: str, metric: str, dtype: Any, own: bool, function: Any = depth_score) -> Any:
    x, corpus, weights = (leaf.to(device).requires_grad_() for leaf in _leaves(dtype))
    if own:
        depths = function(corpus, metric=metric, weights=weights)
        leaves = (corpus, weights)
    else:
        depths = function(x, corpus, metric=metric, weights=weights)
        leaves = (x, corpus, weights)
    (depths * torch.linspace(1, 2, len(depths), device=device)).sum().backward()
    return depths.detach().cpu(), [leaf.grad.cpu() for leaf in leaves]


@pytest.mark.parametrize("own", [False, True], ids=["corpus", "self"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("metric", [*METRICS, "mahalanobis"])
def test_torch_values_and_gradients_are_those_of_the_cpu(
    metric: str, dtype: Any, own: bool
) -> None:
    depths, gradients = _run("cuda", metric, dtype, own)
    expected, expected_gradients = _run("cpu", metric, dtype, own)
    torch.testing.assert_close(depths, expected, rtol=0, atol=TOLERANCE)
    for got, right in zip(gradients, expected_gradients, strict=True):
        bound = 8e-3 if got.dtype == torch.bfloat16 else 2 * TOLERANCE
        torch.testing.assert_close(got, right, rtol=bound, atol=bound)


@pytest.mark.parametrize("metric", METRICS)
def test_torch_gradients_of_near_rows_are_those_of_the_cpu(metric: str) -> None:
    x, corpus, _ = _leaves(torch.float32)
    corpus[50:100] = corpus[0] + 0.01 * corpus[50:100]
    corpus[100:120] = x[0]
    corpus[120:140] = -x[1]
    found = []
    for device in ("cuda", "cpu"):
        leaves = [leaf.detach().to(device).requires_grad_() for leaf in (x, corpus)]
        depths = depth_score(*leaves, metric=metric)
        (depths * torch.linspace(1, 2, len(depths), device=device)).sum().backward()
        found.append([leaf.grad.cpu() for leaf in leaves])
    for got, right in zip(*found, strict=True):
        assert (got - right).abs().max() <= 2 * TOLERANCE * right.abs().max()


@pytest.mark.parametrize("metric", METRICS)
def test_torch_gradients_do_not_wait_and_repeat(metric: str) -> None:
    def gradients() -> list[Any]:
        leaves = [leaf.cuda().requires_grad_() for leaf in _leaves(torch.float32)]
        depths = depth_score(leaves[0], leaves[1], metric=metric, weights=leaves[2])
        torch.cuda.set_sync_debug_mode("error")
        try:
            depths.sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return [leaf.grad for leaf in leaves]

    first, again = gradients(), gradients()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_torch_compiles_without_breaks() -> None:
    compiled = torch.compile(depth_score, fullgraph=True)
    depths, gradients = _run("cuda", "arc", torch.float32, False, compiled)
    expected, expected_gradients = _run("cuda", "arc", torch.float32, False)
    torch.testing.assert_close(depths, expected)
    for got, right in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, right)


@pytest.mark.parametrize("metric", ["cosine", "arc"])
def test_torch_calls_are_captured_in_a_graph(metric: str) -> None:
    x, corpus, _ = (leaf.cuda() for leaf in _leaves(torch.float32))
    expected = depth_score(x, corpus, metric=metric)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        depth_score(x, corpus, metric=metric)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        depths = depth_score(x, corpus, metric=metric)
    depths.zero_()
    graph.replay()
    assert torch.equal(depths, expected)
    x.neg_()
    graph.replay()
    assert torch.equal(depths, depth_score(x, corpus, metric=metric))


def test_torch_calls_run_on_the_current_stream() -> None:
    x, corpus, _ = (leaf.cuda() for leaf in _leaves(torch.float32))
    expected = depth_score(x, corpus, metric="arc")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = torch.empty_like(x).copy_(x)  # not there before the sleep is over
        depths = depth_score(late, corpus, metric="arc")
    stream.synchronize()
    assert torch.equal(depths, expected)
