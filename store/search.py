"""Which runs match a filter: numpy over columns, without a loop over runs.

A text is compared once per distinct value and the answers are spread over the runs by their codes. What follows from
a column alone is remembered by the column itself (`Text.numbers`, `Text.ranks`); nothing is remembered here.

The rules are MLflow's: NaN satisfies only `!=`; a run without the key matches no comparison, `!=` included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from mltrack.store.column_types import (
    BoolArray,
    Columns,
    FloatArray,
    IntArray,
    Number,
    NumberKind,
    Text,
    TextKind,
)
from mltrack.store.direction import DirectionOf, guess_direction
from mltrack.store.errors import FilterError
from mltrack.store.filter_text import contains, equal, like
from mltrack.store.filter_tree import (
    Amount,
    And,
    Comparator,
    Compare,
    Everything,
    Expr,
    Key,
    Matches,
    Mine,
    Missing,
    Moment,
    Node,
    Not,
    OneOf,
    Or,
    ResolvedKey,
    SortKey,
    Value,
    Written,
)
from mltrack.store.filter_values import typed
from mltrack.store.key_resolution import UnknownKey, resolve, unknown_keys
from mltrack.store.records import Page
from mltrack.store.search_order import cut, order
from mltrack.store.sort_parser import parse_sort

__all__ = ["UnknownKey", "evaluate", "order", "page", "places", "unknown_keys"]

_COMPARE: dict[Comparator, Callable[[FloatArray, float], BoolArray]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def evaluate(
    expr: Expr, columns: Columns, now_ms: float, user: str, direction: DirectionOf = guess_direction
) -> BoolArray:
    """bool[n]: which runs match. `user` is who `mine` means; `direction` says which way the best of a metric lies.

    FilterError where a bare key turns out to be of a kind that its term does not fit, or a regular expression takes
    too long.
    """
    return _Evaluator(expr, columns, now_ms, user, direction).node(expr.root)


def page(
    columns: Columns,
    mask: BoolArray,
    sort: Sequence[str] | Sequence[SortKey] = (),
    limit: int | None = None,
    after: str | None = None,
    unknown: Sequence[UnknownKey] = (),
    direction: DirectionOf = guess_direction,
) -> Page:
    """The runs of the mask in order, at most `limit` of them (None: all), from behind `after`: the `next` of another
    page or a run id. `unknown` are the filter's keys that no run has; those of the order are added to them.

    FilterError for a sort key that makes no sense, BadInput for a bad limit or mark.
    """
    keys = _keys(sort)
    ordered = order(columns, keys, np.flatnonzero(mask), direction)
    rows, following = cut(columns, keys, ordered, limit, after, direction)
    missing = dict.fromkeys(key.phrase for key in (*unknown, *unknown_keys(keys, columns)))
    shown: list[int] = rows.tolist()
    run_ids = columns.run_ids
    return Page(tuple(run_ids[row] for row in shown), len(ordered), following, tuple(missing))


def places(
    columns: Columns, mask: BoolArray, sort: Sequence[str] | Sequence[SortKey] = (), limit: int | None = None
) -> tuple[IntArray, tuple[str, ...]]:
    """The runs of the mask in order as int64 places in the columns, at most `limit`; and the keys of the order that no
    run has. FilterError for a sort key that makes no sense."""
    keys = _keys(sort)
    ordered = order(columns, keys, np.flatnonzero(mask))
    return ordered[:limit], tuple(key.phrase for key in unknown_keys(keys, columns))


def _keys(sort: Sequence[str] | Sequence[SortKey]) -> tuple[SortKey, ...]:
    written = [key for key in sort if isinstance(key, str)]
    return parse_sort(written) if written else tuple(key for key in sort if isinstance(key, SortKey))


class _Evaluator:
    def __init__(
        self, expr: Expr, columns: Columns, now_ms: float, user: str, direction: DirectionOf
    ) -> None:
        self._text = expr.text
        self._mlflow = expr.mlflow
        self._columns = columns
        self._now_ms = now_ms
        self._user = user
        self._direction = direction

    def node(self, node: Node) -> BoolArray:
        match node:
            case Everything():
                return np.ones(self._columns.n, dtype=np.bool_)
            case Mine():
                user = Written(self._user, True, 0)
                column = self._columns.text("attribute", "user")
                return self._spread(column, equal(column, user, False))
            case Not(part):
                return ~self.node(part)
            case And(parts):
                every: BoolArray = np.logical_and.reduce([self.node(part) for part in parts])
                return every
            case Or(parts):
                return _any([self.node(part) for part in parts])
            case Missing(key, negated):
                present = self._present(key)
                return present if negated else ~present
            case Compare(key, comparator, value):
                return self._compare(key, comparator, value)
            case OneOf(key, values, negated):
                return self._one_of(key, values, negated)
            case Matches():
                return self._matches(node)

    def _compare(self, key: Key, comparator: Comparator, value: Value) -> BoolArray:
        resolved = resolve(key, self._columns, self._direction)
        if resolved is None:
            return self._nothing()
        value = self._typed(key, resolved, value, comparator)
        if resolved.is_number:
            column = self._number(resolved)
            matches: BoolArray = column.present & self._compare_numbers(column.values, comparator, value)
            return matches
        text = self._column(resolved)
        written = cast(Written, value)
        if comparator in ("=", "!="):
            same = equal(text, written, self._loose(resolved))
            return self._spread(text, same if comparator == "=" else ~same)
        spelled = text.numbers
        return self._spread(text, spelled.present & _COMPARE[comparator](spelled.values, float(written.text)))

    def _one_of(self, key: Key, values: tuple[Value, ...], negated: bool) -> BoolArray:
        resolved = resolve(key, self._columns, self._direction)
        if resolved is None:
            return self._nothing()
        fitting = [self._typed(key, resolved, value, "=") for value in values]
        if resolved.is_number:
            column = self._number(resolved)
            same = [self._compare_numbers(column.values, "=", value) for value in fitting]
            return column.present & (~_any(same) if negated else _any(same))
        text = self._column(resolved)
        found = _any([equal(text, cast(Written, value), self._loose(resolved)) for value in fitting])
        return self._spread(text, ~found if negated else found)

    def _matches(self, node: Matches) -> BoolArray:
        resolved = resolve(node.key, self._columns, self._direction)
        if resolved is None:
            return self._nothing()
        if resolved.is_number:
            message = f"'{resolved.name}' is a metric: it is a number, and compared with = != < <= > >=."
            raise FilterError(self._text, node.key.position, message)
        column = self._column(resolved)
        pattern = node.pattern.text
        match node.how:
            case "contains":
                fits = contains(column, pattern)
            case "like" | "ilike":
                fits = like(column, pattern, node.how == "ilike")
            case "regex":
                from mltrack.store.filter_regex import PatternRefused, Regex

                try:
                    fits = Regex(pattern).search(column.values)
                except PatternRefused as error:
                    raise FilterError(self._text, node.pattern.position, error.message) from None
        table = np.array(fits, dtype=np.bool_)
        return self._spread(column, ~table if node.negated else table)

    def _present(self, key: Key) -> BoolArray:
        resolved = resolve(key, self._columns, self._direction)
        if resolved is None:
            return self._nothing()
        if resolved.is_number:
            return self._number(resolved).present
        column = self._column(resolved)
        return self._spread(column, np.ones(len(column.values), dtype=np.bool_))

    def _compare_numbers(self, values: FloatArray, comparator: Comparator, value: Value) -> BoolArray:
        if isinstance(value, Moment):
            start = value.ms + (self._now_ms if value.relative else 0.0)
            if value.span_ms and comparator in ("=", "!="):
                inside = (values >= start) & (values < start + value.span_ms)
                return inside if comparator == "=" else ~inside
            return _COMPARE[comparator](values, start)
        number = cast(Amount, value).value
        if number != number:
            return np.isnan(values) if comparator == "=" else ~np.isnan(values)
        return _COMPARE[comparator](values, number)

    def _typed(self, key: Key, resolved: ResolvedKey, value: Value, comparator: Comparator) -> Value:
        """The value as it is compared; the parser has seen to that for every key but a bare one."""
        if key.kind != "any":
            return value
        written = cast(Written, value)
        return typed(written, resolved.kind, resolved.name, comparator, self._text, self._mlflow)

    def _loose(self, resolved: ResolvedKey) -> bool:
        return not self._mlflow and resolved.kind in ("param", "tag")

    def _number(self, resolved: ResolvedKey) -> Number:
        return self._columns.number(cast(NumberKind, resolved.kind), resolved.name, resolved.aggregate)

    def _column(self, resolved: ResolvedKey) -> Text:
        return self._columns.text(cast(TextKind, resolved.kind), resolved.name)

    def _spread(self, column: Text, table: BoolArray) -> BoolArray:
        """From an answer per distinct value to one per run. Of several values of a run one is enough."""
        # Code -1, absent, takes the appended last place.
        found: BoolArray = np.append(table, False)[column.codes]
        if column.rows is None:
            return found
        matches = self._nothing()
        matches[column.rows[found]] = True
        return matches

    def _nothing(self) -> BoolArray:
        return np.zeros(self._columns.n, dtype=np.bool_)


def _any(tables: Sequence[BoolArray]) -> BoolArray:
    found: BoolArray = np.logical_or.reduce(tables)
    return found
