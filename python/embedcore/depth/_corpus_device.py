# SPDX-License-Identifier: Apache-2.0
"""What a `Corpus` keeps of rows on a GPU: the sums of cosine depth, or references to the rows.

As those of `_corpus_states`, states never change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from .._device import Call, call_of, on_host
from ._corpus_states import CosineState, Options, State, plus, state_of
from ._metrics import DIRECTIONAL
from ._on_device import check_precision, direction_sums, score_by_sums, score_on_device
from ._score import _random_directions
from ._subset import errors_of


@dataclass(frozen=True)
class DeviceSums:
    """Sum of the weighted unit rows, then of the weights: (columns + 1,) on the device."""

    sums: Any
    count: int
    weighted: bool

    @property
    def columns(self) -> int:
        return int(self.sums.shape[0]) - 1

    @property
    def array(self) -> Any:
        """An array that says where the state lies."""
        return self.sums

    def plus(self, where: str, other: DeviceState) -> DeviceSums:
        assert isinstance(other, DeviceSums)
        call = _call(where, self, other)
        return DeviceSums(
            call.added(self.sums, other.sums),
            self.count + other.count,
            self.weighted or other.weighted,
        )

    def depths(self, call: Call, x: Any, options: Options, out: Any) -> Any:
        del options
        return score_by_sums(call, x, self.sums, out)

    def on_host(self, where: str, options: Options) -> State:
        """Return the state of the same rows on the CPU; waits for the device."""
        del where, options
        sums = on_host(self.sums)
        return CosineState(sums[:-1], float(sums[-1]), self.count, self.weighted)


@dataclass(frozen=True)
class DeviceRows:
    """Rows as the user gave them, and their weights.

    What the first score makes of them is kept: one array of several chunks, random directions on
    the device, the covariance.
    """

    chunks: tuple[tuple[Any, Any], ...]  # rows and weights, None for all 1
    count: int
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def columns(self) -> int:
        return int(self.chunks[0][0].shape[1])

    @property
    def weighted(self) -> bool:
        return any(weights is not None for _, weights in self.chunks)

    @property
    def array(self) -> Any:
        return self.chunks[0][0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}

    def plus(self, where: str, other: DeviceState) -> DeviceRows:
        assert isinstance(other, DeviceRows)
        _call(where, self, other)
        mine, theirs = self.array.dtype, other.array.dtype
        if mine != theirs:
            raise TypeError(
                f"{where}: rows on a GPU must have the dtype of the corpus ({mine}); got {theirs}."
            )
        return DeviceRows(self.chunks + other.chunks, self.count + other.count)

    def depths(self, call: Call, x: Any, options: Options, out: Any) -> Any:
        rows, weights = self._joined(call)
        with errors_of("depth.Corpus.score"):
            return score_on_device(
                call, x, rows, options.metric, weights, None, None, options.precision,
                self._directions(call, x, options), options.shrinkage, False, out,
                self._made,
            )  # fmt: skip

    def _joined(self, call: Call) -> tuple[Any, Any]:
        """Rows and weights as one array each; several chunks are copied once."""
        joined: tuple[Any, Any] | None = self._made.get("joined")
        if joined is None:
            rows, weights = call.joined([rows for rows, _ in self.chunks]), None
            if self.weighted:
                weights = call.joined([_written_out(call, c) for c in self.chunks])
            joined = self._made["joined"] = (rows, weights)
        return joined

    def _directions(self, call: Call, x: Any, options: Options) -> Any:
        if options.metric not in DIRECTIONAL:
            return None
        if "directions" not in self._made:
            drawn = _random_directions(x, options.n_directions, options.seed)
            self._made["directions"] = call.copied_from_host(drawn)
        return self._made["directions"]

    def on_host(self, where: str, options: Options) -> State:
        """Return the state of the same rows on the CPU; waits for the device."""
        states = (
            state_of(where, on_host(rows), None if weights is None else on_host(weights), options)
            for rows, weights in self.chunks
        )
        total = next(states)
        for state in states:
            total = plus(total, state)
        return total


DeviceState: TypeAlias = DeviceSums | DeviceRows


def _call(where: str, state: DeviceState, other: DeviceState) -> Call:
    """Return a call for arrays of both; raises where they do not lie together."""
    call = call_of(where, "corpus", state.array)
    assert call is not None
    call.floats("x", other.array, 1, 2)
    return call


def _written_out(call: Call, chunk: tuple[Any, Any]) -> Any:
    """Weights of a chunk as float64, ones where it has none."""
    rows, weights = chunk
    if weights is None:
        return call.copied_from_host(np.ones(rows.shape[0]))
    return call.converted(weights, "float64")


def device_state_of(where: str, call: Call, x: Any, weights: Any, options: Options) -> DeviceState:
    """Check arrays, not their values, and return what a corpus keeps of them."""
    check_precision(where, options.precision)
    if options.metric == "projection" and weights is not None:
        raise ValueError(f"{where}: 'weights' must be None for metric 'projection'.")
    _, rows, _, _, _ = call.matrix("x", x)
    if rows == 0:
        raise ValueError(f"{where}: 'x' must have at least one row; got shape {tuple(x.shape)}.")
    if weights is not None:
        call.vector("weights", weights, rows)
    if options.metric == "cosine":
        return DeviceSums(direction_sums(call, x, weights), rows, weights is not None)
    return DeviceRows(((x, weights),), rows)


def together(
    where: str, state: State | DeviceState, other: State | DeviceState
) -> State | DeviceState:
    """Return the state of the rows of both, which must be on one side."""
    if isinstance(state, DeviceState) and isinstance(other, DeviceState):
        return state.plus(where, other)
    if isinstance(state, DeviceState) or isinstance(other, DeviceState):
        here, there = (
            "the GPU" if isinstance(one, DeviceState) else "the CPU" for one in (state, other)
        )
        raise TypeError(f"{where}: rows must be on {here}, as the corpus is; got rows on {there}.")
    return plus(state, other)


def call_for_scores(where: str, x: Any, left_out: bool, weights: Any, out: Any) -> Call:
    """Return the call of `Corpus.score` for a corpus on the GPU; refuse what it cannot do there."""
    call = call_of(where, "x", x, out=out)
    if call is None:
        raise TypeError(
            f"{where}: 'x' must be on the GPU, as the corpus is; got {type(x).__name__}."
        )
    if left_out or weights is not None:
        raise NotImplementedError(
            f"{where}: 'left_out' must be False, and 'weights' None, for a corpus on the GPU. "
            "Use depth.score(x), which leaves each row out of its own depth."
        )
    call.floats("x", x, 2)
    return call
