# SPDX-License-Identifier: Apache-2.0
"""Bad input to an index: each message by its words, and the index as it was."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from support.ann import make_world

ROWS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
COLUMNS = {"year": [2019, 2020, None, 2021, 2022, 2023], "kind": [*"abcab", None]}


def small(metric: str = "cosine", dtype: str | None = "float32") -> Any:
    index = ann.Index(4, metric=metric, dtype=dtype)
    rows = (ROWS * 40).astype(np.int8) if dtype == "int8" else ROWS
    index.add(rows, ids=[10, 11, 12, 13, 14, 15], attributes=COLUMNS)
    return index


def with_value(row: int, value: float) -> Any:
    rows = np.ones((20, 4), np.float32)
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((0,), {}, ValueError, r"'dim' must be (at least|from) 1"),
        ((-3,), {}, ValueError, r"'dim' must be .*1.*; got -3"),
        ((2.0,), {}, TypeError, r"'dim' must be an integer; got float"),
        ((1 << 40,), {}, ValueError, r"'dim' must be .*; got 1099511627776"),
        ((4,), {"metric": "cosin"}, ValueError, r"'metric' must be one of .* mean 'cosine'\?"),
        ((4,), {"metric": 1}, TypeError, r"'metric' must be a string"),
        ((4,), {"dtype": "float31"}, ValueError, r"'dtype' must be one of 'float32'.*'int8'"),
        ((4,), {"threads": 0}, ValueError, r"'threads' must be .*1"),
        ((4,), {"seed": -1}, ValueError, r"'seed' must be .*0"),
        ((4,), {"seed": 0.5}, TypeError, r"'seed' must be an integer"),
    ],
)
def test_options(arguments: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^ann.Index: {words}"):
        ann.Index(*arguments, **options)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (
            np.ones((3, 5), np.float32),
            ValueError,
            r"must have 4 columns \(dim\); got shape \(3, 5\)",
        ),
        (np.ones((1, 3, 4), np.float32), ValueError, r"must have 4 columns .* \(1, 3, 4\)"),
        (np.ones(5, np.float32), ValueError, r"must have 4 columns"),
        (np.ones((3, 4), np.int64), TypeError, r"must be float32, .*; got int64"),
        (np.ones((3, 4), bool), TypeError, r"must be float32, .*; got bool"),
        (np.ones((3, 4), complex), TypeError, r"must be"),
        (np.full((3, 4), "x"), TypeError, r"must "),
        (with_value(17, np.nan), ValueError, r"must be finite.*row 17|row 17.*(NaN|finite)"),
        (with_value(3, np.inf), ValueError, r"must be finite.*row 3|row 3.*(inf|finite)"),
        (with_value(9, -np.inf), ValueError, r"row 9"),
        (np.full((2, 4), 1e300), ValueError, r"must hold numbers that float32 can hold; row 0"),
        (with_value(5, 1e16), ValueError, r"row 5 .*1e15"),
        ("rows", TypeError, r"must "),
        (None, TypeError, r"must "),
    ],
)
@pytest.mark.parametrize("method", ["add", "upsert"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_vectors(metric: str, method: str, rows: Any, error: type[Exception], words: str) -> None:
    index = small(metric)
    count = len(rows) if hasattr(rows, "shape") else 1
    options = {"ids": list(range(10, 10 + count))} if method == "upsert" else {}
    with pytest.raises(error, match=f"^ann.Index.{method}: 'vectors' {words}"):
        getattr(index, method)(rows, **options)
    assert len(index) == 6 and index.count(ann.field("year") > 0) == 5


def test_queries_that_are_too_long() -> None:
    """Their distances would not fit float32; under the cosine only the direction matters."""
    for metric in ("ip", "l2"):
        for value in (1e15, 3e38):
            with pytest.raises(
                ValueError, match=r"search: 'queries' .* no longer than 1e15.*row 7"
            ):
                small(metric).search(with_value(7, value))
        assert small(metric).search(with_value(7, 1e14)).counts.tolist() == [6] * 20
    far = with_value(7, 3e38)
    assert np.array_equal(small().search(far).ids[7], small().search(far / 3e38).ids[7])


def test_rows_that_are_too_short_for_the_cosine() -> None:
    for value in (1e-31, 1e-40):
        with pytest.raises(
            ValueError, match=r"^ann.Index.add: 'vectors' row 5 is shorter than 1e-30"
        ):
            small().add(with_value(5, value))
    assert len(small().add(with_value(5, 1e-29))) == 20


def test_zero_vectors_have_no_direction() -> None:
    index = small()
    for method, options in (("add", {}), ("upsert", {"ids": list(range(20))})):
        with pytest.raises(ValueError, match=rf"^ann.Index.{method}: 'vectors' .*row 7.* zero"):
            getattr(index, method)(with_value(7, 0.0), **options)
    with pytest.raises(ValueError, match=r"^ann.Index.search: 'queries' .*zero.*row 7"):
        index.search(with_value(7, 0.0))
    for metric in ("ip", "l2"):
        other = small(metric)
        assert len(other.add(with_value(7, 0.0))) == 20
        assert other.search(with_value(7, 0.0)).counts.tolist() == [10] * 20


def test_int8_indexes_take_int8() -> None:
    index = small("l2", "int8")
    with pytest.raises(TypeError, match=r"^ann.Index.add: 'vectors' must be int8; got float32"):
        index.add(ROWS)


@pytest.mark.parametrize(
    ("queries", "error", "words"),
    [
        (np.ones((3, 5), np.float32), ValueError, r"must have .*4.*columns.*; got shape \(3, 5\)"),
        (np.ones((3, 0), np.float32), ValueError, r"must have .*4.*columns"),
        (np.ones((3, 4), np.int64), TypeError, r"must be float32, .*; got int64"),
        (with_value(17, np.nan), ValueError, r"must be finite; row 17"),
        (with_value(17, np.inf), ValueError, r"must be finite; row 17"),
        ("text", TypeError, r"must be an array"),
        (None, TypeError, r"must be an array"),
    ],
)
def test_queries(queries: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^ann.Index.search: 'queries' {words}"):
        small().search(queries)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 0}, ValueError, r"'k' must be (at least|from) 1.*; got 0"),
        ({"k": -5}, ValueError, r"'k' must be .*; got -5"),
        ({"k": 2.5}, TypeError, r"'k' must be an integer; got float"),
        ({"k": True}, TypeError, r"'k' must be an integer; got bool"),
        ({"k": 1 << 40}, ValueError, r"'k' must be .*; got 1099511627776"),
        ({"recall": 0.0}, ValueError, r"'recall' must "),
        ({"recall": 1.5}, ValueError, r"'recall' must .*; got 1.5"),
        ({"recall": float("nan")}, ValueError, r"'recall' must "),
        ({"recall": "high"}, TypeError, r"'recall' must be a number"),
        ({"effort": 0}, ValueError, r"'effort' must be .*1"),
        ({"effort": 1.5}, TypeError, r"'effort' must be an integer"),
        ({"threads": 0}, ValueError, r"'threads' must be "),
        ({"exact": 1}, TypeError, r"'exact' must be "),
    ],
)
def test_search_options(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^ann.Index.search: {words}"):
        small().search(ROWS, **options)


FORMS = r"must be an expression \(ann.field\), a boolean mask .*or None"


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        (3, TypeError, rf"'where' {FORMS}; got int"),
        ("year > 3", TypeError, rf"'where' {FORMS}; got str"),
        ({"year": 3}, TypeError, rf"'where' {FORMS}; got dict"),
        (np.ones(5, bool), ValueError, r"'where' as a mask must have one .* \(6\); got 5"),
        (np.ones(7, bool), ValueError, r"'where' as a mask must have one .* \(6\); got 7"),
        (np.ones((6, 1), bool), ValueError, r"'where' as an array must have one axis; .*\(6, 1\)"),
        (np.ones(6), TypeError, r"'where' as an array must be boolean or int64; got float64"),
        (np.full(6, "x"), TypeError, r"'where' .*must be"),
        ([None] * 5, ValueError, r"'where' as a list .* for each query \(6\); got 5"),
        ([None] * 5 + ["x"], TypeError, rf"filter 5 of 'where' {FORMS}; got str"),
        ([None] * 5 + [np.ones(2, bool)], ValueError, r"filter 5 of 'where' as a mask"),
        (ann.field("yeer") > 3, ValueError, r"'where' .*'yeer'.*'year'"),
        (ann.field("kind") > "a", TypeError, r"'where' .*'kind'.*(==|isin)"),
        (ann.field("kind").between("a", "b"), TypeError, r"'where' .*'kind'"),
        (ann.field("kind") == 3, TypeError, r"'where' .*'kind'.*string"),
        (ann.field("kind") == True, TypeError, r"'where' .*'kind'"),  # noqa: E712
        (ann.field("kind"), TypeError, r"'where' .*'kind'"),
        (ann.field("kind").isin(["a", 3]), TypeError, r"'where' .*'kind'"),
        (ann.field("year") == "2020", TypeError, r"'where' .*'year'.*string"),
        (ann.field("year") > np.datetime64("2020-01-01"), TypeError, r"'where' .*'year'"),
        (ann.field("year").contains(3), TypeError, r"'where' .*'year'.*set"),
        (ann.field("kind").contains_any(["a"]), TypeError, r"'where' .*'kind'.*(set|isin)"),
    ],
)
def test_filters(where: Any, error: type[Exception], words: str) -> None:
    index = small()
    with pytest.raises(error, match=f"^ann.Index.search: {words}"):
        index.search(ROWS, where=where)
    if not isinstance(where, list):
        with pytest.raises(error, match=f"^ann.Index.count: {words}"):
            index.count(where)
        with pytest.raises(error, match=r"^ann.Index.compile: 'where' "):
            index.compile(where).ids  # noqa: B018


def test_filters_of_other_kinds_of_columns() -> None:
    index = ann.Index(4)
    day = np.datetime64("2020-01-01")
    index.add(ROWS[:2], attributes={"tags": [["a"], None], "day": [day, day], "ok": [True, False]})
    tags, day_, ok = (ann.field(name) for name in ("tags", "day", "ok"))
    for where, words in (
        (tags == "a", "'tags'.*contains"),
        (tags.isin(["a"]), "'tags'.*contains_any"),
        (tags < "a", "'tags'.*set"),
        (tags.contains(3), "'tags'"),
        (day_ > 3, "'day'"),
        (day_ == "2020-01-01", "'day'"),
        (ok > True, "'ok'"),
        (ok == "yes", "'ok'"),
    ):
        with pytest.raises(TypeError, match=f"^ann.Index.count: 'where' .*{words}"):
            index.count(where)


def test_a_filter_of_another_index() -> None:
    one, other = small(), small()
    where = one.compile(ann.field("year") > 2020)
    with pytest.raises(ValueError, match=r"'where' must be a Filter of this index; got one of"):
        other.search(ROWS, where=where)


def test_expressions_too_deep_or_too_large() -> None:
    index = small()
    deep = ann.field("year") > 0
    for _ in range(300):
        deep = ~deep
    with pytest.raises(ValueError, match=r"^ann.Index.search: 'where' .*(deep|nest)"):
        index.search(ROWS, where=deep)
    mixed = ann.field("year") > 0
    for level in range(300):
        mixed = (mixed & (ann.field("year") > level)) | (ann.field("year") < level)
    with pytest.raises(ValueError, match=r"'where' .*(deep|nest)"):
        index.count(mixed)
    wide = ann.field("kind").isin([f"{'x' * 1000}{i}" for i in range(20_000)])
    with pytest.raises(ValueError, match=r"'where' .*(MiB|bytes|long)"):
        index.count(wide)
    assert index.count(ann.field("year") > 0) == 5


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([1, 2, 3], ValueError, r"'ids' must have one .*\(6\); got 3"),
        ([1, 2, 3, 4, 5, 5], ValueError, r"'ids' must be distinct.*5"),
        ([1, 2, 3, 4, 5, 12], ValueError, r"'ids' must .*12"),  # it is there
        ([1, 2, 3, 4, 5, -1], ValueError, r"'ids' must .*-1"),
        ([1, 2, 3, 4, 5, 0.5], TypeError, r"'ids' must be .*integers?"),
        (list("abcdef"), TypeError, r"'ids' must be"),
        (np.full(6, 1 << 63, np.uint64), (TypeError, ValueError), r"'ids' must "),
        (np.ones((6, 1), np.int64), ValueError, r"'ids' must .*one axis"),
        (3, ValueError, r"'ids' must have one .*\(6\); got 1"),
    ],
)
def test_ids(ids: Any, error: Any, words: str) -> None:
    index = small()
    with pytest.raises(error, match=f"^ann.Index.add: {words}"):
        index.add(ROWS, ids=ids)
    assert len(index) == 6


@pytest.mark.parametrize("method", ["delete", "get", "update_attributes"])
def test_ids_that_are_not_there(method: str) -> None:
    index = small()
    more = ({"year": [1, 2, 3]},) if method == "update_attributes" else ()
    for ids, words in (([10, 99, 98], "99"), ([10, -1, 11], "-1"), ([12, 16, 11], "16")):
        with pytest.raises(ValueError, match=rf"^ann.Index.{method}: 'ids' .*{words}"):
            getattr(index, method)(ids, *more)
    index.delete([11])
    with pytest.raises(ValueError, match=rf"^ann.Index.{method}: 'ids' .*11"):
        getattr(index, method)([10, 12, 11], *more)
    assert len(index) == 5 and index.count(ann.field("year") == 2019) == 1


def test_ids_given_twice() -> None:
    index = small()
    with pytest.raises(ValueError, match=r"^ann.Index.delete: 'ids' must be distinct.*10"):
        index.delete([10, 11, 10])
    with pytest.raises(ValueError, match=r"^ann.Index.upsert: 'ids' must be distinct.*3"):
        index.upsert(ROWS[:3], ids=[3, 4, 3])
    with pytest.raises(ValueError, match=r"^ann.Index.update_attributes: 'ids' must be distinct"):
        index.update_attributes([10, 10], {"year": [1, 2]})
    assert len(index) == 6


WEST = timezone(timedelta(hours=-9))
KINDS = "must hold booleans, integers, numbers, strings, dates or lists of labels; got"
BAD_COLUMNS: list[tuple[Any, Any, str]] = [
    ({"n": [1, 2]}, ValueError, r"column 'n' must have one value for each row \(3\); got 2"),
    ({"n": [1, 2, 3], "m": [1]}, ValueError, r"column 'm' must have one value .* \(3\); got 1"),
    ({"n": np.ones((3, 2))}, ValueError, r"column 'n' must have one axis; got shape \(3, 2\)"),
    ({"n": [1, "a", 2]}, TypeError, r"column 'n' must hold values of one kind; .*row 1 is 'a'"),
    ({"n": [1j, 2j, 3j]}, TypeError, rf"column 'n' {KINDS} complex"),
    ({"n": np.ones(3, complex)}, TypeError, rf"column 'n' {KINDS} dtype complex128"),
    ({"n": [{}, {}, {}]}, TypeError, rf"column 'n' {KINDS} dict"),
    ({"n": [b"a", b"b", b"c"]}, TypeError, rf"column 'n' {KINDS} bytes"),
    ({"n": [[1.5], [], []]}, TypeError, r"column 'n' must hold lists of strings, .*numbers"),
    ({"n": [["a"], [1], []]}, TypeError, r"column 'n' must hold lists of strings, .*"),
    ({"n": [2**63, 1, 2]}, ValueError, r"column 'n' must hold integers of int64; got 922337203685"),
    ({"n": np.full(3, 2**63, np.uint64)}, ValueError, r"column 'n' must hold integers of int64"),
    ({"n": [0.5, 10**400, 1]}, ValueError, r"column 'n' must hold numbers of float64"),
    (
        {"n": ["a", "\ud800", "b"]},
        ValueError,
        r"'attributes' must hold text in Unicode; got '.ud800'",
    ),
    (
        {"\ud800": [1, 2, 3]},
        ValueError,
        r"names of 'attributes' must be text in Unicode; got '.ud8",
    ),
    (
        {"x" * 70_000: [1, 2, 3]},
        ValueError,
        r"names of 'attributes' .* at most 65535 bytes .* 70000",
    ),
    ({"n": [datetime.max.replace(tzinfo=WEST)] * 3}, ValueError, r"column 'n' must be .* 2262"),
    ({"n": np.array(["9999"] * 3, "M8[s]")}, ValueError, r"column 'n' must .*1677.* 2262"),
    ({"n": 3}, TypeError, r"column 'n' must be an array or a list; got int"),
    ({"n": "abc"}, TypeError, r"column 'n' must be an array or a list; got str"),
    ({3: [1, 2, 3]}, TypeError, r"names of 'attributes' must be strings.*; got 3"),
    ({"": [1, 2, 3]}, TypeError, r"names of 'attributes' must be strings that are not empty"),
    ([1, 2, 3], TypeError, r"'attributes' must be a dict of .*; got list"),
    ("text", TypeError, r"'attributes' must be a dict of .*; got str"),
    ({"year": ["a", "b", "c"]}, TypeError, r"'year'.*(integer|category)"),
    ({"year": [[1], [2], [3]]}, TypeError, r"'year'"),
    ({"kind": [["a"], [], []]}, TypeError, r"'kind'"),
    ({"year": [0.5, 1.0, 2.0]}, TypeError, r"'year'"),
]


@pytest.mark.parametrize(
    ("columns", "error", "words"), BAD_COLUMNS, ids=[str(i) for i in range(len(BAD_COLUMNS))]
)
@pytest.mark.parametrize("method", ["add", "upsert", "update_attributes"])
def test_attributes(method: str, columns: Any, error: type[Exception], words: str) -> None:
    index = small()
    with pytest.raises(error, match=f"^ann.Index.{method}: .*{words}"):
        if method == "add":
            index.add(ROWS[:3], attributes=columns)
        elif method == "upsert":
            index.upsert(ROWS[:3], ids=[10, 20, 30], attributes=columns)
        else:
            index.update_attributes([10, 11, 12], columns)
    assert len(index) == 6 and index.ids.tolist() == [10, 11, 12, 13, 14, 15]
    assert index.count(ann.field("year") == 2019) == 1
    with pytest.raises(ValueError, match="'m'"):
        index.count(ann.field("m") == 1)  # the good column beside a bad one did not get in
    assert index.add(ROWS[:1]).tolist() == [16]


def test_a_column_is_no_table() -> None:
    for library, made in (("pandas", "Series"), ("pyarrow", "array")):
        column = getattr(pytest.importorskip(library), made)([1, 2, 3])
        with pytest.raises(TypeError, match=r"^ann.Index.add: 'attributes' must be a "):
            small().add(ROWS[:3], attributes=column)


def test_arrow_columns_of_no_use() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for column, error in (
        (
            pyarrow.array([[("a", 1)]] * 3, pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            TypeError,
        ),
        (pyarrow.array([{"a": 1}] * 3), TypeError),
        (pyarrow.array([b"a"] * 3), TypeError),
        (pyarrow.array([2**60] * 3, pyarrow.timestamp("s")), ValueError),
        (pyarrow.array([[2**64 - 1]] * 3, pyarrow.list_(pyarrow.uint64())), ValueError),
    ):
        with pytest.raises(error, match=r"^ann.Index.add: 'attributes' column 'n' must "):
            small().add(ROWS[:3], attributes={"n": column})


def test_tables_with_a_name_twice() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame([[1, 2]] * 3, columns=["n", "n"])
    with pytest.raises(
        ValueError, match=r"columns of 'attributes' must have distinct names; .*'n'"
    ):
        small().add(ROWS[:3], attributes=table)


def test_an_index_whose_vectors_are_dropped() -> None:
    world = make_world(rows=2000, columns=24, keep_vectors=False)
    world.index.compact()
    hits = world.index.search(world.queries, k=10)
    assert (hits.counts == 10).all()
    with pytest.raises(ValueError, match=r"'exact' must be False .*not keep its vectors"):
        world.index.search(world.queries, exact=True)
    vectors, columns = world.index.get(world.ids[:2])
    assert vectors is None and columns["rank"].tolist() == world.rank(world.ids[:2])


def test_masked_arrays_are_refused() -> None:
    index = small()
    masked = np.ma.array([True] * len(index), mask=[True] + [False] * (len(index) - 1))
    for where in (masked, np.ma.array(np.arange(3), mask=[True, False, False])):
        with pytest.raises(TypeError, match=r"^ann.Index.search: 'where' must not be a masked"):
            index.search(ROWS[:1], where=where)
    with pytest.raises(TypeError, match=r"'vectors' must not be a masked array"):
        index.add(np.ma.array(ROWS[:2]))
    with pytest.raises(TypeError, match=r"'queries' must not be a masked array"):
        index.search(np.ma.array(ROWS[:2]))
    with pytest.raises(TypeError, match=r"'values' must not be a masked array"):
        ann.field("n").isin(np.ma.array(np.arange(100)))


def test_durations_are_no_integers() -> None:
    hour = np.timedelta64(1, "h")
    with pytest.raises(TypeError, match=r"column 'n' must hold .*; got timedelta64"):
        small().add(ROWS[:3], attributes={"n": [hour, None, None]})
    for condition in (lambda: ann.field("n") == hour, lambda: ann.field("n").isin([hour])):
        with pytest.raises(TypeError, match=r"the value must be .*; got timedelta64"):
            condition()


@pytest.mark.parametrize("rows", [0, 3])
def test_filters_are_looked_at_where_there_is_nothing_to_find(rows: int) -> None:
    index = ann.Index(4)
    if rows:
        index.add(ROWS[:rows])
    queries = np.ones((0 if rows else 2, 4), np.float32)
    for where, error in (
        ("text", TypeError),
        ([None] * 5, ValueError),
        (np.ones(7, np.bool_), ValueError),
        (small().compile([1]), ValueError),
    ):
        with pytest.raises(error, match=r"^ann.Index.search: 'where' "):
            index.search(queries, where=where)
    assert len(index.search(queries, where=ann.field("unknown") == 1).ids) == len(queries)


def test_a_filter_of_another_index_is_not_compiled() -> None:
    with pytest.raises(ValueError, match=r"^ann.Index.compile: 'where' must be a Filter of this"):
        small().compile(small().compile([1]))


def test_numbers_that_the_dtype_of_the_index_cannot_hold() -> None:
    index = ann.Index(2, dtype="float16")
    with pytest.raises(
        ValueError, match=r"'vectors' must hold numbers that float16 can hold; row 1"
    ):
        index.add(np.array([[1.0, 2.0], [1e6, 1.0]]))
    with pytest.raises(ValueError, match=r"row 0 holds NaN or an infinite"):
        index.add(np.array([[np.inf, 2.0]]))


def test_ids_and_booleans_in_one_list() -> None:
    with pytest.raises(TypeError, match=r"'where' as a list must hold ids or booleans; got both"):
        small().search(ROWS[:1], where=[True, 3])


@pytest.mark.parametrize(
    ("results", "error", "text"),
    [
        (None, TypeError, "'results' must be an iterable"),
        ([([[1]], [[np.nan]])], ValueError, "distances that are not NaN; result 0"),
        ([(np.array([[2**63]], np.uint64), [[0.5]])], ValueError, "ids of int64; result 0"),
    ],
)
def test_results_that_do_not_merge(results: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ann.merge_topk(results)
