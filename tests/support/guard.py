# SPDX-License-Identifier: Apache-2.0
"""Arrays that end at an unreadable page: a kernel that reads past the end crashes at once."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_PROT_NONE = 0


def _guarded_memory(size_bytes: int) -> tuple[mmap.mmap, int]:
    """Map whole pages of which the last is unreadable; return the map and the usable size."""
    pages = -(-max(size_bytes, 1) // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    usable = pages * mmap.PAGESIZE
    if _libc.mprotect(ctypes.c_void_p(address + usable), mmap.PAGESIZE, _PROT_NONE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    return memory, usable


def guarded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a C-contiguous copy whose last byte is the last readable byte before a page fault.

    The memory lives as long as the copy or a view of it.
    """
    array = np.asarray(array)
    memory, usable = _guarded_memory(array.nbytes)
    # NumPy has no buffer of user dtypes (bfloat16): bytes first, then a view.
    raw = np.frombuffer(memory, dtype=np.uint8, count=array.nbytes, offset=usable - array.nbytes)
    copy = raw.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
