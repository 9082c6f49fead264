# SPDX-License-Identifier: Apache-2.0
"""`depth.score` for arrays on a GPU: one native call on their stream."""

from __future__ import annotations

from typing import Any

from .._device import Call
from ._metrics import NATIVE_METRIC, NATIVE_PRECISION

WHERE = "depth.score"

METRICS = ("cosine", "chord", "arc")
_PRECISIONS = ("float32", "bfloat16")


def score_on_device(
    call: Call, x: Any, corpus: Any, metric: str, weights: Any, precision: str, out: Any
) -> Any:
    """Return the depths of `x`, which lies where `call` says; see `depth.score`."""
    _check_supported(metric, precision)
    rows = call.matrix("x", x)
    among = None if corpus is None else call.matrix("corpus", corpus)
    corpus_rows = (rows if among is None else among)[1]
    weighing = 0 if weights is None else call.vector("weights", weights, corpus_rows, "float32")
    result = call.made((rows[1],), "float32") if out is None else out
    address = call.target("out", result, (rows[1],), "float32")
    call.kernels.depth_score(
        WHERE, call.place(), rows, among, NATIVE_METRIC[metric], NATIVE_PRECISION[precision],
        weighing, address, call.allocate,
    )  # fmt: skip
    return result


def _check_supported(metric: str, precision: str) -> None:
    if metric not in METRICS:
        raise NotImplementedError(
            f"{WHERE}: 'metric' must be one of {', '.join(map(repr, METRICS))} on the GPU; got "
            f"{metric!r}, which has kernels for the CPU only."
        )
    if precision not in _PRECISIONS:
        raise ValueError(
            f"{WHERE}: 'precision' must be 'float32' or 'bfloat16' on the GPU; got {precision!r}."
        )
