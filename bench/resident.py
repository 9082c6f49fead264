# SPDX-License-Identifier: Apache-2.0
"""Resident memory of this process at its peak."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_bytes() -> int:
    """Return the peak of resident memory, since the last reset where the system can reset it."""
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        match = None
    if match is not None:
        return int(match[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def reset_peak() -> None:
    """Let the peak be what is resident now."""
    # Where that fails the peak so far is the start, which only hides what was freed before.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
