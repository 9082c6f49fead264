# SPDX-License-Identifier: Apache-2.0
"""Codes and cells of builds on a device, beside those of the CPU's builds, which they repeat."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import embedcore
import numpy as np
import pytest
from embedcore import _device, ann
from embedcore.ann import _device_links, _device_steps
from support import emulated
from support.ann import DTYPES, as_dtype, clustered, early_builds, make_world

METRICS = ("cosine", "ip", "l2")
CELLS = ("cell_members", "cell_start", "centroids")


def built(vectors: Any, *, build_device: str, rows: int = 60, **options: Any) -> Any:
    index = ann.Index(vectors.shape[1], build_device=build_device, **options)
    with early_builds(rows):
        index.add(vectors)
    return index


def pair(vectors: Any, **options: Any) -> tuple[Any, Any]:
    """Return an index built by the CPU and one built with the device's help."""
    here, there = (built(vectors, build_device=name, **options) for name in ("cpu", "cuda"))
    return here, there


def parts_of(index: Any) -> Any:
    return index._state.vectors.parts()


def assert_same(here: Any, there: Any) -> None:
    """Everything but links and costs, which come after, is the same."""
    one, other = parts_of(here), parts_of(there)
    np.testing.assert_array_equal(here._state.ids.external, there._state.ids.external)
    assert set(one) == set(other)
    assert {"heads", "tails", "raw", "inverse_norms", "basis", "mean", *CELLS} <= set(one)
    for name in set(one) - {"links", "costs", "header"}:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture
def no_links(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose none on the device, which takes the emulation longer than all else."""

    monkeypatch.setattr(_device_links.Links, "begin", lambda _: None)
    monkeypatch.setattr(_device_links.Links, "finish", lambda _, links: links.fill(0xFFFFFFFF))


# Heads alone, heads and tails, and tails of a part of the axes.
@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize(("rows", "columns"), [(210, 20), (210, 90), (160, 530)])
@pytest.mark.parametrize(
    ("metric", "dtype"),
    [*((metric, "float32") for metric in METRICS), *(("cosine", d) for d in DTYPES[1:])],
)
def test_codes_and_cells_are_those_of_the_cpu(
    kind: Any, metric: str, dtype: str, rows: int, columns: int
) -> None:
    vectors = as_dtype(clustered(np.random.default_rng(5), rows, columns), dtype)
    here, there = pair(vectors, metric=metric, dtype=dtype)
    assert_same(here, there)
    header = parts_of(there)["header"]
    assert (header[10] > 0) == (columns > 48) and (header[8] < columns) == (columns > 512)


@pytest.mark.usefixtures("no_links")
def test_without_fused_adds_codes_are_nearly_those_of_the_cpu(kind: Any) -> None:
    vectors = clustered(np.random.default_rng(6), 150, 90).astype(np.float32)
    embedcore.set_isa(embedcore.list_isas()[0])
    here = built(vectors, build_device="cpu")
    there = built(vectors, build_device="cuda")
    codes = []
    for index in (here, there):
        parts, order = parts_of(index), np.argsort(index._state.ids.external)
        heads = parts["heads"].reshape(len(order), -1)[order]
        codes.append((heads[:, :-16].astype(int), heads[:, -16:].copy().view(np.float32)))
    off = np.abs(codes[0][0] - codes[1][0])
    assert off.max() <= 1 and off.mean() < 1e-4
    np.testing.assert_allclose(codes[0][1], codes[1][1], rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("no_links")
def test_large_cells_are_cut_as_on_the_cpu(kind: Any) -> None:
    rng = np.random.default_rng(7)
    dense = 0.01 * rng.standard_normal((240, 12))
    spread = 5.0 * rng.standard_normal((60, 12))
    vectors = np.concatenate([dense, spread]).astype(np.float32)[rng.permutation(300)]
    here, there = pair(vectors, metric="l2")
    assert_same(here, there)
    assert len(parts_of(there)["cell_start"]) > 35  # more than there were centroids


@pytest.mark.usefixtures("no_links")
def test_zeros_and_equal_rows(kind: Any) -> None:
    rng = np.random.default_rng(8)
    vectors = np.repeat(rng.standard_normal((4, 12)), 40, axis=0).astype(np.float32)
    vectors[80:] = 0.0
    here, there = pair(vectors, metric="l2")
    assert_same(here, there)
    nothing = np.zeros((70, 5), np.float32)
    assert_same(*pair(nothing, metric="ip"))


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("rows", [1, 7, 9])
def test_fewer_rows_than_a_cell_has(kind: Any, rows: int) -> None:
    vectors = clustered(np.random.default_rng(9), rows, 6).astype(np.float32)
    here, there = pair(vectors, metric="l2", rows=1)
    assert there._state.trained == rows
    assert_same(here, there)


@pytest.mark.usefixtures("no_links")
def test_dead_rows_prefixes_and_indexes_without_vectors(kind: Any) -> None:
    options = {"rows": 150, "columns": 60, "queries": 6}
    for more in ({"prefixes": (20,)}, {"keep_vectors": False}):
        with early_builds(100):
            worlds = [
                make_world(**options, **more, build_device=name)  # type: ignore[arg-type]
                for name in ("cpu", "cuda")
            ]
        assert_same(worlds[0].index, worlds[1].index)
    with early_builds(100):
        worlds = [make_world(**options, build_device=name) for name in ("cpu", "cuda")]  # type: ignore[arg-type]
        for world in worlds:
            world.index.delete(world.ids[:40])
            world.index.compact()
    assert_same(worlds[0].index, worlds[1].index)


def test_builds_repeat_and_their_files_are_read_on_both_sides(kind: Any, tmp_path: Path) -> None:
    vectors = clustered(np.random.default_rng(10), 70, 16).astype(np.float32)
    one, other = (built(vectors, build_device="cuda") for _ in range(2))
    assert_same(one, other)
    one.save(tmp_path / "index")
    opened = ann.Index.open(tmp_path / "index", build_device="cuda")
    assert_same(one, opened)
    assert_same(one, pickle.loads(pickle.dumps(one)))
    hits, again = one.search(vectors[:5], 3), opened.search(vectors[:5], 3)
    np.testing.assert_array_equal(hits.ids, again.ids)
    with early_builds(60):
        opened.add(clustered(np.random.default_rng(11), 80, 16).astype(np.float32))
    assert opened._state.trained == 150


@pytest.mark.usefixtures("no_links")
def test_rows_are_sent_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kind.emulated:
        pytest.skip("watches the emulated library")
    sent = []
    real = emulated.EmulatedLibrary.from_host

    def watched(self: Any, array: Any, device: int) -> Any:
        sent.append(array.nbytes)
        return real(self, array, device)

    monkeypatch.setattr(emulated.EmulatedLibrary, "from_host", watched)
    vectors = clustered(np.random.default_rng(12), 130, 61).astype(np.float32)
    built(vectors, build_device="cuda")
    assert sorted(sent)[-1] == vectors.nbytes and sent.count(vectors.nbytes) == 1


@pytest.mark.parametrize("made", [0, 1, 3, 5, 9, 14])
def test_where_there_is_no_memory_nothing_is_added(
    kind: Any, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever array it is that there is no room for."""
    if not kind.emulated:
        pytest.skip("takes the memory of the emulated library away")
    vectors = clustered(np.random.default_rng(13), 130, 20).astype(np.float32)
    index = ann.Index(20, build_device="cuda")
    index.add(vectors[:10])
    real, count = emulated.EmulatedLibrary.empty, [made]

    def scarce(self: Any, *arguments: Any) -> Any:
        count[0] -= 1
        if count[0] < 0:
            raise MemoryError("no room on the device")
        return real(self, *arguments)

    with early_builds(100):
        with monkeypatch.context() as patch:
            patch.setattr(emulated.EmulatedLibrary, "empty", scarce)
            with pytest.raises(MemoryError, match="no room on the device"):
                index.add(vectors[10:])
        assert len(index) == 10 and index._state.trained == 0
        index.add(vectors[10:])
    assert index._state.trained == 130


def fewer(result: Any) -> Any:
    return result[:-1]


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        ("encode", fewer, "norms must be 130 numbers"),
        ("group", fewer, "cells must be 130 numbers"),
        ("group", lambda result: result + np.uint32(1000), "a cell is out of range"),
        ("means", fewer, "means must be [0-9]+ numbers"),
    ],
)
def test_steps_that_give_what_cannot_be(
    kind: Any, step: str, change: Callable[[Any], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(_device_steps._DeviceSteps, step)
    monkeypatch.setattr(
        _device_steps._DeviceSteps, step, lambda *arguments: change(real(*arguments))
    )
    vectors = clustered(np.random.default_rng(14), 130, 20).astype(np.float32)
    with pytest.raises(ValueError, match=words):
        built(vectors, build_device="cuda")


@pytest.mark.parametrize(
    ("number", "codes"),
    [
        (4, (20, 64, 0)),  # codes
        (0, (0, 64, 0)),
        (0, (65, 64, 64)),  # more than columns
        (0, (60, 64, 0)),  # no room
        (0, (20, 32, 0)),
        (0, (20, 576, 0)),
        (0, (60, 64, 32)),
    ],
)
def test_codes_that_cannot_be_made(kind: Any, number: int, codes: tuple[int, int, int]) -> None:
    call = _device.call_for("here", "build_device", 0)
    rows = (2, number, 5, 64, 0, 0)
    words = r"^here: 'codes' must be of rows that are no codes"
    if number != 0:  # which the index is asked for first
        words = r"^here: 'index' must have scales"
    with pytest.raises(ValueError, match=words):
        call.kernels.ann_make_byte_codes(
            "here", call.place(), rows, (*codes, (0, 0, 0, 0)), call.allocate
        )


def test_cells_that_cannot_be(kind: Any) -> None:
    call = _device.call_for("here", "build_device", 0)
    place, none = call.place(), (0, 0)
    for head_bytes in (0, 32, 576):
        with pytest.raises(ValueError, match=r"^here: 'heads' must have 64 to 512 bytes"):
            call.kernels.ann_cell_means("here", place, (head_bytes, 0, 0), none, none)
    for cells, moves in ((0, 1), (3, -1)):
        with pytest.raises(ValueError, match=r"^here: 'grouping' must have cells, moves that are"):
            call.kernels.ann_group(
                "here", place, (64, 0, 0), (0, cells), none, moves, none, 0, call.allocate
            )
