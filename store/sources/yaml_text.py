"""Reading YAML that somebody else wrote: flat files quickly, all others with limits against bombs."""

from __future__ import annotations

import re
from typing import Any

import yaml

from mltrack.store.yaml_limits import BAD_VALUES, Beyond, Loader, check_limits, sentence

_LINE = re.compile(
    r"([A-Za-z_][A-Za-z0-9_]*): ?(?:(null|~|\[\]|)|(-?[1-9][0-9]{0,17}|0)|'([^']*)'|((?!0[bx])(?=[0-9a-f]*[a-f])[0-9a-f]{32}|[A-Za-z][\w./%+-]*(?:://[\w./%+~@:-]+)?))"
)
# Plain words that YAML takes for something else than text.
_NOT_TEXT = re.compile(r"(?i)(?:y|n|yes|no|true|false|on|off|null|inf|nan)\Z")


def load_mapping(data: bytes) -> dict[str, Any]:
    """The mapping that a small YAML file holds. Raises ValueError with the line where it is wrong."""
    text = data.decode("utf-8")
    return _flat(text) or _careful(text)


def _flat(text: str) -> dict[str, Any] | None:
    """``key: value`` lines of plain values as most files hold nothing else: thirty times as fast as the parser."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        key, nothing, number, quoted, plain = match.groups()
        if nothing is not None:
            found[key] = [] if nothing == "[]" else None
        elif number is not None:
            found[key] = int(number)
        elif quoted is not None:
            found[key] = quoted
        elif _NOT_TEXT.match(plain):
            return None
        else:
            found[key] = plain
    return found


def _careful(text: str) -> dict[str, Any]:
    try:
        check_limits(text)
        found = yaml.load(text, Loader)  # one of the safe loaders
    except Beyond as error:
        raise ValueError(f"{_line(error.line)}{error.reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = _line(mark.line + 1 if mark is not None else None)
        if "nesting depth" in str(error):  # newer parsers look ahead, and have a limit of their own
            raise ValueError(f"{place}nested too deeply") from None
        raise ValueError(f"{place}not YAML ({getattr(error, 'problem', None) or sentence(error)})") from None
    except BAD_VALUES as error:
        raise ValueError(f"not YAML ({sentence(error)})") from None
    if not isinstance(found, dict):
        raise ValueError("line 1: not a list of keys and values" if found is not None else "empty")
    return {str(key): value for key, value in found.items()}


def _line(number: int | None) -> str:
    return f"line {number}: " if number else ""
