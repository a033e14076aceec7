"""A copy of another machine's journals: cut off at any byte it goes on, and shows nothing half or twice; and it believes nothing."""

from __future__ import annotations

import fcntl
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

import mltrack
from mltrack.store import open_store
from mltrack.store.client import host
from mltrack.store.fold_sources import POLL_SECONDS
from mltrack.store.import_source import import_source
from mltrack.store.machines import mirror_folder
from mltrack.store.mirror import Mirror
from mltrack.store.mirror_far import FarSide
from mltrack.store.mirror_line import Lost
from mltrack.store.proofs import Writers
from mltrack.store.ssh_address import Remote

HERE = Remote("box", None, "")


class Wire(io.RawIOBase):
    """The end of a pipe to read from, which breaks after so many bytes."""

    def __init__(self, fd: int, left: int) -> None:
        self._file, self._left = os.fdopen(fd, "rb", buffering=0), left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left)) or b""
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """connect(root, looks=1, bytes=None): the two sides joined by pipes, for so many looks or so many bytes. Returns the bytes."""
    copy = tmp_path / "copy"
    copy.mkdir()

    def run(root: Path, looks: int = 1, limit: int = 1 << 40) -> int:
        left = [looks]

        def stop(seconds: float) -> None:
            left[0] -= 1
            if left[0] <= 0:
                raise Lost("enough")

        there, to_there = os.pipe()
        here, to_here = os.pipe()

        def far() -> None:
            with (
                os.fdopen(there, "rb") as source,
                suppress(BrokenPipeError),
                os.fdopen(to_here, "wb") as sink,
            ):
                FarSide(root, source, sink).serve()

        thread = threading.Thread(target=far)
        thread.start()
        mirror = Mirror(HERE, copy, stop)
        mirror.prepare()
        wire = Wire(here, limit)
        source: IO[bytes] = io.BufferedReader(wire)  # type: ignore[assignment]
        try:
            with os.fdopen(to_there, "wb") as sink, pytest.raises((Lost, BrokenPipeError)):
                mirror.look_on(sink, source)
        finally:
            source.close()
            thread.join(30)
        return limit - wire._left

    yield run


def log(root: Path, name: str, steps: int) -> str:
    mltrack.set_store(str(root))
    try:
        with mltrack.start_run(run_name=name, system_metrics=False) as run:
            mltrack.log_param("lr", 0.1)
            for step in range(steps):
                mltrack.log_metric("loss", step / 7, step)
        return run.run_id
    finally:
        mltrack.set_store(None)


def journals(root: Path) -> dict[str, bytes]:
    names = [*root.glob("runs/??/[0-9a-f]*/*.jsonl*"), root / "decisions.jsonl"]
    return {str(path.relative_to(root)): path.read_bytes() for path in names if path.exists()}


def test_a_copy_that_is_cut_off_anywhere_goes_on(tmp_path: Path, connect: Callable[..., int]) -> None:
    root, copy = tmp_path / "there", tmp_path / "copy"
    runs = {log(root, f"run {number}", 40 * number) for number in range(6)}
    with open_store(str(root)) as store:
        store.refresh(None)
        store.note(min(runs), "look")
    whole = journals(root)
    numbers = random.Random(1)
    for _ in range(25):
        connect(root, limit=numbers.randrange(1, 9000))
        for name, data in journals(copy).items():
            # A run that can be seen has all of its files, and they are what they are there.
            assert data == whole[name] or name == "decisions.jsonl"
        with suppress(FileNotFoundError):
            for folder in copy.glob("runs/??/[0-9a-f]*"):
                assert len([*folder.iterdir()]) == 2
    connect(root)
    assert journals(copy) == whole
    # And when nothing is new, next to nothing goes over.
    again = connect(root, looks=3)
    assert again < 1000
    with open_store(str(tmp_path / "mine")) as mine:
        mine.add_source(str(copy))
        assert mine.refresh(None).damaged == ()
        assert {run.run_id for run in mine.runs(mine.search().run_ids)} == runs
        assert mine.runs([min(runs)])[0].note == "look"


def test_what_is_appended_sealed_and_purged_there(tmp_path: Path, connect: Callable[..., int]) -> None:
    root, copy = tmp_path / "there", tmp_path / "copy"
    first, second = log(root, "first", 500), log(root, "second", 3)
    connect(root)
    folder = root / "runs" / first[:2] / first
    (points,) = folder.glob("points.*")
    kept = (copy / points.relative_to(root)).read_bytes()
    # A torn line, and what stands behind a hole, are not there yet.
    with points.open("ab") as file:
        file.write(b'[900,1700000000000,"loss",0.5]\n[901,170')
    connect(root)
    assert (copy / points.relative_to(root)).read_bytes() == kept + b'[900,1700000000000,"loss",0.5]\n'
    with points.open("ab") as file:
        file.write(b'0000000000,"loss",0.25]\n' + bytes(64) + b"\n[902]\n")
    connect(root, looks=2)
    seen = (copy / points.relative_to(root)).read_bytes()
    assert seen.endswith(b'"loss",0.25]\n') and b"\0" not in seen
    with points.open("r+b") as file:
        file.truncate(len(seen))
    with open_store(str(root)) as store:
        store.refresh(None)
        store.seal(older_than_seconds=-10)
        connect(root)
        assert journals(copy) == journals(root) and all(
            name.endswith((".zst", "decisions.jsonl")) for name in journals(copy)
        )
        store.trash([second])
        store.purge([second])
    connect(root)
    assert journals(copy) == journals(root)
    assert not (copy / "runs" / second[:2] / second).exists()


def test_who_writes_there_is_running_here(tmp_path: Path, connect: Callable[..., int]) -> None:
    root, copy = tmp_path / "there", tmp_path / "copy"
    mltrack.set_store(str(root))
    try:
        with open_store(str(tmp_path / "mine")) as mine:
            with mltrack.start_run(run_name="live", system_metrics=False) as run:
                mltrack.log_metric("loss", 0.5, 0)
                (marker,) = (root / "open").iterdir()
                # Its clock is an hour ahead, and its process is none of this machine.
                connect(root)
                mine.add_source(str(copy))
                mine.refresh(None)
                (here,) = mine.runs([run.run_id])
                assert (here.status, here.quiet, here.metrics["loss"].count) == ("RUNNING", False, 1)
                # Two minutes without a beat, and then one, without a point.
                old = marker.stat().st_mtime_ns - 120_000_000_000
                for path in [marker, *root.glob("runs/??/*/*.jsonl")]:
                    os.utime(path, ns=(old, old))
                shutil.rmtree(copy)
                copy.mkdir()
                connect(root)
                assert [*(copy / "open").iterdir()][0].stat().st_mtime_ns == old
                os.utime(marker)
                connect(root)
                mine.refresh(None)
                (here,) = mine.runs([run.run_id])
                assert (here.status, here.quiet) == ("RUNNING", False)
            with open_store(str(root)) as theirs:
                theirs.refresh(None)  # takes the marker away
            connect(root)
            mine.refresh(None)
            assert mine.runs([run.run_id])[0].status == "FINISHED"
            assert [*(copy / "open").iterdir()] == []
    finally:
        mltrack.set_store(None)


RUN = "0123456789abcdef0123456789abcdef"
HOSTILE: tuple[dict[str, Any], ...] = (
    {"file": "../../outside", "at": 0, "size": 4, "whole": True},
    {"file": f"{RUN}/../../../../outside", "at": 0, "size": 4, "whole": True},
    {"file": f"{RUN}/meta.{'a' * 15}/.jsonl", "at": 0, "size": 4, "whole": True},
    {"file": "/mirror.json", "at": 0, "size": 4, "whole": True},
    {"file": f"{RUN}/meta.{'a' * 16}.jsonl", "at": 0, "size": 1 << 60, "whole": True},
    {"file": f"{RUN}/meta.{'a' * 16}.jsonl", "at": 1 << 40, "size": 4, "whole": True},
    {"run": "../..", "mtime": 0, "names": []},
    {"gone": ["../../.."]},
    {"gone": ["."]},
    {"open": ["x"], "now": "y"},
    {"lost": {"../../../outside": ["LOST", "x", 1]}},
    {"lost": {f"{'a' * 16}.{RUN}": ["LOST", "x", 1, 2]}},
    {"lost": {f"{'a' * 16}.{RUN}": [["LOST"], "x", {}]}},
    {"file": 3},
)


@pytest.mark.parametrize("message", HOSTILE, ids=[json.dumps(message)[:40] for message in HOSTILE])
def test_nothing_the_other_side_says_leads_out_of_the_copy(tmp_path: Path, message: dict[str, Any]) -> None:
    copy = tmp_path / "a" / "copy"
    copy.mkdir(parents=True)
    (tmp_path / "kept").write_text("kept")
    lines = [{"journals": 1, "root": "/x"}, {"differ": ["../..", "zz"]}, message]
    wire = io.BytesIO(b"Welcome!\n" + b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"evil")
    mirror = Mirror(HERE, copy)
    mirror.prepare()
    before = set(tmp_path.rglob("*"))
    with pytest.raises((Lost, ValueError, KeyError, TypeError, AttributeError)):
        mirror.look_on(io.BytesIO(), wire)
    made = {path.relative_to(copy).parts[0] for path in set(tmp_path.rglob("*")) - before}
    assert (
        made <= {"runs", "open", "mirror.json", "proofs.json"} and (tmp_path / "kept").read_text() == "kept"
    )
    assert (copy / "runs").is_dir() and (copy / "open").is_dir()


TRAINS = """
import os, sys, time, mltrack
with mltrack.start_run(run_name=sys.argv[1], system_metrics=False) as run:
    mltrack.log_metric("loss", 0.5, 0)
    print(run.run_id, flush=True)
    sys.stdin.readline()
"""


def test_only_what_is_proven_there_is_told_of_a_writer(tmp_path: Path, connect: Callable[..., int]) -> None:
    root, copy = tmp_path / "there", tmp_path / "copy"
    environ = {**os.environ, "MLTRACK_STORE": str(root)}

    def train(name: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINS, name],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    def proofs() -> dict[str, list[Any]]:
        """By run id."""
        connect(root)
        found = json.loads((copy / "proofs.json").read_bytes())
        return {marker.partition(".")[2]: proof for marker, proof in found.items()}

    started = {name: train(name) for name in ("lives", "killed", "stopped", "elsewhere", "ends")}
    try:
        assert proofs() == {}
        for name, number in (
            ("killed", signal.SIGKILL),
            ("stopped", signal.SIGTERM),
            ("elsewhere", signal.SIGKILL),
        ):
            process, run_id = started[name]
            if name == "elsewhere":  # of a machine that we know nothing of, and silent for a week
                (meta,) = root.glob(f"runs/??/{run_id}/meta.*.jsonl")
                head, rest = meta.read_text().split("\n", 1)
                other = {**json.loads(head), "host": "node7", "machine": "7" * 12, "boot": "another"}
                meta.write_text(f"{json.dumps(other)}\n{rest}")
                old = meta.stat().st_mtime_ns - 7 * 86_400 * 10**9
                for path in (meta, *root.glob(f"open/*.{run_id}")):
                    os.utime(path, ns=(old, old))
            process.send_signal(number)
            process.wait(30)
        process, ended = started["ends"]
        process.communicate("\n", timeout=30)
        killed, stopped = started["killed"], started["stopped"]
        first = proofs()
        assert {run: proof[:2] for run, proof in first.items()} == {
            killed[1]: ["LOST", f"process {killed[0].pid} is gone"],
            stopped[1]: ["KILLED", "signal 15 (SIGTERM)"],
        }
        # Somebody there looks: the markers of the dead go, and what is proven stays.
        with open_store(str(root)) as theirs:
            theirs.refresh(None)
            runs = {run.run_id: run for run in theirs.runs([killed[1], stopped[1]])}
            assert not [*root.glob(f"open/*.{killed[1]}")]
            again = proofs()
            assert again.keys() == first.keys()
            for run_id, proof in again.items():
                assert (runs[run_id].status, runs[run_id].reason) == tuple(proof[:2])
                assert abs((runs[run_id].end_ms or 0) - proof[2]) < 16_000
            # And where it has sealed their journals, that says that they have ended.
            theirs.seal(older_than_seconds=-10)
        assert proofs() == {}
        with open_store(str(tmp_path / "mine")) as mine:
            mine.add_source(str(copy))
            mine.refresh(None)
            seen = {run.run_id: (run.status, run.reason) for run in mine.runs(mine.search().run_ids)}
        said = ("LOST", "ended without a word, as its store says")
        assert seen[killed[1]] == seen[stopped[1]] == said and seen[ended] == ("FINISHED", "")
        assert seen[started["lives"][1]] == ("RUNNING", "")
        with open_store(str(tmp_path / "own")) as own:
            import_source(own, str(copy))
            (taken,) = own.runs([killed[1]])
        assert (taken.status, taken.reason, taken.skipped) == ("KILLED", f"lost: {said[1]}", 0)
    finally:
        for process, _ in started.values():
            process.kill()
            process.communicate()


def test_what_is_proven_no_more_is_taken_back(
    tmp_path: Path, connect: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine that was cloned: it seemed restarted, until it was heard of again."""
    root, copy = tmp_path / "there", tmp_path / "copy"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mirror_folder("ssh://box/x").parent.mkdir(parents=True)
    mirror_folder("ssh://box/x").symlink_to(copy)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINS, "here"],
        env={**os.environ, "MLTRACK_STORE": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline()
    process.kill()
    process.communicate()
    connect(root)
    (marker,) = json.loads((copy / "proofs.json").read_bytes())
    with (copy / "lock").open("ab") as lock, open_store(str(tmp_path / "mine")) as mine:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as who keeps the mirror
        mine.add_source("ssh://box/x")

        def status(proofs: dict[str, Any]) -> tuple[str, str, int | None]:
            (copy / "proofs.json").write_text(json.dumps(proofs))
            state = json.loads((copy / "mirror.json").read_bytes())
            (copy / "mirror.json").write_text(json.dumps({**state, "changes": state["changes"] + 1}))
            time.sleep(POLL_SECONDS)
            mine.refresh(None)
            (run,) = mine.runs([marker.partition(".")[2]])
            return run.status, run.reason, run.end_ms

        assert status({}) == ("RUNNING", "", None)
        assert status({marker: ["LOST", "the machine was restarted", 99]}) == (
            "LOST",
            "the machine was restarted",
            99,
        )
        assert status({}) == ("RUNNING", "", None)
        assert status({marker: ["KILLED", "signal 15 (SIGTERM)", 99]})[0] == "KILLED"
        # What no far side of ours says is counted as a record that cannot be read, and changes nothing.
        assert status({marker: ["FINISHED", "it says", 99]})[0] == "KILLED"


def test_an_end_that_was_written_with_the_last_breath_is_no_loss(tmp_path: Path) -> None:
    run = "0123456789abcdef" * 2
    folder = tmp_path / "runs" / "01" / run
    folder.mkdir(parents=True)
    meta = folder / f"meta.{'a' * 16}.jsonl"
    with subprocess.Popen(["true"]) as process:
        process.wait()
    head = {"mltrack": 1, "kind": "meta", "jid": "a" * 16, "run": run, "attempt": "0", **host.identity()}
    meta.write_text(json.dumps({**head, "pid": process.pid, "pstart": "1", "time": 1}) + "\n")
    writers = Writers()

    def look() -> None:
        facts = meta.stat()
        writers.look(meta, (facts.st_size, facts.st_mtime_ns))

    look()
    assert [*writers.lost({})] == [f"{'a' * 16}.{run}"]
    with meta.open("a") as file:
        file.write('{"op":"end","t":2,"status":"FINISHED"}\n{"op":"close","t":2,"points":0}\n')
    assert writers.lost({}) == {}
    look()
    assert writers.lost({}) == {}
