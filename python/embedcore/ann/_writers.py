# SPDX-License-Identifier: Apache-2.0
"""The lock by which calls that change an index wait for each other."""

from __future__ import annotations

import threading
from types import TracebackType


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
