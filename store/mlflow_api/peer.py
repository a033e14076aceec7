"""Who is at the other end of a Unix socket, by the kernel: a client can write any name into a request, and no other uid here."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mltrack.store.mlflow_api.guard import PEER

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class PeerProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # which class it is, uvicorn finds out when it is loaded
    """uvicorn's protocol, with the peer's uid in place of an address."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        super().connection_made(cast(Any, transport))
        connection = transport.get_extra_info("socket")
        self.client = (f"{PEER}{_uid(connection)}", 0)


def _uid(connection: Any) -> int:
    """The user who opened the socket; a number that nobody has where the kernel does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return -1
    return int(_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))[1])
