"""Files over HTTP: large ones in little memory, in ranges, by the thousand; and nobody gets out of the folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.mlflow_api.conftest import Server, until

from mltrack.store import open_store
from mltrack.store.client.destination import Destination
from mltrack.store.client.journal import Journal, run_folder
from mltrack.store.copies import ATTEMPT, ROLE, set_destination

FILES = "/api/2.0/mlflow-artifacts/artifacts"
PIECE = os.urandom(1 << 20)


def pieces(count: int) -> Iterator[bytes]:
    """Mebibytes that differ from each other."""
    for number in range(count):
        yield number.to_bytes(8, "big") + PIECE[8:]


class Peak(threading.Thread):
    """The most memory (MB) that a process had at once, while this runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.most, self.stopped = psutil.Process(pid), 0.0, threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.01):
            self.most = max(self.most, self.process.memory_info().rss / 1e6)


def up_and_down(server: Server, count: int) -> None:
    """Send ``count`` MiB and fetch them again; the server may not hold much of them."""
    run_id = server.new_run()
    path = f"{FILES}/0/{run_id}/artifacts/large.bin"
    digest = hashlib.sha256()
    for piece in pieces(count):
        digest.update(piece)
    watch = Peak(server.process.pid)
    before = watch.process.memory_info().rss / 1e6
    watch.start()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=600)
    connection.request("PUT", path, pieces(count), {"Content-Length": str(count << 20)})
    assert connection.getresponse().read() == b""
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.headers["Content-Length"] == str(count << 20)
    again = hashlib.sha256()
    while piece := response.read(1 << 20):
        again.update(piece)
    connection.request("GET", path, headers={"Range": f"bytes={(count << 20) - 5}-"})
    last = connection.getresponse()
    assert (last.status, last.read()) == (206, PIECE[-5:])
    connection.close()
    watch.stopped.set()
    watch.join()
    assert again.hexdigest() == digest.hexdigest()
    assert watch.most - before < 40, f"{watch.most - before:.0f} MB more for {count} MiB"
    assert server.request("DELETE", path).status == 200
    assert not run_folder(server.root, run_id).joinpath("artifacts/large.bin").exists()


def test_a_large_file_takes_little_memory(server: Server) -> None:
    up_and_down(server, 100)


@pytest.mark.long
def test_two_gigabytes_take_little_memory(server: Server) -> None:
    up_and_down(server, 2048)


def test_ranges(server: Server) -> None:
    run_id = server.new_run()
    path = f"{FILES}/0/{run_id}/artifacts/r.txt"
    server.request("PUT", path, b"0123456789")
    for asked, found, said in (
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ):
        answer = server.request("GET", path, headers={"Range": asked})
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert (answer.status, answer.body, headers["content-range"]) == (206, found, said)
    assert server.request("GET", path, headers={"Range": "bytes=99-"}).status == 416
    for asked in ("bytes=x", "lines=1-2", "bytes=5-2"):
        assert server.request("GET", path, headers={"Range": asked}).status in (200, 400, 416)


def test_a_thousand_files(server: Server) -> None:
    run_id = server.new_run()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    for number in range(1000):
        connection.request(
            "PUT", f"{FILES}/0/{run_id}/artifacts/d{number % 10}/f{number}", str(number).encode()
        )
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.close()
    listed = server.request("GET", f"{FILES}?path=0/{run_id}/artifacts").json["files"]
    assert [(entry["path"], entry["is_dir"]) for entry in listed] == [(f"d{n}", True) for n in range(10)]
    inner = server.request("GET", f"{FILES}?path=0/{run_id}/artifacts/d3").json["files"]
    names = sorted(f"f{number}" for number in range(1000) if number % 10 == 3)
    assert [entry["path"] for entry in inner] == names
    assert inner[0] == {"path": "f103", "is_dir": False, "file_size": 3}
    assert server.request("GET", f"{FILES}/0/{run_id}/artifacts/d7/f997").body == b"997"
    assert server.request("DELETE", f"{FILES}/0/{run_id}/artifacts/d7").status == 200
    assert server.request("GET", f"{FILES}?path=0/{run_id}/artifacts/d7").json == {}


def test_an_upload_that_breaks_off_leaves_nothing(server: Server) -> None:
    run_id = server.new_run()
    folder = run_folder(server.root, run_id) / "artifacts"
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(
            f"PUT {FILES}/0/{run_id}/artifacts/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode()
        )
        connection.sendall(b"x" * 100)
        until(lambda: any(folder.glob(".*.part")))
    until(lambda: not any(folder.iterdir()))
    # While somebody sends slowly, everybody else is answered.
    with socket.create_connection((server.host, server.port)) as slow:
        slow.sendall(
            f"PUT {FILES}/0/{run_id}/artifacts/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n".encode()
        )
        slow.sendall(b"a")
        assert server.get("runs/get", run_id=run_id)["run"]["info"]["run_id"] == run_id
        slow.sendall(b"bc")
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    assert (folder / "slow").read_bytes() == b"abc"


OUT = [
    "../x",
    "..%2fx",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "%252e%252e/x",
    "..%252fx",
    "a/../../x",
    "a/%2e%2e/%2e%2e/x",
    "..\\x",
    "..%5cx",
    "%00x",
    "a%00b",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "file:%2f%2f%2fetc%2fpasswd",
    "x" * 300,
    "%ff%fe/../x",
]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", OUT)
def test_no_path_leads_out(server: Server, tmp_path: Path, method: str, path: str) -> None:
    run_id = server.new_run()
    before = {place for place in server.root.rglob("*") if "runs" not in place.parts}
    for place in (f"{FILES}/0/{run_id}/artifacts/{path}", f"{FILES}/{path}"):
        answer = server.request(method, place, b"x" if method == "PUT" else None)
        # Slashes at its beginning make no path absolute: it stays below the run's folder.
        inside = method == "DELETE" or (method == "PUT" and path.endswith("passwd") and path[0] in "/%")
        assert answer.status in (400, 404) or (inside and answer.status == 200), (place, answer)
        assert b"root:" not in answer.body
    for place in (
        f"/get-artifact?run_uuid={run_id}&path={path}",
        f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path={path}",
        f"{FILES}?path={path}",
    ):
        answer = server.request("GET", place)
        assert answer.status in (400, 404) or answer.json in ({}, {"files": []}) or "root_uri" in answer.json
        assert b"root:" not in answer.body and b"passwd" not in answer.body.replace(path.encode(), b"")
    after = {place for place in server.root.rglob("*") if "runs" not in place.parts}
    assert {place.name for place in after - before} <= {"mltrack.db-wal", "mltrack.db-shm"}


def test_links_pipes_and_devices_are_no_files(server: Server, tmp_path: Path) -> None:
    run_id = server.new_run()
    folder = run_folder(server.root, run_id) / "artifacts"
    server.request("PUT", f"{FILES}/0/{run_id}/artifacts/real", b"r")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("top")
    (folder / "link").symlink_to(secret / "key")
    (folder / "linked").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    base = f"{FILES}/0/{run_id}/artifacts"
    for name in ("link", "linked/key", "pipe", "linked"):
        for place in (f"{base}/{name}", f"/get-artifact?run_uuid={run_id}&path={name}"):
            answer = server.request("GET", place)
            assert answer.status == 404 and b"top" not in answer.body
    listed = server.request("GET", f"{FILES}?path=0/{run_id}/artifacts").json["files"]
    assert [entry["path"] for entry in listed] == ["real"]
    assert server.request("GET", f"{FILES}?path=0/{run_id}/artifacts/linked").json == {}
    assert server.request("PUT", f"{base}/linked/new", b"x").status == 400
    server.request("DELETE", f"{base}/linked")
    assert (secret / "key").read_text() == "top" and list(secret.iterdir()) == [secret / "key"]


def test_an_object_store_that_does_not_answer_holds_up_only_who_deletes_there(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_RETRY_MODE": "standard",
    }.items():
        monkeypatch.setenv(name, value)
    server = new_server()
    run_id = server.new_run()
    place = "s3://bucket/prefix"
    with open_store(server.store) as store:
        set_destination(store.database, store.root, Destination(place))
        journal = Journal(server.root, run_id, ATTEMPT, role=ROLE)
        journal.meta("artifact", path="far.bin", size=3, sha256="ab" * 32, how="copy")
        journal.meta("artifact_copy", path="far.bin", sha256="ab" * 32, place=place)
        journal.meta("close", points=0)
        journal.close()
        store.fold_folder(run_folder(server.root, run_id))
    answers: list[int] = []
    path = f"{FILES}/0/{run_id}/artifacts/far.bin"

    def ask() -> None:
        answers.append(server.request("DELETE", path).status)

    deleting = threading.Thread(target=ask, daemon=True)
    deleting.start()
    held, _ = silent.accept()
    assert held.recv(10)
    for _ in range(3):
        assert server.get("runs/get", run_id=run_id)["run"]["info"]["run_id"] == run_id
        listed = server.get("artifacts/list", run_id=run_id)["files"]
        assert [file["path"] for file in listed] == ["far.bin"]
    assert not answers
    silent.close()
    held.close()
    deleting.join(60)
    assert answers == [503]
