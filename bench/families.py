# SPDX-License-Identifier: Apache-2.0
"""What a family of kernels brings to the bench, and the names of those there are.

A family is a folder of bench/ with two modules. ``family``: `cases_of`, `prepare`, `overhead` and
`memory`, as `Family` says. ``report``, which imports nothing of embedcore: `INTRODUCTION`,
`target_rows(result)`, `page_text(result)` and `panels(result)`, or `draw(result, file)` for a
figure of another kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, Protocol

from bench.timing import Contestant

NAMES = ("depth", "attention", "ann")


class Case(Protocol):
    """A problem that is not made yet."""

    @property
    def name(self) -> str:
        """Return a title, unique among the cases of one mode."""

    @property
    def cold(self) -> bool:
        """Return whether the caches are emptied before every sample."""

    def uncompiled(self) -> Case:
        """Return a copy without contestants that take long to make ready."""

    def small(self) -> Case:
        """Return a tiny copy in which the same contestants take part."""

    def threads_of(self, threads: list[int]) -> list[int]:
        """Return the numbers of threads that are worth a measurement."""


class Task(ABC):
    """A case whose data and right answer are in memory.

    `lines`: the records of the contestants, by name; each has run once and its error is known.
    """

    facts: dict[str, Any]  # what the record of the case says beside its name

    @abstractmethod
    def contestants(self, threads: int) -> list[Contestant]:
        """Return all that take part: embedcore, the floors and the peers."""

    @abstractmethod
    def error(self, answer: Any) -> float:
        """Return the error of an answer."""

    @abstractmethod
    def error_limit(self, name: str, lines: dict[str, Any]) -> float:
        """Return the largest error that one of our own may have."""

    @abstractmethod
    def equal_error(self, lines: dict[str, Any]) -> float:
        """Return the error up to which all count as equal when they are compared."""

    @abstractmethod
    def rounds(self, turn_seconds: float) -> int:
        """Return how many samples to take of each, when one of each takes so long."""

    def target(self, name: str) -> float | None:
        """Return the largest ratio to the floor that one of our own may have."""
        return None

    def goals(self, name: str) -> dict[str, float]:
        """Return what peers' times have to be at least, in units of our own; a peer by its prefix.

        Of several peers with the prefix the fastest counts.
        """
        return {}

    def conditions(self) -> AbstractContextManager[None]:
        """Return what surrounds all of the case's calls."""
        return nullcontext()


class Family(Protocol):
    """The module ``family`` of a folder."""

    def cases_of(self, mode: str, only: str = "") -> list[Any]:
        """Return the cases of a mode whose names contain `only`."""

    def prepare(self, case: Any, mode: str) -> Task:
        """Make the data of a case and its right answer."""

    def overhead(self, mode: str) -> list[dict[str, Any]]:
        """Return what calls cost that have next to nothing to compute."""

    def memory(
        self, mode: str, threads: list[int], show: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """Return the memory that calls take beyond their inputs."""


def family(name: str) -> Family:
    """Return the module that measures a family."""
    found: Any = import_module(f"bench.{name}.family")
    return found  # type: ignore[no-any-return]


def report(name: str) -> Any:
    """Return the module that words a family's figures."""
    return import_module(f"bench.{name}.report")
