# SPDX-License-Identifier: Apache-2.0
"""Saving and loading a `depth.Corpus`; corpora larger than the memory that a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedcore import depth
from embedcore.depth import _persist
from support.kinds import dtype_of

METRICS = ("cosine", "chord", "arc", "l2", "spatial", "mahalanobis")
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((50, 6)).astype(np.float32) + 1
X = RNG.standard_normal((9, 6)).astype(np.float32) + 1
WRONG = r"depth.Corpus.load: 'path' must be an undamaged file that embedcore saved; "


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_saved_is_loaded(metric: str, weighted: bool, mapped: bool, tmp_path: Path) -> None:
    weights = RNG.random(20).astype(np.float32) if weighted else None
    built = depth.Corpus(metric, shrinkage=0.25).fit(ROWS[:20], weights=weights)
    built.update(ROWS[20:30]).update(ROWS[30:].astype(np.float64))
    path = tmp_path / "corpus.bin"
    built.save(path)
    assert os.listdir(tmp_path) == ["corpus.bin"]
    loaded = depth.Corpus.load(str(path), mmap=mapped)
    assert repr(loaded) == repr(built) and loaded._options == built._options
    np.testing.assert_allclose(loaded.score(X), built.score(X), rtol=1e-6)
    loaded.merge(built).save(path)  # over the file that it reads
    again = depth.Corpus.load(path)
    assert len(again) == 100
    np.testing.assert_allclose(again.score(X), loaded.score(X), rtol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_rows_keep_their_dtype(name: str, tmp_path: Path) -> None:
    rows = ROWS.astype(dtype_of(name))
    depth.Corpus("l2").fit(rows).save(tmp_path / "c")
    loaded: Any = depth.Corpus.load(tmp_path / "c")
    assert np.array_equal(loaded._state.chunks[0].rows, rows)


def test_rows_in_strides_are_saved(tmp_path: Path) -> None:
    wide = np.repeat(ROWS, 2, axis=1)[::-1, ::2]
    depth.Corpus("l2").fit(wide).save(tmp_path / "c")
    got = depth.Corpus.load(tmp_path / "c").score(X)
    np.testing.assert_allclose(got, depth.score(X, ROWS, metric="l2"), rtol=1e-6)


def saved(tmp_path: Path, metric: str = "arc") -> bytes:
    depth.Corpus(metric).fit(ROWS, weights=np.ones(50)).save(tmp_path / "good")
    return (tmp_path / "good").read_bytes()


def load_bytes(tmp_path: Path, data: bytes, *, mmap: bool = False) -> depth.Corpus:
    (tmp_path / "bad").write_bytes(data)
    return depth.Corpus.load(tmp_path / "bad", mmap=mmap)


@pytest.mark.parametrize("metric", ["arc", "mahalanobis", "cosine"])
def test_a_file_cut_short_is_refused(metric: str, tmp_path: Path) -> None:
    data = saved(tmp_path, metric)
    for length in [*range(0, 60, 7), *range(60, len(data), 97), len(data) - 1]:
        with pytest.raises(OSError, match=WRONG):
            load_bytes(tmp_path, data[:length], mmap=bool(length % 2))
    with pytest.raises(OSError, match=WRONG):
        load_bytes(tmp_path, data + b"x")


@pytest.mark.parametrize("metric", ["arc", "mahalanobis", "cosine"])
def test_a_changed_byte_is_found(metric: str, tmp_path: Path) -> None:
    data = saved(tmp_path, metric)
    index = int.from_bytes(data[16:24], "little")
    used = [*range(0, 32, 3), *range(index, len(data), 11), 64, 200]
    for at in used:
        changed = bytearray(data)
        changed[at] ^= 0x41
        with pytest.raises(OSError, match=WRONG):
            load_bytes(tmp_path, bytes(changed))


def with_index(data: bytes, old: bytes, new: bytes) -> bytes:
    """A file whose index says something else, under a valid checksum."""
    at = int.from_bytes(data[16:24], "little")
    index = data[at:].replace(old, new)
    assert index != data[at:]
    head = _persist._HEAD.pack(b"EMBEDCOR", 1, zlib.crc32(index), at, len(index), 0)
    return head + data[len(head) : at] + index


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'"float32"', b'"object"', "describes"),
        (b'"float32"', b'["float32"]', "describes"),
        (b'"float32"', b'"float16"', "damaged"),
        (b"[50, 6]", b"[50, 6, 1]", "describes"),
        (b"[50, 6]", b"[50, -6]", "describes"),
        (b"[50, 6]", b"[50, true]", "describes"),
        (b"[50, 6]", b"[281474976710655, 281474976710655]", "has no room"),
        (b"[50, 6]", b"[25, 12]", "lacks rows|cannot be"),
        (b'"offset": 64', b'"offset": 0', "has no room"),
        (b'"offset": 64', b'"offset": 65', "has no room"),
        (b'"offset": 64', b'"offset": 1e9', "describes"),
        (b'"arc"', b'"spatially"', "options"),
        (b'"seed": 0', b'"seed": []', "options"),
        (b'"depth.Corpus"', b'"ann.Index"', "something else"),
        (b'"count": 50', b'"count": 49', "lacks rows"),
        (b'"count": 50', b'"count": "50"', "count of rows"),
        (b'"weight": 50.0', b'"weight": NaN', "weight"),
        (b'"weight": 50.0', b'"weight": 7.0', "do not add up"),
        (b'"arrays"', b'"others"', "no list of arrays"),
        (b'{"kind"', b"[" * 100_000 + b'{"kind"', "not JSON"),
        (b"rows0", b"rows1", "holds no rows"),
    ],
)
def test_a_hostile_index_is_refused(old: bytes, new: bytes, problem: str, tmp_path: Path) -> None:
    data = with_index(saved(tmp_path), old, new)
    with pytest.raises(OSError, match=f"{WRONG}.*({problem})"):
        load_bytes(tmp_path, data)


@pytest.mark.parametrize("metric", ["mahalanobis", "cosine"])
def test_sums_that_are_not_finite_are_refused(metric: str, tmp_path: Path) -> None:
    built: Any = depth.Corpus(metric).fit(ROWS)
    state = built._state
    target = state.sums if metric == "cosine" else state.streamed.moments.mean
    target[2] = np.nan
    built.save(tmp_path / "bad")
    with pytest.raises(OSError, match=f"{WRONG}.*not finite"):
        depth.Corpus.load(tmp_path / "bad")


@pytest.mark.parametrize("metric", ["arc", "l2", "spatial", "irw"])
def test_damage_among_mapped_rows_is_found_in_scoring(metric: str, tmp_path: Path) -> None:
    depth.Corpus(metric, n_directions=3).fit(ROWS).save(tmp_path / "good")
    data = bytearray((tmp_path / "good").read_bytes())
    data[64 + 4 * 6 * 7 : 64 + 4 * 6 * 7 + 4] = b"\xff\xff\xff\xff"  # a NaN
    built = load_bytes(tmp_path, bytes(data), mmap=True)
    with pytest.raises(ValueError, match=r"depth.Corpus.score: .*corpus.* must be finite"):
        built.score(X)
    with pytest.raises(OSError, match=f"{WRONG}.*damaged 'rows0'"):
        load_bytes(tmp_path, bytes(data))


def test_other_versions_and_other_files(tmp_path: Path) -> None:
    data = bytearray(saved(tmp_path))
    data[8] = 2
    with pytest.raises(OSError, match=f"{WRONG}.*format version 2, this release reads 1"):
        load_bytes(tmp_path, bytes(data))
    np.save(tmp_path / "rows.npy", ROWS)
    with pytest.raises(OSError, match=f"{WRONG}.*is not such a file"):
        depth.Corpus.load(tmp_path / "rows.npy")
    with pytest.raises(FileNotFoundError):
        depth.Corpus.load(tmp_path / "nothing")
    with pytest.raises(TypeError, match=r"depth.Corpus.load: 'path' must be a path; got int"):
        depth.Corpus.load(3)  # type: ignore[arg-type]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(tmp_path)

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        depth.Corpus("l2").fit(ROWS).save(tmp_path / "good")
    assert os.listdir(tmp_path) == ["good"]
    assert (tmp_path / "good").read_bytes() == data


_LARGE = """
import resource, sys
import numpy as np
from embedcore import depth

path, metric, extra = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = np.load(path, mmap_mode="r")
corpus = depth.Corpus(metric, n_directions=2)
corpus.fit(rows[:1000]).score(rows[:10])  # libraries take what they take once
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + extra, used + extra))
half = len(rows) // 2
corpus = depth.Corpus(metric, n_directions=2).fit(rows[:half]).update(rows[half:])
few = corpus.score(rows[:100], threads=2)
many = corpus.score(rows, threads=2) if metric == "cosine" else few
assert np.allclose(few, many[:100]) and np.isfinite(many).all()
try:
    np.ones(rows.shape, np.float32)
except MemoryError:
    print("scored", len(corpus))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_DATA and /proc")
@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "arc", "l2", "spatial", "mahalanobis", "irw"])
def test_corpora_larger_than_memory(metric: str, tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (256_000, 128))
    for start in range(0, len(rows), 64_000):
        rows[start : start + 64_000] = RNG.standard_normal((64_000, 128), dtype=np.float32) + 0.2
    rows.flush()
    assert rows.nbytes > 124 << 20
    # Less than a copy; for blocks in scratch, results, and the threads' own memory.
    extra = str(96 << 20)
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(tmp_path / "rows.npy"), metric, extra],
        capture_output=True,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout == "scored 256000\n", done.stderr
