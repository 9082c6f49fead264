# SPDX-License-Identifier: Apache-2.0
"""Merging, folding, laws and diagnostics on Torch tensors: gradients, compilation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import attention

torch = pytest.importorskip("torch")


def random(*shape: int, grad: bool = False) -> Any:
    generator = torch.Generator().manual_seed(sum(shape))
    made = torch.randn(shape, generator=generator, dtype=torch.float64)
    return made.requires_grad_(grad)


def compiled(function: Any) -> Any:
    return torch.compile(function, fullgraph=True, backend="eager")


def merge(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> Any:
    return attention.merge_states([out_a, out_b], [lse_a, lse_b])


def test_gradients_of_merging() -> None:
    parts = [random(2, 3, 4), random(2, 3), random(2, 3, 4) + 1, random(2, 3) - 1]
    leaves = tuple(part.requires_grad_() for part in parts)
    assert torch.autograd.gradcheck(merge, leaves)
    for tensor, wanted in zip(compiled(merge)(*leaves), merge(*leaves), strict=True):
        torch.testing.assert_close(tensor, wanted)


def test_gradients_of_parts_without_tokens_are_finite() -> None:
    leaves = [random(2, 3, 4), random(2, 3), random(2, 3, 4), random(2, 3)]
    leaves[1][0], leaves[3][:] = -torch.inf, -torch.inf
    for leaf in leaves:
        leaf.requires_grad_()
    out, lse = merge(*leaves)
    (out.sum() + lse[1].sum()).backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("columns", [(None, None), (5, 6)], ids=["one width", "widths"])
@pytest.mark.parametrize("probes", [(8,), (3, 8), (1, 3, 8), (4, 3, 8)])
def test_folding_is_the_module_of_torch(probes: Any, columns: Any, bias: bool) -> None:
    torch.manual_seed(0)
    dk, dv = columns
    module = torch.nn.MultiheadAttention(
        8, 2, kdim=dk, vdim=dv, bias=bias, batch_first=True, dtype=torch.float64
    )
    if bias:
        torch.nn.init.normal_(module.in_proj_bias)
        torch.nn.init.normal_(module.out_proj.bias)
    key, probe = random(4, 7, dk or 8), random(*probes)
    value = key if dv is None else random(4, 7, dv)
    rows = probe.reshape(-1, 3 if len(probes) > 1 else 1, 8).expand(4, -1, -1)
    expected = module(rows, key, value)[0].detach()
    parts = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    weights = module.in_proj_weight if dk is None else parts
    others = (module.in_proj_bias, module.out_proj.weight, module.out_proj.bias)
    folded = attention.fold_multihead_attention(probe, 2, weights, *others)
    assert folded.query.requires_grad
    options: dict[str, Any] = {
        "value": None if dv is None else value,
        "temperature": folded.temperature,
    }
    got = folded.project(attention.low_rank_attention(key, folded.query, **options))
    torch.testing.assert_close(got.detach(), expected)

    def numbers(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(numbers, x))
        return None if x is None else x.detach().numpy()

    plain = attention.fold_multihead_attention(
        numbers(probe), 2, numbers(weights), *map(numbers, others)
    )
    np.testing.assert_allclose(folded.query.detach(), plain.query, rtol=1e-12, atol=1e-14)


def test_folding_compiles() -> None:
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)

    def pool(probe: Any, x: Any) -> Any:
        folded = attention.fold_multihead_attention(
            probe, 2, module.in_proj_weight, module.in_proj_bias,
            module.out_proj.weight, module.out_proj.bias,
        )  # fmt: skip
        pooled = attention.low_rank_attention(x, folded.query, temperature=folded.temperature)
        return folded.project(pooled)

    x, probe = random(4, 7, 8), random(1, 8)
    expected = module(probe.expand(4, 1, 8), x, x)[0]
    torch.testing.assert_close(compiled(pool)(probe, x), expected)


def test_laws_and_diagnostics_compile_and_are_differentiable() -> None:
    weights = random(3, 6).softmax(-1).requires_grad_()
    assert torch.autograd.gradcheck(attention.effective_tokens, (weights,))
    assert torch.autograd.gradcheck(attention.high_frequency_gain, (weights,))
    torch.testing.assert_close(
        compiled(attention.effective_tokens)(weights), attention.effective_tokens(weights)
    )
    lengths = torch.tensor([0, 5, 300])
    torch.testing.assert_close(
        compiled(attention.length_law)(lengths), attention.length_law(lengths)
    )
