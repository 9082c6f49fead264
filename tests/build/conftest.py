# SPDX-License-Identifier: Apache-2.0
"""What the build tests look at: the installed package, a wheel, and a folder of objects."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from embedcore import _core


def _from_environment(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"set {variable} to {what}")
    path = Path(value)
    assert path.exists(), f"{variable} names {value}, which does not exist"
    return path


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the folder of the package, as it is installed, that the tests import."""
    return Path(_core.__file__).parent


@pytest.fixture(scope="session")
def wheel() -> Path:
    """Return the wheel that EMBEDCORE_WHEEL names."""
    return _from_environment("EMBEDCORE_WHEEL", "a wheel built from this tree")


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """Return the CMake build folder, of the type Release, that EMBEDCORE_BUILD_DIR names."""
    return _from_environment("EMBEDCORE_BUILD_DIR", "a CMake build folder of the type Release")


@pytest.fixture(scope="session")
def build_log() -> str:
    """Return what compilers said of the wheel, in the file that EMBEDCORE_BUILD_LOG names."""
    where = _from_environment("EMBEDCORE_BUILD_LOG", "the log of a build with CUDAFLAGS=-Xptxas=-v")
    return where.read_text()
