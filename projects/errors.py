"""What goes wrong with projects: sentences for the person at the keyboard."""

from __future__ import annotations

from mltrack.store.errors import BadInput, MltrackError


class ProjectError(BadInput):
    """A project cannot be read, fetched or run as it is written. ``path`` and ``line`` (from 1) say where."""

    def __init__(self, message: str, path: str = "", line: int | None = None) -> None:
        place = f"{path}{f' line {line}' if line is not None else ''}: " if path else ""
        super().__init__(place + message)
        self.path = path
        self.line = line


class LaunchError(MltrackError):
    """A job could not be built, started, stopped or found."""
