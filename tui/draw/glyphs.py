"""The signs of the program: a glyph never stands without its word, and each has an ASCII twin of equal width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mltrack.tui.clean import cell_width

ASCII_TWINS = {
    **{
        "●": "*",
        "⚑": "P",
        "✓": "+",
        "✗": "x",
        "?": "?",
        "!": "!",
        "○": "o",
        "★": "*",
        "▲": "^",
        "△": "^",
        "▽": "v",
        "¦": ":",
        "▼": "v",
        "↑": "^",
        "↓": "v",
    },
    **{
        "…": "~",
        "·": ".",
        "±": "~",
        "✎": "n",
        "—": "-",
        "–": "-",
        "›": ">",
        "→": ">",
        "⏎": "/",
        "␛": "^",
        "⟨": "<",
    },
    **{
        "⟩": ">",
        "×": "x",
        "∞": "i",
        "◌": "o",
        "␡": "^",
        "│": "|",
        "─": "-",
        "┤": "+",
        "└": "+",
        "┴": "+",
        "├": "+",
    },
    **{"▸": ">", "▾": "v", "◄": "<", "▌": "|", "━": "=", "┅": "-", "╌": "-", "’": "'"},
    **dict(zip("▁▂▃▄▅▆▇█", "_.-~=+*#", strict=True)),
}


@dataclass(frozen=True)
class StatusLook:
    """How a status is shown: glyph, word, and the name of its colour."""

    glyph: str
    word: str
    colour: str


STATUS_LOOKS = {
    "RUNNING": StatusLook("●", "running", "green"),
    "SCHEDULED": StatusLook("○", "queued", "cyan"),
    "FINISHED": StatusLook("✓", "done", "blue"),
    "FAILED": StatusLook("✗", "failed", "red"),
    "KILLED": StatusLook("✗", "killed", "red"),
    "LOST": StatusLook("!", "LOST", "yellow"),
}
QUIET = StatusLook("?", "quiet", "yellow")
DAMAGED = StatusLook("!", "damaged", "red")
UNKNOWN = StatusLook("?", "unknown", "yellow")


def count_glyphs(counts: Mapping[str, int]) -> list[tuple[StatusLook, int]]:
    """How many runs have each glyph: without their words, statuses of one glyph are one number (failed and killed)."""
    found: dict[str, tuple[StatusLook, int]] = {}
    for status, look in STATUS_LOOKS.items():
        if counts.get(status):
            found[look.glyph] = (look, found.get(look.glyph, (look, 0))[1] + counts[status])
    return list(found.values())


def to_ascii(text: str) -> str:
    """The same text for a terminal that shows only ASCII: our glyphs become their twins, the rest backslash escapes."""
    if text.isascii():
        return text
    out: list[str] = []
    for character in text:
        if character.isascii():
            out.append(character)
        elif character in ASCII_TWINS:
            out.append(ASCII_TWINS[character])
        elif 0x2400 <= ord(character) <= 0x241F:
            out.append("^")  # the picture of a control character
        elif 0x2800 <= ord(character) <= 0x28FF:
            out.append("*")
        else:
            out.append(character.encode("ascii", "backslashreplace").decode("ascii"))
    return "".join(out)


def keeps_width(text: str) -> bool:
    """Whether the ASCII twin is as wide as the text (true for all our own glyphs)."""
    return len(to_ascii(text)) == cell_width(text)
