# SPDX-License-Identifier: Apache-2.0
"""Scripts of examples/ as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """Import examples/<name>.py; skip where there is no source tree."""
    source = FOLDER / f"{name}.py"
    if not source.exists():
        pytest.skip("the examples live in the source tree")
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
