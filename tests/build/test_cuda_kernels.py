# SPDX-License-Identifier: Apache-2.0
"""What nvcc makes of the kernels for a plain target and for Hopper.

No warnings, no spills, products that stay asynchronous, and shared memory that is dynamic only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc")
TARGETS = ("80", "90a")
SOURCES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("cuda/**/*.cu"))

pytestmark = pytest.mark.skipif(NVCC is None, reason="needs nvcc")


def test_there_are_kernels() -> None:
    assert SOURCES


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_compile_and_spill_nothing(source: str, target: str, tmp_path: Path) -> None:
    command = [
        str(NVCC), "-std=c++17", "-O3", "-fmad=false", "-Icuda", "-Icsrc", "-Icsrc/capi",
        '-DEC_CUDA_TARGETS="test"', "-Xptxas", "-v",
        "-gencode", f"arch=compute_{target},code=sm_{target}",
        "-Werror", "all-warnings", "-c", source, "-o", str(tmp_path / "kernels.o"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Advice of ptxas, which is no warning: products that wait for one another, registers that
    # cannot move to another warpgroup.
    assert re.findall(r"\(C75\d\d\).*", done.stderr) == []
    # Kernels ask for all that a block may share (platform.h), and get it if nothing of it is taken.
    assert re.findall(r"\d+ bytes smem", done.stderr) == []
    report = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores",
        done.stderr,
        re.DOTALL,
    )
    assert report or "EC_LAUNCH" not in (ROOT / source).read_text()
    assert [name for name, *bytes_used in report if any(map(int, bytes_used))] == []
