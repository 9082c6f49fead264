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


class Event:
    """Is waited for before it is recorded again."""

    def __init__(self) -> None:
        self.open = False

    def record(self, stream: Any) -> None:
        assert stream == "stream" and not self.open
        self.open = True

    def synchronize(self) -> None:
        self.open = False


@pytest.fixture
def torch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Torch without a GPU take the host for one."""

    def empty(shape: Any, *, dtype: Any, pin_memory: bool = False, device: Any = None) -> Any:
        return torch.full((shape,) if isinstance(shape, int) else tuple(shape), 77, dtype=dtype)

    cuda = SimpleNamespace(Event=Event, current_stream=lambda place: "stream")
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
    there = library.from_host(array, 0)
    np.testing.assert_array_equal(there.numpy(), array)
    back = np.zeros_like(array)
    library.copy_to_host(there, back)
    np.testing.assert_array_equal(back, array)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rows", [1, 1 << 15, (1 << 16) + 3])
def test_parts_on_a_gpu(rows: int) -> None:
    library = _device_libraries.Torch()
    array = np.random.default_rng(3).random((rows, 1200), np.float32)
    there = library.from_host(array, 0)
    back = np.zeros_like(array)
    library.copy_to_host(there + 1.0, back)
    np.testing.assert_array_equal(back, array + np.float32(1.0))
