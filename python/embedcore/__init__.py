# SPDX-License-Identifier: Apache-2.0
"""Native kernels for embeddings: statistical depth, low-rank attention and filtered search.

The families are modules, loaded when first used: `ann`, `attention`, `depth`. `torch` has the last
two as differentiable functions and modules of Torch, which only it imports. `datasets` has sample
data, `plot` draws with Matplotlib. The functions here are the controls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _config, _core
from ._config import (
    get_isa,
    get_num_threads,
    list_isas,
    set_isa,
    set_num_threads,
    show_config,
    threads,
)
from ._paths import get_cmake_dir, get_include, get_library
from ._threadpool import register_if_imported, register_threadpoolctl

if TYPE_CHECKING:
    from types import ModuleType

    from . import ann, attention, datasets, depth, plot
    from . import torch as torch

__all__ = [
    "__version__",
    "ann",
    "attention",
    "datasets",
    "depth",
    "get_cmake_dir",
    "get_include",
    "get_isa",
    "get_library",
    "get_num_threads",
    "list_isas",
    "plot",
    "register_threadpoolctl",
    "set_isa",
    "set_num_threads",
    "show_config",
    "threads",
]

__version__: str = _core.version

_LAZY = ("ann", "attention", "datasets", "depth", "plot", "torch")

_config.check_environment()
register_if_imported()


def __getattr__(name: str) -> ModuleType:
    if name not in _LAZY:
        raise AttributeError(f"module 'embedcore' has no attribute {name!r}")
    import importlib

    register_if_imported()
    return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return [*__all__, "torch"]  # not in __all__: a star import must not need Torch, nor hide it
