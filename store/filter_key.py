"""From a word of a filter to the key it means: prefix, name, aggregate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mltrack.store.column_types import Kind
from mltrack.store.errors import FilterError
from mltrack.store.filter_tokens import Part, Token
from mltrack.store.filter_tree import AGGREGATES, ATTRIBUTES, DATASET_KEYS, MLFLOW_ATTRIBUTES, PREFIXES, Key

_MLFLOW_PLAIN = re.compile(r"[\w.]+")
_SOFT_PREFIXES = frozenset(("run", "dataset", "datasets"))
"""Prefixes that are also common first words of a param's name: `dataset.path`, `run.seed`."""


def read_key(token: Token, text: str, mlflow: bool) -> Key:
    """The key that a word means. With `mlflow`: by MLflow's rules, where a bare name is always an attribute."""
    if mlflow:
        return _mlflow_key(token, text)
    prefix, kind, pieces = _split_prefix(token.parts)
    name = "".join(piece.text for piece in pieces)
    if kind == "attribute" and name in ATTRIBUTES:
        return Key(kind, ATTRIBUTES[name], token.position, exact=True)
    if kind == "dataset" and name in DATASET_KEYS:
        return Key(kind, name, token.position, exact=True)
    if kind is None or prefix in _SOFT_PREFIXES:
        if kind is None and len(pieces) == 1 and name in ATTRIBUTES:
            return Key("attribute", ATTRIBUTES[name], token.position, exact=True)
        return _with_aggregate(Key("any", token.text, token.position), token.parts)
    if kind == "attribute":
        message = f"There is no attribute '{name}'.{closest(name, ATTRIBUTES)}"
        raise FilterError(text, token.position, message)
    if not name:
        raise FilterError(text, token.end, f"The name of a {kind} is missing after '{prefix}.'.")
    return _with_aggregate(Key(kind, name, token.position), pieces)


def metric_name(token: Token, text: str) -> str:
    """The metric that the argument of `best(...)` names."""
    prefix, kind, pieces = _split_prefix(token.parts)
    if kind == "metric" and any(piece.text for piece in pieces):
        return "".join(piece.text for piece in pieces)
    if kind in ("param", "tag"):
        raise FilterError(text, token.position, f"Only metrics have several values; '{prefix}.' is none.")
    return token.text


def closest(name: str, known: Iterable[str]) -> str:
    """The question whether a near name was meant, with a space before it, or nothing when there is none."""
    from difflib import get_close_matches

    found = get_close_matches(name[:100], list(known), n=1)
    return f" Did you mean '{found[0]}'?" if found else ""


def _split_prefix(parts: Sequence[Part]) -> tuple[str, Kind | None, tuple[Part, ...]]:
    """Prefix, its kind (None without one), and the parts of the name after it."""
    first, *rest = parts
    if first.quote == "`" and rest and first.text in PREFIXES:
        # `metrics`.loss: the quotes are around the prefix, and the dot belongs to what follows.
        tail = rest[0].text[1:]
        return first.text, PREFIXES[first.text], (Part(tail, ""), *rest[1:]) if tail else tuple(rest[1:])
    head, dot, tail = first.text.partition(".")
    if first.quote or not dot or head not in PREFIXES:
        return "", None, tuple(parts)
    return head, PREFIXES[head], (Part(tail, ""), *rest) if tail or not rest else tuple(rest)


def _with_aggregate(key: Key, pieces: Sequence[Part]) -> Key:
    """The key with the aggregate that stands after a quoted name, as in `val loss`.min"""
    if len(pieces) == 1:
        return Key(key.kind, key.name, key.position, exact=bool(pieces[0].quote))
    if len(pieces) == 2 and pieces[0].quote and key.kind in ("metric", "any"):
        aggregate = AGGREGATES.get(pieces[1].text[1:])
        if aggregate is not None:
            return Key("metric", pieces[0].text, key.position, aggregate, exact=True)
    return key


def _mlflow_key(token: Token, text: str) -> Key:
    for part in token.parts:
        if not part.quote and not _MLFLOW_PLAIN.fullmatch(part.text):
            message = (
                f"The key '{part.text}' has special characters: put it in back-ticks, as in metrics.`a b`."
            )
            raise FilterError(text, token.position, message)
    prefix, kind, pieces = _split_prefix(token.parts)
    if len(pieces) != 1 or (kind is None and pieces[0].quote == "'"):
        raise FilterError(
            text, token.position, "Expected a key, like metrics.loss, params.`a b` or start_time."
        )
    name = pieces[0].text
    if kind is None and "." in name and not pieces[0].quote:
        message = f"'{name.partition('.')[0]}.' is not one of metrics. params. tags. attributes. dataset."
        raise FilterError(text, token.position, message)
    if kind is None or kind == "attribute":
        if name not in MLFLOW_ATTRIBUTES:
            message = f"Invalid attribute key '{name}' specified: MLflow has none of this name.{closest(name, MLFLOW_ATTRIBUTES)}"
            raise FilterError(text, token.position, message)
        return Key("attribute", MLFLOW_ATTRIBUTES[name], token.position, exact=True)
    if kind == "dataset" and name not in DATASET_KEYS:
        raise FilterError(text, token.position, f"A dataset has name, digest and context, not '{name}'.")
    if not name:
        raise FilterError(text, token.end, f"The name of a {kind} is missing after '{prefix}.'.")
    return Key(kind, name, token.position, exact=True)
