"""What a parsed filter is made of, and the names that the language knows.

    Expr                the filter: its text, and its root node
    ├── Everything      the empty filter
    ├── And, Or, Not    of other nodes
    ├── Compare         key = != < <= > >= value
    ├── OneOf           key in (...), key not in (...)
    ├── Matches         like, ilike, ~, !~, and the bare word that a run's name contains
    ├── Missing         key is null, key is not null
    └── Mine            the run's user is the one who asks

Positions are indexes into the text, so that a fault found later can still be shown at its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mltrack.store.column_types import NUMBER_ATTRIBUTES, Aggregate, Kind

WrittenAggregate: TypeAlias = Literal["last", "min", "max", "count", "best"]
Comparator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
MatchHow: TypeAlias = Literal["like", "ilike", "regex", "contains"]

AGGREGATES: dict[str, WrittenAggregate] = {
    "last": "last",
    "min": "min",
    "max": "max",
    "count": "count",
    "best": "best",
}

PREFIXES: dict[str, Kind] = {
    "metric": "metric",
    "metrics": "metric",
    "param": "param",
    "params": "param",
    "parameter": "param",
    "parameters": "param",
    "tag": "tag",
    "tags": "tag",
    "attribute": "attribute",
    "attributes": "attribute",
    "attr": "attribute",
    "run": "attribute",
    "dataset": "dataset",
    "datasets": "dataset",
}

DATASET_KEYS = frozenset(("name", "digest", "context"))

MLFLOW_ATTRIBUTES: dict[str, str] = {
    "run_id": "run_id",
    "run_name": "run_name",
    "run name": "run_name",
    "Run name": "run_name",
    "Run Name": "run_name",
    "status": "status",
    "artifact_uri": "artifact_uri",
    "user_id": "user",
    "start_time": "start_time",
    "created": "start_time",
    "Created": "start_time",
    "end_time": "end_time",
}
"""What MLflow calls an attribute -> what we call it."""

ATTRIBUTES: dict[str, str] = MLFLOW_ATTRIBUTES | {
    "id": "run_id",
    "name": "run_name",
    "experiment": "experiment",
    "user": "user",
    "host": "host",
    "note": "note",
    "lifecycle": "lifecycle",
    "lifecycle_stage": "lifecycle",
    "parent": "parent_id",
    "parent_id": "parent_id",
    "start": "start_time",
    "started": "start_time",
    "end": "end_time",
    "ended": "end_time",
    "heard": "heard",
    "duration": "duration",
    "step": "step",
    "damage": "damage",
}

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED", "LOST")


@dataclass(frozen=True)
class Key:
    """What a term is about. Kind "any" is a bare name: a param, metric or tag, decided when runs are at hand.

    `aggregate` is set when the text says it without doubt: `min(loss)`. With `aggregate` None and `exact` False the
    end of `name` may be one (`loss.min`), unless a key of exactly this name exists.
    """

    kind: Kind | Literal["any"]
    name: str
    position: int
    aggregate: WrittenAggregate | None = None
    exact: bool = False


@dataclass(frozen=True)
class ResolvedKey:
    """A key when runs are at hand: its kind is known, and `aggregate` says which number of a metric is meant."""

    kind: Kind
    name: str
    aggregate: Aggregate = "last"

    @property
    def is_number(self) -> bool:
        """Whether its column is a Number; otherwise it is a Text."""
        return self.kind == "metric" or (self.kind == "attribute" and self.name in NUMBER_ATTRIBUTES)


@dataclass(frozen=True)
class Written:
    """A value as it stands in the text. In quotes it is text, without it is a number if it spells one."""

    text: str
    quoted: bool
    position: int


@dataclass(frozen=True)
class Amount:
    """A number, in the unit of the column it is compared with."""

    value: float
    position: int


@dataclass(frozen=True)
class Moment:
    """A point in time: ms since 1970, or before (negative) or after now if `relative`.

    `span_ms` is the length of a day that was named by its date alone: `=` then means any time of it.
    """

    ms: float
    relative: bool
    span_ms: float
    position: int


Value: TypeAlias = Written | Amount | Moment


@dataclass(frozen=True)
class Everything:
    """Every run matches."""


@dataclass(frozen=True)
class Mine:
    """Runs of the user who asks."""


@dataclass(frozen=True)
class Compare:
    """Runs that have the key and whose value compares so."""

    key: Key
    comparator: Comparator
    value: Value


@dataclass(frozen=True)
class OneOf:
    """Runs that have the key, with one of the values, or `negated`: with none of them."""

    key: Key
    values: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True)
class Matches:
    """Runs that have the key, with a text that fits the pattern, or `negated`: that does not."""

    key: Key
    how: MatchHow
    pattern: Written
    negated: bool


@dataclass(frozen=True)
class Missing:
    """Runs that do not have the key, or `negated`: that do."""

    key: Key
    negated: bool


@dataclass(frozen=True)
class Not:
    """Runs that the part does not match; also those that do not have its key."""

    part: Node


@dataclass(frozen=True)
class And:
    """Runs that all parts match."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """Runs that at least one part matches."""

    parts: tuple[Node, ...]


Node: TypeAlias = Everything | Mine | Compare | OneOf | Matches | Missing | Not | And | Or


@dataclass(frozen=True)
class Expr:
    """A parsed filter. `mlflow`: it was read by MLflow's rules, so a param is text and never a number."""

    text: str
    root: Node
    mlflow: bool = False


@dataclass(frozen=True)
class SortKey:
    """One key of an order. `numeric`: texts that spell numbers sort as numbers, before other texts.
    `stated`: a direction was written; `best(...)` without one puts the best first."""

    text: str
    key: Key
    descending: bool
    numeric: bool
    stated: bool = True
