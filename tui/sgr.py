"""Colours in a log: SGR sequences become names of styles, and nothing else of a terminal's language gets through.

What is left of other sequences is text, which `clean()` makes visible where it becomes cells.
"""

from __future__ import annotations

import re

# A program that paints a progress bar erases lines and hides the cursor: that means nothing in a log.
_NOISE = re.compile(r"\x1b\[(?:[0-2]?K|\?25[hl]|\?7[hl])")
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
# The usual 16 as RGB, where a program asks for them by number; the names above follow the theme.
_LEVELS = (0, 95, 135, 175, 215, 255)
_LONGEST = 64_000

Spans = list[tuple[str, str]]


def spans_of_line(line: bytes) -> Spans:
    """(text, style) of a line of a log as a terminal would show it in the end: of a line that was painted over again and
    again (carriage returns) the last state. Styles are words: red, bold, dim, link, `fg:#rrggbb`."""
    text = line.rstrip(b"\r\n")[:_LONGEST].decode("utf-8", "surrogateescape")
    if "\x1b" not in text:
        return [(_last_state(text).expandtabs(8), "")]
    text = _NOISE.sub("", text)
    spans: Spans = []
    state = _State()
    place = 0
    for hit in _SGR.finditer(text):
        _append(spans, text[place : hit.start()], state.style())
        state.take(hit[1])
        place = hit.end()
    _append(spans, text[place:], state.style())
    return spans or [("", "")]


def plain(spans: Spans) -> str:
    """The text alone."""
    return "".join(text for text, _ in spans)


def _append(spans: Spans, text: str, style: str) -> None:
    if "\r" in text:
        rest = _last_state(text)
        # What was painted before the carriage return is gone, with whatever colours it had.
        if rest != text:
            spans.clear()
        text = rest
    if text:
        spans.append((text.expandtabs(8), style))


def _last_state(text: str) -> str:
    return text.rsplit("\r", 1)[-1] if "\r" in text else text


class _State:
    """Which colours are on."""

    def __init__(self) -> None:
        self.colour = ""
        self.marks: set[str] = set()

    def style(self) -> str:
        return " ".join(part for part in (self.colour, *sorted(self.marks)) if part)

    def take(self, codes: str) -> None:
        numbers = [int(part) if part.isdigit() and len(part) < 4 else 0 for part in re.split("[;:]", codes)]
        place = 0
        while place < len(numbers):
            number = numbers[place]
            place += 1
            if number == 0:
                self.colour = ""
                self.marks.clear()
            elif number in (1, 2, 4):
                self.marks.add({1: "bold", 2: "dim", 4: "link"}[number])
            elif number == 22:
                self.marks -= {"bold", "dim"}
            elif number == 24:
                self.marks.discard("link")
            elif 30 <= number <= 37 or 90 <= number <= 97:
                name = _NAMES[number % 10]
                self.colour = "dim" if name == "black" else "" if name == "white" else name
            elif number == 39:
                self.colour = ""
            elif number in (38, 48):
                colour, taken = _extended(numbers[place:])
                place += taken
                if number == 38:
                    self.colour = colour


def _extended(numbers: list[int]) -> tuple[str, int]:
    """The colour of 38;5;n or 38;2;r;g;b behind the 38, and how many numbers it takes."""
    if len(numbers) >= 2 and numbers[0] == 5:
        return _of_256(numbers[1]), 2
    if len(numbers) >= 4 and numbers[0] == 2:
        return _readable(*(min(255, value) for value in numbers[1:4])), 4
    return "", len(numbers)


def _of_256(number: int) -> str:
    if number < 16:
        name = _NAMES[number % 8]
        return "dim" if name == "black" else "" if name == "white" else name
    if number < 232:
        number -= 16
        return _readable(_LEVELS[number // 36], _LEVELS[number // 6 % 6], _LEVELS[number % 6])
    grey = min(255, 8 + (number - 232) * 10)
    return _readable(grey, grey, grey)


def _readable(red: int, green: int, blue: int) -> str:
    """A colour that can be read on our ground: what is too dark is dim text."""
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    return f"fg:#{red:02x}{green:02x}{blue:02x}" if light >= 90 else "dim"
