# SPDX-License-Identifier: Apache-2.0
"""`ann.merge_topk`: parts of the rows searched one by one, and the union of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from embedcore import ann
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.ann import merge
from support.ann import check, expression, make_world, same
from support.kinds import to_torch


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_merge_into_the_whole(metric: str, parts: int) -> None:
    world = make_world(metric, rows=700, columns=24)
    place = {key: at for at, key in enumerate(world.ids.tolist())}
    vectors = np.stack([world.table.vectors[key] for key in world.ids.tolist()])
    indexes = []
    for part in range(parts):
        ids = world.ids[part::parts]
        rank = [world.table.rows[key]["rank"] for key in ids.tolist()]
        index = ann.Index(24, metric=metric)
        index.add(vectors[[place[key] for key in ids.tolist()]], ids=ids, attributes={"rank": rank})
        indexes.append(index)
    for count in (0, 3, 12, 350, 700):
        where = expression(("<", "rank", count))
        found = [each.search(world.queries, k=10, where=where, exact=True) for each in indexes]
        merged = ann.merge_topk(found)
        check(merged, world.table, world.queries, 10, ("<", "rank", count), exact=True)
        same(merged, world.index.search(world.queries, k=10, where=where, exact=True))
        fewer = ann.merge_topk(iter(found), k=4)
        assert np.array_equal(fewer.ids, merged.ids[:, :4])


hits = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 60)), max_size=9)


@given(st.lists(hits, min_size=1, max_size=4), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_random_answers(answers: list[list[tuple[float, int]]], k: int) -> None:
    seen: set[int] = set()
    parts, given_parts = [], []
    for answer in answers:  # an id belongs to one part
        part = sorted(
            {key: d for d, key in answer if key not in seen}.items(), key=lambda h: h[::-1]
        )
        seen |= {key for key, _ in part}
        parts.append([(d, key) for key, d in part])
        width = max(1, len(part))
        ids, distances = np.full((1, width), -1), np.full((1, width), np.inf, np.float32)
        ids[0, : len(part)] = [key for key, _ in part]
        distances[0, : len(part)] = [d for _, d in part]
        given_parts.append((ids, distances))
    wanted = merge(parts, k)
    result = ann.merge_topk(given_parts, k)
    assert result.ids.shape == result.distances.shape == (1, k)
    assert result.counts.tolist() == [len(wanted)]
    assert list(zip(result.distances[0].tolist(), result.ids[0].tolist(), strict=True)) == [
        *wanted,
        *[(np.inf, -1)] * (k - len(wanted)),
    ]


def test_an_id_in_two_parts_counts_once() -> None:
    one = (np.array([[3, 5]]), np.array([[0.25, 1.0]], np.float32))
    two = (np.array([[5, 3]]), np.array([[0.5, 0.75]], np.float32))
    merged = ann.merge_topk([one, two], 3)
    assert merged.ids.tolist() == [[3, 5, -1]] and merged.counts.tolist() == [2]
    assert merged.distances.tolist() == [[0.25, 0.5, np.inf]]


def test_arrays_of_other_kinds() -> None:
    one = (np.array([[3, -1]]), np.array([[0.25, np.inf]], np.float32))
    two = (to_torch(np.array([[4]])), to_torch(np.array([[0.125]], np.float32)))
    merged = ann.merge_topk([one, two])
    assert merged.ids.tolist() == [[4, 3]] and list(merged[0][0]) == [4, 3]


IDS, DISTANCES = np.array([[1, 2]]), np.array([[0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("results", "k", "error", "words"),
    [
        ([], None, ValueError, "'results' must hold at least one result; got none"),
        ([3], None, TypeError, r"pairs \(ids, distances\); result 0 is int"),
        ([(IDS,)], None, TypeError, r"pairs \(ids, distances\); result 0 is tuple"),
        ([(IDS, DISTANCES[:, :1])], None, ValueError, r"result 0 has shapes \(1, 2\) and \(1, 1\)"),
        ([(IDS[0], DISTANCES[0])], None, ValueError, r"one shape \(n, k\); result 0"),
        ([(DISTANCES, DISTANCES)], None, TypeError, "must hold integer ids"),
        ([(IDS, DISTANCES)] * 2, 0, ValueError, "'k' must be at least 1; got 0"),
        ([(IDS, DISTANCES)], 1.5, TypeError, "'k' must be an integer; got float"),
        (
            [(IDS, DISTANCES), (np.repeat(IDS, 2, 0), np.repeat(DISTANCES, 2, 0))],
            None,
            ValueError,
            "the same number of queries; got 1, 2",
        ),
    ],
)
def test_bad_results(results: Any, k: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"ann.merge_topk: .*{words}"):
        ann.merge_topk(results, k)
