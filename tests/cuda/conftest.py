# SPDX-License-Identifier: Apache-2.0
"""Devices that the tests of this folder run on: the emulation, and where there is one a GPU.

On a GPU, arrays are Torch's and CuPy's; each test runs with every kind that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import embedcore._device as device_module
import numpy as np
import pytest
from embedcore.ann import _device_costs, _on_device
from support.emulated import EmulatedArray, EmulatedLibrary, build_emulated_module
from support.kinds import to_torch

Array = np.ndarray[Any, Any]


class Kind:
    """How arrays of one kind get to the device and back."""

    def __init__(
        self, name: str, to_device: Callable[[Array], Any], to_host: Callable[[Any], Array]
    ) -> None:
        self.name, self.to_device, self.to_host = name, to_device, to_host
        self.emulated = name == "emulated"


@pytest.fixture(scope="session")
def emulated_module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return build_emulated_module(tmp_path_factory.mktemp("emulated"))


def _torch_kind() -> Kind:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return Kind("torch", lambda x: to_torch(x).cuda(), lambda x: np.asarray(x.cpu()))


def _cupy_kind() -> Kind:
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("needs a GPU")

    def to_device(x: Array) -> Any:
        try:
            return cupy.asarray(np.array(x, order="C"))
        except (TypeError, ValueError):
            if x.dtype.name == "bfloat16":
                pytest.skip("this CuPy has no bfloat16")
            raise

    return Kind("cupy", to_device, cupy.asnumpy)


@pytest.fixture(params=["emulated", "torch", "cupy"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    if request.param == "torch":
        yield _torch_kind()
        return
    if request.param == "cupy":
        yield _cupy_kind()
        return
    module = request.getfixturevalue("emulated_module")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_module, "_LIBRARIES", [EmulatedLibrary()])
        patch.setattr(device_module, "_kernels", lambda where, argument, device: module)
        yield Kind("emulated", lambda x: EmulatedArray(np.array(x)), lambda x: x.memory)


@pytest.fixture
def quick_costs(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure little, where time means nothing."""
    if kind.emulated:
        monkeypatch.setattr(_on_device, "_SAMPLE", 3)
        monkeypatch.setattr(_device_costs, "_REPEATS", 1)
