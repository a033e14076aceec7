"""Which pictures the terminal can draw: pixels by kitty's protocol, sixels, or half-blocks, which every terminal has.

It is asked when the first picture is looked at, never before, and nothing waits for its answer: until then there are half-blocks.
A terminal answers in the order it was asked; the last question is one that every terminal answers.
"""

from __future__ import annotations

import fcntl
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from typing import Literal

from mltrack.tui.raster import Canvas

Kind = Literal["blocks", "kitty", "sixel"]
# Size of a cell in pixels; name and version; what it is able to.
_QUESTIONS = "\x1b[16t\x1b[>0q\x1b[c"
# Kitty's question: a picture of one pixel that is not kept.
_KITTY_QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
# Those that show kitty's pictures where text says so. Others that know the protocol show nothing there.
_PLACEHOLDERS = re.compile(r"kitty|ghostty", re.IGNORECASE)
# These print what they do not understand.
_SILENT = re.compile(r"dumb|unknown|linux|vt\d*|ansi|cons\d*|eterm.*|screen.*|\Z", re.IGNORECASE)
_REPLY = re.compile(
    r"\x1b\[6;(?P<height>\d{1,4});(?P<width>\d{1,4})t"
    r"|\x1bP>\|(?P<name>[^\x1b]{0,100})\x1b\\"
    r"|\x1b_Gi=31;(?P<kitty>[^\x1b]{0,200})\x1b\\"
    r"|\x1b\[\?(?P<able>[\d;]{1,100})c"
)
# Also of keys: what is held back of one comes with the rest of it.
_BEGINNING = re.compile(
    r"\x1b(?:\[(?:6(?:;[\d;]*)?|\?[\d;]*)?|P(?:>(?:\|[^\x1b]{0,100}\x1b?)?)?|_(?:G(?:i(?:=[^\x1b]{0,200}\x1b?)?)?)?)\Z"
)
_USUAL_CELL = (10, 20)
# A page of pictures; less where it has to go through ssh.
_MOST_PIXELS, _MOST_FAR = 1 << 20, 1 << 18


def take_replies(text: str) -> tuple[list[str], str, str]:
    """(answers to our questions, what else was typed, the beginning of an answer that has not come whole)."""
    replies = [found[0] for found in _REPLY.finditer(text)]
    rest = _REPLY.sub("", text)
    begun = _BEGINNING.search(rest)
    return (replies, rest[: begun.start()], begun[0]) if begun else (replies, rest, "")


class Graphics:
    """What is known of the terminal. ``wanted`` is one of config.PICTURE_KINDS; ``colours`` whether it has at least 256."""

    def __init__(self, wanted: str, environ: Mapping[str, str], colours: bool) -> None:
        self.kind: Kind = "blocks"
        self.cell = _cell_of_window() or _USUAL_CELL
        self.tmux = bool(environ.get("TMUX"))
        self._far = any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY"))
        term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
        self._placeholders = bool(_PLACEHOLDERS.search(f"{term} {program}")) and not self.tmux
        silent = bool(_SILENT.fullmatch(term)) and not self.tmux or program == "Apple_Terminal"
        self._asks = colours and wanted != "blocks" and not silent
        self._auto = wanted == "auto" and self._asks
        if wanted == "sixel" or wanted == "kitty" and colours and (not self.tmux or _tmux_passes_on()):
            self.kind = "kitty" if wanted == "kitty" else "sixel"

    def questions(self) -> str:
        """What is to be sent to the terminal before its first picture; "" the second time, and where it is not asked."""
        if not self._asks:
            return ""
        self._asks = False
        return (_KITTY_QUESTION if self._placeholders and self._auto else "") + _QUESTIONS

    def heard(self, reply: str) -> str:
        """Take an answer; returns what is to be asked next."""
        found = _REPLY.fullmatch(reply)
        if found is None:
            return ""
        if found["height"]:
            width, height = int(found["width"]), int(found["height"])
            if 2 <= width <= 200 and 4 <= height <= 200:
                self.cell = (width, height)
        elif found["kitty"] is not None:
            if self._auto and self._placeholders and found["kitty"] == "OK":
                self.kind = "kitty"
        elif found["name"]:
            known, self._placeholders = self._placeholders, bool(_PLACEHOLDERS.match(found["name"]))
            if self._auto and self._placeholders and not known:
                return _KITTY_QUESTION
        elif self._auto and self.kind == "blocks" and "4" in str(found["able"]).split(";")[1:]:
            self.kind = "sixel"
        return ""

    @property
    def canvas(self) -> Canvas | None:
        """What pictures are asked for; None where half-blocks are all there is."""
        if self.kind == "blocks":
            return None
        return Canvas(self.cell, _MOST_FAR if self._far else _MOST_PIXELS)

    def wrapped(self, sequences: str) -> str:
        """As tmux passes it on to the terminal around it."""
        if not self.tmux or self.kind != "kitty":
            return sequences
        parts = sequences.split("\x1b\\")[:-1]
        return "".join(
            "\x1bPtmux;" + (part + "\x1b\\").replace("\x1b", "\x1b\x1b") + "\x1b\\" for part in parts
        )

    def resized(self) -> str:
        """The window has another size, and maybe other letters. Returns what is to be asked."""
        self.cell = _cell_of_window() or self.cell
        return "" if self.kind == "blocks" else "\x1b[16t"


def _cell_of_window() -> tuple[int, int] | None:
    """Width and height of a cell as the kernel has it from the terminal or from ssh; not all say so."""
    for descriptor in (2, 1, 0):
        try:
            rows, columns, wide, high = struct.unpack(
                "HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
            )
        except OSError:
            continue
        if rows and columns and wide // columns >= 2 and high // rows >= 4:
            return wide // columns, high // rows
    return None


def _tmux_passes_on() -> bool:
    """Whether this tmux was told to let programs speak to the terminal around it."""
    try:
        told = subprocess.run(
            ["tmux", "show", "-Apv", "allow-passthrough"],
            capture_output=True,
            text=True,
            timeout=1,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.stdout.strip() in ("on", "all")
