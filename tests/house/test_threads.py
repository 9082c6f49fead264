# SPDX-License-Identifier: Apache-2.0
"""The thread pool under Python: forks, other threads, Ctrl-C, process exit, threadpoolctl.

What may hang or crash runs in a process of its own, with a time limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import embedcore
import numpy as np
import pytest
from embedcore import depth
from support.sanitizers import ALLOCATOR_SURVIVES_FORK

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import embedcore
from embedcore import depth
x = np.random.default_rng(0).standard_normal((1500, 64)).astype(np.float32)
embedcore.set_num_threads(3)
expected = depth.score(x, metric="arc")

def works():
    return np.array_equal(depth.score(x, metric="arc"), expected)

def child_works():
    # A child starts with one thread and may ask for more.
    one = embedcore.get_num_threads() == 1 and works()
    embedcore.set_num_threads(3)
    return one and works()

def in_child(body):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if body() else 1)
    assert os.waitpid(child, 0)[1] == 0
"""


def run_script(body: str, *, seconds: int = 120) -> str:
    """Run `body` after the prelude in a fresh interpreter; it must end well and in time."""
    package = os.path.dirname(os.path.dirname(embedcore.__file__))
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + textwrap.dedent(body)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def test_results_do_not_depend_on_threads(isa: str) -> None:
    x = np.random.default_rng(1).standard_normal((700, 33)).astype(np.float32)
    embedcore.set_num_threads(1)
    expected = depth.score(x, metric="arc")
    for count in (2, 7):
        embedcore.set_num_threads(count)
        assert depth.score(x, metric="arc").tobytes() == expected.tobytes()
    for count in (1, 2, 7):
        assert depth.score(x, metric="arc", threads=count).tobytes() == expected.tobytes()


def test_python_threads_may_call_at_the_same_time() -> None:
    x = np.random.default_rng(2).standard_normal((400, 32)).astype(np.float32)
    expected = depth.score(x, metric="arc")
    wrong = []

    def call() -> None:
        for _ in range(20):
            if not np.array_equal(depth.score(x, metric="arc", threads=3), expected):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_forked_children_compute() -> None:
    run_script(
        """
        for _ in range(5):
            in_child(child_works)
        in_child(lambda: in_child(child_works) is None and child_works())
        assert works()
        """
    )


@pytest.mark.skipif(not ALLOCATOR_SURVIVES_FORK, reason="the address sanitizer's allocator")
def test_a_fork_while_another_thread_computes() -> None:
    run_script(
        """
        stop = threading.Event()
        def compute():
            while not stop.is_set():
                assert works()
        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        for _ in range(20):
            in_child(child_works)
        stop.set()
        thread.join()
        """
    )


def test_multiprocessing_pools_that_fork() -> None:
    run_script(
        """
        import multiprocessing
        def score(_):
            return depth.score(x, metric="arc")
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for result in pool.map(score, range(6)):
                assert np.array_equal(result, expected)
        """
    )


def test_torch_data_loaders_that_fork() -> None:
    pytest.importorskip("torch")
    run_script(
        """
        import torch
        from torch.utils.data import DataLoader, Dataset
        torch.ones((300, 300)) @ torch.ones((300, 300))
        class Depths(Dataset):
            def __len__(self):
                return 8
            def __getitem__(self, i):
                assert embedcore.get_num_threads() == 1
                return depth.score(torch.from_numpy(x), metric="arc")
        for batch in DataLoader(Depths(), batch_size=2, num_workers=2,
                                multiprocessing_context="fork", timeout=60):
            assert all(np.array_equal(row.numpy(), expected) for row in batch)
        """
    )


def test_processes_end_while_a_daemon_thread_computes() -> None:
    run_script(
        """
        def compute():
            while True:
                works()
        for _ in range(2):
            threading.Thread(target=compute, daemon=True).start()
        time.sleep(0.3)
        """,
        seconds=60,
    )


def test_signals_stop_long_work() -> None:
    run_script(
        """
        big = np.random.default_rng(0).standard_normal((60_000, 64)).astype(np.float32)
        class Stop(Exception):
            pass
        def stop(number, frame):
            raise Stop
        signal.signal(signal.SIGALRM, stop)
        for threads in (1, 2):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            start = time.monotonic()
            try:
                depth.score(big, metric="arc", threads=threads)
            except Stop:
                assert time.monotonic() - start < 2.0, time.monotonic() - start
            else:
                raise AssertionError("was not stopped")
            assert works()
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A shell starts what it runs in the background with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def interrupt():
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            depth.score(big, metric="arc")
        except KeyboardInterrupt:
            assert works()
        else:
            raise AssertionError("was not interrupted")
        """
    )


def test_threadpoolctl_sees_and_limits_the_pool() -> None:
    pytest.importorskip("threadpoolctl")
    run_script(
        """
        assert "threadpoolctl" not in sys.modules
        import threadpoolctl
        embedcore.register_threadpoolctl()
        embedcore.register_threadpoolctl()
        embedcore.show_config("dict")  # may load the library for GPUs, which has no pool
        found = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "embedcore"]
        assert len(found) == 1, found
        assert found[0]["num_threads"] == 3
        assert found[0]["version"] == embedcore.__version__
        assert found[0]["architecture"] == embedcore.get_isa()
        with threadpoolctl.threadpool_limits(1):
            assert embedcore.get_num_threads() == 1
        with threadpoolctl.threadpool_limits({"embedcore": 2}):
            assert embedcore.get_num_threads() == 2
        assert embedcore.get_num_threads() == 3
        """
    )


def test_threadpoolctl_that_was_imported_first_needs_no_call() -> None:
    pytest.importorskip("threadpoolctl")
    package = os.path.dirname(os.path.dirname(embedcore.__file__))
    code = (
        "import threadpoolctl, embedcore; "
        "print(sum(lib['user_api'] == 'embedcore' for lib in threadpoolctl.threadpool_info()))"
    )
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "1"
