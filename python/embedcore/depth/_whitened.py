# SPDX-License-Identifier: Apache-2.0
"""Mahalanobis depth and affine-invariant IRW: the depths that need a covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import to_kind_of, to_numpy
from ._covariance import Moments, Whitener, choose_whitener
from ._metrics import NATIVE_METRIC

WHERE = "depth.score"


# Sums of squares of numbers in between neither overflow nor lose digits.
_SMALLEST_SAFE, _LARGEST_SAFE = 1e-120, 1e120


def _float64(weights: Any) -> NDArray[np.float64]:
    """Weights with the largest one 1: their unit is no part of a depth."""
    wide = to_numpy(weights, WHERE, "weights").astype(np.float64)
    scaled: NDArray[np.float64] = wide / (wide.max() or 1.0)
    return scaled


class _CheckedRows:
    """Matrices for the metrics whose linear algebra is NumPy's; the native side checks them."""

    def __init__(self, x: Any, corpus: Any, weights: Any) -> None:
        # The native view speaks first: kinds, dtypes, devices, shapes, values and weights.
        _core.depth_check(WHERE, x, corpus, weights)
        self.left_out = corpus is None
        self.x = to_numpy(x, WHERE, "x")
        self.corpus = self.x if corpus is None else to_numpy(corpus, WHERE, "corpus")
        self.weights = None if weights is None else _float64(weights)
        largest = float(np.abs(self.corpus).max())
        if not _SMALLEST_SAFE < largest < _LARGEST_SAFE:
            self._rescale(largest)

    def _rescale(self, largest: float) -> None:
        """Divide by a power of two, which no depth here sees, so that no square leaves float64."""
        if largest == 0.0:
            return
        exponent = 1 - int(np.frexp(largest)[1])
        with np.errstate(over="ignore"):
            far = np.ldexp(self.x.astype(np.float64), exponent)
            corpus = far if self.left_out else np.ldexp(self.corpus.astype(np.float64), exponent)
        self.corpus = corpus
        self.x = np.clip(far, -_LARGEST_SAFE, _LARGEST_SAFE)

    def member_weights(self, member: NDArray[np.bool_] | slice) -> NDArray[np.float64] | None:
        return None if self.weights is None else self.weights[member]


def checked_shrinkage(value: float | str) -> float | str:
    """Return `value` as ``"auto"`` or a float in [0, 1]; raise where it is neither."""
    if value == "auto":
        return "auto"
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(
            f"{WHERE}: 'shrinkage' must be 'auto' or a number in [0, 1]; got {value!r}."
        )
    if not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{WHERE}: 'shrinkage' must lie in [0, 1]; got {value!r}.")
    return float(value)


def _members(labels: NDArray[np.int64] | None, group: int) -> NDArray[np.bool_] | slice:
    return slice(None) if labels is None else labels == group


def check_covariance_rows(count: int, *, left_out: bool, weighted: bool) -> None:
    """Raise where a group has too few rows (of positive weight) for a covariance."""
    least = 3 if left_out else 2
    if count >= least:
        return
    raise ValueError(
        f"{WHERE}: '{'x' if left_out else 'corpus'}' must have at least {least} rows"
        f"{' of positive weight' if weighted else ''} in each group for a covariance; got {count}."
    )


def _fit(rows: _CheckedRows, member: NDArray[np.bool_] | slice, shrinkage: float | str) -> Whitener:
    corpus, weights = rows.corpus[member], rows.member_weights(member)
    count = len(corpus) if weights is None else int(np.count_nonzero(weights))
    check_covariance_rows(count, left_out=rows.left_out, weighted=weights is not None)
    moments = Moments.of(corpus, weights)
    return choose_whitener(
        WHERE,
        "'x'" if rows.left_out else "'corpus'",
        moments,
        lambda: moments.fourth_of(corpus, weights),
        shrinkage,
        1 if weights is None else 0,
    )


def _finish(x: Any, result: NDArray[np.float64], grouped: bool, out: Any) -> Any:
    """Write the depths (n, G) where `score` puts them: `out`, or an array of the kind of `x`."""
    depths = result if grouped else result[:, 0]
    if out is None:
        wide = to_numpy(x, WHERE, "x").dtype == np.float64
        return to_kind_of(x, np.ascontiguousarray(depths, np.float64 if wide else np.float32))
    return _core.depth_write(WHERE, x, np.ascontiguousarray(depths), out)


def mahalanobis(
    x: Any,
    corpus: Any,
    weights: Any,
    labels: NDArray[np.int64] | None,
    count: int,
    shrinkage: float | str,
    out: Any,
) -> Any:
    rows = _CheckedRows(x, corpus, weights)
    wanted = checked_shrinkage(shrinkage)
    result = np.empty((len(rows.x), count))
    for group in range(count):
        member = _members(labels, group)
        fitted = _fit(rows, member, wanted)
        result[:, group] = fitted.squared_distances(rows.x)
        if rows.left_out:
            result[member, group] = fitted.squared_distances_left_out(
                rows.x[member], rows.member_weights(member)
            )
    return _finish(x, 1.0 / (1.0 + result), labels is not None, out)


def ai_irw(
    x: Any,
    corpus: Any,
    weights: Any,
    labels: NDArray[np.int64] | None,
    count: int,
    directions: Any,
    shrinkage: float | str,
    threads: int,
    report: Any,
    out: Any,
) -> Any:
    """IRW along whitened directions; each group has its own, so groups are taken one by one."""
    rows = _CheckedRows(x, corpus, weights)
    wanted = checked_shrinkage(shrinkage)
    result = np.empty((len(rows.x), count))
    irw = NATIVE_METRIC["irw"]
    for group in range(count):
        member = _members(labels, group)
        along = _fit(rows, member, wanted).whiten_directions(directions)
        own = rows.corpus[member]
        w = rows.member_weights(member)

        def depths(of: Any, within: Any, along: Any = along, w: Any = w) -> Any:
            return _core.depth_score(
                WHERE, of, within, irw, 0, w, None, 1, along, threads, False, None, report
            )

        if rows.left_out:
            result[member, group] = depths(own, None)
            if labels is not None and not np.all(labels == group):
                result[~member, group] = depths(rows.x[~member], own)  # type: ignore[operator]
        else:
            result[:, group] = depths(rows.x, own)
    return _finish(x, result, labels is not None, out)
