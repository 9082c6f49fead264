# SPDX-License-Identifier: Apache-2.0
"""The lock by which calls that change an index wait for each other."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Protocol


class Writers:
    """A lock that says so where a thread would wait for itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def __enter__(self) -> None:
        own = threading.get_ident()
        if self._owner == own:
            raise RuntimeError(
                "ann.Index: must not be changed by what a change of it calls; got a change from "
                "its progress callback."
            )
        self._lock.acquire()
        self._owner = own

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner = 0
        self._lock.release()


class Locked(Protocol):
    """What has such a lock."""

    _lock: Writers


_locked: weakref.WeakSet[Locked] = weakref.WeakSet()


def unlocked_in_children(owner: Locked) -> None:
    """See to it that `owner` has a free lock in a forked child.

    No other thread is there, nor what one was writing.
    """
    _locked.add(owner)


def _unlock_all() -> None:
    for owner in _locked:
        owner._lock = Writers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)
