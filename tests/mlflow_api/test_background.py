"""`mltrack server start|stop|status`: one server of a store behind, found again, ended without hurting anybody else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import folder_of
from tests.mlflow_api.conftest import COMMAND

from mltrack.store import access, open_store
from mltrack.store.client.secrets import redact_url
from mltrack.store.errors import BadInput, NotFound
from mltrack.store.mlflow_api import background


def server(store: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--store", store, "server", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_start_status_and_stop(store_address: str, tmp_path: Path) -> None:
    root = folder_of(store_address)
    assert server(store_address, "status").returncode == 1
    shown = redact_url(store_address) if "://" in store_address else store_address
    try:
        started = server(store_address, "start", "--port", "0")
        there = background.running(root)
        assert there is not None and f"export MLFLOW_TRACKING_URI={there.address}\n" in started.stdout
        assert started.stdout.startswith(f"Serving {shown} at {there.address}, ")
        # A second start finds the first; status says the same.
        assert (
            server(store_address, "start").stdout == server(store_address, "status").stdout == started.stdout
        )
        # It is not offered to its own store, which does not follow it either.
        command = [*COMMAND, "--store", store_address, "source", "find", "--new", "--json", str(tmp_path)]
        for address, offered in ((there.address, []), ("http://127.0.0.1:9", ["http://127.0.0.1:9"])):
            environ = {**os.environ, "MLFLOW_TRACKING_URI": address}
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=60, check=True
            )
            assert [row["path"] for row in json.loads(done.stdout)["found"]] == offered
        with open_store(store_address) as store, pytest.raises(BadInput, match="is this store itself"):
            store.add_source(f"{there.address}/")
        taken = server(str(tmp_path / "other"), "start", "--port", there.address.rpartition(":")[2])
        assert taken.returncode == 5 and "cannot listen" in taken.stderr
    finally:
        stopped = server(store_address, "stop")
    assert stopped.returncode == 0 and background.running(root) is None
    assert server(store_address, "stop").returncode == 3


def test_a_socket_and_a_guarded_address_say_how_to_reach_them(store_address: str) -> None:
    root = folder_of(store_address)
    try:
        lines = server(store_address, "start", "--host", "0.0.0.0", "--port", "0").stdout
        assert "MLFLOW_TRACKING_TOKEN=$(cat " in lines and str(root / "server.token") in lines
    finally:
        server(store_address, "stop")


def test_behind_it_says_the_name_and_the_tokens_as_in_front(store_address: str) -> None:
    root = folder_of(store_address)
    with open_store(store_address):
        pass
    access.add_user(root, "ann", [])
    try:
        started = server(
            store_address, "start", "--host", "0.0.0.0", "--port", "0", "--name", "box.example.org"
        ).stdout
        there = background.running(root)
        assert there is not None
        port = there.address.rpartition(":")[2]
        assert started.splitlines()[1:] == [
            f"  export MLFLOW_TRACKING_URI=http://box.example.org:{port}",
            "  a token of theirs in MLFLOW_TRACKING_TOKEN: mltrack auth token create NAME",
        ]
        assert server(store_address, "status").stdout == started
        assert f"http://box.example.org:{port}" in background.addresses(root)
    finally:
        server(store_address, "stop")


def test_what_a_dead_server_left_names_nobody(tmp_path: Path) -> None:
    """Another process may have its number by now: it is not the server, and is not ended."""
    mine = json.loads(background.describe("http://127.0.0.1:1", False))
    assert mine["pid"] == os.getpid()
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        state = {**mine, "pid": victim.pid, "pstart": "1"}
        (tmp_path / background.STATE_FILE).write_text(json.dumps(state))
        assert background.running(tmp_path) is None
        with pytest.raises(NotFound):
            background.stop(tmp_path)
        assert victim.poll() is None
        for text in ("{", "[]", json.dumps({**mine, "pid": "x"}), json.dumps({**mine, "host": "elsewhere"})):
            (tmp_path / background.STATE_FILE).write_text(text)
            assert background.running(tmp_path) is None
        (tmp_path / background.STATE_FILE).write_text(json.dumps(mine))
        assert background.running(tmp_path) is not None
    finally:
        victim.kill()
        victim.wait()
    assert socket.gethostname() == mine["host"]
