"""A running `mltrack serve`, for tests to ask."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


class Serving:
    """A running server and what it said."""

    def __init__(self, store: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mltrack.tui.cli",
                "--store",
                str(store),
                "serve",
                *arguments,
                "--port",
                "0",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.said: list[str] = []
        self._read = threading.Thread(target=self._listen, daemon=True)
        self._read.start()
        self.port = int(self.hears(r"http://127\.0\.0\.1:(\d+)/").group(1))

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)

    def hears(self, pattern: str) -> re.Match[str]:
        """Wait until it says that."""
        for _ in range(6000):
            found = re.search(pattern, "".join(self.said))
            if found:
                return found
            if self.process.poll() is not None:
                self._read.join(5)
                break
            time.sleep(0.01)
        raise AssertionError(f"{pattern} was not said:\n{''.join(self.said)}")

    def ask(
        self, body: object, path: str = "/invocations", method: str = "POST", headers: dict[str, str] = JSON
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content if method == "POST" else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.strip().startswith(b"{") else text.decode()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Everything it answers to these bytes, until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            found = b""
            while part := connection.recv(65536):
                found += part
            return found

    def stop(self) -> int:
        """End it as a person does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
