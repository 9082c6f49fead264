# SPDX-License-Identifier: Apache-2.0
"""What the installed libraries export and what they load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.binaries import needed_libraries, symbols

ALLOWED_LIBRARIES = r"(libstdc\+\+|libgcc_s|libm|libc|libpthread|ld-linux.*)\.so\.\d+"


@pytest.fixture
def library(package: Path) -> Path:
    return package / "lib" / "libembedcore.so"


@pytest.fixture
def binding(package: Path) -> Path:
    (path,) = package.glob("_core.*.so")
    return path


def test_library_exports_exactly_what_the_header_declares(library: Path, request) -> None:
    header = (request.config.rootpath / "csrc/capi/embedcore.h").read_text()
    declared = set(re.findall(r"^EC_API\s[^;(]*?(\w+)\(", header, flags=re.MULTILINE))
    assert declared
    assert all(name.startswith("ec_") for name in declared)
    assert {symbol.name for symbol in symbols(library, "-D", "--defined-only")} == declared


def test_binding_exports_its_init_function_alone(binding: Path) -> None:
    exported = symbols(binding, "-D", "--defined-only")
    # Type information of the standard library is weak and shared on purpose: exceptions need it.
    assert [s.name for s in exported if s.kind in "TDBR"] == ["PyInit__core"]
    assert [s.name for s in exported if "ec::" in s.name] == []


def test_no_thread_runtime_and_no_blas_is_loaded(library: Path, binding: Path) -> None:
    foreign = [
        name
        for path in (library, binding)
        for name in needed_libraries(path)
        if not re.fullmatch(ALLOWED_LIBRARIES, name) and name != "libembedcore.so"
    ]
    assert foreign == []
