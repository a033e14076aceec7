"""The app and the command where the world is against them: windows that change all the time, terminals of ASCII, streams that
are closed, disks that are full or cannot be written."""

from __future__ import annotations

import fcntl
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OpenApp = Callable[..., Any]
Command = tuple[tuple[str, ...], dict[str, str]]
Answer = subprocess.CompletedProcess[str]
# What the installed scripts call.
MLTRACK = (sys.executable, "-c", "from mltrack.tui.script import command; command()")
APP = (sys.executable, "-c", "from mltrack.tui.script import app; app()")


def resize(app: Any, columns: int, lines: int) -> None:
    fcntl.ioctl(app.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def test_a_storm_of_resizes_ends_in_the_last_size(
    open_app: OpenApp, command: Command, demo_store: str, tmp_path: Path
) -> None:
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path)}
    app = open_app(environ, "--store", demo_store, columns=80, lines=24)
    app.until("damaged")
    places = (
        ("", "STATUS"),
        ("/name = 'sage-owl-41'\r", "1 of"),
        ("\r", "(?s)Charts.*┤"),
        ("l", "into the run|at this step"),
        ("qq", "STATUS"),
        ("5", "MEMORY"),
        ("?", "Keys"),
    )
    sizes = ((20, 5), (200, 50), (80, 24), (1, 1), (33, 9))
    for keys, there in places:
        if keys:
            app.press(keys).until(there)
        for turn in range(30):
            resize(app, *sizes[turn % len(sizes)])
            app.take()
        app.redrawn(there)
    app.press("Q")
    assert app.finish() == 0
    assert app.left_as_found()
    assert "Traceback" not in app.output


def test_the_app_of_a_c_locale_is_ascii(
    open_app: OpenApp, command: Command, demo_store: str, tmp_path: Path
) -> None:
    environ = {**command[1], "LC_ALL": "C", "LANG": "C", "XDG_STATE_HOME": str(tmp_path)}
    app = open_app(environ, "--store", demo_store)
    app.until("damaged")
    app.press("/name = 'sage-owl-41'\r").until("owl-41")
    app.press("\r").until("Charts")
    app.press("q").until("STATUS")
    app.press("Q")
    assert app.finish() == 0
    assert app.output.isascii() and "Traceback" not in app.output


@pytest.mark.parametrize(
    "words",
    [
        (*MLTRACK, "ls"),
        (*MLTRACK, "ls", "--json"),
        (*MLTRACK, "logs", "-f", "snug-emu-10"),
        (*MLTRACK, "watch", "snug-emu-10"),
        (*APP, "--once"),
        (*APP, "--plain"),
    ],
    ids=["ls", "json", "logs", "watch", "once", "plain"],
)
def test_a_reader_that_leaves_ends_it_well(command: Command, demo_store: str, words: tuple[str, ...]) -> None:
    """`| head -1`, also of what would go on for ever."""
    environ = {**command[1], "MLTRACK_STORE": demo_store}
    process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 0
    assert said == b""


@pytest.mark.parametrize("words", [(*MLTRACK, "ls"), (*MLTRACK, "--help"), APP, (*APP, "--once")])
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_mistake(
    command: Command, demo_store: str, words: tuple[str, ...], closed: str, tmp_path: Path
) -> None:
    environ = {**command[1], "MLTRACK_STORE": demo_store, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *words], env=environ, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.glob("mltrack-error*")) == [], "no report of a mistake"


def test_output_that_cannot_be_written_is_one_sentence(command: Command, demo_store: str) -> None:
    for words in ((*MLTRACK, "ls"), (*APP, "--once")):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                words,
                env={**command[1], "MLTRACK_STORE": demo_store},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
            )
        assert done.returncode == 1
        assert done.stderr == "mltrack: No space left on device\n"


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    with open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    return disk / "filler"


def test_a_disk_that_fills_up_is_one_sentence(
    open_app: OpenApp, command: Command, disk: Path, mltrack: Callable[..., Answer], tmp_path: Path
) -> None:
    store = str(disk / "store")
    assert mltrack("demo", store, "--runs", "3", "--points", "4", "--metrics", "2").returncode == 0
    app = open_app({**command[1], "XDG_STATE_HOME": str(tmp_path)}, "--store", store)
    app.until("run-000002")
    filler = fill(disk)
    app.press("T").until("[Tt]ag")
    app.press("paper=yes\r").until("(?i)space left|disk is full")
    # Everything that was there can be looked at.
    app.press("\r").until("Charts")
    app.press("q").until("run-000002")
    filler.unlink()
    app.press("T").until("[Tt]ag")
    app.press("paper=now\r").until("Tagged")
    app.press("Q")
    assert app.finish() == 0
    assert "Traceback" not in app.output
    shown = mltrack("--store", store, "ls", "tags.paper = 'now'", "--json").stdout
    assert len(re.findall("run_id", shown)) == 1


def test_a_disk_of_which_one_may_only_read(
    open_app: OpenApp, command: Command, disk: Path, mltrack: Callable[..., Answer], tmp_path: Path
) -> None:
    store = str(disk / "store")
    assert mltrack("demo", store, "--runs", "3", "--points", "4", "--metrics", "2").returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    app = open_app(environ, "--store", store)
    app.until("run-000002")
    app.press("T").until("[Tt]ag")
    app.press("paper=yes\r").until("(?i)read-only")
    app.press("\r").until("Charts")
    app.press("q").until("run-000002")
    app.press("Q")
    assert app.finish() == 0
    assert app.left_as_found() and "Traceback" not in app.output


def test_a_dumb_terminal_gets_the_table_once(open_app: OpenApp, command: Command, demo_store: str) -> None:
    app = open_app({**command[1], "TERM": "dumb"}, "--store", demo_store)
    assert app.finish() == 0
    assert "damaged" in app.output and "\x1b" not in app.output
