"""Models in processes of their own, asked over pipes by an event loop. Nothing here loads a model."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mltrack.store.client.journal import random_hex
from mltrack.store.errors import BadInput, StoreUnavailable
from mltrack.store.filesystem import cache_folder
from mltrack.store.model_checks import RUNNER, runner_environment

_LENGTH = struct.Struct(">I")
LOAD_SECONDS = 300.0
_INSTALL_SECONDS = 1800.0


class ModelGone(Exception):
    """The model's process ended while it was asked."""


@dataclass(frozen=True)
class Way:
    """How a model's process is started: the words ``before`` and ``after`` the model's folder. ``contained``: in a container."""

    before: tuple[str, ...]
    environment: dict[str, str]
    after: tuple[str, ...] = ()
    contained: bool = False


class ModelProcess:
    """One loaded model. Questions wait for each other: a model answers one at a time."""

    def __init__(self, process: asyncio.subprocess.Process, way: Way) -> None:
        self._process = process
        self._way = way
        self._turn = asyncio.Lock()
        self.waiting = 0

    @classmethod
    async def start(
        cls, folder: Path, document: Mapping[str, Any], way: Way
    ) -> tuple[ModelProcess, list[str]]:
        """Start a process and let it load the model. Returns how its environment differs from the model's. Raises BadInput."""
        process = await asyncio.create_subprocess_exec(
            *way.before,
            str(folder),
            *way.after,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=way.environment,
            start_new_session=True,
            limit=1 << 20,
        )
        self = cls(process, way)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(document, default=str).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), LOAD_SECONDS)
            state = json.loads(line)
        except (TimeoutError, ValueError, ConnectionError):
            await self.close()
            raise BadInput(
                f"The model's process ended before it had loaded the model (exit code {process.returncode})."
            ) from None
        if "error" in state:
            await self.close()
            differs = f" ({'; '.join(state['environment'][:3])})" if state["environment"] else ""
            raise BadInput(f"The model cannot be loaded: {state['error']}{differs}")
        return self, list(state["environment"])

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.returncode is None

    async def ask(self, kind: bytes, body: bytes, seconds: float) -> tuple[int, bytes]:
        """HTTP status and body of its answer. Raises ModelGone, and TimeoutError after which the process is ended."""
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                async with self._turn:
                    return await self._ask(kind, body)
        except TimeoutError:
            # The model is still busy with it and would hold up everybody behind.
            self.end()
            raise
        finally:
            self.waiting -= 1

    async def _ask(self, kind: bytes, body: bytes) -> tuple[int, bytes]:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(_LENGTH.pack(len(body) + 1) + kind + body)
            await process.stdin.drain()
            (size,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            answer = await process.stdout.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ModelGone from None
        return int(answer[:3]), answer[3:]

    def end(self) -> None:
        """Kill it with all it started. A container is removed by the process that holds it, which may take a moment."""
        if self._process.returncode is None:
            number = signal.SIGTERM if self._way.contained else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def close(self) -> None:
        """End it and wait for that."""
        self.end()
        await self._process.wait()


def way_for(
    backend: str,
    folder: Path,
    python: str = "",
    gpus: Sequence[str] | None = None,
    profile: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Way:
    """How to run the model: ``local`` with this interpreter, or ``python``; ``venv`` and ``docker`` install the model's requirements,
    once for each list. ``gpus``: UUIDs it may use; None: nothing is said about that. Raises BadInput, and LaunchError without an engine.
    """
    if backend == "docker" and not python:
        from mltrack.projects.model_image import build_environment

        built = build_environment(folder, say, profile)
        relay = (sys.executable, "-P", "-m", "mltrack.projects.backends.model_container", built.image_id)
        return Way(relay, runner_environment(), tuple(gpus or ()), contained=True)
    way = _outside(backend, folder, python)
    if gpus is None:
        return way
    return replace(way, environment={**way.environment, "CUDA_VISIBLE_DEVICES": ",".join(gpus)})


def _outside(backend: str, folder: Path, python: str) -> Way:
    if python and not os.access(python, os.X_OK):
        raise BadInput(f"There is no interpreter at {python}.")
    if python:
        return Way((python, *RUNNER), _apart())
    if backend == "local":
        return Way((sys.executable, *RUNNER), runner_environment())
    if backend != "venv":
        raise BadInput(f"There is no backend '{backend}'; there are local, venv and docker.")
    try:
        requirements = (folder / "requirements.txt").read_bytes()
    except OSError:
        raise BadInput(
            "The model has no requirements.txt to make an environment from; serve it with --backend local."
        ) from None
    base = cache_folder() / "model-environments"
    key = hashlib.sha256(requirements + platform.python_version().encode()).hexdigest()[:16]
    target = base / key
    if not (target / "made").exists():
        _install(target, folder / "requirements.txt")
    return Way((str(target / "bin" / "python"), *RUNNER), _apart())


def _apart() -> dict[str, str]:
    """Variables of a process in another environment: our own code, not the packages that happen to lie beside it here."""
    links = cache_folder() / "model-environments" / "runner"
    links.mkdir(parents=True, exist_ok=True)
    package = Path(sys.modules["mltrack"].__file__ or "").resolve().parent
    link = links / "mltrack"
    if not link.is_symlink() or Path(os.readlink(link)) != package:
        part = links / f".{random_hex(8)}"
        part.symlink_to(package)
        part.replace(link)
    return {**runner_environment(), "PYTHONPATH": str(links)}


def _install(target: Path, requirements: Path) -> None:
    part = target.with_name(f".{target.name}.{random_hex(6)}")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        for command in (
            [sys.executable, "-m", "venv", str(part)],
            [
                str(part / "bin" / "pip"),
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
                str(requirements),
            ],
        ):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise BadInput(f"The model's environment could not be installed: {reason}")
        (part / "made").touch()
        with contextlib.suppress(OSError):
            part.rename(target)  # else somebody else was faster
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreUnavailable(f"The model's environment could not be made at {part} ({error}).") from error
