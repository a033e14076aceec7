"""Limits for YAML that somebody else wrote, looked after on the parser's events, before anything is made of them.

Not deep, few aliases, and those may neither lead back to themselves nor make much of little: whoever walks through the values later
needs no limits of their own. A number of a million digits would take the parser minutes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

DEPTH = 50
ALIASES = 100
VALUES = 1_000_000
DIGITS = 1_000
BAD_VALUES = (ValueError, OverflowError, KeyError, AttributeError, RecursionError)
"""What the parser raises, beside its own errors, for values that are not what their tag or form says."""
_NUMBER = re.compile(r"[-+.0-9][-+0-9_:.xXa-fA-F]*\Z")

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Makes plain values only."""


class Beyond(Exception):
    """A document beyond the limits. ``line``: where, from 1, if that is known."""

    def __init__(self, reason: str, event: yaml.Event) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line: int | None = event.start_mark.line + 1 if event.start_mark is not None else None


def check_limits(text: str) -> None:
    """Raises Beyond, and YAMLError for what is no YAML."""
    aliases = 0
    # Of each collection that is open: its anchor, and how many values it holds so far, aliases followed.
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=Loader):
        size = 1
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > ALIASES:
                raise Beyond(f"it has more than {ALIASES} aliases (*name)", event)
            name = event.anchor or ""
            if any(name == anchor for anchor, _ in opened):
                raise Beyond(f"its alias *{name[:50]} leads back to itself", event)
            size = sizes.get(name, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1))
            if len(opened) > DEPTH:
                raise Beyond(f"it is nested deeper than {DEPTH} levels", event)
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
            if anchor is not None:
                sizes[anchor] = size
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        elif len(event.value) > DIGITS and _is_number(event):
            raise Beyond(f"a number in it has {len(event.value):,} characters", event)
        if opened:
            opened[-1] = (opened[-1][0], opened[-1][1] + size)
            if opened[-1][1] > VALUES:
                raise Beyond(f"it stands for more than {VALUES:,} values", event)


def _is_number(event: yaml.ScalarEvent) -> bool:
    plain = bool(event.implicit and event.implicit[0]) or (event.tag or "").endswith((":int", ":float"))
    return plain and _NUMBER.match(event.value) is not None


def sentence(error: BaseException) -> str:
    """What a parser or a value says, in one line."""
    if isinstance(error, (KeyError, AttributeError)):
        return "a value is not what its tag says"
    return " ".join(str(error).split())[:300]
