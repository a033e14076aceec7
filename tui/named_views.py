"""Views of the table of runs with names: a person's own, per store, in the user's data folder. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from mltrack.store.client.location import user_data_folder
from mltrack.tui.saved_view import SavedView, load_view, save_view, view_file

_LONGEST = 60


def views_folder(url: str) -> Path:
    """Where the named views of a store are."""
    return user_data_folder() / "views" / view_file(url).stem


def view_path(url: str, name: str) -> Path:
    """The file of a view. Raises ValueError for a name that cannot be one."""
    name = name.strip()
    if not name or len(name) > _LONGEST:
        raise ValueError(f"A view's name has 1 to {_LONGEST} characters.")
    # Quoted whole, dots at the start too: a name is never a path.
    return views_folder(url) / f"{quote(name, safe='').replace('.', '%2E')}.json"


def list_views(url: str) -> list[str]:
    """The names, in the order of the alphabet."""
    try:
        files = os.listdir(views_folder(url))
    except OSError:
        return []
    return sorted(unquote(name.removesuffix(".json")) for name in files if name.endswith(".json"))


def save_named(url: str, name: str, view: SavedView) -> None:
    """Keep a view under a name, in place of one that had it. Raises ValueError, OSError."""
    view = SavedView(
        filter=view.filter,
        experiment=view.experiment,
        sort=view.sort,
        aggregate=view.aggregate,
        flat=view.flat,
        layouts=view.layouts,
    )
    save_view(view_path(url, name), view)


def load_named(url: str, name: str) -> SavedView | None:
    """A view by its name; None when there is none."""
    path = view_path(url, name)
    return load_view(path) if path.is_file() else None


def remove_named(url: str, name: str) -> bool:
    """Forget a view; whether there was one."""
    try:
        view_path(url, name).unlink()
    except FileNotFoundError:
        return False
    return True
