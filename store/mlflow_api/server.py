"""Running the server: one process, one thread, loopback or a Unix socket unless a token guards it."""

from __future__ import annotations

import json
import os
import secrets
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mltrack.store.acting import use_channel
from mltrack.store.client.journal import make_folder, open_file, share_mode
from mltrack.store.errors import BadInput, StoreUnavailable
from mltrack.store.mlflow_api.api import Api
from mltrack.store.mlflow_api.background import STATE_FILE, TOKEN_FILE, describe
from mltrack.store.store import Store

PORT = 5000
# Beyond what sixteen trainings at 200 points a second send one by one; less than a loop without a pause.
RATE = 5000.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server is to be reached. ``called``: the same by the name that clients are to use. ``token_file``: where its token
    lies, when it wants one."""

    address: str
    called: str
    token_file: Path | None = None


def serve(
    store: Store,
    host: str = "127.0.0.1",
    port: int = PORT,
    socket: Path | None = None,
    names: tuple[str, ...] = (),
    on_ready: Callable[[Listening], None] = lambda listening: None,
    announced: bool = True,
    tls: tuple[Path, Path] | None = None,
    rate: float = RATE,
    file_bytes: int = 0,
    own_token: str | None = None,
) -> None:
    """Serve ``store`` until a signal ends it. ``names``: other names that clients may call this host by. ``announced``: as the
    store's server, which others find. ``tls``: files of a certificate (with its chain) and of its key. ``rate``: requests per
    second of one user; ``file_bytes``: the largest artifact; 0 for no limit.

    ``own_token``: a server for one job. Whoever shows this token may do everything, with "" whoever reaches it.

    Any address but loopback and a Unix socket wants a token: one of a user's, or the server's own, kept in the store's folder.
    As soon as the store has users (``access``) every address wants to know who asks. Raises StoreUnavailable when the
    packages of the extra are missing, BadInput when the address is taken.
    """
    try:
        import uvicorn
    except ImportError:
        raise StoreUnavailable(
            "The server needs two packages more: pip install 'mltrack-tui[server]'."
        ) from None
    from mltrack.store.audit_head import DailyHead
    from mltrack.store.mlflow_api.application import Application
    from mltrack.store.mlflow_api.guard import Rules
    from mltrack.store.mlflow_api.peer import PeerProtocol

    # A client says itself who it is, and `mltrack undo` leaves alone what programs asked for.
    use_channel("rest")
    guarded = socket is None and host not in LOOPBACK
    make_folder(store.root, store.root)  # that of a database is made here by whoever needs it first
    token = _token(store.root) if guarded else ""
    api = Api(store)
    head = DailyHead(store)
    for_one_job = own_token is not None
    rules = Rules(
        own_token or token, frozenset((*names, host)), socket is not None, rate, file_bytes, for_one_job
    )
    if tls is not None:
        _check_certificate(*tls)
    config = uvicorn.Config(
        Application(api, rules),
        host=host,
        port=port,
        uds=None if socket is None else os.fspath(socket),
        log_level="error",
        access_log=False,
        http=PeerProtocol if socket is not None else "auto",
        ssl_certfile=None if tls is None else os.fspath(tls[0]),
        ssl_keyfile=None if tls is None else os.fspath(tls[1]),
        # Who stands in front says who asks only in what everybody could write.
        proxy_headers=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=75,
        limit_concurrency=512,
    )
    state = store.root / STATE_FILE
    scheme = "http" if tls is None else "https"
    shown = host if ":" not in host else f"[{host}]"

    class Server(uvicorn.Server):
        """Says when it is ready, and where."""

        async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            await super().startup(sockets)  # type: ignore[arg-type]
            if not self.started:
                return
            address = f"unix://{socket}" if socket is not None else f"{scheme}://{shown}:{self._port()}"
            called = f"{scheme}://{names[0]}:{self._port()}" if guarded and names else address
            if announced:
                _write_private(state, describe(address, guarded, called), share_mode(store.root))
            on_ready(Listening(address, called, store.root / TOKEN_FILE if guarded else None))

        async def on_tick(self, counter: int) -> bool:
            # Ten times a second, in the one thread that asks the store.
            head.look()
            api.writers.look()
            return await super().on_tick(counter)

        async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
            # Here and not later: uvicorn lets the signal that ended it act once more.
            await super().shutdown(sockets)  # type: ignore[arg-type]
            api.close()
            _forget(state)

        def _port(self) -> int:
            for server in self.servers:
                for listening in server.sockets:
                    return int(listening.getsockname()[1])
            return port

    server = Server(config)
    try:
        server.run()
    except SystemExit:
        where = str(socket) if socket is not None else f"{shown}:{port}"
        raise BadInput(f"The server cannot listen on {where}: is it in use? --port names another.") from None
    except KeyboardInterrupt:
        return


def _check_certificate(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(
            f"The certificate {certificate} with the key {key} cannot be used ({error}). Both must be PEM files, and belong"
            " together."
        ) from None


def _forget(state: Path) -> None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(state.read_text())["pid"] == os.getpid():
            state.unlink()


def _token(root: Path) -> str:
    """The store's token, made on first use and readable by nobody else."""
    path = root / TOKEN_FILE
    with suppress(FileNotFoundError):
        token = path.read_text().strip()
        if len(token) >= 32:
            return token
    token = secrets.token_urlsafe(32)
    _write_private(path, token + "\n", 0o600)
    return token


def _write_private(path: Path, text: str, mode: int) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    fd = open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.replace(part, path)
