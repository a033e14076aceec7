"""`mltrack serve` as a process: the protocol, its limits, swaps under load, models that fail, hang and die."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.projects.served import JSON, ROOT, Serving

from mltrack.store import open_store

MODEL = """
import os, time

class Model:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, data):
        value = float(data.ravel()[0])
        if self.factor < 0:
            raise RuntimeError("not trained")
        if value == 666:
            os._exit(9)
        if value == 777:
            time.sleep(60)
        if value == 888:
            raise RuntimeError("no such thing")
        print("a model may print")
        return data * self.factor
"""
SAVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from served_model import Model
from mltrack.store.flavors.saving import save_model
from mltrack.store.flavors.schema import ModelSignature
spec = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
code = [sys.argv[3] + "/served_model.py"]
save_model(Model(float(sys.argv[2])), Path(sys.argv[1]), signature=ModelSignature(spec), input_example=[[1.0, 2.0]], code_paths=code)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the model `double`: v1 doubles, v2 triples, v3 fails on its own example."""
    root = tmp_path_factory.mktemp("serving")
    (root / "served_model.py").write_text(MODEL)
    with open_store(str(root / "store")) as opened:
        for number, factor in enumerate(("2", "3", "-1")):
            folder = root / f"model{number}"
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
            subprocess.run(
                [sys.executable, "-c", SAVE, str(folder), factor, str(root)], check=True, env=environment
            )
            opened.registry.register_from(str(folder), "double")
        opened.registry.promote("double", 1, "Production", "")
    return root / "store"


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Serving]:
    serving = Serving(store, "models:/double/1", "--timeout", "2")
    yield serving
    assert serving.stop() == 0, serving.said


def rows(*values: float) -> dict[str, object]:
    return {"inputs": [[value, 0.0] for value in values]}


def test_the_protocol(served: Serving) -> None:
    assert served.ask(b"", "/ping", "GET") == (200, "\n")
    assert served.ask(b"", "/health", "GET") == (200, "\n")
    assert served.ask(b"", "/version", "GET")[0] == 200
    assert served.ask(rows(1, 2.5)) == (200, {"predictions": [[2.0, 0.0], [5.0, 0.0]]})
    assert served.ask({"instances": [[1, 2]]}) == (200, {"predictions": [[2.0, 4.0]]})


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 400, "must be an object"),
        (b"{}", 400, "exactly one of"),
        ({"inputs": [[1, 2]], "instances": [[1, 2]]}, 400, "exactly one of"),
        ({"inputs": [[1, 2]], "more": 1}, 400, "nobody knows"),
        ({"inputs": [[1, 2]], "params": 3}, 400, "params must be an object"),
        ({"instances": 3}, 400, "list of rows"),
        ({"inputs": [[1, 2], [3]]}, 400, "differ in length"),
        ({"inputs": [[1, 2, 3]]}, 400, "must have the shape"),
        ({"inputs": [["a", "b"]]}, 400, "must be float64"),
        ({"dataframe_split": {"data": 3}}, 400, "columns and data"),
        ({"dataframe_split": {"data": [[1]], "x": 1}}, 400, "takes columns, data and index"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"", 400, "no body"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_request_is_told_what_is_wrong(served: Serving, body: object, status: int, word: str) -> None:
    code, answer = served.ask(body)
    assert (code, word in answer["message"]) == (status, True), answer
    assert answer["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")


def test_other_paths_methods_and_types(served: Serving) -> None:
    assert served.ask(rows(1), headers={"Content-Type": "text/xml"})[0] == 415
    assert served.ask(rows(1), "/invocations/../etc")[0] == 404
    assert served.ask(b"", method="GET")[0] == 405
    assert served.ask(rows(1), headers={**JSON, "Host": "evil.example"})[0] == 403
    assert served.ask(rows(1), headers={**JSON, "Origin": "http://evil.example"})[0] == 403


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (
            b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
            413,
        ),
        (b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777217\r\n\r\n", 413),
        (b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"\x16\x03\x01" + bytes(range(256)) * 200, 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nX: " + b"a" * 40_000, 431),
        (b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nslow", 408),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_request_of_ours_is_refused_and_costs_nobody_else(
    served: Serving, data: bytes, status: int
) -> None:
    answer = served.raw(data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:100]
    assert b"Traceback" not in answer
    assert served.ask(rows(1))[0] == 200


def test_several_requests_on_one_connection_are_answered_in_order(served: Serving) -> None:
    requests = b""
    for value in (1, 2, 3):
        body = json.dumps(rows(value)).encode()
        head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        requests += f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    answer = served.raw(requests + b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert re.findall(rb'"predictions": \[\[([\d.]+)', answer) == [b"2.0", b"4.0", b"6.0"]


def test_a_model_that_raises_dies_or_hangs_costs_its_own_request(served: Serving) -> None:
    status, answer = served.ask(rows(888))
    assert status == 500 and "Traceback" not in str(answer) and "RuntimeError" in answer["message"]
    assert served.ask(rows(666))[0] == 500
    until_served(served)
    status, answer = served.ask(rows(777))
    assert status == 504 and "2 s" in answer["message"]
    until_served(served)


def until_served(served: Serving) -> None:
    for _ in range(1000):
        status, _ = served.ask(rows(1))
        if status == 200:
            return
        assert status == 503
        time.sleep(0.02)
    raise AssertionError("it did not come back")


def hammer(served: Serving, stop: threading.Event, seen: list[tuple[int, Any]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    body = json.dumps(rows(1)).encode()
    while not stop.is_set():
        connection.request("POST", "/invocations", body, JSON)
        answer = connection.getresponse()
        seen.append((answer.status, json.loads(answer.read())))
    connection.close()


def test_a_promotion_under_load_drops_nothing_and_a_broken_version_is_not_served(
    store: Path,
) -> None:
    with open_store(str(store)) as opened:
        opened.registry.promote("double", 1, "Production", "")
    served = Serving(store, "models:/double/Production")
    stop, seen = threading.Event(), list[tuple[int, Any]]()
    clients = [threading.Thread(target=hammer, args=(served, stop, seen)) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        with open_store(str(store)) as opened:
            opened.registry.promote("double", 2, "Production", "")
            served.hears("Serving double v2 now, v1 before")
            opened.registry.promote("double", 3, "Production", "")
            served.hears("double v3 is not served, v2 goes on: The model fails on its own example")
            opened.refresh(None)
            followers = [each.version for each in opened.registry.serving() if each.follows == "Production"]
            assert followers == [2]
            count = len(seen)
            while len(seen) < count + 20:
                time.sleep(0.01)
            opened.registry.rollback("double", to=1, reason="broken")
            served.hears("Serving double v1 now, v2 before")
            count = len(seen)
            while len(seen) < count + 20:
                time.sleep(0.01)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert {status for status, _ in seen} == {200}
    values = [answer["predictions"][0][0] for _, answer in seen]
    assert set(values) == {2.0, 3.0} and values[0] == values[-1] == 2.0
    assert served.stop() == 0
    with open_store(str(store)) as opened:
        opened.refresh(None)
        assert [each for each in opened.registry.serving() if each.follows] == []


def test_a_model_that_fails_its_example_is_not_served_at_all(store: Path) -> None:
    with pytest.raises(AssertionError, match="The model fails on its own example"):
        Serving(store, "models:/double/3")


def test_the_network_needs_a_token(store: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="give a --token-file"):
        Serving(store, "models:/double/1", "--host", "0.0.0.0")
    served = Serving(store, "models:/double/1", "--token-file", str(tmp_path / "token"), "--no-run")
    token = (tmp_path / "token").read_text().strip()
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600 and len(token) > 30
    assert served.ask(rows(1))[0] == 401
    assert served.ask(rows(1), headers={**JSON, "Authorization": "Bearer x"})[0] == 401
    assert served.ask(rows(1), headers={**JSON, "Authorization": f"Bearer {token}"})[0] == 200
    assert served.stop() == 0
