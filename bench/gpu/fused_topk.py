# SPDX-License-Identifier: Apache-2.0
"""A peer in Triton: products and a partial top-k in one kernel, so that no scores are written.

Of each group of rows the best is kept for each query, and the k best of these are the answer: it
misses a row where two of the nearest are in one group, which is seldom with many groups.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_QUERIES, _ROWS, _STEP = 128, 128, 64
_GROUP = 32  # rows


@triton.jit
def _best_of_groups(  # type: ignore[no-untyped-def]
    queries, rows, best, places, count, total, columns, groups,
    QUERIES: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
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
    sums = tl.where(row[None, :] < total, sums, float("-inf"))
    parts = tl.reshape(sums, (QUERIES, ROWS // GROUP, GROUP))
    highest, at_most = tl.max(parts, axis=2, return_indices=True)
    group = tl.program_id(1) * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    to = query[:, None].to(tl.int64) * groups + group[None, :]
    there = (query[:, None] < count) & (group[None, :] < groups)
    tl.store(best + to, highest, mask=there)
    tl.store(places + to, group[None, :] * GROUP + at_most, mask=there)


def nearest(queries: Any, rows: Any, k: int) -> torch.Tensor:
    """Return the places of about the k rows of greatest product with each query."""
    count, columns = queries.shape
    if len(rows) <= k * _GROUP:  # too few groups
        return (queries @ rows.T).topk(min(k, len(rows)), dim=1).indices
    blocks = triton.cdiv(len(rows), _ROWS)
    groups = blocks * (_ROWS // _GROUP)
    best = torch.empty(count, groups, device=queries.device)
    places = torch.empty(count, groups, dtype=torch.int32, device=queries.device)
    _best_of_groups[(triton.cdiv(count, _QUERIES), blocks)](
        queries, rows, best, places, count, len(rows), columns, groups,
        QUERIES=_QUERIES, ROWS=_ROWS, STEP=_STEP, GROUP=_GROUP, num_warps=8, num_stages=3,
    )  # fmt: skip
    return places.gather(1, best.topk(k, dim=1).indices).long()
