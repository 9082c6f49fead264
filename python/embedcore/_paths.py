# SPDX-License-Identifier: Apache-2.0
"""Where the parts for other languages are: header, shared library, CMake package."""

from __future__ import annotations

from pathlib import Path

from . import _core

__all__ = ["get_cmake_dir", "get_include", "get_library"]

# Beside the binding, not beside this file: an editable install has them apart.
_ROOT = Path(_core.__file__).parent


def get_include() -> str:
    """Return the folder of ``embedcore.h``, the header of the C ABI.

    Raises
    ------
    OSError
        If this installation has none.
    """
    return str(_existing("get_include", "include"))


def get_library() -> str:
    """Return the path of the shared library: link to it, or open it with ctypes.

    Raises
    ------
    OSError
        If this installation has none.
    """
    return str(_existing("get_library", "lib", "libembedcore.so"))


def get_cmake_dir() -> str:
    """Return what ``-Dembedcore_DIR=`` takes, for ``find_package(embedcore)`` in CMake.

    Raises
    ------
    OSError
        If this installation has none.
    """
    return str(_existing("get_cmake_dir", "share", "cmake", "embedcore"))


def _existing(where: str, *parts: str) -> Path:
    path = _ROOT.joinpath(*parts)
    if not path.exists():
        raise OSError(f"{where}: '{path}' must exist; this installation of embedcore is not whole.")
    return path
