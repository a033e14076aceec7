"""Who asks, as the header shows it, and why a role is not enough."""

from __future__ import annotations

from typing import Any

from mltrack.store.identity import ROLES
from mltrack.store.store import Store

# A server in the same building has answered by then; a slower one is shown with the next change.
_SECONDS = 0.3


def who(store: Store, again: bool = False) -> dict[str, Any]:
    """{"name", "shown" with the role, "guarded", "refusals": {kind of thing: {role: why nothing that needs it can be done}}}.
    ``again``: as the server says now; a role may have been given meanwhile."""
    me = store.identity(_SECONDS, again)
    refusals = {
        kind: {role: why for role in ROLES if (why := me.refusal(role, kind))}
        for kind in ("experiment", "model")
    }
    return {"name": me.name, "shown": me.shown, "guarded": me.guarded, "refusals": refusals}


CALLS = (who,)
