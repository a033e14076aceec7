"""What happens to a run of `mlruns/` long after it ended is seen: the newest at once, all others in turn, within a known number
of looks."""

from __future__ import annotations

import os
from pathlib import Path

from tests.store.test_source_damage import make_run, old

from mltrack.store import open_store
from mltrack.store.sources import mlruns
from mltrack.store.sources.base import Found
from mltrack.store.sources.mlruns import MlrunsReader

RUNS = 450


def test_a_point_or_tag_of_a_long_ended_run_is_found_in_turn(tmp_path: Path) -> None:
    root = tmp_path / "mlruns"
    folders = [make_run(root, f"{number:032x}", f"run-{number}") for number in range(1, RUNS + 1)]
    old(root)
    for number, folder in enumerate(folders):
        os.utime(folder, (1_700_000_000 - number, 1_700_000_000 - number))  # the first is the newest
    known: dict[str, str] = {}

    def look(reader: MlrunsReader) -> set[str]:
        found = [each for each in reader.scan(known) if isinstance(each, Found) and each.run]
        known.update((each.place, each.stamp) for each in found)
        return {each.place for each in found}

    def change(folder: Path) -> None:
        """As MLflow appends a point and sets a tag anew: no folder changes by it."""
        with (folder / "metrics" / "loss").open("a") as metric:
            metric.write("1700000009 0.125 9\n")
        (folder / "tags" / "mlflow.runName").write_text("another")
        os.utime(folder, (folder.stat().st_atime, folder.stat().st_mtime))

    reader = MlrunsReader(root)
    assert len(look(reader)) == RUNS and look(reader) == set()
    places = {folder: f"0/{folder.name}" for folder in folders}
    for folder in (folders[0], folders[99]):
        change(folder)
    assert look(reader) == {places[folders[0]], places[folders[99]]}  # the newest hundred: with the next look
    chosen = [folders[100], folders[270], folders[-1]]
    for folder in chosen:
        change(folder)
    seen: set[str] = set()
    for _ in range(-(-(RUNS - mlruns._NEWEST) // mlruns._SWEPT)):
        seen |= look(reader)
    assert seen == {places[folder] for folder in chosen}
    assert look(reader) == set()


def test_a_run_that_changed_is_found_once_in_a_look(tmp_path: Path) -> None:
    root = tmp_path / "mlruns"
    folder = make_run(root, "cd" * 16, "ended")
    old(root)
    reader = MlrunsReader(root)
    (found,) = (each for each in reader.scan({}) if isinstance(each, Found) and each.run)
    (folder / "metrics" / "acc").write_text(
        "1700000000 0.5 0\nno point\n"
    )  # a new file: its folder changes too
    again = [each for each in reader.scan({found.place: found.stamp}) if isinstance(each, Found) and each.run]
    assert [each.place for each in again] == [found.place]


def test_such_a_point_is_shown(tmp_path: Path, store_root: Path) -> None:
    folder = make_run(tmp_path / "mlruns", "ab" * 16, "ended")
    old(tmp_path / "mlruns")
    with open_store() as store:
        store.add_source(str(tmp_path / "mlruns"))
        store.refresh(None)
        assert store.points("ab" * 16, "loss").values.tolist()[-1] == 0.2
        with (folder / "metrics" / "loss").open("a") as metric:
            metric.write("1700000009 0.125 9\n")
        store.refresh(None)
        assert store.points("ab" * 16, "loss").values.tolist()[-1] == 0.125
