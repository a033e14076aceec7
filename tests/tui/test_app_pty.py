"""The real `mltrack-tui` on a real terminal: what arrives there, byte for byte."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pytest

Command = tuple[tuple[str, ...], dict[str, str]]
Answer = subprocess.CompletedProcess[str]
APP = (sys.executable, "-m", "mltrack.tui.entry")
# Everything Textual may send: CSI, DCS, charset switches, and one OSC, the shape of the pointer.
CONTROL = re.compile(
    r"\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]|\x1b[()][0AB]|\x1b[=>78]|\x1b]22;[a-z-]*\x07|\x1bP[^\x1b]*\x1b\\|[\r\n\x0f\x08]"
)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class App:
    """The app in a pty, and everything it wrote. Its terminal answers no questions."""

    def __init__(self, environ: dict[str, str], *arguments: str, columns: int = 100, lines: int = 30) -> None:
        self.output = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(APP[0], [*APP, *arguments], {**environ, "COLORTERM": "truecolor"})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._bytes = b""
        self._from = 0

    def press(self, text: str) -> App:
        self._from = len(self.output)
        os.write(self.fd, text.encode())
        return self

    def until(self, pattern: str, seconds: float = 30.0) -> str:
        """What came since the last key press, once `pattern` is in it. Styles are left out."""
        deadline = time.monotonic() + seconds
        while True:
            new = CONTROL.sub("", self.output[self._from :])
            if re.search(pattern, new):
                return new
            if not self._read(deadline):
                raise AssertionError(f"ended before {pattern!r} came; since the last key: {new[-2000:]!r}")

    def finish(self, seconds: float = 30.0) -> int:
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"nothing more came; last: {self.output[-2000:]!r}")
        try:
            block = os.read(self.fd, 65536)
        except OSError:
            return False
        self._bytes += block
        self.output = self._bytes.decode("utf-8", "replace")
        return bool(block)


def left_as_found(app: App) -> bool:
    """The last switch of screens goes back to the normal one, cursor visible, no mouse reports."""
    return (
        app.output.rfind("\x1b[?1049l") > app.output.rfind("\x1b[?1049h")
        and app.output.rfind("\x1b[?25h") > app.output.rfind("\x1b[?25l")
        and app.output.rfind("\x1b[?1000l") >= app.output.rfind("\x1b[?1000h")
    )


def test_start_filter_open_back_and_quit(command: Command, demo_store: str) -> None:
    app = App(command[1], "--store", demo_store)
    app.until(r"calm-elk-12")
    app.press("/calm-elk\r").until(r"1 of 6\d")
    app.press("\r").until(r"\[Charts \d+\]")
    app.press("q").until(r"enter.*open")
    app.press("q").until(r"6\d of 6\d")
    app.press("q")
    assert app.finish() == 0
    assert left_as_found(app)


def test_capital_q_quits_from_anywhere(command: Command, demo_store: str) -> None:
    app = App(command[1], "--store", demo_store)
    app.until("calm-elk-12")
    app.press("\r").until("Charts")
    app.press("Q")
    assert app.finish() == 0
    assert left_as_found(app)


def test_a_signal_leaves_the_terminal_as_it_was(command: Command, demo_store: str) -> None:
    app = App(command[1], "--store", demo_store)
    app.until("calm-elk-12")
    os.kill(app.pid, signal.SIGTERM)
    app.finish()
    assert left_as_found(app)


def test_keys_typed_before_the_app_is_there_are_not_lost(command: Command, demo_store: str) -> None:
    app = App(command[1], "--store", demo_store)
    app.until("opening")
    app.press("/calm-elk\r").until("calm-elk.*1 of 6|1 of 6")
    app.press("Q")
    assert app.finish() == 0


def test_nothing_hostile_reaches_the_terminal(command: Command, demo_store: str) -> None:
    app = App(command[1], "--store", demo_store, columns=160, lines=50)
    app.until("calm-elk-12")
    app.press("/experiment = scratch\r").until(r"4 of 6\d")
    app.press("\r").until("Charts")
    for _ in range(3):
        app.press("\t").until("Overview")
    app.press("qD").until("N\\]")
    app.press("nT").until("Tag")
    app.press("\x1b").until("filter")
    app.press("R").until("Rename")
    app.press("\x1b").until("filter")
    app.press("Q")
    assert app.finish() == 0
    # Private modes and colours are Textual's; what is left is text, and must be harmless.
    text = CONTROL.sub("", app.output)
    leaks = [text[max(0, hit.start() - 30) : hit.end() + 30] for hit in FORBIDDEN.finditer(text)]
    assert leaks == []
    assert "]52;" in text, "the hostile name was shown at all"


def test_a_store_that_is_not_there_yet(command: Command, tmp_path: object) -> None:
    folder = f"{tmp_path}/later"
    app = App(command[1], "--store", folder)
    app.until("Nothing is logged")
    log = "import mltrack\nwith mltrack.start_run(name='first-light'): mltrack.log_metric('loss', .5, step=1)"
    app.press("")
    subprocess.run(
        [sys.executable, "-c", log], env={**command[1], "MLTRACK_STORE": folder}, check=True, timeout=60
    )
    app.until("first-light")
    app.press("q")
    assert app.finish() == 0


@pytest.mark.parametrize("environ", [{}, {"TERM": "dumb"}], ids=["pipe", "dumb"])
def test_without_a_terminal_it_prints_the_table(
    mltrack: Callable[..., Answer], command: Command, demo_store: str, environ: dict[str, str]
) -> None:
    run = subprocess.run(
        [*APP, "--store", demo_store, "--filter", "lr < 2e-4"],
        env={**command[1], **environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == mltrack("--store", demo_store, "ls", "lr < 2e-4").stdout
    bad = subprocess.run(
        [*APP, "--store", demo_store, "--filter", "lr <"],
        env={**command[1], **environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert bad.returncode == 2
    assert "filter ends" in bad.stderr


def test_the_screen_process_loads_no_database(command: Command) -> None:
    code = (
        "import sys, mltrack.tui.entry, mltrack.tui.app, mltrack.tui.screens.run, mltrack.tui.screens.help\n"
        "from mltrack.store.client.location import choose_store; choose_store(None)\n"
        "heavy = {'sqlmodel', 'sqlalchemy', 'docker', 'git', 'alembic', 'sqlite3', 'psycopg', 'plotext'}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if m.startswith('mltrack.store')\n"
        " and not m.startswith('mltrack.store.client')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=command[1], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[] ['mltrack.store']", done.stderr


def test_the_entry_imports_next_to_nothing(command: Command) -> None:
    code = "import sys; before = set(sys.modules); import mltrack.tui.entry; print(len(set(sys.modules) - before))"
    plain = subprocess.run(
        [sys.executable, "-c", code], env=command[1], capture_output=True, text=True, timeout=60
    )
    textual = "import sys, mltrack.tui.entry; print('textual' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", textual], env=command[1], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "False False"
    assert int(plain.stdout) < 60
