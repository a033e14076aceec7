"""Serving a model: MLflow's scoring protocol before processes that hold it, following a stage or alias without a gap.

The server's own process never loads a model. A promotion starts the new version beside the old one, asks it for its stored
example, and only then lets requests go to it; a version that fails that is not served, and the old one goes on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mltrack
from mltrack.projects.gpus import Lease, list_gpus, take_gpus
from mltrack.projects.model_process import ModelGone, ModelProcess, way_for
from mltrack.projects.scoring_http import Connection, error
from mltrack.store.audit_head import DailyHead
from mltrack.store.client.run import ActiveRun
from mltrack.store.errors import BadInput, MltrackError
from mltrack.store.hooks import tell
from mltrack.store.mlmodel import read_mlmodel
from mltrack.store.opening import open_store
from mltrack.store.registry_reading import SERVE_FOLLOWS, SERVE_MODEL, SERVE_VERSION, ModelVersion, stage_name

LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1", "[::1]"))
_FOLLOW_SECONDS = 0.5
_REPORT_SECONDS = 10.0
_DRAIN_SECONDS = 30.0
JSON, CSV = "application/json", "text/csv"


@dataclass(frozen=True)
class Options:
    """How to serve. ``seconds`` is the limit of one request; ``most`` of requests at a time. ``contained``: in a container of its
    own, where every address is its own, and whoever publishes the port decides who asks."""

    backend: str = "local"
    python: str = ""
    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 1
    seconds: float = 30.0
    most: int = 256
    token_file: Path | None = None
    record: bool = True
    gpu: str = "none"
    profile: str | None = None
    contained: bool = False


@dataclass(frozen=True)
class Served:
    """What is to be served: a version of the registry that may follow a stage or alias, or a folder (version 0)."""

    name: str
    version: int
    follows: str
    folder: Path


@dataclass
class Counts:
    """What happened since the last report."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    began: float = field(default_factory=time.monotonic)


class Pool:
    """The processes of one version."""

    def __init__(self, served: Served, processes: list[ModelProcess], restart: Callable[[], Any]) -> None:
        self.served = served
        self.processes = processes
        self._restart = restart
        self._restarting: set[asyncio.Task[None]] = set()
        self.retired = False

    async def ask(self, kind: bytes, body: bytes, seconds: float) -> tuple[int, bytes]:
        """The answer of the process that fewest wait for."""
        living = [process for process in self.processes if process.alive]
        if not living:
            return 503, error("TEMPORARILY_UNAVAILABLE", "The model is being started again.")
        process = min(living, key=lambda each: each.waiting)
        try:
            return await process.ask(kind, body, seconds)
        except TimeoutError:
            self._replace(process)
            return 504, error("DEADLINE_EXCEEDED", f"The model did not answer within {seconds:g} s.")
        except ModelGone:
            self._replace(process)
            return 500, error(
                "INTERNAL_ERROR", "The model's process ended on this request; it is started again."
            )

    def _replace(self, process: ModelProcess) -> None:
        if process not in self.processes or self.retired:
            return
        self.processes.remove(process)

        async def again() -> None:
            await process.close()
            pause = 0.1
            while not self.retired:
                try:
                    self.processes.append(await self._restart())
                    return
                except MltrackError:
                    await asyncio.sleep(pause)
                    pause = min(30.0, pause * 2)

        task = asyncio.get_running_loop().create_task(again())
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)

    async def retire(self) -> None:
        """End the processes once nobody waits for them any more."""
        self.retired = True
        until = time.monotonic() + _DRAIN_SECONDS
        while any(process.waiting for process in self.processes) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for process in self.processes:
            await process.close()


def find(where: str | None, uri: str) -> Served:
    """What a URI means now. Raises NotFound and BadInput."""
    if not uri.startswith(("models:/", "runs:/")):
        folder = Path(uri).absolute()
        read_mlmodel(folder)
        return Served(folder.name, 0, "", folder)
    with open_store(where) as store:
        store.refresh(2.0)
        if uri.startswith("runs:/"):
            return Served(uri.rpartition("/")[2], 0, "", store.registry.locate(uri))
        version = store.registry.resolve(uri)
        return Served(version.name, version.version, _follows(uri, version), store.registry.folder(version))


def _follows(uri: str, version: ModelVersion) -> str:
    rest = uri.removeprefix(f"models:/{version.name}")
    if rest.startswith("@"):
        return rest
    last = rest.removeprefix("/")
    return "" if last.isdecimal() or last.lower() == "latest" else stage_name(last)


class Server:
    """Serves one model until it is told to stop."""

    def __init__(
        self, where: str | None, served: Served, options: Options, say: Callable[[str], None]
    ) -> None:
        self._where = where
        self._first = served
        self._options = options
        self._say = say
        self._pool: Pool | None = None
        self._connections: set[Connection] = set()
        self._counts = Counts()
        self._stop: asyncio.Event | None = None
        self._run: ActiveRun | None = None
        self._active = 0
        self._lease = Lease()
        self._gpus: list[str] | None = None
        self.port = 0

    async def serve(self, ready: Callable[[int], None] | None = None) -> None:
        """Load, test, listen, follow; until SIGTERM or SIGINT. Raises BadInput when the model does not pass its test."""
        options = self._options
        token = read_token(options.token_file)
        local = options.host in LOOPBACK
        if not local and token is None and not options.contained:
            raise BadInput(
                f"Serving on {options.host} lets the network ask: give a --token-file (it is made when it is not there)."
            )
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if options.gpu != "none":
            self._gpus = take_gpus(options.gpu, self._lease, False, lambda: False)
        elif not options.contained and list_gpus()[0]:
            self._gpus = []  # never all of them because nobody said anything
        self._pool = await self._make_pool(self._first)
        listening = await loop.create_server(
            lambda: Connection(
                self._handle,
                self._connections,
                options.most,
                options.seconds,
                token,
                LOOPBACK if local else None,
            ),
            options.host,
            options.port,
            backlog=min(1024, options.most),
        )
        self.port = listening.sockets[0].getsockname()[1]
        self._record()
        shown = (
            f"{self._first.name} v{self._first.version}" if self._first.version else str(self._first.folder)
        )
        self._say(f"Serving {shown} on http://{options.host}:{self.port}/invocations")
        if ready is not None:
            ready(self.port)
        follower = loop.create_task(self._follow()) if self._first.follows else None
        reporter = loop.create_task(self._report_often())
        await self._stop.wait()
        listening.close()
        for task in (follower, reporter):
            if task is not None:
                task.cancel()
        for connection in list(self._connections):
            connection.shut()
        until = time.monotonic() + _DRAIN_SECONDS
        while self._active and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self._pool.retire()
        self._lease.close()
        self._report()
        if self._run is not None:
            mltrack.end_run()

    # -- processes

    async def _make_pool(self, served: Served) -> Pool:
        """Processes that have loaded the model and answered its example. Raises BadInput."""
        document = read_mlmodel(served.folder).document
        options = self._options
        way = await asyncio.to_thread(
            way_for, options.backend, served.folder, options.python, self._gpus, options.profile, self._say
        )

        async def start() -> ModelProcess:
            process, problems = await ModelProcess.start(served.folder, document, way)
            for problem in problems[:3]:
                self._say(f"The environment differs from the model's: {problem}")
            return process

        processes: list[ModelProcess] = []
        try:
            for _ in range(max(1, self._options.workers)):
                processes.append(await start())
            if document.get("saved_input_example_info"):
                status, answer = await processes[0].ask(b"e", b"", self._options.seconds)
                if status != 200:
                    raise BadInput(
                        f"The model fails on its own example: {answer.decode('utf-8', 'replace')[:300]}"
                    )
            else:
                self._say("No example is stored with the model: it is served without having been asked.")
        except (TimeoutError, ModelGone):
            await _close_all(processes)
            raise BadInput("The model does not answer its own example.") from None
        except BaseException:
            await _close_all(processes)
            raise
        return Pool(served, processes, start)

    async def _follow(self) -> None:
        """Swap to whoever holds the stage or alias; a version that fails its test is left out until another one holds it."""
        loop = asyncio.get_running_loop()
        changed: asyncio.Queue[Served] = asyncio.Queue()
        watcher = _Watcher(
            self._where, self._first, lambda served: loop.call_soon_threadsafe(changed.put_nowait, served)
        )
        watcher.start()
        try:
            while True:
                wanted = await changed.get()
                while not changed.empty():
                    wanted = changed.get_nowait()
                assert self._pool is not None
                if wanted.version != self._pool.served.version:
                    await self._swap(wanted)
        finally:
            watcher.stop()

    async def _swap(self, wanted: Served) -> None:
        assert self._pool is not None
        old = self._pool
        try:
            new = await self._make_pool(wanted)
        except MltrackError as reason:
            self._say(
                f"{wanted.name} v{wanted.version} is not served, v{old.served.version} goes on: {reason.message}"
            )
            facts = {"name": wanted.name, "version": old.served.version, "wanted": wanted.version}
            await asyncio.to_thread(tell, "served-differs", {**facts, "reason": reason.message})
            return
        self._pool = new  # from here on every request goes to the new one
        self._say(f"Serving {wanted.name} v{wanted.version} now, v{old.served.version} before")
        self._tag()
        await old.retire()

    # -- requests

    async def _handle(self, method: str, path: str, kind: str, body: bytes) -> tuple[int, str, bytes]:
        if path in ("/ping", "/health"):
            return 200, JSON, b"\n"
        if path == "/version":
            return 200, "text/plain", mltrack.__version__.encode()
        if path != "/invocations":
            return (
                404,
                JSON,
                error("ENDPOINT_NOT_FOUND", "There are /invocations, /ping, /health and /version."),
            )
        if method != "POST":
            return 405, JSON, error("BAD_REQUEST", "Ask with POST.")
        if kind not in (JSON, CSV):
            return 415, JSON, error("BAD_REQUEST", f"The content type is {JSON} or {CSV}, not '{kind[:60]}'.")
        if not body:
            return 400, JSON, error("BAD_REQUEST", "The request has no body.")
        assert self._pool is not None
        began = time.monotonic()
        self._active += 1
        try:
            status, answer = await self._pool.ask(b"c" if kind == CSV else b"j", body, self._options.seconds)
        finally:
            self._active -= 1
        took = time.monotonic() - began
        counts = self._counts
        counts.requests += 1
        counts.errors += status >= 500
        counts.seconds += took
        counts.slowest = max(counts.slowest, took)
        return status, JSON, answer

    # -- the run that says what is served

    def _record(self) -> None:
        if not self._options.record or not self._first.version:
            return
        mltrack.set_store(self._where)
        self._run = mltrack.start_run(
            run_name=f"serve-{self._first.name}", experiment="serving", system_metrics=False
        )
        self._tag()

    def _tag(self) -> None:
        if self._run is None or self._pool is None:
            return
        served = self._pool.served
        self._run.set_tags(
            {SERVE_MODEL: served.name, SERVE_VERSION: str(served.version), SERVE_FOLLOWS: self._first.follows}
        )

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            self._report()

    def _report(self) -> None:
        counts, self._counts = self._counts, Counts()
        if self._run is None or not counts.requests:
            return
        seconds = max(1e-3, time.monotonic() - counts.began)
        self._run.log_metrics(
            {
                "requests_per_s": counts.requests / seconds,
                "errors": counts.errors,
                "latency_ms": 1000 * counts.seconds / counts.requests,
                "slowest_ms": 1000 * counts.slowest,
            }
        )


class _Watcher(threading.Thread):
    """Looks who holds a stage or alias, in a thread: a locked database must not hold up an answer."""

    def __init__(self, where: str | None, first: Served, tell_version: Callable[[Served], object]) -> None:
        super().__init__(name="follow", daemon=True)
        self._where = where
        self._first = first
        self._tell = tell_version
        self._ended = threading.Event()

    def stop(self) -> None:
        """End soon."""
        self._ended.set()

    def run(self) -> None:
        version = self._first.version
        while not self._ended.is_set():
            try:
                with open_store(self._where, readonly=True) as store:
                    head = DailyHead(store)
                    while not self._ended.wait(_FOLLOW_SECONDS):
                        head.look()
                        holder = store.registry.holder(self._first.name, self._first.follows)
                        if holder is None or holder == version:
                            continue
                        found = store.registry.version(self._first.name, holder)
                        folder = store.registry.folder(found)
                        version = holder
                        self._tell(Served(found.name, holder, self._first.follows, folder))
            except MltrackError:
                self._ended.wait(5.0)  # the store is away or locked: what is served goes on


async def _close_all(processes: list[ModelProcess]) -> None:
    for process in processes:
        await process.close()


def read_token(path: Path | None) -> str | None:
    """The token in a file that only its owner may read; made when it is not there. Raises BadInput."""
    if path is None:
        return None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise BadInput(f"{path} can be read by others: chmod 600 it.") from None
        token = path.read_text("ascii").strip()
        if len(token) < 16:
            raise BadInput(f"The token in {path} is too short: 16 characters at least.") from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")
    return token
