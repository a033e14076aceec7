"""The keys by which runs are sorted: `-val_acc`, `metrics.loss DESC`, `best(val/acc)`, `-status, lr`."""

from __future__ import annotations

from collections.abc import Sequence

from mltrack.store.errors import FilterError
from mltrack.store.filter_cursor import Cursor
from mltrack.store.filter_tokens import Part, Token
from mltrack.store.filter_tree import SortKey

MAX_SORT_KEYS = 16


def parse_sort(keys: Sequence[str], mlflow: bool = False) -> tuple[SortKey, ...]:
    """The keys of an order, the first one first. A text may hold several, separated by commas; of a key named twice
    the first place counts. FilterError where a text makes no sense.

    With `mlflow` a text is one key of MLflow's `order_by`, and a key named twice is an error.
    """
    found: dict[tuple[str, str, str | None, bool], SortKey] = {}
    for text in keys:
        for sort_key in _keys_of(Cursor(text, mlflow)):
            key = sort_key.key
            identity = (key.kind, key.name, key.aggregate, key.exact)
            if identity in found and mlflow:
                raise FilterError(text, key.position, f"The order names '{key.name}' twice.")
            found.setdefault(identity, sort_key)
            if len(found) > MAX_SORT_KEYS:
                raise FilterError(text, key.position, f"An order has at most {MAX_SORT_KEYS} keys.")
    return tuple(found.values())


def _keys_of(cursor: Cursor) -> list[SortKey]:
    found = [_one_key(cursor)]
    while cursor.here.kind == "," and not cursor.mlflow:
        cursor.next()
        found.append(_one_key(cursor))
    if cursor.here.kind != "end":
        raise cursor.error(cursor.here.position, "Expected 'asc', 'desc', or the end of the sort key.")
    return found


def _one_key(cursor: Cursor) -> SortKey:
    token = cursor.here
    if token.kind != "word":
        raise cursor.error(token.position, "Expected a key to sort by.")
    first = token.parts[0]
    descending = first.text.startswith("-") and not first.quote and token.text != "-" and not cursor.mlflow
    if descending:
        cursor.replace(_without_minus(token))
    key = cursor.key()
    if key.kind == "dataset":
        raise cursor.error(key.position, "Runs cannot be sorted by their datasets.")
    word = cursor.here.keyword
    if word in ("asc", "desc"):
        if descending:
            raise cursor.error(cursor.here.position, f"Either '-' or '{word}', not both.")
        cursor.next()
    stated = descending or word in ("asc", "desc") or cursor.mlflow
    return SortKey(cursor.text, key, descending or word == "desc", numeric=not cursor.mlflow, stated=stated)


def _without_minus(token: Token) -> Token:
    first, *rest = token.parts
    shortened = Part(first.text[1:], "")
    parts = (shortened, *rest) if shortened.text else tuple(rest)
    return Token(token.kind, parts, token.position + 1, token.end)
