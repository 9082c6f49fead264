# SPDX-License-Identifier: Apache-2.0
"""What the native attribute table refuses: kinds, names, malformed programs."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ann.attribute_model import small_table
from ann.filter_programs import Nanoseconds, encode
from embedcore import _core

DAY = Nanoseconds(5)
VALUES = np.array([1, 2, 3])
TABLE = small_table()

KIND_ERRORS = [
    (
        ("lt", "topics", 1),
        "column 'topics' is a set; '<' needs a number, integer or datetime column",
    ),
    (("le", "word", "a"), "column 'word' is a category; '<=' needs a number, integer or datetime"),
    (("gt", "flag", True), "column 'flag' is a category; '>' needs a number, integer or datetime"),
    (("ge", "level", 5), "column 'level' is a category; '>=' needs a number, integer or datetime"),
    (("between", "word", "a", "b"), "column 'word' is a category; 'between' needs a number"),
    (("lt", "word", "a"), "; use == or isin"),
    (("eq", "topics", "x"), "column 'topics' is a set; '==' needs a category, number, integer or"),
    (("isin", "topics", ["x"]), "; use contains, contains_any or contains_all"),
    (("contains", "year", 1), "column 'year' is an integer column; 'contains' needs a set column"),
    (
        ("contains_any", "price", [1]),
        "column 'price' is a number column; 'contains_any' needs a set",
    ),
    (("contains_all", "day", [1]), "column 'day' is a datetime column; 'contains_all' needs a set"),
    (
        ("contains", "word", "a"),
        "column 'word' is a category; 'contains' needs a set column; use ==",
    ),
    (("eq", "word", 1), "column 'word' holds strings; got the integer 1"),
    (("eq", "word", True), "column 'word' holds strings; got the boolean True"),
    (("isin", "word", ["a", 1.5]), "column 'word' holds strings; got the number 1.5"),
    (("eq", "flag", 1), "column 'flag' holds booleans; got the integer 1"),
    (("eq", "level", "5"), "column 'level' holds integers; got the string '5'"),
    (("eq", "level", False), "column 'level' holds integers; got the boolean False"),
    (("eq", "year", True), "column 'year' holds integers; got the boolean True"),
    (("lt", "year", "2"), "column 'year' holds integers; got the string '2'"),
    (("lt", "year", DAY), "column 'year' holds integers; got a datetime"),
    (("between", "price", 1, "2"), "column 'price' holds numbers; got the string '2'"),
    (("isin", "price", [True]), "column 'price' holds numbers; got the boolean True"),
    (("lt", "day", 5), "column 'day' holds datetimes; got the integer 5"),
    (("eq", "day", 5.0), "column 'day' holds datetimes; got the number 5"),
    (("contains", "topics", 7), "column 'topics' holds strings; got the integer 7"),
    (("contains_all", "topics", ["x", 7]), "column 'topics' holds strings; got the integer 7"),
]


@pytest.mark.parametrize(("filter_", "words"), KIND_ERRORS, ids=lambda x: str(x)[:40])
def test_operations_and_values_that_do_not_suit_their_column(filter_: Any, words: str) -> None:
    for program in (encode(filter_), encode(("and", ("all",), ("not", filter_)))):
        with pytest.raises(TypeError, match=re.escape(words)):
            TABLE.evaluate([encode(("none",)), program], None, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yaer", "column 'yaer' is unknown; did you mean 'year'?"),
        ("Topic", "column 'Topic' is unknown; did you mean 'topics'?"),
        ("zzzzz", "column 'zzzzz' is unknown; the columns are 'word', 'flag', 'level', 'year'"),
        ("", "column '' is unknown; the columns are "),
        ("\n", r"column '\x0a' is unknown"),
        ("x" * 3000, f"column '{'x' * 60}...' is unknown"),
    ],
)
def test_unknown_columns(name: str, words: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        TABLE.evaluate([encode(("eq", name, 1))], None, 1)


def test_unknown_columns_where_there_are_none_and_many() -> None:
    with pytest.raises(ValueError, match="column 'a' is unknown; there are no columns"):
        _core.AnnTable().evaluate([encode(("eq", "a", 1))], None, 1)
    many = {f"column{i}": ("integer", np.zeros(1, np.int64), None) for i in range(30)}
    with pytest.raises(ValueError, match="'zz' is unknown; some of the columns are 'column0', "):
        _core.AnnTable().append(1, many).evaluate([encode(("eq", "zz", 1))], None, 1)


ALL = encode(("all",))
MALFORMED = [
    (b"", "they leave 0 results where one is needed"),
    (ALL + ALL, "they leave 2 results where one is needed"),
    (b"\x22", "an operation takes 1 results of 0"),
    (ALL + b"\x20" + struct.pack("<I", 2), "an operation takes 2 results of 1"),
    (ALL + b"\x21" + struct.pack("<I", 0), "an operation takes 0 results of 1"),
    (ALL + b"\x21\1", "they end early"),
    (b"\x63", "there is no operation 99"),
    (b"\0", "there is no operation 0"),
    (b"\1", "they end early"),
    (b"\1\4\0year", "they end early"),
    (b"\1\4\0year\x09\0", "a value has the tag 9"),
    (b"\1\4\0year\2\0\0", "they end early"),
    (b"\1\4\0word\4\xff\xff\xff\xff", "they end early"),
    (b"\7\4\0year\xff\xff\xff\xff\2", "they end early"),
]


@pytest.mark.parametrize(("program", "words"), MALFORMED)
def test_malformed_programs(program: bytes, words: str) -> None:
    with pytest.raises(ValueError, match="the bytes of the filter are malformed: " + words):
        TABLE.evaluate([program], None, 1)


def test_names_that_are_no_text() -> None:
    with pytest.raises(ValueError, match=re.escape(r"column '\xff\xc0\x80' is unknown")):
        TABLE.evaluate([b"\1\3\0\xff\xc0\x80\2" + bytes(8)], None, 1)
    with pytest.raises(TypeError, match=re.escape(r"got the string '\xed\xa0\x80'")):
        TABLE.evaluate([b"\1\4\0year\4\3\0\0\0\xed\xa0\x80"], None, 1)


def test_depth_and_length_have_an_end() -> None:
    deep = ALL + b"\x22" * 199
    assert TABLE.evaluate([deep], None, 1).counts().tolist() == [0]
    with pytest.raises(ValueError, match="a filter may be nested 200 deep at most"):
        TABLE.evaluate([deep + b"\x22"], None, 1)
    leaf = encode(("eq", "year", 2))
    nested = leaf + (leaf + b"\x20\2\0\0\0") * 199
    assert TABLE.evaluate([nested], None, 1).slots(0).tolist() == [1]
    with pytest.raises(ValueError, match="a filter may have 16777216 bytes at most; got 16777217"):
        TABLE.evaluate([bytes(16 * 2**20 + 1)], None, 1)


def test_the_first_wrong_program_of_a_batch_is_told(thread_count: int) -> None:
    programs = [encode(("eq", "year", i)) for i in range(3000)]
    programs[1000] = encode(("eq", "first", 1))
    programs[2000] = encode(("eq", "second", 1))
    with pytest.raises(ValueError, match="'first'"):
        TABLE.evaluate(programs, None, thread_count)


def evaluate(programs: Any, live: Any = None) -> None:
    TABLE.evaluate(programs, live, 1)


def append(rows: int, **columns: Any) -> None:
    TABLE.append(rows, columns)


def update(slots: Any, **columns: Any) -> None:
    TABLE.update(slots, columns)


def integers(*values: int) -> tuple[Any, ...]:
    return ("integer", np.array(values, np.int64), None)


def category(codes: Any, labels: Any) -> tuple[Any, ...]:
    return ("category", np.array(codes, np.int32), labels)


def sets(offsets: Any, codes: Any, labels: Any, nulls: Any = None) -> tuple[Any, ...]:
    return ("set", np.array(offsets, np.int64), np.array(codes, np.int32), labels, nulls)


CALLS: list[tuple[Callable[[], None], type[Exception], str]] = [
    (lambda: evaluate((b"0",)), TypeError, "programs must be a list of bytes; got tuple"),
    (lambda: evaluate(["0"]), TypeError, "programs must be bytes; got str"),
    (
        lambda: evaluate([ALL], np.zeros(2, np.uint64)),
        ValueError,
        "live must have 1 words for 3 rows",
    ),
    (
        lambda: evaluate([ALL], np.zeros(1, np.int64)),
        TypeError,
        "live must have dtype uint64; got int64",
    ),
    (lambda: append(-1), ValueError, "a table cannot grow by -1 rows"),
    (
        lambda: append(2**32),
        ValueError,
        "a table has room for 4294967295 rows; got 3 and 4294967296",
    ),
    (lambda: append(2, year=integers(1)), ValueError, "column 'year' must have 2 rows; got 1"),
    (
        lambda: append(1, year=category([0], ["a"])),
        TypeError,
        "column 'year' is an integer column; got",
    ),
    (
        lambda: append(1, day=integers(1)),
        TypeError,
        "'day' is a datetime column; got values of kind int",
    ),
    (
        lambda: append(1, word=integers(1)),
        TypeError,
        "column 'word' is a category; got values of kind",
    ),
    (
        lambda: append(1, word=category([0], [1])),
        TypeError,
        "column 'word' holds strings; got integers",
    ),
    (lambda: append(1, flag=category([0], ["a"])), TypeError, "'flag' holds booleans; got strings"),
    (
        lambda: append(1, word=category([1], ["a"])),
        ValueError,
        "'word' has the code 1 in row 0, but 1 la",
    ),
    (lambda: append(1, word=category([-2], ["a"])), ValueError, "has the code -2 in row 0"),
    (
        lambda: append(1, word=category([0], [])),
        ValueError,
        "has the code 0 in row 0, but 0 labels",
    ),
    (lambda: append(1, word=category([0], ["a", 1])), TypeError, "all of one kind; got int"),
    (lambda: append(1, word=category([0], [1.5])), TypeError, "all of one kind; got float"),
    (lambda: append(1, word=category([0], ("a", None))), TypeError, "one kind; got NoneType"),
    (lambda: append(1, word=category([0], {"a"})), TypeError, "labels must be a list; got set"),
    (lambda: append(1, level=category([0], [2**63])), ValueError, "integer labels must fit int64"),
    (
        lambda: append(1, topics=sets([0, 2], [0], ["x"])),
        ValueError,
        "ascending offsets from 0 to 1",
    ),
    (
        lambda: append(1, topics=sets([-1, 1], [0], ["x"])),
        ValueError,
        "ascending offsets from 0 to 1",
    ),
    (
        lambda: append(1, topics=sets([1, 0], [0], ["x"])),
        ValueError,
        "ascending offsets from 0 to 1",
    ),
    (lambda: append(1, topics=sets([0, 1], [-1], ["x"])), ValueError, "has the code -1 in row 0"),
    (lambda: append(1, topics=sets([], [], [])), ValueError, "offsets must have one number more"),
    (
        lambda: append(1, topics=sets([0, 0], [], [], np.zeros(2, bool))),
        ValueError,
        "column 'topics': nulls must have 1 values; got 2",
    ),
    (
        lambda: append(1, new=("category", [0], ["a"])),
        TypeError,
        "codes must be a NumPy array of int32",
    ),
    (
        lambda: append(1, new=("integer", np.zeros(1), None)),
        TypeError,
        "values must have dtype int64; got",
    ),
    (
        lambda: append(1, new=("number", np.zeros((1, 1)), None)),
        ValueError,
        "values must have one axis",
    ),
    (lambda: append(1, new=("other", VALUES, None)), TypeError, "column 'new' must be a tuple"),
    (lambda: append(1, new=(1, VALUES, None)), TypeError, "column 'new' must be a tuple"),
    (lambda: append(1, new=("integer", VALUES)), TypeError, "column 'new' must be a tuple"),
    (lambda: append(1, new="integer"), TypeError, "column 'new' must be a tuple"),
    (
        lambda: TABLE.append(0, {1: integers()}),
        TypeError,
        "columns must have strings for names; got int",
    ),
    (
        lambda: update(np.array([3]), year=integers(1)),
        ValueError,
        "slot 3 is out of range: there are 3",
    ),
    (lambda: update(np.array([-1]), year=integers(1)), ValueError, "slot -1 is out of range"),
    (
        lambda: update(np.array([0, 1]), year=integers(1)),
        ValueError,
        "'year' must have 2 rows; got 1",
    ),
    (lambda: TABLE.take(np.array([0, 3])), ValueError, "slot 3 is out of range"),
    (lambda: TABLE.values("nope", VALUES), ValueError, "column 'nope' is unknown"),
    (lambda: TABLE.values("year", VALUES), ValueError, "slot 3 is out of range"),
    (
        lambda: _core.AnnFilters.from_masks([np.zeros(3, bool), np.zeros(4, bool)], None),
        ValueError,
        "masks must have equally many rows; got 3 and 4",
    ),
    (lambda: _core.AnnFilters.from_masks([VALUES], None), TypeError, "masks must have dtype bool"),
    (lambda: _core.AnnFilters.from_slots([VALUES], 3, None), ValueError, "slot 3 is out of range"),
    (
        lambda: _core.AnnFilters.from_slots([-VALUES], 3, None),
        ValueError,
        "slot -1 is out of range",
    ),
    (lambda: _core.AnnFilters.from_slots([], -1, None), ValueError, "rows must be from 0 to"),
    (
        lambda: _core.AnnFilters.from_masks([], None).mask(0),
        ValueError,
        "of 0 filters has no number 0",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "words"), CALLS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_refused_calls(call: Callable[[], None], error: type[Exception], words: str) -> None:
    before = TABLE.evaluate([ALL], None, 1).counts()
    with pytest.raises(error, match=re.escape(words)):
        call()
    assert TABLE.evaluate([ALL], None, 1).counts() == before


def test_values_unknown_to_the_labels_match_nothing() -> None:
    filters = [("eq", "word", "zz"), ("isin", "flag", []), ("contains", "topics", "zz")]
    filters += [("eq", "level", 5.5), ("eq", "level", float("nan")), ("eq", "level", 2.0**80)]
    filters += [("contains_all", "topics", ["x", "zz"]), ("contains_any", "topics", ["zz"])]
    assert not TABLE.evaluate([encode(f) for f in filters], None, 1).counts().any()
    assert TABLE.evaluate([encode(("eq", "level", 5.0))], None, 1).counts().tolist() == [1]
