"""Pictures of marked runs side by side: which series there are, what stands at a step, in the app and at the prompt."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from mltrack.store import open_store
from mltrack.store.client.journal import run_folder
from mltrack.store.demo.files import png
from mltrack.store.errors import BadInput
from mltrack.store.records import Run
from mltrack.tui.app import MltrackApp
from mltrack.tui.picture_series import pictures_of, series_of, step_of
from mltrack.tui.screens.compare import CompareScreen
from mltrack.tui.screens.pictures import PicturesScreen
from mltrack.tui.screens.runs import RunsScreen

Command = tuple[tuple[str, ...], dict[str, str]]
Mltrack = Callable[..., "subprocess.CompletedProcess[str]"]
NAMES = ("sage-owl-41", "calm-elk-12", "dim-ram-23")


@pytest.fixture(autouse=True)
def _worker_finds_the_package(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", command[1]["PYTHONPATH"])
    yield


def test_series_go_by_folders_of_numbers_and_by_the_last_number_of_a_name() -> None:
    found = series_of(
        [
            *("images/val_samples/000000010.png", "images/val_samples/000000200.png"),
            *("plots/run2_epoch_3.PNG", "plots/run2_epoch_12.PNG"),
            *("figure.jpeg", "7.png", "model.pkl", "notes.txt"),
        ]
    )
    assert found == {
        "images/val_samples": {
            10: "images/val_samples/000000010.png",
            200: "images/val_samples/000000200.png",
        },
        "plots/run2_epoch_*.PNG": {3: "plots/run2_epoch_3.PNG", 12: "plots/run2_epoch_12.PNG"},
        "figure.jpeg": {0: "figure.jpeg"},
        "*.png": {7: "7.png"},
    }


@pytest.fixture
def runs(tmp_path: Path, small_store: str) -> list[Run]:
    """Three runs: pictures at 0 and 10, at 10 only with one that is none, and none at all."""
    red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    kept = {
        (0, "a/0.png"): png(red),
        (0, "a/10.png"): png(blue),
        (1, "a/10.png"): png(red),
        (1, "b/5.png"): b"no picture, <\x1b[31m>",
    }
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(red))
    with open_store(small_store) as opened:
        ids = opened.search("", sort=("name",)).run_ids
        folders = [run_folder(opened.root, run_id) / "artifacts" / "images" for run_id in ids]
        for (place, name), content in kept.items():
            path = folders[place] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folders[1] / "a" / "20.png").symlink_to(outside)
        return opened.runs(ids)


def words(lines: list[list[list[str]]]) -> str:
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def test_each_run_shows_its_newest_picture_of_the_step(runs: list[Run]) -> None:
    pictures = pictures_of(runs)
    assert list(pictures) == ["images/a", "images/b"]  # what most runs have is first
    newest = step_of(runs, pictures, "", None, 90, 12)
    assert (newest.name, newest.step, newest.steps) == (
        "images/a",
        10,
        [0, 10],
    )  # a link is no picture of the run
    first = step_of(runs, pictures, "images/a", 3, 90, 12)
    assert first.step == 0
    said = words(first.lines)
    assert "none yet" in said and "no such pictures" in said
    red, blue = "fg:#ff0000 bg:#ff0000", "fg:#0000ff bg:#0000ff"
    assert {style for line in first.lines for text, style in line if text == "▀"} == {red}
    assert {style for line in newest.lines for text, style in line if text == "▀"} == {red, blue}
    assert "this is no picture" in words(step_of(runs, pictures, "images/b", None, 90, 12).lines)
    # One under the other where there is no room beside each other.
    assert words(step_of(runs, pictures, "", None, 30, 40).lines).count("run-") == 3
    with pytest.raises(BadInput, match="no pictures 'c'; there are images/a, images/b"):
        step_of(runs, pictures, "c", None, 90, 12)
    with pytest.raises(BadInput, match=r"mltrack\.log_image"):
        step_of(runs[2:], pictures_of(runs[2:]), "", None, 90, 12)


def test_at_the_prompt(demo_store: str, mltrack: Mltrack) -> None:
    listed = mltrack("--store", demo_store, "compare", *NAMES, "--images", "")
    assert listed.stdout.startswith("images/predictions   3 of 3 runs   steps 4,000, 8,000")
    found = json.loads(
        mltrack("--store", demo_store, "compare", *NAMES, "--images", "predictions", "--json").stdout
    )
    assert [each["name"] for each in found] == ["images/predictions"]
    assert found[0]["runs"][1]["steps"]["4000"] == "images/predictions/000004000.png"
    refused = mltrack("--store", demo_store, "compare", *NAMES, "--images", "predictions")
    assert refused.returncode == 2 and "--json names their files" in refused.stderr
    colours = {"FORCE_COLOR": "1", "COLUMNS": "90"}
    drawn = mltrack(
        "--store", demo_store, "compare", *NAMES, "--images", "predictions", "--step", "9000", environ=colours
    ).stdout
    assert "step 8,000" in drawn and "a sage-owl-41" in drawn
    assert "\x1b[38;2;" in drawn


def test_the_app_turns_steps_and_series(demo_store: str) -> None:
    async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
        for _ in range(6000):
            if condition():
                return
            await pilot.pause(0.005)
        raise AssertionError("it never came")

    async def story() -> None:
        with open_store(demo_store, readonly=True) as store:
            ids = [store.resolve(name) for name in NAMES]
        app = MltrackApp(demo_store, place=demo_store)
        async with app.run_test(size=(100, 30)) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view)
            app.push_screen(CompareScreen(ids))
            await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen) and pilot.app.screen.page)
            await pilot.press("v")
            await until(pilot, lambda: isinstance(pilot.app.screen, PicturesScreen))
            screen = pilot.app.screen
            assert isinstance(screen, PicturesScreen)

            def at(name: str, step: int) -> bool:
                return screen.page is not None and (screen.page["name"], screen.page["step"]) == (name, step)

            await until(pilot, lambda: at("images/predictions", 40_000))
            await pilot.press("h")
            await until(pilot, lambda: at("images/predictions", 36_000))
            await pilot.press("0")
            await until(pilot, lambda: at("images/predictions", 4_000))
            await pilot.press("l")
            await until(pilot, lambda: at("images/predictions", 8_000))
            await pilot.press("tab")
            await until(pilot, lambda: at("samples/train_batch.png", 0))
            await pilot.press("shift+tab")
            await until(
                pilot, lambda: screen.page is not None and screen.page["name"] == "images/predictions"
            )
            await pilot.press("dollar_sign")
            await until(pilot, lambda: at("images/predictions", 40_000))
            await pilot.press("q")
            await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))

    asyncio.run(story())
