# SPDX-License-Identifier: Apache-2.0
"""States of a corpus as arrays in a file, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._corpus_moments import StreamedMoments
from ._corpus_rows import Chunk, weights_of
from ._corpus_states import CosineState, MomentState, Options, RowState, State
from ._covariance import Moments
from ._metrics import COVARIANT
from ._persist import SavedArrays, save

_KIND = "depth.Corpus"
Parts = dict[str, Sequence[NDArray[Any]]]


def save_corpus(path: Path, options: Options, state: State) -> None:
    """Write a fitted corpus."""
    fields = {
        "kind": _KIND,
        **asdict(options),
        "count": state.count,
        "weight": state.weight,
        "weighted": state.weighted,
    }
    save(path, fields, _arrays(state))


def _arrays(state: State) -> Parts:
    if isinstance(state, CosineState):
        return {"sums": [state.sums]}
    arrays: Parts = {}
    if state.streamed is not None:
        moments = state.streamed.moments
        arrays["mean"] = [moments.mean]
        arrays["scatter"] = [moments.scatter]
        arrays["third"] = [state.streamed.third]
        arrays["fourth"] = [np.array([state.streamed.fourth, moments.weight, moments.used])]
    if isinstance(state, RowState):
        for number, run in enumerate(_runs(state.chunks)):
            arrays[f"rows{number}"] = [chunk.rows for chunk in run]
            if any(chunk.weights is not None for chunk in run):
                arrays[f"weights{number}"] = [weights_of(chunk) for chunk in run]
    return arrays


def _runs(chunks: tuple[Chunk, ...]) -> list[list[Chunk]]:
    """Chunks that follow one another in one dtype."""
    runs: list[list[Chunk]] = []
    for chunk in chunks:
        if runs and runs[-1][0].rows.dtype == chunk.rows.dtype:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def open_corpus(where: str, path: Path, *, mapped: bool) -> SavedArrays:
    """Open a file of the right kind."""
    file = SavedArrays(where, path, mapped=mapped)
    file.require(file.fields.get("kind") == _KIND, "holds something else")
    return file


def read_state(file: SavedArrays, options: Options) -> State:
    """Return the state in a file; OSError where it contradicts itself."""
    count, weight, weighted = (file.fields.get(key) for key in ("count", "weight", "weighted"))
    file.require(type(count) is int and count >= 1, f"has a count of rows of {count!r}")
    file.require(isinstance(weight, float) and 0.0 < weight < np.inf, f"has the weight {weight!r}")
    file.require(isinstance(weighted, bool), "does not say whether it has weights")
    assert isinstance(count, int) and isinstance(weight, float) and isinstance(weighted, bool)
    if options.metric == "cosine":
        columns = file.array("sums", 1).shape
        return CosineState(file.numbers("sums", columns), weight, count, weighted)
    streamed = _read_moments(file, count) if options.metric in COVARIANT else None
    if options.metric == "mahalanobis" and streamed is not None:
        return MomentState(streamed, count, weighted)
    chunks = _read_chunks(file)
    file.require(sum(len(chunk.rows) for chunk in chunks) == count, "lacks rows")
    total = sum(float(weights_of(chunk).sum(dtype=np.float64)) for chunk in chunks)
    file.require(abs(total - weight) <= 1e-6 * weight, "holds weights that do not add up")
    return RowState(chunks, total, count, streamed)


def _read_moments(file: SavedArrays, count: int) -> StreamedMoments:
    columns = len(file.array("mean", 1))
    fourth, weight, used = file.numbers("fourth", (3,)).tolist()
    possible = fourth >= 0.0 and weight > 0.0 and used == int(used) and 1 <= used <= count
    file.require(possible, "holds moments that cannot be")
    scatter = file.numbers("scatter", (columns, columns))
    moments = Moments(weight, file.numbers("mean", (columns,)), scatter, int(used))
    return StreamedMoments(moments, file.numbers("third", (columns,)), fourth)


def _read_chunks(file: SavedArrays) -> tuple[Chunk, ...]:
    chunks: list[Chunk] = []
    names = file.names()
    while f"rows{len(chunks)}" in names:
        number = len(chunks)
        rows = file.array(f"rows{number}", 2)
        same_width = not chunks or rows.shape[1] == chunks[0].rows.shape[1]
        file.require(same_width, "holds rows of different lengths")
        weights = None
        if f"weights{number}" in names:
            weights = file.array(f"weights{number}", 1)
            file.require(weights.dtype == np.float32, "holds weights of another dtype")
            usable = len(weights) == len(rows) and bool(np.isfinite(weights).all())
            file.require(usable and bool((weights >= 0.0).all()), "holds weights that cannot be")
        chunks.append(Chunk(rows, weights))
    file.require(bool(chunks), "holds no rows")
    return tuple(chunks)
