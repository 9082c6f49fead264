# SPDX-License-Identifier: Apache-2.0
"""The contract of a search: every form of filter, selectivity, metric and dtype, both plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import FORMS, World, check, expression, preferring_cells, same

Worlds = Callable[..., World]

K = 10
# How many of the 2000 rows pass: none, one, around k, 0.1 %, 1 %, 10 %, 50 %, all but one, all.
PASSING = (0, 1, K - 1, K, K + 1, 2, 20, 200, 1000, 1999, 2000)


def first(count: int) -> tuple[Any, ...]:
    """Return a filter that this many rows pass."""
    return ("<", "rank", count)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_selectivity(built: Worlds, metric: str, dtype: str, form: str) -> None:
    world = built(metric, dtype)
    for count in PASSING:
        where = world.form(form, first(count))
        for exact in (True, False):
            hits = world.index.search(world.queries, k=K, where=where, exact=exact)
            recalls = check(hits, world.table, world.queries, K, first(count), exact=exact)
            assert np.mean(recalls) >= 0.8, (count, exact)


def test_a_filter_for_each_query(built: Worlds, metric: str, dtype: str) -> None:
    world = built(metric, dtype)
    trees = [None, first(0), first(5), first(30), first(400), ("==", "kind", "rare"), first(1999)]
    trees = (trees * 2)[: len(world.queries)]
    forms = FORMS * 2
    wheres = [world.form(form, tree) for form, tree in zip(forms, trees, strict=True)]
    for exact in (True, False):
        hits = world.index.search(world.queries, k=K, where=wheres, exact=exact)
        check(hits, world.table, world.queries, K, trees, exact=exact)
        for i, where in enumerate(wheres):  # and each is what it is alone
            alone = world.index.search(world.queries[i : i + 1], k=K, where=where, exact=exact)
            assert np.array_equal(alone.ids[0], hits.ids[i])
            assert np.array_equal(alone.distances[0], hits.distances[i])


@pytest.mark.parametrize("k", [1, 2, 9, 33, 100, 1999, 2000, 2001, 5000])
def test_every_k(built: Worlds, metric: str, k: int) -> None:
    world = built(metric)
    for tree in (None, first(K), first(1000)):
        for exact in (True, False):
            where = None if tree is None else expression(tree)
            hits = world.index.search(world.queries[:3], k=k, where=where, exact=exact)
            check(hits, world.table, world.queries[:3], k, tree, exact=exact)


@pytest.mark.parametrize("by", ["cells", "walks"])
def test_many_of_few(built: Worlds, metric: str, by: str) -> None:
    """Cells and walks that end early still find all that k asks for, and the recall."""
    world = built(metric)
    index = preferring_cells(world.index) if by == "cells" else world.index
    plans = []
    for k, count in ((1, 300), (50, 400), (100, 400), (300, 400), (300, 1000), (700, 1000)):
        where = expression(first(count))
        choices: list[dict[str, Any]] = [{"effort": 1}, {"effort": 60}]
        if by == "cells":
            choices = [{"recall": recall} for recall in (0.5, 0.95, 0.999)]
        for options in choices:
            hits = index.search(world.queries, k=k, where=where, **options)
            recalls = check(hits, world.table, world.queries, k, first(count))
            # What a search takes is measured for ten results, and carried over to others.
            assert np.mean(recalls) >= options.get("recall", 0.5) - 0.1, (k, count, options)
            plans += [index.explain(query, k=k, where=where)["plan"] for query in world.queries]
    if by == "cells":
        assert plans.count("cells") > len(plans) / 2


def test_more_than_there_is_takes_no_memory(built: Worlds) -> None:
    world = built()
    for options in ({"effort": 1 << 30}, {"effort": 1 << 30, "where": ann.field("rank") < 700}):
        hits = world.index.search(world.queries, **options)
        check(hits, world.table, world.queries, K, first(700) if "where" in options else None)


SAME = [
    (("between", "year", 2000, 2005), ("isin", "year", [2005, 2000, 2001, 2002, 2003, 2004])),
    (("between", "year", 2000, 2005), ("and", (">=", "year", 2000), ("<", "year", 2006))),
    (("between", "year", 2000, 2005), ("and", (">", "year", 1999.5), ("<=", "year", 2005.5))),
    (("!=", "kind", "a"), ("not", ("==", "kind", "a"))),
    (("!=", "kind", "a"), ("or", ("isin", "kind", ["b", "c", "rare"]), ("is_null", "kind"))),
    (("isin", "kind", ["a"]), ("==", "kind", "a")),
    (("isin", "kind", ["a", "a", "nothing"]), ("==", "kind", "a")),
    (("contains_any", "topics", ["nlp"]), ("contains", "topics", "nlp")),
    (("contains_all", "topics", ["nlp", "law"]), ("contains_all", "topics", ["law", "nlp"])),
    (
        ("contains_all", "topics", ["nlp", "law"]),
        ("and", ("contains", "topics", "nlp"), ("contains", "topics", "law")),
    ),
    (
        ("not", ("or", ("==", "draft", True), ("<", "score", 0.0))),
        ("and", ("not", ("==", "draft", True)), ("not", ("<", "score", 0.0))),
    ),
    (("==", "rank", 7), ("between", "rank", 7, 7.5)),
    (("<", "rank", 500), ("isin", "rank", list(range(500)))),
    (("not", ("not", ("<", "rank", 40))), ("<", "rank", 40)),
    (("is_null", "score"), ("not", ("or", ("<", "score", 1.0), (">=", "score", 1.0)))),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=[str(i) for i in range(len(SAME))])
def test_equal_filters_give_equal_results(built: Worlds, metric: str, one: Any, other: Any) -> None:
    world = built(metric)
    assert world.table.passing(one) == world.table.passing(other)
    expected = world.index.search(world.queries, k=K, where=expression(one))
    for tree in (one, other):
        for form in FORMS:
            got = world.index.search(world.queries, k=K, where=world.form(form, tree))
            same(got, expected)
    assert world.index.count(expression(other)) == world.table.count(one)


def test_filters_that_pass_everything(built: Worlds, metric: str, dtype: str) -> None:
    world = built(metric, dtype)
    for options in ({}, {"recall": 0.99}, {"exact": True}, {"k": 1}, {"k": 100}):
        expected = world.index.search(world.queries, **options)
        everything = [
            ann.field("rank") >= 0,
            ~ann.field("kind").is_null() | ann.field("kind").is_null(),
            np.ones(len(world.ids), bool),
            world.ids,
            world.index.compile(ann.field("rank") >= 0),
        ]
        for where in everything:
            same(world.index.search(world.queries, where=where, **options), expected)
        same(
            world.index.search(world.queries, where=[None] * len(world.queries), **options),
            expected,
        )


def test_the_same_filter_in_a_batch_and_alone(built: Worlds, metric: str) -> None:
    world = built(metric)
    for count in (3, 30, 300, 1500):
        where = expression(first(count))
        shared = world.index.search(world.queries, k=K, where=where)
        same(world.index.search(world.queries, k=K, where=[where] * len(world.queries)), shared)
        for i, query in enumerate(world.queries):
            alone = world.index.search(query[None], k=K, where=where)
            assert np.array_equal(alone.ids[0], shared.ids[i])
            assert np.array_equal(alone.distances[0], shared.distances[i])


def test_repeated_searches_are_equal(built: Worlds, metric: str) -> None:
    world = built(metric)
    for tree in (None, first(50), first(900)):
        where = None if tree is None else expression(tree)
        before = world.index.search(world.queries, k=K, where=where)
        world.index.search(world.queries[::-1].copy(), k=77, where=where, recall=0.99)
        same(world.index.search(world.queries, k=K, where=where), before)


@pytest.mark.parametrize("kind", ["int64", "int32", "uint16", "strided", "unknown ids"])
def test_ids_in_every_dtype(built: Worlds, kind: str) -> None:
    world = built()
    ids = np.sort(world.ids)[:40]
    where = {
        "int64": ids,
        "int32": ids.astype(np.int32),
        "uint16": ids.astype(np.uint16),
        "strided": np.repeat(ids, 3)[::-1],  # each three times, in another order
        "unknown ids": np.concatenate([ids, [2, 10**12]]),
    }[kind]
    hits = world.index.search(world.queries, k=K, where=where)
    check(hits, world.table, world.queries, K, frozenset(ids.tolist()))
