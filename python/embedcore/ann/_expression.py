# SPDX-License-Identifier: Apache-2.0
"""Filter expressions: `field("year") >= 2020` and what `&`, `|` and `~` make of such conditions.

An expression is its program: bytes in postfix order that native code evaluates, made while the
expression is written, so that a search has nothing left to translate. A leaf is an opcode, the
name of the column (length as uint16, UTF-8) and its operands; `_literals` says how values look.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

from . import _literals
from ._literals import encode, encode_many

EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
BETWEEN, IS_IN, CONTAINS, CONTAINS_ANY, CONTAINS_ALL = b"\x06", b"\x07", b"\x08", b"\x09", b"\x0a"
IS_NULL = b"\x0b"
AND, OR, NOT = 32, 33, 34

_NOT = bytes([NOT])
_node = struct.Struct("<BI").pack
_length = struct.Struct("<H").pack


class Expression:
    """A condition on the attributes of rows; made with :func:`field`, combined with ``& | ~``.

    Conditions have two values: a comparison with a missing attribute is False, and its negation is
    therefore True, so ``field("year") != 2020`` and ``~(field("year") == 2020)`` pass rows without
    a year. Add ``& ~field("year").is_null()`` to leave those out.

    Expressions are immutable and belong to no index. They cannot be used as truth values, which is
    what ``and``, ``or``, ``not`` and chained comparisons like ``1 < field("x") < 5`` would do.

    Examples
    --------
    >>> from embedcore.ann import field
    >>> field("year").between(2019, 2021) & field("topics").contains("nlp") | ~field("draft")
    (field('year').between(2019, 2021) & field('topics').contains('nlp')) | ~field('draft')
    """

    __slots__ = ("_arity", "_program", "_top")

    # Attributes of the program: its last operation, AND, OR or 0 for another, and how many operands
    # that has. Chains of one operation are kept flat, so that thousands of terms are no deep tree.
    _program: bytes
    _top: int
    _arity: int

    def __and__(self, other: Expression) -> Expression:
        return _combined(AND, "&", self, other)

    def __or__(self, other: Expression) -> Expression:
        return _combined(OR, "|", self, other)

    def __rand__(self, other: object) -> NoReturn:
        _refuse_operand("&", other)

    def __ror__(self, other: object) -> NoReturn:
        _refuse_operand("|", other)

    def __invert__(self) -> Expression:
        return _leaf(self._program + _NOT)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "ann.Expression: an expression has no truth value; use & | ~ instead of and, or, not, "
            "with parentheses around comparisons, and between() instead of a < field < b."
        )

    def equals(self, other: object) -> bool:
        """Tell whether `other` is the same expression, written the same way.

        ``==`` cannot do this: on a field it makes a condition.
        """
        return isinstance(other, Expression) and self._program == other._program

    def __repr__(self) -> str:
        from ._expression_text import text_of  # rarely wanted

        return text_of(self._program)


class Field(Expression):
    """A column of the attributes; comparisons with it are expressions. Made by :func:`field`.

    On its own it stands for ``field(name) == True``.
    """

    __slots__ = ("_head", "name")

    name: str
    _head: bytes

    def __eq__(self, value: object) -> Expression:  # type: ignore[override]
        return self._compare(EQUAL, "==", value)

    def __ne__(self, value: object) -> Expression:  # type: ignore[override]
        return _leaf(self._compare(EQUAL, "!=", value)._program + _NOT)

    def __lt__(self, value: object) -> Expression:
        return self._compare(LESS, "<", value)

    def __le__(self, value: object) -> Expression:
        return self._compare(LESS_EQUAL, "<=", value)

    def __gt__(self, value: object) -> Expression:
        return self._compare(GREATER, ">", value)

    def __ge__(self, value: object) -> Expression:
        return self._compare(GREATER_EQUAL, ">=", value)

    def __hash__(self) -> int:
        return hash(self.name)

    def between(self, low: object, high: object) -> Expression:
        """Pass values from `low` to `high`, both included; numbers and points in time.

        Parameters
        ----------
        low, high : int, float, date, datetime or datetime64
            The bounds; none passes where `low` is above `high`.
        """
        where = self._where("between")
        return _leaf(BETWEEN + self._head + encode(where, low) + encode(where, high))

    def isin(self, values: Any) -> Expression:
        """Pass values that are one of `values`; every kind of column but sets.

        Parameters
        ----------
        values : iterable
            List, set, array or series of values; none passes where it is empty. Values that the
            column does not have match nothing.
        """
        return _leaf(IS_IN + self._head + encode_many(self._where("isin"), values))

    def contains(self, value: object) -> Expression:
        """Pass sets that have `value` as a member."""
        return _leaf(CONTAINS + self._head + encode(self._where("contains"), value))

    def contains_any(self, values: Any) -> Expression:
        """Pass sets that have at least one of `values`; none has where `values` is empty."""
        where = self._where("contains_any")
        return _leaf(CONTAINS_ANY + self._head + encode_many(where, values))

    def contains_all(self, values: Any) -> Expression:
        """Pass sets that have all of `values`; where `values` is empty, all sets that are there."""
        where = self._where("contains_all")
        return _leaf(CONTAINS_ALL + self._head + encode_many(where, values))

    def is_null(self) -> Expression:
        """Pass rows where the attribute is missing. An empty set is not missing."""
        return _leaf(IS_NULL + self._head)

    def _compare(self, code: bytes, sign: str, value: object) -> Expression:
        encoder = _literals.ENCODERS.get(type(value))
        if encoder is None:
            return _leaf(code + self._head + encode(self._where(sign), value))
        try:
            return _leaf(code + self._head + encoder(value))
        except ValueError:
            return _leaf(code + self._head + encode(self._where(sign), value))  # says where

    def _where(self, operation: str) -> str:
        return f"ann.field({self.name!r}) {operation}"


def field(name: str) -> Field:
    """Name a column of the attributes, to write conditions on it.

    Parameters
    ----------
    name : str
        The column; whether an index has it is found out when the index evaluates the expression.

    Returns
    -------
    Field
        Takes ``== != < <= > >=``, ``isin``, ``between``, ``contains``, ``contains_any``,
        ``contains_all`` and ``is_null``; on its own it is ``field(name) == True``. Dates stand for
        their midnight, datetimes without a time zone for UTC.

    Raises
    ------
    TypeError
        If `name` is not a string, or a value is of no kind that columns hold.
    ValueError
        If `name` is empty, no Unicode, or longer than 65535 bytes of UTF-8; if a value is NaN or
        NaT.

    Notes
    -----
    Booleans, strings and integers given as categories take ``==``, ``!=`` and ``isin``; integers,
    numbers and points in time also ``<``, ``<=``, ``>``, ``>=`` and ``between``; sets take the
    three forms of ``contains``. All take ``is_null``. Where a column is of another kind than the
    condition needs, the index raises TypeError.

    Examples
    --------
    >>> from embedcore.ann import field
    >>> (field("year") >= 2020) & field("language").isin(["en", "de"])
    (field('year') >= 2020) & field('language').isin(['en', 'de'])
    """
    if not isinstance(name, str):
        raise TypeError(f"ann.field: 'name' must be a string; got {type(name).__name__}.")
    try:
        data = name.encode("utf-8")
    except UnicodeEncodeError:  # halves of a pair
        raise ValueError(f"ann.field: 'name' must be text in Unicode; got {name!r}.") from None
    if not 1 <= len(data) <= 0xFFFF:
        raise ValueError(f"ann.field: 'name' must have 1 to 65535 bytes of UTF-8; got {len(data)}.")
    made = Field.__new__(Field)
    made.name = name
    made._head = _length(len(data)) + data
    made._program = EQUAL + made._head + _literals.TRUE
    made._top = made._arity = 0
    return made


def _leaf(program: bytes) -> Expression:
    made = Expression.__new__(Expression)
    made._program = program
    made._top = made._arity = 0
    return made


def _combined(operation: int, sign: str, left: Expression, right: object) -> Expression:
    if not isinstance(right, Expression):
        _refuse_operand(sign, right)
    made = Expression.__new__(Expression)
    body, arity = b"", 0
    for part in (left, right):
        if part._top == operation:
            body, arity = body + part._program[:-5], arity + part._arity
        else:
            body, arity = body + part._program, arity + 1
    made._program = body + _node(operation, arity)
    made._top, made._arity = operation, arity
    return made


def _refuse_operand(sign: str, operand: object) -> NoReturn:
    raise TypeError(
        f"ann.Expression: both sides of '{sign}' must be expressions; got "
        f"{type(operand).__name__}. Put comparisons in parentheses: "
        f"(field('a') == 1) {sign} (field('b') == 2)."
    )
