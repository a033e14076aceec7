"""The one table of keys: nothing in it contradicts itself, and everything in it does something."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from mltrack.tui import keys
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.column_chooser import ColumnChooser
from mltrack.tui.screens.column_menu import ColumnMenu
from mltrack.tui.screens.compare import CompareScreen
from mltrack.tui.screens.dialogs import Question
from mltrack.tui.screens.groups import GroupsScreen
from mltrack.tui.screens.help import HelpScreen
from mltrack.tui.screens.jobs import JobsScreen
from mltrack.tui.screens.launch import LaunchScreen
from mltrack.tui.screens.models import ModelsScreen
from mltrack.tui.screens.pictures import PicturesScreen
from mltrack.tui.screens.plot import PlotScreen
from mltrack.tui.screens.projects import ProjectsScreen
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.widgets.charts import Charts
from mltrack.tui.widgets.compare_table import CompareTable
from mltrack.tui.widgets.experiment_pane import ExperimentPane
from mltrack.tui.widgets.file_tree import FileTree
from mltrack.tui.widgets.filter_input import FilterInput
from mltrack.tui.widgets.lines import TextPage
from mltrack.tui.widgets.log_view import LogView
from mltrack.tui.widgets.overlay import OverlayChart

HOMES = {
    "everywhere": BaseScreen,
    "runs": RunsScreen,
    "experiments": ExperimentPane,
    "filter": FilterInput,
    "menu": ColumnMenu,
    "chooser": ColumnChooser,
    "run": RunScreen,
    "chart": Charts,
    "log": LogView,
    "files": FileTree,
    "text": TextPage,
    "compare": CompareScreen,
    "compare_rows": CompareTable,
    "overlay": OverlayChart,
    "models": ModelsScreen,
    "projects": ProjectsScreen,
    "launch": LaunchScreen,
    "jobs": JobsScreen,
    "groups": GroupsScreen,
    "plot": PlotScreen,
    "pictures": PicturesScreen,
    "actions": HelpScreen,
    "dialog": Question,
}


@pytest.mark.parametrize("focuses", keys.TOGETHER, ids="+".join)
def test_no_key_has_two_meanings(focuses: tuple[keys.Focus, ...]) -> None:
    pressed = list(itertools.chain.from_iterable(key.keys for key in keys.keys_of(*focuses)))
    assert len(pressed) == len(set(pressed))


def test_every_focus_is_checked_and_has_a_title() -> None:
    focuses = set(get_args(keys.Focus))
    assert (
        set(itertools.chain.from_iterable(keys.TOGETHER)) == focuses == set(keys.FOCUS_TITLES) == set(HOMES)
    )


def test_every_key_has_its_action() -> None:
    missing = [
        key.id for key in keys.KEYS if not hasattr(HOMES[key.focus], f"action_{key.action.partition('(')[0]}")
    ]
    assert missing == []


def test_ids_are_unique_and_nothing_needs_modifiers_only() -> None:
    assert len({key.id for key in keys.KEYS}) == len(keys.KEYS)
    # ctrl, alt and F-keys are taken by screen, tmux and editors: each has a plain twin. A redraw can wait, ctrl+z is the
    # terminal's own.
    plain = [
        key.id
        for key in keys.KEYS
        if all("+" in name or name == "f1" for name in key.keys) and key.id not in ("redraw", "suspend")
    ]
    assert all(
        any(name in key.keys for name in ("pageup", "pagedown", "shift+tab"))
        for key in keys.KEYS
        if key.id in plain
    )


def test_the_footer_speaks_of_keys_that_act() -> None:
    for focuses in keys.TOGETHER:
        shown = {key.shown.split()[0] for key in keys.keys_of(*focuses)}
        assert {key for _, _, key, _ in keys.footer(*focuses)} <= shown
