# SPDX-License-Identifier: Apache-2.0
"""What the wheel carries, and what it must not."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest

# Half of it is code (three families, four instruction sets), half the sample data; kernels for four
# generations of GPUs and the CUDA runtime come on top. The limits are for what slips in: debug
# information, static libraries, a second data set.
SIZE_LIMIT_BYTES = 2_500_000
CUDA_SIZE_LIMIT_BYTES = 13_500_000
CUDA_LIBRARY = "embedcore/lib/libembedcore_cuda.so"
SAMPLE_LIMIT_BYTES = 1000**2
EXPECTED = (
    "embedcore/__init__.py",
    "embedcore/__main__.py",
    "embedcore/_core.pyi",
    "embedcore/py.typed",
    "embedcore/depth/__init__.py",
    "embedcore/lib/libembedcore.so",
    "embedcore/include/embedcore.h",
    "embedcore/share/cmake/embedcore/embedcoreConfig.cmake",
    "embedcore/share/cmake/embedcore/embedcoreConfigVersion.cmake",
    "embedcore/data/glosses.npz",
    "embedcore/data/WORDNET_LICENSE.txt",
)
# Everything else in the package is Python.
ALLOWED = (
    r"embedcore/(\w+/)*\w+\.pyi?"
    r"|embedcore/_(core|cuda)\.[\w-]+\.so"
    r"|embedcore/lib/libembedcore_cuda\.so"
    r"|embedcore/include/embedcore_cuda\.h"
    r"|embedcore/share/cmake/embedcore/embedcore\w+(-release)?\.cmake"
    r"|embedcore-[\w.]+\.dist-info/(METADATA|RECORD|WHEEL|entry_points\.txt)"
    r"|embedcore-[\w.]+\.dist-info/licenses/(LICENSE|python/embedcore/data/WORDNET_LICENSE\.txt)"
)


@pytest.fixture
def contents(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel) as archive:
        yield archive


def text_of(contents: zipfile.ZipFile, pattern: str) -> str:
    (name,) = (name for name in contents.namelist() if re.search(pattern, name))
    return contents.read(name).decode()


def test_expected_files_are_there(contents: zipfile.ZipFile) -> None:
    assert sorted(set(EXPECTED) - set(contents.namelist())) == []


def test_nothing_else_is_there(contents: zipfile.ZipFile) -> None:
    files = [name for name in contents.namelist() if not name.endswith("/")]
    stray = [name for name in files if name not in EXPECTED and not re.fullmatch(ALLOWED, name)]
    assert stray == []


def test_wheel_is_small(wheel: Path, contents: zipfile.ZipFile) -> None:
    with_cuda = CUDA_LIBRARY in contents.namelist()
    assert wheel.stat().st_size < (CUDA_SIZE_LIMIT_BYTES if with_cuda else SIZE_LIMIT_BYTES)


def test_sample_data_is_small(contents: zipfile.ZipFile) -> None:
    data = [info for info in contents.infolist() if info.filename.startswith("embedcore/data/")]
    assert sum(info.file_size for info in data) <= SAMPLE_LIMIT_BYTES


def test_licences_are_there(contents: zipfile.ZipFile) -> None:
    assert "Apache License" in text_of(contents, r"/licenses/LICENSE$")
    assert "WordNet" in text_of(contents, r"/licenses/.*WORDNET_LICENSE\.txt$")


def test_numpy_is_the_one_dependency(contents: zipfile.ZipFile) -> None:
    metadata = message_from_string(text_of(contents, r"dist-info/METADATA$"))
    required = metadata.get_all("Requires-Dist", [])
    assert [line for line in required if "extra ==" not in line] == ["numpy>=1.24"]
    assert not any(line.startswith("torch") for line in required)


def test_libraries_are_stripped(contents: zipfile.ZipFile) -> None:
    for info in contents.infolist():
        if info.filename.endswith(".so"):
            assert b".debug_info" not in contents.read(info), info.filename
