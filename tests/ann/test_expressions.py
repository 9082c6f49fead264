# SPDX-License-Identifier: Apache-2.0
"""Filter expressions against the oracle: every condition on every kind of column, random trees."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.ann import Table
from support.ann import TOPICS, World, check, expression

Worlds = Callable[..., World]

DAY = np.datetime64("2021-05-05", "ns")
ORDERS = ("==", "!=", "<", "<=", ">", ">=")
CONDITIONS = [
    *[(name, "year", value) for name in ORDERS for value in (2000, 2000.5, 1990, 2024, -(10**9))],
    *[(name, "year", value) for name in ("<", ">=") for value in (1e300, -1e300, 2**62, 2**80)],
    *[(name, "score", value) for name in ORDERS for value in (0, 0.25, -0.0, 1e9, float("inf"))],
    *[(name, "day", DAY) for name in ORDERS],
    *[(name, "kind", value) for name in ("==", "!=") for value in ("a", "rare", "unknown", "")],
    *[(name, "draft", value) for name in ("==", "!=") for value in (True, False)],
    ("between", "year", 2000, 2010),
    ("between", "year", 2010, 2000),
    ("between", "year", 1999.5, 2000.5),
    ("between", "score", -0.5, 0.5),
    ("between", "score", float("-inf"), float("inf")),
    ("between", "day", np.datetime64("2020-06-01"), np.datetime64("2020-06-30")),
    ("isin", "year", [2000, 2003, 1800]),
    ("isin", "year", []),
    ("isin", "year", [2000.0, 2000.5]),
    ("isin", "score", [0.25, 1, -0.5]),
    ("isin", "day", [DAY, DAY + 1, np.datetime64("2020-02-29")]),
    ("isin", "kind", ["a", "unknown", "rare"]),
    ("isin", "kind", []),
    ("isin", "draft", [True, False]),
    *[("contains", "topics", value) for value in ("nlp", "unknown")],
    *[
        (name, "topics", values)
        for name in ("contains_any", "contains_all")
        for values in ([], ["nlp"], ["nlp", "law"], ["nlp", "unknown"], ["law", "law"], [*TOPICS])
    ],
    *[("is_null", name) for name in ("rank", "year", "score", "kind", "draft", "topics", "day")],
]


@pytest.mark.parametrize("tree", CONDITIONS, ids=str)
def test_conditions(built: Worlds, tree: Any) -> None:
    world = built()
    for each in (tree, ("not", tree)):
        where = expression(each)
        assert world.index.count(where) == world.table.count(each)
        hits = world.index.search(world.queries[:1], k=2000, where=where, exact=True)
        assert sorted(hits.ids[0, : hits.counts[0]]) == world.table.passing(each)


def trees() -> st.SearchStrategy[Any]:
    """Random filters; half of them are negated somewhere."""

    def nodes(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        many = st.lists(parts, min_size=1, max_size=4)
        return st.one_of(
            parts.map(lambda part: ("not", part)),
            many.map(lambda listed: ("and", *listed)),
            many.map(lambda listed: ("or", *listed)),
        )

    return st.recursive(st.sampled_from(CONDITIONS), nodes, max_leaves=12)


@given(st.lists(trees(), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_random_trees(built: Worlds, wheres: list[Any]) -> None:
    world = built("l2")
    queries = np.resize(world.queries, (len(wheres), world.queries.shape[1]))
    given_filters = [expression(tree) for tree in wheres]
    hits = world.index.search(queries, k=7, where=given_filters, exact=True)
    check(hits, world.table, queries, 7, wheres, exact=True)
    check(world.index.search(queries, k=7, where=given_filters), world.table, queries, 7, wheres)
    for tree, where in zip(wheres, given_filters, strict=True):
        assert world.index.count(where) == world.table.count(tree)


def test_a_boolean_column_alone(built: Worlds) -> None:
    world = built()
    draft = ann.field("draft")
    assert world.index.count(draft) == world.table.count(("==", "draft", True))
    assert world.index.count(~draft) == world.table.count(("!=", "draft", True))
    text = "field('year').between(2019, 2021) & field('topics').contains('nlp')) | ~field('draft')"
    where = ann.field("year").between(2019, 2021) & ann.field("topics").contains("nlp") | ~draft
    assert repr(where) == "(" + text
    tree = (
        "or",
        ("and", ("between", "year", 2019, 2021), ("contains", "topics", "nlp")),
        ("not", ("==", "draft", True)),
    )
    assert world.index.count(where) == world.table.count(tree)


def test_points_in_time_in_every_form(built: Worlds) -> None:
    world = built()
    wanted = world.table.count(("<", "day", np.datetime64("2021-05-05T00:00:00")))
    zone = datetime.timezone(datetime.timedelta(hours=2))
    for value in (
        datetime.date(2021, 5, 5),
        datetime.datetime(2021, 5, 5),
        datetime.datetime(2021, 5, 5, 2, tzinfo=zone),
        np.datetime64("2021-05-05"),
        np.datetime64("2021-05-05T00:00:00.000000000"),
    ):
        assert world.index.count(ann.field("day") < value) == wanted
    for pandas_value in _pandas_times():
        assert world.index.count(ann.field("day") < pandas_value) == wanted


def _pandas_times() -> list[Any]:
    try:
        import pandas
    except ImportError:
        return []
    return [pandas.Timestamp("2021-05-05"), pandas.Timestamp("2021-05-05", tz="UTC")]


def test_large_integers_are_compared_exactly() -> None:
    big = [2**53, 2**53 + 1, 2**53 + 2, -(2**63), 2**63 - 1]
    index, table = ann.Index(2), Table()
    for target in (index, table):
        target.add(np.ones((5, 2), np.float32), attributes={"n": big})
    for value in (*big, float(2**53), 2.0**63, -(2.0**63), 2**53 + 0.0, 10**400, -(10**400)):
        for name in ORDERS:
            tree = (name, "n", value)
            assert index.count(expression(tree)) == table.count(tree), tree


def test_many_terms_and_deep_ones(built: Worlds) -> None:
    world = built()
    tree: Any = ("or", *[("==", "rank", value) for value in range(0, 1500, 3)])
    assert world.index.count(expression(tree)) == 500
    deep: Any = ("<", "rank", 100)
    for level in range(90):
        deep = ("and", ("or", deep, ("==", "rank", 1000 + level)), (">=", "rank", 0))
    assert world.index.count(expression(deep)) == world.table.count(deep) == 190


def test_expressions_are_reused_and_belong_to_no_index(built: Worlds) -> None:
    where = ann.field("rank") < 10
    for metric in ("cosine", "l2"):
        world = built(metric)
        assert world.index.count(where) == 10
        assert world.index.count(where & ~where) == 0
        assert world.index.count(where | ~where) == 2000
    assert where.equals(ann.field("rank") < 10) and not where.equals(ann.field("rank") <= 10)


EARLIEST = datetime.datetime.min.replace(
    tzinfo=datetime.timezone(datetime.timedelta(hours=9))  # in UTC before there are years
)
NOT_A_VALUE = r"ann.field\('a'\) {}: the value must be a boolean, number, string, date or datetime"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f: f == None, TypeError, NOT_A_VALUE.format("==") + "; got NoneType. Use is_null"),  # noqa: E711
        (lambda f: f < [1], TypeError, NOT_A_VALUE.format("<") + "; got list"),
        (lambda f: f.contains({}), TypeError, NOT_A_VALUE.format("contains") + "; got dict"),
        (lambda f: f.between(1, None), TypeError, NOT_A_VALUE.format("between")),
        (lambda f: f.isin([1, None]), TypeError, NOT_A_VALUE.format("isin")),
        (lambda f: f.isin("abc"), TypeError, r"isin: 'values' must be a list, set or array"),
        (lambda f: f.isin(3), TypeError, r"isin: 'values' must be a list.*got int"),
        (lambda f: f.isin(np.ones((2, 2))), ValueError, r"must have one axis; got shape \(2, 2\)"),
        (lambda f: f == float("nan"), ValueError, r"value must not be NaN.* Use is_null"),
        (lambda f: f < np.datetime64("NaT"), ValueError, r"must not be NaT"),
        (lambda f: f == "\ud800", ValueError, r"the value must be text in Unicode; got '.ud800'"),
        (lambda f: f < EARLIEST, ValueError, r"from 1677-09-21 to 2262-04-11"),
        (lambda f: f < np.datetime64(1500, "ps"), ValueError, r"to the nanosecond; got 1970-01-01"),
        (lambda f: f < np.datetime64("9999-01-01"), ValueError, r"from 1677-09-21 to 2262-04-11"),
        (lambda f: f < datetime.date(2300, 1, 1), ValueError, r"from 1677-09-21 to 2262-04-11"),
        (lambda f: f and f, TypeError, r"no truth value; use & \| ~ instead of and, or, not"),
        (lambda f: 1 < f < 3, TypeError, r"between\(\) instead of a < field < b"),
        (lambda f: f & 1, TypeError, r"both sides of '&' must be expressions; got int"),
        (lambda f: True | f, TypeError, r"both sides of '\|' must be expressions; got bool"),
    ],
)
def test_bad_values(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(ann.field("a"))


def test_bad_names() -> None:
    with pytest.raises(TypeError, match=r"ann.field: 'name' must be a string; got int"):
        ann.field(3)  # type: ignore[arg-type]
    for name in ("", "x" * 70_000):
        with pytest.raises(ValueError, match=r"ann.field: 'name' must have 1 to 65535 bytes"):
            ann.field(name)
    with pytest.raises(ValueError, match=r"ann.field: 'name' must be text in Unicode; got"):
        ann.field("\ud800")
