"""The real `mltrack` command in a process of its own, and a demo store to point it at."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import folder_of, new_database

from mltrack.store import open_store
from mltrack.store.decision_file import catch_up
from mltrack.store.demo.bulk import write_bulk
from mltrack.store.demo.story import Story

# No test begins with what another has left on the screen.
_NO_STATE = {"XDG_STATE_HOME": "/dev/null/state"}
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "mltrack.tui.cli")
# Everything Textual may send: CSI, DCS, charset switches, and one OSC, the shape of the pointer.
CONTROL = re.compile(
    r"\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]|\x1b[()][0AB]|\x1b[=>78]|\x1b]22;[a-z-]*\x07|\x1bP[^\x1b]*\x1b\\|[\r\n\x0f\x08]"
)
Answer = subprocess.CompletedProcess[str]


def command_environment(**changes: str) -> dict[str, str]:
    """This process' environment with our package importable, in a UTF-8 locale, without anything that colours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    }
    return {
        **kept,
        "PYTHONPATH": str(ROOT / "src"),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        **_NO_STATE,
        **changes,
    }


class TerminalApp:
    """The app in a pty, and everything it wrote. Its terminal answers no questions."""

    def __init__(
        self,
        environ: dict[str, str],
        *arguments: str,
        columns: int = 100,
        lines: int = 30,
        module: str = "mltrack.tui.entry",
        store: str | None = None,
        before: tuple[str, ...] = (),
    ) -> None:
        """``store``: named by the environment instead of an option. ``before``: a program that starts it, as somebody else."""
        self.output = ""
        environ = {**environ, "MLTRACK_STORE": store} if store is not None else environ
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            words = [*before, sys.executable, "-m", module, *arguments]
            os.execvpe(words[0], words, {**environ, "COLORTERM": "truecolor"})
        self._size = (columns, lines)
        self._resize(columns)
        self._bytes = b""
        self._from = 0

    def press(self, text: str) -> TerminalApp:
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

    def redrawn(self, pattern: str, seconds: float = 60.0) -> str:
        """The whole screen, once `pattern` is in it: at a new size the app draws all of it, not only what changed."""
        deadline, columns = time.monotonic() + seconds, self._size[0]
        while time.monotonic() < deadline:
            columns = self._size[0] - (columns == self._size[0])
            self._from = len(self.output)
            self._resize(columns)
            while select.select([self.fd], [], [], 0.25)[0] and self._read(deadline):
                pass
            drawn = CONTROL.sub("", self.output[self._from :])
            if re.search(pattern, drawn):
                return drawn
        raise AssertionError(f"{pattern!r} never came; last: {self.output[-2000:]!r}")

    def _resize(self, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", self._size[1], columns, 0, 0))

    def finish(self, seconds: float = 30.0) -> int:
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def take(self) -> None:
        """Take what is there, without waiting: a terminal always reads."""
        while select.select([self.fd], [], [], 0)[0] and self._read(time.monotonic() + 1):
            pass

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

    def left_as_found(self) -> bool:
        """The last switch of screens goes back to the normal one, cursor visible, no mouse reports."""
        return (
            self.output.rfind("\x1b[?1049l") > self.output.rfind("\x1b[?1049h")
            and self.output.rfind("\x1b[?25h") > self.output.rfind("\x1b[?25l")
            and self.output.rfind("\x1b[?1000l") >= self.output.rfind("\x1b[?1000h")
        )


@pytest.fixture(scope="session")
def open_app() -> type[TerminalApp]:
    """Open the real app on a real terminal: open_app(environment, *options, columns=100, lines=30)."""
    return TerminalApp


@pytest.fixture(scope="session")
def command() -> tuple[tuple[str, ...], dict[str, str]]:
    """The command and its environment, for tests that drive the process themselves."""
    return COMMAND, command_environment()


@pytest.fixture(scope="session")
def mltrack() -> Callable[..., Answer]:
    """Run `mltrack ARGUMENTS` to its end. `environ` adds variables, `stdin` is text for standard input."""

    def run(
        *arguments: str, environ: dict[str, str] | None = None, stdin: str = "", cwd: Path | None = None
    ) -> Answer:
        answer = subprocess.run(
            [*COMMAND, *arguments],
            env=command_environment(**(environ or {})),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            cwd=cwd,
            timeout=120,
        )
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer

    return run


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory, mltrack: Callable[..., Answer]) -> str:
    """The folder of a store with the whole story. Tests that change it belong elsewhere."""
    folder = tmp_path_factory.mktemp("demo") / "store"
    answer = mltrack("demo", str(folder))
    assert answer.returncode == 0, answer.stderr
    return str(folder)


def tell(address: str, runs: int = 0) -> str:
    """The demo, its story or so many runs, as `mltrack demo` makes it in a folder, in a store on PostgreSQL."""
    root = folder_of(address)
    if runs:
        write_bulk(root, runs, points=4, metrics=2, experiments=20, seed=7)
    else:
        Story(root, 7).write()
    with open_store(address) as store:
        catch_up(store.database, root)
        store.refresh(None)
    return address


@pytest.fixture(scope="session")
def demo_database() -> Iterator[str]:
    """The same in PostgreSQL."""
    with new_database() as url:
        yield tell(url)


@pytest.fixture
def demo_store(database_kind: str, request: pytest.FixtureRequest) -> str:
    """The address of a store with the whole story. Tests that change it take `own_demo`."""
    return str(request.getfixturevalue("demo_folder" if database_kind == "sqlite" else "demo_database"))


@pytest.fixture
def own_demo(database_kind: str, store_address: str, demo_folder: str) -> str:
    """A store with the whole story that a test may change."""
    if database_kind == "postgresql":
        return tell(store_address)
    return str(shutil.copytree(demo_folder, store_address, symlinks=True))


@pytest.fixture
def small_store(database_kind: str, store_address: str, mltrack: Callable[..., Answer]) -> str:
    """A store of three ended runs that a test may change."""
    if database_kind == "postgresql":
        return tell(store_address, runs=3)
    assert mltrack("demo", store_address, "--runs", "3", "--points", "4", "--metrics", "2").returncode == 0
    return store_address
