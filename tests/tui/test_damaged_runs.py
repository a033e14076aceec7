"""No filter hides a damaged run: what could be read of it may not be what the filter asks about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.store.test_source_damage import make_run, old
from tests.tui.test_app_runs import Command, Pilot, play, screen, table, until

from mltrack.store import open_store
from mltrack.store.store import Store
from mltrack.tui.worker_calls import runs
from mltrack.tui.worker_calls.runs import RunViews

ROOT = Path(__file__).parents[2]
ID = "{}" + "ab" * 15 + "c"


@pytest.fixture
def store(tmp_path: Path, store_address: str) -> Store:
    source = tmp_path / "mlruns"
    for number in range(4):
        folder = make_run(source, ID.format(number), f"run-{number}")
        (folder / "params").mkdir(exist_ok=True)
        (folder / "params" / "lr").write_text(f"0.{number}")
    for number in (2, 3):
        (source / "0" / ID.format(number) / "meta.yaml").write_text("- no\n- mapping\n")
    old(source)  # what was written this moment may become whole yet
    opened = open_store(store_address)
    opened.add_source(str(source))
    opened.refresh(None, everything=True)
    return opened


def names(store: Store, ids: tuple[str, ...]) -> list[str]:
    return [run.run_id[0] for run in store.runs(ids)]


def test_the_table_shows_them_behind_what_matches(store: Store) -> None:
    views = RunViews()
    whole = views.view(store)
    assert (sorted(names(store, whole["ids"])), whole["damaged"]) == (["0", "1", "2", "3"], 0)
    found = views.view(store, filter="params.lr = 0.1", first=10)
    shown = names(store, found["ids"])
    assert (shown[0], sorted(shown[1:])) == ("1", ["2", "3"])
    assert (found["found"], found["damaged"], sorted(found["context"])) == (
        1,
        2,
        [ID.format(2), ID.format(3)],
    )
    assert set(found["rows"]) == set(found["ids"])
    # They can be gone to, and nothing that is done to all that match is done to them.
    problem = views.next_problem(store, ID.format(1), back=False)["run_id"]
    assert problem is not None and problem[0] in "23"
    nothing = views.view(store, filter="params.lr = 7")
    assert (nothing["found"], nothing["damaged"], len(nothing["ids"])) == (0, 2, 2)
    itself = views.view(store, filter="damage is not null")
    assert (itself["found"], itself["damaged"]) == (2, 0)
    elsewhere = views.view(store, filter="params.lr = 0.1", experiment="another")
    assert elsewhere["damaged"] == 0 and not np.any([elsewhere["found"]])


def test_all_of_them_are_counted_and_none_that_matches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_MOST_DAMAGED", 1)
    cut = RunViews().view(store, filter="params.lr = 0.1")
    assert (cut["damaged"], len(cut["ids"])) == (2, 2)
    with store.database.transaction():
        store.database.execute(
            "UPDATE run SET parent_id = ?, seq = ? WHERE run_id = ?",
            (ID.format(1), store.database.next_seq(), ID.format(3)),
        )
    closed = RunViews().view(store, filter="not params.lr = 0.2", toggled=[ID.format(1)])
    assert (names(store, closed["ids"])[-1], closed["damaged"]) == ("2", 1)
    assert "3" not in names(store, closed["ids"])


def test_the_command_answers_exactly_and_says_whom_it_leaves_out(store: Store) -> None:
    root = store.address
    store.close()

    def ls(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mltrack.tui.cli", "--store", root, "ls", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    said = ls("params.lr = 0.1", "--json")
    assert [run["run_id"][0] for run in json.loads(said.stdout)] == ["1"]
    assert "2 damaged runs are not among them" in said.stderr and "'damage is not null'" in said.stderr
    assert sorted(line[0] for line in ls("damage is not null", "--ids").stdout.split()) == ["2", "3"]
    for arguments in (("--ids",), ("damage is not null", "--ids"), ("status = failed", "--ids")):
        assert "damaged" not in ls(*arguments).stderr
    # In the trash are other runs than in sight.
    with open_store(root) as opened:
        opened.trash([ID.format(0)])
    assert "damaged" not in ls("--trash", "params.lr = 0.0", "--ids").stderr
    with open_store(root) as opened:
        opened.trash([ID.format(2)])
    said = ls("--trash", "params.lr = 0.0", "--ids")
    assert "1 damaged run is not among them" in said.stderr
    assert "mltrack ls --trash 'damage is not null'" in said.stderr


def test_the_cursor_belongs_to_what_was_asked_for(
    store: Store, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    root = store.address
    store.close()

    async def story(pilot: Pilot[None]) -> None:
        async def ask(filter: str, found: int) -> None:
            await pilot.press("slash", "ctrl+u", *filter, "enter")
            await until(pilot, lambda: screen(pilot).filter_text == filter and table(pilot).has_focus)
            # What was typed on the way is asked, too: `params.lr = 0` finds a run.
            await until(pilot, lambda: screen(pilot)._asked["filter"] == filter and not screen(pilot)._keep)
            await until(pilot, lambda: screen(pilot).view["found"] == found)

        await until(pilot, lambda: table(pilot).go_to(ID.format(2)))
        # Where the cursor was stays on the screen, as every damaged run does; but it is none of those that were asked for.
        await ask("params.lr = 0.1", 1)
        assert table(pilot).context == {ID.format(2), ID.format(3)}
        assert table(pilot).current == ID.format(1)
        # Who goes there meanwhile is left there, whatever else happens to the store ...
        assert table(pilot).go_to(ID.format(3))
        with open_store(root) as other:
            other.set_tags([ID.format(1)], {"seen": "yes"})
        before = screen(pilot).view
        screen(pilot).reload()
        await until(pilot, lambda: screen(pilot).view is not before)
        assert table(pilot).current == ID.format(3)
        # ... until the next question; and where the answer is they, or nobody, the cursor stays.
        await ask("params.lr = 0.0", 1)
        assert table(pilot).current == ID.format(0)
        assert table(pilot).go_to(ID.format(3))
        await ask("params.lr = 7", 0)
        assert table(pilot).current == ID.format(3)
        await ask("damage is not null", 2)
        assert table(pilot).current == ID.format(3) and not table(pilot).context

    play(root, story)
