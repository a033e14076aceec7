"""The models screen by keys, on a real worker: promote, be too late, roll back, ask and approve, diff, register from a run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import take_in
from textual.pilot import Pilot

from mltrack.store import open_store
from mltrack.store.acting import acting
from mltrack.store.policy import change_policy, parse_policy
from mltrack.store.records import Actor
from mltrack.tui.app import MltrackApp
from mltrack.tui.screens.models import ModelsScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.screens.text import TextScreen

Command = tuple[tuple[str, ...], dict[str, str]]
Story = Callable[[Pilot[None]], Awaitable[None]]
SIGNATURE = json.dumps([{"type": "double", "name": "a"}])

# Three runs, each with a model; the last one's takes something else.
TRAINING = f"""
import mltrack
for number, kind in enumerate(("double", "double", "long")):
    with mltrack.start_run(run_name=f"train-{{number}}", experiment="churn", system_metrics=False):
        mltrack.log_metric("val/auc", 0.9 + number / 100, step=1)
        signature = {SIGNATURE!r}.replace("double", kind)
        flavors = "flavors: {{python_function: {{loader_module: os}}}}"
        mltrack.log_text(flavors + "\\nsignature: {{inputs: '" + signature + "'}}\\n", "model/MLmodel")
        mltrack.log_text(f"weights {{number}}", "model/weights.bin")
        print(mltrack.active_run().run_id)
"""


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


@pytest.fixture
def root(store_address: str, command: Command) -> str:
    """A store where churn has two versions, the first in Production; the third run's model is not registered."""
    environment = {**command[1], "MLTRACK_STORE": store_address, "MLTRACK_FACTS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    with open_store(store_address) as store:
        take_in(store)
        for run_id in done.stdout.split()[:2]:
            store.registry.register_from(f"runs:/{run_id}/model", "churn")
        store.registry.promote("churn", 1, "Production", "first")
    return store_address


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        await pilot.pause(0.005)
    raise AssertionError("it never came; on the screen:\n" + text(pilot))


def text(pilot: Pilot[None]) -> str:
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def screen(pilot: Pilot[None]) -> ModelsScreen:
    found = [each for each in pilot.app.screen_stack if isinstance(each, ModelsScreen)]
    assert found, text(pilot)
    return found[0]


def known(pilot: Pilot[None], key: str) -> object:
    """What the screen knows of the model under the cursor."""
    detail = screen(pilot).detail
    return detail[key] if detail else "nothing yet"


def stages(root: str) -> dict[int, str]:
    with open_store(root) as store:
        return {version.version: version.stage for version in store.registry.versions("churn")}


async def type_in(pilot: Pilot[None], words: str) -> None:
    """Answer the question at the bottom."""
    await until(pilot, lambda: not isinstance(pilot.app.screen, ModelsScreen | RunsScreen))
    names = {" ": "space", "@": "at", ".": "full_stop", "-": "minus"}
    await pilot.press(*(names.get(letter, letter) for letter in words), "enter")


def play(root: str, story: Story, size: tuple[int, int] = (80, 24)) -> None:
    async def run() -> None:
        app = MltrackApp(root, place=root)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view)
            await pilot.press("2")
            await until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen) and pilot.app.screen.page)
            await story(pilot)

    asyncio.run(run())


def test_promoted_rolled_back_and_undone_by_keys(root: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        shown = text(pilot)
        for words in (
            "churn",
            "PRODUCTION",
            "v2 against v1",
            "same 1 inputs as v1",
            "audit chain ✓",
            "goal val/auc ↑",
        ):
            assert words in shown, shown
        await pilot.press("P")
        await type_in(pilot, "production")
        await type_in(pilot, "passes shadow")
        await type_in(pilot, "produktion")
        await until(pilot, lambda: "Nothing was changed" in text(pilot))
        assert stages(root) == {1: "Production", 2: "None"}
        await pilot.press("P")
        await type_in(pilot, "Production")
        await type_in(pilot, "passes shadow")
        await type_in(pilot, "Production")
        await until(pilot, lambda: known(pilot, "production") == 2)
        assert stages(root) == {1: "Archived", 2: "Production"}
        await until(pilot, lambda: "passes shadow" in text(pilot) and "via tui" in text(pilot))
        await pilot.press("B")
        await type_in(pilot, "latency")
        await type_in(pilot, "Production")
        await until(pilot, lambda: known(pilot, "production") == 1)
        assert stages(root) == {1: "Production", 2: "Archived"}
        await pilot.press("u")
        await until(pilot, lambda: known(pilot, "production") == 2)

    play(root, story)


def test_the_second_promoter_is_told_who_was_first(root: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        with open_store(root) as store:
            store.registry.register("churn", "s3://elsewhere")
        await until(pilot, lambda: known(pilot, "chosen") == 3)
        await pilot.press("l")
        await until(pilot, lambda: known(pilot, "chosen") == 2)
        await pilot.press("P")
        await type_in(pilot, "Production")
        await type_in(pilot, "mine")
        # Meanwhile, while the question stands:
        with open_store(root) as store, acting(Actor("ann", "cli", "kernel")):
            store.registry.promote("churn", 3, "Production", "hers")
        await type_in(pilot, "Production")
        await until(pilot, lambda: "Production of churn is now v3 (by ann" in text(pilot))
        assert stages(root) == {1: "Archived", 2: "None", 3: "Production"}

    play(root, story)


def test_another_persons_request_is_approved(root: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        with open_store(root) as store:
            store.registry.set_policy("churn", change_policy(parse_policy("{}"), "approvals", "1"))
        await until(pilot, lambda: "1 approval, not by the asker" in text(pilot))
        await pilot.press("P")
        await type_in(pilot, "Production")
        await type_in(pilot, "mine")
        await until(pilot, lambda: "Asked for churn v2 to Production" in text(pilot))
        assert stages(root)[2] == "None"
        await until(pilot, lambda: known(pilot, "request") is not None)
        await pilot.press("u")
        await until(pilot, lambda: known(pilot, "request") is None)
        with open_store(root) as store, acting(Actor("ann", "rest", "token")):
            store.registry.request("churn", 2, "Production", "passes shadow")
        await until(pilot, lambda: "1 request waits for you" in text(pilot))
        await pilot.press("P")
        await until(pilot, lambda: "ann asks for churn v2" in text(pilot))
        await type_in(pilot, "y")
        await type_in(pilot, "fine")
        await until(pilot, lambda: known(pilot, "production") == 2)
        assert stages(root) == {1: "Archived", 2: "Production"}

    play(root, story)


def test_a_damaged_way_back_is_shown_and_refused(root: str) -> None:
    with open_store(root) as store:
        store.registry.promote("churn", 2, "Production", "second")
        weights = store.registry.locate("models:/churn/1") / "weights.bin"
    weights.chmod(0o600)
    weights.write_text("weights X")

    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "✗ way back" in text(pilot))
        assert "weights.bin was changed" in text(pilot)
        await pilot.press("B")
        await type_in(pilot, "why")
        await type_in(pilot, "Production")
        await until(pilot, lambda: "cannot be gone back to" in text(pilot))
        assert stages(root) == {1: "Archived", 2: "Production"}

    play(root, story)


def test_pages_of_a_version_and_what_another_takes(root: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
        shown = text(pilot)
        assert "a: double" in shown and "run train-1" in shown and "weights.bin" in shown
        await pilot.press("escape", "c")
        await until(pilot, lambda: isinstance(pilot.app.screen, TextScreen) and "val/auc" in text(pilot))
        await pilot.press("escape", "H")
        await until(
            pilot, lambda: isinstance(pilot.app.screen, TextScreen) and "v1 registered" in text(pilot)
        )
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        # The newest run is the first row: its model takes other things.
        await pilot.press("M")
        await type_in(pilot, "churn")
        await until(pilot, lambda: "Registered churn v3" in text(pilot))
        await pilot.press("2")
        await until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen) and pilot.app.screen.page)
        await until(pilot, lambda: "callers of v1 would fail: a takes long, no longer double" in text(pilot))
        await pilot.press("D")
        await until(pilot, lambda: "Delete churn v3?" in text(pilot))
        await pilot.press("y")
        await until(pilot, lambda: sorted(stages(root)) == [1, 2])

    play(root, story)


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (40, 12), (20, 6)])
def test_any_size_shows_the_model_and_nothing_breaks(root: str, size: tuple[int, int]) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "churn" in text(pilot))
        assert all(len(line) <= size[0] for line in text(pilot).splitlines())
        await pilot.press("j", "k", "h", "l", "l", "g", "G")

    play(root, story, size)


def test_a_store_without_models_says_how_to_begin(tmp_path: Path, small_store: str) -> None:
    async def story(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "No model is registered" in text(pilot))
        assert "registered_model_name" in text(pilot)
        await pilot.press("P", "B", "D", "c", "H", "enter", "e", "t")
        assert isinstance(pilot.app.screen, ModelsScreen)

    play(small_store, story)
