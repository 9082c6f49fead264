# SPDX-License-Identifier: Apache-2.0
"""`attention.low_rank_attention`: every option against the oracle, array kinds, out, threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import attention
from oracle import attention as oracle
from support.guard import guarded
from support.kinds import Exporter, dtype_of, to_torch

Array = np.ndarray[Any, Any]

B, L, DK, DV, M, R = 4, 11, 6, 5, 3, 2
PACKED = np.array([0, 4, 4, 11, 30])

# Sums in the factor, then in the scores, each about 1e-6 of what they sum; one rounding of the
# result and, for a mean context, of the mean.
TOLERANCES = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


HOLES = np.random.default_rng(2).random((B, L)) < 0.6

FACTORS: dict[str, dict[str, Any]] = {
    "shared": {"query": normal(DK, M, seed=1)},
    "per sequence": {"query": normal(B, DK, M, seed=1)},
    "vector": {"query": normal(DK, M, seed=1), "P": normal(DK, M), "context": normal(DK, seed=2)},
    "vector, rank 2": {
        "query": normal(DK, R, M, seed=1),
        "P": normal(DK, R, M),
        "context": normal(DK, seed=2),
    },
    "contexts": {
        "query": normal(DK, M, seed=1),
        "P": normal(DK, M),
        "context": normal(B, DK, seed=2),
    },
    "contexts, rank 2": {
        "query": normal(DK, R, M, seed=1),
        "P": normal(DK, R, M),
        "context": normal(B, DK, seed=2),
    },
    "mean": {"query": normal(DK, M, seed=1), "P": normal(DK, M), "context": "mean"},
    "mean, rank 2": {
        "query": normal(DK, R, M, seed=1),
        "P": normal(DK, R, M),
        "context": "mean",
    },
}
LIMITS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": np.array([4, 0, 11, 1])},
    "bool": {"mask": HOLES},
    "bool and lengths": {"mask": HOLES, "lengths": np.array([11, 3, 7, 9], np.int32)},
    "float": {"mask": np.where(HOLES, normal(B, L, seed=3), -np.inf)},
    "ragged": {"cu_seqlens": PACKED},
    "ragged, bool": {"cu_seqlens": PACKED.astype(np.int32), "mask": normal(30) > -0.5},
    "ragged, float": {"cu_seqlens": PACKED, "mask": normal(30, seed=4)},
}
BIASES: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "none": lambda tokens: None,
    "heads": lambda tokens: normal(M, seed=5),
    "tokens": lambda tokens: normal(*tokens, seed=5),
    "both": lambda tokens: normal(*tokens, M, seed=5),
}
TEMPERATURES: dict[str, Any] = {
    "number": 0.7,
    "heads": np.array([0.5, 1.5, 0.9]),
    "sequences": np.array([0.5, 1.5, 0.3, 1.0]),
    "column": np.array([[0.5], [1.5], [0.3], [1.0]]),
    "both": np.abs(normal(B, M, seed=6)) + 0.3,
}
LAWS: list[Any] = [None, "log", "sqrt_log", "log_squared", np.array([1.0, 2.0, 0.5, 3.0])]


def call_of(
    factor: str, limit: str, *, bias: str = "none", own: bool = False, **more: Any
) -> dict[str, Any]:
    tokens = (30,) if "ragged" in limit else (B, L)
    return {
        "key": normal(*tokens, DK, seed=7),
        "value": None if own else normal(*tokens, DV, seed=8),
        **FACTORS[factor],
        **LIMITS[limit],
        "bias": BIASES[bias](tokens),
        **more,
    }


def in_dtype(call: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Tokens, query, P and context in `dtype`; the rest float32, or float64 with float64."""
    wide = np.float64 if dtype == "float64" else np.float32
    found = dict(call)
    for name, x in call.items():
        if isinstance(x, np.ndarray) and x.dtype == np.float64:
            given = name in ("key", "value", "query", "P", "context")
            found[name] = x.astype(dtype_of(dtype) if given else wide)
    return found


def each_array(call: dict[str, Any], place: Callable[[Array], Any]) -> dict[str, Any]:
    return {n: place(x) if isinstance(x, np.ndarray) else x for n, x in call.items()}


def numbers(x: Any) -> Array:
    """Float64, of a NumPy array or a Torch tensor."""
    return (x.double().numpy() if hasattr(x, "double") else np.asarray(x)).astype(np.float64)


def agree(call: dict[str, Any], place: Callable[[Array], Any] = np.asarray) -> None:
    dtype = call["key"].dtype.name
    given = each_array(call, place)
    got = attention.low_rank_attention(
        given.pop("key"), given.pop("query"), return_lse=True, return_weights=True, **given
    )
    expected = oracle.low_rank_attention(**call)
    finite = expected.lse[np.isfinite(expected.lse)]
    steep = max(1.0, float(np.abs(finite).max(initial=0)))
    for found, wanted in zip(got, (expected.out, expected.lse, expected.weights), strict=True):
        assert found.shape == wanted.shape
        limit = TOLERANCES[dtype] * steep * (4 if dtype in ("bfloat16", "float16") else 1)
        np.testing.assert_allclose(numbers(found), wanted, rtol=limit, atol=limit)
    kind = type(place(call["key"]))
    assert all(isinstance(x, kind if kind is not Exporter else np.ndarray) for x in got)
    real = np.float64 if dtype == "float64" else np.float32
    assert [numbers_dtype(x) for x in got] == [dtype, np.dtype(real).name, np.dtype(real).name]


def numbers_dtype(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


KINDS: dict[str, Callable[[Array], Any]] = {"numpy": np.asarray, "torch": to_torch}
array_kinds = pytest.mark.parametrize("kind", KINDS)


@array_kinds
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("factor", FACTORS)
def test_factors_and_limits(factor: str, limit: str, dtype_name: str, kind: str) -> None:
    for own in (False, True):
        call = call_of(factor, limit, own=own, activation="tanh", temperature=0.5)
        agree(in_dtype(call, dtype_name), KINDS[kind])


@array_kinds
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("limit", LIMITS)
def test_temperatures_and_laws(limit: str, temperature: str, kind: str) -> None:
    for law in LAWS:
        for dtype in ("float32", "float64"):
            call = call_of(
                "shared", limit, temperature=TEMPERATURES[temperature], length_scale=law, norm="l2"
            )
            agree(in_dtype(call, dtype), KINDS[kind])


@array_kinds
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("limit", ["dense", "lengths", "float", "ragged", "ragged, float"])
def test_biases(limit: str, bias: str, kind: str) -> None:
    for activation in (None, "tanh"):
        for norm in (None, "l2"):
            call = call_of("mean", limit, bias=bias, activation=activation, norm=norm)
            agree(in_dtype(call, "float64"), KINDS[kind])


def test_a_temperature_for_heads_wins_over_one_for_sequences() -> None:
    key, query = normal(3, 9, 4), normal(4, 3)
    t = np.array([0.2, 1.0, 5.0])
    got = attention.low_rank_attention(key, query, temperature=t)
    heads = attention.low_rank_attention(key, query, temperature=np.tile(t, (3, 1)))
    np.testing.assert_array_equal(got, heads)
    column = attention.low_rank_attention(key, query, temperature=t[:, None])
    np.testing.assert_array_equal(
        column, attention.low_rank_attention(key, query, temperature=np.tile(t[:, None], (1, 3)))
    )


def test_a_bias_for_heads_wins_over_one_for_ragged_tokens() -> None:
    key, query, bias = normal(3, 4), normal(4, 3), normal(3, seed=1)
    got = attention.low_rank_attention(key, query, cu_seqlens=[0, 3], bias=bias)
    heads = attention.low_rank_attention(key, query, cu_seqlens=[0, 3], bias=np.tile(bias, (3, 1)))
    np.testing.assert_array_equal(got, heads)


@pytest.mark.parametrize("integers", [list, np.int32, np.int64, np.uint8, np.int16])
def test_lengths_and_offsets_of_any_integers(integers: Any) -> None:
    key, query = normal(3, 9, 4), normal(4, 2)
    packed = np.concatenate([key[0, :4], key[2]])
    dense = attention.low_rank_attention(key, query, lengths=integers([4, 0, 9]))
    ragged = attention.low_rank_attention(packed, query, cu_seqlens=integers([0, 4, 4, 13]))
    np.testing.assert_allclose(dense, ragged, rtol=1e-14)


@pytest.mark.parametrize("place", [guarded, Exporter, lambda x: x[::-1].copy()[::-1]])
@pytest.mark.parametrize("factor", ["mean, rank 2", "contexts", "per sequence"])
def test_other_arrays(place: Callable[[Array], Any], factor: str) -> None:
    for limit in ("bool and lengths", "ragged, float"):
        call = call_of(factor, limit, bias="both", temperature=TEMPERATURES["both"])
        agree(in_dtype(call, "float32"), place)


def test_what_is_returned() -> None:
    key, query = normal(2, 7, 4), normal(4, 3)
    out = attention.low_rank_attention(key, query)
    assert isinstance(out, np.ndarray)
    with_lse = attention.low_rank_attention(key, query, return_lse=True)
    with_weights = attention.low_rank_attention(key, query, return_weights=True)
    every = attention.low_rank_attention(key, query, return_lse=True, return_weights=True)
    assert [len(x) for x in (with_lse, with_weights, every)] == [2, 2, 3]
    assert all(isinstance(x, tuple) for x in (with_lse, with_weights, every))
    for part in (with_lse, with_weights, every):
        np.testing.assert_array_equal(part[0], out)
    assert (with_lse[1].shape, with_weights[1].shape) == ((2, 3), (2, 3, 7))
    np.testing.assert_array_equal(every[1], with_lse[1])
    np.testing.assert_array_equal(every[2], with_weights[1])


@array_kinds
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_out_is_written_and_returned(dtype: str, kind: str) -> None:
    place = KINDS[kind]
    key, query = normal(2, 7, 4).astype(dtype_of(dtype)), normal(4, 3).astype(np.float32)
    expected = attention.low_rank_attention(place(key), place(query))
    out = place(np.full((2, 3, 4), np.nan, key.dtype))
    assert attention.low_rank_attention(place(key), place(query), out=out) is out
    np.testing.assert_array_equal(numbers(out), numbers(expected))
    got = attention.low_rank_attention(
        place(key), place(query), lengths=[7, 7], out=out, return_lse=True
    )
    assert got[0] is out


def test_threads_do_not_show_in_the_bits(isa: str, thread_count: int) -> None:
    call = call_of("mean, rank 2", "lengths", activation="tanh", norm="l2")
    key = np.tile(call["key"], (1, 200, 1)).astype(np.float32)
    call.update(key=key, value=None, lengths=np.array([2200, 0, 1500, 7]))
    query = call.pop("query")
    del call["key"]
    results = {
        attention.low_rank_attention(key, query, threads=count, **call).tobytes()
        for count in (None, 1, 2, 7)
    }
    assert len(results) == 1


def test_inputs_are_left_alone() -> None:
    call = call_of("mean", "float", bias="both", temperature=TEMPERATURES["both"])
    for x in call.values():
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    before = {n: x.copy() for n, x in call.items() if isinstance(x, np.ndarray)}
    agree(call)
    for name, x in before.items():
        np.testing.assert_array_equal(x, call[name])
