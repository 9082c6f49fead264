# SPDX-License-Identifier: Apache-2.0
"""Filter programs and saved attribute tables with flipped, lost and added bytes."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import numpy as np
import pytest
from ann.attribute_model import KINDS, Model, random_filter, small_table
from ann.filter_programs import encode
from embedcore import _core
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = list(KINDS)
TABLE = small_table()
MODEL = Model.empty().append(1500, NAMES, np.random.default_rng(0))


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_changed_programs_do_no_harm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        program = bytearray(encode(random_filter(NAMES, rng)))
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(program)))
            change = rng.integers(3)
            if change == 0:
                program[at] = int(rng.integers(256))
            elif change == 1:
                del program[at:]
            else:
                program[at:at] = rng.bytes(3)
            program = program or bytearray(b"\0")
        try:
            found = MODEL.table.evaluate([bytes(program)], None, 1)
        except (ValueError, TypeError):
            continue
        assert found.mask(0).sum() == found.counts()[0]


@settings(max_examples=100, deadline=None)
@given(program=st.binary(max_size=200))
def test_any_bytes_do_no_harm(program: bytes) -> None:
    with contextlib.suppress(ValueError, TypeError):
        MODEL.table.evaluate([program], None, 1)


def parts_of(table: Any) -> dict[str, Any]:
    return {name: np.array(part) for name, part in table.parts().items()}


def damage(parts: dict[str, Any], rng: np.random.Generator) -> None:
    """Flip a bit, cut or lengthen a part, leave it out, or give it another dtype."""
    name = str(rng.choice(list(parts)))
    part = parts[name]
    change = rng.integers(6)
    if change <= 2 and part.size:
        raw = bytearray(part.tobytes())
        at = int(rng.integers(len(raw)))
        raw[at] ^= 1 << int(rng.integers(8))
        parts[name] = np.frombuffer(bytes(raw), part.dtype)
    elif change == 3:
        parts[name] = part[: int(rng.integers(part.size + 1))]
    elif change == 4:
        parts[name] = np.concatenate([part, part[:1]])
    elif rng.random() < 0.5:
        del parts[name]
    else:
        parts[name] = part.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_parts_are_refused_or_sound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = Model.empty().append(int(rng.choice([0, 1, 20, 200])), NAMES, rng).table
    parts = parts_of(table)
    for _ in range(rng.integers(1, 3)):
        damage(parts, rng)
    try:
        opened = _core.AnnTable.from_parts(parts, None)
    except ValueError:
        return
    names = [name for name, _, _ in opened.schema() if name in KINDS]
    slots = np.arange(opened.rows)
    for name, _, _ in opened.schema():
        opened.values(name, slots)
    for _ in range(5):
        try:
            found = opened.evaluate([encode(random_filter(names, rng))], None, 1)
        except (ValueError, TypeError):  # a damaged header may name another kind that fits as well
            continue
        assert found.mask(0).sum() == found.counts()[0]
    opened.take(slots[::-1].copy()).append(1, {}).update(slots[:1], {})


PART_ERRORS: list[tuple[str, Any, str]] = [
    ("table", np.array([9, 3, 7]), "part 'table' must be of version 1; got 9"),
    ("table", np.array([1, 3]), "part 'table' must have 3 numbers; got 2"),
    ("table", np.array([1, 3, 2**40]), "part 'table' must name from 0 to 1048576 columns"),
    ("table", np.array([1, 3, 8]), "part '7.kind' must have 2 numbers; got 0"),
    ("table", np.array([1, 2**40, 7]), "a table has from 0 to 4294967295 rows"),
    ("table", np.array([1, 4, 7]), "column 'word' must have one code for each row"),
    ("0.codes", np.array([0, 2, 0], np.int32), "must have codes that its labels have"),
    ("0.codes", np.array([0, -2, 0], np.int32), "must have codes that its labels have"),
    ("0.codes", np.zeros(3, np.int64), "part '0.codes' must be an array of one axis and its dtype"),
    ("0.kind", np.array([6, 1]), "part '0.kind' must name a kind of column and one of labels"),
    ("0.kind", np.array([1, 2]), "labels must be of one kind"),
    ("0.kind", np.array([5, 1]), "must have offsets from 0 to the number of its codes"),
    ("0.name", np.array([255], np.uint8), r"column '\xff' must have a name in UTF-8"),
    ("0.name", np.frombuffer(b"flag", np.uint8), "column 'flag' is there twice"),
    (
        "0.label_bytes",
        np.frombuffer(b"aa", np.uint8),
        "label 1 must be another than those before it",
    ),
    ("0.label_bytes", np.frombuffer(b"a\xff", np.uint8), "label 1 must be UTF-8"),
    (
        "0.label_bytes",
        np.frombuffer(b"abc", np.uint8),
        "labels must end with the last of their bytes",
    ),
    ("0.label_ends", np.array([2, 1]), "the ends of labels must ascend within their bytes"),
    ("0.nulls", np.zeros(3, np.uint8), "must have no null marks, being a category"),
    ("0.offsets", np.zeros(4, np.int64), "must have no offsets unless it is a set"),
    ("1.label_numbers", np.array([1, 2]), "boolean labels must be 0 or 1"),
    ("3.keys", np.zeros(2, np.int64), "column 'year' must have one value for each row"),
    ("3.nulls", np.array([0, 1, 0], np.uint8), "must have the key 0 in null rows"),
    ("3.nulls", np.array([0, 2, 0], np.uint8), "must have null marks of 0 or 1"),
    ("3.nulls", np.zeros(2, np.uint8), "must have one null mark for each row"),
    ("3.codes", np.zeros(3, np.int32), "must have codes or numbers, as its kind has"),
    ("4.keys", np.array([0, 0, 2**63 - 1]), "must have keys of numbers other than NaN and -0.0"),
    ("4.keys", np.array([0, 0, -1]), "must have keys of numbers other than NaN and -0.0"),
    ("6.offsets", np.array([0, 2, 1, 2]), "must have offsets that ascend"),
    ("6.offsets", np.array([1, 1, 1, 2]), "must have offsets from 0 to the number of its codes"),
    ("6.offsets", np.array([0, 2, 2, 2]), None),
    ("6.codes", np.array([0, 2], np.int32), "must have ascending codes that its labels have"),
    ("6.nulls", np.array([1, 0, 0], np.uint8), "must have no codes in null rows"),
]


@pytest.mark.parametrize(("name", "part", "words"), PART_ERRORS)
def test_parts_that_do_not_fit(name: str, part: Any, words: str | None) -> None:
    parts = {**parts_of(TABLE), name: part}
    if words is None:
        assert _core.AnnTable.from_parts(parts, None).rows == 3
        return
    with pytest.raises(ValueError, match=re.escape(words)):
        _core.AnnTable.from_parts(parts, None)


def test_parts_are_borrowed_and_keep_their_owner() -> None:
    parts = parts_of(TABLE)
    keys = parts["3.keys"]
    opened = _core.AnnTable.from_parts(parts, object())
    del parts
    assert opened.parts()["3.keys"].ctypes.data == keys.ctypes.data
    assert not opened.parts()["3.keys"].flags.writeable
    misaligned = np.frombuffer(b"\0" + keys.tobytes(), np.uint8)[1:].view(np.int64)
    copied = _core.AnnTable.from_parts({**parts_of(TABLE), "3.keys": misaligned}, None)
    assert copied.values("year", np.arange(3))[1].tolist() == [1, 2, 3]
