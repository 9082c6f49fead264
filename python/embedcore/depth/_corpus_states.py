# SPDX-License-Identifier: Apache-2.0
"""What a `Corpus` keeps of its rows: sums, moments, or the rows themselves.

States never change: `plus` makes the state of two sets of rows, so that a call that fails or is
stopped leaves the corpus as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ._corpus_moments import StreamedMoments
from ._corpus_rows import (
    Chunk,
    Rows,
    block_rows,
    blocks,
    directional_depths,
    pair_sums,
)
from ._covariance import Floats
from ._metrics import COVARIANT, DIRECTIONAL, NATIVE_METRIC, NATIVE_PRECISION
from ._score import _random_directions

ANGULAR = frozenset({"cosine", "chord", "arc"})


@dataclass(frozen=True)
class Options:
    """How a corpus takes depth."""

    metric: str
    shrinkage: float | str
    n_directions: int
    seed: int
    precision: str


@dataclass(frozen=True)
class Call:
    """One call of `Corpus.score`. `own_weights` (n,): the rows of x are rows of the corpus."""

    where: str
    options: Options
    threads: int
    report: Callable[[float], object] | None
    own_weights: Floats | None

    def remaining(self, total: float, rows: int) -> Floats:
        """Weight (n,) that each row of x meets; never zero."""
        if self.own_weights is None:
            return np.full(rows, total)
        rest = total - self.own_weights
        alone = ~(rest > 1e-9 * total)
        if alone.any():
            raise ValueError(
                f"{self.where}: the corpus must have weight beside each row of 'x', which is left "
                f"out of its own depth; row {int(np.argmax(alone))} has all of it."
            )
        return rest

    def say(self, done: int, todo: int) -> None:
        if self.report is not None:
            self.report(done / todo)


@dataclass(frozen=True)
class CosineState:
    """Sum (d,) of the weighted unit rows."""

    sums: Floats
    weight: float
    count: int
    weighted: bool

    @property
    def columns(self) -> int:
        return len(self.sums)

    def plus(self, other: CosineState) -> CosineState:
        return CosineState(
            self.sums + other.sums,
            self.weight + other.weight,
            self.count + other.count,
            self.weighted or other.weighted,
        )

    def depths(self, x: Rows, call: Call) -> Floats:
        # Means in place of sums: kernels take them as float32, whatever the unit of the weights.
        means: Floats = _core.depth_cosine_sums(
            call.where, x, (self.sums / self.weight).reshape(1, -1), call.threads, call.report
        )[:, 0]
        if call.own_weights is None:
            return 1.0 + means
        left = call.remaining(self.weight, len(x)) / self.weight
        return 1.0 + (means - call.own_weights / self.weight) / left


@dataclass(frozen=True)
class MomentState:
    """Moments of the rows, for Mahalanobis depth."""

    streamed: StreamedMoments
    count: int
    weighted: bool

    @property
    def weight(self) -> float:
        return self.streamed.moments.weight

    @property
    def columns(self) -> int:
        return len(self.streamed.moments.mean)

    def plus(self, other: MomentState) -> MomentState:
        return MomentState(
            self.streamed.plus(other.streamed),
            self.count + other.count,
            self.weighted or other.weighted,
        )

    def depths(self, x: Rows, call: Call) -> Floats:
        whitener = self.streamed.whitener(
            call.where, call.options.shrinkage, weighted=self.weighted
        )
        _core.depth_check(call.where, x, None, None)
        if call.own_weights is None:
            return 1.0 / (1.0 + whitener.squared_distances(x))
        call.remaining(self.weight, len(x))
        own = call.own_weights if self.weighted else None
        return 1.0 / (1.0 + whitener.squared_distances_left_out(x, own))


@dataclass(frozen=True)
class RowState:
    """The rows themselves, and for AI-IRW their moments."""

    chunks: tuple[Chunk, ...]
    weight: float
    count: int
    streamed: StreamedMoments | None

    @property
    def weighted(self) -> bool:
        return any(chunk.weights is not None for chunk in self.chunks)

    @property
    def columns(self) -> int:
        columns: int = self.chunks[0].rows.shape[1]
        return columns

    def plus(self, other: RowState) -> RowState:
        streamed = None
        if self.streamed is not None and other.streamed is not None:
            streamed = self.streamed.plus(other.streamed)
        return RowState(
            self.chunks + other.chunks,
            self.weight + other.weight,
            self.count + other.count,
            streamed,
        )

    def depths(self, x: Rows, call: Call) -> Floats:
        metric = call.options.metric
        rest = call.remaining(self.weight, len(x))
        if metric in DIRECTIONAL:
            _core.depth_check(call.where, x, None, None)  # before NumPy meets what is not finite
            return self._directional(x, call, rest)
        size = block_rows(self.columns)
        depths = np.empty(len(x))
        todo = math.ceil(len(x) / size) * self.count
        done = 0
        for start in range(0, len(x), size):
            own = x[start : start + size]
            sums = np.zeros((len(own), self.columns) if metric == "spatial" else len(own))
            for block in blocks(self.chunks):
                sums += self._sums(own, block, call)
                done += len(block.rows)
                call.say(done, todo)
            depths[start : start + size] = _depths_of_sums(metric, sums, rest[start : start + size])
        return depths

    def _sums(self, x: Rows, block: Chunk, call: Call) -> Floats:
        metric = NATIVE_METRIC[call.options.metric]
        precision = NATIVE_PRECISION[call.options.precision]
        return pair_sums(call.where, x, block, metric, precision, call.threads)

    def _directional(self, x: Rows, call: Call, rest: Floats) -> Floats:
        options = call.options
        along = _random_directions(x, options.n_directions, options.seed)
        if self.streamed is not None:
            along = self.streamed.whitener(
                call.where, options.shrinkage, weighted=self.weighted
            ).whiten_directions(along)
        averaged = options.metric in ("irw", "ai_irw")
        native = NATIVE_METRIC["irw" if averaged else options.metric]
        result = np.zeros(len(x)) if averaged else np.full(len(x), np.inf)
        done = 0
        for count, depths in directional_depths(
            call.where, x, self.chunks, native, along, call.threads
        ):
            if averaged:
                result += depths * (count / len(along))
            else:
                # Depth falls as outlyingness rises, so the worst direction is the least depth.
                np.minimum(result, depths, out=result)
            done += count
            call.say(done, len(along))
        if call.own_weights is not None:
            # A row counts in both of its tails, so leaving it out is linear.
            result = np.maximum(result * self.weight - call.own_weights, 0.0) / rest
        return result


State: TypeAlias = CosineState | MomentState | RowState


def plus(state: State, other: State) -> State:
    """Return the state of the rows of both, which are of one metric."""
    added: State = state.plus(other)  # type: ignore[arg-type]
    return added


def _depths_of_sums(metric: str, sums: Floats, weight: Floats) -> Floats:
    if metric == "spatial":
        lengths: Floats = np.sqrt((sums * sums).sum(axis=1))
        return 1.0 - lengths / weight
    means = sums / weight
    if metric == "l2":
        return 1.0 / (1.0 + means)
    return (2.0 if metric == "chord" else math.pi) - means


def check_rows(where: str, x: Any, weights: Any, *, angular: bool) -> tuple[Floats, float]:
    """Check rows (m, d) and weights as the kernels do, under the name 'x'.

    Returns
    -------
    sums : ndarray (d,)
        Of the weighted unit rows; zeros for depths that are not angular.
    total : float
        Of the weights, 0 for depths that are not angular.
    """
    sums, total = np.zeros((1, x.shape[1])), np.zeros(1)
    if not angular:
        _core.depth_check(where, x, None, weights)
        return sums[0], 0.0
    try:
        _core.depth_direction_sums(where, x, weights, None, 1, 0, sums, total, None)
    except ValueError as error:
        raise ValueError(str(error).replace("'corpus'", "'x'")) from None
    return sums[0], float(total[0])


def state_of(where: str, rows: Rows, weights: Any, options: Options) -> State:
    """Check rows and weights and return what a corpus keeps of them."""
    metric = options.metric
    if metric == "projection" and weights is not None:
        raise ValueError(f"{where}: 'weights' must be None for metric 'projection'.")
    sums, total = check_rows(where, rows, weights, angular=metric in ANGULAR)
    wide = None if weights is None else np.array(weights, dtype=np.float64)
    if wide is not None:
        with np.errstate(over="ignore"):
            sum_of_weights = float(wide.sum())
        if not 0.0 < sum_of_weights < np.inf:
            raise ValueError(
                f"{where}: 'weights' must have a positive sum in float64; got {sum_of_weights:g}."
            )
    if metric == "cosine":
        return CosineState(sums, total, len(rows), weights is not None)
    streamed = StreamedMoments.of(rows, wide) if metric in COVARIANT else None
    if metric == "mahalanobis" and streamed is not None:
        return MomentState(streamed, len(rows), weights is not None)
    # Copied: the caller may change them, and they are small beside the rows.
    with np.errstate(over="ignore"):
        narrow: NDArray[np.float32] | None = None if wide is None else wide.astype(np.float32)
    if narrow is not None and not np.finfo(np.float32).tiny <= narrow.max() < np.inf:
        raise ValueError(
            f"{where}: 'weights' must have a largest value between 1e-37 and 1e38 for metric "
            f"{metric!r}, which keeps them as float32; got {float(np.max(weights)):g}."
        )
    chunk = Chunk(rows, narrow)
    total = float(len(rows)) if narrow is None else float(narrow.sum(dtype=np.float64))
    return RowState((chunk,), total, len(rows), streamed)
