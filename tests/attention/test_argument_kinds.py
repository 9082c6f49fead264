# SPDX-License-Identifier: Apache-2.0
"""What the functions of `embedcore.attention` take: array libraries, layouts, dtypes, no tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import attention
from support.kinds import Exporter, dtype_of, to_torch

Array = np.ndarray[Any, Any]
PLACES: dict[str, Callable[[Array], Any]] = {
    "exporter": lambda x: Exporter(x.copy()),
    "old exporter": lambda x: Exporter(x.copy(), versioned=False),
    "memoryview": lambda x: np.ascontiguousarray(x).data,
    "Fortran order": lambda x: np.array(x, order="F"),
    "last axis backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "first axis backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


KEY, QUERY = normal(2, 5, 4), normal(4, 3)
MASK = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], bool)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_every_argument_may_be_of_another_kind(place: Callable[[Array], Any]) -> None:
    options: dict[str, Any] = {
        "context": normal(2, 4), "P": normal(4, 3, seed=1), "mask": MASK, "bias": KEY[..., 0],
        "lengths": np.array([4, 3]), "temperature": np.ones(3), "length_scale": np.ones(2),
    }  # fmt: skip
    expected = attention.low_rank_attention(KEY, QUERY, **options)
    given: dict[str, Any] = {name: place(x) for name, x in options.items()}
    got = attention.low_rank_attention(place(KEY), place(QUERY), **given)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, expected)
    weights, lengths = np.abs(KEY[..., 0]), np.array([3, 2])
    got = attention.mean_pool(place(KEY), lengths=place(lengths), weights=place(weights))
    np.testing.assert_array_equal(got, attention.mean_pool(KEY, lengths=lengths, weights=weights))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_other_functions_take_other_kinds(place: Callable[[Array], Any]) -> None:
    out, lse = attention.low_rank_attention(KEY, QUERY, return_lse=True)
    merged = attention.merge_states([place(out)] * 2, [place(lse)] * 2)
    np.testing.assert_allclose(merged[0], out, rtol=1e-6)
    np.testing.assert_allclose(merged[1], lse + np.log(2), rtol=1e-6)
    lengths = np.array([3, 700])
    np.testing.assert_array_equal(
        attention.length_law(place(lengths)), attention.length_law(lengths)
    )
    weights = np.abs(KEY[0]) / np.abs(KEY[0]).sum(1, keepdims=True)
    for name in ("effective_tokens", "high_frequency_gain"):
        function = getattr(attention, name)
        np.testing.assert_allclose(function(place(weights)), function(weights), rtol=1e-6)
    folded = attention.fold_multihead_attention(place(normal(1, 8)), 2, place(normal(24, 8)))
    expected = attention.fold_multihead_attention(normal(1, 8), 2, normal(24, 8))
    np.testing.assert_allclose(folded.query, expected.query, rtol=1e-6)
    pooled = normal(2, 2, 8)
    np.testing.assert_allclose(folded.project(place(pooled)), expected.project(pooled), rtol=1e-6)


@pytest.mark.parametrize(
    "lengths",
    [np.array([3, 9, 2, 9])[::2], np.array([3, 2], np.uint64), (3, 2), np.array([3, 2], np.int8)],
    ids=["strided", "uint64", "tuple", "int8"],
)
def test_lengths_of_any_integers(lengths: Any) -> None:
    expected = attention.low_rank_attention(KEY, QUERY, mask=np.arange(5) < [[3], [2]])
    np.testing.assert_array_equal(
        attention.low_rank_attention(KEY, QUERY, lengths=lengths), expected
    )


@pytest.mark.parametrize("number", [2, np.float32(2), np.float64(2), np.int64(2), np.array(2.0)])
def test_temperatures_of_any_numbers(number: Any) -> None:
    expected = attention.low_rank_attention(KEY, QUERY, temperature=2.0)
    np.testing.assert_array_equal(
        attention.low_rank_attention(KEY, QUERY, temperature=number), expected
    )


def test_everything_in_one_dtype(dtype_name: str) -> None:
    dtype = dtype_of(dtype_name)
    found = attention.low_rank_attention(
        KEY.astype(dtype), QUERY.astype(dtype), context="mean", P=QUERY.astype(dtype),
        mask=MASK.astype(dtype), bias=QUERY[0].astype(dtype), temperature=np.ones(2, dtype),
        length_scale=np.ones(2, dtype), return_lse=True, return_weights=True,
    )  # fmt: skip
    real = np.float64 if dtype_name == "float64" else np.float32
    assert [x.dtype for x in found] == [dtype, real, real]
    assert attention.mean_pool(KEY.astype(dtype), weights=MASK.astype(dtype)).dtype == dtype
    merged = attention.merge_states([found[0]] * 2, [found[1]] * 2)
    assert [x.dtype for x in merged] == [dtype, real]


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype_name", ["float16", "bfloat16"])
def test_mean_contexts_are_not_rounded_to_the_tokens(
    dtype_name: str, place: Callable[[Array], Any]
) -> None:
    key, P = (normal(2, 50, 4) + 1).astype(dtype_of(dtype_name)), place(normal(4, 3, seed=1))
    mean = place(key.astype(np.float32).mean(1))
    got, wanted = (
        attention.low_rank_attention(
            place(key), place(QUERY), context=context, P=P, return_lse=True
        )[1]
        for context in ("mean", mean)
    )
    np.testing.assert_allclose(got, wanted, rtol=3e-6)


@pytest.mark.parametrize("place", [np.asarray, to_torch], ids=["numpy", "torch"])
def test_no_tokens_and_no_sequences(place: Callable[[Array], Any]) -> None:
    for sequences, tokens in ((2, 0), (0, 5), (0, 0)):
        key, query = place(np.ones((sequences, tokens, 4))), place(np.ones((4, 3)))
        found = attention.low_rank_attention(
            key, query, context="mean", P=query, length_scale="log",
            return_lse=True, return_weights=True,
        )  # fmt: skip
        shapes = [tuple(x.shape) for x in found]
        assert shapes == [(sequences, 3, 4), (sequences, 3), (sequences, 3, tokens)]
        assert not np.asarray(found[0]).any()
        assert np.isneginf(np.asarray(found[1])).all()
        assert tuple(attention.mean_pool(key).shape) == (sequences, 4)
    packed, mask = place(np.ones((0, 4))), place(np.ones(0, bool))
    options: dict[str, Any] = {"cu_seqlens": [0, 0], "length_scale": "log", "mask": mask}
    assert tuple(attention.low_rank_attention(packed, query, **options).shape) == (1, 3, 4)
    for offsets, sequences in (([0], 0), ([0, 0], 1)):
        found = attention.effective_tokens(place(np.ones((3, 0))), offsets)
        assert tuple(found.shape) == (sequences, 3)


def test_only_weights_of_valid_tokens_are_looked_at() -> None:
    weights = np.ones((2, 5))
    weights[0, 4], weights[1, 3:] = -1, np.nan
    got = attention.mean_pool(KEY, weights=weights, lengths=[4, 3])
    np.testing.assert_allclose(got, [KEY[0, :4].mean(0), KEY[1, :3].mean(0)], rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"'weights' must be non-negative and finite; got nan at"):
        attention.mean_pool(KEY, weights=weights, lengths=[4, 4])
