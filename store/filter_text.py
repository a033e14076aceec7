"""Comparing many texts with one, in time proportional to their length: no pattern can make it hang.

SQL's LIKE: `%` is any text, `_` is one character (also a line break), the whole text must fit, and there is no escape.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from mltrack.store.column_types import BoolArray, Text, number_in
from mltrack.store.filter_tree import Written

_CASELESS = frozenset(("true", "false", "none", "null"))
_LARGEST_EXACT = 2.0**53


def equal(column: Text, value: Written, loose: bool) -> BoolArray:
    """For each distinct value of the column: whether it is this one.

    With `loose` (params and tags) a value without quotes that spells a number equals every spelling of it (`1e-3` and
    `0.001`), and `true`, `false`, `none` have no letter case. Integers that a float cannot hold are compared exactly.
    """
    wanted = number_in(value.text) if loose and not value.quoted else None
    if wanted is None:
        if loose and not value.quoted and value.text.lower() in _CASELESS:
            lowered = value.text.lower()
            return np.array([text.lower() == lowered for text in column.values], dtype=np.bool_)
        same = np.zeros(len(column.values), dtype=np.bool_)
        if value.text in column.values:
            same[column.values.index(value.text)] = True
        return same
    numbers = column.numbers
    if np.isnan(wanted):
        nans: BoolArray = numbers.present & np.isnan(numbers.values)
        return nans
    alike: BoolArray = numbers.present & (numbers.values == wanted)
    integer = _integer(value.text)
    if integer is not None and abs(wanted) >= _LARGEST_EXACT:
        for index in np.flatnonzero(alike).tolist():
            alike[index] = _integer(column.values[index]) in (None, integer)
    return alike


def _integer(text: str) -> str | None:
    """An integer in one spelling, of any length, or None."""
    match = re.fullmatch(r"\s*([-+]?)0*(\d+)\s*", text, re.ASCII)
    return match and match[1].replace("+", "") + match[2]


def contains(column: Text, needle: str) -> list[bool]:
    """Which of the distinct values contain the needle, in any letter case."""
    needle = needle.lower()
    return [needle in value for value in column.lowered]


def like(column: Text, pattern: str, ignore_case: bool = False) -> list[bool]:
    """Which of the distinct values fit a LIKE pattern, or with `ignore_case` an ILIKE pattern."""
    values = column.values
    if ignore_case:
        pattern, values = pattern.lower(), column.lowered
    if "_" not in pattern:
        inner = pattern.strip("%")
        if "%" not in inner:
            opened, closed = pattern.startswith("%"), pattern.endswith("%")
            if not inner and pattern:
                return [True] * len(values)
            if opened and closed:
                return [inner in value for value in values]
            if opened:
                return [value.endswith(inner) for value in values]
            if closed:
                return [value.startswith(inner) for value in values]
            return [value == inner for value in values]
    pieces = pattern.split("%")
    if len(pieces) == 3 and not pieces[0] and not pieces[2]:
        search = _piece(pieces[1]).search
        return [search(value) is not None for value in values]
    fits = _pieces_fit(pieces)
    return [fits(value) for value in values]


def _pieces_fit(pieces: list[str]) -> Callable[[str], bool]:
    """A test for texts that start with the first piece, end with the last, and have the others between, in order.

    Taking each middle piece at its first place is enough: a later place leaves less room for the rest.
    """
    first, *middle, last = [_piece(piece) for piece in pieces] if len(pieces) > 1 else [_piece(pieces[0])] * 2
    first_length, last_length = len(pieces[0]), len(pieces[-1])
    if len(pieces) == 1:
        return lambda value: len(value) == first_length and first.match(value) is not None

    def fits(value: str) -> bool:
        end = len(value) - last_length
        if end < first_length or first.match(value) is None or last.match(value, end) is None:
            return False
        position = first_length
        for piece in middle:
            found = piece.search(value, position, end)
            if found is None:
                return False
            position = found.end()
        return True

    return fits


def _piece(piece: str) -> re.Pattern[str]:
    """A pattern without repetition, so that a search costs at most the product of both lengths."""
    return re.compile(
        "".join("." if character == "_" else re.escape(character) for character in piece), re.DOTALL
    )
