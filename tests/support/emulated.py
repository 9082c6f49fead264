# SPDX-License-Identifier: Apache-2.0
"""An array library on the emulated GPU: its memory is the process's, its kernels are fibers.

Its arrays are seen by the same Python code as those of Torch and CuPy on a GPU; only `Library` and
the native module are others.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from embedcore._device import Layout

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).parents[2]
NAME = "_cuda_emulated"
SOURCES = (
    *sorted(path for path in ROOT.glob("cuda/**/*.cu") if path.parent.name != "common"),
    *sorted(ROOT.glob("cuda/*/*.cpp")),
    ROOT / "csrc/core/errors.cpp",
    ROOT / "csrc/depth/shapes.cpp",
    ROOT / "csrc/attention/check.cpp",
    ROOT / "csrc/python/raise.cpp",
)


class EmulatedArray:
    """An array on the device: what it holds is not for NumPy to read."""

    def __init__(self, memory: Array) -> None:
        self.memory = memory

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.memory.dtype

    @property
    def device(self) -> str:
        return "cuda:0"

    def reshape(self, *shape: int) -> EmulatedArray:
        return EmulatedArray(self.memory.reshape(shape))

    def __array__(self, *_: object, **__: object) -> Array:
        raise TypeError("an array on the device must not become one of NumPy")

    def __dlpack__(self, **_: object) -> Any:
        raise BufferError("an array on the device must not become one of another library")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class EmulatedLibrary:
    """`embedcore._device.Library` over the process's memory."""

    name = "EmulatedArray"

    def is_ready(self) -> bool:
        return True

    def owns(self, array: object) -> bool:
        return isinstance(array, EmulatedArray)

    def layout(self, array: EmulatedArray) -> Layout:
        memory = array.memory
        strides = tuple(stride // memory.itemsize for stride in memory.strides)
        address = memory.ctypes.data if memory.size > 0 else 0  # as Torch and CuPy say of them
        return Layout(address, memory.shape, strides, memory.dtype.name, 0)

    def address(self, array: EmulatedArray) -> int:
        return array.memory.ctypes.data if array.memory.size > 0 else 0

    def device_of(self, array: EmulatedArray) -> int:
        return 0

    def converted(self, array: EmulatedArray, dtype: str) -> EmulatedArray:
        return EmulatedArray(np.array(array.memory, dtype, order="C"))

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> EmulatedArray:
        assert device == 0
        # As Torch and CuPy: on a boundary of 256 bytes, and of whatever was there before.
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + 256, 0xFF, np.uint8)
        start = -raw.ctypes.data % 256
        return EmulatedArray(raw[start : start + size].view(dtype).reshape(shape))

    def stream(self, device: int) -> int:
        assert device == 0
        return 0

    def on(self, device: int) -> AbstractContextManager[None]:
        assert device == 0
        return nullcontext()

    def to_host(self, array: EmulatedArray) -> Array:
        return array.memory.copy()

    def copy_to_host(self, array: EmulatedArray, target: Array) -> None:
        assert (array.shape, array.dtype) == (target.shape, target.dtype)
        target[...] = array.memory

    def from_host(self, array: Array, device: int) -> EmulatedArray:
        assert device == 0
        return EmulatedArray(array.copy())

    def staged(self, array: Array, device: int) -> EmulatedArray:
        return self.from_host(array, device)

    def is_capturing(self, device: int) -> bool:
        return False

    def current(self) -> int:
        return 0

    def take(self, array: EmulatedArray, rows: Array) -> EmulatedArray:
        return EmulatedArray(array.memory[rows])

    def sort_rows(self, array: EmulatedArray, rows: Array) -> None:
        array.memory[...] = array.memory[rows]

    def joined(self, arrays: Sequence[EmulatedArray]) -> EmulatedArray:
        return EmulatedArray(np.concatenate([array.memory for array in arrays]))

    def added(self, a: EmulatedArray, b: EmulatedArray) -> EmulatedArray:
        return EmulatedArray(a.memory + b.memory)


def build_emulated_module(folder: Path) -> ModuleType:
    """Compile the kernels and their binding as C++ over the emulation, and import them."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    includes = [ROOT / "cuda", ROOT / "csrc", ROOT / "csrc/capi"]
    includes += [Path(pybind11.get_include()), Path(sysconfig.get_paths()["include"])]
    flags = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    flags += ["-Wno-unknown-pragmas", f"-DEC_MODULE_NAME={NAME}"]
    flags += [f"-I{path}" for path in includes]

    def compiled(number: int) -> str:
        built = folder / f"{number}.o"
        command = [compiler, *flags, "-x", "c++", "-c", str(SOURCES[number]), "-o", str(built)]
        subprocess.run(command, check=True)
        return str(built)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compiled, range(len(SOURCES))))
    module = folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([compiler, "-shared", *objects, "-o", str(module)], check=True)
    spec = importlib.util.spec_from_file_location(NAME, module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    sys.modules[NAME] = loaded
    return loaded
