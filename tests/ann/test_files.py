# SPDX-License-Identifier: Apache-2.0
"""Saving and opening: whole or not at all, whatever stops it; many processes read one file."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from embedcore.ann import _file
from support.ann import DTYPES, World, check, early_builds, expression, make_world, same
from support.kinds import dtype_of

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
TREES: list[Any] = [None, ("<", "rank", 30), ("contains", "topics", "nlp"), ("is_null", "kind")]


def require_same(one: Any, other: Any, world: World) -> None:
    assert len(one) == len(other)
    for tree in TREES:
        where = None if tree is None else expression(tree)
        assert one.count(where) == other.count(where)
        for exact in (True, False):
            found = [each.search(world.queries, where=where, exact=exact) for each in (one, other)]
            same(*found)


def changed_world(metric: str, dtype: str) -> World:
    """An index with rows in the graph, rows after it, and deleted rows."""
    with early_builds():
        world = make_world(metric, dtype, rows=600, columns=40)
    gone = np.sort(world.ids)[:50]
    more = np.stack([world.table.vectors[key] for key in gone.tolist()[:20]])
    for target in (world.index, world.table):
        target.delete(gone)
        target.add(more, ids=np.arange(20) + 10_000, attributes={"kind": ["new"] * 20})
    return world


@pytest.mark.parametrize("mode", ["mmap", "load", "pickle"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_saved_is_opened(metric: str, dtype: str, mode: str, tmp_path: Path) -> None:
    world = changed_world(metric, dtype)
    path = tmp_path / "index"
    if mode == "pickle":
        opened = pickle.loads(pickle.dumps(world.index))
    else:
        world.index.save(path)
        assert os.listdir(tmp_path) == ["index"]
        opened = ann.Index.open(str(path), mode=mode)
    require_same(world.index, opened, world)
    hits = opened.search(world.queries, exact=True, where=ann.field("kind") == "new")
    check(hits, world.table, world.queries, 10, ("==", "kind", "new"), exact=True)
    # What was opened can be changed and saved, over the file that it reads.
    for target in (opened, world.table):
        target.delete([10_000])
        more = world.queries.astype(dtype_of(dtype))
        target.add(more, ids=list(range(20_000, 20_000 + len(more))))
    opened.save(path)
    again = ann.Index.open(path, mode="mmap")
    require_same(opened, again, world)
    opened.compact()
    opened.save(path)
    check(again.search(world.queries, exact=True), world.table, world.queries, 10, exact=True)
    assert os.listdir(tmp_path) == ["index"]


def test_an_empty_index(tmp_path: Path) -> None:
    for index in (ann.Index(7), ann.Index(7, metric="l2", dtype="int8", seed=5)):
        index.save(tmp_path / "index")
        for copy in (
            ann.Index.open(tmp_path / "index"),
            ann.Index.open(tmp_path / "index", mode="load"),
            pickle.loads(pickle.dumps(index)),
        ):
            assert len(copy) == 0 and copy.search(np.ones((1, 7), np.float32)).counts[0] == 0
            copy.add(np.ones((1, 7), np.int8 if index.dtype == "int8" else np.float32))
            assert copy.metric == index.metric and copy.dim == 7 and len(copy) == 1


@pytest.mark.parametrize("scale", [1e-12, 1e6, 1e13])
def test_rows_of_any_length(metric: str, scale: float, tmp_path: Path) -> None:
    rows = (np.random.default_rng(0).standard_normal((300, 16)) * scale).astype(np.float32)
    index = ann.Index(16, metric=metric)
    with early_builds():
        index.add(rows)
    index.save(tmp_path / "index")
    for opened in (ann.Index.open(tmp_path / "index"), pickle.loads(pickle.dumps(index))):
        same(opened.search(rows[:5]), index.search(rows[:5]))


@pytest.mark.parametrize("kind", ["equal", "low rank", "zeros", "opposites"])
def test_odd_rows_are_saved_and_opened(metric: str, kind: str, tmp_path: Path) -> None:
    """What is measured on them is out of all proportion."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2500, 30)).astype(np.float32)
    axes = np.linalg.qr(rng.standard_normal((96, 96)))[0].astype(np.float32)
    if kind == "equal":
        rows = np.ones((2500, 16), np.float32)
    elif kind == "low rank":
        rows = rows @ axes[:30]
    elif kind == "opposites":
        rows = np.concatenate([rows, -rows])
    else:
        rows[metric == "cosine" :: 3] = 1 if metric == "cosine" else 0
    index = ann.Index(rows.shape[1], metric=metric)
    index.add(rows)
    index.save(tmp_path / "index")
    queries = rows[:5] + np.float32(0.5)
    expected = index.search(queries)
    assert (expected.counts == 10).all()
    for opened in (ann.Index.open(tmp_path / "index"), pickle.loads(pickle.dumps(index))):
        same(opened.search(queries), expected)


def test_next_ids_are_kept(tmp_path: Path) -> None:
    index = ann.Index(3)
    index.add(np.ones((4, 3), np.float32))
    index.delete([3])
    index.save(tmp_path / "index")
    for copy in (ann.Index.open(tmp_path / "index"), pickle.loads(pickle.dumps(index))):
        assert list(copy.add(np.ones((1, 3), np.float32))) == [4]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(rows=300, columns=16)
    world.index.save(tmp_path / "index")
    data = (tmp_path / "index").read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.index.add(np.ones((3, 16), np.float32))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match=r"ann.Index.save: .*No space left on device"):
            world.index.save(tmp_path / "index")
    assert os.listdir(tmp_path) == ["index"]
    assert (tmp_path / "index").read_bytes() == data
    world.index.save(tmp_path / "index")
    assert len(ann.Index.open(tmp_path / "index")) == 303


_FULL = """
import resource, signal, sys
import numpy as np
from embedcore import ann

path = sys.argv[1]
index = ann.Index(64)
index.add(np.random.default_rng(0).standard_normal((4000, 64), dtype=np.float32))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing raises, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    index.save(path)
except OSError as error:
    print("OSError", error.errno)
assert len(index) == 4000 and index.search(np.ones((1, 64), np.float32)).counts[0] == 10
"""


def run(program: str, *arguments: Any, **options: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        **options,
    )


@POSIX
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    small = make_world(rows=100, columns=64)
    small.index.save(tmp_path / "index")
    data = (tmp_path / "index").read_bytes()
    done = run(_FULL, tmp_path / "index")
    assert "OSError" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == ["index"] and (tmp_path / "index").read_bytes() == data


_SAVING = """
import sys
import numpy as np
from embedcore import ann

path = sys.argv[1]
rng = np.random.default_rng(0)
one, two = (ann.Index(64), ann.Index(64))
one.add(rng.standard_normal((6000, 64), dtype=np.float32), attributes={"n": np.arange(6000)})
two.add(rng.standard_normal((3000, 64), dtype=np.float32), attributes={"n": np.arange(3000)})
one.save(path)
print("saved", flush=True)
while True:
    two.save(path)
    one.save(path)
"""


@POSIX
def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    for attempt in range(8):
        path = tmp_path / f"index{attempt % 2}"
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVING, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert "saved\n" in iter(process.stdout.readline, "")  # a rebuild may say something before
        time.sleep(0.003 + 0.011 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        for mode in ("load", "mmap"):
            index = ann.Index.open(path, mode=mode)
            assert len(index) in (3000, 6000)
            assert index.count(ann.field("n") < 100) == 100
            assert index.search(np.ones((2, 64), np.float32), exact=True).counts.tolist() == [
                10,
                10,
            ]


_READING = """
import sys
import numpy as np
from embedcore import ann

index = ann.Index.open(sys.argv[1], mode="mmap")
queries = np.load(sys.argv[2])
for _ in range(20):
    hits = index.search(queries, k=10, where=ann.field("rank") < 100)
print(hits.ids.tolist(), hits.distances.view(np.int32).tolist())
"""


def test_many_processes_read_one_file(tmp_path: Path) -> None:
    world = make_world(rows=2000, columns=40)
    world.index.save(tmp_path / "index")
    np.save(tmp_path / "queries.npy", world.queries)
    command = [sys.executable, "-c", _READING, tmp_path / "index", tmp_path / "queries.npy"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    # A new file under the name leaves those alone that read the old one.
    opened = ann.Index.open(tmp_path / "index")
    expected = opened.search(world.queries, k=10, where=ann.field("rank") < 100)
    wanted = f"{expected.ids.tolist()} {expected.distances.view(np.int32).tolist()}\n"
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert out.endswith(wanted), errors
    make_world(rows=50, columns=40).index.save(tmp_path / "index")
    same(opened.search(world.queries, k=10, where=ann.field("rank") < 100), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3,), TypeError, "'path' must be a path; got int"),
        (("nothing",), FileNotFoundError, "nothing"),
        (("index", "read"), ValueError, "'mode' must be one of 'mmap', 'load'; got 'read'"),
        (("index", 3), TypeError, "'mode' must be a string"),
        ((".",), OSError, "directory"),
    ],
)
def test_opening_nothing(
    arguments: Any, error: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ann.Index(3).save("index")
    with pytest.raises(error, match=words):
        ann.Index.open(arguments[0], **({"mode": arguments[1]} if len(arguments) > 1 else {}))


def test_saving_nowhere(tmp_path: Path) -> None:
    index = ann.Index(3)
    with pytest.raises(TypeError, match=r"ann.Index.save: 'path' must be a path; got int"):
        index.save(3)
    with pytest.raises(FileNotFoundError):
        index.save(tmp_path / "no folder" / "index")
    with pytest.raises(OSError):
        index.save(tmp_path)
    for nothing in ("", ".", "/"):
        with pytest.raises(IsADirectoryError, match=r"ann.Index.save: 'path' must be a file"):
            index.save(nothing)
    with pytest.raises(OSError, match=r"ann.Index.save: 'path' .*; File name too long"):
        index.save(tmp_path / ("x" * 300))
    assert os.listdir(tmp_path) == []


def test_a_name_as_long_as_can_be(tmp_path: Path) -> None:
    ann.Index(3).save(tmp_path / ("x" * 255))
    assert len(ann.Index.open(tmp_path / ("x" * 255))) == 0


def test_the_version_of_the_format_is_one() -> None:
    """A new version needs a golden file of its own; see test_golden."""
    assert _file._VERSION == 1


@pytest.mark.skipif(os.name != "posix", reason="needs links and permissions")
def test_links_and_permissions_stay(tmp_path: Path) -> None:
    index = ann.Index(2)
    index.add(np.ones((3, 2), np.float32))
    target, link = tmp_path / "target", tmp_path / "link"
    index.save(target)
    target.chmod(0o640)
    link.symlink_to(target.name)
    index.add(np.ones((2, 2), np.float32))
    index.save(link)
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o640
    assert len(ann.Index.open(target)) == 5


def test_paths_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^ann.Index.open: 'path' must not hold a NUL"):
        ann.Index.open("a\0b")
    with pytest.raises(FileNotFoundError, match=r"ann.Index.open: 'path' must be a file that can"):
        ann.Index.open(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError, match=r"ann.Index.open: 'path' must be a file that can"):
        ann.Index.open(tmp_path)
