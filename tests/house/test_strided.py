# SPDX-License-Identifier: Apache-2.0
"""Views that kernels follow by their strides: every arrangement in memory gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import _core
from support.guard import guarded
from support.kinds import dtype_of, to_torch

Array = np.ndarray[Any, Any]
Arrange = Callable[[Array], Any]

SEQUENCES, TOKENS, COLUMNS, VALUES, HEADS = 3, 11, 7, 5, 4


def _backwards(x: Array) -> Array:
    return np.array(x[::-1], order="C")[::-1]


def _apart(axis: int) -> Arrange:
    def arrange(x: Array) -> Array:
        wide = np.zeros(
            [n * (3 if a == axis % x.ndim else 1) for a, n in enumerate(x.shape)], x.dtype
        )
        view = wide[tuple(slice(None, None, 3 if a == axis % x.ndim else 1) for a in range(x.ndim))]
        view[...] = x
        return view

    return arrange


def _transposed(x: Array) -> Array:
    return np.array(x.T, order="C").T


def _misaligned(x: Array) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view: Array = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _field(x: Array) -> Array:
    """Strides that are no multiple of the size of an item."""
    records = np.zeros(x.shape, [("before", np.uint8), ("x", x.dtype)])
    records["x"] = x
    view: Array = records["x"]
    return view


def _read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def _torch_transposed(x: Array) -> Any:
    tensor = to_torch(_transposed(x).T)
    return tensor.permute(*reversed(range(tensor.ndim)))


ARRANGEMENTS: dict[str, Arrange] = {
    "backwards": _backwards,
    "first axis apart": _apart(0),
    "last axis apart": _apart(-1),
    "transposed": _transposed,
    "misaligned": _misaligned,
    "field": _field,
    "read-only": _read_only,
    "guarded": guarded,
    "torch": to_torch,
    "torch transposed": _torch_transposed,
}
AXES = {
    "key": (SEQUENCES, TOKENS, COLUMNS),
    "value": (SEQUENCES, TOKENS, VALUES),
    "query": (COLUMNS, HEADS),
    "bias": (SEQUENCES, TOKENS, HEADS),
    "temperature": (SEQUENCES, HEADS),
}


def arrays(dtype: np.dtype[Any]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    given = {name: rng.uniform(0.5, 1.5, shape) for name, shape in AXES.items()}
    given["query"] -= 1.0
    small = np.dtype(np.float32)
    return {
        name: x.astype(small if name in ("bias", "temperature") else dtype)
        for name, x in given.items()
    }


def attend(given: dict[str, Any], mask: Any = None) -> bytes:
    """The bits of out and lse."""
    numbers = dtype_of(str(given["key"].dtype).removeprefix("torch."))
    out = np.zeros((SEQUENCES, HEADS, VALUES), numbers)
    lse = np.zeros((SEQUENCES, HEADS), np.float64 if numbers == np.float64 else np.float32)
    _core.attention_forward(
        "f",
        given["key"],
        given["value"],
        given["query"],
        None,
        None,
        mask,
        given["bias"],
        given["temperature"],
        1,
        0,
        1,
        out,
        lse,
        None,
        None,
    )
    return out.tobytes() + lse.tobytes()


@pytest.mark.parametrize("name", list(AXES))
@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=list(ARRANGEMENTS))
def test_every_arrangement_gives_the_same_bits(
    name: str, arrange: Arrange, dtype_name: str
) -> None:
    given = arrays(dtype_of(dtype_name))
    expected = attend(given)
    assert attend({**given, name: arrange(given[name])}) == expected


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=list(ARRANGEMENTS))
def test_every_arrangement_of_a_mask_gives_the_same_bits(arrange: Arrange, dtype: type) -> None:
    given = arrays(np.dtype(np.float32))
    mask: Array = (np.arange(SEQUENCES * TOKENS).reshape(SEQUENCES, TOKENS) % 3 > 0).astype(dtype)
    assert attend(given, arrange(mask)) == attend(given, mask)


@pytest.mark.parametrize("name", list(AXES))
def test_an_axis_without_a_step_is_one_item_many_times(name: str) -> None:
    given = arrays(np.dtype(np.float32))
    repeated = np.broadcast_to(given[name][:1], AXES[name])
    assert repeated.strides[0] == 0
    assert attend({**given, name: repeated}) == attend({**given, name: repeated.copy()})


@pytest.mark.parametrize("name", ["bias", "temperature"])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_of_one_item_is_broadcast(name: str, axis: int) -> None:
    given = arrays(np.dtype(np.float32))
    one = given[name].take([0], axis)
    full = np.array(np.broadcast_to(one, AXES[name]))
    assert attend({**given, name: one}) == attend({**given, name: full})


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("sequences, tokens", [(0, 3), (0, 0), (2, 0)])
def test_arrays_without_items_are_there(library: str, sequences: int, tokens: int) -> None:
    make = pytest.importorskip(library)  # Torch gives them a null pointer

    def array(*shape: int) -> Any:
        return make.ones(shape, dtype=make.float32)

    key, value, query = array(sequences, tokens, 4), array(sequences, tokens, 6), array(4, 2)
    bias, temperature = array(sequences, tokens, 2), array(sequences, 2)
    mask, scores = array(sequences, tokens), array(sequences, 2, tokens)
    out, lse, grad_query = array(sequences, 2, 6), array(sequences, 2), array(1, 2, 4)
    grad_out, grad_temperature = array(sequences, 2, 6), array(sequences, 2)
    problem = ("f", key, value, query, None, None, mask, bias, temperature, 0, 0, 1)
    _core.attention_forward(*problem, out, lse, scores, None)
    assert bool((out == 0).all())
    assert bool((lse == -np.inf).all())
    given = (grad_out, out, lse, scores, None, None)
    grads = (array(sequences, tokens, 4), array(sequences, tokens, 6), grad_query, grad_temperature)
    _core.attention_backward(*problem, *given, *grads, None, None, False)
    assert bool((grad_query == 0).all())
    assert bool((grad_temperature == 0).all())
