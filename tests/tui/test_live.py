"""The screen's end of the pipe to its worker."""

from __future__ import annotations

import queue
import sqlite3
from pathlib import Path

from textual.message import Message

from mltrack.store import open_store
from mltrack.tui.live import Live
from mltrack.tui.messages import Answered, Note
from mltrack.tui.worker_process import WorkerProcess


def test_a_first_answer_that_is_there_before_the_screen_waits_for_it(tmp_path: Path) -> None:
    open_store(str(tmp_path)).close()
    posted: queue.Queue[Message] = queue.Queue()
    worker = WorkerProcess(str(tmp_path), False)
    worker.ask_first("view", first=5)
    live = Live(str(tmp_path), False, posted.put, worker)
    try:
        live.start()

        def deliver() -> None:
            while not isinstance(message := posted.get(timeout=30), Answered):
                pass
            live.deliver(message)

        deliver()
        found: list[dict[str, object]] = []
        assert live.claim_first(found.append, topic="view")
        deliver()
        assert [view["all"] for view in found] == [0]
        assert not live.claim_first(found.append)
    finally:
        live.close()


def test_a_worker_tells_that_it_upgrades_the_store_before_it_answers(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "mltrack.db")
    connection.executescript((Path(__file__).parents[1] / "data" / "schema-1.sql").read_text("utf-8"))
    for key, value in (("schema", "1"), ("store_id", "0" * 32), ("seq", "0"), ("created_ms", "1")):
        connection.execute("INSERT INTO setting VALUES (?, ?)", (key, value))
    connection.commit()
    connection.close()
    posted: queue.Queue[Message] = queue.Queue()
    worker = WorkerProcess(str(tmp_path), False)
    worker.ask_first("view", first=5)
    live = Live(str(tmp_path), False, posted.put, worker)
    try:
        live.start()
        note = posted.get(timeout=60)
        assert isinstance(note, Note) and "copied to backups first" in note.sentence
        assert isinstance(posted.get(timeout=60), Answered)
    finally:
        live.close()
