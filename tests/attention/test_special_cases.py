# SPDX-License-Identifier: Apache-2.0
"""Published poolings are special cases: equal to their own equations in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import attention
from oracle import attention_references as published

Array = np.ndarray[Any, Any]

B, L, D, M = 3, 40, 10, 4
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


H = normal(B, L, D)
LENGTHS = np.array([40, 17, 1])
WITHIN = np.arange(L) < LENGTHS[:, None]
HOLES = WITHIN & ((np.random.default_rng(1).random((B, L)) < 0.6) | (np.arange(L) == 0))
masks = pytest.mark.parametrize("mask", [None, WITHIN, HOLES], ids=["all", "lengths", "holes"])


def everything(mask: Array | None) -> Array:
    return np.ones((B, L), bool) if mask is None else mask


@masks
@pytest.mark.parametrize("context", ["parameter", "given", "mean"])
def test_lama(context: str, mask: Array | None) -> None:
    q, p, keys = normal(D, M, seed=1), normal(D, M, seed=2), normal(B, L, D, seed=3)
    valid = everything(mask)
    given: Any = {"parameter": normal(D, seed=4), "given": normal(B, D, seed=4)}.get(context)
    options: dict[str, Any] = {"P": p, "mask": mask, "activation": "tanh", "norm": "l2"}
    options.update(context=context if given is None else given, return_weights=True)
    for u, value in ((H, None), (keys, H)):
        c = published.mean_pooling(u, valid) if given is None else given
        pooled, weights = published.lama(H, q, p, c, valid, keys=u)
        out, a = attention.low_rank_attention(u, q, value, **options)
        np.testing.assert_allclose(out, pooled, **EXACT)
        np.testing.assert_allclose(np.swapaxes(a, 1, 2), weights, **EXACT)


def test_lama_of_zero_padding_is_finite() -> None:
    tokens = H * WITHIN[..., None]
    out = attention.low_rank_attention(
        tokens,
        normal(D, M),
        context="mean",
        P=normal(D, M, seed=1),
        mask=WITHIN,
        activation="tanh",
        norm="l2",
    )
    assert np.isfinite(out).all()


@masks
def test_structured_self_attention(mask: Array | None) -> None:
    w1, w2 = normal(7, D, seed=1), normal(M, 7, seed=2)
    pooled, weights = published.structured_self_attention(H, w1, w2, everything(mask))
    out, a = attention.low_rank_attention(
        np.tanh(H @ w1.T), w2.T, H, mask=mask, return_weights=True
    )
    np.testing.assert_allclose(out, pooled, **EXACT)
    np.testing.assert_allclose(np.swapaxes(a, 1, 2), weights, **EXACT)


@masks
@pytest.mark.parametrize("out_proj", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("probes", "heads"), [(1, 2), (3, 5), (2, 1), (1, 10)])
def test_multihead_attention_pooling(
    probes: int, heads: int, bias: bool, out_proj: bool, mask: Array | None
) -> None:
    probe, inward = normal(probes, D, seed=1), normal(3 * D, D, seed=2)
    inward_bias = normal(3 * D, seed=3) if bias else None
    outward = normal(D, D, seed=4) if out_proj else None
    outward_bias = normal(D, seed=5) if bias and out_proj else None
    folded = attention.fold_multihead_attention(
        probe, heads, inward, inward_bias, outward, outward_bias
    )
    assert folded.query.shape == (D, probes * heads)
    pooled = attention.low_rank_attention(
        H, folded.query, mask=mask, temperature=folded.temperature
    )
    expected = published.multihead_attention_pooling(
        H,
        probe,
        inward,
        inward_bias,
        np.eye(D) if outward is None else outward,
        outward_bias,
        heads,
        everything(mask),
    )
    np.testing.assert_allclose(folded.project(pooled), expected, rtol=1e-11, atol=1e-11)


def test_folding_stacked_weights_apart_and_probes_of_each_sequence() -> None:
    inward, bias = normal(3 * D, D, seed=2), normal(3 * D, seed=3)
    probes = normal(B, 2, D, seed=1)
    apart = attention.fold_multihead_attention(probes, 5, np.split(inward, 3), np.split(bias, 3))
    assert apart.query.shape == (D, 2 * 5) or apart.query.shape == (B, D, 2 * 5)
    pooled = attention.low_rank_attention(H, apart.query, temperature=apart.temperature)
    got = apart.project(pooled)
    for b in range(B):
        one = attention.fold_multihead_attention(probes[b], 5, inward, bias)
        alone = attention.low_rank_attention(H[b : b + 1], one.query, temperature=one.temperature)
        np.testing.assert_allclose(got[b : b + 1], one.project(alone), **EXACT)
    single = attention.fold_multihead_attention(probes[0, 0], 5, inward, bias)
    row = attention.fold_multihead_attention(probes[0, :1], 5, inward, bias)
    np.testing.assert_array_equal(single.query, row.query)


def test_folded_attention_of_torch_weights() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(D, 2, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(module.in_proj_bias)
    torch.nn.init.normal_(module.out_proj.bias)
    tokens, probe = torch.tensor(H), torch.randn(3, D, dtype=torch.float64)
    padding = torch.tensor(~HOLES)
    with torch.no_grad():
        queries = probe.expand(B, -1, -1)
        expected, _ = module(queries, tokens, tokens, key_padding_mask=padding)
        folded = attention.fold_multihead_attention(
            probe,
            2,
            module.in_proj_weight,
            module.in_proj_bias,
            module.out_proj.weight,
            module.out_proj.bias,
        )
        pooled = attention.low_rank_attention(
            tokens, folded.query, mask=~padding, temperature=folded.temperature
        )
        got = folded.project(pooled)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


@masks
def test_a_probe_per_sequence_is_attention_with_one_query(mask: Array | None) -> None:
    q = normal(B, D, 1, seed=1)
    scores = np.where(everything(mask), (H @ q)[..., 0] / np.sqrt(D), -np.inf)
    e = np.exp(scores - scores.max(1, keepdims=True))
    expected = (e / e.sum(1, keepdims=True))[:, None] @ H
    got = attention.low_rank_attention(H, q, mask=mask, temperature=np.sqrt(D))
    np.testing.assert_allclose(got, expected, **EXACT)


@masks
def test_a_zero_query_is_mean_pooling(mask: Array | None) -> None:
    got = attention.low_rank_attention(H, np.zeros((D, 1)), mask=mask)
    mean = published.mean_pooling(H, everything(mask))
    np.testing.assert_allclose(got[:, 0], mean, **EXACT)
    np.testing.assert_allclose(attention.mean_pool(H, mask=mask), mean, **EXACT)


def test_ragged_and_padded_are_one() -> None:
    q = normal(D, M, seed=1)
    packed = H[WITHIN]
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    options: dict[str, Any] = {"P": normal(D, M, seed=2), "context": "mean", "norm": "l2"}
    padded = attention.low_rank_attention(H, q, lengths=LENGTHS, return_lse=True, **options)
    ragged = attention.low_rank_attention(packed, q, cu_seqlens=offsets, return_lse=True, **options)
    masked = attention.low_rank_attention(H, q, mask=WITHIN, return_lse=True, **options)
    for a, b, c in zip(padded, ragged, masked, strict=True):
        np.testing.assert_allclose(a, b, **EXACT)
        np.testing.assert_allclose(a, c, **EXACT)
