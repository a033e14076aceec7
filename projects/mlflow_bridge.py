"""For projects that log with MLflow: a server of the store for the time of one job, reachable by that job alone."""

from __future__ import annotations

import os
import re
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mltrack.projects.environment import Environment
from mltrack.projects.identity import CLIENT_IN_CONTAINER
from mltrack.projects.job import Job

TOKEN = "MLTRACK_BRIDGE_TOKEN"
SOCKET_IN_CONTAINER = "/mltrack/mlflow/socket"
START_SECONDS = 30.0
_IMPORT = re.compile(rb"^\s*(?:import|from)\s+mlflow\b", re.MULTILINE)
_FILES = 300
_FILE_BYTES = 1 << 20


def logs_with_mlflow(environment: Environment, folder: Path) -> bool:
    """Whether a project declares MLflow, or one of its files imports it."""
    lines = (*environment.dependencies, *environment.local)
    if any(re.match(r"mlflow(?:[-_]skinny)?\b", line, re.IGNORECASE) for line in lines):
        return True
    seen = 0
    for base, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in ("venv", "node_modules", "mlruns")
        ]
        for name in names:
            if not name.endswith(".py"):
                continue
            seen += 1
            if seen > _FILES:
                return False
            try:
                with open(os.path.join(base, name), "rb") as file:
                    if _IMPORT.search(file.read(_FILE_BYTES)):
                        return True
            except OSError:
                continue  # what cannot be read is not going to run either
    return False


class MlflowBridge:
    """The server as a child of the supervisor. ``open`` changes the job so that it finds the server."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None

    def open(self, job: Job, environment: dict[str, str]) -> str:
        """Start it; returns "" or a sentence why MLflow's calls will not reach this run. ``environment``: the process'."""
        inside = job.backend == "docker"
        argument = "--port"
        if inside:
            # Paths of sockets are short: not in the store, whose folder may lie deep.
            self._folder = tempfile.mkdtemp(prefix="mltrack-", dir=os.environ.get("XDG_RUNTIME_DIR") or None)
            argument = os.path.join(self._folder, "socket")
        # A port can be reached by everybody on this machine; the socket lies in a folder whose name nobody knows.
        token = "" if inside else secrets.token_urlsafe(32)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mltrack.projects.mlflow_bridge", argument],
            env={**os.environ, "MLTRACK_STORE": job.store, TOKEN: token},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        address = self._address()
        if not address.startswith(("http://", "unix://")):
            self.close()
            return f"MLflow's calls do not reach this run: {address or 'the server did not start'}"
        environment.update({"MLFLOW_RUN_ID": job.run_id, "MLFLOW_EXPERIMENT_NAME": job.experiment})
        if inside:
            assert self._folder is not None
            os.chmod(self._folder, 0o711)
            os.chmod(argument, 0o666)
            job.docker.setdefault("mounts", []).append(
                [self._folder, os.path.dirname(SOCKET_IN_CONTAINER), False]
            )
            relay = f"{CLIENT_IN_CONTAINER}/mltrack/store/client/relay.py"
            job.command[:0] = ["python", "-I", relay, SOCKET_IN_CONTAINER, "--"]
        else:
            environment["MLFLOW_TRACKING_URI"] = address
            environment["MLFLOW_TRACKING_TOKEN"] = token
            for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
                environment.pop(name, None)  # of another server; they would go before the token
        return ""

    def _address(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        return self._process.stdout.readline(4096).decode("utf-8", "replace").strip() if ready else ""

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def main() -> None:
    """``python -m mltrack.projects.mlflow_bridge --port|SOCKET``: serve the store of MLTRACK_STORE, say where."""
    from mltrack.store.errors import MltrackError
    from mltrack.store.mlflow_api.server import Listening, serve
    from mltrack.store.opening import open_store

    def ready(listening: Listening) -> None:
        sys.stdout.write(listening.address + "\n")
        sys.stdout.flush()

    socket = None if sys.argv[1] == "--port" else Path(sys.argv[1])
    try:
        with open_store() as store:
            serve(
                store,
                port=0,
                socket=socket,
                on_ready=ready,
                announced=False,
                own_token=os.environ.get(TOKEN, ""),
            )
    except MltrackError as error:
        sys.stdout.write(error.message + "\n")


if __name__ == "__main__":
    main()
