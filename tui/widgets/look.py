"""From spans of text to strips: the one place where text becomes cells, so the one place where it is made harmless."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.strip import Strip

from mltrack.tui.clean import cell_width, clean, clip
from mltrack.tui.draw.glyphs import to_ascii
from mltrack.tui.widgets.themes import PALETTES, Palette

Span: TypeAlias = tuple[str, str]
"""Text (cleaned when it is drawn) and the name of a style."""
Line: TypeAlias = tuple[Span, ...]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_ascii_only = False
_KEPT_LENGTH = 256
_HANGING = 4
_palette = PALETTES["dark"]


def use_ascii(wanted: bool) -> None:
    """Draw in ASCII from now on (`--ascii`)."""
    global _ascii_only
    _ascii_only = wanted


def use_theme(name: str) -> Palette:
    """Draw in the colours of this theme from now on."""
    global _palette
    _palette = PALETTES[name]
    style_of.cache_clear()
    _blank_alike.cache_clear()
    return _palette


@lru_cache(1024)
def style_of(name: str) -> Style:
    """The style of a name: words of the theme, `curve:<index>`, `fg:#rrggbb`, `bg:#rrggbb`, or several with spaces."""
    style = Style() if _palette.ansi else Style(color=_palette.text, bgcolor=_palette.ground)
    parts = name.split()
    for part in parts:
        if part.startswith("curve:"):
            colours = _palette.ghosts if "ghost" in parts else _palette.curves
            style += Style(color=colours[int(part[6:]) % len(colours)])
        elif part.startswith(("fg:", "bg:")):
            # Where a theme has no colours of its own, data has none either.
            if _palette.name != "plain":
                style += Style(color=part[3:]) if part.startswith("fg:") else Style(bgcolor=part[3:])
        else:
            style += Style(**_palette.parts.get(part, {}))  # type: ignore[arg-type]  # Style's arguments
    return style


def hex_style(name: str) -> tuple[str, bool]:
    """The colour of a style as #rrggbb and whether it is bold, for pictures; "ground" is what lies below."""
    palette = PALETTES["dark"] if _palette.ansi else _palette
    if name == "ground":
        return palette.ground, False
    style = style_of(name)
    colour = style.color
    known = colour is not None and colour.triplet is not None
    return (colour.triplet.hex if known and colour and colour.triplet else palette.text), bool(style.bold)


def lines_of_strips(strips: Iterable[Strip]) -> list[Line]:
    """What is on a screen as lines of spans, empty lines at the end left out."""
    lines: list[Line] = []
    for strip in strips:
        spans: list[Span] = []
        for segment in strip:
            if segment.control is not None:
                continue
            style = segment.style
            colour = f"fg:{style.color.triplet.hex}" if style and style.color and style.color.triplet else ""
            spans.append((segment.text, f"{colour} bold" if style and style.bold else colour))
        lines.append(tuple(spans))
    while lines and not any(text.strip() for text, _ in lines[-1]):
        lines.pop()
    return lines


def shown(text: str) -> str:
    """What is drawn for a text: harmless, one line, in the characters that were asked for."""
    if text.isascii() and text.isprintable():
        return text
    # The same pieces of charts and tables are drawn again and again; long texts are not worth keeping.
    return _shown(text, _ascii_only) if len(text) <= _KEPT_LENGTH else _shown.__wrapped__(text, _ascii_only)


def broken(line: Line, width: int) -> list[Line]:
    """A line in pieces that fit, broken between words; what goes on below stands under its second span, where it has one."""
    if sum(cell_width(shown(text)) for text, _ in line) <= width:
        return [line]
    first = cell_width(shown(line[0][0])) if len(line) > 1 else 0
    gap: Span = (" " * (first if 0 < first <= width // 2 else _HANGING), "")
    pieces: list[list[Span]] = [[]]
    used = 0
    for text, style in line:
        for word in re.findall(" +|[^ ]+", text):
            long = cell_width(shown(word))
            if used + long > width:
                if word.isspace():
                    continue
                pieces.append([gap])
                used = len(gap[0])
            pieces[-1].append((word, style))
            used += long
    return [tuple(piece) for piece in pieces]


@lru_cache(8192)
def _shown(text: str, ascii_only: bool) -> str:
    text = clean(text, None)
    return to_ascii(text) if ascii_only else text


@lru_cache(16_384)
def _piece(text: str, ascii_only: bool) -> tuple[str, int]:
    return _measured(text)


def _measured(text: str) -> tuple[str, int]:
    """What is drawn for a text, and how many cells it takes."""
    piece = shown(text)
    return piece, cell_width(piece)


def strip_of(line: Iterable[Span], width: int, ground: str = "") -> Strip:
    """Exactly ``width`` cells; neighbours of one style share a segment, what does not fit ends in `…`."""
    segments: list[Segment] = []
    room = width
    text, current = "", ""
    for raw, name in line:
        piece, cells = _piece(raw, _ascii_only) if len(raw) <= _KEPT_LENGTH else _measured(raw)
        if cells > room:
            piece = clip(piece, room)
            if _ascii_only:
                piece = to_ascii(piece)
            cells = cell_width(piece)
        if name != current and text:
            if piece.isspace() and current is not None and _blank_alike(name, current):
                name = current  # a gap needs no colours of its own: half as many escapes on the wire
        if name != current and text:
            segments.append(Segment(text, style_of(f"{current} {ground}")))
            text = ""
        current = name
        text += piece
        room -= cells
        if room <= 0:
            break
    if room > 0 and not current:
        text += " " * room
        room = 0
    if text:
        segments.append(Segment(text, style_of(f"{current} {ground}")))
    if room > 0:
        segments.append(Segment(" " * room, style_of(ground)))
    return Strip(segments, width)


def lit(text: str, style: str, sought: str) -> Sequence[Span]:
    """The matches of a search lit up."""
    where, wanted = (text.lower(), sought) if sought.lower() == sought else (text, sought)
    spans: list[Span] = []
    place = 0
    while (hit := where.find(wanted, place)) >= 0 and len(where) == len(text):
        spans += [(text[place:hit], style), (text[hit : hit + len(wanted)], "match")]
        place = hit + len(wanted)
    spans.append((text[place:], style))
    return [span for span in spans if span[0]]


@lru_cache(4096)
def _blank_alike(one: str, other: str) -> bool:
    """Whether a space looks the same in both styles."""
    left, right = style_of(one), style_of(other)
    return (left.bgcolor, left.underline, left.reverse) == (right.bgcolor, right.underline, right.reverse)


def blank(width: int) -> Strip:
    """An empty line on the theme's ground."""
    return Strip([Segment(" " * width, style_of(""))], width)


def spans_of(pairs: Sequence[Sequence[str]]) -> Line:
    """A line as the worker sends it: [[text, style], ...]."""
    return tuple((str(text), str(style)) for text, style in pairs)


class LastFilter(LineFilter):
    """The last line of defence: whatever slipped through, no control character leaves for the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(_CONTROL.sub("�", segment.text), segment.style)
            if segment.control is None and _CONTROL.search(segment.text)
            else segment
            for segment in segments
        ]
