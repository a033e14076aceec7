"""Who is let in, and what survives: every route behind one guard, kill -9, many clients, hostile requests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mlflow_api.conftest import Server

from mltrack.store import open_store
from mltrack.store.mlflow_api import journals
from mltrack.store.mlflow_api.application import ROUTES

JSON = {"Content-Type": "application/json"}
FILES = "/api/2.0/mlflow-artifacts/artifacts"
EVERY = [(method, f"/api/2.0/mlflow/{path}") for method, path in ROUTES]
EVERY += [(method, f"{FILES}/0/x") for method in ("GET", "PUT", "DELETE")]
EVERY += [
    ("GET", "/version"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("GET", "/nothing"),
    ("POST", "/api/2.0/mlflow/traces"),
    ("GET", "/get-artifact"),
    ("GET", "/model-versions/get-artifact"),
    *((method, f"{journals.PREFIX}{path}") for method, path in journals.ROUTES),
]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": "127.0.0.1.evil.example:5000"}],
)
def test_no_route_answers_another_web_site(server: Server, headers: dict[str, str]) -> None:
    for method, path in EVERY:
        answer = server.request(method, path, b"{}", {**JSON, **headers})
        assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED"), (method, path)


def test_another_address_wants_the_token_on_every_route(new_server: Callable[..., Server]) -> None:
    server = new_server("--host", "0.0.0.0")
    server.host = "127.0.0.1"
    for method, path in EVERY:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic %%%"},
            {"Authorization": "Bearer"},
        ):
            answer = server.request(method, path, b"{}", {**JSON, **headers})
            assert (answer.status, answer.json["error_code"]) == (401, "UNAUTHENTICATED"), (method, path)
    path = server.root / "server.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text().strip()
    shown = {"Authorization": f"Bearer {token}"}
    assert (
        server.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers=shown).status == 200
    )
    assert server.request("GET", "/health").status == 200


def test_a_unix_socket_is_enough(tmp_path: Path, new_server: Callable[..., Server]) -> None:
    import subprocess

    from tests.mlflow_api.conftest import COMMAND, until

    place = tmp_path / "s.sock"
    process = subprocess.Popen(
        [*COMMAND, "--store", str(tmp_path / "served"), "server", "--uds", str(place)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(place.exists)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place))
            connection.sendall(
                b"GET /api/2.0/mlflow/experiments/get?experiment_id=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            data = b""
            while part := connection.recv(4096):
                data += part
        assert b"200 OK" in data and b'"Default"' in data
    finally:
        process.terminate()
        process.wait(30)


def test_a_taken_port_is_a_sentence(server: Server, tmp_path: Path) -> None:
    import subprocess

    from tests.mlflow_api.conftest import COMMAND

    done = subprocess.run(
        [*COMMAND, "--store", str(tmp_path / "other"), "server", "--port", str(server.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0 and "cannot listen" in done.stderr and "Traceback" not in done.stderr


def test_a_killed_server_loses_nothing_it_acknowledged(new_server: Callable[..., Server]) -> None:
    server = new_server()
    run_ids = [server.new_run(run_name=f"r{number}") for number in range(4)]
    acknowledged: dict[str, list[int]] = {run_id: [] for run_id in run_ids}
    stop = threading.Event()

    def client(run_id: str) -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
        step = 0
        try:
            while not stop.is_set():
                fields = {"run_id": run_id, "key": "m", "value": step, "timestamp": step, "step": step}
                connection.request("POST", "/api/2.0/mlflow/runs/log-metric", json.dumps(fields), JSON)
                if connection.getresponse().read() == b"{}":
                    acknowledged[run_id].append(step)
                step += 1
        except OSError:
            return
        except http.client.HTTPException:
            return
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(run_id,)) for run_id in run_ids]
    for thread in threads:
        thread.start()
    from tests.mlflow_api.conftest import until

    until(lambda: all(len(steps) > 50 for steps in acknowledged.values()))
    server.stop(signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()
    again = new_server(store=server.store)
    for run_id in run_ids:
        points = again.get("metrics/get-history", run_id=run_id, metric_key="m")["metrics"]
        found = [point["step"] for point in points]
        assert found[: len(acknowledged[run_id])] == acknowledged[run_id]
        assert len(found) == len(set(found)) <= len(acknowledged[run_id]) + 1
        assert again.get("runs/get", run_id=run_id)["run"]["info"]["status"] == "RUNNING"
        again.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1, step=10**6)
        again.post("runs/update", run_id=run_id, status="FINISHED", end_time=5)
    again.stop()
    assert not os.listdir(server.root / "open")
    with open_store(server.store) as store:
        store.refresh(None)
        assert {run.status for run in store.runs(run_ids)} == {"FINISHED"}
        assert all(not run.damage and not run.skipped for run in store.runs(run_ids))


def test_sixteen_clients_at_once(new_server: Callable[..., Server]) -> None:
    server = new_server()
    run_id = server.new_run()
    wrong: list[Any] = []

    def client(number: int) -> None:
        for step in range(20):
            fields = {
                "run_id": run_id,
                "metrics": [{"key": f"m{number}", "value": step, "timestamp": step, "step": step}],
                "params": [{"key": f"p{number}", "value": "1"}],
                "tags": [{"key": "who", "value": str(number)}],
            }
            answer = server.call("POST", "runs/log-batch", **fields)
            if answer.status != 200:
                wrong.append(answer)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    data = server.get("runs/get", run_id=run_id)["run"]["data"]
    assert len(data["params"]) == 16 and len(data["metrics"]) == 16
    for number in range(16):
        assert len(server.get("metrics/get-history", run_id=run_id, metric_key=f"m{number}")["metrics"]) == 20


_LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["0", "m", "runs:/x"])
)
_JSON = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(
    "run_id run_uuid experiment_id experiment_ids key value timestamp step name new_name version stage source alias filter order_by"
    " max_results page_token metrics params tags datasets models status metric_key run_ids view_type path archive_existing_versions".split()
)


@settings(max_examples=150)
@given(route=st.sampled_from(sorted(ROUTES)), fields=st.dictionaries(_NAMES, _JSON, max_size=6))
def test_no_request_is_answered_with_a_5xx(
    server: Server, route: tuple[str, str], fields: dict[str, Any]
) -> None:
    is_answered(server, route, fields)


@pytest.mark.long
@settings(max_examples=3000)
@given(route=st.sampled_from(sorted(ROUTES)), fields=st.dictionaries(_NAMES, _JSON, max_size=6))
def test_thousands_of_requests_are_answered_without_a_5xx(
    server: Server, route: tuple[str, str], fields: dict[str, Any]
) -> None:
    is_answered(server, route, fields)


def is_answered(server: Server, route: tuple[str, str], fields: dict[str, Any]) -> None:
    """Within a minute, and with no 5xx, which clients would repeat for minutes."""
    method, path = route
    path = path.replace("{model_id}", "m-1").replace("{tag_key}", "k")
    if method == "GET":
        from urllib.parse import urlencode

        texts = {name: str(value)[:200] for name, value in fields.items()}
        answer = server.request(method, f"/api/2.0/mlflow/{path}?{urlencode(texts)}")
    else:
        answer = server.request(method, f"/api/2.0/mlflow/{path}", json.dumps(fields).encode(), JSON)
    assert answer.status < 500, (route, fields, answer.body)
    assert answer.status == 200 or "error_code" in answer.json


@settings(max_examples=60)
@given(body=st.binary(max_size=200), route=st.sampled_from(sorted(ROUTES)))
def test_garbage_is_refused_in_json(server: Server, body: bytes, route: tuple[str, str]) -> None:
    method, path = route
    answer = server.request(method, f"/api/2.0/mlflow/{path}", body, JSON)
    assert answer.status < 500 and (answer.status == 200 or "error_code" in answer.json)
