"""Writing results: text through clean(), JSON that is exact, CSV that no spreadsheet executes."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from mltrack.tui.clean import clean
from mltrack.tui.cli.terminal import Terminal
from mltrack.tui.draw.numbers import parse_number

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
Command = TypeVar("Command", bound=Callable[..., Any])


def list_options(command: Command) -> Command:
    """`--json`, `--csv` and `--raw`, the same on every list."""
    command = click.option(
        "--raw", is_flag=True, help="With --csv: leave cells that a spreadsheet takes for formulas."
    )(command)
    command = click.option(
        "--csv", "as_csv", is_flag=True, help="Print comma-separated values with a heading line."
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON; numbers are exact.")(command)


def json_number(value: float | None) -> float | str | None:
    """A float for JSON: exact; NaN and infinities, which JSON does not have, as texts."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def write_json(value: object) -> None:
    """One JSON document. ASCII only: exact in any locale, and harmless on a terminal."""
    json.dump(
        value,
        sys.stdout,
        ensure_ascii=True,
        allow_nan=False,
        separators=(",", ":") if not _is_tty() else None,
    )
    sys.stdout.write("\n")


def write_csv(heading: Sequence[str], rows: Iterable[Sequence[object]], *, raw: bool = False) -> None:
    """Comma-separated values, RFC 4180 with plain newlines. Floats as repr, times as given, None empty."""
    # On a screen every cell is cleaned; in a file the bytes stay what they are.
    shown = _on_screen if _is_tty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([shown(_csv_cell(name, raw)) for name in heading])
    for row in rows:
        writer.writerow([shown(_csv_cell(value, raw)) for value in row])


def write_lines(lines: Iterable[str]) -> None:
    """Lines that are cleaned and coloured already."""
    text = "\n".join(lines)
    if text:
        sys.stdout.write(text + "\n")


def write_text(text: str, terminal: Terminal, style: str | None = None) -> None:
    """One line of our own words with data in it."""
    sys.stdout.write(terminal.style(terminal.fold(clean(text, None)), style) + "\n")


def warn(message: str) -> None:
    """A sentence on standard error, after the name of the program."""
    try:
        lines = [clean(line, None) for line in message.split("\n")]
        sys.stderr.write("mltrack: " + "\n".join(lines) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return  # nobody is there to read it


def _csv_cell(value: object, raw: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    if (
        not raw
        and text.startswith(_FORMULA_STARTS)
        and not isinstance(value, int)
        and parse_number(text) is None
    ):
        return "'" + text
    return text


def _on_screen(text: str) -> str:
    return clean(text, None)


def _is_tty() -> bool:
    try:
        return sys.stdout.isatty()
    except (ValueError, AttributeError):
        return False
