"""Ways into the app and out of it: what comes back after the connection dropped, options, and who opens it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.cli.plain import changes
from mltrack.tui.saved_view import SavedView, load_view, save_view

Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]
Answer = subprocess.CompletedProcess[str]


def test_a_dropped_connection_keeps_the_view(
    open_app: OpenApp, command: Command, demo_store: str, tmp_path: Path
) -> None:
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path)}
    app = open_app(environ, "--store", demo_store)
    app.until("sweep-7")
    app.press("/opt.name = lion\r").until(r"seeds-lion-\d")
    app.press("lls").until("▼")
    app.press("jjj").until("▌")
    # The line is cut: the kernel tells the app, and nobody reads what it still has to say.
    os.close(app.fd)
    _, status = os.waitpid(app.pid, 0)
    assert os.WIFEXITED(status), "the app ends by itself"
    (file,) = (tmp_path / "mltrack" / "views").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    kept = json.loads(file.read_text())
    assert kept["filter"] == "opt.name = lion"
    assert kept["sort"] == [["metric:val/acc", False]]
    again = open_app(environ, "--store", demo_store)
    again.until("opt.name = lion")
    again.until(r" 1\d of 79")
    again.press("L").until(r"Log|log")
    again.press("Q")
    assert again.finish() == 0
    assert json.loads(file.read_text())["run_id"] == kept["run_id"]


def test_the_last_page_is_there_before_anything_is_loaded(
    open_app: OpenApp, command: Command, demo_store: str, tmp_path: Path
) -> None:
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path)}
    first = open_app(environ, "--store", demo_store)
    first.until("79 of 79")
    first.until("sweep-7")
    first.press("Q")
    assert first.finish() == 0
    again = open_app(environ, "--store", demo_store)
    again.until(r"opening(?s:.*)sweep-7")
    faint = again.output.partition("sweep-7")[0]
    assert faint.rstrip().endswith("▸") and "\x1b[2m" in faint, "faint until the worker has confirmed it"
    again.until("79 of 79")
    again.press("Q")
    assert again.finish() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
def test_a_signal_ends_it_with_its_view_kept(
    open_app: OpenApp, command: Command, demo_store: str, tmp_path: Path, number: int
) -> None:
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path)}
    app = open_app(environ, "--store", demo_store)
    app.until("sweep-7")
    app.press("t").until("calm-elk-12")
    os.kill(app.pid, number)
    app.finish()
    assert app.left_as_found()
    (file,) = (tmp_path / "mltrack" / "views").iterdir()
    assert json.loads(file.read_text())["flat"] is True


def test_once_prints_the_table_on_a_terminal_too(
    open_app: OpenApp, command: Command, demo_store: str
) -> None:
    app = open_app(command[1], "--store", demo_store, "--once", "--filter", "status = failed")
    assert app.finish() == 0
    assert "CUDA OOM" in app.output and "\x1b[?1049h" not in app.output


def test_plain_prints_lines_and_draws_nothing(open_app: OpenApp, command: Command, small_store: str) -> None:
    app = open_app(command[1], "--store", small_store, "--plain")
    app.until("run-000002")
    code = "import mltrack\nwith mltrack.start_run(name='newcomer'): mltrack.log_metric('loss', .5, step=1)"
    app.press("")
    subprocess.run(
        [sys.executable, "-c", code], env={**command[1], "MLTRACK_STORE": small_store}, check=True, timeout=60
    )
    app.until("new run newcomer: ✓ done")
    os.kill(app.pid, signal.SIGINT)
    assert app.finish() == 0
    assert "\x1b[?1049h" not in app.output and "\x1b[2J" not in app.output


def test_the_demo_goes_on_by_itself_and_leaves_nothing(
    open_app: OpenApp, command: Command, tmp_path: Path
) -> None:
    app = open_app({**command[1], "TMPDIR": str(tmp_path)}, "--demo", columns=120)
    app.until(r"sweep-7", 60)
    app.until("●", 60)
    assert len(list(tmp_path.glob("mltrack-demo-*"))) == 1
    app.press("Q")
    assert app.finish() == 0
    assert list(tmp_path.glob("mltrack-demo-*")) == []


@pytest.mark.parametrize("words", [(), ("ui",)], ids=["alone", "ui"])
def test_the_command_opens_the_app(
    open_app: OpenApp, command: Command, demo_store: str, words: tuple[str, ...]
) -> None:
    app = open_app(command[1], *words, module="mltrack.tui.cli", store=demo_store)
    app.until("sweep-7")
    app.press("Q")
    assert app.finish() == 0


def test_the_command_alone_is_help_without_a_terminal(mltrack: Callable[..., Answer]) -> None:
    answer = mltrack()
    assert answer.returncode == 0
    assert answer.stdout.startswith("Usage: mltrack") and "ui " in answer.stdout


# -- the file


def test_a_view_comes_back_as_it_was(tmp_path: Path) -> None:
    view = SavedView(
        filter="lr < 1",
        experiment="a/",
        sort=[["metric:x", True]],
        flat=True,
        toggled=["a"],
        layouts={"exp": {"goal": "x", "widths": {"param:lr": 9}, "frozen": None, "hidden": ["param:b"]}},
        size=[80, 24],
        page=["row ü"],
    )
    save_view(tmp_path / "deep" / "v.json", view)
    assert load_view(tmp_path / "deep" / "v.json") == view
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "v.json"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(list(SavedView.__dataclass_fields__))


@given(st.dictionaries(_NAMES, _JSON, max_size=6))
def test_whatever_is_in_the_file_the_app_can_ask_with_it(data: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "v.json"
        file.write_text(json.dumps(data))
        view = load_view(file)
        question = view.question()
    assert isinstance(question["filter"], str)
    assert all(isinstance(key, str) and isinstance(turned, bool) for key, turned in question["sort"])
    assert all(isinstance(run_id, str) for run_id in question["toggled"])
    assert isinstance(view.experiment, str | None)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", '{"filter": 3}', "[" * 100_000])
def test_a_broken_file_is_the_usual_view(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.json").write_text(text)
    assert load_view(tmp_path / "v.json") == SavedView()


def test_plain_lines_say_what_happened() -> None:
    before = {"a": ("running", "one", 0.5), "b": ("running", "two", None), "c": ("running", "three", 0.1)}
    after = {
        "a": ("running", "one", 0.6),
        "b": ("✗ failed: OOM", "two", None),
        "d": ("running", "four", None),
    }
    assert changes(before, after) == [
        "one: new best .6",
        "two: ✗ failed: OOM",
        "new run four: running",
        "three left the list",
    ]
