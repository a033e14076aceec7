"""The real `mltrack` command in a process of its own, and a demo store to point it at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "mltrack.tui.cli")
Answer = subprocess.CompletedProcess[str]


def command_environment(**changes: str) -> dict[str, str]:
    """This process' environment with our package importable, in a UTF-8 locale, without anything that colours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    return {**kept, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **changes}


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
def demo_store(tmp_path_factory: pytest.TempPathFactory, mltrack: Callable[..., Answer]) -> str:
    """The folder of a store with the whole story. Tests that change it belong elsewhere."""
    folder = tmp_path_factory.mktemp("demo") / "store"
    answer = mltrack("demo", str(folder))
    assert answer.returncode == 0, answer.stderr
    return str(folder)


@pytest.fixture
def small_store(tmp_path: Path, mltrack: Callable[..., Answer]) -> str:
    """A store of three ended runs that a test may change."""
    folder = tmp_path / "small"
    assert mltrack("demo", str(folder), "--runs", "3", "--points", "4", "--metrics", "2").returncode == 0
    return str(folder)
