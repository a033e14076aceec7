"""The text of a command before its parameters are known: literal characters and the places where values go."""

from __future__ import annotations

import string
from dataclasses import dataclass

from mltrack.projects.errors import ProjectError


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A place for the value of a parameter, with the format that str.format would apply to it."""

    name: str
    format: str = ""


Item = str | Placeholder
"""One character, or a placeholder."""


def parse_template(template: str) -> list[Item]:
    """The items of a str.format template. Raises ProjectError for what str.format cannot fill by name."""
    items: list[Item] = []
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ProjectError(
            f"The command has a brace without its partner ({error}); write {{{{ and }}}} for plain braces."
        ) from None
    for literal, name, form, conversion in parsed:
        items += literal
        if name is None:
            continue
        if not name or name.isdigit():
            raise ProjectError(
                f"The command holds '{{{name}}}', which names no parameter; write {{{{{name}}}}} for plain braces."
            )
        if any(mark in name for mark in ".[") or conversion not in (None, "s") or "{" in (form or ""):
            raise ProjectError(
                f"The command holds '{{{name}}}' with more than a name; use a plain {{name}} of a parameter."
            )
        items.append(Placeholder(name, form or ""))
    return items
