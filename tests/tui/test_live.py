"""The screen's end of the pipe to its worker."""

from __future__ import annotations

import queue
from pathlib import Path

from textual.message import Message

from mltrack.store import open_store
from mltrack.tui.live import Live
from mltrack.tui.messages import Answered
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
