# SPDX-License-Identifier: Apache-2.0
"""What must hold for any tokens: checked on random problems, without the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from embedcore import attention
from hypothesis import given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
CLOSE = {"rtol": 1e-11, "atol": 1e-11}

sizes = st.tuples(
    st.integers(1, 3), st.integers(1, 140), st.integers(1, 6), st.integers(1, 20)
)  # sequences, tokens, heads, columns
kinds = st.fixed_dictionaries(
    {
        "activation": st.sampled_from([None, "tanh"]),
        "norm": st.sampled_from([None, "l2"]),
        "temperature": st.floats(0.05, 10),
    }
)
seeds = st.integers(0, 1000)
runs = settings(max_examples=40, deadline=None)


def draw(size: tuple[int, int, int, int], seed: int) -> tuple[Array, Array, np.random.Generator]:
    rng = np.random.default_rng(seed)
    sequences, tokens, heads, columns = size
    key = rng.standard_normal((sequences, tokens, columns))
    return key, rng.standard_normal((columns, heads)), rng


@given(sizes, kinds, seeds)
@runs
def test_the_order_of_tokens_does_not_matter(size: Any, kind: dict[str, Any], seed: int) -> None:
    key, query, rng = draw(size, seed)
    order = rng.permutation(key.shape[1])
    out, weights = attention.low_rank_attention(key, query, return_weights=True, **kind)
    turned, moved = attention.low_rank_attention(key[:, order], query, return_weights=True, **kind)
    np.testing.assert_allclose(turned, out, **CLOSE)
    np.testing.assert_allclose(moved, weights[..., order], **CLOSE)


@given(sizes, kinds, seeds)
@runs
def test_weights_are_shares_and_outputs_their_means(
    size: Any, kind: dict[str, Any], seed: int
) -> None:
    key, query, rng = draw(size, seed)
    mask = rng.random(key.shape[:2]) < 0.7
    out, lse, weights = attention.low_rank_attention(
        key, query, mask=mask, return_lse=True, return_weights=True, **kind
    )
    assert (weights >= 0).all()
    assert (weights[~np.broadcast_to(mask[:, None], weights.shape)] == 0).all()
    seen = mask.any(1)
    sums = weights.sum(-1) - seen[:, None]
    np.testing.assert_allclose(sums, 0, atol=1e-13)
    np.testing.assert_allclose(out, weights @ key, **CLOSE)
    assert (np.isfinite(lse) == seen[:, None]).all()


@given(sizes, kinds, seeds, st.data())
@runs
def test_parts_merge_into_the_whole(
    size: Any, kind: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    key, query, _ = draw(size, seed)
    cut = data.draw(st.integers(0, key.shape[1]))
    whole = attention.low_rank_attention(key, query, return_lse=True, **kind)
    parts = [
        attention.low_rank_attention(part, query, return_lse=True, **kind)
        for part in (key[:, :cut], key[:, cut:])
    ]
    merged = attention.merge_states([p[0] for p in parts], [p[1] for p in parts])
    np.testing.assert_allclose(merged[0], whole[0], **CLOSE)
    np.testing.assert_allclose(merged[1], whole[1], **CLOSE)


@given(sizes, kinds, seeds)
@runs
def test_a_mask_is_the_tokens_taken_out(size: Any, kind: dict[str, Any], seed: int) -> None:
    key, query, rng = draw(size, seed)
    mask = rng.random(key.shape[:2]) < 0.5
    out = attention.low_rank_attention(key, query, mask=mask, **kind)
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1))])
    ragged = attention.low_rank_attention(key[mask], query, cu_seqlens=offsets, **kind)
    np.testing.assert_allclose(out, ragged, **CLOSE)
    added = attention.low_rank_attention(key, query, mask=np.where(mask, 0.0, -np.inf), **kind)
    np.testing.assert_allclose(out, added, **CLOSE)


@given(sizes, kinds, seeds, st.floats(-50, 50))
@runs
def test_a_constant_mask_moves_only_lse(
    size: Any, kind: dict[str, Any], seed: int, constant: float
) -> None:
    key, query, _ = draw(size, seed)
    plain = attention.low_rank_attention(key, query, return_lse=True, **kind)
    mask = np.full(key.shape[:2], constant)
    moved = attention.low_rank_attention(key, query, mask=mask, return_lse=True, **kind)
    shift = constant / kind["temperature"]
    limit = 1e-12 * max(1.0, abs(shift))
    np.testing.assert_allclose(moved[0], plain[0], rtol=0, atol=10 * limit)
    np.testing.assert_allclose(moved[1], plain[1] + shift, rtol=0, atol=limit)


@given(sizes, kinds, seeds)
@runs
def test_heads_without_a_norm_do_not_see_each_other(
    size: Any, kind: dict[str, Any], seed: int
) -> None:
    key, query, _ = draw(size, seed)
    kind = {**kind, "norm": None}
    together = attention.low_rank_attention(key, query, **kind)
    for j in range(query.shape[1]):
        alone = attention.low_rank_attention(key, query[:, j : j + 1], **kind)
        np.testing.assert_allclose(together[:, j : j + 1], alone, **CLOSE)
