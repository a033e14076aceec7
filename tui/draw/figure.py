"""A chart as vectors, for paper: curves and sizes in, lines and labels out, and those as SVG or PDF. Pure.

Lengths are points (1/72 inch), y grows downwards. Nothing is taken from elsewhere: no font file, no style sheet, no script.
"""

from __future__ import annotations

import html
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mltrack.tui.clean import clean
from mltrack.tui.draw.braille import curve_letter
from mltrack.tui.draw.scales import Scale, ScaleName, choose_scale, choose_ticks, label_ticks

# Told apart by people who see fewer colours too, and in print; dashes tell those beyond them apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#5b4b8a", "#333333")
DASHES = ("", "4 2", "1 1.5", "6 2 1 2")
# A column of a paper, and a height that suits it.
PAPER_WIDTH, PAPER_HEIGHT = 252.0, 168.0
_FONT, _TITLE = 7.0, 8.0
_GREY, _INK, _GRID = "#666666", "#1c2128", "#dddddd"
# Width of a digit of Helvetica and its kin in ems, a little too wide rather than too narrow.
_EM = 0.56
_IN_LEGEND = 12
# Helvetica's own encoding has no arrows.
_NO_ARROWS = {ord("↑"): None, ord("↓"): None}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FigureCurve:
    """One line: NaN and infinities are gaps. ``low`` and ``high`` are the edges of a band around it, where there is one."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True)
class Stroke:
    """A line through points, or with ``fill`` the area inside of them."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 0.5
    dash: str = ""
    fill: bool = False


@dataclass(frozen=True)
class Label:
    """Text whose start, middle or end (``anchor``) stands at a place."""

    x: float
    y: float
    text: str
    colour: str = _INK
    size: float = _FONT
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True)
class Drawing:
    """What is drawn, first the lowest."""

    width: float
    height: float
    items: tuple[Stroke | Label, ...]


def draw_figure(
    curves: Sequence[FigureCurve],
    title: str,
    width: float = PAPER_WIDTH,
    height: float = PAPER_HEIGHT,
    *,
    y_scale: ScaleName = "linear",
    x_label: str = "step",
    legend: bool = True,
) -> Drawing:
    """The curves over each other with axes; a letter at each end, and what the letters mean below."""
    named = list(enumerate(curves))[:_IN_LEGEND] if legend and len(curves) > 1 else []
    rows = _legend_rows(named, width) if named else []
    more = len(curves) - _IN_LEGEND if named else 0
    bottom = height - 12 - 10 * (len(rows) + (1 if more > 0 else 0)) - (8 if x_label else 0)
    items: list[Stroke | Label] = [Label(4, 10, title, size=_TITLE, bold=True)]
    finite = [_finite(curve, y_scale) for curve in curves]
    xs = np.concatenate([x for x, _ in finite]) if finite else np.empty(0)
    ys = np.concatenate([y for _, y in finite]) if finite else np.empty(0)
    if not len(xs):
        items.append(Label(width / 2, height / 2, "no values", _GREY, anchor="middle"))
        return Drawing(width, height, tuple(items))
    x_axis = choose_scale(float(xs.min()), float(xs.max()))
    y_axis = choose_scale(float(ys.min()), float(ys.max()), y_scale)
    y_ticks = choose_ticks(y_axis, max(2, int((bottom - 18) / 22)))
    y_labels = label_ticks(y_ticks)
    left = 8 + max((len(text) for text in y_labels), default=1) * _FONT * _EM
    right, top = width - 12, 18.0
    x_ticks = choose_ticks(x_axis, max(2, int((right - left) / 45)))

    def place(axis: Scale, values: Floats, first: float, last: float) -> Floats:
        return first + axis.place(values) * (last - first)

    for tick, text in zip(y_ticks, y_labels, strict=True):
        at = float(place(y_axis, np.array([tick]), bottom, top)[0])
        items += [
            Stroke(((left, at), (right, at)), _GRID, 0.4),
            Label(left - 3, at + 2.4, text, _GREY, anchor="end"),
        ]
    for tick, text in zip(x_ticks, label_ticks(x_ticks, counts=True), strict=True):
        at = float(place(x_axis, np.array([tick]), left, right)[0])
        items += [
            Stroke(((at, bottom), (at, bottom + 2)), _GREY),
            Label(at, bottom + 9, text, _GREY, anchor="middle"),
        ]
    items.append(Stroke(((left, top), (left, bottom), (right, bottom)), _GREY, 0.6))
    if x_label:
        items.append(Label((left + right) / 2, bottom + 17, x_label, _GREY, anchor="middle"))
    for index, curve in enumerate(curves):
        colour, dash = look_of(index)
        x = place(x_axis, curve.x, left, right)
        if curve.low is not None and curve.high is not None:
            low, high = (
                np.clip(place(y_axis, edge, bottom, top), top, bottom) for edge in (curve.low, curve.high)
            )
            inside = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
            outline = [
                *zip(x[inside], high[inside], strict=True),
                *reversed(list(zip(x[inside], low[inside], strict=True))),
            ]
            items.append(Stroke(tuple((float(a), float(b)) for a, b in outline), colour, fill=True))
        y = place(y_axis, curve.y, bottom, top)
        pieces = list(_pieces(x, y))
        items += [Stroke(piece, colour, 0.9, dash) for piece in pieces]
        if pieces and len(curves) > 1:
            end = pieces[-1][-1]
            items.append(Label(end[0] + 2, end[1] + 2.4, curve_letter(index), colour, bold=True))
    at = bottom + (28 if x_label else 20)
    for row in rows:
        for x_place, index, name in row:
            colour, dash = look_of(index)
            items += [
                Stroke(((x_place, at - 2.4), (x_place + 12, at - 2.4)), colour, 1.2, dash),
                Label(x_place + 15, at, f"{curve_letter(index)} {name}"),
            ]
        at += 10
    if more > 0:
        items.append(Label(8, at, f"and {more:,} more", _GREY))
    return Drawing(width, height, tuple(items))


def look_of(index: int) -> tuple[str, str]:
    """Colour and dashes of a curve."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def _finite(curve: FigureCurve, y_scale: ScaleName) -> tuple[Floats, Floats]:
    parts = [curve.y, *(edge for edge in (curve.low, curve.high) if edge is not None)]
    xs, ys = [], []
    for part in parts:
        drawn = np.isfinite(curve.x) & np.isfinite(part) & ((part > 0) | (y_scale != "log"))
        xs.append(curve.x[drawn])
        ys.append(part[drawn])
    return np.concatenate(xs), np.concatenate(ys)


def _pieces(x: Floats, y: Floats) -> Iterator[tuple[tuple[float, float], ...]]:
    """The stretches between gaps; a point alone is a short line."""
    piece: list[tuple[float, float]] = []
    for a, b in [*zip(x.tolist(), y.tolist(), strict=True), (math.nan, math.nan)]:
        if math.isfinite(a) and math.isfinite(b):
            piece.append((a, b))
        elif piece:
            yield (
                tuple(piece)
                if len(piece) > 1
                else ((piece[0][0] - 0.5, piece[0][1]), (piece[0][0] + 0.5, piece[0][1]))
            )
            piece = []


def _legend_rows(
    named: Sequence[tuple[int, FigureCurve]], width: float
) -> list[list[tuple[float, int, str]]]:
    rows: list[list[tuple[float, int, str]]] = [[]]
    at = 8.0
    for index, curve in named:
        name = clean(curve.name, 40)
        wide = 15 + (len(name) + 2) * _FONT * _EM + 10
        if rows[-1] and at + wide > width:
            rows.append([])
            at = 8.0
        rows[-1].append((at, index, name))
        at += wide
    return rows


# -- as SVG


def to_svg(drawing: Drawing, name: str = "") -> str:
    """A picture that stands alone in a file or in a page; ``name`` is what a reader of screens says."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width:g}pt" height="{drawing.height:g}pt" '
        f'viewBox="0 0 {drawing.width:g} {drawing.height:g}" font-family="Helvetica, Arial, sans-serif" role="img">'
    ]
    if name:
        out.append(f"<title>{_escaped(name)}</title>")
    for item in drawing.items:
        if isinstance(item, Label):
            weight = ' font-weight="bold"' if item.bold else ""
            out.append(
                f'<text x="{item.x:.1f}" y="{item.y:.1f}" font-size="{item.size:g}" fill="{item.colour}" '
                f'text-anchor="{item.anchor}"{weight}>{_escaped(item.text)}</text>'
            )
        else:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
            if item.fill:
                out.append(f'<polygon points="{points}" fill="{item.colour}" fill-opacity="0.15"/>')
            else:
                dash = f' stroke-dasharray="{item.dash}"' if item.dash else ""
                out.append(
                    f'<polyline points="{points}" fill="none" stroke="{item.colour}" '
                    f'stroke-width="{item.width:g}" stroke-linejoin="round"{dash}/>'
                )
    return "\n".join([*out, "</svg>", ""])


def _escaped(text: str) -> str:
    return html.escape(clean(text, None))


# -- as PDF


def to_pdf(drawing: Drawing) -> bytes:
    """One page of exactly the drawing's size, in the fonts that every reader of PDF has; letters outside of Latin-1 are '?'."""
    body = [b"q", f"1 0 0 -1 0 {drawing.height:g} cm".encode()]
    for item in drawing.items:
        red, green, blue = (int(item.colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        if isinstance(item, Label):
            raw = clean(item.text, None).translate(_NO_ARROWS).rstrip().encode("latin-1", "replace")
            text = raw.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
            wide = len(raw) * item.size * _EM
            x = item.x - {"start": 0.0, "middle": wide / 2, "end": wide}[item.anchor]
            font = b"F2" if item.bold else b"F1"
            body.append(
                b"BT %.3f %.3f %.3f rg /%b %g Tf 1 0 0 -1 %.2f %.2f Tm (%b) Tj ET"
                % (red, green, blue, font, item.size, x, item.y, text)
            )
            continue
        path = b" ".join(
            b"%.2f %.2f %c" % (x, y, b"m" if place == 0 else b"l") for place, (x, y) in enumerate(item.points)
        )
        if item.fill:
            faint = (0.85 + 0.15 * red, 0.85 + 0.15 * green, 0.85 + 0.15 * blue)
            body.append(b"%.3f %.3f %.3f rg " % faint + path + b" f")
        else:
            body.append(
                b"%.3f %.3f %.3f RG %g w [%b] 0 d 1 j %b S"
                % (red, green, blue, item.width, item.dash.encode(), path)
            )
    stream = zlib.compress(b"\n".join([*body, b"Q"]))
    fonts = b"/F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >> "
    fonts += b"/F2 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %g %g] /Contents 4 0 R /Resources << /Font << %b >> >> >>"
        % (drawing.width, drawing.height, fonts),
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(stream), stream),
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
