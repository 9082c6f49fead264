# SPDX-License-Identifier: Apache-2.0
"""What is measured of searches on a device, and which plans follow from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore.ann import _device_costs
from embedcore.ann._device_costs import NEVER, SCAN, Costs, Plan, measured

COSTS = Costs(
    rows=1_000_000,
    call=1e-5,
    tile=4e-4,
    next_tile=3e-4,
    recalls=(0.91, 0.96, 0.98, 0.99),
    one=(1e-4, 1.5e-4, 3e-4, 6e-4),
    each=(1e-6, 2e-6, 4e-6, 8e-6),
)


def test_one_query_walks_where_many_rows_pass() -> None:
    plan = COSTS.plan(1, 1, 10, 0.95)
    assert plan.base == 128
    # (1.5e-4 - 1e-5) / 4e-4 of the rows; twice the pool; four times costs more than all rows do.
    assert plan.least == (350_000, 725_000, NEVER, NEVER)


def test_more_recall_and_more_results_take_wider_pools() -> None:
    bases = [COSTS.plan(1, 1, 10, recall).base for recall in (0.5, 0.9, 0.92, 0.97, 0.985)]
    assert bases == [64, 64, 128, 256, 512]
    assert [COSTS.plan(1, 1, k, 0.9).base for k in (1, 11, 20, 80)] == [64, 128, 128, 512]


def test_what_no_pool_meets_is_scanned() -> None:
    assert COSTS.plan(1, 1, 10, 0.995) == SCAN
    assert COSTS.plan(1, 1, 81, 0.9) == SCAN


def test_batches_share_the_rows_of_a_scan() -> None:
    alone, many = COSTS.plan(1, 1, 10, 0.9), COSTS.plan(128, 1, 10, 0.9)
    apart = COSTS.plan(128, 128, 10, 0.9)  # each with a filter of its own
    assert apart.least[0] < alone.least[0] < many.least[0]


def test_costs_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    right = np.arange(300 * 11).reshape(300, 11)

    def run(count: int, plan: Plan, among_all: bool) -> Any:
        nonlocal now
        if plan.base:
            now += 0.5 * plan.base + 0.01 * count
            found = right[:count].copy()
            found[: count // 2, 1:6] = -1  # the row itself does not count
            return found
        now += 1.0 + (among_all * (2.0 + 0.25 * (-(-count // 128) - 1)))
        return right[:count]

    monkeypatch.setattr(_device_costs.time, "perf_counter", lambda: now)
    costs = measured(5000, 300, run)
    assert costs.rows == 5000
    np.testing.assert_allclose([costs.call, costs.tile, costs.next_tile], [1.0, 2.0, 0.25])
    np.testing.assert_allclose(costs.recalls, 0.75)
    np.testing.assert_allclose(costs.one, [32.01, 64.01, 128.01, 256.01])
    np.testing.assert_allclose(costs.each, 0.01)
