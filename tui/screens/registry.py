"""The screens that a digit opens. A new one is a line here and a line `screen_NAME` in the table of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltrack.tui.screens.base import BaseScreen


def _models() -> BaseScreen:
    from mltrack.tui.screens.models import ModelsScreen

    return ModelsScreen()


def _projects() -> BaseScreen:
    from mltrack.tui.screens.projects import ProjectsScreen

    return ProjectsScreen()


def _jobs() -> BaseScreen:
    from mltrack.tui.screens.jobs import JobsScreen

    return JobsScreen()


def _system() -> BaseScreen:
    from mltrack.tui.screens.system import SystemScreen

    return SystemScreen()


# The table of runs is the root of the app: every other screen lies over it, and `1` goes back to it.
ROOT = "runs"
SCREENS: dict[str, Callable[[], BaseScreen]] = {
    "models": _models,
    "projects": _projects,
    "jobs": _jobs,
    "system": _system,
}
