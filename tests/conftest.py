# SPDX-License-Identifier: Apache-2.0
"""Variants that every family's tests run under: instruction set, threads, dtype and array kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import embedcore
import pytest
from embedcore import _core
from support.kinds import FLOAT_DTYPES, KINDS


@pytest.fixture(autouse=True, scope="session")
def _compile_anew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep Torch's compiled code of earlier runs, and so of other versions, out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(autouse=True)
def _restore_controls() -> Iterator[None]:
    """Leave no forced instruction set or number of threads behind."""
    isa = embedcore.get_isa()
    chosen = _core.num_threads_source() == "set_num_threads"
    threads = embedcore.get_num_threads() if chosen else None
    yield
    embedcore.set_isa(isa)
    embedcore.set_num_threads(threads)


@pytest.fixture(params=embedcore.list_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Force each instruction set that runs here."""
    name: str = request.param
    embedcore.set_isa(name)
    return name


@pytest.fixture(params=[1, 2, 7], ids=lambda n: f"{n}-threads")
def thread_count(request: pytest.FixtureRequest) -> int:
    """Use one, two and more threads than processors."""
    count: int = request.param
    embedcore.set_num_threads(count)
    return count


@pytest.fixture(params=FLOAT_DTYPES)
def dtype_name(request: pytest.FixtureRequest) -> str:
    """Name of each floating-point dtype; `support.kinds.dtype_of` makes the dtype."""
    name: str = request.param
    return name


@pytest.fixture(params=list(KINDS))
def to_kind(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Turn a 2-D NumPy array into each array kind."""
    return KINDS[request.param]
