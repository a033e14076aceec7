"""The screen's end of the pipe to its worker: start, ask, hear, start again.

The worker folds and answers in a process of its own, so that nothing the store does can hold up a key. A thread reads
its lines and posts messages; callbacks run in the app's thread only.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from textual.message import Message

from mltrack.tui.messages import Answered, Note, StoreChanged, Trouble, WorkerEnded
from mltrack.tui.worker_process import FIRST, WorkerProcess

OnResult = Callable[[Any], None]
OnError = Callable[[dict[str, Any]], None]
# A worker that dies sooner than this after its start is not started again at once: the store itself is in trouble.
_HEALTHY_SECONDS = 5.0
_RESTARTS = 3
# A lost connection is made again after 1, 2, 4 ... seconds, at most this many.
_LONGEST_RETRY = 30.0


@dataclass
class _Pending:
    topic: str
    on_result: OnResult
    on_error: OnError | None


class Live:
    """Requests and answers. All methods belong to the app's thread."""

    def __init__(
        self,
        where: str | None,
        readonly: bool,
        post: Callable[[Message], object],
        worker: WorkerProcess | None = None,
    ) -> None:
        self._where = where
        self._readonly = readonly
        self._post = post
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._newest: dict[str, int] = {}
        self._restarts = 0
        self._closing = False
        self._worker = worker
        self._early: Answered | None = None
        self.host = worker.host if worker is not None else ""
        """What ssh calls the machine of the store; "" for this one."""
        self.retry_seconds = 0.0
        """How long to wait before a lost connection is made again with ``start``; 0 when there is nothing to wait for."""
        self._lost = False
        self.absent = "The store is not open."
        """Why there is no worker, for people."""

    @property
    def running(self) -> bool:
        """Whether a worker is there to be asked."""
        return self._worker is not None

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._worker.process.pid if self._worker else None

    def start(self) -> None:
        """Start the worker, unless it was handed over, and listen to it."""
        if self._worker is None:
            self._worker = WorkerProcess(self._where, self._readonly)
            self.host = self._worker.host
        self.retry_seconds = 0.0
        threading.Thread(target=self._listen, args=(self._worker,), name="worker", daemon=True).start()

    def ask(
        self,
        call: str,
        on_result: OnResult,
        on_error: OnError | None = None,
        *,
        topic: str = "",
        **options: Any,
    ) -> None:
        """Ask the worker. A newer request of the same ``topic`` makes the answer of the older one unwanted.

        Where there is no worker, what was asked on behalf of a key (it has no topic) is refused; pages just stay empty."""
        if self._worker is None:
            if self.host:
                self._post(Trouble(self._trying()))
            elif on_error is not None and not topic:
                on_error({"kind": "NoStore", "message": self.absent})
            return
        request = next(self._ids)
        if topic:
            self._pending.pop(self._newest.get(topic, 0), None)
            self._newest[topic] = request
        self._pending[request] = _Pending(topic, on_result, on_error)
        line = orjson.dumps({"id": request, "call": call, "with": options}, option=orjson.OPT_APPEND_NEWLINE)
        stdin = self._worker.process.stdin
        try:
            assert stdin is not None
            stdin.write(line)
            stdin.flush()
        except (OSError, ValueError):
            self._pending.pop(request, None)  # its end is reported by the thread that listens

    def drop(self, topic: str) -> None:
        """What was asked about this topic is not wanted any more."""
        self._pending.pop(self._newest.pop(topic, -1), None)

    def claim_first(self, on_result: OnResult, on_error: OnError | None = None, *, topic: str = "") -> bool:
        """Be given the answer to the question that the process was started with; False when there was none."""
        if self._worker is None or not self._worker.asked_first:
            return False
        self._worker.asked_first = False
        if topic:
            self._newest[topic] = FIRST
        self._pending[FIRST] = _Pending(topic, on_result, on_error)
        if self._early is not None:
            self._post(self._early)
            self._early = None
        return True

    def deliver(self, answer: Answered) -> str | None:
        """Hand an answer to whoever asked. Returns the sentence of an error that nobody wanted to handle."""
        pending = self._pending.pop(answer.request, None)
        if pending is None:
            # Overtaken, or the worker was ready before the screen that its first answer is for.
            if answer.request == FIRST and self._worker is not None and self._worker.asked_first:
                self._early = answer
            return None
        if answer.error is None:
            pending.on_result(answer.result)
            return None
        if pending.on_error is not None:
            pending.on_error(answer.error)
            return None
        return str(answer.error.get("message", "The store did not say what is wrong."))

    def ended(self, message: WorkerEnded) -> str | None:
        """Start again after the worker died; returns what to tell the person, None when nothing is wrong."""
        worker = self._worker
        if self._closing or worker is None or worker.process.pid != message.process:
            return None
        self._worker = None
        self._pending.clear()
        if worker.host:
            self._lost = True
            self._restarts += 1
            self.retry_seconds = min(_LONGEST_RETRY, 2.0 ** (self._restarts - 1))
            return self._trying(message.last_words)
        healthy = time.monotonic() - worker.began > _HEALTHY_SECONDS
        self._restarts = 0 if healthy else self._restarts + 1
        why = f": {message.last_words}" if message.last_words else f" (exit code {message.code})"
        if self._restarts > _RESTARTS:
            return f"The store's worker cannot stay up{why}"
        self.start()
        return f"The store's worker ended and was started again{why}"

    def _trying(self, why: str = "") -> str:
        return f"No connection to {self.host}{f' ({why})' if why else ''}: trying again; what is shown is from before"

    def heard(self) -> str | None:
        """The store has said something. Returns what to tell the person when it had been away."""
        self._restarts = 0 if self._lost else self._restarts
        was, self._lost = self._lost, False
        return (
            (f"Connected to {self.host} again" if self.host else "The store is there again") if was else None
        )

    def troubled(self) -> None:
        """The store has said that it cannot be used now."""
        self._lost = True

    def close(self) -> None:
        """End the worker."""
        self._closing = True
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _listen(self, worker: WorkerProcess) -> None:
        """In a thread of its own."""
        output = worker.process.stdout
        assert output is not None
        for line in output:
            try:
                message = orjson.loads(line)
            except ValueError:
                continue  # cut off by the worker's end, which is reported below
            event = message.get("event")
            if event == "changed":
                waiting = int(message.get("waiting_runs", 0))
                self._post(StoreChanged(int(message["seq"]), int(message.get("pending_bytes", 0)), waiting))
            elif event == "trouble":
                self._post(Trouble(str(message.get("message", ""))))
            elif event == "note":
                self._post(Note(str(message.get("message", ""))))
            elif message.get("id") is not None:
                self._post(Answered(int(message["id"]), message.get("result"), message.get("error")))
        code = worker.process.wait()
        if not self._closing:
            self._post(WorkerEnded(worker.process.pid, code, worker.last_words()))
