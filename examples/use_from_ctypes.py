# SPDX-License-Identifier: Apache-2.0
"""Call the C ABI through ctypes: what any language with a foreign-function interface can do."""

from __future__ import annotations

import ctypes

import embedcore
import numpy as np
from embedcore import depth

EC_FLOAT32 = 2
EC_DEPTH_ARC = 2


class Matrix(ctypes.Structure):
    """``ec_matrix``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("dtype", ctypes.c_int),
    )


class DepthOptions(ctypes.Structure):
    """``ec_depth_options``."""

    _fields_ = (
        ("metric", ctypes.c_int),
        ("precision", ctypes.c_int),
        ("threads", ctypes.c_int32),
        ("raw_sums", ctypes.c_int32),
        ("weights", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
        ("directions", ctypes.c_void_p),
        ("monitor", ctypes.c_void_p),
    )


class Error(ctypes.Structure):
    """``ec_error``."""

    _fields_ = (
        ("row", ctypes.c_int64),
        ("argument", ctypes.c_char * 16),
        ("message", ctypes.c_char * 232),
    )


def arc_depth(library: ctypes.CDLL, x: np.ndarray) -> np.ndarray:
    """Leave-one-out arc depth of the rows of a C-contiguous float32 array."""
    rows, columns = x.shape
    matrix = Matrix(x.ctypes.data, rows, columns, columns, EC_FLOAT32)
    options = DepthOptions(metric=EC_DEPTH_ARC, groups=1)
    depths = np.empty(rows)
    error = Error()
    status = library.ec_depth_score(
        ctypes.byref(matrix),
        None,
        ctypes.byref(options),
        depths.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
        ctypes.byref(error),
    )
    if status != 0:
        name, message = error.argument.decode(), error.message.decode()
        raise ValueError(f"'{name}', row {error.row}: {message}")
    return depths


def main() -> None:
    library = ctypes.CDLL(embedcore.get_library())
    library.ec_version.restype = ctypes.c_char_p
    print("embedcore", library.ec_version().decode())

    x = np.random.default_rng(0).standard_normal((500, 96), dtype=np.float32) + 1
    depths = arc_depth(library, x)
    print(f"the deepest of {len(x)} rows is {depths.argmax()}, with depth {depths.max():.4f}")

    from_python = depth.score(x, metric="arc")
    print("largest difference from depth.score:", f"{np.abs(depths - from_python).max():.1e}")

    x[3] = 0
    try:
        arc_depth(library, x)
    except ValueError as refused:
        print("a zero row is refused:", refused)


if __name__ == "__main__":
    main()
