"""Output as a terminal would end up showing it: progress bars leave their last state, lines come out when final. Pure."""

from __future__ import annotations

import re

# Nested bars: how many lines below the highest one may be repainted.
SCREEN_LINES = 24
# A line without end comes out in pieces of this size, so that neither memory nor redaction is unbounded.
LINE_CHARACTERS = 1 << 16

# Output in pieces: plain text, line ends, terminal sequences (CSI, OSC, two characters). Colours are kept; what moves
# the cursor or sets a title is obeyed or dropped.
_PARTS = re.compile(
    r"(?:[^\n\r\x1b]|\x1b\[[0-9;]*m)+|\n|\r+\n?|\x1b\[[0-9;?]*[@-~]|\x1b\][^\x07\x1b]{0,1000}(?:\x07|\x1b\\)|\x1b[^\[\]]|\x1b"
)
_UNFINISHED = re.compile(r"\r+|\x1b(?:\[[0-9;?]{0,30}|\][^\x07\x1b]{0,1000}\x1b?)?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CSI = re.compile(r"\x1b\[([0-9;?]*)([@-~])")


class Screen:
    """One stream of text as finished lines and the state of those that may still be repainted."""

    def __init__(self) -> None:
        self._rows: list[str] = [""]
        self._row = 0
        self._replace = False  # the next text begins the line anew
        # How far the stream has climbed above its lowest line: so many finished lines may still be repainted. A plain
        # program never climbs, so its lines are final at once.
        self._depth = 0
        self._waiting = ""  # the beginning of a sequence, or a carriage return, whose rest is still to come

    def feed(self, text: str) -> list[str]:
        """Take more output; returns the lines that are finished by it, without their newlines."""
        if self._waiting:
            text, self._waiting = self._waiting + text, ""
        if "\r" not in text and "\x1b" not in text and not self._depth and not self._replace:
            # The common case, and the one a fast printing loop takes.
            lines = text.split("\n")
            lines[0] = self._rows[0] + lines[0]
            self._rows[0] = lines.pop()
            return lines + self._overlong()
        done: list[str] = []
        for part in _PARTS.finditer(text):
            piece = part[0]
            if piece[0] in "\r\x1b" and _UNFINISHED.fullmatch(text, part.start()):
                self._waiting = text[part.start() :]
                break
            if piece[-1] == "\n":
                done += self._newline()
            elif piece[0] == "\r":
                self._replace = True
            elif piece[0] == "\x1b" and not _COLOUR.match(piece):
                self._escape(piece)
            else:
                self._write(piece)
                done += self._overlong()
        return done

    def finish(self) -> list[str]:
        """The lines that were still open, at the end of the stream."""
        rows = self._rows
        while rows and not rows[-1]:
            rows.pop()
        self._rows, self._row, self._waiting = [""], 0, ""
        return rows

    @property
    def open_line(self) -> str:
        """The present state of the line the cursor is on."""
        return self._rows[self._row]

    def _newline(self) -> list[str]:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append("")
            self._replace = False
        else:
            self._replace = True  # a line that is there already is painted over
        done = self._rows[: max(0, self._row - self._depth)]
        del self._rows[: len(done)]
        self._row -= len(done)
        return done

    def _write(self, piece: str) -> None:
        if self._replace:
            self._replace = False
            self._rows[self._row] = ""
        self._rows[self._row] += piece

    def _escape(self, piece: str) -> None:
        sequence = _CSI.fullmatch(piece)
        if sequence is None:
            return
        parameter, command = sequence.groups()
        if command in "AF":
            climb = _amount(parameter)
            self._depth = max(self._depth, min(climb + len(self._rows) - 1 - self._row, SCREEN_LINES))
            self._row = max(0, self._row - climb)
            self._replace = True
        elif command in "BE":
            self._row = min(len(self._rows) - 1, self._row + _amount(parameter))
            self._replace = True
        elif command == "K" and (self._replace or parameter == "2"):
            self._rows[self._row] = ""

    def _overlong(self) -> list[str]:
        line = self._rows[self._row]
        if len(line) <= LINE_CHARACTERS:
            return []
        self._rows[self._row] = ""
        return [line[start : start + LINE_CHARACTERS] for start in range(0, len(line), LINE_CHARACTERS)]


def _amount(parameter: str) -> int:
    return int(parameter) if parameter.isdigit() and 0 < int(parameter[:4]) and len(parameter) < 5 else 1
