"""Which keys change something that others see, and the role that a server with users wants for it (docs/deployment.md)."""

from __future__ import annotations

NEEDED: dict[tuple[str, str], tuple[str, str]] = {
    ("runs", "tag"): ("editor", "experiment"),
    ("runs", "rename"): ("editor", "experiment"),
    ("runs", "note"): ("editor", "experiment"),
    ("run", "note_here"): ("editor", "experiment"),
    ("run", "tag_here"): ("editor", "experiment"),
    ("run", "rename_here"): ("editor", "experiment"),
    ("run", "trash_here"): ("editor", "experiment"),
    ("run", "register_here"): ("editor", "model"),
    ("run", "pin_for_all_here"): ("editor", "experiment"),
    ("runs", "trash"): ("editor", "experiment"),
    ("runs", "register"): ("editor", "model"),
    ("runs", "pin_for_all"): ("editor", "experiment"),
    ("models", "describe"): ("editor", "model"),
    ("models", "promote"): ("manager", "model"),
    ("models", "rollback"): ("manager", "model"),
    ("models", "delete"): ("manager", "model"),
}
"""By focus and the name of the key (keys.py): the role, and on what kind of thing. What only one person sees needs no role."""
