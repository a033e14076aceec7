"""What helps to write a filter: completions of keys and values, a term from a cell; experiments and keys to choose from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from mltrack.store.column_types import NUMBER_ATTRIBUTES, TEXT_ATTRIBUTES, Aggregate, TextKind
from mltrack.store.errors import BadInput, FilterError
from mltrack.store.filter_parser import parse
from mltrack.store.filter_tokens import Token, tokenize
from mltrack.store.filter_tree import ATTRIBUTES, PREFIXES, STATUSES, Or
from mltrack.store.records import Experiment, Run
from mltrack.store.store import Store
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.draw.times import format_age
from mltrack.tui.worker_calls.run_columns import ATTRIBUTES as COLUMN_ATTRIBUTES

_MOST = 60
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w/.\-]*\Z")
_PLAIN_VALUE = re.compile(r"[^\s(),;<>=~'\"`!]+\Z")
_KEYWORDS = frozenset("and or not in is like ilike null mine".split())
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in (", "like", "~", "is null", "is not null")
_SHOWN_ATTRIBUTES = (
    "status",
    "name",
    "user",
    "experiment",
    "start",
    "end",
    "duration",
    "host",
    "note",
    "step",
    "heard",
)


def complete(store: Store, text: str, position: int) -> dict[str, Any]:
    """What may stand at ``position`` of a filter: {"start": where it begins, "candidates": texts}."""
    before = text[:position]
    try:
        tokens = tokenize(before)[:-1]
    except FilterError:
        # An open quotation mark: what follows it is the beginning of a value.
        mark = max(before.rfind(quote) for quote in "'\"`")
        try:
            tokens = tokenize(before[:mark])[:-1]
        except FilterError:
            return {"start": position, "candidates": []}
        state, key = _state(tokens)
        found = _values(store, key) if state == "value" else []
        return {"start": mark, "candidates": _fitting(found, before[mark + 1 :], quoted=True)}
    partial, start = "", position
    if tokens and tokens[-1].end == position and tokens[-1].kind == "word":
        partial, start = before[tokens[-1].position :], tokens[-1].position
        tokens = tokens[:-1]
    state, key = _state(tokens)
    if state == "key":
        return {"start": start, "candidates": _fitting(_keys(store, partial), partial)}
    if state == "value":
        return {"start": start, "candidates": _fitting(_values(store, key), partial)}
    if state == "operator" and not partial:
        return {"start": start, "candidates": list(_OPERATORS)}
    words = ("and", "or") if state == "join" else ("and", "or", "in (", "like", "is null", "is not null")
    return {"start": start, "candidates": _fitting(words, partial)}


def cell_term(
    store: Store, filter: str, run_id: str, column: str, aggregate: str, direction: str, without: bool
) -> dict[str, str]:
    """The filter with one more term: runs whose cell of this column is as this run's, or (``without``) all others. For a
    metric: runs at least as good, or worse. Raises BadInput where there is no such term."""
    runs = store.runs([run_id])
    if not runs:
        raise BadInput("The run is not in the store any more.")
    kind, _, key = column.partition(":")
    if kind in ("metric", "step", "trend"):
        term = _metric_term(store, runs[0], key, aggregate, direction, without)
    elif kind in ("param", "tag"):
        value = (runs[0].params if kind == "param" else runs[0].tags).get(key)
        written = _written_key(store, kind, key)
        if value is None:
            term = f"{written} is {'not ' if without else ''}null"
        else:
            term = f"{written} {'!=' if without else '='} {_written_value(value)}"
    else:
        term = _attribute_term(runs[0], key, without)
    if not filter.strip():
        return {"filter": term}
    # An `or` must not swallow the new term.
    before = f"({filter.strip()})" if isinstance(parse(filter).root, Or) else filter.strip()
    return {"filter": f"{before} and {term}"}


def experiment_tree(store: Store) -> list[dict[str, Any]]:
    """Experiments under their folders (`vision/` holds `vision/cifar`), the newest activity first, with counts."""
    root = _Folder("", "")
    for experiment in store.experiments():
        if experiment.runs == 0 or experiment.lifecycle != "active":
            continue
        folder = root
        *parents, label = experiment.name.split("/")
        if not label or not all(parents):
            parents, label = [], experiment.name  # "a//b" or "a/": no folders to speak of
        for parent in parents:
            folder = folder.folder(parent)
        folder.below.append((label, experiment))
    rows: list[dict[str, Any]] = []
    root.write(rows, 0, now_ms())
    return rows


def column_keys(store: Store) -> list[str]:
    """Ids of all columns that there could be, metrics first."""
    ids = [f"metric:{key}" for key in store.keys("metric")]
    ids += [f"param:{key}" for key in store.keys("param")]
    ids += [f"tag:{key}" for key in store.keys("tag")]
    return [*ids, *(f"attribute:{key}" for key in COLUMN_ATTRIBUTES)]


CALLS = (complete, cell_term, experiment_tree, column_keys)


class _Folder:
    def __init__(self, path: str, label: str) -> None:
        self.path = path
        self.label = label
        self.below: list[tuple[str, Experiment] | _Folder] = []

    def folder(self, label: str) -> _Folder:
        for child in self.below:
            if isinstance(child, _Folder) and child.label == label:
                return child
        child = _Folder(f"{self.path}{label}/", label)
        self.below.append(child)
        return child

    def experiments(self) -> Iterable[Experiment]:
        for child in self.below:
            if isinstance(child, _Folder):
                yield from child.experiments()
            else:
                yield child[1]

    def write(self, rows: list[dict[str, Any]], depth: int, now: int) -> None:
        for child in self.below:
            if isinstance(child, _Folder):
                rows.append(_row(child.path, child.label + "/", depth, list(child.experiments()), now, True))
                child.write(rows, depth + 1, now)
            else:
                rows.append(_row(child[1].name, child[0], depth, [child[1]], now, False))


def _row(
    name: str, label: str, depth: int, below: Sequence[Experiment], now: int, folder: bool
) -> dict[str, Any]:
    last = max((experiment.last_ms or 0 for experiment in below), default=0)
    return {
        "name": name,
        "label": label,
        "depth": depth,
        "folder": folder,
        "runs": sum(experiment.runs for experiment in below),
        "running": sum(experiment.statuses.get("RUNNING", 0) for experiment in below),
        "age": format_age((now - last) / 1000) if last else "",
    }


def _state(tokens: Sequence[Token]) -> tuple[str, str]:
    """What may follow these tokens (key, operator, value or join), and the key that a value would be of."""
    state, key = "key", ""
    for token in tokens:
        word = token.keyword
        if state == "key":
            if token.kind == "word" and word not in ("not", "mine"):
                state, key = "operator", ".".join(part.text.strip(".") for part in token.parts)
            elif word == "mine" or token.kind == ")":
                state = "join"
        elif state == "operator":
            if token.kind == "operator" or word in ("like", "ilike"):
                state = "value"
            elif word in ("in", "is"):
                state = "list" if word == "in" else "null"
            elif word in ("and", "or"):
                state = "key"
            elif token.kind == "word" and word != "not":
                key = token.text
            elif token.kind == ")":
                state = "join"
        elif state in ("list", "null"):
            if token.kind == ")" or word == "null":
                state = "join"
        elif state == "value":
            state = "join"
        elif word in ("and", "or"):
            state = "key"
    return "value" if state == "list" else state, key


def _keys(store: Store, partial: str) -> list[str]:
    prefix, dot, _ = partial.partition(".")
    if dot and PREFIXES.get(prefix) in ("metric", "param", "tag"):
        kind = cast(Any, PREFIXES[prefix])
        return [f"{prefix}.{_quoted_key(key)}" for key in _without_system(store.columns.keys(kind), partial)]
    found: dict[str, None] = dict.fromkeys(_SHOWN_ATTRIBUTES)
    for kind in ("param", "metric", "tag"):
        for key in _without_system(store.columns.keys(cast(Any, kind)), partial):
            found.setdefault(_written_key(store, kind, key) if key in ATTRIBUTES else _quoted_key(key))
    return [*found, "mine", "not"]


def _without_system(keys: Iterable[str], partial: str) -> list[str]:
    asked = "sys" in partial.lower() or "mlflow." in partial.lower()
    return [key for key in keys if asked or not key.startswith(("system/", "mlflow."))]


def _values(store: Store, key: str) -> list[str]:
    """Values that runs have, the most frequent first."""
    prefix, dot, rest = key.partition(".")
    kind: str = "any"
    if dot and prefix in PREFIXES:
        kind, key = PREFIXES[prefix], rest
    name = ATTRIBUTES.get(key) if kind in ("any", "attribute") else None
    if name == "status":
        return [status.lower() for status in STATUSES]
    columns = store.columns
    if name is not None:
        if name not in TEXT_ATTRIBUTES:
            return ["-1d", "-1w"] if name in ("start_time", "end_time", "heard") else []
        column = columns.text("attribute", name)
    else:
        kinds = [kind] if kind in ("param", "tag") else ["param", "tag"] if kind == "any" else []
        having = [each for each in kinds if columns.has(cast(Any, each), key)]
        if not having:
            return []
        column = columns.text(cast(TextKind, having[0]), key)
    codes = column.codes[column.codes >= 0]
    counts = np.bincount(codes, minlength=len(column.values))
    # Equally frequent ones by name: the order of arrival is nobody's order.
    order = sorted(
        np.argsort(-counts, kind="stable")[: _MOST * 20].tolist(),
        key=lambda code: (-counts[code], column.values[code]),
    )
    return [column.values[code] for code in order if counts[code]]


def _fitting(found: Iterable[str], partial: str, quoted: bool = False) -> list[str]:
    """Those that begin with what is typed, then those that contain it; written as the language wants them."""
    low = partial.lower().strip("`'\"")
    begin, within = [], []
    for text in found:
        place = text.lower().strip("`").find(low)
        if place == 0:
            begin.append(text)
        elif place > 0:
            within.append(text)
    chosen = [text for text in (*begin, *within) if text.lower() != low or quoted][:_MOST]
    return [_in_quotes(text) if quoted else text for text in chosen]


def _metric_term(store: Store, run: Run, key: str, aggregate: str, direction: str, without: bool) -> str:
    written = _written_key(store, "metric", key)
    summary = run.metrics.get(key)
    if summary is None:
        return f"{written} is {'not ' if without else ''}null"
    read = cast(Aggregate, direction if aggregate == "best" else aggregate)
    value = {"min": summary.min, "max": summary.max}.get(read, summary.last)
    name = written if read == "last" else f"{read}({written})"
    if value is None or value != value:
        return f"{name} {'!=' if without else '='} nan"
    sign = {("max", False): ">=", ("max", True): "<", ("min", False): "<=", ("min", True): ">"}
    return f"{name} {sign[direction, without]} {value!r}"


def _attribute_term(run: Run, key: str, without: bool) -> str:
    texts = {
        "run": ("name", run.name),
        "status": ("status", run.status.lower()),
        "experiment": ("experiment", run.experiment),
        "user": ("user", run.user),
        "host": ("host", run.host),
        "note": ("note", run.note),
        "parent": ("parent", run.parent_id or ""),
    }
    if key not in texts:
        raise BadInput(f"There is no filter for one value of {key}; write for example: start > -2d")
    name, value = texts[key]
    if not value:
        return f"{name} is {'not ' if without else ''}null"
    return f"{name} {'!=' if without else '='} {_written_value(value)}"


def _written_key(store: Store, kind: str, key: str) -> str:
    """A key with its prefix where it could mean something else without."""
    taken = key in ATTRIBUTES or key in NUMBER_ATTRIBUTES
    if kind != "param":
        taken = taken or store.columns.has("param", key)
    if kind == "tag":
        taken = taken or store.columns.has("metric", key)
    return f"{kind}s.{_quoted_key(key)}" if taken else _quoted_key(key)


def _quoted_key(key: str) -> str:
    if _PLAIN_KEY.match(key) and key.lower() not in _KEYWORDS and key.partition(".")[0] not in PREFIXES:
        return key
    mark = "`" if "`" not in key else '"'
    return f"{mark}{key.replace(mark, 2 * mark)}{mark}"


def _written_value(value: str) -> str:
    if _PLAIN_VALUE.match(value) and value.lower() not in _KEYWORDS | {"true", "false", "none"}:
        return value
    return _in_quotes(value)


def _in_quotes(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
