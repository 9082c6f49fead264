# SPDX-License-Identifier: Apache-2.0
"""``python -m embedcore bench``: a front to the benchmarks, which live in the source tree."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HOW_TO_GET = """\
the benchmarks are not part of the installed package. Get the source tree, with its folder bench/,
and either run this command inside it or name the folder with --bench-dir."""


_OPTIONS = """\
Other options go to the benchmarks as they are, among them:
  --full           all shapes, in place of small ones
  --only TEXT      cases whose name has this text
  --threads N ...  numbers of threads
  --output FOLDER  where JSON and the chart go
  --list           print the names of the cases"""


def add_to(commands: Any) -> None:
    help_text = "time the kernels against their floors and their peers (needs the source tree)"
    parser = commands.add_parser(
        "bench",
        help=help_text,
        description=help_text,
        epilog=_OPTIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--bench-dir", type=Path, metavar="DIR",
        help="the folder bench/ (default: the one in this directory or in one above it)",
    )  # fmt: skip
    parser.set_defaults(run=run, others=[])


def run(options: argparse.Namespace) -> int:
    folder = find_bench(options.bench_dir, Path.cwd())
    if folder is None:
        raise FileNotFoundError(_HOW_TO_GET)
    with _importable(folder.parent):
        runner = importlib.import_module("bench.runner")
        return int(runner.main(options.others) or 0)


def find_bench(given: Path | None, start: Path) -> Path | None:
    """Return the folder with the benchmarks: `given`, or one beside or above `start`.

    Nothing is imported from a folder that does not belong to a source tree of this package.
    """
    for folder in [start, *start.parents] if given is None else [given.resolve().parent]:
        project = folder / "pyproject.toml"
        if (
            (folder / "bench" / "runner.py").is_file()
            and project.is_file()
            and 'name = "embedcore"' in project.read_text(encoding="utf-8").splitlines()
        ):
            return folder / "bench"
    return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
