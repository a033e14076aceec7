"""From journals to tables: how fast, how small, and what a wide step costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from journals import START_MS, write_run
from measure import MARGIN, Figures, cpu_of, cpu_of_server, postmaster

from mltrack.store import column_segments, open_store
from mltrack.store.client.journal import points_line

KEYS = [f"train/metric_{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("what", "keys", "steps", "together"),
    [
        ("`log_metric` lines, one metric", KEYS[:1], 400_000, False),
        ("`log_metric` lines, five metrics", KEYS[:5], 80_000, False),
        ("`log_metrics` lines of 20", KEYS, 20_000, True),
    ],
)
def test_fold(
    figures: Figures,
    mlflow: dict[str, float],
    tmp_path: Path,
    what: str,
    keys: list[str],
    steps: int,
    together: bool,
) -> None:
    write_run(tmp_path, keys, steps, together=together)
    with open_store(str(tmp_path)) as store:
        rate = len(keys) * steps / cpu_of(lambda: store.refresh(None))
    figures.add(
        f"Fold, {what}",
        "400k points per CPU second",
        f"{rate / 1000:,.0f}k",
        f"{mlflow['batch points per second'] / 1000:,.0f}k (log_batch of 1,000)" if mlflow else "",
    )
    assert rate >= 400_000 / MARGIN


@pytest.mark.parametrize(("engine", "promised"), [("SQLite", 20.0), ("PostgreSQL", 60.0)])
def test_many_short_runs(
    figures: Figures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    engine: str,
    promised: float,
) -> None:
    """Journals of 10,000 runs that ended, of 20 params and 20 metrics each, taken in at once."""
    where, server = str(tmp_path / "store"), None
    if engine == "PostgreSQL":
        where = request.getfixturevalue("postgres_url")
        monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "spool"))
        server = postmaster(where)
    runs = 10_000
    with open_store(where) as store:
        for seed in range(runs):
            journal = write_run(store.root, KEYS, 1, end=False, seed=seed)
            journal.meta(
                "param", START_MS, v={f"param_{number}": str(seed * number % 7) for number in range(16)}
            )
            size = journal.points().size
            fields = [0, 0, START_MS, 0.5, 0.5, 0, 0.5, 0, 1, 0]
            journal.meta("summary", START_MS, upto=size, v=dict.fromkeys(KEYS, fields))
            journal.meta("end", START_MS, status="FINISHED", exit=0)
            journal.meta("close", START_MS, points=size)
            journal.close()
        before = cpu_of_server(server) if server else 0.0
        ours = cpu_of(lambda: store.refresh(None))
        theirs = cpu_of_server(server) - before if server else 0.0
        assert store.search("status = 'FINISHED'", limit=1).total == runs
    figures.add(
        f"10,000 runs of 20 params and 20 metrics folded, {engine}, CPU{' with the server' if server else ''}",
        f"{promised:.0f} s",
        f"{ours + theirs:.1f} s" + (f" ({theirs:.1f} s of it the server)" if server else ""),
    )
    assert ours + theirs <= promised * MARGIN


@pytest.mark.parametrize(("steps", "runs", "promised"), [(1000, 50, 9.0), (50, 2100, 12.0)])
def test_bytes_per_point(
    figures: Figures,
    mlflow: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    runs: int,
    promised: float,
) -> None:
    # Searches keep their columns as they do in a store of 8,000 runs and more, but for the newest 1,024.
    monkeypatch.setattr(column_segments, "WORTH", 1024)
    points = runs * steps * len(KEYS)
    with open_store(str(tmp_path)) as store:
        for seed in range(runs):
            write_run(tmp_path, KEYS, steps, seed=seed)
            if seed % 10 == 9:  # runs end one after another; nobody logs a thousand before the first is read
                store.refresh(None)
        store.search(f"metrics.`{KEYS[0]}` < 1")  # makes what searches keep
        assert len(store.points(store.search(limit=1).run_ids[0], KEYS[0]).values) == steps
        while store.seal(older_than_seconds=0).count_by_kind:
            pass
        store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database = (tmp_path / "mltrack.db").stat().st_size / points
    sealed = sum(path.stat().st_size for path in tmp_path.glob("runs/*/*/*.jsonl.zst")) / points
    assert not list(tmp_path.glob("runs/*/*/*.jsonl"))
    figures.add(
        f"Bytes per exact point, {runs:,} runs of {len(KEYS)} series of {steps:,} points: database; with sealed journals",
        f"{promised:.0f}; 26" if steps == 1000 else f"{promised:.0f}",
        f"{database:.1f}; {database + sealed:.1f}",
        f"{mlflow['bytes per point']:.0f}" if mlflow else "",
    )
    assert database <= promised * 1.05
    assert steps < 1000 or database + sealed <= 26


def test_a_step_of_1500_metrics_at_a_time(figures: Figures, tmp_path: Path) -> None:
    keys = [f"layer.{number}.grad_norm" for number in range(1500)]
    journal = write_run(tmp_path, keys, 1, end=False)
    points = journal.points()
    with open_store(str(tmp_path)) as store:
        store.refresh(None)

        def follow() -> None:
            for step in range(1, 61):
                points.append(points_line(step, START_MS + step * 1000, dict.fromkeys(keys, step * 0.1)))
                store.refresh(None)

        each = cpu_of(follow) / 60
    journal.close()
    figures.add("One step of 1,500 metrics, followed every second, CPU", "cheap", f"{each * 1e3:.1f} ms")
    assert each < 0.1


def test_unread_points_do_not_delay_the_table(figures: Figures, tmp_path: Path) -> None:
    """50 million points of 50 live runs wait; table, filter and order go by what their writers say of them."""
    runs = 50
    chunk = b"".join(
        points_line(step, START_MS + step, {"loss": 0.123456789 + step}) for step in range(100_000)
    )
    for number in range(runs):
        journal = write_run(tmp_path, ["loss"], 1, end=False, seed=number)
        for _ in range(10):
            journal.points().append(chunk)
        fields = [0, 99_999, START_MS + 99_999, number / 2, number / 4, 7, 99_999.5, 99_999, 1_000_001, 0]
        journal.meta("summary", START_MS, upto=journal.points().size, v={"loss": fields})
        journal.close()
    with open_store(str(tmp_path)) as store:
        taken = cpu_of(lambda: store.refresh(0.5))
        page = store.search("loss < 12", sort=["-loss.min"])
        summaries = [run.metrics["loss"] for run in store.runs(page.run_ids)]
    assert [summary.last for summary in summaries] == [number / 2 for number in range(23, -1, -1)]
    assert {summary.count for summary in summaries} == {1_000_001}
    figures.add(
        "Right table values, filter and order while 50M points of 50 runs are unread: CPU of a refresh limited to 0.5 s",
        "2 s",
        f"{taken:.2f} s",
    )
    assert taken <= 2 * MARGIN
