"""From the table of keys to Textual's bindings."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from mltrack.tui.keys import KEYS, Focus


def bindings_of(*focuses: Focus) -> list[BindingType]:
    """A binding for each key of these focuses."""
    return [
        Binding(",".join(key.keys), key.action, key.label, id=key.binding, show=False)
        for key in KEYS
        if key.focus in focuses
    ]
