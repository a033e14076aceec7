"""What the screen asks its worker for: answers that are ready to be drawn. Runs in the worker's process.

One file per screen. Every function in a file's CALLS is a call of the worker: it gets the store and plain values, and
returns what JSON can carry. Texts are as the store has them; the screen cleans them where they become cells.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mltrack.store.worker import serve as serve_store

# In the order in which a person comes to need them.
FILES = (
    "runs",
    "run_preview",
    "run_filters",
    "run_actions",
    "run",
    "curves",
    "logs",
    "overview",
    "files",
    "code",
    "compare",
    "models",
    "models_pages",
    "sharing",
    "system",
    "sources",
    "launch",
    "alerts",
    "report",
    "groups",
    "plots",
    "tidy",
    "compare_files",
    "pictures",
    "who",
)


class Calls(Mapping[str, Callable[..., Any]]):
    """The calls of all files by name. A file is imported when a call is not in those before it: the first rows of the
    table must not wait for what other screens need."""

    def __init__(self) -> None:
        self._loaded: dict[str, Callable[..., Any]] = {}
        self._waiting = list(FILES)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        while name not in self._loaded and self._waiting:
            file = importlib.import_module(f"{__name__}.{self._waiting.pop(0)}")
            self._loaded.update({call.__name__: call for call in file.CALLS})
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        for file in FILES:
            yield from (call.__name__ for call in importlib.import_module(f"{__name__}.{file}").CALLS)

    def __len__(self) -> int:
        return sum(1 for _ in self)


CALLS = Calls()


def serve(where: str | None, readonly: bool, unset: Sequence[str] = ()) -> None:
    """Be the worker of a screen, on standard input and output. ``unset``: variables of the environment that are only for
    this process and not for what it starts."""
    for name in unset:
        os.environ.pop(name, None)
    # Answers are made of very many small objects without cycles: looking for garbage among them costs more than they do.
    gc.set_threshold(200_000, 20, 50)
    gc.enable()
    serve_store(where, readonly, CALLS)
