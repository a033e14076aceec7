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

Span: TypeAlias = tuple[str, str]
"""Text (cleaned when it is drawn) and the name of a style."""
Line: TypeAlias = tuple[Span, ...]

# Bright enough on a dark ground (4.5:1) and told apart by brightness too; a terminal of 16 colours takes the nearest.
_COLOURS = {
    "red": "#ff7a70",
    "green": "#6fd08c",
    "yellow": "#e8c35a",
    "blue": "#7fb4e8",
    "magenta": "#d49be0",
    "cyan": "#64cfd6",
}
CURVES = (
    "#5cc8ff",
    "#ffb454",
    "#d49be0",
    "#6fd08c",
    "#ff7a70",
    "#e8e36a",
    "#9aa7ff",
    "#ff9ecf",
    "#7fe0c8",
    "#c9b18a",
)
DIM, FAINT, TEXT = "#8a939e", "#59626d", "#d7dce2"
_PARTS = {
    "": {},
    "bold": {"bold": True},
    "dim": {"color": DIM},
    "faint": {"color": FAINT},
    "header": {"color": DIM, "bold": True},
    "best": {"color": "#8ff0a4", "bold": True},
    "key": {"color": "#e8c35a"},
    "bar": {"bgcolor": "#262626"},
    "cursor": {"bgcolor": "#3a3a3a"},
    "here": {"bold": True, "color": "#ffffff", "bgcolor": "#005f87"},
    "error": {"color": "#ff7a70", "bold": True},
    "link": {"underline": True},
    **{name: {"color": colour} for name, colour in _COLOURS.items()},
}
_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_SGR_NAMES = {
    **{"1": "bold", "2": "dim", "31": "red", "32": "green", "33": "yellow", "34": "blue", "35": "magenta"},
    **{"36": "cyan", "1;32": "best", "4": "link"},
}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_ascii_only = False


def use_ascii(wanted: bool) -> None:
    """Draw in ASCII from now on (`--ascii`)."""
    global _ascii_only
    _ascii_only = wanted


@lru_cache(512)
def style_of(name: str) -> Style:
    """The style of a name: words of the table above, `curve:<index>`, or several with spaces between them."""
    style = Style(color=TEXT)
    for part in name.split():
        if part.startswith("curve:"):
            style += Style(color=CURVES[int(part[6:]) % len(CURVES)])
        else:
            style += Style(**_PARTS.get(part, {}))  # type: ignore[arg-type]  # the table holds Style's arguments
    return style


def shown(text: str) -> str:
    """What is drawn for a text: harmless, one line, in the characters that were asked for."""
    text = clean(text, None)
    return to_ascii(text) if _ascii_only else text


def strip_of(line: Iterable[Span], width: int, ground: str = "") -> Strip:
    """Exactly ``width`` cells; neighbours of one style share a segment, what does not fit ends in `…`."""
    segments: list[Segment] = []
    room = width
    text, current = "", None
    for raw, name in line:
        piece = shown(raw)
        cells = cell_width(piece)
        if cells > room:
            piece = clip(piece, room)
            if _ascii_only:
                piece = to_ascii(piece)
            cells = cell_width(piece)
        if name != current and text:
            segments.append(Segment(text, style_of(f"{current} {ground}")))
            text = ""
        current = name
        text += piece
        room -= cells
        if room <= 0:
            break
    if text:
        segments.append(Segment(text, style_of(f"{current} {ground}")))
    if room > 0:
        segments.append(Segment(" " * room, style_of(ground)))
    return Strip(segments, width)


def parse_printed(page: str) -> list[Line]:
    """Lines that the command printed for a terminal, its colours as styles. Its data was cleaned: every ESC is ours."""
    lines: list[Line] = []
    for row in page.splitlines():
        spans: list[Span] = []
        place, style = 0, ""
        for hit in _SGR.finditer(row):
            if hit.start() > place:
                spans.append((row[place : hit.start()], style))
            style = _SGR_NAMES.get(hit.group(1), "")
            place = hit.end()
        spans.append((row[place:], style))
        lines.append(tuple(spans))
    return lines


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
