"""Pictures in a terminal that draws pixels: what the app sends it is drawn here and compared with the file."""

from __future__ import annotations

import base64
import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from mltrack.store import open_store
from mltrack.store.client.journal import run_folder
from mltrack.store.demo.files import png
from mltrack.tui.draw.kitty import CELL
from mltrack.tui.draw.png import Pixels, decode_png, resized

sys.path.insert(0, str(Path(__file__).parent))
from test_terminal_pictures import read_sixels  # the same reading of sixels

if TYPE_CHECKING:
    from conftest import TerminalApp

Command = tuple[tuple[str, ...], dict[str, str]]
COLUMNS, LINES = 110, 32
CELL_SIZE = (8, 16)
QUESTION = "\x1b[16t\x1b[>0q\x1b[c"
KITTY_QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"


def plain(text: str) -> str:
    """What is written on the screen, pictures and escape sequences left out."""
    return re.sub(
        r"\x1b_[^\x1b]*\x1b\\|\x1bP[^\x1b]*\x1b\\|\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]|\x1b[78]", "", text
    )


class Asked:
    """The app on a terminal that answers what it is asked."""

    def __init__(self, app: TerminalApp, answers: dict[str, str]) -> None:
        self.app = app
        self._answers = answers
        self._answered = 0

    def until(self, condition: Callable[[str], object], since: int = 0, seconds: float = 60.0) -> str:
        """What came since then, when it is as wanted; questions are answered on the way."""
        deadline = time.monotonic() + seconds
        while not condition(self.app.output[since:]):
            assert time.monotonic() < deadline, self.app.output[since:][-3000:]
            if select.select([self.app.fd], [], [], 0.05)[0]:
                self.app.take()
            new = self.app.output[self._answered :]
            for question, answer in self._answers.items():
                if question in new:
                    self._answered = len(self.app.output)
                    # A key is pressed while the terminal answers: it is none of the answer's letters.
                    os.write(self.app.fd, answer.encode())
        return self.app.output[since:]

    def press(self, keys: str) -> int:
        """Press keys; where their output begins."""
        at = len(self.app.output)
        os.write(self.app.fd, keys.encode())
        return at


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, mltrack: Callable[..., object]) -> str:
    """Three runs with pictures of few colours at steps 0 and 10: wide, high and square."""
    folder = tmp_path_factory.mktemp("pictures") / "store"
    mltrack("demo", str(folder), "--runs", "3", "--points", "2", "--metrics", "2")
    random = np.random.default_rng(7)
    with open_store(str(folder)) as opened:
        for run_id, (high, wide) in zip(
            opened.search("").run_ids, ((9, 31), (40, 10), (20, 20)), strict=True
        ):
            images = run_folder(opened.root, run_id) / "artifacts" / "images" / "a"
            images.mkdir(parents=True)
            for step in (0, 10):
                colours = random.integers(0, 256, (60, 3), np.uint8)
                (images / f"{step}.png").write_bytes(png(colours[random.integers(0, 60, (high, wide))]))
    return str(folder)


def open_pictures(
    open_app: type[TerminalApp], command: Command, store: str, answers: dict[str, str], *options: str
) -> tuple[Asked, int]:
    """Pictures of the three runs, and where their output begins."""
    app = open_app(command[1], "--store", store, *options, columns=COLUMNS, lines=LINES)
    terminal = Asked(app, answers)
    terminal.until(lambda text: "3 runs" in plain(text))
    # Nothing is asked before a picture is looked at.
    assert QUESTION not in app.output and "\x1b_G" not in app.output
    at = terminal.press("A")
    terminal.until(lambda text: "3 marked" in plain(text), at)
    at = terminal.press("c")
    terminal.until(lambda text: "METRICS" in plain(text), at)
    return terminal, terminal.press("v")


def shown_pictures(store: str, step: int) -> list[Pixels]:
    """The files of the pictures that the three runs show at a step, in the order of the table."""
    found: list[Pixels] = []
    with open_store(store, readonly=True) as opened:
        for run_id in opened.search("").run_ids:
            path = run_folder(opened.root, run_id) / "artifacts" / "images" / "a" / f"{step}.png"
            pixels = decode_png(path.read_bytes())
            assert pixels is not None
            found.append(pixels)
    return found


def alike(drawn: npt.NDArray[np.int64], file: Pixels) -> bool:
    """Whether something drawn, in hundredths, is the file's picture in its size."""
    grown = resized(file, drawn.shape[1], drawn.shape[0])
    return bool((np.abs(drawn - grown.astype(float) * 100 / 255) <= 0.5001).all())


SENT = re.compile(
    r"\x1b_Ga=T,U=1,f=100,t=d,q=2,i=(\d+),c=(\d+),r=(\d+),m=[01];([^\x1b]*)\x1b\\((?:\x1b_Gm=[01];[^\x1b]*\x1b\\)*)"
)
SIXEL = re.compile(r"\x1b7\x1b\[(\d+);(\d+)H(\x1bP[^\x1b]*\x1b\\)\x1b8")


def screen_of(text: str) -> npt.NDArray[np.int64]:
    """All sixels of an output on one screen of pixels."""
    screen = np.full((LINES * CELL_SIZE[1], COLUMNS * CELL_SIZE[0], 3), -1, np.int64)
    for row, column, sixels in SIXEL.findall(text):
        piece = read_sixels(sixels)
        assert len(piece) <= CELL_SIZE[1]
        top, left = (int(row) - 1) * CELL_SIZE[1], (int(column) - 1) * CELL_SIZE[0]
        screen[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    return screen


def pictures_on(screen: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The pictures beside each other, each cut out."""
    drawn: npt.NDArray[np.bool_] = np.all(screen >= 0, axis=2)
    columns = np.flatnonzero(drawn.any(axis=0))
    found: list[npt.NDArray[np.int64]] = []
    for group in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
        rows = np.flatnonzero(drawn[:, group[0]])
        found.append(screen[rows[0] : rows[-1] + 1, group[0] : group[-1] + 1])
    return found


def same(text: str, files: list[Pixels]) -> bool:
    """Whether the sixels of an output are these pictures, in this order."""
    found = pictures_on(screen_of(text)) if SIXEL.search(text) else []
    return len(found) == len(files) and all(alike(*pair) for pair in zip(found, files, strict=True))


def test_sixels(open_app: type[TerminalApp], command: Command, store: str) -> None:
    answer = "\x1b[6;16;8t\x1bP>|XTerm(379)\x1b\\\x1b[?64;1;4;22c"
    terminal, at = open_pictures(open_app, command, store, {QUESTION: answer})
    last, before = (shown_pictures(store, step) for step in (10, 0))
    assert not all(np.array_equal(*pair) for pair in zip(last, before, strict=True))
    terminal.until(lambda text: same(text, last), at)
    # Keys that come with an answer are keys, and an answer is none.
    step = terminal.press(answer + "h")
    terminal.until(lambda text: same(text, before), step)
    # Another screen over it and away again: the pictures are sent anew, as a whole.
    over = terminal.press("?")
    terminal.until(lambda text: "what the keys do here" in plain(text), over)
    back = terminal.press("\x1b")
    terminal.until(lambda text: same(text, before), back)
    terminal.press("Q")
    terminal.app.finish()
    assert terminal.app.left_as_found()


def test_kittys_pictures(open_app: type[TerminalApp], command: Command, store: str) -> None:
    answers = {
        KITTY_QUESTION: "\x1b_Gi=31;OK\x1b\\",
        QUESTION: "\x1b[6;16;8t\x1bP>|kitty(0.36.4)\x1b\\\x1b[?62;c",
    }
    terminal, at = open_pictures(open_app, command, store, answers)
    terminal.until(lambda text: len(SENT.findall(text)) == 3, at)
    drawn = sum(int(columns) * int(rows) for _, columns, rows, *_ in SENT.findall(terminal.app.output))
    text = terminal.until(lambda text: text.count(CELL) >= drawn, at)
    sent = SENT.findall(text)
    assert len(sent) == 3 and "a=d" not in text
    files = shown_pictures(store, 10)
    for (number, columns, rows, first, more), file in zip(sent, files, strict=True):
        body = first + "".join(re.findall(r"m=[01];([^\x1b]*)", more))
        pixels = decode_png(base64.b64decode(body))
        assert pixels is not None and np.array_equal(pixels, resized(file, pixels.shape[1], pixels.shape[0]))
        assert -(-pixels.shape[1] // 8) == int(columns) and -(-pixels.shape[0] // 16) == int(rows)
        red, green, blue = int(number) >> 16, int(number) >> 8 & 255, int(number) & 255
        colour = rf"\x1b\[38;2;{red};{green};{blue};48;2;\d+;\d+;\d+m({CELL}[^\x1b]*)\x1b\[0m"
        lines = re.findall(colour, text)
        assert len({line[1] for line in lines}) == int(rows)
        assert all(line.count(CELL) == int(columns) for line in lines)
    # Another step: other numbers, and the old ones are forgotten.
    step = terminal.press("h")
    text = terminal.until(lambda new: new.count("a=d,d=I") == 3, step)
    assert {number for number, *_ in sent} == set(re.findall(r"a=d,d=I,q=2,i=(\d+)", text))
    now = set(re.findall(r"a=T[^;]*,i=(\d+)", text))
    assert len(now) == 3 and not now & {number for number, *_ in sent}
    gone = terminal.press("q")
    text = terminal.until(lambda new: new.count("a=d,d=I") == 3, gone)
    assert set(re.findall(r"a=d,d=I,q=2,i=(\d+)", text)) == now
    terminal.press("Q")
    terminal.app.finish()
    assert terminal.app.left_as_found()


@pytest.mark.parametrize("option", [(), ("--pictures", "blocks")])
def test_other_terminals_draw_half_blocks(
    open_app: type[TerminalApp], command: Command, store: str, option: tuple[str, ...]
) -> None:
    terminal, at = open_pictures(open_app, command, store, {QUESTION: "\x1b[?62;c"}, *option)
    text = terminal.until(lambda text: text.count("▀") > 100, at)
    assert CELL not in text and "\x1bP" not in text.replace(QUESTION, "")
    assert (QUESTION in text) == (not option)
    terminal.press("Q")
    terminal.app.finish()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
@pytest.mark.parametrize("allowed", ["on", "off"])
def test_through_tmux_only_where_it_lets_one(
    store: str, command: Command, tmp_path: Path, allowed: str
) -> None:
    (tmp_path / "conf").write_text(
        f"set -g allow-passthrough {allowed}\nset -g default-terminal tmux-256color\n"
    )
    program = shlex.join([sys.executable, "-m", "mltrack.tui.entry", "--store", store, "--pictures", "kitty"])
    # Its socket is a path of the test: no server of anybody else is meant.
    server = ["tmux", "-S", str(tmp_path / "socket"), "-f", str(tmp_path / "conf")]
    pid, fd = pty.fork()
    if pid == 0:
        environ = {name: value for name, value in command[1].items() if name != "TMUX"}
        os.execvpe("tmux", [*server, "new-session", program], {**environ, "COLORTERM": "truecolor"})
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    output = ""

    def until(pattern: str) -> None:
        nonlocal output
        data, deadline = b"", time.monotonic() + 60
        while not re.search(
            pattern, plain(data.decode("utf-8", "replace")) + data.decode("utf-8", "replace")
        ):
            assert time.monotonic() < deadline, data[-2000:]
            if select.select([fd], [], [], 0.1)[0]:
                data += os.read(fd, 1 << 16)
        output += data.decode("utf-8", "replace")

    try:
        until("3 runs")
        for key, pattern in (
            ("A", "3 marked"),
            ("c", "METRICS"),
            ("v", CELL if allowed == "on" else "▀{10}"),
        ):
            os.write(fd, key.encode())
            until(pattern)
    finally:
        subprocess.run([*server, "kill-server"], check=False, capture_output=True)
        os.close(fd)
        os.waitpid(pid, 0)
    assert len(SENT.findall(output)) == (3 if allowed == "on" else 0)
    assert (CELL in output) == (allowed == "on")
