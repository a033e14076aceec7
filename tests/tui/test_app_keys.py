"""The one table of keys: nothing in it contradicts itself, and everything in it does something."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from mltrack.tui import keys
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Question
from mltrack.tui.screens.run import RunScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.widgets.charts import Charts
from mltrack.tui.widgets.lines import LogPage, TextPage

HOMES = {
    "everywhere": BaseScreen,
    "runs": RunsScreen,
    "run": RunScreen,
    "chart": Charts,
    "log": LogPage,
    "text": TextPage,
    "dialog": Question,
}
# Focuses whose keys act at the same time; dialogs hide everything else.
TOGETHER: tuple[tuple[keys.Focus, ...], ...] = (
    ("everywhere", "runs"),
    ("everywhere", "run", "chart"),
    ("everywhere", "run", "log"),
    ("everywhere", "run", "text"),
    ("dialog",),
)


@pytest.mark.parametrize("focuses", TOGETHER, ids="+".join)
def test_no_key_has_two_meanings(focuses: tuple[keys.Focus, ...]) -> None:
    pressed = list(itertools.chain.from_iterable(key.keys for key in keys.keys_of(*focuses)))
    assert len(pressed) == len(set(pressed))


def test_every_focus_is_checked_and_has_a_title() -> None:
    focuses = set(get_args(keys.Focus))
    assert set(itertools.chain.from_iterable(TOGETHER)) == focuses == set(keys.FOCUS_TITLES) == set(HOMES)


def test_every_key_has_its_action() -> None:
    missing = [key.id for key in keys.KEYS if not hasattr(HOMES[key.focus], f"action_{key.id}")]
    assert missing == []


def test_ids_are_unique_and_nothing_needs_modifiers_only() -> None:
    assert len({key.id for key in keys.KEYS}) == len(keys.KEYS)
    # ctrl, alt and F-keys are taken by screen, tmux and editors: each has a plain twin. A redraw can wait.
    plain = [
        key.id
        for key in keys.KEYS
        if all("+" in name or name == "f1" for name in key.keys) and key.id != "redraw"
    ]
    assert plain == ["previous_tab", "leap_left", "leap_right"] or all(
        any(name in key.keys for name in ("pageup", "pagedown", "shift+tab"))
        for key in keys.KEYS
        if key.id in plain
    )


def test_the_footer_speaks_of_keys_that_act() -> None:
    for focuses in TOGETHER:
        shown = {key.shown.split()[0] for key in keys.keys_of(*focuses)}
        assert {key for key, _ in keys.footer(*focuses)} <= shown
