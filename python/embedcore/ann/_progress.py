# SPDX-License-Identifier: Apache-2.0
"""Progress of building: nothing, a line on standard error, or the user's own function."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[float], object] | None

_DELAY = 0.5  # seconds; what takes less shows nothing
_INTERVAL = 0.2


@contextmanager
def monitor_of(progress: Progress, label: str) -> Iterator[Callable[[float], object] | None]:
    """Yield what a build calls with the fraction done, or None."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        line = _Line(label)
        try:
            yield _Rising(line.show).show
        finally:
            line.close()
    else:
        rising = _Rising(progress)
        yield rising.show
        if rising.used:
            progress(1.0)


class _Rising:
    """Makes one fraction of those of the steps of a build, which each go from 0 to 1.

    How many steps there are depends on the rows: each is taken for a share of what is left.
    """

    _SHARE = 0.2

    def __init__(self, report: Callable[[float], object]) -> None:
        self._report, self._step, self._last = report, 0, 0.0
        self.used = False

    def show(self, fraction: float) -> None:
        self.used = True
        self._step += fraction < self._last
        self._last = fraction
        self._report(1.0 - (1.0 - self._SHARE) ** (self._step + fraction))


class _Line:
    def __init__(self, label: str) -> None:
        self._label, self._start = label, time.monotonic()
        self._next = self._start + _DELAY
        self._shown = False

    def show(self, fraction: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next, self._shown = now + _INTERVAL, True
            elapsed = now - self._start
            sys.stderr.write(f"\r{self._label}: {fraction:4.0%} after {elapsed:.1f} s")
            sys.stderr.flush()

    def close(self) -> None:
        if self._shown:
            elapsed = time.monotonic() - self._start
            sys.stderr.write(f"\r{self._label}: done after {elapsed:.1f} s \n")
            sys.stderr.flush()
