"""What a stranger, a careless program or an attacker sends: answered with a 4xx or closed, and everybody else goes on."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from tests.mlflow_api.conftest import Server

CREATE = "/api/2.0/mlflow/experiments/create"


def raw(server: Server, data: bytes, seconds: float = 20.0) -> bytes:
    """What is answered to bytes, until the connection ends or nothing more comes."""
    with socket.create_connection((server.host, server.port), timeout=seconds) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except (TimeoutError, ConnectionError):
            pass
        return found


def alive(server: Server) -> None:
    assert server.get("experiments/get", experiment_id="0")["experiment"]["name"] == "Default"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "text/json",
        "",
        "application/json-patch+json",
    ],
)
def test_only_json_is_taken(server: Server, kind: str) -> None:
    """A web page can send the others without asking first."""
    answer = server.request("POST", CREATE, b'{"name": "by a page"}', {"Content-Type": kind} if kind else {})
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert server.call("GET", "experiments/get-by-name", experiment_name="by a page").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost.evil.example"},
        {"Host": "evil.example:5000"},
        {"Host": "127.0.0.1@evil.example"},
        {"Host": "[::1].evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost.evil.example"},
        {"Origin": "file://"},
    ],
)
def test_other_names_and_pages_are_refused(server: Server, headers: dict[str, str]) -> None:
    answer = server.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers=headers)
    assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: -1",
        b"Content-Length: 5x",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
        b"X: a\r\n b",
        b"Host: evil.example",
        b"X-" + b"y" * 70_000 + b": 1",
    ],
)
def test_a_second_request_cannot_be_smuggled(server: Server, head: bytes) -> None:
    inner = b'{"name":"smuggled"}'
    hidden = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (
            CREATE.encode(),
            len(inner),
            inner,
        )
    )
    data = (
        b"POST /api/2.0/mlflow/experiments/get HTTP/1.1\r\nHost: localhost\r\n"
        + head
        + b"\r\n\r\n0\r\n\r\n"
        + hidden
    )
    threading.Thread(target=raw, args=(server, data, 1.0), daemon=True).start()
    alive(server)
    # Whatever became of it, no request of somebody else's connection is answered with it.
    answer = server.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
    assert answer.status == 200 and answer.json["experiment"]["name"] == "Default"


def test_a_websocket_or_another_protocol_is_not_spoken(server: Server) -> None:
    said = raw(
        server,
        b"GET /api/2.0/mlflow/experiments/get?experiment_id=0 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade, close\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    assert said and b" 101 " not in said.split(b"\r\n")[0]
    for data in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /\r\n\r\n",
        b"\0" * 100,
    ):
        raw(server, data, 0.5)
    assert raw(
        server, b"CONNECT evil:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ).startswith(b"HTTP/1.1 4")
    alive(server)


def test_slow_and_idle_connections_keep_nobody_out(server: Server) -> None:
    waiting = [socket.create_connection((server.host, server.port)) for _ in range(100)]
    try:
        for connection in waiting[:50]:
            connection.sendall(b"POST " + CREATE.encode() + b" HTTP/1.1\r\nHost: localhost\r\n")
        for connection in waiting[50:]:
            connection.sendall(
                b"POST "
                + CREATE.encode()
                + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b'Content-Length: 100\r\n\r\n{"name"'
            )
        began = time.monotonic()
        for _ in range(20):
            alive(server)
        assert time.monotonic() - began < 20
    finally:
        for connection in waiting:
            connection.close()
    alive(server)


def test_deep_wide_and_large_bodies(server: Server) -> None:
    json_type = {"Content-Type": "application/json"}
    for body in (
        b"[" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"experiment_ids":' + b"[" * 5000 + b"]" * 5000 + b"}",
        json.dumps({"experiment_ids": ["0"], "filter": "(" * 9000}).encode(),
        json.dumps(
            {"experiment_ids": ["0"], "filter": "params.a = '1' and " * 500 + "params.a = '1'"}
        ).encode(),
        json.dumps({"experiment_ids": ["0"], "filter": "params.a LIKE '" + "%a" * 200 + "'"}).encode(),
        json.dumps({"experiment_ids": ["0"] * 100_000}).encode(),
        b'{"experiment_ids":["\\ud800"]}',
        "\ufeff{}".encode(),
        b'{"max_results":1e400}',
        b'{"max_results":' + b"9" * 5000 + b"}",
    ):
        answer = server.request("POST", "/api/2.0/mlflow/runs/search", body, json_type)
        assert answer.status in (200, 400), (body[:60], answer.status)
        assert answer.status == 200 or answer.json["error_code"] == "INVALID_PARAMETER_VALUE"
    answer = server.request("POST", CREATE, b" " * (16 << 20) + b"{}", json_type)
    assert (answer.status, answer.json["error_code"]) == (413, "REQUEST_TOO_LARGE")
    alive(server)
