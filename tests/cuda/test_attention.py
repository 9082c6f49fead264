# SPDX-License-Identifier: Apache-2.0
"""The forward and backward of attention on a device, against those of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import _core, attention
from embedcore.attention import _on_device as on_device
from embedcore.attention._device_arrays import log_weights

WHERE = "attention.low_rank_attention"
SEQUENCES, TOKENS, COLUMNS, HEADS, VALUES = 3, 21, 12, 5, 9
# Each of the two may be off by 1e-6 times the largest exponent of the softmax.
TOLERANCE = 2e-6

Array = np.ndarray[Any, Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def padded() -> dict[str, Any]:
    return {
        "key": numbers(SEQUENCES, TOKENS, COLUMNS),
        "query": numbers(COLUMNS, HEADS, seed=1),
        "value": None, "offsets": None, "lengths": None, "mask": None, "bias": None,
        "temperature": 0.7,
    }  # fmt: skip


def ragged() -> dict[str, Any]:
    return {
        **padded(),
        "key": numbers(TOKENS, COLUMNS),
        "offsets": np.array([0, 4, 4, TOKENS]),
    }


def _keep(*shape: int) -> Array:
    keep = np.random.default_rng(5).random(shape) < 0.7
    keep[..., 0] = True
    return keep


CASES: dict[str, dict[str, Any]] = {
    "plain": padded(),
    "values": {**padded(), "value": numbers(SEQUENCES, TOKENS, VALUES, seed=2)},
    "lengths": {**padded(), "lengths": np.array([TOKENS, 0, 7], np.int32)},
    "keep": {**padded(), "mask": _keep(SEQUENCES, TOKENS)},
    "mask": {**padded(), "mask": numbers(SEQUENCES, TOKENS, seed=3)},
    "bias": {**padded(), "bias": numbers(1, TOKENS, HEADS, seed=4)},
    "temperatures": {**padded(), "temperature": np.array([[0.5], [1.0], [2.0]], np.float32)},
    "factor each": {**padded(), "query": numbers(SEQUENCES, COLUMNS, HEADS, seed=1)},
    "mean": {**padded(), "query": None},
    "ragged": ragged(),
    "ragged values": {**ragged(), "value": numbers(TOKENS, VALUES, seed=2)},
    "no tokens": {**padded(), "key": numbers(3, 0, 12), "value": numbers(3, 0, VALUES)},
    "no sequences": {**padded(), "key": numbers(0, 4, 12)},
    "ragged int32": {**ragged(), "offsets": np.array([0, 4, 4, TOKENS], np.int32)},
    "ragged mask": {**ragged(), "mask": numbers(TOKENS, seed=3), "bias": numbers(TOKENS, 1)},
}


def shapes(given: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the result and of the scores."""
    key, offsets = given["key"], given["offsets"]
    sequences = key.shape[0] if offsets is None else offsets.shape[0] - 1
    heads = 1 if given["query"] is None else given["query"].shape[-1]
    value = key if given["value"] is None else given["value"]
    scores = (heads, key.shape[0]) if offsets is not None else (sequences, heads, key.shape[1])
    return (sequences, heads, value.shape[-1]), scores


def forward(module: Any, given: dict[str, Any], made: Any, norm: int) -> dict[str, Any]:
    """Run the forward; `made` makes an array of NaN, all of which has to be written."""
    pooled, scores = shapes(given)
    results = {
        "out": made(pooled),
        "lse": made(pooled[:2]),
        "scores": None if given["query"] is None else made(scores),
        "weights": made(scores),
    }
    inputs = [given[name] for name in ("key", "value", "query", "offsets", "lengths", "mask")]
    module.attention_forward(
        WHERE, *inputs, given["bias"], given["temperature"], norm, norm, 1, *results.values()
    )
    return results


def backward(
    module: Any, given: dict[str, Any], results: dict[str, Any], made: Any, upstream: Any, norm: int
) -> dict[str, Any]:
    (sequences, heads, _), scores = shapes(given)
    each = given["query"] is not None and len(given["query"].shape) == 3
    gradients = {
        "key": made(given["key"].shape),
        "value": None if given["value"] is None else made(given["value"].shape),
        "query": None
        if given["query"] is None
        else made((sequences if each else 1, heads, COLUMNS)),
        "temperature": made((sequences, heads)),
        "bias": made(scores),
        "mask": made(given["key"].shape[:-1]),
    }
    inputs = [given[name] for name in ("key", "value", "query", "offsets", "lengths", "mask")]
    module.attention_backward(
        WHERE, *inputs, given["bias"], given["temperature"], norm, norm, 1, upstream,
        results["out"], results["lse"], results["scores"], None, None, *gradients.values(), False,
    )  # fmt: skip
    return gradients


def on(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {
        name: kind.to_device(value) if isinstance(value, np.ndarray) else value
        for name, value in given.items()
    }


def agree(kind: Any, got: dict[str, Any], expected: dict[str, Any], exponent: float) -> None:
    for name, right in expected.items():
        if right is not None:
            size = max(1.0, float(np.abs(right[np.isfinite(right)]).max(initial=0.0)))
            limit = TOLERANCE * size * max(1.0, exponent)
            np.testing.assert_allclose(
                kind.to_host(got[name]), right, rtol=0, atol=limit, err_msg=name
            )


def largest_exponent(given: dict[str, Any], scores: Array | None) -> float:
    if scores is None:
        return 0.0
    return float(np.abs(scores).max(initial=0.0) / np.min(given["temperature"]))


@pytest.mark.parametrize("norm", [0, 1], ids=["plain scores", "tanh and l2"])
@pytest.mark.parametrize("name", CASES)
def test_attention_is_that_of_the_cpu(kind: Any, name: str, norm: int) -> None:
    given, there = CASES[name], on(kind, CASES[name])
    norm = 0 if given["query"] is None else norm

    def unwritten(shape: tuple[int, ...]) -> Array:
        return np.full(shape, np.nan, np.float32)

    def unwritten_there(shape: tuple[int, ...]) -> Any:
        return kind.to_device(unwritten(shape))

    expected = forward(_core, given, unwritten, norm)
    got = forward(on_device, there, unwritten_there, norm)
    exponent = largest_exponent(given, expected["scores"])
    agree(kind, got, expected, exponent)
    upstream = numbers(*expected["out"].shape, seed=9)
    right = backward(_core, given, expected, unwritten, upstream, norm)
    found = backward(on_device, there, got, unwritten_there, kind.to_device(upstream), norm)
    agree(kind, found, right, exponent)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"key": np.ones((3, 21, 12))}, TypeError, "'key' must be float16, bfloat16 or float32 on"),
        (
            {"key": np.ones((21, 12), np.float32)},
            ValueError,
            "'key' must be a 3-D array; got shape",
        ),
        ({"query": np.ones((11, 5), np.float32)}, ValueError, r"'query' must have shape \(12, hea"),
        ({"lengths": np.array([1, 2])}, ValueError, r"'lengths' must have shape \(3,\); got shape"),
        ({"lengths": np.ones(3, np.float32)}, TypeError, "'lengths' must be of an integer dtype"),
        ({"value": numbers(3, 20, 9)}, ValueError, r"'value' must have shape \(3, 21, 9\); got"),
        ({"mask": numbers(3, 20)}, ValueError, r"'mask' must have shape \(3, 21\); got shape"),
        (
            {"bias": numbers(3, 21, 4)},
            ValueError,
            r"'bias' must have shape \(3, 21, 5\); got shape",
        ),
        ({"temperature": 0.0}, ValueError, "'temperature' must be positive and finite; got 0"),
        ({"temperature": numbers(2, 5)}, ValueError, r"'temperature' must have shape \(3, 5\); "),
    ],
)
def test_arguments_of_attention_that_do_not_fit(
    kind: Any, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"^{WHERE}: {words}"):
        forward(
            on_device, on(kind, {**padded(), **changed}),
            lambda shape: kind.to_device(np.zeros(shape, np.float32)), 0,
        )  # fmt: skip


def public(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Arguments of `attention.low_rank_attention`."""
    found = {**given, **options, "cu_seqlens": given["offsets"]}
    return {name: value for name, value in found.items() if name not in ("offsets", "bias")}


@pytest.mark.parametrize("name", ["plain", "values", "lengths", "keep", "factor each", "ragged"])
def test_low_rank_attention_takes_arrays_of_the_device(kind: Any, name: str) -> None:
    options = {"activation": "tanh", "norm": "l2", "return_lse": True, "return_weights": True}
    got = attention.low_rank_attention(**public(on(kind, CASES[name]), **options))
    expected = attention.low_rank_attention(**public(CASES[name], **options))
    for one, right in zip(got, expected, strict=True):
        finite = np.isfinite(right)
        np.testing.assert_array_equal(np.isfinite(kind.to_host(one)), finite)
        np.testing.assert_allclose(
            kind.to_host(one)[finite], right[finite], rtol=0, atol=10 * TOLERANCE
        )


def test_lists_of_lengths_and_offsets(kind: Any) -> None:
    key, query = padded()["key"], padded()["query"]
    there = kind.to_device(key), kind.to_device(query)
    got = attention.low_rank_attention(*there, lengths=[21, 0, 7])
    expected = attention.low_rank_attention(key, query, lengths=[21, 0, 7])
    np.testing.assert_allclose(kind.to_host(got), expected, rtol=0, atol=10 * TOLERANCE)
    rows = kind.to_device(key[0])
    got = attention.low_rank_attention(rows, there[1], cu_seqlens=[0, 4, 21])
    expected = attention.low_rank_attention(key[0], query, cu_seqlens=[0, 4, 21])
    np.testing.assert_allclose(kind.to_host(got), expected, rtol=0, atol=10 * TOLERANCE)


def test_mean_pool_takes_arrays_of_the_device(kind: Any) -> None:
    key, keep = padded()["key"], _keep(SEQUENCES, TOKENS)
    got = attention.mean_pool(kind.to_device(key), mask=kind.to_device(keep))
    expected = attention.mean_pool(key, mask=keep)
    np.testing.assert_allclose(kind.to_host(got), expected, rtol=0, atol=TOLERANCE)
    rows = key[0]
    got = attention.mean_pool(kind.to_device(rows), cu_seqlens=[0, 4, 21])
    np.testing.assert_allclose(
        kind.to_host(got), attention.mean_pool(rows, cu_seqlens=[0, 4, 21]), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("masked", [False, True])
def test_mean_pool_with_weights_on_the_device(kind: Any, masked: bool) -> None:
    if kind.emulated:
        pytest.skip("emulated arrays have no arithmetic")
    key = padded()["key"]
    weights = np.random.default_rng(3).random((SEQUENCES, TOKENS)).astype(np.float32)
    weights[0], weights[1, 3] = 0, 0
    options = {"weights": weights, "mask": _keep(SEQUENCES, TOKENS) if masked else None}
    got = attention.mean_pool(kind.to_device(key), **on(kind, options))
    expected = attention.mean_pool(key, **options)
    np.testing.assert_allclose(kind.to_host(got), expected, rtol=0, atol=TOLERANCE)


def test_logarithms_of_weights() -> None:
    weights = np.array([[0.0, 1.0, 4.0, -1.0]], np.float16)
    mask = np.array([[True, True, False, True]])
    found = log_weights(weights, mask)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[-np.inf, 0.0, -np.inf, np.nan]])
    np.testing.assert_allclose(log_weights(weights, None)[0, 2], np.log(4.0), rtol=1e-6)


def test_weights_of_mean_pool_that_do_not_fit(kind: Any) -> None:
    if kind.name == "torch":
        pytest.skip("errors of tensors are in tests/torch_face")
    key = kind.to_device(padded()["key"])
    with pytest.raises(ValueError, match=r"'weights' must have one value for each token \(3, 21\)"):
        attention.mean_pool(key, weights=kind.to_device(numbers(3, 20)))


@pytest.mark.parametrize("others", [False, True])
def test_rows_that_are_too_long(kind: Any, others: bool) -> None:
    given = {**padded(), "key": np.zeros((1, 1, 60_000), np.float32)}
    given["query"] = np.zeros((60_000, HEADS), np.float32)
    given["value"] = np.zeros((1, 1, VALUES), np.float32) if others else None
    words = "'key' and 'value' must have rows of at most" if others else "'key' must have rows of"
    with pytest.raises(NotImplementedError, match=f"^{WHERE}: {words} .* on this GPU; got 60000"):
        forward(on_device, on(kind, given), lambda shape: kind.to_device(numbers(*shape)), 0)


@pytest.mark.parametrize("form", ["context", "mean", "temperatures", "law"])
def test_what_surrounds_the_kernel_is_computed_on_the_device(kind: Any, form: str) -> None:
    if kind.emulated:
        pytest.skip("emulated arrays have no arithmetic")
    key, query = padded()["key"], padded()["query"]
    options: dict[str, Any] = {
        "context": {"context": numbers(SEQUENCES, COLUMNS, seed=7), "P": numbers(12, 5, seed=8)},
        "mean": {"context": "mean", "P": numbers(COLUMNS, HEADS, seed=8)},
        "temperatures": {"temperature": np.linspace(1, 2, HEADS, dtype=np.float32)},
        "law": {"length_scale": "log", "lengths": np.array([21, 3, 9])},
    }[form]
    got = attention.low_rank_attention(
        kind.to_device(key), kind.to_device(query), **on(kind, options)
    )
    expected = attention.low_rank_attention(key, query, **options)
    np.testing.assert_allclose(kind.to_host(got), expected, rtol=0, atol=50 * TOLERANCE)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"lengths": [1.5, 2.0, 3.0]},
            TypeError,
            "'lengths' must have an integer dtype; got float",
        ),
        ({"lengths": [1, 2, 3], "cu_seqlens": [0, 1]}, ValueError, "'lengths' must not be given"),
        ({"context": "median"}, ValueError, "'context' must be an array or 'mean'; got 'median'"),
        ({"threads": -3}, ValueError, "'threads' must be from 1 to 1024; got -3"),
        ({"value": [1]}, TypeError, "'value' must be a .* on device cuda:0, as 'key' is; got list"),
        ({"activation": "relu"}, ValueError, "'activation' must be"),
    ],
)
def test_options_of_the_public_function_that_do_not_fit(
    kind: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    if kind.name == "torch":
        pytest.skip("errors of tensors are in tests/torch_face")
    there = kind.to_device(padded()["key"]), kind.to_device(padded()["query"])
    with pytest.raises(error, match=f"^{WHERE}: {words}"):
        attention.low_rank_attention(*there, **options)


def test_out_of_another_shape(kind: Any) -> None:
    there = kind.to_device(padded()["key"]), kind.to_device(padded()["query"])
    with pytest.raises(ValueError, match=f"^{WHERE}: 'out' must have "):
        attention.low_rank_attention(*there, out=kind.to_device(numbers(3)))


def test_ragged_tokens_of_no_sequence_get_zeros(kind: Any) -> None:
    given = {**ragged(), "offsets": np.array([2, 6, 6, 17])}  # the CPU refuses these

    def unwritten(shape: tuple[int, ...]) -> Any:
        return kind.to_device(np.full(shape, np.nan, np.float32))

    there = on(kind, given)
    results = forward(on_device, there, unwritten, 0)
    upstream = kind.to_device(numbers(3, HEADS, COLUMNS, seed=9))
    gradients = backward(on_device, there, results, unwritten, upstream, 0)
    outside = np.r_[0:2, 17:TOKENS]
    for name in ("scores", "weights"):
        assert (kind.to_host(results[name])[:, outside] == 0).all()
    assert (kind.to_host(gradients["key"])[outside] == 0).all()
    assert (kind.to_host(gradients["bias"])[:, outside] == 0).all()
    assert (kind.to_host(gradients["mask"])[outside] == 0).all()
    inner = {**given, "key": given["key"][2:17], "offsets": given["offsets"] - 2}
    expected = forward(_core, inner, lambda shape: np.full(shape, np.nan, np.float32), 0)
    np.testing.assert_allclose(kind.to_host(results["out"]), expected["out"], rtol=0, atol=1e-4)


def test_what_rounding_left_makes_the_backward_exact(kind: Any) -> None:
    # Tokens that have much in common, whose gradients cancel but for what out is off by. Few heads:
    # of more, tensor cores round the gradients of scores.
    heads = 3
    tokens = (1.0 + 0.1 * numbers(SEQUENCES, 200, COLUMNS)).astype(np.float16)
    query = numbers(COLUMNS, heads, seed=1)
    given = {**padded(), "key": tokens, "query": query, "temperature": 0.1}
    there = on(kind, given)

    def made(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return kind.to_device(np.full(shape, 0, dtype))

    pooled, scores = shapes(given)
    out, rest, wide = made(pooled, np.float16), made(pooled, np.int8), made(pooled)
    saved = {"lse": made(pooled[:2]), "scores": made(scores)}
    inputs = [there[name] for name in ("key", "value", "query", "offsets", "lengths", "mask")]
    on_device.attention_forward(
        WHERE, *inputs, None, 0.1, 1, 1, 1, out, saved["lse"], saved["scores"], None, wide, rest
    )
    upstream = kind.to_device(numbers(*pooled, seed=9))

    def of_query(of_out: Any, *of_rest: Any) -> Array:
        found = made((1, heads, COLUMNS))
        on_device.attention_backward(
            WHERE, *inputs, None, 0.1, 1, 1, 1, upstream, of_out, saved["lse"], saved["scores"],
            None, None, None, None, found, None, None, None, False, *of_rest,
        )  # fmt: skip
        return np.asarray(kind.to_host(found))

    right = of_query(wide)
    largest = np.abs(right).max()
    rounded = np.abs(of_query(out) - right).max()
    assert rounded > 1e-3 * largest
    assert np.abs(of_query(out, rest) - right).max() <= rounded / 64  # of 256 steps, a half each


def test_rest_of_another_dtype(kind: Any) -> None:
    there = on(kind, padded())
    inputs = [there[name] for name in ("key", "value", "query", "offsets", "lengths", "mask")]
    pooled, _ = shapes(padded())
    out, rest = (kind.to_device(np.zeros(pooled, dtype)) for dtype in (np.float32, np.int8))
    words = "'rest' must be NULL unless 'key' and 'out' are both float16 or both bfloat16"
    with pytest.raises(TypeError, match=f"^{WHERE}: {words}"):
        on_device.attention_forward(
            WHERE, *inputs, None, 1.0, 0, 0, 1, out, None, None, None, None, rest
        )
