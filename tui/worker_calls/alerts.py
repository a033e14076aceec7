"""What the app asks after every change: which runs have news that a person wants to be told."""

from __future__ import annotations

import threading
import time
from typing import Any

from mltrack.store.store import Store
from mltrack.tui.cli.alerts import Watch, tell_hooks, told

_watches: dict[str, Watch] = {}


def alerts(store: Store, since_ms: int) -> dict[str, Any]:
    """{"news": alerts since the call before, "seconds": what looking took}. The first call finds those since ``since_ms``."""
    began = time.monotonic()
    watch = _watches.setdefault(str(store.root), Watch(store, since_ms))
    found = [(told(run, condition), condition.identity) for run, condition in watch.look()]
    for facts, identity in found:
        # A hook may take its time; the worker has none.
        threading.Thread(target=tell_hooks, args=(facts, identity), name="alert", daemon=True).start()
    return {"news": [facts for facts, _ in found], "seconds": time.monotonic() - began}


CALLS = (alerts,)
