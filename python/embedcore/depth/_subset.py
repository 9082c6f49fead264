# SPDX-License-Identifier: Apache-2.0
"""Scores of a part of the caller's rows, with errors in the caller's numbering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._score import score


@contextmanager
def rows_numbered_in(x: Any, metric: str) -> Iterator[None]:
    """Score all of `x` again, against two rows, when the scores of a part of it fail.

    That names a bad row by its place in `x`. An error that is not about a row is raised as it was.
    """
    try:
        yield
    except ValueError:
        score(x, x[:2], metric=metric)
        raise
