# SPDX-License-Identifier: Apache-2.0
"""What tests of `ann` share: indexes that are built once and never changed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from oracle.ann import METRICS
from support.ann import DTYPES, World, make_world


@functools.cache
def _built(metric: str, dtype: str) -> World:
    return make_world(metric, dtype)


@pytest.fixture(scope="session")
def built() -> Callable[..., World]:
    """Give the index of a metric and a dtype; tests must not change it."""

    def world(metric: str = "cosine", dtype: str = "float32") -> World:
        return _built(metric, dtype)

    return world


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
