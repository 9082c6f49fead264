# SPDX-License-Identifier: Apache-2.0
"""`depth.score` for arrays on a GPU: one native call on their stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._device import Call, on_host
from ._groups import group_codes
from ._metrics import COVARIANT, NATIVE_METRIC, NATIVE_PRECISION
from ._whitened import check_covariance_rows, checked_shrinkage

WHERE = "depth.score"

# Those that the CPU's kernels have no number for.
_NATIVE = {**NATIVE_METRIC, "mahalanobis": 8, "ai_irw": 9}
_PRECISIONS = ("float32", "bfloat16")
_FLOAT64 = 3
_NO_WEIGHTS = (0, 1, 2)


def score_on_device(
    call: Call,
    x: Any,
    corpus: Any,
    metric: str,
    weights: Any,
    groups: Any,
    offsets: Any,
    precision: str,
    directions: NDArray[np.float64] | None,
    shrinkage: float | str,
    check: bool,
    out: Any,
) -> Any:
    """Return the depths of `x`, which lies where `call` says; see `depth.score`."""
    if precision not in _PRECISIONS:
        raise NotImplementedError(
            f"{WHERE}: 'precision' must be 'float32' or 'bfloat16' on the GPU; got {precision!r}."
        )
    wanted = checked_shrinkage(shrinkage) if metric in COVARIANT else 0.0
    rows = call.matrix("x", x)
    among = None if corpus is None else call.matrix("corpus", corpus)
    corpus_rows = (rows if among is None else among)[1]
    weighing = _NO_WEIGHTS if weights is None else call.vector("weights", weights, corpus_rows)
    shape: tuple[int, ...] = (rows[1],)
    parts, sizes, order = None, np.array([corpus_rows]), np.arange(1)
    if groups is not None or offsets is not None:
        codes, count = group_codes(WHERE, on_host(groups), on_host(offsets), corpus_rows)
        order = np.argsort(codes, kind="stable").astype(np.int64, copy=False)
        sizes = np.bincount(codes, minlength=count)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        parts, shape = (starts.tolist(), call.sent(order)), (rows[1], count)
    if metric in COVARIANT:
        check_covariance_rows(int(sizes.min()), left_out=corpus is None, weighted=False)
    elif corpus is None:
        _check_company(sizes, order)
    dtype = "float64" if rows[-1] == _FLOAT64 else "float32"
    result = call.made(shape, dtype) if out is None else out
    address = call.target("out", result, shape, dtype)
    native = _NATIVE[metric]
    along = (0, 0) if directions is None else (call.sent(directions), len(directions))
    further = (-1.0 if wanted == "auto" else wanted, *along)
    call.kernels.depth_score(
        WHERE, call.place(), rows, among, native, NATIVE_PRECISION[precision], weighing, parts,
        further, address, call.allocate,
    )  # fmt: skip
    if check:
        call.kernels.depth_check(
            WHERE, call.place(), rows, among, native, weighing, further, call.allocate
        )
    return result


def _check_company(sizes: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """Refuse rows that are alone in their own group: nothing is left to score them in."""
    if (sizes != 1).all():
        return
    group = int(np.argmax(sizes == 1))
    row = int(order[int(sizes[:group].sum())])
    raise ValueError(
        f"{WHERE}: 'x' must have another row of positive weight in the group of each row, which is "
        f"left out of its own depth; row {row} is alone in group {group}."
    )
