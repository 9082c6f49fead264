# SPDX-License-Identifier: Apache-2.0
"""Which sources figures belong to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commit() -> str:
    """Return the commit, and whether sources of the build have changes.

    Where there are files alone, EMBEDCORE_COMMIT says what they are of.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "csrc", "cuda", "python", "CMakeLists.txt")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("EMBEDCORE_COMMIT", "unknown")
