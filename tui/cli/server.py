"""`mltrack server`: MLflow's clients log into the store over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mltrack.store.errors import BadInput
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session

if TYPE_CHECKING:
    from mltrack.store.mlflow_api.server import Listening


@click.command("server")
@click.argument("action", type=click.Choice(["start", "stop", "status"]), required=False)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; others than loopback want a token.",
)
@click.option("--port", default=5000, show_default=True, help="The port; 0 takes a free one.")
@click.option("--uds", type=click.Path(path_type=Path), help="Listen on this Unix socket instead.")
@click.option(
    "--name", "names", multiple=True, help="Another name that clients call this host by; may be repeated."
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    help="Speak HTTPS with this certificate (PEM, with its chain).",
)
@click.option(
    "--tls-key", type=click.Path(path_type=Path), help="The certificate's key, when another file holds it."
)
@click.option(
    "--rate", default=5000.0, show_default=True, help="Requests per second of one user; 0: any number."
)
@click.option("--max-file", metavar="SIZE", default="0", help="The largest artifact, like 20G; 0: any size.")
@click.pass_obj
def server_command(
    session: Session,
    action: str | None,
    host: str,
    port: int,
    uds: Path | None,
    names: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    rate: float,
    max_file: str,
) -> int:
    """Serve the store to MLflow's clients: MLFLOW_TRACKING_URI=http://127.0.0.1:5000.

    Runs until ctrl+c; `start` leaves it running behind, `stop` ends that, `status` says where it is. Nothing but this computer
    can reach it unless --host says so, and then only with a token. `mltrack auth` makes users with roles and tokens of their
    own.
    """
    if action is not None:
        options = ["--host", host, "--port", str(port), "--rate", str(rate), "--max-file", max_file]
        for name, path in (("--uds", uds), ("--tls-cert", tls_cert), ("--tls-key", tls_key)):
            options += [name, str(path.absolute())] if path is not None else []
        return _behind(session, action, [*options, *(word for name in names for word in ("--name", name))])
    from mltrack.store.access import read
    from mltrack.store.mlflow_api.background import client_lines
    from mltrack.store.mlflow_api.server import LOOPBACK, serve
    from mltrack.store.opening import open_store
    from mltrack.tui.cli.places import shown_url

    def ready(listening: Listening) -> None:
        where = f"{shown_url(store.address)} at {listening.address}"
        write_text(f"Serving {where}. ctrl+c ends it. For clients:", session.terminal)
        for line in client_lines(listening.called, listening.token_file, read(store.root).kept):
            write_text(f"  {line}", session.terminal)
        sys.stdout.flush()

    tls = None if tls_cert is None else (tls_cert, tls_key or tls_cert)
    if tls is None and tls_key is not None:
        raise BadInput("--tls-key needs the certificate it belongs to: --tls-cert FILE.")
    if tls is None and uds is None and host not in LOOPBACK:
        warn(
            "tokens and data travel readable for everybody on the way: use --tls-cert, or a proxy that speaks HTTPS"
        )
    with open_store(session.where) as store:
        serve(store, host, port, uds, names, ready, tls=tls, rate=rate, file_bytes=_bytes(max_file))
    return ExitCode.OK


def _bytes(text: str) -> int:
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), 0
    if number and number[-1] in "KMGT":
        number, unit = number[:-1], "KMGT".index(number[-1]) + 1
    if not number.isdigit():
        raise BadInput(f"'{text}' is no size: write 500M or 20G.")
    return int(number) << (10 * unit)


def _behind(session: Session, action: str, options: list[str]) -> int:
    """Start, end or look for the server that runs without a terminal."""
    from mltrack.store.access import read
    from mltrack.store.client.location import LocationError, choose_store
    from mltrack.store.mlflow_api import background
    from mltrack.tui.cli.places import shown_url

    try:
        choice = choose_store(session.where)
    except LocationError as error:
        raise BadInput(str(error)) from None
    if action == "stop":
        write_text(f"Ended the server at {background.stop(choice.root)}.", session.terminal)
        return ExitCode.OK
    there = background.start(choice, options) if action == "start" else background.running(choice.root)
    if there is None:
        write_text(
            "No server of this store runs on this host; `mltrack server start` starts one.", session.terminal
        )
        return ExitCode.FAILED
    write_text(
        f"Serving {shown_url(choice.url)} at {there.address}, process {there.pid}. For clients:",
        session.terminal,
    )
    for line in there.lines(choice.root, read(choice.root).kept):
        write_text(f"  {line}", session.terminal)
    return ExitCode.OK
