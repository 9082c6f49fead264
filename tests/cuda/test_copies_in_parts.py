# SPDX-License-Identifier: Apache-2.0
"""Large copies of Torch to and from a GPU, by pinned memory: on one, and in the order of parts."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from embedcore import _device_libraries

torch = pytest.importorskip("torch")


class Stream:
    """Counts how often it was waited for."""

    waits = 0

    def synchronize(self) -> None:
        self.waits += 1


STREAM = Stream()


class Event:
    """Is waited for before it is recorded again."""

    def __init__(self) -> None:
        self.open = False

    def record(self, stream: Any) -> None:
        assert stream is STREAM and not self.open
        self.open = True

    def synchronize(self) -> None:
        self.open = False


@pytest.fixture
def torch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Torch without a GPU take the host for one."""

    def empty(shape: Any, *, dtype: Any, pin_memory: bool = False, device: Any = None) -> Any:
        return torch.full((shape,) if isinstance(shape, int) else tuple(shape), 77, dtype=dtype)

    cuda = SimpleNamespace(Event=Event, current_stream=lambda place: STREAM)
    stand_in = SimpleNamespace(
        empty=empty, from_numpy=torch.from_numpy, cuda=cuda, device=lambda kind, number: "cpu"
    )
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    monkeypatch.setattr(_device_libraries, "_PART", 64)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int16", "int8", "uint8"])
@pytest.mark.parametrize("rows", [1, 15, 16, 63, 64, 65, 131])
def test_parts_make_the_whole(torch_here: None, dtype: str, rows: int) -> None:
    library = _device_libraries.Torch()
    array = np.random.default_rng(rows).integers(0, 100, (rows, 5)).astype(dtype)
    before = STREAM.waits
    there = library.from_host(array, 0)
    np.testing.assert_array_equal(there.numpy(), array)
    assert STREAM.waits - before == (array.nbytes > 4 * 64)
    back = np.zeros_like(array)
    library.copy_to_host(there, back)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 40])
def test_rows_are_sorted_in_place(torch_here: None, columns: int) -> None:
    rng = np.random.default_rng(columns)
    array, order = rng.random((50, columns)), rng.permutation(50)
    there = torch.from_numpy(array.copy())
    _device_libraries.Torch().sort_rows(there, order)
    np.testing.assert_array_equal(there.numpy(), array[order])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rows", [1, 1 << 15, (1 << 16) + 3])
def test_parts_on_a_gpu(rows: int) -> None:
    library = _device_libraries.Torch()
    array = np.random.default_rng(3).random((rows, 1200), np.float32)
    there = library.from_host(array, 0)
    back = np.zeros_like(array)
    library.copy_to_host(there + 1.0, back)
    np.testing.assert_array_equal(back, array + np.float32(1.0))
