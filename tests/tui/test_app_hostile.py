"""Hostile text in every field, and stores that go away, on a real terminal: what arrives there, byte for byte."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = tuple[tuple[str, ...], dict[str, str]]
Answer = subprocess.CompletedProcess[str]
# Everything Textual may send: CSI, DCS, charset switches, and one OSC, the shape of the pointer.
CONTROL = re.compile(
    r"\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]|\x1b[()][0AB]|\x1b[=>78]|\x1b]22;[a-z-]*\x07|\x1bP[^\x1b]*\x1b\\|[\r\n\x0f\x08]"
)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# Writes into every field what would hurt if it came out as it went in.
LOGGING = r"""
import sys, mltrack
HOSTILE = "\x1b]52;c;aGk=\x07\x1b]0;own\x07\x9b31m\u202egnp\u2066\x7f[red]b[/red][@click=app.bell]x[/][/etc/passwd]"
VISIBLE = "EVIL"
def key(name):
    for text in (VISIBLE + HOSTILE + name, VISIBLE + "[/red][@click=app.bell]\u202e" + name, VISIBLE + "[/red]" + name):
        try:
            yield text
        except Exception:
            pass
def attempt(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        print("refused:", error)
for number in range(3):
    with mltrack.start_run(run_name=f"{VISIBLE}{HOSTILE}{number}", experiment=f"{VISIBLE}{HOSTILE}", system_metrics=False):
        for name in ("p", "q"):
            for text in key(name):
                attempt(mltrack.log_param, text, f"{VISIBLE}{HOSTILE}{number}")
                attempt(mltrack.set_tag, text, f"{VISIBLE}{HOSTILE}{number}")
                for step in range(9):
                    attempt(mltrack.log_metric, "val/" + text, number + step / 9, step=step)
        attempt(mltrack.log_text, f"{VISIBLE}{HOSTILE}", f"{VISIBLE}[red].txt")
        print(f"{VISIBLE}{HOSTILE} log line", flush=True)
        if number == 2:
            raise SystemExit(f"{VISIBLE}{HOSTILE} reason")
"""


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory: pytest.TempPathFactory, command: Command) -> str:
    folder = tmp_path_factory.mktemp("hostile")
    store = folder / "store"
    environ = {**command[1], "MLTRACK_STORE": str(store), "MLTRACK_FACTS": "0", "MLTRACK_CONSOLE": "1"}
    subprocess.run([sys.executable, "-c", LOGGING], env=environ, cwd=folder, capture_output=True, timeout=120)
    return str(store)


def leaks(output: str) -> list[str]:
    text = CONTROL.sub("", output)
    return [text[max(0, hit.start() - 40) : hit.end() + 40] for hit in FORBIDDEN.finditer(text)]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), pytest.param(200, 50, marks=pytest.mark.long)])
def test_no_field_of_any_screen_reaches_the_terminal_as_more_than_text(
    open_app: Callable[..., Any],
    command: Command,
    hostile_store: str,
    columns: int,
    lines: int,
    tmp_path: Path,
) -> None:
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMUX": ""}
    app = open_app(environ, "--store", hostile_store, columns=columns, lines=lines)
    app.until("EVIL")
    # Along all columns, then questions that name the run.
    app.press("l" * 12).until("EVIL")
    app.press("0D").until(r"N\]")
    app.press("n").until("filter")
    app.press("/EVIL\r").until("EVIL")
    app.press("g\r").until("Charts")
    for _ in range(7):
        app.press("\t").until(r"\[\w+")
    app.press("1").until("RUN")
    app.press("gAc").until("Compare")
    app.until("EVIL")
    app.press("djjj\r").until(r"j move.*/ search|last \d.* points")
    app.until("EVIL")
    app.press("q").until("Compare")
    app.press("\tlll").until("step")
    app.press("?").until("Keys")
    app.press("qY").until("copied|Copied|clipboard")
    app.press("5").until("BY EXPERIMENT(?s:.*)EVIL")
    app.press("2").until("odels")
    app.press("Q")
    assert app.finish() == 0
    # Copying is the one OSC that is ours: base64 of what was copied.
    output = re.sub(r"\x1b]52;c;[A-Za-z0-9+/=]*\x07", "", app.output)
    assert leaks(output) == []
    shown = CONTROL.sub("", output)
    assert "[red]b[/red]" in shown or "[/red]" in shown, "markup is text like any other"
    assert "Traceback" not in shown


@pytest.mark.parametrize("trouble", ["removed", "replaced", "worker"])
def test_the_app_stays_when_the_store_does_not(
    open_app: Callable[..., Any],
    command: Command,
    small_store: str,
    mltrack: Callable[..., Answer],
    trouble: str,
    tmp_path: Path,
) -> None:
    environ = {**command[1], "XDG_STATE_HOME": str(tmp_path / "state")}
    app = open_app(environ, "--store", small_store)
    app.until("run-000002")
    if trouble == "worker":
        workers = subprocess.run(
            ["pgrep", "-P", str(app.pid), "-f", "worker_calls"], capture_output=True, text=True
        ).stdout.split()
        assert len(workers) == 1
        os.kill(int(workers[0]), signal.SIGKILL)
        app.press("")
        app.until("worker ended and was started again")
        app.press("/name = nobody\r").until("No run matches")
    else:
        if trouble == "replaced":
            other = str(tmp_path / "other")
            assert mltrack("demo", other, "--runs", "5", "--points", "2").returncode == 0
            os.rename(small_store, tmp_path / "old")
            os.rename(other, small_store)
        else:
            shutil.rmtree(small_store)
        app.press("\x0c")  # load again
        app.until(r"[A-Za-z]{4}.*\.")
    # It still takes keys, and says something else than a traceback.
    app.press("?").until("Keys")
    app.press("q")
    app.press("Q")
    assert app.finish() == 0
    assert app.left_as_found()
    assert "Traceback" not in app.output
