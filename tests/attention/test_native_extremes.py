# SPDX-License-Identifier: Apache-2.0
"""The kernels on numbers at the edges: zeros, huge and tiny ones, NaN, and sequences of nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.attention import (
    Problem,
    expected_of,
    make_problem,
    native_backward,
    native_forward,
)
from support.attention_limits import check, distance, limits, sizes_of
from support.kinds import dtype_of

Array = np.ndarray[Any, Any]
KINDS = [(None, None), ("tanh", None), (None, "l2"), ("tanh", "l2")]
kinds = pytest.mark.parametrize(("activation", "norm"), KINDS)


def seeds_of(p: Problem) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    grad_out = rng.standard_normal(p.out_shape).astype(p.key.dtype)
    return grad_out, rng.standard_normal(p.out_shape[:2]).astype(p.real)


def both(p: Problem, *, of_lse: bool = True) -> tuple[dict[str, Array], dict[str, Array]]:
    """Results and gradients, and the oracle's."""
    grad_out, grad_lse = seeds_of(p)
    grad_lse *= of_lse
    saved = native_forward(p)
    gradients = native_backward(p, saved, grad_out, grad_lse)
    forward, backward = expected_of(p, grad_out, grad_lse)
    return {**saved, **gradients}, {**forward, **backward}


def agree(p: Problem) -> dict[str, Array]:
    """Compare with the oracle as tests on the grid do."""
    got, expected = both(p)
    check(p, got, expected, limits(p, expected, *seeds_of(p)))
    return got


def finite(got: dict[str, Array]) -> None:
    for name, x in got.items():
        assert np.isfinite(x.astype(np.float64)).all(), name


def steps(scores: Array, *, sequences: int = 1, heads: int = 2, dtype: str = "float32") -> Problem:
    """Tokens whose scores are `scores`, in turn one head and the opposite for the next."""
    rng = np.random.default_rng(3)
    key = np.zeros((sequences, len(scores), 4), dtype_of(dtype))
    key[..., 0] = scores
    query = np.zeros((4, heads), key.dtype)
    query[0] = np.where(np.arange(heads) % 2, -1, 1)
    value = rng.standard_normal((*key.shape[:2], 5)).astype(key.dtype)
    return Problem(key, query, value)


@pytest.mark.parametrize("sequences", [1, 20], ids=["cut", "whole"])
@pytest.mark.parametrize("tokens", [64, 65, 300, 1500])
@pytest.mark.parametrize("slope", [0.01, 0.15, 0.2, 1.0, 30.0, -0.15, -1.0])
def test_scores_that_rise_or_fall(isa: str, slope: float, tokens: int, sequences: int) -> None:
    if sequences > 1 and tokens == 1500:
        tokens = 130
    p = steps(np.arange(tokens) * slope, sequences=sequences)
    got = agree(replace(p, temperature=1.0))
    finite(got)


@pytest.mark.parametrize("height", [10.0, 11.0, 12.0, 80.0, 90.0, 200.0, 1e4])
def test_one_score_far_above_or_below(isa: str, height: float) -> None:
    for at in (0, 63, 64, 200, 299):
        for sign in (1, -1):
            scores = np.zeros(300)
            scores[at] = sign * height
            agree(steps(scores))


@kinds
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_huge_logits(isa: str, dtype: str, activation: str | None, norm: str | None) -> None:
    for temperature in (1.0, 1e-3, 1e-6):
        p = make_problem(2, 70, 3, 8, dtype, value_columns=5, activation=activation, norm=norm)
        # 1e15 each: powers of two leave what differs between scores as it is.
        p = replace(p, key=p.key * p.key.dtype.type(2.0**50), temperature=temperature)
        p = replace(p, query=p.query * p.key.dtype.type(2.0**50))
        # The gradient of lse in the temperature, 1e30 / 1e-6^2, is no float.
        got, expected = both(p, of_lse=False)
        finite(got)
        if norm is None and activation is None:  # the largest score takes all
            winner = expected["weights"] == 1
            assert (winner.sum(-1) == 1).all()
            np.testing.assert_array_equal(got["weights"], expected["weights"])
            np.testing.assert_array_equal(got["out"], expected["out"])
            np.testing.assert_allclose(got["lse"], expected["lse"], rtol=1e-6)
            sizes, _ = sizes_of(p, *seeds_of(p))
            for name in ("key", "value", "query", "bias", "mask"):
                near = (1e-6 if dtype != "bfloat16" else 2e-2) * sizes[name]
                assert distance(got[name], expected[name]) <= near, name
        elif temperature == 1.0:
            rtol = 1e-2 if dtype == "bfloat16" else 2e-5
            np.testing.assert_allclose(got["weights"], expected["weights"], rtol=rtol)
            np.testing.assert_allclose(
                got["out"].astype(np.float64), expected["out"], rtol=rtol, atol=rtol
            )


def test_float16_tokens_at_the_top_of_their_range(isa: str) -> None:
    key = np.full((1, 100, 40), 65504, np.float16)
    p = Problem(key, np.ones((40, 2), np.float16))
    got, expected = both(p)
    finite(got)
    assert (got["out"] == 65504).all()
    np.testing.assert_allclose(got["lse"], expected["lse"], rtol=1e-6)


@kinds
@pytest.mark.parametrize("temperature", [0.03, 0.025, 0.0249, 1e-3, 1e-6])
def test_small_temperatures(
    isa: str, temperature: float, activation: str | None, norm: str | None
) -> None:
    p = make_problem(2, 300, 4, 9, activation=activation, norm=norm, value_columns=6)
    p = replace(p, temperature=temperature)
    got = agree(p)
    finite(got)
    sums = got["weights"].sum(-1)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


@kinds
def test_temperatures_on_both_sides_of_a_threshold(
    isa: str, activation: str | None, norm: str | None
) -> None:
    p = make_problem(3, 90, 4, 9, activation=activation, norm=norm)
    t = np.array([[1.0, 0.5, 0.026, 3.0], [0.02, 1.0, 1e-3, 0.5], [1e-3, 1e-2, 1e-4, 1e-5]])
    finite(agree(replace(p, temperature=t.astype(np.float32))))


@kinds
@pytest.mark.parametrize("temperature", [1e-30, 1e-37, 1e-39, 1e-300])
def test_any_positive_temperature_is_finite(
    isa: str, temperature: float, activation: str | None, norm: str | None
) -> None:
    p = make_problem(2, 90, 4, 9, activation=activation, norm=norm)
    got = native_forward(replace(p, temperature=temperature))
    assert np.isfinite(got["out"]).all()
    np.testing.assert_allclose(got["weights"].sum(-1), 1, rtol=1e-5)


@kinds
@pytest.mark.parametrize("largest", ["one token", "several tokens"])
@pytest.mark.parametrize("temperature", [1e-8, 1e-20, 1e-37, 1e-39, 1e-300])
def test_any_positive_temperature_has_finite_gradients(
    isa: str, dtype_name: str, temperature: float, largest: str, activation: str | None,
    norm: str | None,
) -> None:  # fmt: skip
    p = make_problem(2, 90, 4, 9, dtype_name, activation=activation, norm=norm)
    p = replace(p, temperature=temperature, key=p.key.copy())
    if largest == "several tokens":
        p.key[:, 40:] = p.key[:, :50]
    rng = np.random.default_rng(1)
    grad_out = rng.standard_normal(p.out_shape).astype(p.real)
    got = native_backward(p, native_forward(p), grad_out)
    finite(got)
    if activation is None and temperature < 1e-8:
        for name in ("query", "temperature", "bias"):  # the largest stay the largest
            assert not got[name].any(), name
    if dtype_name != "float16":  # where a score's own gradient, 1 / T, is too large
        alone = native_backward(p, native_forward(p), np.zeros_like(grad_out), np.ones((2, 4)))
        assert np.isfinite(alone["temperature"]).all()


@pytest.mark.parametrize("temperature", [1e4, 1e30])
def test_large_temperatures_give_the_mean(isa: str, temperature: float) -> None:
    p = replace(make_problem(2, 90, 4, 9), temperature=temperature)
    got = agree(p)
    mean = np.broadcast_to(p.key.mean(1, keepdims=True), (2, 4, 9))
    np.testing.assert_allclose(got["out"], mean, atol=2e-3)


@kinds
def test_zero_tokens(isa: str, dtype_name: str, activation: str | None, norm: str | None) -> None:
    p = make_problem(3, 70, 5, 12, dtype_name, activation=activation, norm=norm)
    key = p.key.copy()
    key[0] = 0
    key[1, ::3] = 0
    key[2, 1:] = 0
    got = agree(replace(p, key=key))
    finite(got)
    assert (got["out"][0] == 0).all()
    if norm:
        assert (got["bias"][0] == 0).all()


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_lengths_over_heads_around_the_smallest(
    isa: str, dtype: str, activation: str | None
) -> None:
    p = make_problem(1, 40, 3, 8, dtype, value_columns=4, activation=activation, norm="l2")
    for scale in (1e-30, 1e-20, 1e-14, 1e-13, 4e-13, 1.3e-12, 1.8e-12, 3e-12, 1e-11, 1e-6):
        y = p.key[0].astype(np.float64) @ p.query.astype(np.float64)
        key = p.key[0].astype(np.float64) / np.linalg.norm(y, axis=1, keepdims=True) * scale
        agree(replace(p, key=key.astype(p.key.dtype)[None]))


@pytest.mark.parametrize("sequences", [1, 20], ids=["cut", "whole"])
@kinds
def test_masked_blocks(
    isa: str, dtype_name: str, activation: str | None, norm: str | None, sequences: int
) -> None:
    p = make_problem(sequences, 600, 3, 8, dtype_name, activation=activation, norm=norm)
    mask = np.zeros((sequences, 600), bool)
    mask[:, 257:259] = True
    mask[:, 599] = True
    mask[0] = sequences == 1
    p = replace(p, key=np.where(mask[..., None], p.key, p.key.dtype.type(np.nan)), mask=mask)
    got = agree(p)
    finite({name: x for name, x in got.items() if name not in ("lse", "scores")})


@pytest.mark.parametrize("masking", ["lengths", "bool", "float", "ragged", "ragged bool"])
def test_sequences_of_nothing(isa: str, dtype_name: str, masking: str) -> None:
    rng = np.random.default_rng(0)
    shape = (10,) if "ragged" in masking else (3, 5)
    key = np.full((*shape, 6), np.nan, dtype_of(dtype_name))
    options: dict[str, Any] = {}
    if "ragged" in masking:
        options["cu_seqlens"] = np.array([0, 0, 10, 10])
    if masking == "ragged":
        key[...] = rng.standard_normal(key.shape)
    if "bool" in masking:
        options["mask"] = np.zeros(shape, bool)
    if masking == "float":
        options["mask"] = np.full(shape, -np.inf, np.float32)
    if masking == "lengths":
        options["lengths"] = np.zeros(3, np.int32)
    for query in (rng.standard_normal((6, 2)), rng.standard_normal((3, 6, 2)), None):
        q = None if query is None else query.astype(np.float32)
        got, expected = both(Problem(key, q, **options))
        for name in ("out", "weights", "key", "query", "temperature", "bias", "mask"):
            if name in got and masking != "ragged":
                assert (got[name] == 0).all(), name
        empty = expected["lse"] == -np.inf
        assert (got["lse"][empty] == -np.inf).all()
        assert (got["out"][empty] == 0).all()
        finite({name: x for name, x in got.items() if name not in ("lse", "scores")})


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_batches_of_nothing(isa: str, dtype_name: str, shape: tuple[int, int]) -> None:
    p = make_problem(*shape, 2, 6, dtype_name)
    got, expected = both(p)
    for name, x in got.items():
        assert x.shape == expected[name].shape
        assert not np.isnan(x.astype(np.float64)).any(), name
    ragged = Problem(
        np.zeros((0, 6), p.key.dtype), p.query, cu_seqlens=np.zeros(shape[0] + 1, np.int64)
    )
    got, _ = both(ragged)
    assert (got["out"] == 0).all()
    assert (got["query"] == 0).all()


@kinds
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_sequence(
    isa: str, dtype_name: str, value: float, activation: str | None, norm: str | None
) -> None:
    for tokens in (9, 600):
        p = make_problem(3, tokens, 3, 8, dtype_name, activation=activation, norm=norm)
        clean, _ = both(p)
        key = p.key.copy()
        key[1, tokens // 2, 3] = value
        saved = native_forward(replace(p, key=key))
        got = native_backward(replace(p, key=key), saved, *seeds_of(p))
        for name in ("out", "lse", "weights"):
            for b in (0, 2):
                assert saved[name][b].tobytes() == clean[name][b].tobytes()
        for name in ("key", "temperature", "bias", "mask"):
            for b in (0, 2):
                assert got[name][b].tobytes() == clean[name][b].tobytes()
        if np.isnan(value):
            assert np.isnan(saved["out"][1].astype(np.float64)).all()
            assert np.isnan(saved["lse"][1]).all()
        assert not np.isfinite(saved["out"][1, :, 3].astype(np.float64)).any()


def test_nan_in_one_column_of_a_value_stays_there(isa: str, dtype_name: str) -> None:
    p = make_problem(1, 100, 3, 8, dtype_name, value_columns=6)
    p.value[0, 70, 2] = np.nan
    got = native_forward(p)
    columns = np.isnan(got["out"].astype(np.float64)).any(axis=(0, 1))
    assert columns.tolist() == [False, False, True, False, False, False]
    assert np.isfinite(got["lse"]).all()


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("tokens", [3, 64, 700])
def test_a_bias_of_minus_infinity_takes_a_token_from_a_head(
    isa: str, dtype_name: str, tokens: int, activation: str | None
) -> None:
    p = make_problem(2, tokens, 3, 8, dtype_name, activation=activation, bias="both")
    p.bias[0, : tokens // 2, 1] = -np.inf
    p.bias[1, tokens - 1, :] = -np.inf
    got, expected = both(p)
    grad_out, grad_lse = seeds_of(p)
    check(p, got, expected, limits(p, expected, grad_out, grad_lse))
    finite(got)


def test_a_head_without_tokens_is_empty(isa: str, dtype_name: str) -> None:
    for tokens in (3, 700):
        p = make_problem(2, tokens, 3, 8, dtype_name, bias="both")
        p.bias[1, :, 2] = -np.inf
        got, _ = both(p)
        assert (got["out"][1, 2] == 0).all()
        assert got["lse"][1, 2] == -np.inf
        assert (got["weights"][1, 2] == 0).all()
        finite({name: x for name, x in got.items() if name != "lse"})


def test_denormal_tokens(isa: str) -> None:
    tiny = np.float32(1e-41)
    p = Problem(np.full((1, 9, 3), tiny), np.ones((3, 2), np.float32))
    got = native_forward(p)
    assert (np.abs(got["out"] - tiny) <= tiny * 1e-3).all() or (got["out"] == 0).all()
    np.testing.assert_allclose(got["lse"], np.log(9), rtol=1e-6)
