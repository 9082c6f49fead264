# SPDX-License-Identifier: Apache-2.0
"""What nvcc made of the kernels of the wheel, for a plain target and for Hopper.

No spills, products that stay asynchronous, and shared memory that is dynamic only. Warnings end
the build.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for path in ROOT.glob("cuda/**/*.cu"))
TARGETS = {"sm_80", "sm_90", "sm_90a"}

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


def test_each_source_was_compiled(build_log: str) -> None:
    compiled = set(re.findall(r"Building CUDA object \S*?(cuda/\S+\.cu)\.o", build_log))
    assert compiled == {str(path.relative_to(ROOT)) for path in SOURCES}


def test_each_target_has_kernels(build_log: str) -> None:
    kernels = kernels_in(build_log)
    assert {target for _, target, *_ in kernels} == TARGETS
    of_hopper = "".join(name for name, target, *_ in kernels if target == "sm_90a")
    for name in ("attend_panels", "attend_half_panels", "scan_tiles", "sum_pair_tiles"):
        assert name in of_hopper


def test_kernels_spill_nothing(build_log: str) -> None:
    assert [kernel for kernel in kernels_in(build_log) if any(kernel[2:])] == []


def test_products_stay_asynchronous(build_log: str) -> None:
    """Find no advice of ptxas, which is no warning.

    It tells of products that wait for one another and of registers that cannot move to another
    warpgroup.
    """
    assert re.findall(r"\(C75\d\d\).*", build_log) == []


def test_shared_memory_is_dynamic(build_log: str) -> None:
    """Kernels ask for all that a block may share (platform.h); it must not be taken in part."""
    assert re.findall(r"\d+ bytes smem", build_log) == []


def kernels_in(log: str) -> list[tuple[str, str, int, int]]:
    """Return name, target, bytes of stack and of spills of each kernel."""
    kernel = r"Compiling entry function '(\w+)' for '(\w+)'"
    memory = r"(\d+) bytes stack frame, (\d+) bytes spill"
    found = re.findall(f"{kernel}.*?{memory}", log, re.DOTALL)
    return [(name, target, int(stack), int(spilled)) for name, target, stack, spilled in found]
