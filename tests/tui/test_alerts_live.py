"""Alerts of a real training in the real app: on the screen, to the terminal and to the user's command, each once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]
TRAINING = """
import time
import mltrack
with mltrack.start_run(run_name="wild\\x1b]0;owl", experiment="live", system_metrics=False):
    mltrack.log_metric("loss", 1.0, step=0)
    mltrack.log_metric("loss", float("nan"), step=1)
    while True:
        time.sleep(0.05)
"""
HOOK = """#!/bin/sh
cat >> "{told}"
echo >> "{told}"
"""


def test_nan_and_a_killed_process_are_told_once_each(
    open_app: OpenApp, command: Command, tmp_path: Path, store_address: str
) -> None:
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(HOOK.format(told=told))
    hook.chmod(0o700)
    config = tmp_path / "config" / "mltrack"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'[alerts]\nnotify = "osc9"\n[hooks]\nalert = ["{hook}"]\n')
    environ = {
        **command[1],
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "MLTRACK_STORE": store_address,
        "MLTRACK_FACTS": "0",
    }
    if "://" not in store_address:
        Path(store_address).mkdir()
    app = open_app(environ, columns=160)
    app.until("mltrack ls")
    training = subprocess.Popen([sys.executable, "-c", TRAINING], env=environ, cwd=tmp_path)
    try:
        app.until(r"loss is NaN \(1 of 2 points\)", 60)
        app.press("j")
        training.kill()
        training.wait()
        app.until(r"lost: process \d+ is gone", 60)
        assert "▲" in app.output
        app.press(":alerts\r").until(r"is lost: process \d+ is gone")
    finally:
        training.kill()
        app.press("Q")
        app.finish()
    sent = re.findall(r"\x1b\]9;([^\x1b]*)\x1b\\", app.output)
    assert [text.partition(" is ")[2][:4] for text in sent] == ["NaN ", "lost"]
    assert all(text.startswith("mltrack: wild␛]0,owl ") for text in sent)
    deadline = time.monotonic() + 30
    while not told.exists() or told.read_text().count("\n") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    events = [json.loads(line) for line in told.read_text().splitlines() if line]
    assert [(event["event"], event["kind"], event["about"]) for event in events] == [
        ("alert", "nan", "loss"),
        ("alert", "lost", ""),
    ]
    assert len(os.listdir(tmp_path / "share" / "mltrack" / "told")) == 2
