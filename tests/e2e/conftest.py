"""A real terminal that can be read back: tmux, with the app or the command inside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = (sys.executable, "-m", "mltrack.tui.entry")


class Terminal:
    """A window of a private tmux server. Keys go in as typed, `screen` is what a person sees."""

    def __init__(self, folder: Path, environ: dict[str, str], columns: int, lines: int, *words: str) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._environ = {**environ, "TERM": "xterm-256color"}
        command = ["env", "-u", "TMUX", "-u", "TMUX_PANE", *words]
        self._run("new-session", "-d", "-x", str(columns), "-y", str(lines), *command)
        self._run("set-option", "-g", "remain-on-exit", "on")
        self._run("set-option", "-g", "status", "off")
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=30,
            encoding="utf-8",
            errors="replace",
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def press(self, *keys: str) -> Terminal:
        """Keys by tmux's names: Enter, Escape, Space, Tab, C-d."""
        self._run("send-keys", *keys)
        return self

    def type(self, text: str) -> Terminal:
        """Text as it is."""
        self._run("send-keys", "-l", text)
        return self

    def resize(self, columns: int, lines: int) -> None:
        """The person drags the window."""
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> list[str]:
        """The lines that are shown."""
        return self._run("capture-pane", "-p").rstrip("\n").split("\n")

    def until(self, pattern: str, seconds: float = 30.0) -> list[str]:
        """The lines once ``pattern`` is among them."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.screen()
            if re.search(pattern, "\n".join(lines)):
                return lines
            if time.monotonic() > deadline:
                raise AssertionError(f"{pattern!r} never came; on the screen:\n" + "\n".join(lines))
            time.sleep(0.05)

    def line(self, pattern: str) -> str:
        """The one line with ``pattern``, waited for."""
        lines = self.until(pattern)
        return next(line for line in lines if re.search(pattern, line))

    def wait_for(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait for something that is not on the screen."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("it never came; on the screen:\n" + "\n".join(self.screen()))
            time.sleep(0.05)

    def pid(self) -> int:
        """The process that runs in the window."""
        return int(self._run("display-message", "-p", "#{pane_pid}"))

    def ended(self, seconds: float = 30.0) -> int:
        """The exit code, once what runs inside has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            dead, code = (
                self._run("display-message", "-p", "#{pane_dead} #{pane_dead_status}").strip("\n").split(" ")
            )
            if dead == "1":
                return int(code or 0)
            time.sleep(0.05)
        raise AssertionError("it did not end; on the screen:\n" + "\n".join(self.screen()))

    def close(self) -> None:
        """End the window and its server."""
        subprocess.run([*self._tmux, "kill-server"], env=self._environ, timeout=30, capture_output=True)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A person's surroundings, with nothing of the tester's own settings in it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "CI") if name in os.environ}
    own = {
        name: str(tmp_path / name.lower()) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    }
    return {**kept, **own, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh"}


@pytest.fixture
def terminal(tmp_path: Path, environ: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Open a terminal: terminal(columns, lines, *words of the command)."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: apt-get install tmux")
    opened: list[Terminal] = []

    def open_terminal(columns: int, lines: int, *words: str) -> Terminal:
        folder = tmp_path / f"terminal-{len(opened)}"
        folder.mkdir()
        opened.append(Terminal(folder, environ, columns, lines, *words))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def story_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo story in a folder. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("story") / "store"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [sys.executable, "-m", "mltrack.tui.cli", "demo", str(folder)],
        env=environ,
        check=True,
        capture_output=True,
    )
    return str(folder)
