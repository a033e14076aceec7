"""MLflow's scoring protocol over HTTP/1.1, as little of HTTP as that needs and with limits on everything a client decides."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable

HEAD_BYTES = 32 << 10
BODY_BYTES = 16 << 20
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
# Method, path without query, content type without parameters, body -> status, content type, body.
Handler = Callable[[str, str, str, bytes], Awaitable[tuple[int, str, bytes]]]


def error(code: str, message: str) -> bytes:
    """An error body as MLflow's scoring server has it."""
    return json.dumps({"error_code": code, "message": message}).encode()


class Refusal(Exception):
    """A request that is answered without being looked at; the connection is closed after it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = error(code, message)


class Connection(asyncio.Protocol):
    """One client. Its requests are answered in order; while one is answered the next is read into a bounded buffer."""

    def __init__(
        self,
        handle: Handler,
        connections: set[Connection],
        most: int,
        seconds: float,
        token: str | None,
        hosts: frozenset[str] | None,
    ) -> None:
        """``most`` connections at a time; a request has to arrive within ``seconds``; ``hosts`` None: any Host header."""
        self._handle = handle
        self._connections = connections
        self._most = most
        self._seconds = seconds
        self._token = token
        self._hosts = hosts
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._busy: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._busy is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > self._most:
            self._write(
                503, "application/json", error("TEMPORARILY_UNAVAILABLE", "Too many connections."), False
            )
            transport.close()
            return
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_waiting()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._busy is None:
            self._next()
        elif len(self._buffer) > HEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def shut(self) -> None:
        """Answer what is being answered, then close."""
        self._closing = True
        if self._busy is None and self._transport is not None:
            self._transport.close()

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._deadline = asyncio.get_running_loop().call_later(self._seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self._transport is not None and self._busy is None:
            if self._buffer:
                message = f"The request did not arrive within {self._seconds:g} s."
                self._write(408, "application/json", error("DEADLINE_EXCEEDED", message), False)
            self._transport.close()

    def _next(self) -> None:
        """Begin to answer the request at the head of the buffer, when it is whole."""
        try:
            request = self._parse()
        except Refusal as refusal:
            self._stop_waiting()
            self._write(refusal.status, "application/json", refusal.body, False)
            if self._transport is not None:
                self._transport.close()
            return
        if request is None:
            return
        self._stop_waiting()
        self._busy = asyncio.get_running_loop().create_task(self._answer(*request))

    def _parse(self) -> tuple[str, str, str, bytes, bool] | None:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_BYTES + 4)
        if end < 0:
            if len(self._buffer) > HEAD_BYTES:
                raise Refusal(431, "BAD_REQUEST", "The head of the request is too long.")
            return None
        head = self._buffer[:end].decode("latin-1").split("\r\n")
        parts = head[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise Refusal(400, "BAD_REQUEST", "This is no HTTP/1.1 request.")
        fields: dict[str, str] = {}
        for line in head[1:]:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise Refusal(400, "BAD_REQUEST", "A header field cannot be read.")
            name = name.lower()
            if name in fields and name in ("content-length", "host", "transfer-encoding"):
                raise Refusal(400, "BAD_REQUEST", f"The header field {name} is given twice.")
            fields[name] = value.strip()
        self._check(fields)
        length = fields.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refusal(400, "BAD_REQUEST", "Content-Length is no number.")
        if "transfer-encoding" in fields:
            raise Refusal(411, "BAD_REQUEST", "Send the body with a Content-Length.")
        size = int(length) if len(length) < 20 else BODY_BYTES + 1
        if size > BODY_BYTES:
            raise Refusal(
                413, "BAD_REQUEST", f"A request may have {BODY_BYTES >> 20} MiB, this has {length} bytes."
            )
        begin = end + 4
        if len(self._buffer) < begin + size:
            if (
                fields.get("expect", "").lower() == "100-continue"
                and len(self._buffer) == begin
                and self._transport
            ):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body = bytes(self._buffer[begin : begin + size])
        del self._buffer[: begin + size]
        connection = fields.get("connection", "").lower()
        keep = connection != "close" and (parts[2] != "HTTP/1.0" or connection == "keep-alive")
        path = parts[1].partition("?")[0]
        kind = fields.get("content-type", "").partition(";")[0].strip().lower()
        return parts[0], path, kind, body, keep

    def _check(self, fields: dict[str, str]) -> None:
        if self._hosts is not None:
            host = fields.get("host", "").lower()
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            if name not in self._hosts:
                raise Refusal(403, "PERMISSION_DENIED", "This server answers to localhost only.")
        if "origin" in fields:
            raise Refusal(403, "PERMISSION_DENIED", "Web pages may not ask this server.")
        if self._token is not None:
            given = fields.get("authorization", "")
            if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {self._token}".encode()):
                raise Refusal(401, "UNAUTHENTICATED", "Give the token: Authorization: Bearer …")

    async def _answer(self, method: str, path: str, kind: str, body: bytes, keep: bool) -> None:
        status, content_type, answer = await self._handle(method, path, kind, body)
        self._busy = None
        keep = keep and not self._closing
        self._write(status, content_type, answer, keep)
        if self._transport is None:
            return
        if not keep:
            self._transport.close()
            return
        self._transport.resume_reading()
        self._wait_for_request()
        if self._buffer:
            self._next()

    def _write(self, status: int, content_type: str, body: bytes, keep: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        close = "" if keep else "Connection: close\r\n"
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{close}\r\n"
        )
        self._transport.write(head.encode("latin-1") + body)
