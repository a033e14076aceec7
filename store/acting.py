"""Who decides now: this user, or a server's client in whose name it acts, and through what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mltrack.store.client import host
from mltrack.store.database import Database
from mltrack.store.records import Actor

_channel = "python"
_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


def use_channel(channel: str) -> None:
    """Say through what this process decides: tui, cli, rest; python when nobody says."""
    global _channel
    _channel = channel


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Decide in the name of somebody else who was made known to this process: a server's client."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def acting_for() -> Actor | None:
    """Who else this process acts for now, when it is known for certain; None for oneself and for who only says a name."""
    found = _acting.get()
    return found if found is not None and found.identity != "claimed" else None


def actor(database: Database) -> Actor:
    """Who decides now. The kernel vouches for the writer of a file, not for what a client tells PostgreSQL."""
    return _acting.get() or Actor(host.user(), _channel, "kernel" if database.kind == "sqlite" else "claimed")
