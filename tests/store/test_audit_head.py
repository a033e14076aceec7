"""The head of the audit goes to its hook once a day, told by whoever has the store open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import open_store
from mltrack.store.audit_head import DailyHead, tell_head

COMMAND = (sys.executable, "-m", "mltrack.tui.cli")
PATIENCE_SECONDS = 60.0
Told = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the hook was told, once that was so often."""
    heard = tmp_path / "heard"
    script = f"import sys; open({str(heard)!r}, 'a').write(sys.stdin.read() + '\\n')"
    (tmp_path / "config" / "mltrack").mkdir(parents=True)
    (tmp_path / "config" / "mltrack" / "config.toml").write_text(
        f"[hooks]\naudit-head = {json.dumps([sys.executable, '-c', script])}\n"
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def wait(times: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            lines = heard.read_text().splitlines() if heard.exists() else []
            if len(lines) >= times:
                return [json.loads(line) for line in lines]
            time.sleep(0.01)
        raise AssertionError(f"not told {times} times")

    return wait


def another_day(tmp_path: Path) -> None:
    """What was told is remembered by its day."""
    for path in (tmp_path / "data" / "mltrack" / "told").iterdir():
        path.unlink()


def test_each_that_has_the_store_open_tells_and_only_the_first_of_a_day(
    tmp_path: Path, told: Told, store_address: str
) -> None:
    with open_store(store_address) as store:
        assert tell_head(store) == []  # nothing has happened that could be rewritten
        store.registry.register("m", "a")
        store.registry.promote("m", 1, "Production", "first")
    fold = (*COMMAND, "--store", store_address, "fold")
    for _ in range(2):
        done = subprocess.run(fold, env=os.environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert (done.returncode, done.stderr) == (0, "")
    with open_store(store_address, readonly=True) as store:
        assert tell_head(store) == []
        rows = store.registry.audit()
        [first] = told(1)
        assert first["event"] == "audit-head" and first["store"] == str(store.database.where)
        assert (first["rows"], first["head"]) == (len(rows), rows[-1].hash)
    for number, words in enumerate((("worker",), ("server", "--port", "0")), 2):
        another_day(tmp_path)
        with subprocess.Popen(
            [*COMMAND, "--store", store_address, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as process:
            try:
                assert told(number)[-1]["head"] == first["head"]
            finally:
                process.terminate()
    another_day(tmp_path)
    with open_store(store_address) as store:
        store.registry.promote("m", 1, "Archived", "gone")
        DailyHead(store).look()
        newest = told(4)[-1]
        assert newest["rows"] == first["rows"] + 1 and newest["head"] != first["head"]
        # What was kept elsewhere is found again: the change of that number still has that hash.
        assert store.registry.audit()[first["rows"] - 1].hash == first["head"]


def test_a_hook_that_fails_is_named_by_the_command(tmp_path: Path, told: Told, store_address: str) -> None:
    config = tmp_path / "config" / "mltrack" / "config.toml"
    config.write_text("[hooks]\naudit-head = ['/nonexistent']\n")
    with open_store(store_address) as store:
        store.registry.register("m", "a")
    done = subprocess.run(
        (*COMMAND, "--store", store_address, "fold"), env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "The hook /nonexistent for audit-head cannot be started" in done.stderr
