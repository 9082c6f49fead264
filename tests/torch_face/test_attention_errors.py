# SPDX-License-Identifier: Apache-2.0
"""What `torch.low_rank_attention` and `torch.mean_pool` refuse, and the words they use."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from embedcore.torch import low_rank_attention, mean_pool  # noqa: E402

KEY, QUERY = torch.ones(2, 5, 4), torch.ones(4, 3)
WHERE = "attention.low_rank_attention"

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "key no tensor": (
        {"key": np.ones((2, 5, 4), np.float32)}, TypeError,
        "'key' must be a torch.Tensor; got ndarray.",
    ),
    "query no tensor": (
        {"query": np.ones((4, 3), np.float32)}, TypeError,
        "'query' must be a torch.Tensor; got ndarray.",
    ),
    "query rows": (
        {"query": torch.ones(5, 3)}, ValueError,
        "'query' must have as many rows as 'key' has columns (4); got shape (5, 3).",
    ),
    "integer key": (
        {"key": torch.ones(2, 5, 4, dtype=torch.int64)}, TypeError,
        "'key' must be float16, bfloat16, float32 or float64; got int64.",
    ),
    "integer mask": (
        {"mask": torch.ones(2, 5, dtype=torch.int64)}, TypeError,
        "'mask' must be boolean (true where a token counts) or floating-point (added to the "
        "scores); got torch.int64. Use mask != 0.",
    ),
    "float lengths": (
        {"lengths": torch.ones(2)}, TypeError,
        "'lengths' must have an integer dtype; got torch.float32.",
    ),
    "lengths and offsets": (
        {"lengths": [1, 2], "cu_seqlens": [0, 1, 2]}, ValueError,
        "'lengths' must not be given together with 'cu_seqlens', which has the lengths already; "
        "got both.",
    ),
    "temperature": (
        {"temperature": -1}, ValueError,
        "'temperature' must be positive and finite; got -1.",
    ),
    "temperature shape": (
        {"temperature": torch.ones(7)}, ValueError,
        "'temperature' must be a number or have shape (3,) for the heads, (2,) for the sequences "
        "or (2, 3); got shape (7,).",
    ),
    "context alone": (
        {"context": torch.ones(4)}, ValueError,
        "'P' must be given together with 'context'; got None.",
    ),
    "mean context alone": (
        {"context": "mean"}, ValueError,
        "'P' must be given together with 'context'; got None.",
    ),
    "P alone": (
        {"P": QUERY}, ValueError, "'context' must be given together with 'P'; got None.",
    ),
    "context name": (
        {"context": "median", "P": QUERY}, ValueError,
        "'context' must be a tensor or 'mean'; got 'median'.",
    ),
    "P shape": (
        {"context": "mean", "P": torch.ones(4, 2)}, ValueError,
        "'P' must have the shape of 'query' (4, 3); got shape (4, 2).",
    ),
    "query rows with a mean": (
        {"context": "mean", "P": torch.ones(5, 3), "query": torch.ones(5, 3)}, ValueError,
        "'query' must have as many rows as 'key' has columns (4); got shape (5, 3).",
    ),
    "no key": ({"key": None}, TypeError, "'key' must be a torch.Tensor; got NoneType."),
    "no query": ({"query": None}, TypeError, "'query' must be a torch.Tensor; got NoneType."),
    "value a number": ({"value": 1.0}, TypeError, "'value' must be a torch.Tensor; got float."),
    "out a list": ({"out": [1]}, TypeError, "'out' must be a torch.Tensor; got list."),
    "temperature of NumPy": (
        {"temperature": np.ones(3, np.float32)}, TypeError,
        "'temperature' must be a torch.Tensor; got ndarray.",
    ),
    "length scale of NumPy": (
        {"length_scale": np.ones(2, np.float32)}, TypeError,
        "'length_scale' must be a torch.Tensor; got ndarray.",
    ),
    "length scale": (
        {"length_scale": torch.tensor([1.0, -1.0]), "temperature": torch.ones(3)}, ValueError,
        "'length_scale' must be positive and finite; got -1.0 for sequence 1.",
    ),
    "axes of key": (
        {"key": torch.ones(2, 4)}, ValueError,
        "'key' must have shape (sequences, tokens, columns); got shape (2, 4).",
    ),
    "axes of ragged key": (
        {"cu_seqlens": [0, 5]}, ValueError,
        "'key' must have shape (tokens, columns) with 'cu_seqlens'; got shape (2, 5, 4).",
    ),
    "axes of query": (
        {"query": torch.ones(())}, ValueError,
        "'query' must have two axes (columns, heads) or three; got shape ().",
    ),
    "axes of value": (
        {"value": torch.ones(())}, ValueError,
        "'value' must have one row for each token of 'key' (2, 5); got shape ().",
    ),
    "no offsets": (
        {"key": torch.ones(5, 4), "cu_seqlens": []}, ValueError,
        "'cu_seqlens' must have shape (sequences + 1,); got shape (0,).",
    ),
    "axes of offsets": (
        {"key": torch.ones(5, 4), "cu_seqlens": [[0, 5]]}, ValueError,
        "'cu_seqlens' must have shape (sequences + 1,); got shape (1, 2).",
    ),
    "offsets that are no integers": (
        {"key": torch.ones(5, 4), "cu_seqlens": [0.5, 5.0]}, TypeError,
        "'cu_seqlens' must have an integer dtype; got torch.float32.",
    ),
    "lengths with a law": (
        {"lengths": [1, 2, 3], "mask": torch.ones(2, 5) > 0, "length_scale": "log"}, ValueError,
        "'lengths' must have one value for each sequence (2,); got shape (3,).",
    ),
    "ragged mask with a law": (
        {"key": torch.ones(5, 4), "cu_seqlens": [0, 5], "mask": torch.ones(4) > 0,
         "length_scale": "log"}, ValueError,
        "'mask' must have one value for each token of 'key' (5,); got shape (4,).",
    ),
    "integer P": (
        {"context": torch.ones(4), "P": QUERY.int()}, TypeError,
        "'P' must be float16, bfloat16, float32 or float64; got torch.int32.",
    ),
    "integer context": (
        {"context": torch.ones(4).int(), "P": QUERY}, TypeError,
        "'context' must be float16, bfloat16, float32 or float64; got torch.int32.",
    ),
    "key elsewhere": (
        {"key": KEY.to("meta")}, TypeError,
        "'query' must be on the device of 'key' (meta); got device cpu.",
    ),
    "bias elsewhere": (
        {"bias": torch.ones(3, device="meta")}, TypeError,
        "'bias' must be on the device of 'key' (cpu); got device meta.",
    ),
    "bias shape": (
        {"bias": torch.ones(7)}, ValueError,
        "'bias' must have shape (3,), (2, 5) or (2, 5, 3); got shape (7,).",
    ),
    "activation": (
        {"activation": "relu"}, ValueError,
        "'activation' must be one of 'tanh'; got 'relu'.",
    ),
    "norm": (
        {"norm": "l1"}, ValueError,
        "'norm' must be one of 'l2'; got 'l1'; did you mean 'l2'?",
    ),
    "threads": ({"threads": 0}, ValueError, "'threads' must be from 1 to 1024; got 0."),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    changed, kind, text = REFUSED[name]
    with pytest.raises(kind, match="^" + re.escape(f"{WHERE}: {text}") + "$"):
        low_rank_attention(**{"key": KEY, "query": QUERY, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"lengths": [5, 6]},
        {"lengths": [-1, 2]},
        {"lengths": [1, 2, 3]},
        {"mask": torch.ones(2, 4, dtype=torch.bool)},
        {"value": torch.ones(2, 4, 4)},
        {"key": torch.ones(5, 4), "cu_seqlens": [0, 3, 2]},
        {"key": torch.ones(5, 4), "cu_seqlens": [0, 3]},
        {"temperature": torch.tensor([1.0, 0.0, 1.0])},
        {"temperature": torch.tensor([1.0, torch.nan, 1.0])},
        {"temperature": float("nan")},
    ],
    ids=str,
)
@pytest.mark.parametrize("recorded", [False, True])
def test_refused_by_the_kernel(changed: dict[str, Any], recorded: bool) -> None:
    query = QUERY.clone().requires_grad_(recorded)
    name = next(iter(set(changed) - {"key"}))
    with pytest.raises(ValueError, match=f"^{WHERE}: '{name}' must "):
        low_rank_attention(**{"key": KEY, "query": query, **changed})


def test_other_devices_are_refused() -> None:
    with torch._subclasses.FakeTensorMode():
        key, query = torch.ones(2, 5, 4, device="mps"), torch.ones(4, 3, device="mps")
        text = f"{WHERE}: 'key' must be on the CPU or a CUDA device; got device mps:0."
        with pytest.raises(TypeError, match="^" + re.escape(text) + "$"):
            low_rank_attention(key, query)
        with pytest.raises(TypeError, match="'tokens' must be on the CPU or a CUDA device"):
            mean_pool(key)


def test_results_are_where_the_tokens_are() -> None:
    with torch._subclasses.FakeTensorMode():
        key, query = torch.ones(2, 5, 4, device="cuda"), torch.ones(4, 3, device="cuda")
        pooled = low_rank_attention(key, query, lengths=[3, 5], norm="l2", return_lse=True)
        for found, shape in zip(pooled, ((2, 3, 4), (2, 3)), strict=True):
            assert found.device == torch.device("cuda", 0)
            assert found.shape == shape
        assert mean_pool(key, weights=torch.ones(2, 5, device="cuda")).device.type == "cuda"
        with pytest.raises(TypeError, match=r"'query' must be on the device of 'key' \(cuda:0\)"):
            low_rank_attention(key, torch.ones(4, 3))


@pytest.mark.parametrize("elsewhere", ["key", "query", "value", "mask"])
def test_mixed_devices_are_refused(elsewhere: str) -> None:
    given = {"key": KEY, "query": QUERY, "value": KEY, "mask": torch.ones(2, 5) > 0}
    given[elsewhere] = given[elsewhere].to("meta")
    with pytest.raises(TypeError, match=f"^{WHERE}: '[a-z]*' must be "):
        low_rank_attention(**given)


@pytest.mark.parametrize("recorded", ["key", "query", "temperature", "out"])
def test_out_where_gradients_are_recorded(recorded: str) -> None:
    given = {"key": KEY, "query": QUERY, "temperature": torch.ones(3), "out": torch.ones(2, 3, 4)}
    given[recorded] = given[recorded].clone().requires_grad_()
    with pytest.raises(
        TypeError, match=f"^{WHERE}: 'out' must not be given where a gradient is recorded; got "
    ):
        low_rank_attention(**given)
    with torch.no_grad():
        low_rank_attention(**given)


def test_mean_pool_refuses() -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"mask": torch.ones(2, 5)}, TypeError,
            "'mask' must be boolean (true where a token counts); got torch.float32. Give numbers "
            "as 'weights'.",
        ),
        (
            {"weights": torch.ones(2, 4)}, ValueError,
            "'weights' must have one value for each token (2, 5); got shape (2, 4).",
        ),
        (
            {"weights": torch.ones(2, 5, dtype=torch.int64)}, TypeError,
            "'weights' must be float16, bfloat16, float32 or float64; got torch.int64.",
        ),
        (
            {"weights": torch.ones(2, 5).index_put_((torch.tensor(1), torch.tensor(2)),
             torch.tensor(-1.0))}, ValueError,
            "'weights' must be non-negative and finite; got -1.0 at (1, 2).",
        ),
        (
            {"tokens": None}, TypeError, "'tokens' must be a torch.Tensor; got NoneType.",
        ),
        (
            {"tokens": KEY[0]}, ValueError,
            "'tokens' must have shape (sequences, tokens, columns); got shape (5, 4).",
        ),
        (
            {"mask": torch.ones(2, 4) > 0}, ValueError,
            "'mask' must have one value for each token of 'tokens' (2, 5); got shape (2, 4).",
        ),
        (
            {"out": torch.ones(2, 5)}, ValueError,
            "'out' must have the shape (2, 4); got shape (2, 5).",
        ),
    ]  # fmt: skip
    for changed, kind, text in cases:
        with pytest.raises(kind, match="^" + re.escape(f"attention.mean_pool: {text}") + "$"):
            mean_pool(**{"tokens": KEY, **changed})
