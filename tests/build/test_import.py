# SPDX-License-Identifier: Apache-2.0
"""Importing the package costs NumPy and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ONLY_NUMPY = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("numpy", "embedcore"):
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import numpy, numpy.random
sys.meta_path.insert(0, Refuse())
"""

USE = """
import embedcore
from embedcore import datasets, depth
rng = numpy.random.default_rng(0)
x = rng.standard_normal((20, 8), dtype=numpy.float32)
assert depth.score(x).shape == (20,)
assert len(depth.order(x)) == 20
embedcore.show_config()
"""


def run(package: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_works_with_numpy_alone(package: Path) -> None:
    assert "version:" in run(package, ONLY_NUMPY + USE)


def test_import_loads_no_optional_package(package: Path) -> None:
    code = "import sys, embedcore; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(run(package, code).split())
    optional = {"torch", "cupy", "scipy", "matplotlib", "tqdm", "threadpoolctl", "ml_dtypes"}
    assert loaded & optional == set()
