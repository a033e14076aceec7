"""Following data of other tools, for the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltrack.store.errors import BadInput
from mltrack.store.sources import absolute, identify
from mltrack.store.sources.discovery import discover
from mltrack.store.store import Store


def follow(store: Store, paths: list[str]) -> dict[str, Any]:
    """Follow what lies at paths, or below them; what is followed already stays so."""
    known = {state.path for state in store.sources() if state.followed}
    followed: list[str] = []
    troubles: list[str] = []
    for path in paths:
        try:
            places = [identify(path)[0]]
        except BadInput as error:
            places = [place for place, _ in discover(absolute(path), environ={}).found]
            if not places:
                troubles.append(error.message)
        for place in places:
            if place not in known:
                store.add_source(place)
            followed.append(place)
    what = followed[0] if len(followed) == 1 else f"{len(followed)} sources"
    return {"sentence": f"Follow {what}" if followed else "", "troubles": troubles}


CALLS: tuple[Callable[..., Any], ...] = (follow,)
