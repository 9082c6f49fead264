# SPDX-License-Identifier: Apache-2.0
"""Plain text for a terminal: headings, paragraphs, tables and times, within `WIDTH` columns."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WIDTH = 88


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def paragraph(text: str) -> None:
    print(textwrap.fill(text, WIDTH, break_on_hyphens=False))


def item(label: str, text: str) -> None:
    """Print a paragraph whose further lines are indented below its text."""
    print(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"  {label}  ",
            subsequent_indent=" " * (len(label) + 4),
            break_on_hyphens=False,
        )
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns; the first is set to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        first = f"  {line[0]:<{widths[0]}}"
        others = (f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join([first, *others]).rstrip())


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it, for instance ``"1.24 ms"``."""
    for limit, scale, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.perf_counter()
    yield
    print(f"  [{duration(time.perf_counter() - started)}: {what}]")
