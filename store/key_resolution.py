"""What a bare key means, once it is known which keys the runs have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mltrack.store.column_types import Aggregate, Columns, Kind
from mltrack.store.direction import DirectionOf, guess_direction
from mltrack.store.filter_tree import (
    AGGREGATES,
    And,
    Compare,
    Expr,
    Key,
    Matches,
    Missing,
    Node,
    Not,
    OneOf,
    Or,
    ResolvedKey,
    SortKey,
    WrittenAggregate,
)

_BARE_KINDS: tuple[Kind, ...] = ("param", "metric", "tag")
"""Attributes come before these, but the parser knows them all."""
_MAX_KEYS_COMPARED = 20_000


@dataclass(frozen=True)
class UnknownKey:
    """A key that no run has. It is no error: a run may log it later. `phrase` says so to a person."""

    name: str
    position: int
    kind: str
    suggestions: tuple[str, ...]

    @property
    def phrase(self) -> str:
        """What no run has, and what may have been meant: to be said after "no run has"."""
        what = "param, metric or tag" if self.kind == "any" else self.kind
        hint = f" (did you mean '{self.suggestions[0]}'?)" if self.suggestions else ""
        return f"a {what} named '{self.name}'{hint}"


def resolve(key: Key, columns: Columns, direction: DirectionOf = guess_direction) -> ResolvedKey | None:
    """The column that a key means, or None for a bare key that no run has.

    A bare key is a param, else a metric, else a tag. `loss.min` is the least `loss` unless a key has just that name.
    """
    if key.kind not in ("any", "metric"):
        return ResolvedKey(key.kind, key.name)  # type: ignore[arg-type]  # mypy does not narrow by `in`
    if key.aggregate is not None:
        return ResolvedKey("metric", key.name, _aggregate(key.aggregate, key.name, direction))
    for kind in _BARE_KINDS if key.kind == "any" else ("metric",):
        if columns.has(kind, key.name):
            return ResolvedKey(kind, key.name)
    name, dot, ending = key.name.rpartition(".")
    if not key.exact and dot and ending in AGGREGATES and columns.has("metric", name):
        return ResolvedKey("metric", name, _aggregate(AGGREGATES[ending], name, direction))
    return ResolvedKey("metric", key.name) if key.kind == "metric" else None


def _aggregate(written: WrittenAggregate, name: str, direction: DirectionOf) -> Aggregate:
    return direction(name) if written == "best" else written


def unknown_keys(wanted: Expr | Sequence[SortKey], columns: Columns) -> tuple[UnknownKey, ...]:
    """The keys of a filter or an order that no run has, each once, in the order of the text."""
    keys = _keys_of(wanted.root) if isinstance(wanted, Expr) else (sort_key.key for sort_key in wanted)
    found: dict[tuple[str, str], UnknownKey] = {}
    for key in keys:
        if key.kind in ("attribute", "dataset") or (key.kind, key.name) in found:
            continue
        resolved = resolve(key, columns)
        if resolved is None or not columns.has(resolved.kind, resolved.name):
            found[key.kind, key.name] = UnknownKey(key.name, key.position, key.kind, _suggest(key, columns))
    return tuple(found.values())


def _keys_of(node: Node) -> Iterator[Key]:
    match node:
        case Compare() | OneOf() | Matches() | Missing():
            yield node.key
        case Not(part):
            yield from _keys_of(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from _keys_of(part)
        case _:
            return


def _suggest(key: Key, columns: Columns) -> tuple[str, ...]:
    from difflib import get_close_matches

    kinds: tuple[Kind, ...] = _BARE_KINDS if key.kind == "any" else (key.kind,)
    known: dict[str, None] = {}
    for kind in kinds:
        known.update(dict.fromkeys(columns.keys(kind)[:_MAX_KEYS_COMPARED]))
    same_but_case = [name for name in known if name.lower() == key.name.lower()]
    return tuple(dict.fromkeys(same_but_case + get_close_matches(key.name[:100], list(known), n=3)))
