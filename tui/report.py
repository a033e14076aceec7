"""One static page about runs: the table, the curves, what differs and why. Pure: text in, HTML out.

The page loads nothing: no script, no font, no image, no style from elsewhere, and a policy in it forbids that to the browser too. Every
text that comes from data is cleaned and escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from mltrack.tui.clean import clean

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1.5em; color: #1c2128 }
h1 { font-size: 22px; margin: 0 } h2 { font-size: 16px; margin: 2em 0 .5em; border-bottom: 1px solid #d5dae0 }
p.dim, td.dim { color: #6a737d } .scroll { overflow-x: auto }
table { border-collapse: collapse; font: 13px/1.45 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace }
th, td { padding: 2px 14px 2px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eceff2; white-space: pre-wrap;
  overflow-wrap: anywhere; min-width: 6em }
td.best { color: #116329; font-weight: bold } td.yellow { color: #8a5a00 } td.error, td.red { color: #b3261e } td.green { color: #116329 }
.charts { display: flex; flex-wrap: wrap; gap: 12px } .charts svg { border: 1px solid #eceff2; max-width: 100%; height: auto }
pre { font: 12px/1.4 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; background: #f6f8fa; padding: 1em; overflow: auto }
pre .green { color: #116329 } pre .red { color: #b3261e } pre .cyan { color: #0550ae } pre .bold { font-weight: bold }
pre .yellow { color: #8a5a00 } pre .dim { color: #6a737d }
@media print { body { margin: 0; max-width: none } .charts svg { break-inside: avoid } }
"""
_STYLES = frozenset(("best", "yellow", "error", "red", "green", "dim", "cyan", "bold"))

Cell = tuple[str, str]
"""(text, style)"""
Line = Sequence[Sequence[str]]
"""Pairs of [text, style], as screens show them."""


@dataclass(frozen=True)
class Table:
    """A heading per column and rows of cells; ``folded`` is behind a click."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Texts:
    """Lines as a screen shows them: diffs, reasons."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Report:
    """``charts`` are SVG elements, made by us; everything else is text."""

    title: str
    subtitle: str
    tables: Sequence[Table]
    charts: Sequence[str]
    texts: Sequence[Texts] = field(default=())


def to_page(report: Report) -> str:
    """The page."""
    title = _text(report.title)
    out = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head>",
        f'<body><h1>{title}</h1><p class="dim">{_text(report.subtitle)}</p>',
    ]
    out += [_table(table) for table in report.tables[:1]]
    if report.charts:
        out.append(f'<h2>Curves</h2><div class="charts">{"".join(report.charts)}</div>')
    out += [_table(table) for table in report.tables[1:]]
    for texts in report.texts:
        lines = "\n".join(_line(line) for line in texts.lines)
        out.append(f"<h2>{_text(texts.title)}</h2><pre>{lines}</pre>")
    return "\n".join([*out, "</body></html>", ""])


def _table(table: Table) -> str:
    heads = "".join(f"<th>{_text(heading)}</th>" for heading in table.headings)
    rows = "\n".join(
        "<tr>" + "".join(f"<td{_class(style)}>{_text(text)}</td>" for text, style in row) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="dim">{_text(table.note)}</p>' if table.note else ""
    body = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table></div>{note}'
    if table.folded:
        return f"<details><summary>{_text(table.title)}</summary>{body}</details>"
    return f"<h2>{_text(table.title)}</h2>{body}"


def _line(line: Line) -> str:
    return "".join(
        f"<span{_class(style)}>{_text(text)}</span>" if _class(style) else _text(text) for text, style in line
    )


def _class(style: str) -> str:
    """Only styles of ours: a name that is no style stands in no attribute."""
    return f' class="{style}"' if style in _STYLES else ""


def _text(text: str) -> str:
    return html.escape(clean(text, None))
