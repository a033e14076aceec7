"""What the table of runs looked like when the app was left, per store: it is so again after a dropped connection.

A file in this user's state folder. Standard library only: the entry reads it before anything else is loaded. Whatever is
wrong with the file, the app opens with its usual view.
"""

from __future__ import annotations

import json
import os
import zlib
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

_LARGEST = 4 << 20


@dataclass
class SavedView:
    """The view of one store. ``page`` is what the screen showed, as text, for a window of ``size`` (columns, lines)."""

    filter: str = ""
    experiment: str | None = None
    sort: list[list[Any]] = field(default_factory=list)
    aggregate: str = ""
    flat: bool = False
    toggled: list[str] = field(default_factory=list)
    """Families that are open."""
    closed: list[str] = field(default_factory=list)
    """Families that are closed under the filter, which opens all."""
    pins: list[str] = field(default_factory=list)
    """Runs that this person alone has on top."""
    layouts: dict[str, dict[str, Any]] = field(default_factory=dict)
    column: str | None = None
    run_id: str | None = None
    pane: bool = True
    folded: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    page: list[str] = field(default_factory=list)

    @property
    def families(self) -> list[str]:
        """Those that are not as they would be now: open without a filter, closed under one."""
        return self.closed if self.filter.strip() else self.toggled

    @families.setter
    def families(self, run_ids: list[str]) -> None:
        if self.filter.strip():
            self.closed = run_ids
        else:
            self.toggled = run_ids

    def question(self) -> dict[str, Any]:
        """What the worker is asked so that the table is like this."""
        return {
            "filter": self.filter,
            "experiment": self.experiment,
            "sort": [list(key) for key in self.sort],
            "aggregate": self.aggregate,
            "flat": self.flat,
            "toggled": list(self.families),
            "pins": list(self.pins),
            "layouts": deepcopy({scope: layout for scope, layout in self.layouts.items() if layout}),
        }


def view_file(url: str) -> Path:
    """Where the view of a store is kept."""
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(base if os.path.isabs(base) else os.path.expanduser("~/.local/state")) / "mltrack" / "views"
    # Not hashlib: it loads OpenSSL, which takes longer than all else that is done before something is on the screen.
    name = os.fsencode(url)
    return folder / f"{zlib.crc32(name):08x}{zlib.adler32(name):08x}.json"


def load_view(path: Path) -> SavedView:
    """The view that was saved; the usual one where there is none, or none that can be read."""
    try:
        if path.stat().st_size > _LARGEST:
            return SavedView()
        saved = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return SavedView()
    usual = asdict(SavedView())
    if not isinstance(saved, dict):
        return SavedView()
    fitting = {
        name: saved[name]
        for name, value in usual.items()
        if name in saved and _fits(saved[name], value, optional=name in ("experiment", "column", "run_id"))
    }
    view = SavedView(**fitting)
    view.sort = [key for key in view.sort if _is_sort(key)]
    view.toggled = [run_id for run_id in view.toggled if isinstance(run_id, str)]
    view.closed = [run_id for run_id in view.closed if isinstance(run_id, str)]
    view.pins = [run_id for run_id in view.pins if isinstance(run_id, str)]
    view.page = [line for line in view.page if isinstance(line, str)]
    view.layouts = {name: layout for name, layout in view.layouts.items() if _is_layout(layout)}
    return view


def save_view(path: Path, view: SavedView) -> None:
    """Keep a view, whole or not at all. OSError where the folder cannot be written."""
    save_text(path, text_of(view))


def text_of(view: SavedView) -> str:
    """A view as its file has it."""
    view = replace(view, layouts={scope: layout for scope, layout in view.layouts.items() if layout})
    return json.dumps(asdict(view), ensure_ascii=True, allow_nan=False)


def save_text(path: Path, text: str) -> None:
    """The same from what ``text_of`` gave."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    other = path.with_suffix(f".{os.getpid()}")
    handle = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(other, path)
    except OSError:
        other.unlink(missing_ok=True)
        raise


def _fits(value: object, usual: object, optional: bool) -> bool:
    return isinstance(value, str) or value is None if optional else type(value) is type(usual)


def _is_sort(key: object) -> bool:
    return isinstance(key, list) and len(key) == 2 and isinstance(key[0], str) and isinstance(key[1], bool)


_LAYOUT_TYPES: dict[str, tuple[type, ...]] = {
    "goal": (str, type(None)),
    "directions": (dict,),
    "aggregates": (dict,),
    "hidden": (list,),
    "added": (list,),
    "order": (list,),
    "widths": (dict,),
    "frozen": (str, type(None)),
}


def _is_layout(layout: object) -> bool:
    return isinstance(layout, dict) and all(
        name in _LAYOUT_TYPES and isinstance(value, _LAYOUT_TYPES[name]) and _is_plain(name, value)
        for name, value in layout.items()
    )


def _is_plain(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    if isinstance(value, dict):
        wanted = int if name == "widths" else str
        return all(isinstance(each, wanted) for each in value.values())
    return True
