# SPDX-License-Identifier: Apache-2.0
"""Pytest plugin that keeps a few variants of each test: for slow builds, such as sanitizers.

Use: ``PYTHONPATH=tests python -m pytest -p support.reduced_grid --variants 3``.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--variants",
        type=int,
        default=3,
        metavar="N",
        help="keep about N variants of each parametrized test, evenly spread (default 3)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("variants")
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {id(item) for variants in tests.values() for item in spread(variants, wanted)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def spread(variants: list[pytest.Item], wanted: int) -> list[pytest.Item]:
    """Return evenly spaced variants, the last one always among them: it has the best instructions.

    The step is made odd and never a multiple of three, so that it does not stay at one value of a
    parameter that has two or three.
    """
    if len(variants) <= wanted:
        return variants
    step = max(1, len(variants) // wanted)
    while step > 1 and (step % 2 == 0 or step % 3 == 0):
        step -= 1
    return variants[::-1][::step]
