"""Where the lines of a log begin: one mark for every so many lines, so that any page of any log is read at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

_EVERY = 256
_BLOCK_BYTES = 4 << 20
# Of a longer log only the end can be paged through; more would keep the worker from folding.
MOST_BYTES = 256 << 20
_LONGEST_LINE = 1 << 16


class LogIndex:
    """The lines of one file from ``begin`` on. Lines are counted from 0; the last may still be growing."""

    def __init__(self, path: Path, begin: int) -> None:
        self.path = path
        size = path.stat().st_size
        self.left_out = max(0, size - MOST_BYTES - begin)
        self.begin = begin + self.left_out
        self._marks = [self.begin]
        self._lines = 0
        self._scanned = self.begin
        self._identity = (0, 0)
        self._tail = b""

    @property
    def total(self) -> int:
        """How many lines there are, the unfinished last one included."""
        return self._lines + bool(self._tail)

    def fits(self, path: Path) -> bool:
        """Whether this still is an index of that file: it has only grown."""
        facts = path.stat()
        return (
            path == self.path
            and (facts.st_dev, facts.st_ino) == self._identity
            and facts.st_size >= self._scanned
        )

    def update(self, file: BinaryIO) -> None:
        """Take in what was added."""
        facts = os.fstat(file.fileno())
        self._identity = (facts.st_dev, facts.st_ino)
        self._tail = b""
        file.seek(self._scanned)
        while block := file.read(_BLOCK_BYTES):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
            if not len(ends):
                self._tail = block[-1:]
                if len(block) < _BLOCK_BYTES:
                    break
                self._scanned += len(block)
                continue
            chosen = ends[(-self._lines - 1) % _EVERY :: _EVERY]
            self._marks += (chosen + self._scanned + 1).tolist()
            self._lines += len(ends)
            last = int(ends[-1]) + 1
            self._tail = block[last:][-1:]
            self._scanned += last
            if len(block) < _BLOCK_BYTES:
                break
            file.seek(self._scanned)

    def read(self, file: BinaryIO, first: int, count: int) -> list[bytes]:
        """The lines ``first`` to ``first + count``, as far as they are there; overlong ones cut."""
        first = max(0, first)
        file.seek(self.place_of(file, first))
        lines: list[bytes] = []
        for _ in range(min(count, self.total - first)):
            line = file.readline(_LONGEST_LINE)
            if not line:
                break
            lines.append(line)
            while not line.endswith(b"\n"):
                line = file.readline(_LONGEST_LINE)
                if not line:
                    break
        return lines

    def place_of(self, file: BinaryIO, line: int) -> int:
        """The byte at which a line begins."""
        mark = min(line // _EVERY, len(self._marks) - 1)
        place = self._marks[mark]
        skip = line - mark * _EVERY
        file.seek(place)
        while skip > 0:
            block = file.read(1 << 16)
            if not block:
                break
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
            if len(ends) >= skip:
                return place + int(ends[skip - 1]) + 1
            skip -= len(ends)
            place += len(block)
        return place

    def line_of(self, file: BinaryIO, place: int) -> int:
        """The line that the byte at ``place`` belongs to."""
        mark = int(np.searchsorted(np.array(self._marks), place, "right")) - 1
        line = mark * _EVERY
        at = self._marks[mark]
        file.seek(at)
        while at < place:
            block = file.read(min(1 << 16, place - at))
            if not block:
                break
            line += block.count(b"\n")
            at += len(block)
        return line
