# SPDX-License-Identifier: Apache-2.0
"""``python -m embedcore info``: version, build, instruction set, threads."""

from __future__ import annotations

import argparse
from typing import Any

from .. import show_config


def add_to(commands: Any) -> None:
    help_text = "show version, build, instruction set, threads and optional packages"
    commands.add_parser("info", help=help_text, description=help_text).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    show_config()
    return 0
