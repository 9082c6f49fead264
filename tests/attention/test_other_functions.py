# SPDX-License-Identifier: Apache-2.0
"""Mean pooling, merging of parts, length laws and the diagnostics of length collapse."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from embedcore import attention
from oracle import attention as oracle
from oracle import attention_references as published
from support.guard import guarded
from support.kinds import dtype_of, to_torch

Array = np.ndarray[Any, Any]

# One rounding of the result, and sums of some hundred tokens.
TOLERANCES = {"float64": 1e-13, "float32": 1e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11 * 1.1}
KINDS: dict[str, Callable[[Array], Any]] = {
    "numpy": np.asarray,
    "guarded": guarded,
    "torch": to_torch,
}
array_kinds = pytest.mark.parametrize("kind", KINDS)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def numbers(x: Any) -> Array:
    return (x.double().numpy() if hasattr(x, "double") else np.asarray(x)).astype(np.float64)


@array_kinds
@pytest.mark.parametrize("columns", [1, 5, 16, 33, 384])
@pytest.mark.parametrize("tokens", [1, 7, 65, 600])
def test_mean_pool(isa: str, dtype_name: str, kind: str, tokens: int, columns: int) -> None:
    h = (normal(3, tokens, columns) + 1).astype(dtype_of(dtype_name))
    place = KINDS[kind]
    lengths = np.array([tokens, 1, max(1, tokens // 2)])
    within = np.arange(tokens) < lengths[:, None]
    h[~within] = np.nan
    holes = within & (normal(3, tokens) < 0.8)
    holes[:, 0] = True
    wide = np.float64 if dtype_name == "float64" else np.float32
    weights = (normal(3, tokens, seed=1) ** 2).astype(wide)
    cases: list[tuple[dict[str, Any], Array]] = [
        ({"lengths": lengths}, published.mean_pooling(h, within)),
        ({"mask": holes}, published.mean_pooling(h, holes)),
        ({"mask": holes, "lengths": lengths}, published.mean_pooling(h, holes)),
        (
            {"lengths": lengths, "weights": weights},
            published.mean_pooling(h, within, weights),
        ),
        ({"mask": holes, "weights": weights}, published.mean_pooling(h, holes, weights)),
    ]
    for options, expected in cases:
        given = {name: place(x) for name, x in options.items()}
        got = attention.mean_pool(place(h), **given)
        assert got.shape == expected.shape
        assert type(got) is type(place(h))
        limit = TOLERANCES[dtype_name] * max(1, np.abs(expected).max())
        np.testing.assert_allclose(numbers(got), expected, rtol=0, atol=limit)


@array_kinds
def test_mean_pool_of_ragged_sequences(kind: str) -> None:
    place = KINDS[kind]
    h, offsets = normal(20, 6), np.array([0, 5, 5, 19, 20])
    weights = np.abs(normal(20, seed=1))
    parts = [h[a:b] for a, b in pairwise(offsets)]
    shares = [weights[a:b] for a, b in pairwise(offsets)]
    means = [x.sum(0) / max(len(x), 1) for x in parts]
    got = attention.mean_pool(place(h), cu_seqlens=place(offsets))
    np.testing.assert_allclose(numbers(got), means, rtol=1e-13, atol=1e-15)
    weighted = [w @ x / max(w.sum(), 1e-300) for w, x in zip(shares, parts, strict=True)]
    got = attention.mean_pool(place(h), cu_seqlens=place(offsets), weights=place(weights))
    np.testing.assert_allclose(numbers(got), weighted, rtol=1e-13, atol=1e-15)


@array_kinds
def test_mean_pool_of_nothing_is_zero(kind: str) -> None:
    place = KINDS[kind]
    h = np.full((2, 3, 4), np.nan)
    assert not numbers(attention.mean_pool(place(h), lengths=place(np.zeros(2, int)))).any()
    assert not numbers(attention.mean_pool(place(h), mask=place(np.zeros((2, 3), bool)))).any()
    ones = np.ones((2, 3, 4))
    weights = np.array([[0.0, 0, 0], [0, 2, 0]])
    got = numbers(attention.mean_pool(place(ones), weights=place(weights)))
    np.testing.assert_array_equal(got, [[0] * 4, [1] * 4])


def test_tokens_of_weight_zero_are_not_read() -> None:
    h = normal(2, 5, 3)
    h[:, 2] = np.nan
    weights = np.array([1.0, 2, 0, 1, 1]) * np.ones((2, 1))
    assert np.isfinite(attention.mean_pool(h, weights=weights)).all()


def test_weights_have_any_unit() -> None:
    h, weights = normal(2, 50, 3), np.abs(normal(2, 50, seed=1))
    expected = attention.mean_pool(h, weights=weights)
    for unit in (1e-300, 1e-30, 1e30, 1e300):
        got = attention.mean_pool(h, weights=weights * unit)
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@array_kinds
def test_mean_pool_writes_out(kind: str) -> None:
    place = KINDS[kind]
    h, out = place(normal(2, 5, 3)), place(np.full((2, 3), np.nan))
    assert attention.mean_pool(h, out=out) is out
    np.testing.assert_array_equal(numbers(out), numbers(attention.mean_pool(h)))


@array_kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cuts", [[0, 40], [0, 1, 40], [0, 13, 13, 39, 40], [0, 0, 40]])
def test_merged_parts_are_the_whole(cuts: list[int], dtype: str, kind: str) -> None:
    place = KINDS[kind]
    key, query = normal(3, 40, 8).astype(dtype), (3 * normal(8, 4, seed=1)).astype(dtype)
    lengths = np.array([40, 20, 0])
    expected = oracle.low_rank_attention(key, query, lengths=lengths, temperature=0.5)
    outs, lses = [], []
    for a, b in pairwise(cuts):
        out, lse = attention.low_rank_attention(
            place(key[:, a:b]),
            place(query),
            lengths=place(np.clip(lengths - a, 0, b - a)),
            temperature=0.5,
            return_lse=True,
        )
        outs.append(out)
        lses.append(lse)
    out, lse = attention.merge_states(outs, lses)
    assert type(out) is type(lse) is type(place(key))
    limit = 1e-6 * 40 if dtype == "float32" else 1e-12  # scores reach 40
    np.testing.assert_allclose(numbers(out), expected.out, rtol=0, atol=limit)
    np.testing.assert_allclose(numbers(lse), expected.lse, rtol=limit)


def test_merging_is_finite_where_lses_are_huge_or_minus_infinity() -> None:
    outs = normal(3, 2, 2, 5)
    lses = np.array(
        [[[1e4, -np.inf], [0, -np.inf]], [[-1e4, 3], [1, -np.inf]], [[1e4, 2], [0, -np.inf]]]
    )
    out, lse = attention.merge_states(list(outs), list(lses))
    expected = published.merge_states(outs, lses)
    np.testing.assert_allclose(out, expected[0], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(lse, expected[1], rtol=1e-13)
    assert (out[1, 1] == 0).all()
    assert lse[1, 1] == -np.inf


def test_length_laws() -> None:
    assert attention.length_law(1) == attention.length_law(0) == attention.length_law(2) == 1
    counts = np.array([[0, 1, 2], [3, 100, 8192]])
    for name in ("log", "sqrt_log", "log_squared"):
        got = attention.length_law(counts, name)
        np.testing.assert_allclose(got, oracle.length_law(name, counts), rtol=1e-14)
        assert attention.length_law(100, name) == pytest.approx(got[1, 1])
    assert attention.length_law(100) == pytest.approx(math.log(100))
    assert attention.length_law(100, "sqrt_log") == pytest.approx(math.sqrt(math.log(100)))
    torch = pytest.importorskip("torch")
    got = attention.length_law(torch.tensor(counts), "log_squared")
    np.testing.assert_allclose(got, oracle.length_law("log_squared", counts), rtol=1e-14)


@array_kinds
def test_effective_tokens(kind: str) -> None:
    place = KINDS[kind]
    weights = np.array([[0.25] * 4, [0, 1, 0, 0], [0.5, 0.5, 0, 0], [0] * 4])
    got = numbers(attention.effective_tokens(place(weights)))
    np.testing.assert_allclose(got, [4, 1, 2, 0], rtol=1e-14)
    key, query = normal(3, 20, 4), normal(4, 2)
    _, a = attention.low_rank_attention(
        key, query, lengths=[20, 5, 0], temperature=1e6, return_weights=True
    )
    got = numbers(attention.effective_tokens(place(a)))
    np.testing.assert_allclose(got, [[20, 20], [5, 5], [0, 0]], rtol=1e-9)
    packed, offsets = key.reshape(60, 4), np.array([0, 20, 20, 60])
    _, a = attention.low_rank_attention(packed, query, cu_seqlens=offsets, return_weights=True)
    got = numbers(attention.effective_tokens(place(a), place(offsets)))
    assert got.shape == (3, 2)
    parts = [a[:, :20], a[:, 20:]]
    entropies = [-(x * np.log(x)).sum(1) for x in parts]
    np.testing.assert_allclose(got[[0, 2]], np.exp(entropies), rtol=1e-12)
    assert (got[1] == 0).all()


@array_kinds
def test_high_frequency_gain(kind: str) -> None:
    place = KINDS[kind]
    a = np.abs(normal(2, 3, 7, 9))
    a /= a.sum(-1, keepdims=True)
    got = numbers(attention.high_frequency_gain(place(a)))
    centring = np.eye(7) - np.ones((7, 7)) / 7
    expected = [[np.linalg.svd(centring @ x)[1][0] for x in row] for row in a]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    flat = numbers(attention.high_frequency_gain(place(np.full((5, 5), 0.2))))
    assert flat == pytest.approx(0, abs=1e-15)
    assert numbers(attention.high_frequency_gain(place(np.eye(5)))) == pytest.approx(1)


def test_a_lower_temperature_undoes_the_loss_of_high_frequencies() -> None:
    rng = np.random.default_rng(0)
    gains = {}
    for tau in (1.0, 0.5):
        for n in (64, 512):
            s = rng.standard_normal((n, 64)) @ rng.standard_normal((64, n)) / 8 / tau
            e = np.exp(s - s.max(1, keepdims=True))
            gains[tau, n] = attention.high_frequency_gain(e / e.sum(1, keepdims=True))
    falls = {tau: gains[tau, 512] / gains[tau, 64] for tau in (1.0, 0.5)}
    assert falls[1.0] < 0.75
    assert falls[0.5] > falls[1.0]
    assert gains[0.5, 512] > 2 * gains[1.0, 512]
