"""console.log: what a program printed, as a file that stays readable and bounded.

Complete lines are appended. A progress bar that repaints itself with carriage returns (or climbs with cursor-up, as
nested bars do) leaves only its last state: the file's last, unfinished line is its present state and is rewritten in
place. So the rule for readers is that of the journal: bytes up to the last newline are final (until the file is cut),
the rest is "not yet". Tokens and passwords are replaced before anything is written.

Above 64 MiB the middle is cut: the first 32 MiB stay, a line says how much is missing, and of what follows at least the
last 16 MiB are kept.
"""

from __future__ import annotations

import os
import re
from _thread import RLock
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from mltrack.store.client.console_screen import LINE_CHARACTERS, Screen
from mltrack.store.client.journal import open_file, share_mode
from mltrack.store.client.secrets import redact_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD_BYTES = 32 << 20
TAIL_BYTES = 32 << 20
KEPT_BYTES = 16 << 20
# How often the unfinished last line is brought up to date, and how often a full disk is tried again.
REPAINT_SECONDS = 1.0
RETRY_SECONDS = 1.0
LAST_LINES = 20
# What a full disk does not take waits in memory up to this size; more is counted and dropped.
BACKLOG_BYTES = 1 << 20

_CUT_LINE = "[mltrack: {:>15} bytes were cut here]\n"
_CUT = re.compile(rb"^\[mltrack: +(\d+) bytes were cut here\]\n", re.MULTILINE)


class ConsoleLog:
    """The file. ``write`` may be called from several threads and from signal handlers; it never raises."""

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], object] | None = None,
        *,
        head_bytes: int = HEAD_BYTES,
        tail_bytes: int = TAIL_BYTES,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """An existing file is continued; a new one is created by the first output."""
        self._path = path
        self._warn = warn
        self._head_bytes = head_bytes
        self._limit = head_bytes + tail_bytes
        self._kept_bytes = kept_bytes
        self._fd = -1
        self._closed = False
        self._size = 0  # of the final bytes
        self._painted = b""  # the unfinished line as it lies in the file after them
        self._lock = RLock()
        self._busy = False
        self._queue: list[tuple[str, str]] = []
        self._screens: dict[str, Screen] = {}
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._next_paint = self._next_try = 0.0
        self._backlog = b""  # what a full disk did not take
        self._lost = 0
        self._warned = False
        self._forked = False

    def write(self, text: str, stream: str = "stdout") -> None:
        """Add output of one stream; streams are kept apart until their lines are complete."""
        if self._closed:
            return
        with self._lock:
            self._queue.append((stream, text))
            # A signal handler, or our own warning, that prints while we are writing: whoever is inside does it.
            if self._busy:
                return
            self._busy = True
            try:
                while self._queue:
                    self._take(*self._queue.pop(0))
            finally:
                self._busy = False

    def last_lines(self) -> tuple[str, ...]:
        """The last twenty lines, redacted; an unfinished one is the last."""
        with self._lock:
            lines = [*self._last, *(redact_text(screen.open_line) for screen in self._screens.values())]
            return tuple(line for line in lines if line)[-LAST_LINES:]

    def close(self) -> None:
        """Write what is unfinished and close the file; later writes are ignored."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._next_try = 0.0
            self._store([line for screen in self._screens.values() for line in screen.finish()])
            if self._fd >= 0:
                self._append(b"")
                os.close(self._fd)
                self._fd = -1

    def after_fork(self) -> None:
        """In a child: go on with complete lines only, because the parent repaints and cuts the shared file."""
        self._lock = RLock()
        self._busy = False
        self._queue.clear()
        self._screens = {}
        self._painted = b""
        self._forked = True

    def _take(self, stream: str, text: str) -> None:
        screen = self._screens.setdefault(stream, Screen())
        lines = screen.feed(text)
        if lines:
            self._store(lines)
        now = monotonic()
        if now >= self._next_paint and not self._forked and not self._backlog:
            self._next_paint = now + REPAINT_SECONDS
            self._paint(redact_text(screen.open_line))

    def _store(self, lines: list[str]) -> None:
        shown = [redact_text(line) for line in lines]
        self._last.extend(shown)
        if shown:
            self._append("".join(f"{line}\n" for line in shown).encode("utf-8", "backslashreplace"))

    def _open(self) -> None:
        if self._fd >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._fd = open_file(self._path, flags, share_mode(self._path.parent))
        self._size = os.fstat(self._fd).st_size
        self._end_foreign_line()

    def _end_foreign_line(self) -> None:
        """After the unfinished line of an earlier attempt, or of the parent's bar, ours begins a new one."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")
            self._size = size + 1

    def _paint(self, line: str) -> None:
        painted = line.encode("utf-8", "backslashreplace")
        if painted == self._painted:
            return
        try:
            self._open()
            self._unpaint()
            if painted and self._size < self._limit:
                self._painted = painted[: os.write(self._fd, painted)]
        except OSError:
            return  # of no importance: the line is written when it is complete

    def _unpaint(self) -> None:
        if not self._painted:
            return
        size = os.fstat(self._fd).st_size
        # A forked child appended after our unfinished line: that must stay.
        if size == self._size + len(self._painted):
            os.ftruncate(self._fd, self._size)
        else:
            self._size = size
        self._painted = b""

    def _append(self, data: bytes) -> None:
        if self._backlog:
            if len(self._backlog) + len(data) <= BACKLOG_BYTES:
                self._backlog += data
            else:
                self._lost += len(data)
            if monotonic() < self._next_try:
                return
            data = self._backlog
            if self._lost:
                data += f"[mltrack: {self._lost} bytes could not be written here]\n".encode()
        try:
            self._open()
            self._unpaint()
            if self._forked:
                self._end_foreign_line()
                if os.fstat(self._fd).st_size + len(data) > self._limit:
                    return
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
            self._size = os.fstat(self._fd).st_size
            self._backlog = b""
            self._lost = 0
            if self._size > self._limit and not self._forked:
                self._cut()
        except OSError as error:
            self._fail(error, data)

    def _fail(self, error: OSError, data: bytes) -> None:
        self._next_try = monotonic() + RETRY_SECONDS
        if not self._backlog:
            self._backlog = data[:BACKLOG_BYTES]
            self._lost += len(data) - len(self._backlog)
        try:
            # A line of which half was written is taken back, so that the file stays made of lines.
            if self._fd >= 0 and not self._forked:
                os.ftruncate(self._fd, self._size)
        except OSError:
            pass
        if self._warn is not None and not self._warned:
            self._warned = True
            self._warn(f"the console is not recorded at the moment ({error.strerror}): {self._path}")

    def _cut(self) -> None:
        """Move the last ``kept_bytes`` forward to the end of the head, and say there how much is missing."""
        # A descriptor without O_APPEND: Linux appends with pwrite() on one that has it.
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            start = self._size - self._kept_bytes
            start += os.pread(fd, LINE_CHARACTERS * 4, start).find(b"\n") + 1
            near = max(0, self._head_bytes - LINE_CHARACTERS * 5)
            found = _CUT.search(os.pread(fd, LINE_CHARACTERS * 6, near))
            if found:
                position, after, earlier = near + found.start(), near + found.end(), int(found[1])
            else:
                head = os.pread(fd, self._head_bytes - near, near)
                position = after = near + head.rfind(b"\n") + 1
                earlier = 0
            note = _CUT_LINE.format(earlier + start - after).encode()
            os.pwrite(fd, note, position)
            position += len(note)
            while start < self._size:
                part = os.pread(fd, min(1 << 20, self._size - start), start)
                if not part:
                    break
                os.pwrite(fd, part, position)
                start += len(part)
                position += len(part)
            os.ftruncate(fd, position)
            self._size = position
        finally:
            os.close(fd)
