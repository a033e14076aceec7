"""The store's own process: folds while it may, answers questions and carries out commands over a pipe.

One JSON object per line. In: ``{"id": n, "generation": g, "call": name, "with": {...}}``. Out: ``{"id": n, "generation": g,
"result": ...}`` or ``"error": {"kind", "message"}``; and unasked ``{"event": "changed", "seq": n}``, ``"trouble"`` and ``"note"``
with a ``"message"`` for people. A question that a newer generation of the same ``call`` has overtaken while waiting is dropped. The
process ends with its input.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from mltrack.store.acting import use_channel
from mltrack.store.audit_head import DailyHead
from mltrack.store.errors import FilterError, MltrackError
from mltrack.store.machines import absent_machines
from mltrack.store.opening import open_store
from mltrack.store.store import Store

# Live runs: seen within a second. Idle: one scan of a small folder.
FOLD_SECONDS = 0.5
# The first answer is painted before the first fold, which would compete with the painting.
SETTLE_SECONDS = 0.15
SLICE_SECONDS = 0.2
HEARD_SECONDS = 0.1
# Where the database tells of changes itself: sources and silent runs are looked at this often.
TOLD_SECONDS = 5.0
CALLS = frozenset(
    (
        "search runs run resolve points experiments keys refresh set_tags delete_tags note rename move pin trash restore purge undo "
        "redo sources add_source remove_source"
    ).split()
)


class Worker:
    """Serves one store to one parent. ``extra`` are calls beside those of Store; each gets the store and the request's `with`."""

    def __init__(
        self,
        store: Store,
        source: BinaryIO,
        sink: BinaryIO,
        extra: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._store = store
        self._extra = {} if extra is None else extra  # asking for its length would load every file of calls
        self._source = source
        self._sink = sink
        self._buffer = b""
        self._seq = ""
        self._told = False
        self._troubles: dict[str, str] = {}
        self._head = DailyHead(store)

    def serve(self) -> None:
        """Until the input ends."""
        next_fold, first, folded = time.monotonic() + SETTLE_SECONDS, True, 0.0
        while True:
            ready = self._wait(max(0.0, next_fold - time.monotonic()))
            if self._store.database in ready and self._heard():
                next_fold = min(next_fold, folded + HEARD_SECONDS)
            if self._source in ready:
                data = os.read(self._source.fileno(), 1 << 20)
                if not data:
                    return
                self._buffer += data
                *lines, self._buffer = self._buffer.split(b"\n")
                self._answer_all(lines)
                if first and lines:
                    next_fold, first = time.monotonic() + SETTLE_SECONDS, False
            if time.monotonic() >= next_fold:
                pending = self._fold()
                folded = time.monotonic()
                next_fold = folded + (0.0 if pending else self._pause())

    def _wait(self, seconds: float) -> list[object]:
        """What has come: a request (``_source``), word from the database, or nothing."""
        connection = self._store.database.connection
        fd = connection.fileno() if self._told and not connection.closed else -1
        ready, _, _ = select.select([self._source, *([fd] if fd >= 0 else [])], [], [], seconds)
        return [self._store.database if each == fd else each for each in ready]

    def _heard(self) -> bool:
        try:
            return self._store.database.heard()
        except MltrackError:
            return True  # the next fold says what is wrong

    def _pause(self) -> float:
        """How long nothing needs to be looked for: a database that tells of changes is only asked for signs of death."""
        if not self._told or self._seq == "":
            return FOLD_SECONDS
        try:
            with os.scandir(self._store.root / "open") as entries:
                return FOLD_SECONDS if any(entries) else TOLD_SECONDS
        except OSError:
            return TOLD_SECONDS

    def _fold(self) -> bool:
        """Fold for a moment; whether there is more at once."""
        try:
            if not self._told:
                self._told = self._store.database.listen()
            report = self._store.refresh(SLICE_SECONDS)
            self._tell_of_machines()
            seq = self._store.database.setting("seq")
            self._head.look()
        except MltrackError as error:
            self._send({"event": "trouble", "message": error.message})
            self._seq = ""  # when it is there again, that is news
            return False
        if seq != self._seq:
            self._seq = seq
            changed = {"event": "changed", "seq": int(seq), "pending_bytes": report.pending_bytes}
            self._send({**changed, "waiting_runs": report.waiting_runs})
        busy = report.pending_bytes > 0 and report.points > 0 or report.waiting_runs > 0
        return busy and not report.folded_by_other

    def _tell_of_machines(self) -> None:
        """A machine that cannot be reached is news, and that it can be again; it changes nothing else."""
        now = absent_machines(self._store.database)
        news = [sentence for address, sentence in now.items() if self._troubles.get(address) != sentence]
        news += [f"{address} can be read again" for address in self._troubles.keys() - now.keys()]
        self._troubles = now
        for sentence in news:
            self._send({"event": "note", "message": sentence})

    def _answer_all(self, lines: list[bytes]) -> None:
        requests: list[dict[str, Any]] = []
        for line in lines:
            try:
                request = orjson.loads(line)
                if not isinstance(request, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                self._send(
                    {
                        "id": None,
                        "error": {"kind": "BadInput", "message": f"The request is not JSON ({error})."},
                    }
                )
                continue
            requests.append(request)
        newest = {str(request.get("call")): request.get("generation") for request in requests}
        for request in requests:
            if request.get("generation") is None or request["generation"] == newest[str(request.get("call"))]:
                self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request.get("id"), "generation": request.get("generation")}
        call = request.get("call")
        try:
            options = request.get("with", {})
            if call in self._extra:
                answer["result"] = self._extra[str(call)](self._store, **options)
            elif call in CALLS:
                answer["result"] = getattr(self._store, call)(**options)
            else:
                raise MltrackError(f"The worker has no call '{call}'.")
        except FilterError as error:
            answer["error"] = {"kind": "FilterError", "message": error.message, "position": error.position}
        except MltrackError as error:
            answer["error"] = {"kind": type(error).__name__, "message": str(error)}
        except Exception as error:  # noqa: BLE001  # the border: one bad question must not end the screen's store
            answer["error"] = {
                "kind": type(error).__name__,
                "message": f"The store failed on '{call}': {error}",
            }
        self._send(answer)

    def _send(self, message: dict[str, Any]) -> None:
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
        self._sink.write(orjson.dumps(message, default=_plain, option=options))
        self._sink.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    raise TypeError(type(value).__name__)


def serve(
    where: str | None, readonly: bool = False, extra: Mapping[str, Callable[..., Any]] | None = None
) -> None:
    """Run a worker on standard input and output."""
    use_channel("tui")

    def say(sentence: str) -> None:
        sys.stdout.buffer.write(orjson.dumps({"event": "note", "message": sentence}) + b"\n")
        sys.stdout.buffer.flush()

    with open_store(where, readonly=readonly, say=say) as store:
        try:
            Worker(store, sys.stdin.buffer, sys.stdout.buffer, extra).serve()
        except BrokenPipeError:
            return  # the screen is gone: nothing is lost, journals are folded by the next reader
