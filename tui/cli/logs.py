"""`mltrack logs RUN [-f]`: what a run printed, harmless on this terminal, and followed while it goes on."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from mltrack.store.errors import BadInput
from mltrack.store.ssh_address import SCHEME
from mltrack.tui.clean import clean
from mltrack.tui.cli.output import write_text
from mltrack.tui.cli.run_look import is_slurms
from mltrack.tui.cli.session import Session, resolve_run
from mltrack.tui.cli.terminal import pause

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.tui.cli.terminal import Terminal

_POLL_SECONDS = 0.5
_STATUS_SECONDS = 5.0
_CHUNK_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 20
# Colours (SGR) are for the screen's log viewer, which parses them; here they would only be noise made visible.
_COLOURS = re.compile(rb"\x1b\[[0-9;:]*m")


@click.command("logs")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last lines.")
@click.option("--raw", is_flag=True, help="The bytes as they are: only for files and pipes you trust.")
@click.pass_obj
def logs_command(session: Session, run: str, follow: bool, lines: int | None, raw: bool) -> None:
    """Print what a run printed, and follow it."""
    with session.open() as store:
        found = resolve_run(store, run)
    opened = _open(found)
    if opened is None:
        _explain_absence(found, session.terminal)
        return
    file, offset = opened
    with file:
        # No further than it is now: what is printed here may go to its end, as in the script of a job.
        end = file.seek(0, os.SEEK_END)
        file.seek(offset)
        if lines is not None:
            file.seek(start_of_last_lines(file, offset, lines))
        if raw:
            _copy(file, end)
        else:
            for line in read_lines(file, end):
                _write_line(line, session.terminal)
        if follow and found.status in ("RUNNING", "SCHEDULED"):
            sys.stdout.flush()
            if _is_output(file):
                raise BadInput(
                    "What is printed here goes into the run's own log: there is no end of following it."
                )
            _follow(session, found, file, raw)


def log_place(run: Run) -> tuple[Path | None, int]:
    """The file a run's output is in, and where in it the run begins. (None, 0) where it is on another machine, or nowhere."""
    if run.source.startswith(SCHEME):
        return None, 0  # the paths that the run recorded are paths there
    if run.folder is not None and (run.folder / "console.log").is_file():
        return run.folder / "console.log", 0
    console = run.facts.get("console")
    if isinstance(console, dict) and isinstance(console.get("file"), str):
        offset = console.get("offset")
        return Path(console["file"]), offset if isinstance(offset, int) and offset >= 0 else 0
    return None, 0


def is_captured(run: Run) -> bool:
    """Whether a run recorded that its output goes into a file."""
    console = run.facts.get("console")
    return isinstance(console, dict) and bool(console.get("file") or console.get("tee"))


def _open(run: Run) -> tuple[BinaryIO, int] | None:
    """What a run printed, and where in it the run begins. Raises StoreUnavailable when its machine cannot be asked."""
    if run.source.startswith(SCHEME):
        from mltrack.store.far_files import open_far_log

        return open_far_log(run) if is_captured(run) else None
    path, offset = log_place(run)
    return (path.open("rb"), offset) if path is not None and path.is_file() else None


def start_of_last_lines(file: BinaryIO, begin: int, count: int) -> int:
    """The position from which `count` lines are left, reading backwards from the end."""
    end = file.seek(0, os.SEEK_END)
    if count == 0:
        return end
    position = end
    seen = 0
    while position > begin:
        start = max(begin, position - _CHUNK_BYTES)
        file.seek(start)
        block = file.read(position - start)
        place = len(block)
        while True:
            place = block.rfind(b"\n", 0, place)
            if place < 0:
                break
            if start + place + 1 != end:  # the newline at the very end closes the last line
                seen += 1
                if seen == count:
                    return start + place + 1
        position = start
    return begin


def read_lines(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Complete lines, and what is left at `end`; endless lines come in pieces."""
    left = end - file.tell()
    while left > 0 and (line := file.readline(min(left, _LONGEST_LINE_BYTES))):
        left -= len(line)
        yield line


def last_state(line: bytes) -> str:
    """What a terminal would show of a line: of a progress bar (carriage returns) the last state, without colours."""
    text = _COLOURS.sub(b"", line.rstrip(b"\r\n"))
    return text.rsplit(b"\r", 1)[-1].decode("utf-8", "surrogateescape").expandtabs(8)


def _write_line(line: bytes, terminal: Terminal) -> None:
    sys.stdout.write(terminal.fold(clean(last_state(line), None)) + "\n")


def _copy(file: BinaryIO, end: int) -> None:
    sys.stdout.flush()
    left = end - file.tell()
    while left > 0 and (block := file.read(min(left, _CHUNK_BYTES))):
        left -= len(block)
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


def _is_output(file: BinaryIO) -> bool:
    """Whether standard output is this file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False  # closed, or no file of the system's, as on another machine


def _follow(session: Session, run: Run, file: BinaryIO, raw: bool) -> None:
    """Print what is added until the run has ended and the file has been read to its end."""
    held = b""
    next_look = time.monotonic() + _STATUS_SECONDS
    ended = False
    while True:
        block = file.read(_CHUNK_BYTES)
        if block and raw:
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        elif block:
            *complete, held = (held + block).split(b"\n")
            for line in complete:
                _write_line(line, session.terminal)
            sys.stdout.flush()
        elif ended:
            break
        else:
            if time.monotonic() >= next_look:
                ended = _has_ended(session, run.run_id)
                next_look = time.monotonic() + _STATUS_SECONDS
            pause(_POLL_SECONDS)
    if held:
        _write_line(held, session.terminal)


def _has_ended(session: Session, run_id: str) -> bool:
    with session.open() as store:
        runs = store.runs([run_id])
        if runs and is_slurms(runs[0]):
            from mltrack.projects.slurm_jobs import look_for

            look_for(store.root, [run_id])
    return not runs or runs[0].status not in ("RUNNING", "SCHEDULED")


def _explain_absence(run: Run, terminal: Terminal) -> None:
    console = run.facts.get("console")
    if isinstance(console, dict) and console.get("file"):
        write_text(f"The output went to {console['file']}, which is not there any more.", terminal)
    elif isinstance(console, dict) and console.get("tty"):
        pane = f", tmux pane {console['tmux_pane']}" if console.get("tmux_pane") else ""
        write_text(f"Not captured: the run printed to the terminal {console['tty']}{pane}.", terminal)
        write_text("MLTRACK_CONSOLE=1 captures that too, from the next run on.", terminal, "dim")
    else:
        write_text(f"Not captured: {run.name} recorded no output.", terminal)
