# SPDX-License-Identifier: Apache-2.0
"""Programs of filters back to the Python that makes them, for `repr`."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

_COMPARISONS = {2: "<", 3: "<=", 4: ">", 5: ">="}
_CALLS_OF_MANY = {7: "isin", 9: "contains_any", 10: "contains_all"}
_EQUAL, _BETWEEN, _CONTAINS, _IS_NULL, _AND, _OR, _NOT = 1, 6, 8, 11, 32, 33, 34
_LONGEST = 12  # values of a list that are shown


class _Reader:
    def __init__(self, program: bytes) -> None:
        self._program, self._at = program, 0

    def more(self) -> bool:
        return self._at < len(self._program)

    def number(self, form: str) -> int | float:
        (value,) = struct.unpack_from(form, self._program, self._at)
        self._at += struct.calcsize(form)
        assert isinstance(value, (int, float))
        return value

    def text(self, form: str) -> str:
        length = int(self.number(form))
        self._at += length
        return self._program[self._at - length : self._at].decode("utf-8")

    def value(self) -> str:
        tag = self.number("<B")
        if tag == 1:
            return repr(bool(self.number("<B")))
        if tag == 4:
            return repr(self.text("<I"))
        if tag == 5:
            return f"datetime64({str(np.datetime64(int(self.number('<q')), 'ns'))!r})"
        return repr(self.number("<q" if tag == 2 else "<d"))

    def values(self) -> str:
        listed = [self.value() for _ in range(int(self.number("<I")))]
        if len(listed) > _LONGEST:
            listed[_LONGEST:] = [f"... {len(listed) - _LONGEST} more"]
        return f"[{', '.join(listed)}]"


class _Part(NamedTuple):
    text: str
    tight: bool = True  # needs no parentheses as an operand
    negated: str = ""  # how its negation is written, where that is not ~text

    def operand(self) -> str:
        return self.text if self.tight else f"({self.text})"


def text_of(program: bytes) -> str:
    """Return the expression as Python; long lists are shortened."""
    reader = _Reader(program)
    stack: list[_Part] = []
    while reader.more():
        code = int(reader.number("<B"))
        if code in (_AND, _OR):
            count = int(reader.number("<I"))
            sign = " & " if code == _AND else " | "
            stack[-count:] = [_Part(sign.join(part.operand() for part in stack[-count:]), False)]
        elif code == _NOT:
            part = stack.pop()
            unequal = _Part(part.negated, False)
            stack.append(unequal if part.negated else _Part("~" + part.operand()))
        else:
            stack.append(_leaf(reader, code))
    return stack[0].text


def _leaf(reader: _Reader, code: int) -> _Part:
    column = f"field({reader.text('<H')!r})"
    if code == _IS_NULL:
        return _Part(f"{column}.is_null()")
    if code == _BETWEEN:
        return _Part(f"{column}.between({reader.value()}, {reader.value()})")
    if code in _CALLS_OF_MANY:
        return _Part(f"{column}.{_CALLS_OF_MANY[code]}({reader.values()})")
    value = reader.value()
    if code == _CONTAINS:
        return _Part(f"{column}.contains({value})")
    if code == _EQUAL:
        if value == "True":
            return _Part(column)
        return _Part(f"{column} == {value}", False, f"{column} != {value}")
    return _Part(f"{column} {_COMPARISONS[code]} {value}", False)
