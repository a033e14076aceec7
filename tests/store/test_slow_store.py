"""A store that is locked, hangs or is not there delays no log call: the training does not ask it anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mltrack.store import open_store
from mltrack.store.database import file_lock, open_sqlite

RUN = "510e" * 8
LOG = """
import os, sys
import mltrack
mltrack.start_run(run_id=sys.argv[1])
mltrack.log_param("lr", 0.1)
for step in range(2000):
    mltrack.log_metric("loss", step / 7, step=step)
mltrack.log_text("seen", "note.txt")
os.write(1, b"logged\\n")
sys.stdin.readline()
mltrack.end_run()
os.write(1, b"ended\\n")
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")


def train(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", LOG, RUN],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def logged(root: Path) -> int:
    (points,) = root.glob(f"**/runs/*/{RUN}/points.*")
    return points.read_bytes().count(b"\n") - 1


def test_a_database_that_is_locked_all_the_time(tmp_path: Path) -> None:
    root = tmp_path / "store"
    open_store(str(root)).close()
    holder = open_sqlite(root / "mltrack.db", root)
    holder.execute("BEGIN EXCLUSIVE")
    training = train(MLTRACK_STORE=str(root))
    try:
        assert training.stdout is not None
        assert training.stdout.readline() == b"logged\n"
        assert logged(root) == 2000
        said, complaints = training.communicate(b"\n", timeout=120)
        assert (said, complaints, training.returncode) == (b"ended\n", b"", 0)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    with open_store(str(root)) as store:
        store.refresh(None)
        assert store.run(RUN).status == "FINISHED"
        assert store.points(RUN, "loss").steps.tolist() == list(range(2000))


def test_a_store_that_another_process_folds_with_all_its_might(tmp_path: Path) -> None:
    """The lock of folding and a transaction are held until the training has ended."""
    root = tmp_path / "store"
    with open_store(str(root)) as store:
        with file_lock(store.root, "fold"), store.database.transaction():
            training = train(MLTRACK_STORE=str(root))
            assert training.stdout is not None and training.stdout.readline() == b"logged\n"
            assert logged(root) == 2000
            said, complaints = training.communicate(b"\n", timeout=120)
            assert (said, complaints, training.returncode) == (b"ended\n", b"", 0)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in kept:
        connection.close()


def stop_shippers(spool: Path) -> None:
    """End the companions of this spool, and nobody else's."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("MLTRACK_SPOOL") == str(spool) and "python" in process.name():
                process.kill()
        except psutil.Error:
            continue


@pytest.mark.parametrize("where", ["postgresql://u@127.0.0.1:{}/db", "postgresql://u@127.0.0.1:9/db"])
def test_a_server_that_hangs_or_is_not_there(tmp_path: Path, silent: int, where: str) -> None:
    spool = tmp_path / "spool"
    training = train(MLTRACK_STORE=where.format(silent), MLTRACK_SPOOL=str(spool))
    try:
        assert training.stdout is not None
        assert training.stdout.readline() == b"logged\n", "before anybody has heard of the run"
        assert logged(spool) == 2000
        said, complaints = training.communicate(b"\n", timeout=120)
    finally:
        stop_shippers(spool)
    assert (said, training.returncode) == (b"ended\n", 0)
    assert complaints.count(b"\n") == 1 and str(spool).encode() in complaints
