"""The server of a store as a process of its own that outlives its terminal: started, asked after, ended.

Standard library and our client only: who asks need not load what serves.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mltrack.store.client import host
from mltrack.store.client.journal import make_folder, share_mode
from mltrack.store.client.location import StoreChoice
from mltrack.store.errors import BadInput, NotFound, StoreUnavailable

STATE_FILE = "server.json"
LOG_FILE = "server.log"
TOKEN_FILE = "server.token"
START_SECONDS = 20.0
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs on this host. ``called``: its address by the name that clients are to use. ``guarded``: it wants the
    token."""

    address: str
    called: str
    pid: int
    pstart: str
    guarded: bool

    def lines(self, root: Path, users: bool) -> list[str]:
        """What a client's shell needs. ``users``: the store at ``root`` has or had some."""
        return client_lines(self.called, root / TOKEN_FILE if self.guarded else None, users)


def client_lines(called: str, token_file: Path | None, users: bool) -> list[str]:
    """What a client's shell needs: the address, and what it is to show there."""
    if called.startswith("unix:"):
        return [f"curl --unix-socket {shlex.quote(called.removeprefix('unix://'))} http://localhost/health"]
    found = [f"export MLFLOW_TRACKING_URI={called}"]
    if users:
        found.append("a token of theirs in MLFLOW_TRACKING_TOKEN: mltrack auth token create NAME")
    elif token_file is not None:
        found.append(f"export MLFLOW_TRACKING_TOKEN=$(cat {shlex.quote(str(token_file))})")
    return found


def describe(address: str, guarded: bool, called: str = "") -> str:
    """What a running server writes down of itself."""
    mine = host.identity()
    return json.dumps(
        {
            "address": address,
            "called": called or address,
            "guarded": guarded,
            **{name: mine[name] for name in ("pid", "pstart", "host")},
        }
    )


def running(root: Path) -> Running | None:
    """The server of the store at ``root``, when one runs on this host."""
    try:
        state = json.loads((root / STATE_FILE).read_text())
        found = Running(
            str(state["address"]),
            str(state.get("called", state["address"])),  # nothing else was written down by older ones
            int(state["pid"]),
            str(state["pstart"]),
            bool(state["guarded"]),
        )
        here = state["host"] == host.identity()["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if here and host.is_alive(found.pid, found.pstart) else None


def addresses(root: Path) -> set[str]:
    """What clients call the server of the store at ``root``, when one runs on this host: nothing for that store to follow."""
    server = running(root)
    if server is None:
        return set()
    return {server.address, server.called, server.address.replace("//127.0.0.1:", "//localhost:")}


def start(choice: StoreChoice, words: list[str]) -> Running:
    """Start ``mltrack server`` with these options for a store, unless one runs. Returns when it answers.

    Raises StoreUnavailable with what the process said when it does not come up.
    """
    if choice.url.startswith(("http://", "https://")):
        raise BadInput(f"{choice.url} is a server already; start one where its store lies.")
    there = running(choice.root)
    if there is not None:
        return there
    make_folder(choice.root, choice.root)
    log = choice.root / LOG_FILE
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(log, flags, share_mode(choice.root)), "wb") as output:
        # The address goes by environment, not by argument: it may hold a password, and arguments are public.
        process = subprocess.Popen(
            [sys.executable, "-m", "mltrack.tui.cli", "server", *words],
            env={**os.environ, "MLTRACK_STORE": choice.url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        there = running(choice.root)
        if there is not None:
            return there
        if process.poll() is not None:
            break
        time.sleep(0.02)
    said = log.read_text(errors="replace").strip().splitlines()
    raise StoreUnavailable(
        (said[-1].removeprefix("mltrack: ") if said else "The server did not start.") + f" ({log})"
    )


def stop(root: Path) -> str:
    """End the server of a store; what clients sent is kept. Returns its address. Raises NotFound when none runs."""
    there = running(root)
    if there is None:
        raise NotFound("No server of this store runs on this host.")
    try:
        # A handle on the process that was just looked at: a number alone may mean another one by now.
        handle = os.pidfd_open(there.pid)
    except ProcessLookupError:
        return there.address
    try:
        if host.is_alive(there.pid, there.pstart):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
    deadline = time.monotonic() + STOP_SECONDS
    while host.is_alive(there.pid, there.pstart):
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"The server (process {there.pid}) is still ending; look again.")
        time.sleep(0.02)
    return there.address
