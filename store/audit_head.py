"""Once a day the newest hash of the registry's audit goes to the hook ``audit-head``: kept elsewhere, it proves what was here.

Whoever has the store open does it (the app's worker, the server, a server of a model, ``mltrack fold``), so that it needs no
job of its own; the first program of a user that looks on a day (UTC) tells, the others see that it was told.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mltrack.store.errors import MltrackError

if TYPE_CHECKING:
    from mltrack.store.store import Store

EVENT = "audit-head"
# A day has begun for at most this long before its head is told.
LOOK_SECONDS = 600.0


def tell_head(store: Store) -> list[str]:
    """Tell today's head, unless that was done or nobody wants to know. Returns a sentence for each hook that failed."""
    from mltrack.store.hooks import tell_once

    told = _facts(store)
    return tell_once(EVENT, *told) if told else []


class DailyHead:
    """The same for a process that stays: looked at often, it costs a look at the clock, and hooks run beside it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = 0.0

    def look(self) -> None:
        """Tell today's head when it is time to look again. In the thread of the store's connection."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        try:
            told = _facts(self._store)
        except MltrackError:
            return  # the store is away or locked: who uses it says so
        if told:
            from mltrack.store.hooks import tell_once

            threading.Thread(target=tell_once, args=(EVENT, *told), name=EVENT, daemon=True).start()


def _facts(store: Store) -> tuple[str, dict[str, Any]] | None:
    """What this day's telling is known by, and what is told; None when there is nothing to tell or nobody to tell it to."""
    from mltrack.store.hooks import hooks_for  # not while a process starts

    if not hooks_for(EVENT):
        return None
    _, rows, head = store.registry.audit_head()
    if not rows:
        return None
    day = datetime.now(UTC).date().isoformat()
    where = store.database.where
    return f"{where} {day}", {"store": where, "day": day, "rows": rows, "head": head}
