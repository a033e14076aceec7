"""The order of runs, and pages of it.

Each sort key becomes one int64 per run whose order is the order wanted: numbers, then NaN, then texts, then runs
without a value, in both directions. Only runs that are still equal are looked at again for the next key. Last come
the start time, newest first, and the run id.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np

from mltrack.store.column_types import (
    Columns,
    FloatArray,
    IntArray,
    NumberKind,
    Text,
    TextKind,
)
from mltrack.store.direction import DirectionOf, guess_direction
from mltrack.store.errors import BadInput
from mltrack.store.filter_tree import Key, ResolvedKey, SortKey
from mltrack.store.key_resolution import resolve

# Float bits read as integers end at infinity; what lies above is free for what sorts after all numbers.
_INFINITY = 0x7FF0 << 48
_NAN = 0x7FF8 << 48
_TEXTS = 0x7FF9 << 48
_ABSENT = (1 << 63) - 1
_NUMBER_CLASS, _NAN_CLASS, _TEXT_CLASS, _ABSENT_CLASS = range(4)
_RUN_ID_BYTES = 32

START = SortKey("-start_time", Key("attribute", "start_time", 0, exact=True), descending=True, numeric=False)
"""Every order ends with it, and with the run id."""

_RankOf: TypeAlias = Callable[[IntArray], IntArray]
_Place: TypeAlias = tuple[int, float | str]
"""Where a run stands for one sort key: its class, and its value there."""


def order(
    columns: Columns, sort_keys: Sequence[SortKey], rows: IntArray, direction: DirectionOf = guess_direction
) -> IntArray:
    """The rows (int64, distinct indexes of runs) in order."""
    place = np.arange(len(rows), dtype=np.int64)
    tied = place.copy()  # places of `place` that are still equal to a neighbour
    group: IntArray = np.zeros(len(rows), dtype=np.int64)  # for each of these a number that equal ones share
    for rank_of in _ranks(columns, sort_keys, direction) if len(rows) else ():
        part = place[tied]
        rank = rank_of(rows[part])
        again = np.argsort(rank) if len(part) == len(rows) and not group.any() else np.lexsort((rank, group))
        place[tied], group, rank = part[again], group[again], rank[again]
        fresh = (group[1:] != group[:-1]) | (rank[1:] != rank[:-1])
        starts = np.concatenate(([True], fresh))
        ends = np.concatenate((fresh, [True]))
        still = ~(starts & ends)
        if not still.any():
            break
        group = np.cumsum(starts)[still]
        tied = tied[still]
    return rows[place]


def _ranks(columns: Columns, sort_keys: Sequence[SortKey], direction: DirectionOf) -> Iterator[_RankOf]:
    """For each key, the last ones included, what gives rows an int64 each that is smaller for the earlier."""
    for sort_key in (*sort_keys, START):
        resolved = resolve(sort_key.key, columns, direction)
        if resolved is not None:
            rank = _rank(columns, resolved, _directed(sort_key, resolved, direction))
            yield rank.__getitem__
    for word in range(_RUN_ID_BYTES // 8):
        yield partial(_run_id_rank, columns.run_ids, word)


def _directed(sort_key: SortKey, resolved: ResolvedKey | None, direction: DirectionOf) -> SortKey:
    """The key with its direction: where none is written, the best of a metric comes first."""
    key = sort_key.key
    if sort_key.stated or resolved is None or resolved.kind != "metric":
        return sort_key
    if key.aggregate != "best" and key.name != f"{resolved.name}.best":
        return sort_key
    return replace(sort_key, descending=direction(resolved.name) == "max")


def _rank(columns: Columns, resolved: ResolvedKey, sort_key: SortKey) -> IntArray:
    if resolved.is_number:
        column = columns.number(cast(NumberKind, resolved.kind), resolved.name, resolved.aggregate)
        rank = _number_rank(column.values, sort_key.descending)
        rank[~column.present] = _ABSENT
        return rank
    text = columns.text(cast(TextKind, resolved.kind), resolved.name)
    return np.append(_text_rank(text, sort_key, resolved), _ABSENT)[text.codes]


def _text_rank(text: Text, sort_key: SortKey, resolved: ResolvedKey) -> IntArray:
    """For each distinct value its rank."""
    if _spelled_as_numbers(sort_key, resolved) and text.numbers.present.all():
        return _number_rank(text.numbers.values, sort_key.descending)
    ranks = text.ranks
    rank = _TEXTS + (len(text.values) - ranks if sort_key.descending else ranks)
    if _spelled_as_numbers(sort_key, resolved):
        numbers = text.numbers
        rank = np.where(numbers.present, _number_rank(numbers.values, sort_key.descending), rank)
    return rank


def _number_rank(values: FloatArray, descending: bool) -> IntArray:
    """Integers in the order of the numbers. Adding 0.0 makes -0.0 and 0.0 equal."""
    bits: IntArray = ((-values if descending else values) + 0.0).view(np.int64)
    # The bits of negative numbers grow downwards: turn them round, and keep them below zero.
    rank = np.where(bits < 0, np.int64(-(1 << 63)) - bits, bits)
    rank[np.isnan(values)] = _NAN
    return rank


def _run_id_rank(run_ids: Sequence[str], word: int, rows: IntArray) -> IntArray:
    """One word of the ids of these rows as numbers in the order of the text; all of them in the first where they are not of 32
    characters of ASCII."""
    positions: list[int] = rows.tolist()
    chosen = [run_ids[position] for position in positions]
    joined = "".join(chosen)
    if joined.isascii() and all(len(run_id) == _RUN_ID_BYTES for run_id in chosen):
        # Eight bytes of ASCII as a big-endian number sort as the text does.
        words = np.frombuffer(joined.encode("ascii"), dtype=">i8").reshape(-1, _RUN_ID_BYTES // 8)
        return words[:, word].astype(np.int64)
    ranks = np.empty(len(chosen), dtype=np.int64)
    ranks[sorted(range(len(chosen)), key=chosen.__getitem__)] = np.arange(len(chosen))
    return ranks


def cut(
    columns: Columns,
    sort_keys: Sequence[SortKey],
    ordered: IntArray,
    limit: int | None,
    after: str | None = None,
    direction: DirectionOf = guess_direction,
) -> tuple[IntArray, str | None]:
    """At most `limit` of the ordered rows, from behind `after`; and what to give as `after` for the next page.

    `after` is what an earlier cut returned, or a run id. It stands for the sort values of the last run shown, not for
    a count: runs that come or go between two pages make no other run appear twice or not at all.
    BadInput for a limit below 1 and for an `after` of another order.
    """
    if limit is not None and limit < 1:
        raise BadInput("A page has at least one run: give a limit of 1 or more.")
    places = _Places(columns, (*sort_keys, START), direction)
    start = 0
    if after is not None:
        mark = places.of(columns.run_ids.index(after)) if after in columns.run_ids else places.read(after)
        # Bisection: the number of rows that stand at or before the mark.
        end = len(ordered)
        while start < end:
            middle = (start + end) // 2
            if places.is_after(places.of(int(ordered[middle])), mark):
                end = middle
            else:
                start = middle + 1
    stop = len(ordered) if limit is None else min(len(ordered), start + limit)
    if stop >= len(ordered) or stop == start:
        return ordered[start:stop], None
    return ordered[start:stop], places.written(places.of(int(ordered[stop - 1])))


class _Places:
    """Where single runs stand in an order: what the ranks are for all of them, but with values that last."""

    def __init__(self, columns: Columns, keys: Sequence[SortKey], direction: DirectionOf) -> None:
        self._columns = columns
        self._resolved = [resolve(key.key, columns, direction) for key in keys]
        self._keys = [
            _directed(key, found, direction) for key, found in zip(keys, self._resolved, strict=True)
        ]
        self._signature = [
            [key.key.kind, key.key.name, key.key.aggregate, key.descending, key.numeric] for key in self._keys
        ]

    def of(self, row: int) -> list[_Place]:
        """Where a run stands for each key, the run id last."""
        places = [self._place(key, found, row) for key, found in zip(self._keys, self._resolved, strict=True)]
        return [*places, (_TEXT_CLASS, self._columns.run_ids[row])]

    def _place(self, key: SortKey, resolved: ResolvedKey | None, row: int) -> _Place:
        if resolved is None:
            return _ABSENT_CLASS, 0.0
        if resolved.is_number:
            column = self._columns.number(cast(NumberKind, resolved.kind), resolved.name, resolved.aggregate)
            return _number_place(float(column.values[row])) if column.present[row] else (_ABSENT_CLASS, 0.0)
        text = self._columns.text(cast(TextKind, resolved.kind), resolved.name)
        code = int(text.codes[row])
        if code < 0:
            return _ABSENT_CLASS, 0.0
        if _spelled_as_numbers(key, resolved) and text.numbers.present[code]:
            return _number_place(float(text.numbers.values[code]))
        return _TEXT_CLASS, text.values[code]

    def is_after(self, places: Sequence[_Place], mark: Sequence[_Place]) -> bool:
        """Whether one place comes after another."""
        directions = [*(key.descending for key in self._keys), False]
        for (klass, value), (marked_class, marked), descending in zip(places, mark, directions, strict=True):
            if klass != marked_class:
                return klass > marked_class
            if value != marked:
                # Values of one class have one type: `read` has seen to it.
                larger: bool = cast(Any, value) > cast(Any, marked)
                return larger != descending
        return False

    def written(self, places: Sequence[_Place]) -> str:
        """A place as text for another process to come back with."""
        content = json.dumps([self._signature, *places], separators=(",", ":"))
        return base64.urlsafe_b64encode(content.encode()).decode("ascii")

    def read(self, written: str) -> list[_Place]:
        """The place that `written` gave. BadInput for anything else."""
        try:
            found = json.loads(base64.b64decode(written.encode("ascii"), altchars=b"-_", validate=True))
            signature, *places = found
            if signature != self._signature or len(places) != len(self._keys) + 1:
                raise ValueError("another order")
            return [_checked_place(*place) for place in places]
        except (ValueError, TypeError, RecursionError, OverflowError):
            message = "This page mark does not belong to this search: begin again with the first page."
            raise BadInput(message) from None


def _checked_place(klass: object, value: object) -> _Place:
    if klass == _TEXT_CLASS and isinstance(value, str):
        return _TEXT_CLASS, value
    if (
        isinstance(klass, int)
        and klass in (_NUMBER_CLASS, _NAN_CLASS, _ABSENT_CLASS)
        and isinstance(value, (int, float))
    ):
        return klass, float(value)
    raise ValueError("not a place")


def _number_place(number: float) -> _Place:
    return (_NAN_CLASS, 0.0) if number != number else (_NUMBER_CLASS, number)


def _spelled_as_numbers(sort_key: SortKey, resolved: ResolvedKey) -> bool:
    return sort_key.numeric and resolved.kind in ("param", "tag")
