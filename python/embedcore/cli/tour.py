# SPDX-License-Identifier: Apache-2.0
"""``python -m embedcore tour``: what the package does, on the sample data that it carries.

A family of kernels adds its part as one function in a module of its own, and that to `PARTS`. It
prints, and returns the pictures that can be drawn of what it found.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from .. import __version__, get_isa, get_num_threads, threads
from ..datasets import load_glosses, load_token_states
from . import tour_ann, tour_attention, tour_depth
from .output import duration, paragraph
from .pictures import draw
from .sample import Sample

PARTS = (tour_depth.show, tour_attention.show, tour_ann.show)


def add_to(commands: Any) -> None:
    help_text = "see on real text what the package does; takes a second or two"
    parser = commands.add_parser("tour", help=help_text, description=help_text)
    parser.add_argument(
        "--out", type=Path, default=Path("embedcore-tour"), metavar="DIR",
        help="where pictures go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--no-plot", action="store_true", help="draw no pictures")
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="number of threads (default: see 'info')"
    )
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to 1024; got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    with threads(options.threads or get_num_threads()):
        _tour(None if options.no_plot else options.out)
    return 0


def _tour(folder: Path | None) -> None:
    started = time.perf_counter()
    count = get_num_threads()
    sample = Sample(load_glosses(), load_token_states())
    paragraph(
        f"embedcore {__version__}, instruction set {get_isa()}, {count} "
        f"thread{'s' if count > 1 else ''}. The sample: {sample.size:,} definitions from WordNet "
        f"in {len(sample.class_names)} classes, embedded by MiniLM in {sample.columns} dimensions."
    )
    pictures = {name: figure for part in PARTS for name, figure in part(sample).items()}
    draw(pictures, folder)
    print(f"\nAll of it took {duration(time.perf_counter() - started)}.")
