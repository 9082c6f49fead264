# SPDX-License-Identifier: Apache-2.0
"""Attributes from every source: lists, NumPy, pandas, polars, Arrow, any Arrow stream."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedcore import ann
from oracle.ann import Table
from support.ann import early_builds, expression, random_attributes

ROWS = 300
ATTRIBUTES = random_attributes(np.random.default_rng(5), ROWS)
ATTRIBUTES["level"] = [
    [1, 2, 30][i % 3] for i in range(ROWS)
]  # integers; categories in some sources
DAY = np.datetime64("2021-05-05", "ns")
TREES: list[Any] = [
    ("<", "rank", 40),
    ("between", "year", 2000, 2010),
    ("!=", "year", 2003),
    (">=", "score", 0.25),
    ("not", ("<", "score", 0.25)),
    ("==", "kind", "rare"),
    ("isin", "kind", ["a", "b"]),
    ("!=", "kind", "a"),
    ("==", "draft", True),
    ("not", ("==", "draft", False)),
    ("contains", "topics", "nlp"),
    ("contains_all", "topics", ["nlp", "law"]),
    ("not", ("contains_any", "topics", ["nlp", "law", "unknown"])),
    (">", "day", DAY),
    ("==", "day", ATTRIBUTES["day"][0]),
    ("isin", "level", [1, 30]),
    ("!=", "level", 2),
    *[("is_null", name) for name in ATTRIBUTES],
]
Source = Callable[[dict[str, list[Any]]], Any]
VECTORS = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def as_numpy(columns: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        **{name: _objects(values) for name, values in columns.items()},
        "rank": np.array(columns["rank"], np.uint32),
        "score": np.array(columns["score"], np.float64),
        "level": np.repeat(np.array(columns["level"], np.int8), 2)[::2],
        "day": np.array(columns["day"], "datetime64[s]"),
    }


def as_python(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Other containers: a tuple, sets, datetimes, NumPy scalars, NaN for None."""
    topics = [None if v is None else set(v) for v in columns["topics"]]
    days = [datetime.datetime.fromisoformat(str(v)[:10]) for v in columns["day"]]
    return {
        **columns,
        "rank": tuple(columns["rank"]),
        "topics": [frozenset(v) if v and i % 2 else v for i, v in enumerate(topics)],
        "day": days,
        "score": [np.float32(v) if np.isnan(v) else v for v in columns["score"]],
        "year": [v if v is None else np.int16(v) for v in columns["year"]],
    }


def as_pandas(columns: dict[str, list[Any]]) -> Any:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: pandas.Series(values) for name, values in columns.items()})
    return frame.astype({"kind": object})


def as_pandas_nullable(columns: dict[str, list[Any]]) -> Any:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "rank": pandas.Series(columns["rank"], dtype="UInt16"),
            "year": pandas.Series(columns["year"], dtype="Int64"),
            "score": pandas.Series(columns["score"], dtype="Float64"),
            "kind": pandas.Series(columns["kind"], dtype="string"),
            "draft": pandas.Series(columns["draft"], dtype="boolean"),
            "topics": pandas.Series(columns["topics"], dtype=object),
            "day": pandas.Series(columns["day"]).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
            "level": pandas.Categorical(columns["level"]),
        }
    )
    return frame.set_index(np.arange(ROWS)[::-1])


def as_pandas_categories(columns: dict[str, list[Any]]) -> Any:
    frame = as_pandas(columns)
    return frame.astype({"kind": "category", "draft": "category", "level": "category"})


def as_dict_of_series(columns: dict[str, list[Any]]) -> Any:
    frame = as_pandas_nullable(columns)
    return {name: frame[name] for name in frame}


def as_polars(columns: dict[str, list[Any]]) -> Any:
    polars = pytest.importorskip("polars")
    return polars.DataFrame(
        {
            **{name: values for name, values in columns.items() if name != "day"},
            "day": polars.Series(np.array(columns["day"], "datetime64[ms]")),
        },
        strict=False,
    ).with_columns(polars.col("score").fill_nan(None))


def as_polars_categories(columns: dict[str, list[Any]]) -> Any:
    polars = pytest.importorskip("polars")
    frame = as_polars(columns)
    return frame.with_columns(
        polars.col("kind").cast(polars.Categorical),
        polars.col("topics").cast(polars.List(polars.Categorical)),
        polars.col("day").cast(polars.Date),
        polars.col("score").cast(polars.Float64),
    )


def as_dict_of_polars(columns: dict[str, list[Any]]) -> Any:
    return as_polars(columns).to_dict()


def _arrow_columns(columns: dict[str, list[Any]], large: bool) -> dict[str, Any]:
    pyarrow = pytest.importorskip("pyarrow")
    text = pyarrow.large_string() if large else pyarrow.string()
    listed = pyarrow.large_list(text) if large else pyarrow.list_(text)
    day = pyarrow.date32() if large else pyarrow.timestamp("us", tz="UTC")
    unit = "datetime64[D]" if large else "datetime64[us]"
    days = np.array(columns["day"], unit).astype(object).tolist()
    return {
        "rank": pyarrow.array(columns["rank"], pyarrow.uint64() if large else pyarrow.int16()),
        "year": pyarrow.array(columns["year"], pyarrow.int64() if large else pyarrow.int32()),
        "score": pyarrow.array(columns["score"], pyarrow.float64(), from_pandas=large),
        "kind": pyarrow.array(columns["kind"], text),
        "draft": pyarrow.array(columns["draft"], pyarrow.bool_()),
        "topics": pyarrow.array(columns["topics"], listed),
        "day": pyarrow.array(days, day),
        "level": pyarrow.array(columns["level"], pyarrow.int8()).dictionary_encode(),
    }


def as_arrow(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").table(_arrow_columns(columns, large=False))


def as_arrow_large(columns: dict[str, list[Any]]) -> Any:
    made = _arrow_columns(columns, large=True)
    return pytest.importorskip("pyarrow").table({**made, "kind": made["kind"].dictionary_encode()})


def as_arrow_batch(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("pyarrow").record_batch(_arrow_columns(columns, large=False))


def as_arrow_slices(columns: dict[str, list[Any]]) -> Any:
    """Chunks that start in the middle of their buffers, one of them empty."""
    pyarrow = pytest.importorskip("pyarrow")
    table = as_arrow({name: values[:3] + values for name, values in columns.items()}).slice(3)
    parts = [table.slice(0, 13), table.slice(13, 0), table.slice(13, 100), table.slice(113)]
    return pyarrow.concat_tables(parts)


def as_dict_of_arrow(columns: dict[str, list[Any]]) -> Any:
    table = as_arrow_slices(columns)
    return {name: table.column(name) for name in table.column_names}


class Stream:
    """A table of which nothing is known but that it exports an Arrow stream."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


class OneArray:
    """A column or table of which nothing is known but that it exports an Arrow array."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self._data.__arrow_c_array__(requested_schema)


def as_one_array(columns: dict[str, list[Any]]) -> Any:
    return OneArray(as_arrow_batch(columns))


def as_dict_of_streams(columns: dict[str, list[Any]]) -> Any:
    """A column with nothing in it among them, which alone can say how long it is."""
    table, batch = as_arrow_slices(columns), as_arrow_batch(columns)
    nothing = pytest.importorskip("pyarrow").nulls(ROWS)
    return {
        **{name: Stream(table.column(name)) for name in table.column_names},
        "kind": OneArray(batch.column("kind")),
        "topics": OneArray(batch.column("topics")),
        "nothing": OneArray(nothing),
    }


def as_stream(columns: dict[str, list[Any]]) -> Any:
    return Stream(as_arrow_slices(columns))


def as_polars_stream(columns: dict[str, list[Any]]) -> Any:
    return Stream(as_polars_categories(columns))


SOURCES: dict[str, Source] = {
    "lists": lambda columns: columns,
    "NumPy": as_numpy,
    "other Python": as_python,
    "pandas": as_pandas,
    "pandas nullable": as_pandas_nullable,
    "pandas categories": as_pandas_categories,
    "series": as_dict_of_series,
    "polars": as_polars,
    "polars categories": as_polars_categories,
    "polars series": as_dict_of_polars,
    "Arrow": as_arrow,
    "Arrow large": as_arrow_large,
    "Arrow batch": as_arrow_batch,
    "Arrow slices": as_arrow_slices,
    "Arrow arrays": as_dict_of_arrow,
    "stream": as_stream,
    "one array": as_one_array,
    "streams": as_dict_of_streams,
    "polars stream": as_polars_stream,
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_agree(source: str) -> None:
    given = SOURCES[source](ATTRIBUTES)
    index, table = ann.Index(4), Table()
    index.add(VECTORS, attributes=given)
    table.add(VECTORS, attributes=ATTRIBUTES)
    for tree in TREES:
        assert index.count(expression(tree)) == table.count(tree), tree


@pytest.mark.parametrize("second", ["Arrow large", "polars", "pandas nullable", "lists"])
@pytest.mark.parametrize("first", ["Arrow", "pandas", "NumPy"])
def test_sources_follow_one_another(first: str, second: str) -> None:
    columns = {name: values for name, values in ATTRIBUTES.items() if name != "level"}
    index, table = ann.Index(4), Table()
    swapped = {
        **columns,
        "kind": [None if v is None else v + "!" for v in columns["kind"]],
        "topics": [None if v is None else [*v, "more"] for v in columns["topics"]],
    }
    for source, values in ((first, columns), (second, swapped)):
        whole = SOURCES[source]({**values, "level": ATTRIBUTES["level"]})
        given = {name: _column(whole, name) for name in columns}
        index.add(VECTORS, attributes=given)
        table.add(VECTORS, attributes=values)
    for tree in [
        *[tree for tree in TREES if tree[1] != "level"],
        ("isin", "kind", ["a", "a!"]),
        ("contains_all", "topics", ["more", "nlp"]),
    ]:
        assert index.count(expression(tree)) == table.count(tree), tree


def _column(table: Any, name: str) -> Any:
    return table.column(name) if hasattr(table, "column_names") else table[name]


def test_a_range_is_a_column() -> None:
    index = ann.Index(4)
    index.add(VECTORS, attributes={"n": range(ROWS)})
    assert index.count(ann.field("n") < 40) == 40


def test_signed_zeros_and_infinities() -> None:
    given = [-0.0, 0.0, float("inf"), float("-inf"), float("nan"), 5e-324] * 60
    index, table = ann.Index(4), Table()
    with early_builds():
        for target in (index, table):
            target.add(np.resize(VECTORS, (360, 4)), attributes={"x": given})
    for value in (0.0, -0.0, 5e-324, float("inf"), float("-inf"), 0):
        for name in ("==", "!=", "<", "<=", ">", ">="):
            tree = (name, "x", value)
            assert index.count(expression(tree)) == table.count(tree), tree
    assert index.count(ann.field("x").isin([-0.0])) == 120


def test_columns_that_come_and_go() -> None:
    index, table = ann.Index(4), Table()
    for columns in ({"a": [1, 2, 3]}, {"b": ["x", None, "y"]}, None, {"a": [4, 5, None]}):
        index.add(VECTORS[:3], attributes=columns)
        table.add(VECTORS[:3], attributes=columns)
    trees = [("is_null", "a"), ("is_null", "b"), ("<", "a", 5), ("!=", "b", "x")]
    for tree in trees:
        assert index.count(expression(tree)) == table.count(tree)


def test_integers_may_follow_numbers_in_a_column_of_numbers() -> None:
    index = ann.Index(4)
    index.add(VECTORS[:3], attributes={"a": [0.5, 1.5, None]})
    index.add(VECTORS[:3], attributes={"a": [1, 2, 3]})
    assert index.count(ann.field("a") > 1) == 3
    assert index.count(ann.field("a").isin([1, 1.5])) == 2


@pytest.mark.parametrize("number", [2, 300, 70_000])
def test_many_categories(number: int) -> None:
    rows = 70_000
    names = [f"name {i % number}" for i in range(rows)]
    tags = [[f"tag {i % number}", f"tag {(i + 1) % number}"] for i in range(rows)]
    index = ann.Index(2)
    index.add(np.ones((rows, 2), np.float32), attributes={"name": names, "tags": tags})
    each = rows // number
    assert index.count(ann.field("name") == "name 1") == names.count("name 1")
    assert index.count(ann.field("name").isin(names[:2])) == 2 * each + 2 * (rows % number > 1)
    assert index.count(ann.field("name").isin(names)) == rows
    assert index.count(ann.field("tags").contains_any(["tag 0"])) == sum("tag 0" in t for t in tags)
    assert index.count(ann.field("tags").contains_all(["tag 0", "tag 1"])) >= each


def test_sets_of_every_kind() -> None:
    index = ann.Index(4)
    tags: list[Any] = [["a", "a"], ("b",), {"a", "b"}, frozenset(), np.array(["a"]), None]
    levels: list[Any] = [[1, 2], np.array([2]), [], (3,), {1}, None]
    flags: list[Any] = [[True], [False, True], [], [], None, [False]]
    index.add(VECTORS[:6], attributes={"tags": tags, "levels": levels, "flags": flags})
    tag, level, flag = (ann.field(name) for name in ("tags", "levels", "flags"))
    assert index.count(tag.contains("a")) == 3
    assert index.count(tag.contains_all([])) == 5
    assert index.count(level.contains(2)) == 2
    assert index.count(level.contains_any([1, 3])) == 3
    assert index.count(flag.contains(True)) == 2
    assert [index.count(f.is_null()) for f in (tag, level, flag)] == [1, 1, 1]


def test_names_and_labels_in_any_language() -> None:
    index = ann.Index(4)
    labels = ["\u00e9t\u00e9", "\U0001f600", "", "a\0b", "e\u0301te\u0301"]
    index.add(VECTORS[:5], attributes={"\u540d\u524d": labels, "a b\n": [labels] * 5})
    for label in labels:
        assert index.count(ann.field("\u540d\u524d") == label) == 1
        assert index.count(ann.field("a b\n").contains(label)) == 5
