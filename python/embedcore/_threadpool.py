# SPDX-License-Identifier: Apache-2.0
"""Makes the thread pool known to threadpoolctl."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["register_if_imported", "register_threadpoolctl"]

_registered = False


def register_if_imported() -> None:
    """Register with threadpoolctl if the process has imported it; that cost is not ours to add."""
    if "threadpoolctl" in sys.modules and not _registered:
        register_threadpoolctl()


def register_threadpoolctl() -> None:
    """Let ``threadpoolctl.threadpool_limits`` and ``threadpool_info`` see embedcore's threads.

    This happens by itself when threadpoolctl is imported before `embedcore` or before the first use
    of a family such as `embedcore.depth`; call it when threadpoolctl is imported later. Further
    calls do nothing.

    Raises
    ------
    ImportError
        If threadpoolctl 3.1 or later is not installed.
    """
    global _registered
    if _registered:
        return
    import threadpoolctl

    threadpoolctl.register(_make_controller(threadpoolctl.LibController))
    _registered = True


def _make_controller(base: Any) -> type[Any]:
    class EmbedcoreController(base):  # type: ignore[misc]
        """The pool of libembedcore, found by its file name."""

        user_api = "embedcore"
        internal_api = "embedcore"
        filename_prefixes = ("libembedcore.",)  # not those of libembedcore_cuda
        check_symbols = ("ec_get_num_threads", "ec_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.ec_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.ec_set_num_threads(num_threads)

        def get_version(self) -> str:
            import ctypes

            self.dynlib.ec_version.restype = ctypes.c_char_p
            return str(self.dynlib.ec_version().decode())

        def set_additional_attributes(self) -> None:
            import ctypes

            self.dynlib.ec_get_isa.restype = ctypes.c_char_p
            self.architecture = str(self.dynlib.ec_get_isa().decode())

    return EmbedcoreController
