"""A store on another machine, over the system's ssh: its worker runs there, only its answers come over.

Standard library only: it stands in the way of the first screen.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mltrack.store.errors import BadInput

SCHEME = "ssh://"
REMOTE_COMMAND = "MLTRACK_SSH_COMMAND"
"""Environment variable: how the `mltrack` command is called over there, when it is not on the PATH of a plain login."""
# A line that is dead is noticed within 15 seconds. Everything else is ~/.ssh/config's.
_ALIVE = ("-oServerAliveInterval=5", "-oServerAliveCountMax=3", "-oConnectTimeout=15")


class NotRemote(BadInput):
    """An address that cannot be meant."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A store at ``path`` ("" for the one that `mltrack where` names over there) on what ssh calls ``host``."""

    host: str
    port: int | None
    path: str

    def command(
        self, words: list[str], terminal: bool = False, quiet: bool = True, packed: bool = False
    ) -> list[str]:
        """The argv that runs `mltrack WORDS` there. ``quiet``: nobody can be asked for a password or a host key. ``packed``: ssh
        compresses what comes over, which is worth it for much text."""
        there = os.environ.get(REMOTE_COMMAND) or "mltrack"
        store = ["--store", self.path] if self.path else []
        port = [f"-p{self.port}"] if self.port is not None else []
        asks = [*(["-oBatchMode=yes"] if quiet else []), *(["-C"] if packed else [])]
        # One word, because ssh joins words with spaces for a shell over there; there may be several shells.
        line = f"{there} {shlex.join([*store, *words])}"
        return ["ssh", "-t" if terminal else "-T", *_ALIVE, *asks, *port, "--", self.host, line]


def remote_of(where: str | None) -> Remote | None:
    """The other machine that a store's address names; None for a store of this one. Raises NotRemote."""
    if where is None or not where.startswith(SCHEME):
        return None
    try:
        parts = urlsplit(where)
        port = parts.port
    except ValueError as error:
        raise NotRemote(f"'{where}' is no address ({error}). Write ssh://HOST/PATH.") from None
    name = parts.netloc.rpartition("@")[2]
    host = name.rpartition(":")[0] if port is not None else name.removesuffix(":")
    user = parts.netloc.rpartition("@")[0] if "@" in parts.netloc else ""
    host = host.removeprefix("[").removesuffix("]")  # ssh wants an IPv6 address bare
    whole = f"{user}@{host}" if user else host
    if not host or whole.startswith("-") or any(character.isspace() for character in whole):
        raise NotRemote(
            f"'{where}' names no machine. Write ssh://HOST/PATH, with a host that `ssh HOST` knows."
        )
    if ":" in user:
        raise NotRemote("A password does not belong into an address: use a key, or an agent.")
    path = unquote(parts.path)
    # ssh://box/~/store is in the home over there, as with git.
    path = path[1:] if path.startswith("/~") else path
    return Remote(whole, port, "" if path == "/" else path)
