# SPDX-License-Identifier: Apache-2.0
"""A peer in Triton: products, filters and a partial top-k in one kernel: no scores are written.

Of each group of rows the best that passes is kept for each query, and the k best of these are the
answer: it misses a row where two of the nearest are in one group, which is seldom with many groups.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_GROUP = 32  # rows
_GROUPS_EACH = 50  # groups for each of the k, so that about one in a hundred shares its group
_FEW = 16  # queries, and the fewest that a product of tensor cores has


def _configurations() -> list[Any]:
    sizes = [(128, 256, 64, 8, 3), (128, 128, 64, 8, 3), (128, 128, 64, 4, 4)]
    return [
        triton.Config(
            {"QUERIES": queries, "ROWS": rows, "STEP": step}, num_warps=warps, num_stages=stages
        )
        for queries, rows, step, warps, stages in sizes
    ]


@triton.jit
def _best_of_groups(  # type: ignore[no-untyped-def]
    queries, rows, ranks, lows, highs, best, places, count, total, columns, groups,
    QUERIES: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
    EACH: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((QUERIES, ROWS), tl.float32)
    for at in range(0, columns, STEP):
        column = at + tl.arange(0, STEP)
        inside = column[None, :] < columns
        a = tl.load(
            queries + query[:, None] * columns + column[None, :],
            mask=(query[:, None] < count) & inside,
            other=0.0,
        )
        b = tl.load(
            rows + row[:, None].to(tl.int64) * columns + column[None, :],
            mask=(row[:, None] < total) & inside,
            other=0.0,
        )
        sums = tl.dot(a, tl.trans(b), sums)
    passes = row[None, :] < total
    if EACH:  # rows whose rank is inside the query's own bounds
        rank = tl.load(ranks + row, mask=row < total, other=0)
        low = tl.load(lows + query, mask=query < count, other=0)
        high = tl.load(highs + query, mask=query < count, other=0)
        passes = passes & (rank[None, :] >= low[:, None]) & (rank[None, :] < high[:, None])
    sums = tl.where(passes, sums, float("-inf"))
    parts = tl.reshape(sums, (QUERIES, ROWS // GROUP, GROUP))
    highest, at_most = tl.max(parts, axis=2, return_indices=True)
    group = tl.program_id(1) * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    to = query[:, None].to(tl.int64) * groups + group[None, :]
    there = (query[:, None] < count) & (group[None, :] < groups)
    tl.store(best + to, highest, mask=there)
    tl.store(places + to, group[None, :] * GROUP + at_most, mask=there)


# Which sizes are best is asked once: it hardly depends on how many rows there are.
_tuned = triton.autotune(configs=_configurations(), key=["columns", "EACH"])(_best_of_groups)


def nearest(queries: Any, rows: Any, k: int, windows: Any = None) -> torch.Tensor:
    """Return the places of about the k rows of greatest product with each query.

    `windows`: the rows' ranks, and the bounds between which each query's have to be, int32.
    """
    count, columns = queries.shape
    total = len(rows)
    if total <= _GROUPS_EACH * k * _GROUP and windows is None:  # too few groups
        return (queries @ rows.T).topk(min(k, total), dim=1).indices
    groups = triton.cdiv(total, _GROUP)
    best = torch.empty(count, groups, device=queries.device)
    places = torch.empty(count, groups, dtype=torch.int32, device=queries.device)
    filters = (best, best, best) if windows is None else windows
    given = (queries, rows, *filters, best, places, count, total, columns, groups)
    each = {"GROUP": _GROUP, "EACH": windows is not None}
    if count <= _FEW:
        _best_of_groups[(1, triton.cdiv(total, 128))](
            *given, QUERIES=_FEW, ROWS=128, STEP=64, **each, num_warps=4, num_stages=4
        )
    else:
        _tuned[lambda to: (triton.cdiv(count, to["QUERIES"]), triton.cdiv(total, to["ROWS"]))](
            *given, **each
        )
    return places.gather(1, best.topk(min(k, groups), dim=1).indices).long()
