# SPDX-License-Identifier: Apache-2.0
"""Progress of long calls: nothing, a bar, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[float], object]


@contextmanager
def reporter(progress: Progress, label: str) -> Iterator[Callable[[float], object] | None]:
    """Yield what native code calls with the fraction done, or None.

    Parameters
    ----------
    progress : bool or callable
        ``True`` shows a bar on standard error and needs tqdm.
    label : str
        What the bar says.

    Raises
    ------
    ImportError
        If a bar is wanted and tqdm is not installed.
    """
    if progress is False or progress is None:
        yield None
        return
    if callable(progress):
        yield progress
        progress(1.0)
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            f"{label}: progress=True needs tqdm; install embedcore[progress]."
        ) from error
    bar_format = "{l_bar}{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, desc=label, bar_format=bar_format, delay=0.5) as bar:
        yield lambda fraction: bar.update(max(0.0, fraction - bar.n))
        bar.update(max(0.0, 1.0 - bar.n))
