# SPDX-License-Identifier: Apache-2.0
"""Damaged, cut and hostile files: an error that says what is wrong, or an index that works.

Files are opened and searched in this very process: a crash ends the whole run.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _file
from support.ann import World, early_builds, expression, make_world

DAMAGED = r"must be an undamaged index that embedcore saved; it "
MODES = ("mmap", "load")


@functools.cache
def good() -> tuple[World, bytes]:
    """An index with every part in use: graph, tail, deleted rows, columns of every kind."""
    with early_builds():
        world = make_world("l2", rows=400, columns=24)
    world.index.delete(np.sort(world.ids)[:10])
    rows = np.ones((15, 24), np.float32)
    world.index.add(rows, attributes={"kind": ["new"] * 15, "topics": [["nlp", "more"]] * 15})
    return world, _file_bytes(world.index)


def _file_bytes(index: Any) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        return (Path(folder) / "index").read_bytes()


def head_of(data: bytes) -> tuple[Any, ...]:
    return _file._HEAD.unpack(data[: _file._HEAD.size])


def index_of(data: bytes) -> dict[str, Any]:
    _, _, _, at, length, _, _ = head_of(data)
    fields: dict[str, Any] = json.loads(data[at : at + length])
    return fields


def sections_of(data: bytes) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = index_of(data)["sections"]
    return sections


def with_index(data: bytes, fields: Any, *, raw: bytes | None = None) -> bytes:
    """A file whose index says something else, under valid checksums."""
    at = head_of(data)[3]
    index = json.dumps(fields).encode() if raw is None else raw
    head = (data[:8], 1, zlib.crc32(index), at, len(index), at + len(index), 0)
    return _file._HEAD.pack(*head) + data[_file._HEAD.size : at] + index


def size_of(entry: dict[str, Any]) -> int:
    return int(np.dtype(entry["dtype"]).itemsize * np.prod(entry["shape"], dtype=np.int64))


def with_section(data: bytes, name: str, change: Any) -> bytes:
    """A file with other values in a section, under valid checksums."""
    fields = index_of(data)
    entry = fields["sections"][name]
    start, size = entry["offset"], size_of(entry)
    array = np.frombuffer(data[start : start + size], entry["dtype"]).copy()
    change(array)
    content = array.tobytes()
    entry["crc"] = zlib.crc32(content)
    return with_index(data[:start] + content + data[start + size :], fields)


def use(index: Any) -> None:
    """Everything that reads an index: what it finds may be wrong, but nothing may crash."""
    world = good()[0]
    queries = world.queries
    for tree in (None, ("<", "rank", 50), ("contains", "topics", "nlp"), ("!=", "kind", "a")):
        where = None if tree is None else expression(tree)
        for options in ({}, {"exact": True}, {"recall": 0.999, "k": 100}):
            _attempt(index.search, queries, where=where, **options)
        _attempt(index.count, where)
    _attempt(index.get, world.ids[:20])
    _attempt(index.delete, np.sort(world.ids)[10:12])
    _attempt(index.add, np.ones((3, 24), np.float32), attributes={"kind": ["x"] * 3})
    _attempt(index.compact)
    _attempt(index.search, queries)
    _attempt(pickle.dumps, index)


def _attempt(call: Any, *arguments: Any, **options: Any) -> None:
    try:
        with np.errstate(all="ignore"):  # vectors of a hostile file may be NaN
            call(*arguments, **options)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        assert str(error)


def outcome(path: Path, data: bytes, mode: str, **options: Any) -> str:
    """Open and use a file; '' or what the error says."""
    path.write_bytes(data)
    try:
        index = ann.Index.open(path, mode=mode, **options)
    except OSError as error:
        assert str(error).startswith("ann.Index.open: 'path' "), error
        return str(error)
    use(index)
    return ""


@pytest.mark.parametrize("mode", MODES)
def test_a_file_cut_short_is_refused(mode: str, tmp_path: Path) -> None:
    data = good()[1]
    at, length = head_of(data)[3:5]
    ends = [entry["offset"] + size_of(entry) for entry in sections_of(data).values()]
    starts = [entry["offset"] for entry in sections_of(data).values()]
    cuts = {0, 1, 7, 8, 9, 12, 47, 48, 49, at, at + 1, at + length - 1, len(data) - 1}
    cuts |= {cut + step for cut in starts + ends for step in (-1, 0, 1)}
    cuts |= set(range(0, len(data), len(data) // 40))
    for cut in sorted(cuts - {len(data)}):
        if 0 <= cut < len(data):
            assert DAMAGED in outcome(tmp_path / "bad", data[:cut], mode), cut
    assert DAMAGED in outcome(tmp_path / "bad", data + b"x", mode)
    assert DAMAGED in outcome(tmp_path / "bad", data * 2, mode)


def test_every_section_is_checked(tmp_path: Path) -> None:
    data = good()[1]
    for name, entry in sections_of(data).items():
        size = size_of(entry)
        for at in {0, size // 2, size - 1} if size else ():
            changed = bytearray(data)
            changed[entry["offset"] + at] ^= 0x10
            said = outcome(tmp_path / "bad", bytes(changed), "load")
            assert DAMAGED in said and "damaged" in said and name in said
    for at in [*range(40), *range(head_of(data)[3], len(data), 23)]:
        changed = bytearray(data)
        changed[at] ^= 0x41
        for mode in MODES:
            assert DAMAGED in outcome(tmp_path / "bad", bytes(changed), mode), at


SEEDS = int(os.environ.get("EMBEDCORE_FUZZ_SEEDS", "4"))  # 25 files each


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_bytes_under_valid_checksums(seed: int, tmp_path: Path) -> None:
    """Checksums keep accidents away, not malice: what they let through must not crash."""
    rng = np.random.default_rng(seed)
    data = good()[1]
    names = [name for name, entry in sections_of(data).items() if size_of(entry)]
    refused = 0
    for _ in range(25):
        name = names[rng.integers(len(names))]

        def change(array: Any) -> None:
            view = array.view(np.uint8)
            kind = rng.integers(6)
            places = rng.integers(0, len(view), 1 + rng.integers(0, 20))
            if kind == 0:
                view[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
            elif kind == 1:
                view[:] = rng.integers(0, 256, len(view))
            elif kind == 2:
                view[:] = 0xFF
            elif kind == 3:  # one step off, as in offsets and counts
                array[rng.integers(0, len(array), 3)] += array.dtype.type(1)
            elif kind == 4 and len(view) % 4 == 0:
                numbers = view.view(np.float32)
                numbers[places // 4] = [np.nan, np.inf, 3e38, -3e38, 0.0][rng.integers(5)]
            else:
                array[rng.integers(0, len(array), 3)] = array[rng.integers(0, len(array), 3)]

        changed = with_section(data, name, change)
        refused += outcome(tmp_path / "bad", changed, MODES[int(rng.integers(2))]) != ""
    assert refused > 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, -1.0])
def test_codes_that_no_rows_have(value: float, tmp_path: Path) -> None:
    """Scores of such codes would overflow, and NaN has no place in an order."""
    data = good()[1]

    def factor(at: int) -> Any:
        def change(array: Any) -> None:  # the last 16 bytes of a head of 64
            array.view(np.float32).reshape(-1, 16)[3, 12 + at] = value

        return change

    places = [(part, at) for part in ("heads", "centroids") for at in range(4)]
    changes = [(part, factor(at)) for part, at in places if (at, value) != (1, -1.0)]
    if abs(value) != 1.0:
        changes += [(name, lambda array: array.__setitem__(3, value)) for name in ("mean", "basis")]
    for name, change in changes:
        for mode in MODES:
            changed = with_section(data, f"vectors/{name}", change)
            assert "is out of range" in outcome(tmp_path / "bad", changed, mode, verify=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1e300, 1e12, -1.0, 0.0])
def test_hostile_costs(value: float, tmp_path: Path) -> None:
    """Costs decide what is looked at, never how many results there are."""
    world, data = good()
    for at in [*range(1, 12), *range(12, 177, 7)]:
        changed = with_section(data, "vectors/costs", lambda a, at=at: a.__setitem__(at, value))
        path = tmp_path / "bad"
        path.write_bytes(changed)
        if not np.isfinite(value):
            with pytest.raises(OSError, match="a cost is not finite"):
                ann.Index.open(path)
            continue
        index = ann.Index.open(path)
        for tree in (None, ("<", "rank", 50), ("!=", "kind", "a")):
            where = None if tree is None else expression(tree)
            for recall in (0.95, 0.97):
                hits = index.search(world.queries, k=10, where=where, recall=recall)
                assert (hits.counts == min(10, index.count(where))).all()


def test_hostile_headers_of_vectors(tmp_path: Path) -> None:
    data = good()[1]
    values = [-(2**63), -1, 0, 1, 64, 128, 1 << 32, 2**63 - 1]
    for field in range(12):
        for number, value in enumerate(values):

            def change(array: Any, field: int = field, value: int = value) -> None:
                array[field] = value

            changed = with_section(data, "vectors/header", change)
            outcome(tmp_path / "bad", changed, MODES[number % 2], verify=False)


@pytest.mark.parametrize("mode", MODES)
def test_random_bytes_anywhere(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    data = good()[1]
    for _ in range(60):
        changed = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(data), 1 + rng.integers(0, 8))
        changed[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
        for verify in (True, False):
            outcome(tmp_path / "bad", changed.tobytes(), mode, verify=verify)


@pytest.mark.parametrize("value", [np.nan, np.inf, -3e38, 1e30])
def test_vectors_that_no_add_would_take(value: float, tmp_path: Path) -> None:
    """Without checksums, what was not finite is found when the index is built anew."""
    world, data = good()

    def change(array: Any) -> None:
        array.view(np.float32)[24 * 100 + 3] = value

    (tmp_path / "bad").write_bytes(with_section(data, "vectors/raw", change))
    index = ann.Index.open(tmp_path / "bad", verify=False)
    index.delete(np.sort(world.ids)[10:12])
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="vectors are damaged"):
        index.compact()
    assert index.search(world.queries).ids.shape == (len(world.queries), 10)


HOSTILE_SHAPES: list[Any] = [
    [],
    [0],
    [-1],
    [True],
    [1.5],
    ["3"],
    None,
    [1 << 47],
    [1 << 63],
    [10**400],
    [1 << 40, 1 << 40, 1 << 40],
    [0, 1 << 47, 1 << 47],
    [1, 1, 1, 1, 1, 1],
]


def test_hostile_entries(tmp_path: Path) -> None:
    data = good()[1]
    changes: list[tuple[str, Any]] = [("shape", shape) for shape in HOSTILE_SHAPES]
    changes += [("offset", v) for v in (-64, 0, 1, 64 - 1, 1 << 62, 1 << 64, "0", None, 2.5, True)]
    changes += [("dtype", v) for v in ("object", "O", "float128", "int8", "<U4", "V8", 3, None, [])]
    changes += [("crc", v) for v in (None, "x", -1, 1 << 70, 0.5)]
    for number, (name, _) in enumerate(sections_of(data).items()):
        for key, value in changes[number % 3 :: 3] if number else changes:
            fields = index_of(data)
            if fields["sections"][name][key] == value:
                continue
            fields["sections"][name][key] = value
            outcome(tmp_path / "bad", with_index(data, fields), MODES[number % 2])


def test_hostile_fields(tmp_path: Path) -> None:
    data = good()[1]
    fields = index_of(data)
    values: list[Any] = [
        None,
        -1,
        0,
        1,
        1 << 31,
        1 << 63,
        1 << 70,
        "x",
        0.5,
        [],
        {},
        True,
        "cosine",
    ]
    for key in fields:
        for value in values:
            if key != "sections":
                outcome(tmp_path / "bad", with_index(data, {**fields, key: value}), "load")
        less = {name: value for name, value in fields.items() if name != key}
        outcome(tmp_path / "bad", with_index(data, less), "load")
    for name in fields["sections"]:
        less = {key: entry for key, entry in fields["sections"].items() if key != name}
        outcome(tmp_path / "bad", with_index(data, {**fields, "sections": less}), "mmap")
        more = {**fields["sections"], name + "x": fields["sections"][name]}
        outcome(tmp_path / "bad", with_index(data, {**fields, "sections": more}), "mmap")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"3",
        b"[]",
        b"{",
        b"{}",
        b'{"sections": []}',
        b"[" * 100_000,
        b'{"a": ' * 99_999,
        b"\xff",
    ],
    ids=range(9),
)
def test_hostile_json(raw: bytes, tmp_path: Path) -> None:
    data = with_index(good()[1], None, raw=raw)
    for mode in MODES:
        assert DAMAGED in outcome(tmp_path / "bad", data, mode)


def test_hostile_heads(tmp_path: Path) -> None:
    data = good()[1]
    magic, _, crc, at, length, whole, zero = head_of(data)
    big = (1 << 64) - 1
    for head in (
        (magic, 0, crc, at, length, whole, zero),
        (magic, 2, crc, at, length, whole, zero),
        (b"EMBEDCOR", 1, crc, at, length, whole, zero),
        (magic, 1, crc, big, length, whole, zero),
        (magic, 1, crc, at, big, whole, zero),
        (magic, 1, crc, at, length, big, zero),
        (magic, 1, crc, big - length + 1, length, 0, zero),
        (magic, 1, crc, 0, whole, whole, zero),
        (magic, 1, crc, at + 1, length - 1, whole, zero),
    ):
        for mode in MODES:
            hostile = _file._HEAD.pack(*head) + data[_file._HEAD.size :]
            assert DAMAGED in outcome(tmp_path / "bad", hostile, mode)


def test_a_later_version_says_so(tmp_path: Path) -> None:
    data = bytearray(good()[1])
    data[8] = 9
    said = outcome(tmp_path / "bad", bytes(data), "mmap")
    assert "format version 9, this release reads 1" in said


def test_other_files(tmp_path: Path) -> None:
    for content in (b"", b"\0" * 4096, b"PK\x03\x04" * 100, b"EMBEDANN", b"EMBEDANN" * 100):
        for mode in MODES:
            assert DAMAGED in outcome(tmp_path / "bad", content, mode)


def test_damaged_pickles() -> None:
    world, _ = good()
    data = pickle.dumps(world.index)
    at = data.index(b"EMBEDANN")
    rng = np.random.default_rng(0)
    for place in [at, at + 8, at + 20, *rng.integers(at + 48, len(data) - 20, 30).tolist()]:
        changed = bytearray(data)
        changed[place] ^= 0x20
        try:
            index = pickle.loads(bytes(changed))
        except (OSError, ValueError) as error:
            assert str(error)
        else:
            use(index)
