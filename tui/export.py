"""What a screen shows, as a file: csv, json, md, html, svg or plain text, by the ending of its name. Pure but for `write`."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mltrack.tui.clean import cell_width, clean, pad
from mltrack.tui.draw.numbers import parse_number

Value: TypeAlias = str | float | int | None
Span: TypeAlias = tuple[str, str]
StyleOf: TypeAlias = Callable[[str], tuple[str, bool]]
"""Colour (#rrggbb) and boldness of a style's name."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_CELL, _LINE = 8.4, 18


class CannotWrite(Exception):
    """The file was not written; the message is a sentence for the person."""


@dataclass(frozen=True)
class Shown:
    """A table (headings and rows of exact values), or lines of text as they are drawn, or both."""

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[Value]] = ()
    lines: Sequence[Sequence[Span]] = field(default=())

    @property
    def is_table(self) -> bool:
        return bool(self.headings)


def write(path: Path, shown: Shown, style: StyleOf) -> str:
    """Write it, whole or not at all; the sentence that says so. Raises CannotWrite. What exists is not overwritten."""
    ending = path.suffix.lower().lstrip(".")
    if ending not in ENDINGS:
        raise CannotWrite(f"'{path.name}' ends in none of {', '.join('.' + name for name in ENDINGS)}")
    if ending == "csv" and not shown.is_table:
        raise CannotWrite(
            "there is no table here to write as csv; .md, .html, .svg, .json and .txt can hold it"
        )
    text = ENDINGS[ending](shown, style)
    try:
        with path.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise CannotWrite(f"{path} is there already; nothing was overwritten") from None
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from None
    return f"Wrote {_amount(shown)} to {path}"


def to_markdown(shown: Shown) -> str:
    """A pipe table whose columns stand under each other, or the lines as a block of code."""
    if not shown.is_table:
        return f"```\n{_plain(shown)}```\n"
    table = [[_markdown_cell(value) for value in row] for row in (shown.headings, *shown.rows)]
    widths = [max(3, *(cell_width(row[place]) for row in table)) for place in range(len(shown.headings))]
    numeric = [
        all(isinstance(row[place], int | float) or row[place] in (None, "") for row in shown.rows)
        for place in range(len(shown.headings))
    ]
    rule = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)]
    lines = [table[0], rule, *table[1:]]
    return "".join(
        "| "
        + " | ".join(
            pad(cell, width, "right" if right else "left")
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        + " |\n"
        for line in lines
    )


def to_csv(shown: Shown) -> str:
    """RFC 4180 with plain newlines; text that a spreadsheet would take for a formula gets a ' in front."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([_guarded(heading) for heading in shown.headings])
    writer.writerows([_csv_cell(value) for value in row] for row in shown.rows)
    return output.getvalue()


def to_json(shown: Shown) -> str:
    """An object per row, or the lines as texts. NaN and infinities, which JSON does not have, as texts."""
    if not shown.is_table:
        body: object = {"title": shown.title, "lines": _plain(shown).splitlines()}
    else:
        body = [
            {heading: _json_value(value) for heading, value in zip(shown.headings, row, strict=True)}
            for row in shown.rows
        ]
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def to_html(shown: Shown, style: StyleOf) -> str:
    """A page that needs nothing from elsewhere: no script, no font, no image."""
    title = html.escape(clean(shown.title, None))
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font:14px/1.45 system-ui,sans-serif;margin:2em;color:#1c2128}"
        f"table{{border-collapse:collapse;font:13px/1.4 {_MONO}}}th,td{{padding:2px 12px;text-align:left;"
        "border-bottom:1px solid #d5dae0}td.n{text-align:right}"
        f"pre{{font:13px/1.3 {_MONO};background:#121212;color:#d7dce2;padding:1em;overflow:auto}}"
        "</style></head>\n"
        f"<body><h1>{title}</h1>\n"
    )
    if shown.is_table:
        cells = "".join(f"<th>{html.escape(clean(heading, None))}</th>" for heading in shown.headings)
        body = f"<table><thead><tr>{cells}</tr></thead><tbody>\n"
        for row in shown.rows:
            body += (
                "<tr>"
                + "".join(
                    f"<td{' class=n' if isinstance(value, int | float) else ''}>{html.escape(clean(_text(value), None))}</td>"
                    for value in row
                )
                + "</tr>\n"
            )
        body += "</tbody></table>\n"
    else:
        body = "<pre>" + "\n".join(_html_line(line, style) for line in shown.lines) + "</pre>\n"
    return head + body + "</body></html>\n"


def to_svg(shown: Shown, style: StyleOf) -> str:
    """The lines as a picture; text stays text. Needs nothing from elsewhere."""
    lines = shown.lines or [[(line, "")] for line in _plain(shown).splitlines()]
    columns = max((sum(cell_width(clean(text, None)) for text, _ in line) for line in lines), default=1)
    width, height = round(columns * _CELL + 24), len(lines) * _LINE + 24
    ground, _ = style("ground")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{html.escape(clean(shown.title, None))}</title>",
        f'<rect width="100%" height="100%" fill="{ground}"/>',
        f'<g font-family="{html.escape(_MONO)}" font-size="14" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        at = 0
        for raw, name in line:
            text = clean(raw, None)
            cells = cell_width(text)
            if text.strip():
                colour, bold = style(name)
                weight = ' font-weight="bold"' if bold else ""
                # textLength keeps cells under cells whatever font the reader has.
                out.append(
                    f'<text x="{12 + at * _CELL:.1f}" y="{26 + number * _LINE}" fill="{colour}"{weight} '
                    f'textLength="{cells * _CELL:.1f}" lengthAdjust="spacingAndGlyphs">{html.escape(text)}</text>'
                )
            at += cells
    return "\n".join([*out, "</g>", "</svg>", ""])


ENDINGS: dict[str, Callable[[Shown, StyleOf], str]] = {
    "csv": lambda shown, style: to_csv(shown),
    "json": lambda shown, style: to_json(shown),
    "md": lambda shown, style: to_markdown(shown),
    "html": to_html,
    "svg": to_svg,
    "txt": lambda shown, style: _plain(shown),
}


def _plain(shown: Shown) -> str:
    if shown.is_table and not shown.lines:
        table = [[clean(_text(value), None) for value in row] for row in (shown.headings, *shown.rows)]
        widths = [max(cell_width(row[place]) for row in table) for place in range(len(shown.headings))]
        lines = [
            "  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
    else:
        lines = ["".join(clean(text, None) for text, _ in line).rstrip() for line in shown.lines]
    return "\n".join(lines) + "\n"


def _amount(shown: Shown) -> str:
    if shown.is_table:
        return f"{len(shown.rows):,} row{'' if len(shown.rows) == 1 else 's'}"
    return f"{len(shown.lines):,} line{'' if len(shown.lines) == 1 else 's'}"


def _text(value: Value) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _guarded(text: str) -> str:
    """A spreadsheet that opens the file must not compute what somebody wrote into a name."""
    return "'" + text if text.startswith(_FORMULA) and parse_number(text) is None else text


def _csv_cell(value: Value) -> str:
    return _guarded(value) if isinstance(value, str) else _text(value)


def _markdown_cell(value: Value) -> str:
    text = clean(_csv_cell(value), None)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _json_value(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _html_line(line: Sequence[Span], style: StyleOf) -> str:
    parts = []
    for raw, name in line:
        text = html.escape(clean(raw, None))
        colour, bold = style(name)
        weight = ";font-weight:bold" if bold else ""
        parts.append(f'<span style="color:{colour}{weight}">{text}</span>' if name else text)
    return "".join(parts)


def free_name(folder: Path, stem: str, ending: str) -> Path:
    """A name that nothing has yet: stem.ending, stem-2.ending, ..."""
    number = 1
    while True:
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}.{ending}"
        if not os.path.lexists(path):
            return path
        number += 1
