"""Several machines in one table: stores behind two real sshds and one of this machine, compared, live, and a line that breaks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.tui.conftest import COMMAND, command_environment

import mltrack
from mltrack.store import open_store
from mltrack.store.errors import BadInput
from mltrack.store.far_files import LOG_BYTES, far_files
from mltrack.store.questions import AGAIN_SECONDS
from mltrack.tui.worker_calls.code import code as code_page
from mltrack.tui.worker_calls.files import file_preview, files
from mltrack.tui.worker_calls.logs import log_find, log_page
from mltrack.tui.worker_calls.pictures import compare_pictures

SERVICES = Path(__file__).parents[1] / "services"
OpenApp = Callable[..., Any]
TRAINING = """
import sys, time, mltrack
with mltrack.start_run(run_name="goes-on", experiment="far", system_metrics=False):
    mltrack.log_param("lr", 0.25)
    for step in range(100_000):
        mltrack.log_metric("loss", 1 / (1 + step), step)
        time.sleep(0.1)
"""


@dataclass
class Boxes:
    """The environment of somebody whose `ssh` knows the hosts boxa and boxb, each a server of its own."""

    environ: dict[str, str]
    folder: Path

    def service(self, name: str, box: str, *words: str) -> str:
        environ = {**os.environ, "MLT_SSH_DIR": str(self.folder / box)}
        return subprocess.run(
            [SERVICES / f"{name}-sshd.sh", *words],
            env=environ,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def start(self, box: str) -> None:
        """Start a box's server, on a port of its own, and write the configuration of `ssh` anew."""
        self.service("start", box)
        text = ""
        for name in ("boxa", "boxb"):
            config = self.folder / name / "config"
            text += config.read_text().replace("Host mltbox", f"Host {name}") if config.exists() else ""
        (self.folder / "config").write_text(text)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run([*COMMAND, *words])

    def app(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "-m", "mltrack.tui.entry", *words])

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, env=self.environ, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    if not Path("/usr/sbin/sshd").exists() or shutil.which("ssh") is None:
        pytest.skip("needs an sshd and ssh: apt-get install openssh-server openssh-client")
    # ssh looks for its configuration in the home of the user list, not in $HOME.
    own = tmp_path / "bin" / "ssh"
    own.parent.mkdir()
    own.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path / "config"} "$@"\n')
    own.chmod(0o755)
    there = f"env PYTHONPATH={os.environ.get('PYTHONPATH', '')} HOME={tmp_path} {sys.executable} -m mltrack.tui.cli"
    environ = command_environment(
        PATH=f"{own.parent}:{os.environ['PATH']}",
        MLTRACK_SSH_COMMAND=there,
        COLUMNS="240",
        XDG_STATE_HOME=str(tmp_path / "state"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        XDG_DATA_HOME=str(tmp_path / "data"),
    )
    environ.pop("MLTRACK_STORE", None)
    found = Boxes(environ, tmp_path)
    for box in ("boxa", "boxb"):
        found.start(box)
    yield found
    for box in ("boxa", "boxb"):
        found.service("stop", box, "--purge")


def log(root: Path, name: str, lr: float, steps: int = 30) -> str:
    mltrack.set_store(str(root))
    try:
        with mltrack.start_run(run_name=name, experiment="far", system_metrics=False) as run:
            mltrack.log_param("lr", lr)
            for step in range(steps):
                mltrack.log_metric("loss", lr / (step + 1), step)
            mltrack.log_text("hello", "notes.txt")
        return run.run_id
    finally:
        mltrack.set_store(None)


def inodes(root: Path) -> dict[str, tuple[int, int, int]]:
    facts = {path: path.lstat() for path in [root, *root.rglob("*")]}
    return {str(path): (at.st_ino, at.st_mtime_ns, at.st_ctime_ns) for path, at in facts.items()}


def test_runs_of_three_machines_are_compared_by_the_command(
    boxes: Boxes,
) -> None:
    here, a, b = (boxes.folder / name for name in ("here", "a", "b"))
    runs = {"at-home": log(here, "at-home", 0.1), "on-a": log(a, "on-a", 0.2), "on-b": log(b, "on-b", 0.4)}
    before = inodes(a)
    addresses = [f"ssh://boxa{a}", f"ssh://boxb{b}/"]
    once = boxes.app("--once", "--store", str(here), *addresses)
    assert once.returncode == 0 and all(name in once.stdout for name in runs), once

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return boxes.command("--store", str(here), *words)

    listed = {run["run_name"]: run for run in json.loads(command("ls", "--json").stdout)}
    assert {name: run["run_id"] for name, run in listed.items()} == runs
    assert listed["on-a"]["params"] == {"lr": "0.2"} and listed["on-a"]["status"] == "FINISHED"
    compared = command("compare", *runs).stdout
    assert all(text in compared for text in ("at-home", "on-a", "on-b", " .1 ", " .2 ", " .4", "+300%")), (
        compared
    )
    points = json.loads(command("metrics", "on-b", "loss", "--json").stdout)["points"]
    assert [[step, value] for step, _, value in points] == [[step, 0.4 / (step + 1)] for step in range(30)]
    # What is decided about them is decided here; nothing there is changed, and what lies there is named with its place.
    assert command("tag", "on-a", "seen=yes").returncode == 0
    place = f"boxa:{a}/runs/{runs['on-a'][:2]}/{runs['on-a']}"
    assert place in "".join(command("show", "on-a").stdout.split())
    assert inodes(a) == before
    # A run of another version's format, or a store that is none, is one sentence, and all else goes on.
    added = command("source", "add", f"ssh://boxb{boxes.folder}/nothing")
    assert added.returncode == 0 and f"there is no store at {boxes.folder}/nothing" in added.stderr, added
    states = {state["path"]: state for state in json.loads(command("source", "list", "--json").stdout)}
    assert states[f"ssh://boxb{b}"]["problem"] is None and states[f"ssh://boxb{b}"]["runs"] == 1
    assert "what was read before is shown" in states[f"ssh://boxb{boxes.folder}/nothing"]["problem"]
    assert command("source", "remove", f"ssh://boxb{b}").returncode == 0
    assert {run["run_name"] for run in json.loads(command("ls", "--json").stdout)} == {"at-home", "on-a"}


TRAINED = """
import mltrack, numpy, sys
print("before the run")
with mltrack.start_run(run_name=sys.argv[1], experiment="far", system_metrics=False) as run:
    for step in range(20_000):
        print(f"step {step} of {sys.argv[1]}: the loss is what it is, and so on")
    mltrack.log_text("hello from over there", "notes/a.txt")
    mltrack.log_text("x" * 6_000_000, "big.txt")
    mltrack.log_text(sys.argv[1] + "\\n", "who.txt")
    mltrack.log_text('{"classes": ["cat", "dog"], "matrix": [[8, 2], [1, 9]]}', "matrix.json")
    mltrack.log_image(numpy.full((4, 4, 3), 200, numpy.uint8), key="seen", step=3)
    folder = run.folder / "artifacts"
    (folder / "unrecorded.txt").write_text("put here by something else")
    (folder / "link").symlink_to("/etc/passwd")
    print("ValueError: not this time")
"""


def test_files_logs_and_code_are_fetched_when_somebody_looks(
    boxes: Boxes, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, a, code = (boxes.folder / name for name in ("here", "a", "code"))
    log(here, "at-home", 0.1)
    code.mkdir()
    (code / "train.py").write_text(TRAINED)
    git = ["git", "-C", str(code), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    for name in ("plain", "changed"):
        if name == "changed":
            (code / "train.py").write_text(TRAINED + "# a change that nobody has committed\n")
        environ = {**boxes.environ, "MLTRACK_STORE": str(a), "MLTRACK_CONSOLE": "1"}
        subprocess.run(
            [sys.executable, "train.py", name], env=environ, cwd=code, check=True, stdout=subprocess.DEVNULL
        )
    before = inodes(a)

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return boxes.command("--store", str(here), *words)

    assert command("source", "add", f"ssh://boxa{a}").returncode == 0
    shown = json.loads(command("show", "changed", "--json").stdout)
    run_id = shown["run_id"]
    place = f"ssh://boxa:{a}/runs/{run_id[:2]}/{run_id}/artifacts"
    sizes = {"big.txt": 6_000_000, "matrix.json": 55, "notes/a.txt": 21, "unrecorded.txt": 26, "who.txt": 8}
    pictures = [file for file in shown["artifacts"] if file["path"].startswith("images/seen/")]
    assert [file for file in shown["artifacts"] if file not in pictures] == [
        {"path": path, "size": size, "address": f"{place}/{path}"} for path, size in sizes.items()
    ]
    assert len(pictures) == 1
    assert "notes/a.txt" in command("show", "changed").stdout
    printed = command("logs", "changed")
    assert printed.returncode == 0 and printed.stdout.splitlines()[:1] == [
        "step 0 of changed: the loss is what it is, and so on"
    ]
    assert len(printed.stdout.splitlines()) == 20_001
    assert command("logs", "-n", "2", "changed").stdout.splitlines()[1] == "ValueError: not this time"
    assert command("logs", "changed", "--raw", "-n", "1").stdout == "ValueError: not this time\n"
    differ = command("compare", "--code", "plain", "changed")
    assert "+# a change that nobody has committed" in differ.stdout, differ
    every = command("compare", "--file", "", "plain", "changed").stdout
    assert "the same" in every and "big.txt" in every, every
    one = command("compare", "--file", "who.txt", "plain", "changed").stdout
    assert "-plain" in one and "+changed" in one, one
    (series,) = json.loads(command("compare", "--images", "", "plain", "changed", "--json").stdout)
    assert series["name"] == "images/seen" and [[*run["steps"]] for run in series["runs"]] == [
        ["3"],
        ["3"],
    ], series
    matrix = command("plot", "--kind", "confusion", "changed")
    assert "matrix.json" in matrix.stdout and "cat" in matrix.stdout, matrix
    made = command("checkout", "changed", str(boxes.folder / "again"))
    assert made.returncode == 0, made
    assert (boxes.folder / "again" / "train.py").read_text().endswith("nobody has committed\n")
    shutil.rmtree(boxes.folder / "cache" / "mltrack" / "artifacts")
    app = open_app(boxes.environ, "--store", str(here), columns=140, lines=40)
    app.until("changed")
    app.press("/changed\r").until("1 of 3")
    app.press("\r").until("Files 5")
    app.press("\t").until("ValueError: not this time")
    app.press("\t").until("unrecorded.txt")
    app.press("\t").until("a change that nobody has committed")
    app.press("Q")
    assert app.finish() == 0
    # Nothing was copied that nobody has looked at, and nothing over there was touched.
    kept = sum(path.stat().st_size for path in (boxes.folder / "cache").rglob("*") if path.is_file())
    assert kept < 2_000_000
    assert inodes(a) == before

    monkeypatch.setenv("XDG_CACHE_HOME", boxes.environ["XDG_CACHE_HOME"])
    monkeypatch.setenv("PATH", boxes.environ["PATH"])
    monkeypatch.setenv("MLTRACK_SSH_COMMAND", boxes.environ["MLTRACK_SSH_COMMAND"])

    def looked(call: Callable[..., dict[str, Any]], *words: Any) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while (answer := call(store, run_id, *words)).get("again"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return answer

    with open_store(str(here)) as store:
        tree = {path: (kind, size) for path, kind, size, _ in looked(files)["entries"]}
        assert tree.items() >= {path: ("file", size) for path, size in sizes.items()}.items()
        assert (tree["link"], tree["notes"]) == (("link", 0), ("folder", 21))
        preview = looked(file_preview, "notes/a.txt", 80, 20)
        assert "hello from over there" in str(preview["lines"]) and "as logged" in str(preview["facts"])
        assert looked(file_preview, "big.txt", 80, 20)["lines"]
        assert "not opened" in str(looked(file_preview, "link", 80, 20)["lines"])
        shown_pictures = compare_pictures(store, [run_id], "", None, 80, 30)
        assert (shown_pictures["name"], shown_pictures["steps"]) == ("images/seen", [3])
        assert "fg:#c8c8c8" in str(shown_pictures["lines"])
        page = looked(log_page, -3, 3)
        assert page["lines"][-1][0][0] == "ValueError: not this time"  # the end of a long one
        assert (
            0
            < page["left_out"]
            == len(printed.stdout) - LOG_BYTES + len(printed.stdout[-LOG_BYTES:].split("\n")[0]) + 1
        )
        found = looked(log_find, "step 15000 of", 0, True)["line"]
        assert looked(log_page, found, 1)["lines"][0][0][0].startswith("step 15000 of changed")
        assert "+# a change that nobody has committed" in str(looked(code_page, 80)["lines"])
        # The machine goes away: what was brought here stays, of the rest a sentence says why not.
        boxes.service("stop", "boxa")
        far_files(f"ssh://boxa{a}")._line.process.kill()  # type: ignore[union-attr]
        assert looked(log_page, -1, 1)["lines"][-1][0][0] == "ValueError: not this time"
        gone = looked(file_preview, "unrecorded.txt", 80, 20)
        assert "No connection to boxa" in str(gone["lines"])
        time.sleep(AGAIN_SECONDS)
        listed = looked(files)
        logged = {entry[0] for entry in listed["entries"] if entry[1] == "file"}
        assert logged == {*sizes, pictures[0]["path"]} - {"unrecorded.txt"}
        # With no picture that can be seen it is said why, and not that none was logged.
        with pytest.raises(BadInput, match="No connection to boxa"):
            compare_pictures(store, [run_id, run_id], "", None, 80, 30)
    away = command("show", "changed", "--json")
    assert "No connection to boxa" in away.stderr and len(json.loads(away.stdout)["artifacts"]) == 5
    told = command("logs", "changed")
    assert told.returncode == 5 and "No connection to boxa" in told.stderr and not told.stdout, told
    shutil.rmtree(boxes.folder / "cache" / "mltrack" / "artifacts")
    assert "No connection to boxa" in command("compare", "--code", "plain", "changed").stdout
    unread = command("compare", "--file", "who.txt", "plain", "changed")
    assert unread.returncode != 0 and "No connection to boxa" in unread.stderr, unread
    no = command("import", f"ssh://boxa{a}")
    assert no.returncode == 5 and "No connection to boxa" in no.stderr and "Traceback" not in no.stderr, no
    refused = command("checkout", "changed", str(boxes.folder / "third"))
    assert refused.returncode != 0 and "No connection to boxa" in refused.stderr, refused


def test_a_log_is_followed_until_its_run_is_lost_over_there(boxes: Boxes) -> None:
    here, a = (boxes.folder / name for name in ("here", "a"))
    log(here, "at-home", 0.5)
    printing = TRAINING.replace("        time.sleep", "        print('at step', step)\n        time.sleep")
    training = subprocess.Popen(
        [sys.executable, "-c", printing],
        env={**boxes.environ, "MLTRACK_STORE": str(a), "MLTRACK_CONSOLE": "1"},
        cwd=boxes.folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not any(path.stat().st_size for path in a.glob("runs/??/*/points.*")):
            assert training.poll() is None
            time.sleep(0.05)
        assert boxes.command("--store", str(here), "source", "add", f"ssh://boxa{a}").returncode == 0
        with subprocess.Popen(
            [*COMMAND, "--store", str(here), "logs", "-f", "goes-on"],
            env=boxes.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as following:
            assert following.stdout is not None and following.stderr is not None
            seen = [following.stdout.readline() for _ in range(60)]
            training.kill()
            training.wait()
            seen += following.stdout.readlines()
            assert following.wait(60) == 0 and following.stderr.read() == ""
        assert seen == [f"at step {step}\n" for step in range(len(seen))]
        (written,) = a.glob("runs/??/*/console.log")
        assert len(written.read_text().splitlines()) == len(seen)
    finally:
        training.kill()
        training.wait()


def test_an_import_makes_runs_of_another_machine_our_own(boxes: Boxes) -> None:
    here, a, code = (boxes.folder / name for name in ("here", "a", "code"))
    code.mkdir()
    (code / "train.py").write_text(TRAINED)
    git = ["git", "-C", str(code), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    (code / "train.py").write_text(TRAINED + "# a change\n")
    environ = {**boxes.environ, "MLTRACK_STORE": str(a), "MLTRACK_CONSOLE": "1"}
    subprocess.run(
        [sys.executable, "train.py", "done"], env=environ, cwd=code, check=True, stdout=subprocess.DEVNULL
    )
    live = subprocess.Popen([sys.executable, "-c", TRAINING], env=environ, cwd=boxes.folder)
    try:
        while not any(path.stat().st_size for path in a.glob("runs/??/*/points.*")):
            assert live.poll() is None
            time.sleep(0.05)
        assert boxes.command("--store", str(a), "tag", "done", "seen=yes").returncode == 0

        def command(*words: str) -> subprocess.CompletedProcess[str]:
            return boxes.command("--store", str(here), *words)

        assert command("source", "add", f"ssh://boxa{a}").returncode == 0
        done = command("import", f"ssh://boxa{a}")
        assert done.returncode == 0 and ": 1 runs, 0 points, 6 files (6 MB)" in done.stdout, done
        assert "is still running" in done.stderr and "link: not a regular file" in done.stderr
        live.kill()
        live.wait()
        # Proven dead: it need not be waited for.
        again = command("import", f"ssh://boxa{a}")
        assert (
            again.returncode == 0 and ": 1 runs" in again.stdout and "1 were here already" in again.stdout
        ), again
    finally:
        live.kill()
        live.wait()
    boxes.service("stop", "boxa")
    shutil.rmtree(boxes.folder / "cache")
    shown = json.loads(command("show", "done", "--json").stdout)
    assert (shown["source"], shown["status"], shown["tags"], shown["skipped"]) == (
        "",
        "FINISHED",
        {"seen": "yes"},
        0,
    )
    paths = {file["path"]: file["size"] for file in shown["artifacts"]}
    assert len(paths) == 6 and (paths["big.txt"], paths["unrecorded.txt"]) == (6_000_000, 26)
    assert not any("address" in file for file in shown["artifacts"])
    assert len(command("logs", "done").stdout.splitlines()) == 20_001
    assert command("checkout", "done", str(boxes.folder / "again")).returncode == 0
    assert (boxes.folder / "again" / "train.py").read_text().endswith("# a change\n")
    lost = json.loads(command("show", "goes-on", "--json").stdout)
    assert (lost["status"], lost["reason"]) == ("KILLED", f"lost: process {live.pid} is gone")


def test_a_live_run_of_another_machine_in_the_app(boxes: Boxes, open_app: OpenApp) -> None:
    here, a, b = (boxes.folder / name for name in ("here", "a", "b"))
    log(here, "at-home", 0.5)
    log(b, "on-b", 0.4)
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING], env={**boxes.environ, "MLTRACK_STORE": str(a)}, cwd=boxes.folder
    )
    try:
        while not any((a / "open").glob("*.*")):
            assert training.poll() is None
            time.sleep(0.05)
        app = open_app(
            boxes.environ, "--store", str(here), f"ssh://boxa{a}", f"ssh://boxb{b}", columns=120, lines=30
        )
        # All three come, in whatever order; the newest stands first.
        for name in ("at-home", "on-b", "goes-on.{0,300}running"):
            drawn = app.until(f"(?s){name}")
        assert "lost" not in drawn.lower()
        # Two of different machines, side by side, with what differs.
        app.press("g  c")
        app.until(r"(?s)goes-on.*on-b.* \.25.* \.4")
        app.press("q").until("at-home")
        # The machine goes away: one sentence, and everything else stays. It comes back, and so do the points.
        port_file = boxes.folder / "boxa" / "pid"
        server = psutil.Process(int(port_file.read_text()))
        lines = [
            child
            for child in psutil.Process(app.pid).children(recursive=True)
            if child.name() == "ssh" and "boxa" in child.cmdline()
        ]
        assert len(lines) == 1
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        lines[0].kill()
        app.press("").until("No connection to boxa")
        other = subprocess.run(
            [*COMMAND, "--store", str(here), "ls", "--ids"], env=boxes.environ, capture_output=True, text=True
        )
        assert (
            other.returncode == 0
            and len(other.stdout.split()) == 3
            and "No connection to boxa" in other.stderr
        )
        boxes.start("boxa")
        app.press("").until("can be read again", 60)
        with open_store(str(here)) as store:
            (run,) = store.runs([store.resolve("goes-on")])
            deadline, count = time.monotonic() + 60, run.metrics["loss"].count
            while run.metrics["loss"].count <= count:
                assert time.monotonic() < deadline
                time.sleep(0.2)
                (run,) = store.runs([run.run_id])
            assert (run.status, run.source) == ("RUNNING", f"ssh://boxa{a}")
        app.press("Q")
        assert app.finish() == 0 and app.left_as_found()
    finally:
        training.kill()
        training.wait()
    gone = [
        process for process in psutil.process_iter(["cmdline"]) if "boxa" in (process.info["cmdline"] or ())
    ]
    assert psutil.wait_procs(gone, 20)[1] == []


def test_a_process_that_was_killed_there_is_lost_here_with_the_proof(boxes: Boxes, open_app: OpenApp) -> None:
    here, a = (boxes.folder / name for name in ("here", "a"))
    log(here, "at-home", 0.5)
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING], env={**boxes.environ, "MLTRACK_STORE": str(a)}, cwd=boxes.folder
    )
    try:
        while not any((a / "open").glob("*.*")):
            assert training.poll() is None
            time.sleep(0.05)
        app = open_app(boxes.environ, "--store", str(here), f"ssh://boxa{a}", columns=120, lines=30)
        app.until("(?s)goes-on.{0,300}running")
        training.kill()
        training.wait()
        # The marker is as fresh as that of a run that goes on: only over there is it known that nothing will come.
        app.until(f"goes-on is lost: process {training.pid} is gone", 30)
        app.press("Q")
        assert app.finish() == 0
        # It goes on as another process: what was proven of the first holds no more.
        run = json.loads(boxes.command("--store", str(here), "show", "goes-on", "--json").stdout)
        assert (run["status"], run["reason"]) == ("LOST", f"process {training.pid} is gone")
        resumed = (
            f"import mltrack\nwith mltrack.start_run(run_id={run['run_id']!r}, system_metrics=False): pass"
        )
        subprocess.run(
            [sys.executable, "-c", resumed],
            env={**boxes.environ, "MLTRACK_STORE": str(a)},
            cwd=boxes.folder,
            check=True,
        )
        deadline = time.monotonic() + 60
        while run["status"] != "FINISHED":
            assert time.monotonic() < deadline
            run = json.loads(boxes.command("--store", str(here), "show", "goes-on", "--json").stdout)
        assert run["reason"] == ""
    finally:
        training.kill()
        training.wait()


# What stands there in place of mltrack, with the words that it is called with, and what must be said of it.
OTHERS = {
    "from before stores were followed": (
        "exec $MLTRACK $(echo $* | sed 's/worker/ls/')",
        "mltrack there is too old to hand over its journals; install the version that is here",
    ),
    "that does not know our protocol": (
        "exec $MLTRACK $(echo $* | sed 's/--journals=1/--journals=0/')",
        f"mltrack is {mltrack.__version__} on that machine and another here; install one of them in both places",
    ),
    "that answers in another protocol": (
        """echo '{"journals": 0, "root": "/x"}'; cat > /dev/null""",
        "mltrack there hands over its journals in another way; install one version in both places",
    ),
    "that is none": (
        """echo '{"journals": 1}'; cat > /dev/null""",
        "it does not answer as mltrack does: 'root'",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_mltrack_over_there_of_another_version_is_a_sentence(boxes: Boxes, other: str) -> None:
    here, a = (boxes.folder / name for name in ("here", "a"))
    log(here, "at-home", 0.1)
    log(a, "on-a", 0.2)
    script, sentence = OTHERS[other]
    stand_in(boxes, script)
    listed = boxes.app("--store", str(here), "--once", f"ssh://boxa{a}", "ssh://boxb/none")
    assert "at-home" in listed.stdout and "on-a" not in listed.stdout
    assert f"No connection to boxa ({sentence})" in listed.stderr, listed


def test_an_mltrack_over_there_from_before_files_came_hands_over_the_rest(boxes: Boxes) -> None:
    here, a = (boxes.folder / name for name in ("here", "a"))
    log(here, "at-home", 0.1)
    log(a, "on-a", 0.2)
    stand_in(boxes, """$MLTRACK $* | LC_ALL=C sed -u 's/"files": 1, //'""")
    assert boxes.command("--store", str(here), "source", "add", f"ssh://boxa{a}").returncode == 0
    shown = boxes.command("--store", str(here), "show", "on-a")
    assert "mltrack there is too old to hand over files; install the version that is here" in shown.stderr
    assert "notes.txt" in shown.stdout, shown


def stand_in(boxes: Boxes, script: str) -> None:
    """What is called over there is this script, with mltrack as $MLTRACK."""
    path = boxes.folder / "stand-in"
    path.write_text(f"#!/bin/sh\nMLTRACK='{boxes.environ['MLTRACK_SSH_COMMAND']}'\n{script}\n")
    path.chmod(0o755)
    boxes.environ["MLTRACK_SSH_COMMAND"] = str(path)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch here;/x", "", "a b", "ann:secret@boxa"])
def test_addresses_that_name_no_machine_are_refused(boxes: Boxes, host: str) -> None:
    store = boxes.folder / "store"
    log(store, "own", 0.1)
    for done in (
        boxes.command("--store", str(store), "source", "add", f"ssh://{host}/x"),
        boxes.app("--store", str(store), "--once", f"ssh://{host}/x"),
        boxes.app("--store", str(store), "--once", "ssh://boxa/x", f"ssh://{host}/x"),
    ):
        assert done.returncode != 0 and ("names no machine" in done.stderr or "password" in done.stderr), done
    assert not Path("here").exists() and not (boxes.folder / "cache" / "mltrack" / "mirrors").exists()


def test_the_store_of_another_machine_is_not_told_what_to_follow_from_here(boxes: Boxes) -> None:
    a = boxes.folder / "a"
    log(a, "on-a", 0.1)
    for words in ([], ["--once"], ["--plain"]):
        done = boxes.app("--store", f"ssh://boxa{a}", *words, "ssh://boxb/y")
        assert done.returncode == 5 and f"--store FOLDER ssh://boxa{a} ssh://boxb/y" in done.stderr, done
    assert json.loads(boxes.command("--store", str(a), "source", "list", "--json").stdout) == []


def test_a_machine_that_does_not_answer_is_waited_for_once(boxes: Boxes) -> None:
    here = boxes.folder / "here"
    log(here, "at-home", 0.1)
    boxes.environ["MLTRACK_SSH_COMMAND"] = "exec sleep 60;"
    first = boxes.app("--once", "--store", str(here), "ssh://boxa/x")
    assert "at-home" in first.stdout and "ssh://boxa/x has not told all it has yet" in first.stderr, first
    state = next((boxes.folder / "cache" / "mltrack" / "mirrors").glob("*/mirror.json"))
    deadline = time.monotonic() + 20
    while not state.exists():  # written when the command has gone
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = boxes.command("--store", str(here), "ls")
    assert "at-home" in second.stdout and "has not told" not in second.stderr
    assert "No connection to boxa (no answer within" in second.stderr, second
