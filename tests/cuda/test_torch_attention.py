# SPDX-License-Identifier: Apache-2.0
"""`embedcore.torch` attention on a GPU: against the CPU, Torch and itself."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from embedcore import attention  # noqa: E402
from embedcore.torch import (  # noqa: E402
    AttentionPooling,
    LowRankAttention,
    low_rank_attention,
    mean_pool,
)

# Each side may be off by 1e-6 times the largest exponent of the softmax, here about 10.
TOLERANCE = 2e-5


def _given(dtype: Any, columns: int = 40, heads: int = 8) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(5, 70, columns, generator=generator)
    query = torch.randn(columns, heads, generator=generator) / columns**0.5
    return key.to(dtype), query


def _with_gradients(device: str, key: Any, query: Any, **options: Any) -> tuple[Any, Any, Any]:
    key, query = (leaf.detach().to(device).requires_grad_() for leaf in (key, query))
    options = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in options.items()
    }
    pooled = low_rank_attention(key, query, **options)
    (pooled.float() * torch.linspace(-1, 1, pooled.shape[-1], device=device)).sum().backward()
    return pooled.detach().cpu(), key.grad.cpu(), query.grad.cpu()


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lama": {"activation": "tanh", "norm": "l2", "temperature": 0.25},
    "lengths": {"lengths": torch.tensor([70, 1, 0, 33, 64])},
    "mask": {"mask": torch.arange(70).expand(5, 70) % 3 != 0},
    "temperatures": {"temperature": torch.linspace(0.5, 2.0, 8), "length_scale": "log"},
    "bias": {"bias": torch.linspace(-1, 1, 70)[None, :, None].expand(5, 70, 8)},
    "mean context": {"context": "mean", "P": torch.linspace(-1, 1, 320).reshape(40, 8)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_torch_attention_is_that_of_the_cpu(name: str) -> None:
    key, query = _given(torch.float32)
    got = _with_gradients("cuda", key, query, **OPTIONS[name])
    expected = _with_gradients("cpu", key, query, **OPTIONS[name])
    for one, right in zip(got, expected, strict=True):
        size = max(1.0, float(right.abs().max()))
        torch.testing.assert_close(one, right, rtol=0, atol=TOLERANCE * size)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [1, 3, 8, 16, 64])
@pytest.mark.parametrize("columns", [8, 33, 384, 1024])
def test_torch_half_precision_is_as_exact_as_torch(columns: int, heads: int, dtype: Any) -> None:
    key, query = _given(dtype, columns, heads)
    query = query.to(dtype)

    def plain(key: Any, query: Any) -> Any:
        scores = key @ query
        return scores.softmax(dim=1).mT @ key

    with torch.no_grad():
        right = plain(key.double(), query.double())
        by_torch = (plain(key.cuda(), query.cuda()).cpu().double() - right).abs().max()
        got = low_rank_attention(key.cuda(), query.cuda()).cpu()
    assert float((got.double() - right).abs().max()) <= 2.0 * float(by_torch) + 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [3, 8, 20, 64])
@pytest.mark.parametrize("columns", [40, 384, 1024])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
def test_torch_half_precision_gradients_are_as_exact_as_torch(
    size: float, columns: int, heads: int, dtype: Any
) -> None:
    key, query = _given(dtype, columns, heads)
    query = query.to(dtype)
    generator = torch.Generator().manual_seed(1)
    upstream = (torch.randn(5, heads, columns, generator=generator) * size).to(dtype)

    def plain(key: Any, query: Any) -> Any:
        return (key @ query).softmax(dim=1).mT @ key

    def gradients(pool: Any, key: Any, query: Any) -> list[Any]:
        leaves = [leaf.detach().requires_grad_() for leaf in (key, query)]
        pool(*leaves).backward(upstream.to(key))
        return [leaf.grad.cpu().double() for leaf in leaves]

    def error(found: Any, right: Any) -> float:  # Torch may overflow
        return float((found - right).abs().nan_to_num(nan=torch.inf).max())

    right = gradients(plain, key.double(), query.double())
    by_torch = gradients(plain, key.cuda(), query.cuda())
    got = gradients(low_rank_attention, key.cuda(), query.cuda())
    for own, theirs, exact in zip(got, by_torch, right, strict=True):
        assert error(own, exact) <= 2.0 * error(theirs, exact) + 1e-6 * size


def test_torch_attention_repeats_bit_by_bit() -> None:
    key, query = _given(torch.bfloat16, 384, 16)
    first = _with_gradients("cuda", key, query)
    for _ in range(3):
        for one, before in zip(_with_gradients("cuda", key, query), first, strict=True):
            assert torch.equal(one, before)


def test_torch_ragged_and_mean_pooling() -> None:
    key, query = _given(torch.float32)
    rows = key.reshape(-1, 40)
    ends = torch.tensor([0, 70, 70, 200, 350])
    got = low_rank_attention(rows.cuda(), query.cuda(), cu_seqlens=ends.cuda())
    expected = low_rank_attention(rows, query, cu_seqlens=ends)
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=TOLERANCE)
    lengths = torch.tensor([70, 3, 0, 9, 50])
    got = mean_pool(key.cuda(), lengths=lengths.cuda())
    torch.testing.assert_close(got.cpu(), mean_pool(key, lengths=lengths), rtol=0, atol=1e-6)
    same = attention.low_rank_attention(key.cuda(), query.cuda())
    assert same.device.type == "cuda"


@pytest.mark.parametrize("module", [LowRankAttention, AttentionPooling])
def test_torch_modules_move_to_the_device(module: Any) -> None:
    torch.manual_seed(0)
    made = module(32, 4)
    key, _ = _given(torch.float32, 32)
    expected = made(key)
    got = made.cuda()(key.cuda())
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=TOLERANCE)


def test_torch_attention_compiles_and_is_captured() -> None:
    key, query = (leaf.cuda() for leaf in _given(torch.bfloat16, 64, 16))
    expected = low_rank_attention(key, query)
    compiled = torch.compile(low_rank_attention, fullgraph=True)
    assert torch.equal(compiled(key, query), expected)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        low_rank_attention(key, query)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pooled = low_rank_attention(key, query)
    pooled.zero_()
    graph.replay()
    assert torch.equal(pooled, expected)


@pytest.mark.parametrize("heads", [8, 16, 32])
@pytest.mark.parametrize(("sequences", "length"), [(256, 512), (32, 2048)])
def test_torch_attention_takes_little_memory(sequences: int, length: int, heads: int) -> None:
    shape = (sequences, length, 768)
    key = torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    query = torch.randn(768, heads, device="cuda", requires_grad=True)
    low_rank_attention(key, query).sum().backward()  # what is made once
    key.grad = query.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    low_rank_attention(key, query).sum().backward()
    extra = torch.cuda.max_memory_allocated() - before
    pooled = 2 * 2 * sequences * heads * 768  # and its gradient: not the kernels'
    assert extra <= 1.05 * key.nbytes + 4 * heads * sequences * length + pooled + (4 << 20)


def test_torch_autocast_casts_nothing() -> None:
    key, query = (leaf.cuda() for leaf in _given(torch.float32))
    expected = low_rank_attention(key, query, context="mean", P=query)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.equal(low_rank_attention(key, query, context="mean", P=query), expected)


def test_torch_gradients_of_everything_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(1)
    leaves = {
        "key": torch.randn(5, 70, 40, generator=generator),
        "query": torch.randn(40, 8, generator=generator) / 6,
        "value": torch.randn(5, 70, 24, generator=generator),
        "temperature": torch.rand(5, 8, generator=generator) + 0.5,
        "bias": torch.randn(5, 70, 8, generator=generator),
        "mask": torch.randn(5, 70, generator=generator),
    }

    def gradients(device: str) -> dict[str, Any]:
        moved = {name: leaf.to(device).requires_grad_() for name, leaf in leaves.items()}
        pooled, lse, weights = low_rank_attention(
            **moved, activation="tanh", norm="l2", return_lse=True, return_weights=True
        )
        (pooled.square().sum() + lse.sum() + weights.square().sum()).backward()
        return {name: leaf.grad.cpu() for name, leaf in moved.items()}

    got, expected = gradients("cuda"), gradients("cpu")
    for name, right in expected.items():
        size = max(1.0, float(right.abs().max()))
        torch.testing.assert_close(got[name], right, rtol=0, atol=TOLERANCE * size, msg=name)


def test_torch_attention_is_exported() -> None:
    class Pool(torch.nn.Module):
        def forward(self, key: Any, query: Any) -> Any:
            return low_rank_attention(key, query, norm="l2")

    key, query = (leaf.cuda() for leaf in _given(torch.float32))
    exported = torch.export.export(Pool(), (key, query)).module()
    assert torch.equal(exported(key, query), low_rank_attention(key, query, norm="l2"))
