"""The one border between data and a terminal: `clean()`, and the cell arithmetic that goes with it.

Names, parameters, tags, paths, log lines and error messages come from programs and people we do not know. Whatever they
hold, what `clean()` returns is one line of visible characters: no control sequence, nothing that reorders or hides
text, no character whose width a terminal could disagree about, no more cells than asked for. The store keeps the bytes
exactly as they were; only what is shown is changed, and always so that one can see that something was there.

Widths follow what Textual lays out with (a test compares every character). Only the standard library is imported: the
`mltrack` command must start quickly.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Literal

CELL_LIMIT = 200
"""Cells of the longest cell of a table; longer text ends in an ellipsis."""

ELLIPSIS = "…"

# More than four marks on one letter is decoration ("zalgo") that paints over the rows above and below.
_MARKS_PER_LETTER = 4

# No honest cell needs more code points than this per column; the rest is never looked at, so that a cell of many
# megabytes costs what a small one costs.
_POINTS_PER_CELL = 8

# The caches below would otherwise grow with hostile text, up to 1.1 million entries.
_CACHE_ENTRIES = 50_000
_KEPT_LENGTH = 256

# Wide since Unicode 16, which the running Python may not know yet.
_NEWLY_WIDE = ((0x2630, 0x2637), (0x268A, 0x268F), (0x4DC0, 0x4DFF), (0x1D300, 0x1D356), (0x1D360, 0x1D376))
# Emoji and ideographs that Unicode 15 to 17 assign: shown as they are even where Python does not know them.
_RECENT_WIDE = (
    *((0x1F6D8, 0x1F6D8), (0x1F6DC, 0x1F6DC), (0x1FA75, 0x1FA77), (0x1FA87, 0x1FA8A), (0x1FA8E, 0x1FA8F)),
    *((0x1FAAD, 0x1FAAF), (0x1FABB, 0x1FABF), (0x1FAC6, 0x1FAC6), (0x1FAC8, 0x1FAC8), (0x1FACD, 0x1FACF)),
    *((0x1FADA, 0x1FADC), (0x1FADF, 0x1FADF), (0x1FAE8, 0x1FAEA), (0x1FAEF, 0x1FAEF), (0x1FAF7, 0x1FAF8)),
    *((0x20000, 0x2FFFD), (0x30000, 0x3FFFD)),
)
# Letters by category that nevertheless draw nothing.
_INVISIBLE_LETTERS = frozenset(
    (0x115F, 0x1160, 0x3164, 0xFFA0, 0x17B4, 0x17B5, 0x034F, 0x180B, 0x180C, 0x180D, 0x180F)
)
# In terminals that draw pictures it stands for a piece of one: only pictures of ours are laid out with it.
_PICTURE_CELL = 0x10EEEE
# Vowels and final consonants of conjoining Hangul draw into the cell of the first consonant.
_CONJOINING = ((0x1161, 0x11FF), (0xD7B0, 0xD7FB))
_VARIATIONS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_DOTTED_CIRCLE = "\u25cc"


def clean(text: str, limit: int | None = CELL_LIMIT) -> str:
    """Return `text` as one harmless line of at most `limit` cells (None: as long as it is).

    Control characters become visible: ESC is `␛`, the others of C0 their pictures, C1 is `\\x9b`, line ends are `⏎`, a
    tab is `→`. Characters that reorder text or draw nothing become `⟨U+202E⟩`, lone surrogates `⟨U+D800⟩` or, where
    they stand for an undecodable byte, `\\xff`.
    """
    if limit is None:
        if text.isascii() and text.isprintable():
            return text
    else:
        if len(text) <= limit and text.isascii() and text.isprintable():
            return text
        if limit <= 0:
            return ""
        reach = limit * _POINTS_PER_CELL + 1
        if len(text) > reach:
            text = text[:reach] + " " * limit  # whatever is here is cut off by clip(), with its ellipsis
    if len(_shown) > _CACHE_ENTRIES:
        _shown.clear()
    shown = text.replace("\r\n", "\n").translate(_shown)
    if not shown.isascii():
        shown = _tame_marks(shown)
    return shown if limit is None else clip(shown, limit)


def cell_width(text: str) -> int:
    """Terminal cells that cleaned text takes."""
    if text.isascii():
        return len(text)
    return _kept_width(text) if len(text) <= _KEPT_LENGTH else _wide_width(text)


@lru_cache(16_384)
def _kept_width(text: str) -> int:
    """The same pieces of charts and tables are measured again and again."""
    return _wide_width(text)


def _wide_width(text: str) -> int:
    if len(_widths) > _CACHE_ENTRIES:
        _widths.clear()
    return sum(map(_widths.__getitem__, text))


def clip(text: str, cells: int, *, keep: Literal["head", "tail"] = "head") -> str:
    """Cut cleaned text to at most `cells` cells, never inside a letter with its marks; what was cut shows as `…`.

    keep="tail" cuts at the front, for paths and names whose end tells them apart.
    """
    if cells <= 0:
        return ""
    if len(text) <= cells and text.isascii():
        return text
    if cell_width(text) <= cells:
        return text
    room = cells - 1
    if keep == "tail":
        return ELLIPSIS + _tail(text, room)
    used = 0
    for index, character in enumerate(text):
        width = _widths[character]
        if used + width > room:
            return text[:index] + ELLIPSIS
        used += width
    return text  # not reached: the text is wider than the room


def pad(text: str, cells: int, align: Literal["left", "right", "center"] = "left") -> str:
    """Fill cleaned text with spaces to exactly `cells` cells, clipping what is too wide."""
    text = clip(text, cells)
    missing = cells - cell_width(text)
    if missing <= 0:
        return text
    if align == "right":
        return " " * missing + text
    if align == "center":
        return " " * (missing // 2) + text + " " * (missing - missing // 2)
    return text + " " * missing


def wrap(text: str, cells: int, most: int = 4) -> list[str]:
    """Clean a sentence and break it at spaces into lines of at most ``cells``; a word too long for one is cut in pieces.

    Beyond ``most`` lines the rest shows as `…`.
    """
    lines: list[str] = []
    for word in clean(text, None).split(" "):
        while cell_width(word) > cells:
            piece = clip(word, cells).removesuffix("…")
            lines.append(piece)
            word = word[len(piece) :]
        if lines and cell_width(lines[-1]) + 1 + cell_width(word) <= cells:
            lines[-1] += " " + word
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], clip(" ".join(lines[most - 1 :]), cells)]
    return lines


def _tail(text: str, room: int) -> str:
    used = 0
    start = len(text)
    for index in range(len(text) - 1, -1, -1):
        width = _widths[text[index]]
        if used + width > room:
            break
        used += width
        if width:  # a mark alone is no place to start: its letter may not fit
            start = index
    return text[start:]


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


def _width(character: str) -> int:
    code = ord(character)
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Mc") or _within(code, _CONJOINING):
        return 0
    if _within(code, _NEWLY_WIDE) or _within(code, _RECENT_WIDE):
        return 2
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class _Widths(dict[str, int]):
    """Cells of a character, remembered."""

    def __missing__(self, character: str) -> int:
        width = self[character] = _width(character)
        return width


class _Shown(dict[int, str]):
    """What is shown for a code point, as `str.translate` asks for it, remembered."""

    def __missing__(self, code: int) -> str:
        shown = self[code] = _show(code)
        return shown


def _show(code: int) -> str:
    character = chr(code)
    if code in (0x0A, 0x0D, 0x85, 0x2028, 0x2029):
        return "⏎"
    if code == 0x09:
        return "→"
    if code == 0x1B:
        return "␛"
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if 0x80 <= code <= 0x9F:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(character)
    hidden = category in ("Cc", "Cf", "Cs", "Zl", "Zp") or code in _INVISIBLE_LETTERS or code == _PICTURE_CELL
    unknown = category == "Cn" and not _within(code, _RECENT_WIDE)
    if hidden or unknown or _within(code, _VARIATIONS) and code not in (0xFE0E, 0xFE0F):
        return f"⟨U+{code:04X}⟩"
    return character


def _is_pictograph(character: str) -> bool:
    return character in "#*0123456789©®" or unicodedata.category(character) == "So"


def _tame_marks(text: str) -> str:
    """Give every mark a letter, every letter few marks, and emoji the one width all terminals agree on."""
    if not any(_widths[character] == 0 or 0x1F3FB <= ord(character) <= 0x1F3FF for character in text):
        return text
    out: list[str] = []
    base = ""
    marks = 0
    dropped = 0
    for character in text:
        code = ord(character)
        if code in (0xFE0E, 0xFE0F):
            # Presentation selectors change the width in some terminals only; without them all agree.
            if not (base and _is_pictograph(base)):
                out.append(f"⟨U+{code:04X}⟩")
            continue
        if 0x1F3FB <= code <= 0x1F3FF and base and _is_pictograph(base):
            continue  # a skin tone: two cells of its own in one terminal, none in another
        if _widths[character] == 0:
            if not base:
                out.append(_DOTTED_CIRCLE)
                base = _DOTTED_CIRCLE
            marks += 1
            if marks <= _MARKS_PER_LETTER:
                out.append(character)
            else:
                dropped += 1
            continue
        if dropped:
            out.append(f"⟨+{dropped}⟩")
        base, marks, dropped = character, 0, 0
        out.append(character)
    if dropped:
        out.append(f"⟨+{dropped}⟩")
    return "".join(out)


_widths = _Widths()
_shown = _Shown()
