# SPDX-License-Identifier: Apache-2.0
"""The native forward and backward of attention for arrays on a GPU.

Both are called as those of `_core` are, and check shapes and dtypes as these do; values are not
looked at. Float64 tokens have no kernel.
"""

from __future__ import annotations

from typing import Any

from .._device import DTYPES, Call, Layout, call_of

__all__ = ["attention_backward", "attention_forward"]

# Address, three strides in elements, dtype.
_Array = tuple[int, int, int, int, int]
_NOWHERE = 256
_NOTHING: _Array = (0, 0, 0, 0, 0)  # an array that is not given
_REAL = "float32"
_KINDS = ("float16", "bfloat16", "float32")


class _Problem:
    """The arrays of a call, and the numbers that the kernels take for them."""

    def __init__(self, where: str, key: Any, query: Any) -> None:
        self.name = "tokens" if query is None else "key"
        call = call_of(where, self.name, key, differentiable=True)
        assert call is not None, "only arrays on a GPU come here"
        self.call: Call = call
        self.query_per_sequence = False
        self.heads = 1  # of a mean
        self.arrays: list[_Array] = [_NOTHING] * 6
        self.limits = [0, 0]
        self.keep = (0, 0, 0)
        self.temperature = 1.0

    def read(self, key: Any, value: Any, query: Any, offsets: Any, lengths: Any, mask: Any) -> None:
        """Take what the number of heads does not depend on."""
        call, axes = self.call, 3 if offsets is None else 2
        tokens = call.floats(self.name, key, axes, rows=True)
        self.dtype = tokens.dtype
        if self.dtype not in _KINDS:
            raise TypeError(
                f"{call.where}: '{self.name}' must be float16, bfloat16 or float32 on the GPU; "
                f"got {self.dtype}."
            )
        self.lead = tokens.shape[:-1]
        self.columns = self.value_columns = tokens.shape[-1]
        self.sequences = tokens.shape[0]
        self.arrays[0] = self._token_axis(tokens)
        if offsets is not None:
            ends = call.indices("cu_seqlens", offsets)
            if ends.shape[0] < 1:
                raise ValueError(
                    f"{call.where}: 'cu_seqlens' must have one number more than there are "
                    "sequences; got shape (0,)."
                )
            self.sequences, self.limits[0] = ends.shape[0] - 1, ends.address
        if lengths is not None:
            counts = call.indices("lengths", lengths)
            self._check_shape("lengths", counts, (self.sequences,))
            self.limits[1] = counts.address
        if value is not None:
            values = call.floats("value", value, axes, rows=True)
            if values.dtype != self.dtype:
                raise TypeError(
                    f"{call.where}: 'value' must have the dtype of 'key' ({self.dtype}); got "
                    f"{values.dtype}."
                )
            self.value_columns = values.shape[-1]
            self._check_shape("value", values, (*self.lead, self.value_columns))
            self.arrays[1] = self._token_axis(values)
        if mask is not None:
            self._read_mask(mask)
        if query is not None:
            self._read_query(query)

    def _read_mask(self, mask: Any) -> None:
        axes = len(self.lead)
        keep = self.call.booleans("mask", mask, axes)
        layout = self.call.floats("mask", mask, axes) if keep is None else keep
        self._check_shape("mask", layout, self.lead)
        if keep is None:
            self.arrays[3] = _numbers(layout, layout.strides, 2 - axes)
        else:
            first, second = (*(0,) * (2 - axes), *layout.strides)
            self.keep = (layout.address, first, second)

    def _read_query(self, query: Any) -> None:
        layout = self.call.floats("query", query, 2, 3)
        *lead, columns, heads = layout.shape
        if columns != self.columns or (lead and lead[0] != self.sequences):
            raise ValueError(
                f"{self.call.where}: 'query' must have shape ({self.columns}, heads) or "
                f"({self.sequences}, {self.columns}, heads); got shape {layout.shape}."
            )
        self.query_per_sequence, self.heads = bool(lead), heads
        self.arrays[2] = _numbers(layout, layout.strides, 0 if lead else 1)

    def finish(self, bias: Any, temperature: Any, activation: int, norm: int) -> Any:
        """Return the problem as the kernels take it."""
        if bias is not None:
            shape = (*self.lead, self.heads)
            self.arrays[4] = self._broadcast("bias", bias, shape, 3 - len(shape))
        if isinstance(temperature, float):
            self.temperature = temperature
            if not 0.0 < temperature < float("inf"):
                raise ValueError(
                    f"{self.call.where}: 'temperature' must be positive and finite; got "
                    f"{temperature:g}."
                )
        else:
            shape = (self.sequences, self.heads)
            self.arrays[5] = self._broadcast("temperature", temperature, shape)
        sizes = (self.sequences, self.lead[-1], self.heads, self.columns, self.value_columns)
        return self.call.kernels.AttentionProblem(
            sizes, self.arrays, self.query_per_sequence, self.limits, self.keep, self.temperature,
            activation, norm,
        )  # fmt: skip

    def _token_axis(self, layout: Layout) -> _Array:
        return _numbers(layout, layout.strides, 2 - len(self.lead))

    def _broadcast(
        self, argument: str, array: Any, shape: tuple[int, ...], in_front: int = 0
    ) -> _Array:
        layout = self.call.floats(argument, array, len(shape))
        strides = [0] * len(shape)
        for axis, (have, wanted) in enumerate(zip(layout.shape, shape, strict=True)):
            if have not in (1, wanted):
                raise ValueError(
                    f"{self.call.where}: '{argument}' must have shape {shape}; got shape "
                    f"{layout.shape}."
                )
            strides[axis] = layout.strides[axis] if have == wanted else 0
        return _numbers(layout, tuple(strides), in_front)

    def _check_shape(self, argument: str, layout: Layout, shape: tuple[int, ...]) -> None:
        if layout.shape != shape:
            raise ValueError(
                f"{self.call.where}: '{argument}' must have shape {shape}; got shape "
                f"{layout.shape}."
            )

    def per_token(self) -> tuple[int, ...]:
        """Return the shape of scores and weights."""
        return (*self.lead[:-1], self.heads, self.lead[-1])


def _numbers(layout: Layout, strides: tuple[int, ...], in_front: int = 0) -> _Array:
    """Return an array as the kernels take it: so many axes in front that it does not have."""
    first, second, third = (*(0,) * in_front, *strides, 0, 0)[:3]
    # An array without elements may be nowhere; 0 would say that it is not given.
    return (layout.address or _NOWHERE, first, second, third, DTYPES[layout.dtype])


def attention_forward(
    where: str,
    key: Any,
    value: Any,
    query: Any,
    offsets: Any,
    lengths: Any,
    mask: Any,
    bias: Any,
    temperature: Any,
    activation: int,
    norm: int,
    threads: int,
    out: Any,
    lse: Any,
    scores: Any,
    weights: Any,
    wide: Any = None,
    rest: Any = None,
) -> None:
    """Run `_core.attention_forward` on a device; `threads` has no meaning there.

    `rest`, of int8 and the shape of `out`, is what rounding leaves of a half dtype.
    """
    del threads
    problem = _Problem(where, key, query)
    problem.read(key, value, query, offsets, lengths, mask)
    given = problem.finish(bias, temperature, activation, norm)
    call, heads = problem.call, (problem.sequences, problem.heads)
    results = (
        call.target("out", out, (*heads, problem.value_columns), problem.dtype),
        call.target("lse", lse, heads, _REAL),
        call.target("scores", scores, problem.per_token(), _REAL),
        call.target("weights", weights, problem.per_token(), _REAL),
        call.target("wide", wide, (*heads, problem.value_columns), _REAL),
        call.target("rest", rest, (*heads, problem.value_columns), "int8"),
    )
    call.kernels.attention_forward(where, call.place(), given, results, call.allocate)


def attention_backward(
    where: str,
    key: Any,
    value: Any,
    query: Any,
    offsets: Any,
    lengths: Any,
    mask: Any,
    bias: Any,
    temperature: Any,
    activation: int,
    norm: int,
    threads: int,
    grad_out: Any,
    out: Any,
    lse: Any,
    scores: Any,
    grad_lse: Any,
    grad_weights: Any,
    grad_key: Any,
    grad_value: Any,
    grad_query: Any,
    grad_temperature: Any,
    grad_bias: Any,
    grad_mask: Any,
    accumulate: bool,
    rest: Any = None,
) -> None:
    """Run `_core.attention_backward` on a device; `rest` is that of `out`."""
    del threads
    problem = _Problem(where, key, query)
    problem.read(key, value, query, offsets, lengths, mask)
    given = problem.finish(bias, temperature, activation, norm)
    call, heads = problem.call, (problem.sequences, problem.heads)
    pooled = (*heads, problem.value_columns)
    of_out = call.floats("grad_out", grad_out, 3, rows=True)
    of_lse = _NOTHING
    if grad_lse is not None:
        layout = call.floats("grad_lse", grad_lse, 2)
        of_lse = _numbers(layout, layout.strides)
    wide = call.floats("out", out, 3).dtype
    saved = (
        call.target("out", out, pooled, wide),
        call.target("lse", lse, heads, _REAL),
        call.target("scores", scores, problem.per_token(), _REAL),
        call.target("rest", rest, pooled, "int8"),
    )
    factors = problem.sequences if problem.query_per_sequence else 1
    gradients = (
        call.target("grad_key", grad_key, (*problem.lead, problem.columns), problem.dtype),
        call.target(
            "grad_value", grad_value, (*problem.lead, problem.value_columns), problem.dtype
        ),
        call.target("grad_query", grad_query, (factors, problem.heads, problem.columns), _REAL),
        call.target("grad_temperature", grad_temperature, heads, _REAL),
        call.target("grad_bias", grad_bias, problem.per_token(), _REAL),
        call.target("grad_mask", grad_mask, problem.lead, _REAL),
    )
    call.kernels.attention_backward(
        where, call.place(), given, _numbers(of_out, of_out.strides), of_lse,
        call.target("grad_weights", grad_weights, problem.per_token(), _REAL), saved,
        DTYPES[wide], gradients, accumulate, call.allocate,
    )  # fmt: skip
