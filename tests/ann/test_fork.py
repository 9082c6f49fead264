# SPDX-License-Identifier: Apache-2.0
"""Forked children: they search and change their copy of an index, whatever a thread was doing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import early_builds, make_world, same

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SECONDS = 60


def require_in_a_child(work: Callable[[], None]) -> None:
    """Run something in a forked child; what it raises, and that it hangs, fails the test."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)  # which kills: there is no handler
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_forked_children_search_and_build() -> None:
    with early_builds():
        world = make_world(rows=400, columns=24, threads=3)
        where = ann.field("rank") < 100
        queries = np.repeat(world.queries, 10, axis=0)
        expected = world.index.search(queries, where=where)  # the threads are there

        def work() -> None:
            same(world.index.search(queries, where=where), expected)
            rows = np.ones((300, 24), np.float32)
            world.index.add(rows, attributes={"rank": [7] * 300})
            world.index.delete(world.ids[:10])
            world.index.compact()
            assert world.index.count(ann.field("rank") == 7) >= 300 and len(world.index) == 690

        require_in_a_child(work)
        assert len(world.index) == 400  # the child's changes are the child's
        same(world.index.search(queries, where=where), expected)


def test_a_fork_while_another_thread_adds() -> None:
    """The lock of writers is held then, by a thread that the child does not have."""
    adding, go_on = threading.Event(), threading.Event()

    class Waiting(dict[str, list[int]]):
        def items(self) -> Any:
            adding.set()
            go_on.wait(SECONDS)
            return super().items()

    rows = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32)
    index = ann.Index(24)
    columns = Waiting(n=list(range(40)))
    writer = threading.Thread(target=lambda: index.add(rows, attributes=columns))
    writer.start()
    try:
        assert adding.wait(SECONDS)

        def work() -> None:
            assert len(index) == 0
            index.add(rows[:20])
            assert index.search(rows[:20], k=1).ids.ravel().tolist() == list(range(20))

        require_in_a_child(work)
    finally:
        go_on.set()
        writer.join()
    assert len(index) == index.count(ann.field("n") >= 0) == 40
