"""Asking a big store: any filter and sort over 100,000 runs, and a million points to arrays."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from big_store import make_store
from journals import write_run
from measure import MARGIN, Figures, answers_of, cpu_of

from mltrack.store import open_store

RUNS = 100_000
QUESTIONS = [
    ("a metric, sorted by another", "metrics.`eval/metric_03` < 0.5", "metrics.`eval/metric_07`"),
    (
        "two params, a tag and a metric",
        "params.lr < 0.01 and params.optimizer = 'adamw' and tags.team = 'text' and metrics.`eval/metric_03`.min < 0.5",
        "-params.lr",
    ),
    ("every run, sorted by the best of a metric", "", "metrics.`eval/metric_05`.max"),
    ("status, sorted by duration", "status = 'FAILED'", "-duration"),
    ("a pattern of names, sorted by name", "run_name like '%99%'", "run_name"),
    ("experiment and user, newest first", "experiment = 'group/7' and user = 'ann'", ""),
]


@pytest.fixture(scope="module")
def big_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("big")
    make_store(root, RUNS)
    with open_store(str(root)) as store:
        store.search(
            "metrics.`eval/metric_00` < 0.5"
        )  # makes the stored columns, as the store's process has long done
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return root


@pytest.mark.parametrize(("what", "text", "sort"), QUESTIONS, ids=[question[0] for question in QUESTIONS])
def test_ids_of_100k_runs(figures: Figures, big_store: Path, what: str, text: str, sort: str) -> None:
    found = [answers_of("cold_search.py", big_store, text, sort) for _ in range(3)]
    cold, warm = (statistics.median(one[name] for one in found) for name in ("cold", "warm"))
    figures.add(
        f"100k runs x 20 metrics, {what} ({found[0]['total']:,} found): ids cold; warm, CPU",
        "300 ms; 20 ms",
        f"{cold * 1e3:.0f} ms; {warm * 1e3:.1f} ms",
    )
    assert cold <= 0.3 * MARGIN and warm <= 0.02 * MARGIN


def test_the_first_search_ever(figures: Figures, big_store: Path) -> None:
    """A store that was filled in one go; `mltrack fold` and `demo` make what searches keep, so this is whoever else opens it."""
    with open_store(str(big_store)) as store:
        store.columns.refresh()
        for table in ("metric_segment", "run_segment"):
            store.database.execute(f"DELETE FROM {table}")
        taken = cpu_of(lambda: store.search("metrics.`eval/metric_03` < 0.5"))
    figures.add(
        "The same, the first search ever, which makes the stored columns, CPU", "once", f"{taken:.2f} s"
    )
    assert taken < 5


def test_search_of_10k_runs(figures: Figures, mlflow: dict[str, float], tmp_path: Path) -> None:
    make_store(tmp_path, 10_000)
    found = answers_of("cold_search.py", tmp_path, QUESTIONS[0][1], QUESTIONS[0][2])
    figures.add(
        "10k runs x 20 metrics, filter and sort: 1,000 whole runs, warm, CPU",
        "",
        f"{found['rows'] * 1e3:.0f} ms (ids {found['warm'] * 1e3:.1f} ms; ids cold {found['cold'] * 1e3:.0f} ms)",
        f"{mlflow['search'] * 1e3:,.0f} ms" if mlflow else "",
    )
    assert not mlflow or found["rows"] < mlflow["search"]


def test_a_million_points_to_arrays(figures: Figures, mlflow: dict[str, float], tmp_path: Path) -> None:
    journal = write_run(tmp_path, ["loss"], 1_000_000)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    found = [answers_of("cold_points.py", tmp_path, journal.run_id, "loss") for _ in range(3)]
    assert found[0]["points"] == 1_000_000
    cold = statistics.median(one["cold"] for one in found)
    figures.add(
        "1M points of one series to arrays, cold, CPU",
        "160 ms",
        f"{cold * 1e3:.0f} ms",
        f"{mlflow['history seconds per million']:.0f} s (100k points, times ten)" if mlflow else "",
    )
    assert cold <= 0.16 * MARGIN


def test_a_million_points_to_a_curve_and_ten_such_to_a_frame(figures: Figures, tmp_path: Path) -> None:
    journal = write_run(tmp_path, ["loss"], 1_000_000)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    found = [answers_of("frames.py", tmp_path, journal.run_id, "loss") for _ in range(3)]
    cold, again, zoom, frame = (
        statistics.median(one[name] for one in found) for name in ("cold", "again", "zoom", "frame")
    )
    figures.add(
        "1M points to a curve of 400 columns, CPU: cold; again from memory; another window",
        "160 ms; 20 ms; 20 ms",
        f"{cold * 1e3:.0f} ms; {again * 1e3:.1f} ms; {zoom * 1e3:.1f} ms",
    )
    figures.add(
        "10 series x 1M points to a frame of 120 x 36 cells, from memory, CPU",
        "30 ms",
        f"{frame * 1e3:.1f} ms",
    )
    assert cold <= 0.16 * MARGIN and again <= 0.02 * MARGIN and zoom <= 0.02 * MARGIN
    assert frame <= 0.03 * MARGIN
