"""The real `mltrack-tui` on a real terminal: what arrives there, byte for byte."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]
Answer = subprocess.CompletedProcess[str]
# Everything Textual may send: CSI, DCS, charset switches, and one OSC, the shape of the pointer.
CONTROL = re.compile(
    r"\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]|\x1b[()][0AB]|\x1b[=>78]|\x1b]22;[a-z-]*\x07|\x1bP[^\x1b]*\x1b\\|[\r\n\x0f\x08]"
)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_start_filter_open_back_and_quit(open_app: OpenApp, command: Command, demo_store: str) -> None:
    app = open_app(command[1], "--store", demo_store)
    app.until(r"sweep-7")
    app.press("/calm-elk\r").until(r"1 of 79")
    app.press("\r").until(r"\[Charts \d+\]")
    app.press("q").until(r"enter.*open")
    app.press("q").until(r"79 of 79")
    app.press("q")
    assert app.finish() == 0
    assert app.left_as_found()


def test_capital_q_quits_from_anywhere(open_app: OpenApp, command: Command, demo_store: str) -> None:
    app = open_app(command[1], "--store", demo_store)
    app.until("sweep-7")
    app.press("\r").until("Charts")
    app.press("Q")
    assert app.finish() == 0
    assert app.left_as_found()


def test_a_signal_leaves_the_terminal_as_it_was(open_app: OpenApp, command: Command, demo_store: str) -> None:
    app = open_app(command[1], "--store", demo_store)
    app.until("sweep-7")
    os.kill(app.pid, signal.SIGTERM)
    app.finish()
    assert app.left_as_found()


def test_keys_typed_before_the_app_is_there_are_not_lost(
    open_app: OpenApp, command: Command, demo_store: str
) -> None:
    app = open_app(command[1], "--store", demo_store)
    app.until("opening")
    app.press("/calm-elk\r").until("1 of 79")
    app.press("Q")
    assert app.finish() == 0


def test_nothing_hostile_reaches_the_terminal(open_app: OpenApp, command: Command, demo_store: str) -> None:
    app = open_app(command[1], "--store", demo_store, columns=160, lines=50)
    app.until("sweep-7")
    app.press("/experiment = scratch\r").until(r"4 of 79")
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


def test_a_store_that_is_not_there_yet(open_app: OpenApp, command: Command, tmp_path: object) -> None:
    folder = f"{tmp_path}/later"
    app = open_app(command[1], "--store", folder)
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
        [sys.executable, "-m", "mltrack.tui.entry", "--store", demo_store, "--filter", "lr < 2e-4"],
        env={**command[1], **environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == mltrack("--store", demo_store, "ls", "lr < 2e-4").stdout
    bad = subprocess.run(
        [sys.executable, "-m", "mltrack.tui.entry", "--store", demo_store, "--filter", "lr <"],
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
    assert done.stdout.strip() == "[] ['mltrack.store', 'mltrack.store.direction']", done.stderr


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


def test_the_first_rows_load_only_their_own_calls(command: Command, demo_store: str) -> None:
    code = (
        "import io, sys; from mltrack.store import open_store; from mltrack.store.worker import Worker\n"
        "from mltrack.tui.worker_calls import CALLS\n"
        "Worker(open_store(sys.argv[1]), io.BytesIO(), io.BytesIO(), CALLS)._answer({'call': 'view'})\n"
        "print(sorted(m.rpartition('.')[2] for m in sys.modules if m.startswith('mltrack.tui.worker_calls.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, demo_store], env=command[1], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "['run_cells', 'run_columns', 'run_tree', 'runs', 'who']", done.stderr


@pytest.mark.parametrize("theme", ["dark", "light", "contrast", "16", "plain"])
def test_every_theme_opens_and_keeps_to_its_colours(
    open_app: OpenApp, command: Command, small_store: str, theme: str
) -> None:
    app = open_app(command[1], "--store", small_store, "--theme", theme)
    app.until("run-000002")
    app.press("\r").until("Charts")
    app.press("q").until("run-000002|RUN")
    app.press("?").until("Keys")
    app.press("Q")
    assert app.finish() == 0
    assert "Error" not in app.output
    exact = re.findall(r"\x1b\[[0-9;]*[34]8;[25];", app.output)
    if theme in ("16", "plain"):
        assert not exact, "only the terminal's own colours"
    else:
        assert exact
    if theme == "plain":
        # The cursor is told by reverse video, nothing by colour.
        assert not re.search(r"\x1b\[(?:[0-9;]*;)?(?:3[1-6]|4[1-6]|9[1-6])m", app.output)
