"""A model's process in a container: ``python -m ...model_container IMAGE FOLDER [GPU...]`` passes its standard streams through.

To whoever starts it, it looks like the model's own process: what comes in goes to the container, what the container says comes out. The
container sees the model read-only, no network and nothing else of this machine, and ends with this process or with its input.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
from types import FrameType
from typing import Any

from mltrack.projects.backends.docker import PIDS
from mltrack.projects.backends.engine import connect, explained
from mltrack.projects.errors import LaunchError
from mltrack.projects.identity import CLIENT_IN_CONTAINER, package_places
from mltrack.store.model_checks import RUNNER

LABEL = "mltrack.model"
MODEL_IN_CONTAINER = "/mltrack/model"
_HEADER = struct.Struct(">BxxxL")
_OUT = 1


def run(image: str, folder: str, gpus: list[str]) -> int:
    """Until the model's process ends or this one is asked to; its exit code. Raises LaunchError."""
    from docker.errors import APIError

    engine = connect()
    api = engine.api
    container = ""
    asked = 0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the tidying
        asked = 128 + number
        # While the engine makes the container its name is not known yet, and it could not be taken away.
        if container:
            raise SystemExit(asked)

    signal.signal(signal.SIGTERM, end)
    try:
        container = str(_create(engine, image, folder, gpus)["Id"])
        if asked:
            return asked
        stream = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        connection = _plain_socket(stream)
        api.start(container)
        threading.Thread(target=_feed, args=(connection,), daemon=True).start()
        _pass_on(connection)
        return int(api.wait(container, timeout=10)["StatusCode"])
    except APIError as error:
        raise LaunchError(f"The model's container could not be started: {explained(error)}") from None
    finally:
        if container:
            try:
                api.remove_container(container, force=True, v=True)
            except APIError as error:
                sys.stderr.write(f"{explained(error)}\n")
        api.close()


def _create(engine: Any, image: str, folder: str, gpus: list[str]) -> dict[str, Any]:
    init, store = package_places()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    config: dict[str, Any] = {
        "binds": [
            f"{folder}:{MODEL_IN_CONTAINER}:ro",
            f"{init}:{CLIENT_IN_CONTAINER}/mltrack/__init__.py:ro",
            f"{store}:{CLIENT_IN_CONTAINER}/mltrack/store:ro",
        ],
        "init": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": PIDS,
        "shm_size": total // 2,
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},
    }
    if gpus:
        from docker.types import DeviceRequest

        config["device_requests"] = [DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])]
    return dict(
        engine.api.create_container(
            image,
            command=["python", *RUNNER, MODEL_IN_CONTAINER],
            environment={
                "PYTHONPATH": CLIENT_IN_CONTAINER,
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": "/tmp",
            },
            user="0:0" if engine.rootless else f"{os.geteuid()}:{os.getegid()}",
            stdin_open=True,
            labels={LABEL: folder},
            working_dir="/tmp",
            host_config=engine.api.create_host_config(**config),
        )
    )


def _plain_socket(stream: Any) -> socket.socket:
    """The SDK hands out a file object over the socket; nothing was read from it yet."""
    found = getattr(stream, "_sock", stream)
    if not isinstance(found, socket.socket):
        raise LaunchError("This engine's connection cannot pass on a model's input; use --backend venv.")
    found.settimeout(None)
    return found


def _feed(connection: socket.socket) -> None:
    try:
        while data := os.read(0, 1 << 16):
            connection.sendall(data)
    except OSError:
        return  # the container is gone, and whoever reads from it notices
    # Nobody is left to ask: this process ends, and the container with it, even in the middle of an answer.
    os.kill(os.getpid(), signal.SIGTERM)


def _pass_on(connection: socket.socket) -> None:
    """The engine's frames: which stream, how long, the bytes."""
    while header := _exactly(connection, _HEADER.size):
        kind, size = _HEADER.unpack(header)
        while size:
            piece = connection.recv(min(size, 1 << 16))
            if not piece:
                return
            size -= len(piece)
            left = memoryview(piece)
            while left:
                left = left[os.write(1 if kind == _OUT else 2, left) :]


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            return b""
        found += piece
    return found


def main() -> int:
    """The command line; see above."""
    try:
        return run(sys.argv[1], sys.argv[2], sys.argv[3:])
    except LaunchError as error:
        sys.stderr.write(error.message + "\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
