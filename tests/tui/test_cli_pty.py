"""The command on a real terminal: width, colours, questions, drawing in place."""

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
from pathlib import Path

import pytest

from mltrack.tui.clean import cell_width

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Command = tuple[tuple[str, ...], dict[str, str]]
STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A command in a pty of a given size, and every byte it wrote."""

    def __init__(
        self, command: Command, *arguments: str, columns: int = 80, lines: int = 24, **environ: str
    ) -> None:
        self.output = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0][0], [*command[0], *arguments], {**command[1], **environ})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, text: str, seconds: float = 60.0) -> str:
        """Everything so far, once `text` has appeared (or the process has ended)."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.output:
            if not self._read(deadline):
                break
        return self.output.decode("utf-8", "replace")

    def finish(self, seconds: float = 60.0) -> tuple[int, str]:
        """(exit code, everything written)."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), self.output.decode("utf-8", "replace").replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"nothing more came; so far: {self.output!r}")
        try:
            block = os.read(self.fd, 65536)
        except OSError:  # the other side was closed
            return False
        self.output += block
        return bool(block)


@pytest.mark.parametrize("columns", [80, 200])
def test_a_table_fits_a_real_terminal(command: Command, demo_store: str, columns: int) -> None:
    code, text = Terminal(command, "--store", demo_store, "ls", columns=columns).finish()
    assert code == 0
    assert "\x1b[" in text
    bare = STYLES.sub("", text)
    assert "\x1b" not in bare
    assert max(cell_width(line) for line in bare.splitlines()) <= columns
    assert "50 of 79 runs" in bare.splitlines()[-1] or len(bare.splitlines()) >= 50


def test_no_color_is_respected(command: Command, demo_store: str) -> None:
    _, text = Terminal(command, "--store", demo_store, "ls", NO_COLOR="1").finish()
    assert "\x1b" not in text
    _, dumb = Terminal(command, "--store", demo_store, "ls", TERM="dumb").finish()
    assert "\x1b" not in dumb


def test_hostile_names_stay_harmless_on_a_terminal(command: Command, demo_store: str) -> None:
    for arguments in (
        ("ls", "-x", "scratch"),
        ("ls", "-x", "scratch", "--csv"),
        ("ls", "-x", "scratch", "--json"),
    ):
        _, text = Terminal(command, "--store", demo_store, *arguments, columns=200).finish()
        bare = STYLES.sub("", text)
        assert not any(
            ord(character) < 32 and character != "\n" or 0x7F <= ord(character) < 0xA0 for character in bare
        )
        assert "\u202e" not in bare


def test_a_question_is_answered_no_by_enter(command: Command, small_store: str, mltrack: Run) -> None:
    terminal = Terminal(command, "--store", small_store, "delete", "run-000001")
    assert "run-000001" in terminal.read_until("[y/N]")
    terminal.type("\r")
    assert terminal.finish()[0] == 1
    assert "run-000001" in mltrack("--store", small_store, "ls").stdout
    terminal = Terminal(command, "--store", small_store, "delete", "run-000001")
    terminal.read_until("[y/N]")
    terminal.type("y\r")
    assert terminal.finish()[0] == 0
    assert "run-000001" not in mltrack("--store", small_store, "ls").stdout


def test_watch_draws_in_place_and_gives_the_cursor_back(command: Command, demo_store: str) -> None:
    code, text = Terminal(command, "--store", demo_store, "watch", "calm-elk-12").finish()
    assert code == 0
    assert "val/acc" in text
    assert text.index("\x1b[?25l") < text.index("\x1b[?25h")
    assert text.endswith("\x1b[?25h")


def test_ctrl_c_leaves_with_130(command: Command, tmp_path: object) -> None:
    terminal = Terminal(command, "demo", f"{tmp_path}/live", "--live", "--seconds", "100")
    terminal.read_until("sage-owl-41")
    terminal.type("\x03")
    code, text = terminal.finish()
    assert code in (0, 130)
    assert "Traceback" not in text


def test_the_live_demo_opens_the_app_and_its_folder_stays(command: Command, tmp_path: Path) -> None:
    terminal = Terminal(command, "demo", f"{tmp_path}/live", "--live")
    terminal.read_until("sweep-7")
    terminal.type("Q")
    code, text = terminal.finish()
    assert code == 0 and "Traceback" not in text
    # Wheel and click, but no report for every move of a mouse.
    assert "\x1b[?1000h" in text and "\x1b[?1003h" not in text
    assert (tmp_path / "live" / "mltrack.db").exists()


def test_without_a_terminal_the_demo_tells_its_leading_run(tmp_path: Path) -> None:
    code = "import sys; from mltrack.tui.entry import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "--demo", "--once"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "val/acc" in done.stdout
