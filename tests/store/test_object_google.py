"""What is Google's own about gs:// addresses, on a Google Cloud Storage API. What all addresses share is tested on both."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mltrack.store import open_store
from mltrack.store.errors import NotFound, StoreUnavailable
from mltrack.store.object_store import open_objects

MLTRACK = [sys.executable, "-m", "mltrack.tui.cli"]


def test_a_store_made_for_it_sends_there_and_removes_from_there(store_root: Path, gs_place: str) -> None:
    """As a person does it: by the commands alone."""

    def ran(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    ran(*MLTRACK, "init", str(store_root), "--artifacts", gs_place)
    code = (
        "import mltrack\nwith mltrack.start_run(run_name='train') as run:\n"
        " mltrack.log_text('hello' * 50_000, 'notes/a b.txt')\n print(run.run_id)"
    )
    run_id = ran(sys.executable, "-c", code).strip()
    deadline = time.monotonic() + 60

    def copies() -> list[str]:
        with open_store(str(store_root)) as store:
            store.refresh(None)
            return [file.copy for file in store.details(run_id).files if file.copy]

    while not (found := copies()):
        assert time.monotonic() < deadline, "it was never sent"
        time.sleep(0.1)
    assert found[0].startswith(f"{gs_place}/{run_id}/artifacts/") and found[0].endswith("/notes/a b.txt")
    assert b"".join(open_objects(found[0].rpartition("/")[0]).stream("a b.txt")) == b"hello" * 50_000
    ran(*MLTRACK, "delete", run_id, "--yes")
    ran(*MLTRACK, "gc", "--days", "0", "--yes")
    assert [name for name in open_objects(gs_place).listing() if run_id in name.name] == []


def test_half_of_an_upload_is_nothing_and_the_next_one_is_whole(store_root: Path, gs_place: str) -> None:
    content = os.urandom((16 << 20) * 2 + 5)
    Path("big").write_bytes(content)
    objects = open_objects(gs_place)
    looks = iter([False] * 6)
    with pytest.raises(StoreUnavailable):
        objects.put(Path("big").open("rb"), "big", lambda: next(looks, None) is not False)
    assert list(objects.listing()) == []
    with pytest.raises(NotFound):
        objects.head("big", 10)
    # Other bytes than were expected are thrown away, too.
    objects.put(Path("big").open("rb"), "big", sha256="0" * 64)
    assert list(objects.listing()) == []
    digest = objects.put(Path("big").open("rb"), "big")
    assert digest == objects.digest("big") == hashlib.sha256(content).hexdigest()
    objects.remove(["big", "big"])
    assert list(objects.listing()) == []


@pytest.mark.parametrize("answer", [400, 401, 403, 412])
def test_what_google_refuses_is_one_sentence(
    store_root: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"error": {"code": %d, "message": "not you"}}' % answer
            self.send_response(answer)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    try:
        Path("it").write_bytes(b"x" * 100)
        objects = open_objects("gs://bucket/below")
        with pytest.raises(StoreUnavailable, match="gs://bucket/below cannot be used: "):
            objects.put(Path("it").open("rb"), "it")
        with pytest.raises(StoreUnavailable, match="gs://bucket/below cannot be used: "):
            b"".join(objects.stream("it"))
    finally:
        server.shutdown()
        server.server_close()
