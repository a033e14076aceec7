"""Seed groups as a mean with a band, and the same file of two runs."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.errors import BadInput
from mltrack.store.records import Run
from mltrack.tui.bands import make_band, seed_groups
from mltrack.tui.cli.compare_files import Line, file_lines


def test_runs_that_differ_only_in_their_seed_are_one_group() -> None:
    params = [
        {"lr": "1", "seed": "1", "model": "m"},
        {"lr": "2", "seed": "1", "model": "m"},
        {"lr": "1", "seed": "2", "model": "m", "data.seed": "7"},
        {"seed": "3", "model": "m"},
    ]
    assert seed_groups(params) == [("lr=1", [0, 2]), ("lr=2", [1]), ("all", [3])]
    assert seed_groups([{"seed": "1"}, {"seed": "2"}]) == [("all", [0, 1])]


FINITE = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(FINITE, min_size=5, max_size=5), min_size=1, max_size=5))
def test_a_band_is_mean_and_deviation_at_every_step(rows: list[list[float]]) -> None:
    x = np.arange(5.0)
    band = make_band([(x, np.array(row)) for row in rows], 5)
    for place, values in enumerate(zip(*rows, strict=True)):
        assert band.mean[place] == pytest.approx(statistics.fmean(values), abs=1e-6)
        if len(values) > 1:
            assert band.high[place] - band.mean[place] == pytest.approx(statistics.stdev(values), abs=1e-5)
        else:
            assert np.isnan(band.high[place])
    assert band.n == len(rows)


def test_a_run_counts_only_where_it_ran_and_nan_is_bridged() -> None:
    long = (np.arange(11.0), np.full(11, 1.0))
    short = (np.arange(6.0), np.array([3.0, np.nan, 3.0, 3.0, np.nan, 3.0]))
    band = make_band([long, short], 11)
    assert band.mean.tolist() == [2.0] * 6 + [1.0] * 5
    assert np.isnan(band.low[6:]).all() and np.isfinite(band.low[:6]).all()
    assert make_band([(np.array([1.0]), np.array([np.nan]))], 9).n == 0


def text(lines: list[Line]) -> str:
    return "\n".join("".join(span[0] for span in line) for line in lines)


def run(folder: Path, name: str, files: dict[str, bytes]) -> Run:
    for path, content in files.items():
        place = folder / name / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return Run(name, name, "e", "FINISHED", artifacts=folder / name)


def test_the_files_of_two_runs_and_the_diff_of_one(tmp_path: Path) -> None:
    one = run(
        tmp_path, "a", {"c.yaml": b"lr: 1\nbs: 2\n", "x.bin": b"\0\1", "same.txt": b"x", "only.txt": b""}
    )
    other = run(
        tmp_path, "b", {"c.yaml": b"lr: 3\nbs: 2\n", "x.bin": b"\0\2", "same.txt": b"x", "mine.txt": b""}
    )
    listed = text(file_lines(one, other)).splitlines()
    assert [line.split()[:2] for line in listed] == [
        ["c.yaml", "differs"],
        ["mine.txt", "only"],
        ["only.txt", "only"],
        ["same.txt", "the"],
        ["x.bin", "differs"],
    ]
    diff = text(file_lines(one, other, "c.yaml"))
    assert "-lr: 1" in diff and "+lr: 3" in diff and " bs: 2" in diff
    assert "is no text" in text(file_lines(one, other, "x.bin"))
    assert "same in both" in text(file_lines(one, other, "same.txt"))
    with pytest.raises(BadInput, match="b has no file only.txt; both have c.yaml"):
        file_lines(one, other, "only.txt")
