# SPDX-License-Identifier: Apache-2.0
"""The header, the library and the CMake package serve a program in C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import embedcore
import pytest

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def _whole_installation() -> None:
    try:
        embedcore.get_include()
        embedcore.get_cmake_dir()
    except OSError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Path:
    return request.config.rootpath / "examples" / "use_from_c"


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_output(text: str) -> None:
    assert f"embedcore {embedcore.__version__}" in text
    assert "deepest: row" in text
    assert "row 17 of 'x' is refused" in text


def test_program_builds_with_the_compiler_alone(example: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    library = Path(embedcore.get_library())
    strict = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
    source = example / "nearest_to_centre.c"
    linked = (library, f"-Wl,-rpath,{library.parent}", "-lm", "-o", program)
    run("cc", *strict, f"-I{embedcore.get_include()}", source, *linked)
    check_output(run(program))


def test_header_is_valid_cplusplus(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "include.cpp"
    source.write_text("#include <embedcore.h>\nint main() { return ec_abi_version() == 0; }\n")
    strict = ("-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror")
    run("c++", *strict, f"-I{embedcore.get_include()}", "-fsyntax-only", source)


def test_program_builds_with_find_package(example: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs CMake")
    where = f"-Dembedcore_DIR={embedcore.get_cmake_dir()}"
    run("cmake", "-S", example, "-B", tmp_path, where)
    run("cmake", "--build", tmp_path)
    check_output(run(tmp_path / "nearest_to_centre"))
