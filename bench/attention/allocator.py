# SPDX-License-Identifier: Apache-2.0
"""Whether large results find memory whose pages are in place, or get fresh pages.

Touching the first time what the system has just handed out can take longer than computing a
gradient. Torch allocates every result anew, so the C library decides: `warm` lets it keep what was
freed, for embedcore and its peers alike; `fresh` makes it return large blocks and ask for others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_DEFAULT_THRESHOLD, _DEFAULT_MMAP_MAX = 128 << 10, 65_536


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        found = ctypes.CDLL(None)
        return found if hasattr(found, "mallopt") and hasattr(found, "malloc_trim") else None
    except (OSError, TypeError):
        return None


@contextmanager
def warm() -> Iterator[None]:
    """Keep freed memory in the process until the end; nothing changes without glibc."""
    library = _library()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # taken as the largest size: never return memory
    try:
        yield
    finally:
        _reset(library)


@contextmanager
def fresh() -> Iterator[None]:
    """Give every large block pages of its own, and return them with it."""
    library = _library()
    if library is not None:
        _reset(library)
    yield


def _reset(library: Any) -> None:
    library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
    library.mallopt(_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
    library.mallopt(_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
    library.malloc_trim(0)
