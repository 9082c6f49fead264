# SPDX-License-Identifier: Apache-2.0
"""Scores within other functions, with errors in the names and numbers of their caller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._device import take_rows
from ._score import score


@contextmanager
def rows_numbered_in(x: Any, metric: str) -> Iterator[None]:
    """Score all of `x` again, against two rows, when the scores of a part of it fail.

    That names a bad row by its place in `x`. An error that is not about a row is raised as it was.
    """
    try:
        yield
    except ValueError:
        score(x, take_rows(x, np.arange(2)), metric=metric, check=True)
        raise


@contextmanager
def errors_of(where: str, **names: str) -> Iterator[None]:
    """Let errors of `score` speak of the function that was called, and of its arguments.

    ``errors_of("depth.rank_sum_test", x="g")``: what the score calls 'x' the user calls 'g'.
    """
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        text = str(error)
        if not text.startswith("depth.score: "):
            raise
        text = text.replace("depth.score", where)
        # As in: 'x' must ... Use x.detach().
        text = re.sub(r"\b(x|corpus)\b(?=['.)])", lambda name: names.get(name[0], name[0]), text)
        raise type(error)(text) from None
