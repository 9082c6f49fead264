# SPDX-License-Identifier: Apache-2.0
"""The controls: number of threads, instruction set, and what this build is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from . import _core
from ._check import choose, integer
from ._threadpool import register_if_imported

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "get_isa",
    "get_num_threads",
    "list_isas",
    "set_isa",
    "set_num_threads",
    "show_config",
    "threads",
]

_MAX_THREADS = 1024


def get_num_threads() -> int:
    """Return the number of threads of a call that does not name one with ``threads=``.

    By default this is ``EMBEDCORE_NUM_THREADS`` where that is set, else the number of processors
    that this process may use, or ``OMP_NUM_THREADS`` where that is smaller. In a forked child
    process (``multiprocessing`` with fork, Torch's DataLoader workers) it is 1, until the child
    sets its own.
    """
    return _core.get_num_threads()


def set_num_threads(n: int | None) -> None:
    """Set the number of threads of calls that do not name one.

    Parameters
    ----------
    n : int or None
        From 1 to 1024; it may exceed the number of processors. None restores the default. Results
        do not depend on it.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of bounds.
    """
    if n is None:
        _core.set_num_threads(0)
    else:
        _core.set_num_threads(integer("set_num_threads", "n", n, minimum=1, maximum=_MAX_THREADS))


class threads:
    """Context manager: calls inside use `n` threads, in every Python thread of the process.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Examples
    --------
    >>> import embedcore
    >>> with embedcore.threads(2):
    ...     embedcore.get_num_threads()
    2
    """

    def __init__(self, n: int) -> None:
        self._n = integer("threads", "n", n, minimum=1, maximum=_MAX_THREADS)
        self._before: list[int] = []

    def __enter__(self) -> threads:
        chosen = _core.num_threads_source() == "set_num_threads"
        self._before.append(_core.get_num_threads() if chosen else 0)
        _core.set_num_threads(self._n)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _core.set_num_threads(self._before.pop())


def get_isa() -> str:
    """Return the name of the instruction set that calls use."""
    return _core.get_isa()


def set_isa(name: str | None) -> None:
    """Force an instruction set, as the environment variable ``EMBEDCORE_ISA`` does at import.

    Parameters
    ----------
    name : str or None
        One of `list_isas`; None goes back to the best one.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If this build or this processor does not have the instruction set.
    """
    if name is None:
        _core.set_isa("set_isa", "")
    else:
        _core.set_isa("set_isa", choose("set_isa", "name", name, _core.list_isas()))


def list_isas() -> tuple[str, ...]:
    """Return the names of the instruction sets that run here, the best one last."""
    return _core.list_isas()


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dict"]) -> dict[str, Any]: ...


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show version, build, instruction set, threads and the state of CUDA.

    Parameters
    ----------
    mode : {"stdout", "dict"}
        Print the facts, or return them as nested dictionaries.

    Returns
    -------
    dict or None
        None for ``"stdout"``.

    Raises
    ------
    ValueError
        If `mode` is another name.
    """
    choose("show_config", "mode", mode, ("stdout", "dict"))
    register_if_imported()
    facts = _facts()
    if mode == "dict":
        return facts
    for name, value in facts.items():
        text = (
            ", ".join(f"{key} {item}" for key, item in value.items())
            if isinstance(value, dict)
            else value
        )
        print(f"{name + ':':<10}{text}")
    return None


def _facts() -> dict[str, Any]:
    return {
        "version": _core.version,
        "build": _core.build_info,
        "isa": {"current": get_isa(), "available": " ".join(list_isas())},
        "threads": {"current": get_num_threads(), "from": _core.num_threads_source()},
        "cuda": _cuda_facts(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "optional": {
            "torch": _installed("torch"),
            "cupy": _installed("cupy", "cupy-cuda13x", "cupy-cuda12x"),
            "ml_dtypes": _installed("ml_dtypes"),
            "matplotlib": _installed("matplotlib"),
            "threadpoolctl": _installed("threadpoolctl"),
        },
    }


def _cuda_facts() -> str:
    from importlib import import_module

    try:
        _cuda = import_module("embedcore._cuda")
    except ModuleNotFoundError:
        return "not built: every call runs on the CPU"
    except ImportError as error:
        return f"cannot be loaded: {error}"
    try:
        return f"{_cuda.build_info}, devices {_cuda.device_count('show_config')}"
    except RuntimeError as error:
        reason = str(error).removeprefix("show_config: ").removesuffix(".")
        return f"{_cuda.build_info}; {reason}"


def _installed(*distributions: str) -> str:
    """Version of the first one that is installed; the module is not imported."""
    from importlib import metadata  # costs more than the rest of this package

    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "absent"


def check_environment() -> None:
    """Refuse values of the environment variables that the library could only ignore.

    Raises
    ------
    ValueError
        If ``EMBEDCORE_ISA`` or ``EMBEDCORE_NUM_THREADS`` is set to what does not work here.
    """
    name = os.environ.get("EMBEDCORE_ISA", "")
    if name:
        choose("import embedcore", "EMBEDCORE_ISA", name, _core.list_isas())
    count = os.environ.get("EMBEDCORE_NUM_THREADS", "").strip()
    if count and not (count.isascii() and count.isdigit() and 1 <= int(count) <= _MAX_THREADS):
        raise ValueError(
            "import embedcore: 'EMBEDCORE_NUM_THREADS' must be an integer from 1 to "
            f"{_MAX_THREADS}; got {count!r}."
        )
