"""The store's own process as the screen uses it: one line in, one line out, folding in between, and nothing ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import open_store
from mltrack.store.client.journal import Journal, points_line

T0 = 1_700_000_000_000
PATIENCE_SECONDS = 60.0


class Peer:
    """A worker and the screen's end of its pipes."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mltrack.tui.cli", "worker", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ,
        )
        self.events: list[dict[str, Any]] = []

    def send(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        message: dict[str, Any] = json.loads(line)
        return message

    def reply(self) -> dict[str, Any]:
        """The next answer; events before it are kept."""
        while True:
            message = self.read()
            if "event" not in message:
                return message
            self.events.append(message)

    def ask(self, call: str, **options: Any) -> Any:
        self.send(json.dumps({"id": call, "call": call, "with": options}).encode())
        answer = self.reply()
        assert answer["id"] == call
        return answer["result"] if "result" in answer else answer["error"]

    def until(self, right: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not right():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(timeout=PATIENCE_SECONDS)
        assert self.process.stdout is not None and self.process.stderr is not None
        assert self.process.stderr.read() == b""
        return code


@pytest.fixture
def root(store_root: Path) -> Path:
    for number in range(3):
        log(store_root, number, 10)
    return store_root


@pytest.fixture
def peer(root: Path) -> Iterator[Peer]:
    peer = Peer()
    yield peer
    if peer.process.poll() is None:
        peer.process.kill()
        peer.process.wait()


def log(root: Path, number: int, count: int) -> str:
    run_id = f"{number:032x}"
    journal = Journal(root, run_id, f"{T0 + number}-aaaaaa", identity={"host": "far"}, time_ms=T0 + number)
    journal.meta("start", T0 + number, name=f"run {number}", experiment="e", user="ann")
    file = journal.points()
    for step in range(count):
        file.append(points_line(step, T0 + step, {"loss": number + step / 7}))
    journal.meta("end", T0 + count, status="FINISHED", exit=0)
    journal.meta("close", T0 + count, points=file.size)
    journal.close()
    return run_id


def test_questions_commands_and_the_end(peer: Peer) -> None:
    peer.until(lambda: peer.ask("search", filter="")["total"] == 3)
    page = peer.ask("search", filter="loss > 2", sort=["-loss"], limit=1)
    assert page["total"] == 2 and page["run_ids"] == [f"{2:032x}"] and page["next"]
    points = peer.ask("points", run_id=f"{1:032x}", key="loss")
    assert points["steps"] == list(range(10)) and points["values"] == [1 + step / 7 for step in range(10)]
    assert peer.ask("set_tags", run_ids=[f"{0:032x}"], tags={"a": "b"})["sentence"]
    assert peer.ask("run", reference=f"{0:032x}")["tags"] == {"a": "b"}
    assert peer.ask("undo")["sentence"].startswith("Undid")
    assert peer.ask("run", reference=f"{0:032x}")["tags"] == {}
    assert peer.end() == 0


def test_nothing_that_is_asked_ends_it(peer: Peer) -> None:
    hostile = [
        b"no json", b"", b"[]", b"null", b"\xff\xfe", b'{"id": 1}', b'{"id": 2, "call": "close"}',
        b'{"id": 3, "call": "__class__"}', b'{"id": 4, "call": "search", "with": {"filter": "lr <"}}',
        b'{"id": 5, "call": "search", "with": {"no_such": 1}}', b'{"id": 6, "call": "search", "with": 7}',
        b'{"id": 7, "call": "run", "with": {"reference": "nobody"}}', b'{"id": 8, "call": ["search"]}',
        b'{"id": 9, "call": "points", "with": {"run_id": "x", "key": "y"}}',
        b'{"id": 10, "call": "set_tags", "with": {"run_ids": ["x"], "tags": {"a": "b"}}}', b"[" * 100_000,
    ]  # fmt: skip
    for line in hostile:
        peer.send(line)
        answer = peer.reply()
        assert answer["error"]["kind"] and answer["error"]["message"], line
        if b"lr <" in line:
            assert (answer["error"]["kind"], answer["error"]["position"]) == ("FilterError", 4)
    assert peer.ask("keys", kind="metric") in ([], ["loss"])
    assert peer.end() == 0


def test_a_question_that_a_newer_one_overtook_is_dropped(peer: Peer) -> None:
    peer.ask("keys")
    lines = [
        json.dumps({"id": n, "generation": n, "call": "search", "with": {"filter": f"run {n}"}}).encode()
        for n in range(1, 40)
    ]
    peer.send(*lines, b'{"id": "other", "generation": 1, "call": "keys"}')
    seen: list[Any] = []
    while not seen or seen[-1] != "other":
        seen.append(peer.reply()["id"])
    assert 39 in seen and seen == sorted(seen[:-1]) + ["other"]
    assert len(seen) < 40, "they came in one piece of a pipe, so most are overtaken"


def test_what_is_logged_meanwhile_is_told_without_asking(peer: Peer, root: Path) -> None:
    peer.until(lambda: peer.ask("search", filter="")["total"] == 3)
    before = int(peer.events[-1]["seq"])
    log(root, 7, 20)
    while True:
        message = peer.read()
        if message.get("event") == "changed" and message["seq"] > before:
            break
    peer.until(lambda: peer.ask("search", filter="name = 'run 7'")["total"] == 1)


def test_two_workers_of_one_store_agree_and_one_takes_over(root: Path) -> None:
    peers = [Peer(), Peer()]
    try:
        for peer in peers:
            peer.until(lambda peer=peer: peer.ask("search", filter="")["total"] == 3)  # type: ignore[misc]
        peers[0].ask("note", run_id=f"{1:032x}", text="seen by both")
        assert peers[1].ask("run", reference=f"{1:032x}")["note"] == "seen by both"
        peers[0].process.send_signal(signal.SIGKILL)
        peers[0].process.wait()
        log(root, 8, 20)
        peers[1].until(lambda: peers[1].ask("search", filter="name = 'run 8'")["total"] == 1)
        assert peers[1].end() == 0
    finally:
        for peer in peers:
            if peer.process.poll() is None:
                peer.process.kill()
            peer.process.wait()
    with open_store() as store:
        assert store.points(f"{8:032x}", "loss").steps.tolist() == list(range(20))


def test_a_reader_only_reads(root: Path) -> None:
    with open_store() as store:
        store.refresh(None)
    log(root, 9, 20)
    peer = Peer("--readonly")
    assert peer.ask("search", filter="")["total"] == 3
    assert peer.ask("note", run_id=f"{1:032x}", text="no")["kind"] == "ReadOnly"
    assert peer.end() == 0


def test_trouble_with_the_store_is_told_and_survived(peer: Peer, root: Path) -> None:
    peer.until(lambda: peer.ask("search", filter="")["total"] == 3)
    with open_store() as store:  # a writer that does not let go: questions are answered all the same
        with store.database.transaction():
            assert peer.ask("search", filter="loss > 0")["total"] == 3
    peer.process.send_signal(signal.SIGTERM)
    assert peer.process.wait(timeout=PATIENCE_SECONDS) == -signal.SIGTERM
    with open_store() as store:
        assert store.search("loss > 0").total == 3
        if store.database.kind == "sqlite":
            assert store.database.execute("PRAGMA integrity_check") == [("ok",)]
