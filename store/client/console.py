"""Keeping what a training prints, according to where its output goes.

A regular file is followed where it lies. A pipe is teed into the run's console.log. A terminal is only noted (with its
tmux pane, which keeps the text itself), unless MLTRACK_CONSOLE=1.

The tee is at the level of Python: ``write`` of the stream object is wrapped in place, so that the object, its encoding,
buffer, file descriptor and everybody who already holds it (logging handlers) stay as they are, and the program's own
output is written first and exactly as before. Output that does not pass through the stream objects (C libraries, child
processes, ``sys.stdout.buffer``) is not seen: ``mltrack exec`` records everything.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import weakref
from typing import TYPE_CHECKING, Any

from mltrack.store.client.console_log import ConsoleLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Logs that a forked child must continue in its own way.
_active: weakref.WeakSet[ConsoleLog] = weakref.WeakSet()
_hooked = False


class Capture:
    """What was found and wrapped. ``facts``: where the output goes, for the run's start record.

    {"file", "offset"} of a regular file; {"tee": True}; {"tty", "tmux_pane"?}; {} when there is no stream. "stderr"
    holds the same for standard error when it goes elsewhere.
    """

    def __init__(self, log: ConsoleLog | None, facts: dict[str, object], taps: list[_Tap]) -> None:
        self.facts = facts
        self._log = log
        self._taps = taps

    def stop(self) -> None:
        """Unwrap the streams and finish the file. May be called twice."""
        for tap in reversed(self._taps):
            tap.remove()
        self._taps = []
        if self._log is not None:
            self._log.close()
            _active.discard(self._log)


def capture(run_folder: Path, warn: Callable[[str], object] | None = None) -> Capture:
    """Begin to keep this process's output in ``run_folder``/console.log, or note where it lies. Never raises."""
    log: ConsoleLog | None = None
    taps: list[_Tap] = []
    places: list[dict[str, object]] = []
    wanted = os.environ.get("MLTRACK_CONSOLE") == "1"
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        place = _place(stream)
        if place.get("tee") or (wanted and "tty" in place):
            log = log or _new_log(run_folder, warn)
            if not any(tap.stream is stream for tap in taps):
                tap = _Tap(stream, log, name)
                if tap.install():
                    taps.append(tap)
                else:
                    place.pop("tee", None)
            if "tty" in place and taps:
                place["tee"] = True
        places.append(place)
    facts = dict(places[0])
    if {**places[1], "offset": 0} != {**places[0], "offset": 0}:
        facts["stderr"] = places[1]
    return Capture(log, facts, taps)


class _Tap:
    """One wrapped stream."""

    def __init__(self, stream: Any, log: ConsoleLog, name: str) -> None:
        self.stream = stream
        self._log = log
        self._name = name
        self._before: Any = None
        self._write: Callable[[Any], Any] | None = None

    def install(self) -> bool:
        """Wrap ``write``; False when the object does not allow it."""
        original = self.stream.write
        log, name = self._log, self._name

        def write(text: Any) -> Any:
            result = original(text)
            if isinstance(text, str):
                log.write(text, name)
            return result

        try:
            self._before = vars(self.stream).get("write")
            self.stream.write = write
        except (AttributeError, TypeError):
            return False
        self._write = write
        return True

    def remove(self) -> None:
        """Unwrap, unless somebody has wrapped the stream after us: then ours stays in the chain and does nothing."""
        if vars(self.stream).get("write") is not self._write:
            return
        if self._before is None:
            del self.stream.write
        else:
            self.stream.write = self._before


def _place(stream: Any) -> dict[str, object]:
    if stream is None:
        return {}
    # Notebooks put an object of their own here; its fileno is that of the server's terminal.
    if not isinstance(stream, io.TextIOWrapper):
        return {"tee": True}
    try:
        fd = stream.fileno()
        facts = os.fstat(fd)
    except (OSError, ValueError):
        return {"tee": True}
    if os.isatty(fd):
        return _terminal(fd)
    if stat.S_ISREG(facts.st_mode):
        path = _path(fd, facts)
        if path:
            # With O_APPEND the position says nothing; text still in our buffer belongs to the run's past.
            path = os.fsencode(path).decode("utf-8", "backslashreplace")
            return {"file": path, "offset": max(facts.st_size, _position(fd))}
    return {"tee": True}


def _terminal(fd: int) -> dict[str, object]:
    place: dict[str, object] = {"tty": ""}
    try:
        place["tty"] = os.ttyname(fd)
    except OSError:
        pass  # a terminal of another container
    pane = os.environ.get("TMUX_PANE")
    if pane:
        place["tmux_pane"] = pane
    return place


def _path(fd: int, facts: os.stat_result) -> str:
    """The name under which the open file can be followed; "" when it has none (deleted, another container, no /proc)."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        named = os.stat(path)
    except OSError:
        return ""
    return path if (named.st_dev, named.st_ino) == (facts.st_dev, facts.st_ino) else ""


def _position(fd: int) -> int:
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return 0


def _new_log(run_folder: Path, warn: Callable[[str], object] | None) -> ConsoleLog:
    global _hooked
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(after_in_child=_after_fork)
    log = ConsoleLog(run_folder / "console.log", warn)
    _active.add(log)
    return log


def _after_fork() -> None:
    for log in list(_active):
        log.after_fork()
