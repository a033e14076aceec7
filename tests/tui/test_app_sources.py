"""The first five minutes of somebody who has runs: on a real terminal, in a folder that MLflow and TensorBoard are writing to."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from mltrack.store.sources.discovery import discover

Command = tuple[tuple[str, ...], dict[str, str]]
APP = (sys.executable, "-m", "mltrack.tui.entry")
CONTROL = re.compile(
    r"\x1b\[[0-9;:<=>?$ ]*[A-Za-z@`]|\x1b[()][0AB]|\x1b[=>78]|\x1b]22;[a-z-]*\x07|\x1bP[^\x1b]*\x1b\\\\|[\r\x0f\x08]"
)
TRAINING = """
import os, sys, time
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
mlflow.set_tracking_uri("file:mlruns")
mlflow.set_experiment("vision")
with mlflow.start_run(run_name="brave-training"):
    mlflow.log_params({"lr": 0.1, "depth": 3})
    for step in range(100000):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        print(step, flush=True)
        if sys.stdin.readline() != "more\\n":
            break
print("over", flush=True)
sys.stdin.readline()
"""

LOGGING = """
import sys
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs/lr0.5_calm", flush_secs=1)
writer.add_image("sample", [[[0.5] * 8] * 8] * 3, 0)
for step in range(100000):
    writer.add_scalar("loss", 2 / (step + 3), step)
    writer.flush()
    print(step, flush=True)
    if sys.stdin.readline() != "more\\n":
        break
writer.close()
print("over", flush=True)
sys.stdin.readline()
"""


class App:
    """The app on a pty of its own, started in a folder, and what it has drawn since the last key."""

    def __init__(self, environ: dict[str, str], folder: Path, *arguments: str) -> None:
        self.output = ""
        self._from = 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(APP[0], [*APP, *arguments], {**environ, "COLORTERM": "truecolor"})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))

    def mark(self) -> App:
        """What was drawn before does not count any more."""
        self._from = len(self.output)
        return self

    def press(self, text: str) -> App:
        self.mark()
        os.write(self.fd, text.encode())
        return self

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, CONTROL.sub("", self.output[self._from :])):
            if not self._read(deadline):
                raise AssertionError(f"ended before {pattern!r} came: {self.output[-2000:]!r}")
        return CONTROL.sub("", self.output[self._from :])

    def finish(self) -> int:
        deadline = time.monotonic() + 30
        while self._read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"nothing more came; last: {CONTROL.sub('', self.output[-4000:])!r}")
        try:
            block = os.read(self.fd, 65536)
        except OSError:
            return False
        self.output += block.decode("utf-8", "replace")
        return bool(block)


class Training:
    """A writer at work in a folder, a step at a time."""

    def __init__(self, python: Path | str, folder: Path, program: str = TRAINING) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            text=True,
        )
        assert self._read() == "0"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, word: str) -> str:
        """The next line it prints after it was told a word."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._read()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def test_one_key_shows_what_others_are_writing(
    command: Command, mlflow_python: Path, tensorboard_python: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    training = Training(mlflow_python, project)
    logging = Training(tensorboard_python, project, LOGGING)
    broken = next(project.glob("mlruns/*/*/params")).parent.parent / "0123456789abcdef0123456789abcdef"
    (broken / "params").mkdir(parents=True)
    (broken / "meta.yaml").write_text("artifact_uri: 'file:///x\nend_ti")
    for path in (broken / "meta.yaml", broken / "params", broken):
        os.utime(path, (1_700_000_000, 1_700_000_000))

    def times() -> dict[Path, int]:
        """Of everything but the event file, which its writer's thread is still filling."""
        return {path: path.stat().st_mtime_ns for path in project.rglob("*") if "tfevents" not in path.name}

    before = times()
    environ = {**command[1], "HOME": str(tmp_path), "MLTRACK_STORE": str(tmp_path / "store")}
    app = App(environ, project)
    offered = app.until("folders? (was|were) read")
    assert "mlruns" in offered and "MLflow folder" in offered and "TensorBoard" in offered
    assert not (tmp_path / "store").exists()
    app.press("f").until(r"brave-training[^\n]*running")  # the promise is 3 s
    app.until(r"vision")
    app.mark().until(r"calm") if "calm" not in app.output else None
    assert times() == before
    # What they log now is on the screen without a key.
    for step in range(1, 43):
        assert training.say("more") == str(step)
        assert logging.say("more") == str(step)
    app.until(r"\.0232|0\.02325")
    app.until(r"\.0444")
    assert "damaged" in CONTROL.sub("", app.output)
    show = [*command[0], "--store", environ["MLTRACK_STORE"], "show", broken.name]
    said = subprocess.run(show, env=environ, capture_output=True, text=True, check=True).stdout
    assert re.search(r"damaged: .*meta\.yaml: line \d", said)
    assert training.say("stop") == "over"
    app.mark().until("done")
    app.press("Q")
    assert app.finish() == 0
    training.end()
    assert logging.say("stop") == "over"
    logging.end()
    # The next start shows the same at once, and asks nothing again.
    app = App(environ, project)
    app.until("brave-training")
    app.press("O").until("Nothing new to follow")
    app.press("Q")
    assert app.finish() == 0


def test_a_path_on_the_command_line_is_followed(
    command: Command, mlflow_python: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    Training(mlflow_python, project).end()
    environ = {**command[1], "HOME": str(tmp_path), "MLTRACK_STORE": str(tmp_path / "store")}
    app = App(environ, tmp_path, str(project))
    app.until("brave-training")
    app.press("Q")
    assert app.finish() == 0


def test_the_search_is_bounded_and_goes_where_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mlruns(folder: Path) -> str:
        (folder / "0").mkdir(parents=True)
        (folder / "0" / "meta.yaml").write_text("experiment_id: '0'\nname: Default\n")
        return str(folder)

    project = tmp_path / "project"
    near = mlruns(project / "mlruns")
    deep = mlruns(project / "a" / "b" / "c" / "mlruns")
    mlruns(project / "a" / "b" / "c" / "d" / "e" / "mlruns")
    mlruns(project / ".git" / "mlruns")
    mlruns(project / "data" / "mlruns")
    mlruns(project / "env" / "lib" / "mlruns")
    (project / "own").mkdir()
    (project / "own" / "pyvenv.cfg").touch()
    mlruns(project / "own" / "lib" / "mlruns")
    (project / "loop").symlink_to(project)
    crowd = project / "images"
    crowd.mkdir()
    for number in range(5001):
        (crowd / str(number)).touch()
    result = discover(str(project), environ={})
    assert sorted(path for path, _ in result.found) == sorted([near, deep])
    assert result.complete and result.folders == 6  # project, a, b, c, d, own
    assert not discover(str(project), seconds=-1.0, environ={}).complete
    if os.geteuid() == 0:  # another device is another's business
        (project / "share").mkdir()
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(project / "share")]
        if subprocess.run(mount, capture_output=True).returncode == 0:
            try:
                mlruns(project / "share" / "mlruns")
                assert len(discover(str(project), environ={}).found) == 2
            finally:
                subprocess.run(["umount", str(project / "share")], check=True)
    elsewhere = mlruns(tmp_path / "other" / "tracking")
    named = discover(str(project), environ={"MLFLOW_TRACKING_URI": f"file://{elsewhere}"})
    assert named.found[0] == (elsewhere, "mlruns")
    # A server is offered without being asked; one of Databricks', or with a password in its address, is not.
    for address, offered in (
        ("http://127.0.0.1:9/", [("http://127.0.0.1:9", "mlflow_server")]),
        ("https://ann:secret@host", []),
        ("databricks", []),
        ("sqlite:///nothing/here.db", []),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert discover(str(tmp_path / "empty"), environ={"MLFLOW_TRACKING_URI": address}).found == offered
    monkeypatch.setenv("HOME", str(project))
    for refused in ("/", str(project)):
        result = discover(refused, environ={})
        assert result.folders == 0 and result.found == [] and "not searched" in result.refused
