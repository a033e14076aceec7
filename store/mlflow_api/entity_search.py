"""MLflow's search language over lists of experiments, registered models, versions and logged models.

Terms joined by AND over attributes and tags. Runs have columns and search.py; these lists are short enough to be looked
through.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Any, Literal

import orjson

from mltrack.store.mlflow_api.wire import invalid

MAX_FILTER = 10_000
MAX_TERMS = 100
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*")
      | (?P<op>!=|>=|<=|=|>|<)
      | (?P<mark>[(),])
      | (?P<word>(?:[^\s'"`(),=<>!]|`[^`]*`|(?<=\.)"[^"]*")+)
    )""",
    re.VERBOSE,
)
Kind = Literal["text", "number"]
_TEXT_OPERATORS = frozenset(("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"))
_NUMBER_OPERATORS = frozenset(("=", "!=", ">", ">=", "<", "<="))
_PREFIXES = {
    "attribute": "attribute", "attributes": "attribute", "attr": "attribute",
    "tag": "tag", "tags": "tag",
    "metric": "metric", "metrics": "metric",
    "param": "param", "params": "param", "parameter": "param", "parameters": "param",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing that can be found: what it is, and what is asked about it."""

    row: Any
    attributes: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Term:
    kind: str
    key: str
    operator: str
    value: Any


def search(
    entities: Sequence[Entity],
    filter: str,
    order_by: Sequence[str],
    kinds: Mapping[str, str],
    default: Sequence[tuple[str, bool]],
    aliases: Mapping[str, str] | None = None,
    absent_matches: frozenset[str] = frozenset(),
    order_kinds: Mapping[str, str] | None = None,
    lists: frozenset[str] | None = None,
    everything: bool = False,
    nulls: bool = True,
    order_word: str = "attribute",
    twice: bool = False,
) -> list[Entity]:
    """Those that match, in order.

    ``kinds``: attribute -> text or number. ``default``: (attribute, descending). ``absent_matches``: tags whose absence is as good as
    "false". ``order_kinds`` and ``lists``: the attributes that may order and that may be compared with a list, if not those of
    ``kinds``. ``everything``: params and metrics may be asked for, too, and a text may stand without quotes. ``nulls``: so may whether
    an attribute is there. ``order_word``: what the error about an attribute that cannot order calls it. ``twice``: an attribute may
    order twice; the first time counts. Raises ApiError for anything that is not in the language.
    """
    names = aliases or {}
    terms = _parse(filter, kinds, names, everything)
    for term in terms:
        if term.kind in ("param", "metric") and not everything:
            raise invalid(
                f"Invalid entity type '{term.kind}s'. Valid entity types are ('attribute', 'tag', 'tags')"
            )
        if "IN" in term.operator.split() and term.kind != "attribute":
            raise invalid(f"Expected a quoted string value for {term.kind} (e.g. 'my-value'). Got a list.")
        if "IN" in term.operator.split() and lists is not None and term.key not in lists:
            raise invalid(
                f"Only {sorted(lists)} attributes support comparison with a list of quoted string values."
            )
        if not nulls and term.kind == "attribute" and term.operator.startswith("IS"):
            raise invalid(f"IS NULL / IS NOT NULL is only supported for tags, not for attribute '{term.key}'")
    found = [entity for entity in entities if all(_matches(entity, term, absent_matches) for term in terms)]
    orders = order_kinds if order_kinds is not None else kinds
    keys = [_order_key(text, orders, names, order_word) for text in order_by]
    if not twice and len({key for key, _ in keys}) != len(keys):
        raise invalid(f"`order_by` contains duplicate fields: {list(order_by)}")
    chosen = [key for key, _ in keys]
    keys += [pair for pair in default if pair[0] not in chosen]

    def compare(one: Entity, other: Entity) -> int:
        for key, descending in keys:
            left, right = one.attributes.get(key), other.attributes.get(key)
            if left == right:
                continue
            if left is None or right is None:
                return 1 if left is None else -1
            return (-1 if left < right else 1) * (-1 if descending else 1)
        return 0

    return sorted(found, key=cmp_to_key(compare))


def paged(
    found: Sequence[Entity], most: int, token: str, asked: Mapping[str, Any] | None = None
) -> tuple[Sequence[Entity], str | None]:
    """A page of at most ``most``, and the token of the next one. ``asked``: what a token is good for, if not for anything; by the
    names that errors call it by."""
    start = offset_of(token, asked)
    page = found[start : start + most]
    more = start + most < len(found)
    return page, token_of(start + most, asked) if more else None


def token_of(offset: int, asked: Mapping[str, Any] | None = None) -> str:
    """A page token that continues at ``offset``."""
    return base64.b64encode(json.dumps({"offset": offset, **(asked or {})}).encode()).decode("ascii")


def offset_of(token: str, asked: Mapping[str, Any] | None = None) -> int:
    """The place that a page token continues at."""
    if not token:
        return 0
    try:
        said = orjson.loads(base64.b64decode(token, validate=True))
        offset = said["offset"]
        if type(offset) is not int or offset < 0:
            raise ValueError("offset")
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise invalid(f"Invalid page token, could not base64-decode: '{token[:80]}'") from None
    for name, value in (asked or {}).items():
        if said.get(name) != value:
            do = "do" if name.endswith("s") else "does"
            raise invalid(
                f"{name} in the page token {do} not match the requested {name[0].lower()}{name[1:]}."
            )
    return offset


def _parse(
    text: str, kinds: Mapping[str, str], aliases: Mapping[str, str], unquoted: bool = False
) -> list[_Term]:
    if len(text) > MAX_FILTER:
        raise invalid(f"The filter has {len(text)} characters; at most {MAX_FILTER} can be used.")
    tokens: list[tuple[str, str]] = []
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise invalid(f"Invalid filter '{text}': '{text[place:][:20]}' is not understood.")
        tokens.append((str(match.lastgroup), match.group(match.lastgroup or 0)))
        place = match.end()
    terms: list[_Term] = []
    at = 0

    def take() -> tuple[str, str]:
        nonlocal at
        if at >= len(tokens):
            raise invalid(f"Invalid clause(s) in filter string: '{text}' ends too soon.")
        at += 1
        return tokens[at - 1]

    while at < len(tokens):
        # MLflow reads AND as a mere space between terms: clients leave one at an end.
        if tokens[at][0] == "word" and tokens[at][1].upper() == "AND":
            at += 1
            continue
        if tokens[at][1].upper() == "OR":
            raise invalid(f"Invalid clause(s) in filter string: OR (expected AND in '{text}').")
        if len(terms) >= MAX_TERMS:
            raise invalid(f"The filter has more than {MAX_TERMS} terms.")
        group, name = take()
        if group not in ("word", "quoted"):
            raise invalid(f"Invalid filter '{text}': expected a name, found '{name}'.")
        kind, key = _key(name, kinds, aliases)
        _, operator = take()
        operator = operator.upper()
        if operator == "NOT":
            operator += " " + take()[1].upper()
        if operator == "IS":
            following = take()[1].upper()
            operator += " " + (following if following != "NOT" else "NOT " + take()[1].upper())
        number = kind == "metric" or (kind == "attribute" and kinds[key] == "number")
        if operator not in (_NUMBER_OPERATORS if number else _TEXT_OPERATORS):
            raise invalid(f"Invalid comparator '{operator}' for {kind} '{key}' in the filter '{text}'.")
        value: Any = None
        if operator in ("IN", "NOT IN"):
            value = _list(take)
        elif not operator.startswith("IS"):
            value = _value(*take(), number, text, unquoted)
        terms.append(_Term(kind, key, operator, value))
    return terms


def _key(
    name: str, kinds: Mapping[str, str], aliases: Mapping[str, str], word: str = "attribute"
) -> tuple[str, str]:
    prefix, dot, rest = name.partition(".")
    kind = _PREFIXES.get(prefix.lower()) if dot else None
    key = _unquoted(rest if kind else name)
    if kind in ("tag", "param", "metric"):
        if not key:
            raise invalid(f"Invalid filter: '{name}' names no key.")
        return kind, key
    key = aliases.get(key, key)
    if key not in kinds:
        raise invalid(f"Invalid {word} key '{key[:80]}' specified. Valid keys are {sorted(kinds)}.")
    return "attribute", key


def _unquoted(name: str) -> str:
    if len(name) >= 2 and name[0] == name[-1] and name[0] in '`"':
        return name[1:-1]
    return name


def _value(group: str, text: str, number: bool, filter: str, unquoted: bool) -> Any:
    if number:
        try:
            return float(text)
        except ValueError:
            raise invalid(f"Expected a number, found {text} in the filter '{filter}'.") from None
    if group == "word" and unquoted:
        return text
    if group != "quoted":
        raise invalid(
            "Parameter value is either not quoted or unidentified quote types used for string value"
            f" {text}. Use either single or double quotes."
        )
    return _text(text)


def _text(quoted: str) -> str:
    return quoted[1:-1].replace("''", "'") if quoted[0] == "'" else quoted[1:-1]


def _list(take: Callable[[], tuple[str, str]]) -> list[str]:
    """``('a', 'b')``; a comma may stand before the closing bracket."""
    problem = "While parsing a list in the query, expected "
    if take()[1] != "(":
        raise invalid("Invalid clause(s) in filter string: IN needs a list in brackets.")
    values: list[str] = []
    while True:
        group, text = take()
        if text == ")" and values:
            return values
        if group == "mark":
            found = "empty list" if text == ")" else "ill-formed list"
            raise invalid(f"{problem}a non-empty list of string values, but got {found}")
        if group != "quoted":
            raise invalid(
                f"{problem}string value, punctuation, or whitespace, but got different type in list: {text}"
            )
        values.append(_text(text))
        mark = take()[1]
        if mark == ")":
            return values
        if mark != ",":
            raise invalid(f"{problem}a non-empty list of string values, but got ill-formed list")


def _matches(entity: Entity, term: _Term, absent_matches: frozenset[str]) -> bool:
    """Whether one thing satisfies a term. Of a metric with several values (of data sets, steps), one that does is enough."""
    if term.kind == "metric":
        return any(_compared(value, term) for value in entity.metrics.get(term.key, ()))
    values: Mapping[str, Any] = {
        "attribute": entity.attributes,
        "tag": entity.tags,
        "param": entity.params,
    }[term.kind]
    value = values.get(term.key)
    if term.operator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (term.operator == "IS NULL")
    if value is None:
        return term.kind == "tag" and term.key in absent_matches and _compared("false", term)
    return _compared(value, term)


def _compared(value: Any, term: _Term) -> bool:
    match term.operator:
        case "=":
            return bool(value == term.value)
        case "!=":
            return bool(value != term.value)
        case "IN":
            return value in term.value
        case "NOT IN":
            return value not in term.value
        case "LIKE" | "ILIKE":
            return _like(str(value), str(term.value), term.operator == "ILIKE")
        case ">":
            return bool(value > term.value)
        case ">=":
            return bool(value >= term.value)
        case "<":
            return bool(value < term.value)
        case _:
            return bool(value <= term.value)


def _like(text: str, pattern: str, any_case: bool) -> bool:
    """SQL's pattern, by dynamic programming over the parts between `%`: no pattern can make it slow."""
    if any_case:
        text, pattern = text.lower(), pattern.lower()
    parts = pattern.split("%")
    if len(parts) == 1:
        return len(text) == len(pattern) and _at(text, 0, pattern)
    first, *middle, last = parts
    if (
        len(text) < len(first) + len(last)
        or not _at(text, 0, first)
        or not _at(text, len(text) - len(last), last)
    ):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        while place + len(part) <= end and not _at(text, place, part):
            place += 1
        if place + len(part) > end:
            return False
        place += len(part)
    return True


def _at(text: str, place: int, part: str) -> bool:
    return all(
        wanted in ("_", found) for wanted, found in zip(part, text[place : place + len(part)], strict=True)
    )


def _order_key(
    text: str, kinds: Mapping[str, str], aliases: Mapping[str, str], word: str
) -> tuple[str, bool]:
    words = text.strip().rsplit(None, 1)
    direction = words[1].upper() if len(words) == 2 else ""
    name = words[0] if direction in ("ASC", "DESC") else text.strip()
    if not name or len(name.split()) > 1 and name[-1] not in '`"':
        raise invalid(f"Invalid order_by clause '{text[:200]}'. Could not be parsed.")
    kind = _PREFIXES.get(name.partition(".")[0].lower()) if "." in name else None
    if kind not in (None, "attribute"):
        raise invalid(f"Invalid order by key '{name[:80]}' specified: only attributes order this list.")
    _, key = _key(name, kinds, aliases, word)
    return key, direction == "DESC"
