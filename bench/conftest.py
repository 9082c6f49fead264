# SPDX-License-Identifier: Apache-2.0
"""pytest-benchmark's view of the bench: its files carry the machine record too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    """Add what the figures depend on."""
    from bench import machine

    machine_info["embedcore"] = machine.record()
