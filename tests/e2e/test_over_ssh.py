"""A training is watched over a real SSH connection, in a tmux on the other side, as people do it; the connection drops."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVICES = Path(__file__).parents[1] / "services"
APP = (sys.executable, "-m", "mltrack.tui.entry")
TRAINING = """
import time, mltrack
with mltrack.start_run(run_name="far-away", experiment="watching"):
    for step in range(1, 100_000):
        mltrack.log_metric("train/loss", 2 / (1 + step / 20), step=step)
        if step % 10 == 0:
            print(f"step {step}", flush=True)
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The command that logs in on the other side, which is this machine."""
    if not Path("/usr/sbin/sshd").exists() or shutil.which("ssh") is None:
        pytest.skip("needs an sshd and ssh: apt-get install openssh-server openssh-client")
    environ = {**os.environ, "MLT_SSH_DIR": str(tmp_path_factory.mktemp("ssh") / "sshd")}
    started = subprocess.run(
        [SERVICES / "start-sshd.sh"], env=environ, check=True, capture_output=True, text=True, timeout=60
    )
    config = dict(line.split("=", 1) for line in started.stdout.split())["MLT_SSH_CONFIG"]
    yield ("ssh", "-F", config, "-tt", "mltbox")
    subprocess.run([SERVICES / "stop-sshd.sh", "--purge"], env=environ, check=True, timeout=30)


@pytest.fixture
def training(tmp_path: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that logs into `store` until it is stopped."""
    environ = {
        **environ,
        "MLTRACK_STORE": str(tmp_path / "store"),
        "MLTRACK_FACTS": "0",
        "MLTRACK_CONSOLE": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING], env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait()


def remote(environ: dict[str, str], *words: str) -> str:
    """The command as one word for the shell on the other side, which knows nothing of our variables."""
    given = [f"{name}={value}" for name, value in environ.items() if name not in ("LANG", "CI")]
    return shlex.join(["env", *given, *words])


# How far the charts go: it grows while the training does.
LAST = r"step [\d,]+ to ([\d,]+)"


def last_step(lines: list[str]) -> int:
    return int(re.findall(LAST, "\n".join(lines))[0].replace(",", ""))


def drop(terminal: Any) -> None:
    """The line is cut: the client is gone before it can say good-bye."""
    os.kill(terminal.pid(), signal.SIGKILL)


def test_a_training_is_watched_from_afar_whatever_the_connection_does(
    terminal: Callable[..., Any],
    ssh: tuple[str, ...],
    training: subprocess.Popen[bytes],
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    """J3 over SSH in tmux: watch, lose the connection, come back to the same screen, read the log, stop the training."""
    store, socket = str(tmp_path / "store"), str(tmp_path / "far")
    app = shlex.join([*APP, "--store", store])
    far = ("tmux", "-f", os.devnull, "-S", socket)
    first = terminal(80, 24, *ssh, remote({**environ, "TERM": "xterm-256color"}, *far, "new-session", app))
    try:
        first.until(r"far-away\s+● ")
        first.press("Enter")
        before = last_step(first.until(rf"(?s)\[Charts.*train/loss.*{LAST}"))
        drop(first)
        # Another window, of another size: the app was not asked, and is still where it was.
        second = terminal(100, 30, *ssh, remote({**environ, "TERM": "xterm-256color"}, *far, "attach"))
        second.until(r"\[Charts")
        second.wait_for(lambda: last_step(second.screen()) > before)
        second.press("L")
        second.until(r"step \d+\n")
        second.press("q")
        second.until(r"RUN +STATUS")
        second.press("X")
        question = second.until(r"\[y/N\]")
        assert any("far-away" in line and str(training.pid) in line for line in question)
        second.press("y")
        training.wait(60)
        second.until(r"far-away\s+[✗!]", 60)
        second.press("Q")
        assert second.ended() == 0
    finally:
        subprocess.run([*far, "kill-server"], capture_output=True, timeout=30)


def test_without_tmux_a_dropped_connection_ends_the_app_and_keeps_its_view(
    terminal: Callable[..., Any],
    ssh: tuple[str, ...],
    story_store: str,
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    command = remote(
        {**environ, "TERM": "xterm-256color", "MARK": str(tmp_path)}, *APP, "--store", story_store
    )
    first = terminal(80, 24, *ssh, command)
    first.until("sweep-7")
    first.type("/").type("opt.name = lion")
    first.press("Enter")
    first.until(r"1\d of \d\d")
    drop(first)
    views = tmp_path / "xdg_state_home" / "mltrack" / "views"
    first.wait_for(lambda: any("opt.name = lion" in view.read_text() for view in views.glob("*.json")))
    # Nothing of it stays behind on the other side.
    first.wait_for(lambda: not processes_with(f"MARK={tmp_path}"))
    second = terminal(80, 24, *ssh, command)
    second.until(r"(?s)opt.name = lion +1\d of \d\d.*seeds-lion")
    second.press("Q")
    assert second.ended() == 0


def processes_with(variable: str) -> list[int]:
    """Processes with this variable in their environment."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found
