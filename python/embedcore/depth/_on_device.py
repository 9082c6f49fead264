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
    directions: Any,
    shrinkage: float | str,
    check: bool,
    out: Any,
    kept: dict[str, Any] | None = None,
) -> Any:
    """Return the depths of `x`, which lies where `call` says; see `depth.score`.

    `directions`: on the device, for the metrics that look along some. `kept`: of earlier calls with
    the same corpus, and for later ones.
    """
    check_precision(call.where, precision)
    wanted = checked_shrinkage(shrinkage) if metric in COVARIANT else 0.0
    rows = call.matrix("x", x)
    among = None if corpus is None else call.matrix("corpus", corpus)
    corpus_rows = (rows if among is None else among)[1]
    weighing = _NO_WEIGHTS if weights is None else call.vector("weights", weights, corpus_rows)
    shape: tuple[int, ...] = (rows[1],)
    parts, sizes, order = None, np.array([corpus_rows]), np.arange(1)
    if groups is not None or offsets is not None:
        codes, count = group_codes(call.where, on_host(groups), on_host(offsets), corpus_rows)
        order = np.argsort(codes, kind="stable").astype(np.int64, copy=False)
        sizes = np.bincount(codes, minlength=count)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        parts, shape = (starts.tolist(), call.sent(order)), (rows[1], count)
    if metric in COVARIANT:
        check_covariance_rows(int(sizes.min()), left_out=corpus is None, weighted=False)
    elif corpus is None:
        _check_company(call.where, sizes, order)
    result, address = _result(call, rows, shape, out)
    native = _NATIVE[metric]
    along = (0, 0) if directions is None else call.matrix("directions", directions)[:2]
    asked = -1.0 if wanted == "auto" else wanted
    further = (asked, *along, 0, 0, False)
    covariance = None
    if kept is not None and metric in COVARIANT:
        found = kept.get("covariance")
        covariance = found
        if covariance is None:
            size = call.kernels.depth_covariance_bytes(
                call.where, call.place(), rows, among, native, weighing, further
            )
            covariance = call.made((size,), "uint8")
        further = (asked, *along, 0, call.address(covariance), found is not None)
    call.kernels.depth_score(
        call.where, call.place(), rows, among, native, NATIVE_PRECISION[precision], weighing, parts,
        further, address, call.allocate,
    )  # fmt: skip
    if kept is not None and covariance is not None:
        # Found by now. Threads at their first scores each find their own.
        kept["covariance"] = covariance
    if check:
        call.kernels.depth_check(
            call.where, call.place(), rows, among, native, weighing, further, call.allocate
        )
    return result


def direction_sums(call: Call, x: Any, weights: Any) -> Any:
    """Return what cosine depth keeps of the rows of `x`: sums (columns + 1,), on the device."""
    rows = call.matrix("x", x)
    weighing = _NO_WEIGHTS if weights is None else call.vector("weights", weights, rows[1])
    shape = (rows[2] + 1,)
    sums = call.made(shape, "float64")
    call.kernels.depth_direction_sums(
        call.where, call.place(), rows, weighing, call.target("sums", sums, shape, "float64"),
        call.allocate,
    )  # fmt: skip
    return sums


def score_by_sums(call: Call, x: Any, sums: Any, out: Any) -> Any:
    """Return the cosine depths of `x` in the rows that `sums` were made of."""
    rows = call.matrix("x", x)
    result, address = _result(call, rows, (rows[1],), out)
    further = (0.0, 0, 0, call.target("sums", sums, (rows[2] + 1,), "float64"), 0, False)
    call.kernels.depth_score(
        call.where, call.place(), rows, None, NATIVE_METRIC["cosine"], 0, _NO_WEIGHTS, None,
        further, address, call.allocate,
    )  # fmt: skip
    return result


def check_precision(where: str, precision: str) -> None:
    """Refuse the precisions that have no kernels on the GPU."""
    if precision not in _PRECISIONS:
        raise NotImplementedError(
            f"{where}: 'precision' must be 'float32' or 'bfloat16' on the GPU; got {precision!r}."
        )


def _result(call: Call, rows: tuple[int, ...], shape: tuple[int, ...], out: Any) -> tuple[Any, int]:
    """Return where depths of `rows` go, and its address."""
    dtype = "float64" if rows[-1] == _FLOAT64 else "float32"
    result = call.made(shape, dtype) if out is None else out
    return result, call.target("out", result, shape, dtype)


def _check_company(where: str, sizes: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """Refuse rows that are alone in their own group: nothing is left to score them in."""
    if (sizes != 1).all():
        return
    group = int(np.argmax(sizes == 1))
    row = int(order[int(sizes[:group].sum())])
    raise ValueError(
        f"{where}: 'x' must have another row of positive weight in the group of each row, which is "
        f"left out of its own depth; row {row} is alone in group {group}."
    )
