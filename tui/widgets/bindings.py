"""From the table of keys to Textual's bindings."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from mltrack.tui.keys import Focus, keys_of


def bindings_of(*focuses: Focus) -> list[BindingType]:
    """A binding for each key of these focuses; the action has the key's id as its name."""
    return [
        Binding(",".join(key.keys), key.id, key.label, id=f"{key.focus}.{key.id}", show=False)
        for key in keys_of(*focuses)
    ]
