# SPDX-License-Identifier: Apache-2.0
"""The native attribute table against row-by-row evaluation of random filters over random tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ann.attribute_model import KINDS, Model, random_filter
from ann.filter_programs import Nanoseconds, encode, passing
from embedcore import _core
from hypothesis import given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
NAMES = list(KINDS)
THREADS = (1, 2, 7)


def bitset(mask: Array) -> Array:
    padded = np.zeros(-(-len(mask) // 64) * 64, bool)
    padded[: len(mask)] = mask
    return np.packbits(padded, bitorder="little").view(np.uint64)


def random_live(rows: int, rng: np.random.Generator) -> Array | None:
    share = rng.choice([1.0, 0.9, 0.02])
    return None if share == 1.0 else rng.random(rows) < share


def check(model: Model, filters: list[tuple[Any, ...]], live: Array | None, threads: int) -> None:
    words = None if live is None else bitset(live)
    found = model.table.evaluate([encode(f) for f in filters], words, threads)
    assert len(found) == len(filters)
    for i, filter_ in enumerate(filters):
        want = np.array(passing(filter_, model.columns, model.rows), bool)
        if live is not None:
            want &= live
        np.testing.assert_array_equal(found.mask(i), want, err_msg=str(filter_))
        np.testing.assert_array_equal(found.slots(i), np.flatnonzero(want))
        assert found.counts()[i] == want.sum()


def check_random(model: Model, count: int, threads: int, rng: np.random.Generator) -> None:
    filters = [random_filter(list(model.columns), rng) for _ in range(count)]
    check(model, filters + filters[:2], random_live(model.rows, rng), threads)


def some_names(rng: np.random.Generator) -> list[str]:
    return [name for name in NAMES if rng.random() < 0.8]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), threads=st.sampled_from(THREADS))
def test_small_tables_that_change(seed: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    versions = [Model.empty()]
    for _ in range(5):
        last = versions[int(rng.integers(len(versions)))]  # also versions that others grew from
        action = rng.random()
        if action < 0.6:
            versions.append(last.append(int(rng.choice([0, 1, 7, 64, 200])), some_names(rng), rng))
        elif action < 0.8:
            versions.append(last.update(int(rng.choice([0, 1, 30])), some_names(rng), rng))
        elif action < 0.9:
            versions.append(last.saved())
        else:
            order = rng.permutation(last.rows)[: int(rng.integers(last.rows + 1))]
            versions.append(last.take(order))
    for version in versions:
        check_random(version, 6, threads, rng)


@pytest.mark.parametrize(("seed", "threads"), [(0, 1), (1, 2), (2, 7), (3, 2)])
def test_indexed_tables_that_change(seed: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    model = Model.empty().append(4500, NAMES, rng)
    check_random(model, 12, threads, rng)
    versions = [model]
    for rows, changes in ((300, 0), (0, 200), (64, 40), (900, 10), (1, 1)):
        model = model.append(rows, some_names(rng), rng).update(changes, some_names(rng), rng)
        versions.append(model)
    versions += [model.take(rng.permutation(model.rows)[:3000]), model.saved()]
    for version in versions:
        check_random(version, 6, threads, rng)


def test_appends_of_single_rows_share_memory_and_stay_apart() -> None:
    rng = np.random.default_rng(0)
    first = Model.empty().append(1200, NAMES, rng)
    branches = []
    for start in (first, first):
        model = start
        for _ in range(40):
            model = model.append(1, NAMES, rng)
        branches.append(model)
    for model in (first, *branches):
        check_random(model, 10, 1, rng)


def test_intervals_long_and_short() -> None:
    rng = np.random.default_rng(1)
    rows = 20_000
    values = rng.integers(0, 1000, rows)
    payload = {"year": ("integer", values, None), "price": ("number", values / 8.0, None)}
    table = _core.AnnTable().append(rows, payload)
    bounds = [tuple(sorted(rng.integers(-5, 1005, 2).tolist())) for _ in range(60)]
    bounds += [(0, 999), (0, 400), (600, 999), (5, 5), (-9, -1), (7, 3)]
    filters = [("between", "year", low, high) for low, high in bounds]
    filters += [("between", "price", low / 8.0, high / 8.0) for low, high in bounds]
    found = table.evaluate([encode(f) for f in filters], None, 2)
    for i, (low, high) in enumerate(bounds + bounds):
        want = (values >= low) & (values <= high)
        np.testing.assert_array_equal(found.mask(i), want)


def test_comparisons_of_integers_with_numbers_are_exact() -> None:
    integers = [-(2**63), -(2**53) - 1, -(2**53), -4, -3, 0, 3, 4, 2**53, 2**53 + 1, 2**63 - 1]
    numbers = [float(v) for v in integers] + [3.5, -3.5, -0.0, 5e-324, -5e-324, 1e300, -1e300]
    numbers += [2.0**63, -(2.0**63) - 4096, float("inf"), float("-inf")]
    tests = ("eq", "lt", "le", "gt", "ge")
    for kind, have, operands in (
        ("integer", integers, numbers),
        ("number", numbers, integers),
        ("number", numbers, numbers),
        ("integer", integers, integers),
    ):
        dtype = np.int64 if kind == "integer" else np.float64
        table = _core.AnnTable().append(len(have), {"x": (kind, np.array(have, dtype), None)})
        indexed = table.take(np.arange(len(have)))
        filters = [(test, "x", operand) for test in tests for operand in operands]
        filters += [("isin", "x", operands), ("between", "x", operands[0], operands[4])]
        for version in (table, indexed):
            check(Model(version, {"x": have}, len(have)), filters, None, 1)


def test_not_a_number_matches_nothing() -> None:
    payload = {"x": ("number", np.array([1.0, np.nan]), None)}
    payload |= {"n": ("integer", np.array([1, 2]), None)}
    table = _core.AnnTable().append(2, payload)
    nan = float("nan")
    filters = [(test, name, nan) for test in ("eq", "lt", "le", "gt", "ge") for name in "xn"]
    filters += [("isin", "x", [nan]), ("between", "x", nan, 5), ("between", "n", 0, nan)]
    found = table.evaluate([encode(f) for f in filters], None, 1)
    assert not found.counts().any()
    negated = table.evaluate([encode(("not", f)) for f in filters], None, 1)
    assert (negated.counts() == 2).all()


def test_nulls_pass_no_comparison_but_its_negation() -> None:
    table = _core.AnnTable().append(
        3, {"s": ("category", np.array([0, -1, 1], np.int32), ["a", "b"])}
    )
    filters = [("eq", "s", "a"), ("not", ("eq", "s", "a")), ("is_null", "s")]
    filters += [("and", ("not", ("eq", "s", "a")), ("not", ("is_null", "s")))]
    found = table.evaluate([encode(f) for f in filters], None, 1)
    assert [found.slots(i).tolist() for i in range(4)] == [[0], [1, 2], [1], [2]]


def test_many_categories_and_a_long_list_of_values() -> None:
    count = 150_000
    labels = [f"label {i}" for i in range(count)]
    order = np.random.default_rng(2).permutation(count).astype(np.int32)
    columns = {"s": ("category", order, labels), "n": ("integer", order.astype(np.int64), None)}
    table = _core.AnnTable().append(count, columns)
    assert table.schema() == [("s", "category", count), ("n", "integer", 0)]
    wanted = [*range(0, count, 2), *range(count, 700_000)]
    filters = [("isin", "s", [f"label {i}" for i in wanted]), ("isin", "n", wanted)]
    filters += [("eq", "s", "label 77"), ("and", ("lt", "n", 1000), filters[1])]
    found = table.evaluate([encode(f) for f in filters], None, 1)
    np.testing.assert_array_equal(found.mask(0), order % 2 == 0)
    np.testing.assert_array_equal(found.mask(1), order % 2 == 0)
    assert found.slots(2).tolist() == np.flatnonzero(order == 77).tolist()
    np.testing.assert_array_equal(found.mask(3), (order % 2 == 0) & (order < 1000))


def test_values_come_back() -> None:
    rng = np.random.default_rng(3)
    model = Model.empty().append(500, NAMES, rng)
    slots = rng.integers(0, 500, 60)
    for name, kind in KINDS.items():
        got = model.table.values(name, slots)
        want = [model.columns[name][slot] for slot in slots]
        assert got[0] == kind
        if kind == "category":
            labels = [*got[2], None]
            assert [labels[code] for code in got[1]] == want
        elif kind == "set":
            nulls = np.zeros(60, bool) if got[4] is None else got[4]
            rows = [
                {got[3][c] for c in got[2][a:b]} for a, b in zip(got[1], got[1][1:], strict=False)
            ]
            assert [None if null else row for null, row in zip(nulls, rows, strict=True)] == want
        elif kind == "number":
            assert [None if np.isnan(v) else v for v in got[1]] == want
        else:
            assert [None if n else v for v, n in zip(got[1], got[2], strict=True)] == want


def test_equal_filters_are_one_set_and_batches_join() -> None:
    payload = {"day": ("datetime", np.arange(10), None)}
    table = _core.AnnTable().append(10, payload)
    program = encode(("lt", "day", Nanoseconds(4)))
    found = table.evaluate([program, program, encode(("all",))], None, 1)
    joined = _core.AnnFilters.concatenate([found, found])
    assert len(joined) == 6
    assert joined.counts().tolist() == [4, 4, 10] * 2
    with pytest.raises(ValueError, match="filters over 10 and 3 rows cannot be one batch"):
        _core.AnnFilters.concatenate([found, _core.AnnFilters.from_slots([], 3, None)])


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 63, 64, 65, 1000, 5000])
def test_masks_and_slots_as_filters(rows: int) -> None:
    rng = np.random.default_rng(rows)
    for share in (0.0, 0.001, 0.03, 0.5, 1.0):
        mask = rng.random(rows) < share
        for live in (None, rng.random(rows) < 0.7):
            want = mask if live is None else mask & live
            words = None if live is None else bitset(live)
            slots = rng.permutation(np.repeat(np.flatnonzero(mask), 2))
            for found in (
                _core.AnnFilters.from_masks([mask, mask], words),
                _core.AnnFilters.from_slots([slots, slots], rows, words),
            ):
                np.testing.assert_array_equal(found.mask(1), want)
                np.testing.assert_array_equal(found.slots(0), np.flatnonzero(want))


def test_no_columns_and_no_rows() -> None:
    empty = _core.AnnTable()
    assert empty.evaluate([], None, 1).counts().tolist() == []
    assert empty.evaluate([encode(("all",))], None, 1).counts().tolist() == [0]
    bare = empty.append(70, {})
    assert bare.evaluate([encode(("all",)), encode(("none",))], None, 2).counts().tolist() == [
        70,
        0,
    ]
    nothing = empty.append(0, {"s": ("category", np.zeros(0, np.int32), [])})
    assert nothing.schema() == [("s", "category", 0)]
    later = nothing.append(2, {"s": ("category", np.array([0, 0], np.int32), [True])})
    assert later.evaluate([encode(("eq", "s", True))], None, 1).counts().tolist() == [2]
