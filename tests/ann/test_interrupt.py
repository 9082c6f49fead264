# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, errors in progress functions and lack of memory: the index stays as it was."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Table
from support.ann import check, clustered, same
from support.sanitizers import UNDER_SANITIZER

COLUMNS = 96
ROWS = 5000
# What "soon" is; under a sanitizer everything takes ten times as long.
SOON = 10.0 if UNDER_SANITIZER else 1.0
FIRST = clustered(np.random.default_rng(0), ROWS, COLUMNS).astype(np.float32)
MORE = clustered(np.random.default_rng(1), 3000, COLUMNS).astype(np.float32)
# Takes so long that progress, told every 50 ms, is told on fast machines too.
LONG = clustered(np.random.default_rng(0), 12_000, 192).astype(np.float32)


class Progress:
    """Counts, and raises when it is told to."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.error: BaseException | None = None
        self.after = 0

    def __call__(self, fraction: float) -> None:
        self.seen.append(fraction)
        if self.error is not None and len(self.seen) > self.after:
            raise self.error


def test_progress_goes_from_nothing_to_all() -> None:
    progress = Progress()
    index = ann.Index(192, progress=progress)
    index.add(LONG)
    seen = progress.seen
    assert len(seen) >= 2 and all(isinstance(value, float) for value in seen)
    assert all(a <= b for a, b in itertools.pairwise(seen))
    assert 0.0 <= seen[0] < 0.9 and seen[-1] <= 1.0
    before = len(seen)
    index.search(np.ones((5, 192), np.float32))
    assert len(seen) == before


def test_a_progress_callback_must_not_change_its_index() -> None:
    index = ann.Index(192, progress=lambda _: index.add(LONG[:1]))
    with pytest.raises(RuntimeError, match=r"^ann.Index: must not be changed by what a change"):
        index.add(LONG)
    assert len(index) == 0


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("stop here")], ids=repr)
@pytest.mark.parametrize("method", ["add", "upsert", "compact", "delete"])
def test_a_build_that_is_stopped_changes_nothing(method: str, error: Any, after: int) -> None:
    progress = Progress()
    index = ann.Index(COLUMNS, progress=progress)
    table = Table()
    attributes = {"n": list(range(ROWS))}
    for target in (index, table):
        target.add(FIRST, attributes=attributes)
        if method == "compact":
            target.delete([3])
    queries = MORE[:4]
    expected = index.search(queries, where=ann.field("n") < 500)
    ids = index.ids
    progress.seen, progress.error, progress.after = [], error, after
    calls = {
        "add": lambda: index.add(MORE, attributes={"n": [0] * 3000}),
        "upsert": lambda: index.upsert(FIRST[:2400] + 1, np.arange(2400)),
        "compact": lambda: index.compact(),
        "delete": lambda: index.delete(np.arange(2400)),
    }
    try:
        calls[method]()
    except BaseException as raised:
        assert raised is error
    else:
        assert len(progress.seen) <= after
        pytest.skip("the build was too fast to be asked as often")
    progress.error = None
    assert np.array_equal(index.ids, ids)
    same(index.search(queries, where=ann.field("n") < 500), expected)
    check(index.search(queries, exact=True), table, queries, 10, exact=True)
    calls[method]()  # nothing was left locked or half done
    sizes = {"add": ROWS + 3000, "upsert": ROWS, "compact": ROWS - 1, "delete": ROWS - 2400}
    assert len(index) == sizes[method]


def interrupted(call: Any, after: float) -> float:
    """Send Ctrl-C to a call after so many seconds; return how long it then took to stop."""
    main, sent = threading.main_thread().ident, []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may come in ignored

    def interrupt() -> None:
        sent.append(time.monotonic())
        signal.pthread_kill(main, signal.SIGINT)

    timer = threading.Timer(after, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
            timer.cancel()
            assert sent, "it was done too fast for this test"
            time.sleep(1)
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)
    return time.monotonic() - sent[0]


@pytest.mark.skipif(os.name != "posix", reason="needs pthread_kill")
def test_control_c_stops_a_build_soon() -> None:
    rows = clustered(np.random.default_rng(2), 24_000, 192).astype(np.float32)
    index = ann.Index(192)
    index.add(rows[:100])
    assert interrupted(lambda: index.add(rows[100:]), 0.2) < SOON
    assert len(index) == 100
    assert index.search(rows[:3]).counts.tolist() == [10] * 3


@pytest.mark.skipif(os.name != "posix", reason="needs pthread_kill")
def test_control_c_stops_a_batch_of_searches_soon() -> None:
    index = ann.Index(COLUMNS)
    index.add(FIRST)
    queries = np.repeat(FIRST, 20, axis=0)
    assert interrupted(lambda: index.search(queries, k=100, exact=True), 0.2) < SOON
    assert index.search(queries[:2]).counts.tolist() == [10, 10]


def test_a_line_of_progress(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from embedcore.ann import _progress

    monkeypatch.setattr(_progress, "_DELAY", 0.0)
    monkeypatch.setattr(_progress, "_INTERVAL", 0.0)
    # Rows enough that the build asks more than once.
    index = ann.Index(96, progress=True)
    index.add(clustered(np.random.default_rng(3), 16_000, 96).astype(np.float32))
    shown = capsys.readouterr().err
    assert "ann.Index" in shown and "%" in shown and "done after" in shown
    quiet = ann.Index(COLUMNS)
    quiet.add(FIRST)
    assert capsys.readouterr().err == ""


def test_progress_must_be_a_function_or_a_switch() -> None:
    with pytest.raises(TypeError, match=r"^ann.Index: 'progress' must be "):
        ann.Index(3, progress="yes")


_SCARCE = """
import resource, sys
import numpy as np
from embedcore import ann

rng = np.random.default_rng(0)
rows = rng.standard_normal((30_000, 256), dtype=np.float32)
index = ann.Index(256, threads=2)
index.add(rows[:2500], attributes={"n": np.arange(2500)})
expected = index.search(rows[:5], where=ann.field("n") < 2000)
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
failed = 0
for extra in range(1, 90, 8):
    limit = used + (extra << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        index.add(rows, attributes={"n": np.arange(30_000)})
    except MemoryError:
        failed += 1
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        assert len(index) == 2500 and index.count(ann.field("n") < 2000) == 2000
        again = index.search(rows[:5], where=ann.field("n") < 2000)
        assert (again.ids == expected.ids).all()
    else:
        break
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
if len(index) == 2500:
    index.add(rows, attributes={"n": np.arange(30_000)})
print(failed > 0, len(index))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_DATA and /proc")
def test_without_memory_the_index_stays_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCARCE],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout.endswith("True 32500\n"), done.stderr
