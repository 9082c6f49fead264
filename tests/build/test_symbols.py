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


@pytest.fixture
def cuda_library(package: Path) -> Path:
    path = package / "lib" / "libembedcore_cuda.so"
    if not path.exists():
        pytest.skip("needs a build with CUDA")
    return path


# Classes that the bindings use, and what exceptions across the two need to know of them.
INTERNAL = re.compile(r"(typeinfo (name )?for |vtable for )?ec::ann::")


def declared_in(header: Path) -> set[str]:
    declared = re.findall(r"^EC_API\s[^;(]*?(\w+)\(", header.read_text(), flags=re.MULTILINE)
    assert declared
    return set(declared)


def test_library_exports_what_the_header_declares_and_its_bindings_use(
    library: Path, request
) -> None:
    declared = declared_in(request.config.rootpath / "csrc/capi/embedcore.h")
    assert all(name.startswith("ec_") for name in declared)
    exported = {symbol.name for symbol in symbols(library, "-D", "--defined-only")}
    assert {name for name in exported if not INTERNAL.match(name)} == declared


def test_cuda_library_exports_what_its_header_declares(cuda_library: Path, request) -> None:
    declared = declared_in(request.config.rootpath / "cuda/capi/embedcore_cuda.h")
    assert {symbol.name for symbol in symbols(cuda_library, "-D", "--defined-only")} == declared


def test_cuda_library_needs_neither_driver_nor_runtime(cuda_library: Path) -> None:
    foreign = [
        name for name in needed_libraries(cuda_library) if not re.fullmatch(ALLOWED_LIBRARIES, name)
    ]
    assert foreign == []


def test_binding_exports_its_init_function_alone(binding: Path) -> None:
    exported = symbols(binding, "-D", "--defined-only")
    # Type information, the standard library's too, is weak and shared: exceptions need it.
    assert [s.name for s in exported if s.kind in "TDBR"] == ["PyInit__core"]
    ours = [s.name for s in exported if "ec::" in s.name]
    assert [name for name in ours if not name.startswith("typeinfo ")] == []


def test_no_thread_runtime_and_no_blas_is_loaded(library: Path, binding: Path) -> None:
    foreign = [
        name
        for path in (library, binding)
        for name in needed_libraries(path)
        if not re.fullmatch(ALLOWED_LIBRARIES, name) and name != "libembedcore.so"
    ]
    assert foreign == []
