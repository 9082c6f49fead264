# SPDX-License-Identifier: Apache-2.0
"""Bad input to the functions of `embedcore.attention`: each message by its words.

The same call with Torch tensors raises the same kind of error about the same argument.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from embedcore import attention
from support.kinds import to_torch

Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


KEY, QUERY, VALUE, PACKED = normal(3, 7, 4), normal(4, 2), normal(3, 7, 5), normal(21, 4)
INTEGERS = np.ones((3, 7), int)


class Bad(NamedTuple):
    """A call that is refused, with what the message says after the name of the function."""

    kind: type[Exception]
    text: str
    options: dict[str, Any]
    function: str = "low_rank_attention"

    @property
    def argument(self) -> str:
        return self.text.split("'")[1]


def value(text: str, **options: Any) -> Bad:
    return Bad(ValueError, text, options)


def kind(text: str, **options: Any) -> Bad:
    return Bad(TypeError, text, options)


def pool(error: type[Exception], text: str, **options: Any) -> Bad:
    return Bad(error, text, options, "mean_pool")


FLOATS = "must be float16, bfloat16, float32 or float64; got"
ANY_KIND = "must be an array (NumPy, Torch, or another with __dlpack__ or the buffer protocol); got"
SHAPED = "must be a 3-D array of shape (sequences, tokens, columns); got shape"
FACTOR = (
    "'query' must have shape (columns of 'key', heads), with one head at least, or one such factor "
    "for each sequence; got shape"
)
CONTEXT = "'context' must be (4,) or (3, 4), as many columns as 'query' has rows; got shape"
ADDED = "must be boolean (true where a token counts) or floating-point (added to the scores); got"
POSITIVE = "'temperature' must be positive and finite; got"
NUMBER = "'temperature' must be a number or a floating-point array; got"
HEADS = (
    "'temperature' must be a number or have shape (2,) for the heads, (3,) for the sequences or "
    "(3, 2); got shape"
)
BIAS = "'bias' must have shape (2,), (3, 7) or (3, 7, 2); got shape"
ENDS = "'cu_seqlens' must end with the number of tokens (21); got"
LAWS = "'length_scale' must be one of 'log', 'sqrt_log', 'log_squared'"
ONE = np.array([0, 21])

ARRAYS = [
    value(f"'key' {SHAPED} (7, 4). Give 'cu_seqlens' with tokens of shape (T, d).", key=KEY[0]),
    value(f"'key' {SHAPED} (4,).", key=KEY[0, 0]),
    value(
        "'key' must be a 2-D array of shape (tokens, columns) with 'cu_seqlens'; "
        "got shape (3, 7, 4).",
        cu_seqlens=ONE,
    ),
    value(
        "'key' must have at least one column; got shape (3, 7, 0).",
        key=KEY[..., :0],
        query=QUERY[:0],
    ),
    kind(f"'key' {FLOATS} int64.", key=KEY.astype(int)),
    kind(f"'key' {FLOATS} bool.", key=KEY > 0),
    kind(f"'key' {FLOATS} complex128.", key=KEY.astype(complex)),
    kind(f"'key' {ANY_KIND} list. Use numpy.asarray(key).", key=KEY.tolist()),
    kind(f"'key' {ANY_KIND} NoneType. Use numpy.asarray(key).", key=None),
    kind(f"'query' {ANY_KIND} NoneType. Use numpy.asarray(query).", query=None),
    kind(f"'query' {ANY_KIND} list. Use numpy.asarray(query).", query=QUERY.tolist()),
    kind(f"'query' {FLOATS} int64.", query=QUERY.astype(int)),
    value(
        "'query' must have as many rows as 'key' has columns (4); got shape (5, 2).",
        query=normal(5, 2),
    ),
    value(
        "'query' must have one factor for each sequence (3); got shape (2, 4, 2).",
        query=normal(2, 4, 2),
    ),
    value(f"{FACTOR} (4,).", query=QUERY[:, 0]),
    value(f"{FACTOR} (1, 3, 4, 2).", query=normal(1, 3, 4, 2)),
    value("'query' must have at least one head (column); got shape (4, 0).", query=QUERY[:, :0]),
    kind("'value' must have the dtype of 'key' (float64); got float32.", value=np.float32(VALUE)),
    kind(f"'value' {FLOATS} int64.", value=VALUE.astype(int)),
    value("'value' must have shape (3, 7, any); got shape (2, 7, 5).", value=VALUE[:2]),
    value("'value' must have shape (3, 7, any); got shape (3, 6, 5).", value=VALUE[:, :6]),
    value("'value' must have shape (3, 7, any); got shape (7, 5).", value=VALUE[0]),
    value("'value' must have at least one column; got 0.", value=VALUE[..., :0]),
]
CONTEXTS = [
    value("'P' must be given together with 'context'; got None.", context=normal(4)),
    value("'P' must be given together with 'context'; got None.", context="mean"),
    value("'context' must be given together with 'P'; got None.", P=QUERY),
    value("'context' must be an array or 'mean'; got 'max'.", context="max", P=QUERY),
    value(f"{CONTEXT} (5,).", context=normal(5), P=QUERY),
    value(f"{CONTEXT} (2, 4).", context=normal(2, 4), P=QUERY),
    value(f"{CONTEXT} (3, 4, 1).", context=normal(3, 4, 1), P=QUERY),
    value(
        "'P' must have the shape of 'query' (4, 2); got shape (4, 3).",
        context=normal(4),
        P=normal(4, 3),
    ),
    value(
        "'query' must have a rank of at least 1; got shape (4, 0, 2).",
        query=normal(4, 0, 2),
        context=normal(4),
        P=normal(4, 0, 2),
    ),
    value(
        "'query' must have at least one head; got shape (4, 2, 0).",
        query=normal(4, 2, 0),
        context=normal(4),
        P=normal(4, 2, 0),
    ),
    value(
        "'query' must have as many rows as 'key' has columns (4); got shape (5, 2).",
        query=normal(5, 2),
        context="mean",
        P=normal(5, 2),
    ),
    kind(f"'P' {FLOATS} int64.", context=normal(4), P=QUERY.astype(int)),
    kind(f"'context' {FLOATS} int64.", context=np.ones(4, int), P=QUERY),
]
LIMITS = [
    value(
        "'mask' must have one value for each token of 'key' (3, 7); got shape (3, 6).",
        mask=np.ones((3, 6), bool),
    ),
    value(
        "'mask' must have one value for each token of 'key' (21,); got shape (1, 21).",
        key=PACKED,
        cu_seqlens=ONE,
        mask=np.ones((1, 21), bool),
    ),
    kind(f"'mask' {ADDED} int64. Use mask != 0.", mask=INTEGERS),
    kind(f"'mask' {ADDED} uint8. Use mask != 0.", mask=INTEGERS.astype(np.uint8)),
    value(
        "'lengths' must have one number for each sequence (3); got shape (2,).",
        lengths=np.array([1, 2]),
    ),
    value("'lengths' must be a 1-D array; got shape (3, 1).", lengths=np.array([[1], [2], [3]])),
    value(
        "'lengths' must be from 0 to the number of tokens (7); got -1 for sequence 1.",
        lengths=np.array([1, -1, 9]),
    ),
    value(
        "'lengths' must be from 0 to the number of tokens (7); got 8 for sequence 2.",
        lengths=np.array([1, 7, 8]),
    ),
    kind("'lengths' must have an integer dtype; got float64.", lengths=np.ones(3)),
    kind("'lengths' must have an integer dtype; got bool.", lengths=np.ones(3, bool)),
    value(
        "'lengths' must not be given together with 'cu_seqlens', which has the lengths already; "
        "got both.",
        key=PACKED,
        cu_seqlens=ONE,
        lengths=np.array([21]),
    ),
    value("'cu_seqlens' must begin with 0; got 1.", key=PACKED, cu_seqlens=np.array([1, 21])),
    value(
        "'cu_seqlens' must not fall; got 5 after 9 at index 2.",
        key=PACKED,
        cu_seqlens=np.array([0, 9, 5, 21]),
    ),
    value(f"{ENDS} 20.", key=PACKED, cu_seqlens=np.array([0, 9, 20])),
    value(f"{ENDS} 22.", key=PACKED, cu_seqlens=np.array([0, 9, 22])),
    value(f"{ENDS} 0.", key=PACKED, cu_seqlens=np.array([0])),
    value(
        "'cu_seqlens' must have shape (sequences + 1,); got shape (0,).",
        key=PACKED,
        cu_seqlens=np.array([], int),
    ),
    value(
        "'cu_seqlens' must have shape (sequences + 1,); got shape (1, 2).",
        key=PACKED,
        cu_seqlens=ONE[None],
    ),
    kind("'cu_seqlens' must have an integer dtype; got float64.", key=PACKED, cu_seqlens=ONE * 1.0),
]
OPTIONS = [
    *(
        value(f"{POSITIVE} {text}.", temperature=t)
        for t, text in ((0.0, "0"), (-1.0, "-1"), (np.nan, "nan"), (np.inf, "inf"), (-2, "-2"))
    ),
    value(f"{POSITIVE} -1 for sequence 0, head 1.", temperature=np.array([1.0, -1.0])),
    value(f"{POSITIVE} nan for sequence 2, head 0.", temperature=np.array([1.0, 1.0, np.nan])),
    value(f"{POSITIVE} 0 for sequence 1, head 0.", temperature=np.array([[1.0], [0.0], [1.0]])),
    value(f"{HEADS} (5,).", temperature=np.ones(5)),
    value(f"{HEADS} (2, 2).", temperature=np.ones((2, 2))),
    value(f"{HEADS} (3, 2, 1).", temperature=np.ones((3, 2, 1))),
    kind(f"{NUMBER} bool.", temperature=True),
    kind(f"{NUMBER} str.", temperature="1"),
    kind(f"{NUMBER} NoneType.", temperature=None),
    value(f"{LAWS}; got 'logg'; did you mean 'log'?", length_scale="logg"),
    kind(f"{LAWS} or a floating-point array; got float.", length_scale=2.0),
    value(
        "'length_scale' must have one value for each sequence (3,); got shape (2,).",
        length_scale=np.ones(2),
    ),
    value(
        "'length_scale' must be positive and finite; got -1.0 for sequence 1.",
        length_scale=np.array([1.0, -1.0, 1.0]),
    ),
    value("'activation' must be one of 'tanh'; got 'tan'; did you mean 'tanh'?", activation="tan"),
    kind("'activation' must be a string, one of 'tanh'; got int.", activation=1),
    value("'norm' must be one of 'l2'; got 'L2'; did you mean 'l2'?", norm="L2"),
    kind("'norm' must be a string, one of 'l2'; got bool.", norm=True),
    value(f"{BIAS} (3,).", bias=normal(3)),
    value(f"{BIAS} (3, 6).", bias=normal(3, 6)),
    value(f"{BIAS} (3, 7, 3).", bias=normal(3, 7, 3)),
    value(f"{BIAS} (1, 3, 7, 2).", bias=normal(1, 3, 7, 2)),
    kind(f"'bias' {FLOATS} int64.", bias=np.ones(2, int)),
    value("'threads' must be from 1 to 1024; got 0.", threads=0),
    value("'threads' must be from 1 to 1024; got 9999.", threads=9999),
    kind("'threads' must be an integer; got float.", threads=1.5),
    value("'out' must have shape (3, 2, 4); got shape (3, 2, 5).", out=np.empty((3, 2, 5))),
    kind("'out' must have dtype float64; got float32.", out=np.empty((3, 2, 4), np.float32)),
    kind(f"'out' {ANY_KIND} list. Use numpy.asarray(out).", out=[1]),
]
POOLING = [
    pool(
        ValueError,
        f"'tokens' {SHAPED} (7, 4). Give 'cu_seqlens' with tokens of shape (T, d).",
        tokens=KEY[0],
    ),
    pool(
        ValueError,
        "'tokens' must have at least one column; got shape (3, 7, 0).",
        tokens=KEY[..., :0],
    ),
    pool(TypeError, f"'tokens' {FLOATS} int64.", tokens=KEY.astype(int)),
    pool(
        TypeError,
        "'mask' must be boolean (true where a token counts); got float64. "
        "Give numbers as 'weights'.",
        mask=INTEGERS * 1.0,
    ),
    pool(
        ValueError,
        "'weights' must be non-negative and finite; got -1.0 at (0, 0).",
        weights=-1.0 * INTEGERS,
    ),
    pool(
        ValueError,
        "'weights' must be non-negative and finite; got nan at (0, 0).",
        weights=np.nan * INTEGERS,
    ),
    pool(
        ValueError,
        "'weights' must have one value for each token (3, 7); got shape (3, 6).",
        weights=np.ones((3, 6)),
    ),
    pool(TypeError, f"'weights' {FLOATS} int64.", weights=INTEGERS),
    pool(
        ValueError,
        "'lengths' must be from 0 to the number of tokens (7); got 8 for sequence 0.",
        lengths=np.array([8, 1, 1]),
    ),
    pool(ValueError, f"{ENDS} 5.", tokens=PACKED, cu_seqlens=np.array([0, 5])),
    pool(
        ValueError,
        "'out' must have the shape (3, 4); got shape (3, 5).",
        out=np.empty((3, 5)),
    ),
    pool(ValueError, "'threads' must be from 1 to 1024; got 0.", threads=0),
]
EVERY = [*ARRAYS, *CONTEXTS, *LIMITS, *OPTIONS, *POOLING]
calls = pytest.mark.parametrize("bad", EVERY, ids=lambda bad: f"{bad.function} {bad.text[:60]}")


def call(bad: Bad, **more: Any) -> Any:
    if bad.function == "mean_pool":
        return attention.mean_pool(**{"tokens": KEY, **bad.options, **more})
    return attention.low_rank_attention(**{"key": KEY, "query": QUERY, **bad.options, **more})


@calls
def test_messages(bad: Bad) -> None:
    with pytest.raises(
        bad.kind, match="^" + re.escape(f"attention.{bad.function}: {bad.text}") + "$"
    ):
        call(bad)


@calls
def test_torch_refuses_the_same(bad: Bad) -> None:
    given = {"tokens": KEY} if bad.function == "mean_pool" else {"key": KEY, "query": QUERY}
    given.update(bad.options)
    tensors = {n: to_torch(x) if isinstance(x, np.ndarray) else x for n, x in given.items()}
    words = re.escape(f"attention.{bad.function}: '{bad.argument}' must ") + ".*; got .*"
    with pytest.raises(bad.kind, match="^" + words):
        call(bad, **tensors)


@pytest.mark.parametrize("out", ["read-only", "Fortran order"])
def test_out_that_cannot_be_written(out: str) -> None:
    memory = np.empty((3, 2, 4), order="F" if out == "Fortran order" else "C")
    memory.flags.writeable = out != "read-only"
    text = "'out' must be (C-contiguous|writable and aligned); got"
    with pytest.raises(ValueError, match=f"^attention.low_rank_attention: {text}"):
        attention.low_rank_attention(KEY, QUERY, out=memory)


def test_arrays_of_two_kinds() -> None:
    tensor = to_torch(KEY)
    with pytest.raises(TypeError, match=r": 'query' must be a torch.Tensor"):
        attention.low_rank_attention(tensor, QUERY)
    with pytest.raises(TypeError, match=r": 'key' must be a torch.Tensor"):
        attention.low_rank_attention(KEY, to_torch(QUERY))


@pytest.mark.parametrize("name", ["key", "query"])
def test_arrays_that_would_be_misread(name: str) -> None:
    given = {"key": KEY, "query": QUERY}
    words = f"attention.low_rank_attention: '{name}' must be in this machine's byte order; got dty"
    with pytest.raises(TypeError, match="^" + re.escape(words)):
        attention.low_rank_attention(**{**given, name: given[name].astype(">f8")})
    words = f"attention.low_rank_attention: '{name}' must not be a masked array"
    with pytest.raises(TypeError, match="^" + re.escape(words)):
        attention.low_rank_attention(**{**given, name: np.ma.array(given[name])})
