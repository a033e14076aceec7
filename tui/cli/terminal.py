"""What the output can show: a terminal or a file, how wide, colours, which characters."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TextIO

from mltrack.tui.draw.glyphs import to_ascii

PLAIN_WIDTH = 80
"""Columns where no terminal says how many it has: what a file or a pager is readable with."""

_CODES = {
    **{
        "bold": "1",
        "dim": "2",
        "red": "31",
        "green": "32",
        "yellow": "33",
        "blue": "34",
        "magenta": "35",
        "cyan": "36",
    },
    **{"header": "2", "best": "1;32", "link": "4"},
}
# Told apart also by people who see few colours: no red beside green, first the ones that differ in brightness.
CURVE_COLOURS = ("36", "33", "35", "34", "32", "31", "96", "93", "95", "94")


@dataclass(frozen=True)
class Terminal:
    """The abilities of one output stream."""

    width: int
    height: int
    is_tty: bool
    colour: bool
    ascii: bool

    def style(self, text: str, style: str | None) -> str:
        """Colour cleaned text by the name of a style; a curve's colour is `curve:<index>`."""
        if not self.colour or not style or not text:
            return text
        if style.startswith("curve:"):
            code = CURVE_COLOURS[int(style[6:]) % len(CURVE_COLOURS)]
        else:
            code = ";".join(_CODES[part] for part in style.split())
        return f"\x1b[{code}m{text}\x1b[0m"

    def fold(self, text: str) -> str:
        """The text in characters this stream can show."""
        return to_ascii(text) if self.ascii else text


def detect_terminal(stream: TextIO | None = None, *, ascii_only: bool = False) -> Terminal:
    """Look at `stream` (standard output) and the environment."""
    stream = sys.stdout if stream is None else stream
    try:
        is_tty = stream is not None and stream.isatty()
    except ValueError:  # closed
        is_tty = False
    term = os.environ.get("TERM", "")
    columns, lines = PLAIN_WIDTH, 24
    if is_tty:
        columns, lines = shutil.get_terminal_size((PLAIN_WIDTH, 24))
    elif os.environ.get("COLUMNS", "").isdigit():
        columns = max(20, int(os.environ["COLUMNS"]))
    colour = (is_tty and term != "dumb" or _is_set("FORCE_COLOR")) and not _is_set("NO_COLOR")
    return Terminal(
        max(20, columns), max(5, lines), is_tty, colour, ascii_only or _needs_ascii(stream, is_tty, term)
    )


def prepare_streams() -> None:
    """No character may end the program: what the encoding does not have is written as a backslash escape."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def pause(seconds: float) -> None:
    """Wait, and raise BrokenPipeError as soon as nobody reads what is printed: `| head` has what it wants long before there is
    something more to say."""
    poll = select.poll()
    poll.register(1, 0)
    for _, what in poll.poll(seconds * 1000):
        if what & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
        time.sleep(seconds)  # something that cannot be polled


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _needs_ascii(stream: TextIO | None, is_tty: bool, term: str) -> bool:
    if _is_set("MLTRACK_ASCII"):
        return True
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "")
    if not encoding.startswith("utf"):
        return True
    # Python writes UTF-8 in the C locale too. Whoever asked for that locale by name gets ASCII; where nothing is set at
    # all (docker exec, cron) the terminal is nearly always UTF-8.
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    return locale in ("C", "POSIX") or (is_tty and term == "linux")
