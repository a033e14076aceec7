"""Which keys change something that others see, and the role that a server with users wants for it (docs/deployment.md)."""

from __future__ import annotations

NEEDED: dict[tuple[str, str], str] = {
    ("runs", "tag"): "editor",
    ("runs", "rename"): "editor",
    ("runs", "note"): "editor",
    ("run", "note_here"): "editor",
    ("run", "tag_here"): "editor",
    ("run", "rename_here"): "editor",
    ("run", "trash_here"): "editor",
    ("run", "register_here"): "editor",
    ("run", "pin_for_all_here"): "editor",
    ("runs", "trash"): "editor",
    ("runs", "register"): "editor",
    ("runs", "pin_for_all"): "editor",
    ("models", "describe"): "editor",
    ("models", "promote"): "manager",
    ("models", "rollback"): "manager",
    ("models", "delete"): "manager",
}
"""By focus and the name of the key (keys.py). What only one person sees needs no role."""
