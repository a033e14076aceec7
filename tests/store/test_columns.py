"""Columns that were patched, or came from stored segments, equal columns read anew."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mltrack.store import Store, column_segments, open_store
from mltrack.store import columns as columns_module
from mltrack.store.client.journal import Journal, points_line, run_folder
from mltrack.store.column_types import Aggregate, NumberKind, TextKind
from mltrack.store.columns import RunColumns
from mltrack.store.doctor import examine
from mltrack.store.errors import StoreDamaged, StoreUnavailable

_NUMBERS: list[tuple[NumberKind, str, Aggregate]] = [
    ("metric", "loss", "last"),
    ("metric", "loss", "min"),
    ("metric", "acc", "max"),
    ("metric", "acc", "count"),
    ("metric", "late", "last"),
    ("attribute", "start_time", "last"),
    ("attribute", "duration", "last"),
    ("attribute", "end_time", "last"),
    ("attribute", "heard", "last"),
    ("attribute", "step", "last"),
]
_ATTRIBUTES = (
    "run_id run_name experiment status user host note lifecycle parent_id artifact_uri damage".split()
)
_TEXTS: list[tuple[TextKind, str]] = [
    *(("attribute", name) for name in _ATTRIBUTES),
    ("param", "lr"),
    ("param", "seldom"),
    ("tag", "team"),
    ("tag", "none"),
    ("dataset", "name"),
]


def _answers(columns: RunColumns) -> dict[str, dict[str, object]]:
    """Every column as {run id: value}."""
    answers: dict[str, dict[str, object]] = {}
    ids = columns.run_ids
    for kind, key, aggregate in _NUMBERS:
        number = columns.number(kind, key, aggregate)
        assert len(number.values) == len(number.present) == columns.n == len(ids)
        answers[f"{kind} {key} {aggregate}"] = {
            ids[place]: float(number.values[place]).hex() for place in np.flatnonzero(number.present).tolist()
        }
    for text_kind, key in _TEXTS:
        text = columns.text(text_kind, key)
        answers[f"{text_kind} {key}"] = {
            ids[place]: text.values[code]
            for place, code in zip(
                range(columns.n) if text.rows is None else text.rows.tolist(),
                text.codes.tolist(),
                strict=True,
            )
            if code >= 0
        }
        if text.rows is None:
            assert [text.ranks[code] for code in range(len(text.values))] == [
                sorted(text.values).index(value) for value in text.values
            ]
    return answers


def _log(root: Path, number: int, at: random.Random, first_step: int = 0) -> str:
    run_id = f"{number:032x}"
    start = 1_760_000_000_000 + number * 1000 + first_step
    journal = Journal(
        root, run_id, f"{start:013d}-abcdef", identity={"host": f"h{number % 3}", "pid": 1}, time_ms=start
    )
    journal.meta("start", start, name=f"run {number}", experiment=f"e{number % 2}", user="ann", resumed=False)
    seldom = {"seldom": f"é\n{number}"} if number % 7 == 3 else {}
    journal.meta("param", start, v={"lr": str(at.choice([0.1, 0.2, 0.3])), **seldom})
    journal.meta("tags", start, v={"team": at.choice(["a", "b"])})
    journal.meta("progress", start + 1, step=at.randrange(100))
    values = [("loss", at.choice([at.random(), float("nan")])), ("acc", at.random())]
    if first_step or number % 5 == 4:
        values.append(("late", at.random()))
    file = journal.points()
    file.append(points_line(first_step, start, dict(values)))
    if number % 4:
        journal.meta("end", start + 50, status="FINISHED", exit=0)
    journal.meta("close", start + 60, points=file.size)
    journal.close()
    return run_id


def _compare(store: Store, columns: RunColumns) -> dict[str, dict[str, object]]:
    columns.refresh()
    answers = _answers(columns)
    fresh = RunColumns(store.database, store.root)
    fresh.refresh()
    assert answers == _answers(fresh)
    return answers


@pytest.mark.parametrize("segments", [False, True])
def test_patched_columns_equal_fresh_ones(
    store_root: Path, monkeypatch: pytest.MonkeyPatch, segments: bool
) -> None:
    if segments:
        monkeypatch.setattr(column_segments, "RUNS", 4)
        monkeypatch.setattr(column_segments, "WORTH", 3)
        monkeypatch.setattr(column_segments, "CHANGED", 2)
    at = random.Random(7)
    with open_store() as store:
        columns = RunColumns(store.database, store.root)
        _compare(store, columns)
        ids: list[str] = []
        for number in range(30):
            ids.append(_log(store_root, number, at))
            if number % 3 == 0:
                store.refresh(None)
                _compare(store, columns)
        store.refresh(None)
        before = _compare(store, columns)
        assert len(before["metric loss last"]) == 30
        assert bool(store.database.execute("SELECT 1 FROM run_segment")) == segments
        store.set_tags(ids[:3], {"team": "moved", "none": "x"})
        store.rename(ids[4], "another name")
        store.move(ids[5:7], "a new experiment")
        assert _compare(store, columns)["tag team"][ids[0]] == "moved"
        _log(store_root, 2, at, first_step=10)
        store.refresh(None)
        assert ids[2] in _compare(store, columns)["metric late last"]
        store.rename_experiment("e0", "renamed")
        assert "renamed" in _compare(store, columns)["attribute experiment"].values()
        store.undo()
        assert "e0" in _compare(store, columns)["attribute experiment"].values()
        place = run_folder(store_root, ids[2]) / "artifacts"
        assert store.search(f"artifact_uri = '{place.as_uri()}'").run_ids == (ids[2],)
        store.purge(ids[8:10])
        assert ids[8] not in _compare(store, columns)["attribute run_id"]
        _log(store_root, 31, at)  # takes the last run's place
        store.refresh(None)
        assert f"{31:032x}" in _compare(store, columns)["attribute run_id"]
        store.purge([f"{31:032x}"])
        _log(store_root, 32, at)
        store.refresh(None)
        assert f"{31:032x}" not in _compare(store, columns)["attribute run_id"]


def test_a_refresh_that_fails_halfway_leaves_nothing_half_done(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = random.Random(5)
    with open_store() as store:
        columns = RunColumns(store.database, store.root)
        for number in range(4):
            _log(store_root, number, at)
        store.refresh(None)
        _compare(store, columns)
        execute, failures = store.database.execute, 0
        for allowed in range(40):
            _log(store_root, 10 + allowed, at)
            store.refresh(None)
            left = [allowed]

            def until_it_goes(*arguments: Any, left: list[int] = left) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise StoreUnavailable("the database went away")
                return execute(*arguments)

            monkeypatch.setattr(store.database, "execute", until_it_goes)
            try:
                columns.refresh()
            except StoreUnavailable:
                failures += 1
            monkeypatch.setattr(store.database, "execute", execute)
            _compare(store, columns)
        assert 5 < failures < 40


def test_stored_columns_equal_the_rows(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = random.Random(11)
    with open_store() as store:
        for number in range(30):
            _log(store_root, number, at)
        store.refresh(None)
        own = _compare(store, RunColumns(store.database, store.root))
        monkeypatch.setattr(column_segments, "RUNS", 12)
        monkeypatch.setattr(column_segments, "WORTH", 3)
        monkeypatch.setattr(column_segments, "CHANGED", 2)
        assert column_segments.prepare(store.database)
        held, others = column_segments.coverage(store.database)
        assert len(held.runs) == 30 and len(others) == 0
        # All that is asked is answered from the segments: the rows are not there any more.
        if store.database.kind == "sqlite":
            store.database.execute("PRAGMA foreign_keys = OFF")
        store.database.execute(
            "UPDATE run SET name = '-', start_ms = 1, note = '-', summary = NULL, status = '-'"
        )
        for table in ("param", "tag"):
            store.database.execute(f"DELETE FROM {table}")
        columns = RunColumns(store.database, store.root)
        columns.refresh()
        assert _answers(columns) == own


def test_a_damaged_segment_is_a_sentence_and_doctor_makes_it_anew(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_segments, "RUNS", 4)
    monkeypatch.setattr(column_segments, "WORTH", 3)
    monkeypatch.setattr(column_segments, "CHANGED", 2)
    at = random.Random(13)
    with open_store() as store:
        for number in range(8):
            _log(store_root, number, at)
        store.refresh(None)
        for table, question in (
            ("column_segment", "lr < 0.25"),
            ("column_segment", "step > 3"),
            ("metric_segment", "metrics.acc > 0.5"),
        ):
            before = store.search(question, sort=("run_id",)).run_ids
            for data in (b"", b"\1", b"\1\4\0" + bytes(40), b"\0\4\0" + bytes(40), bytes(7)):
                store.database.execute(f"UPDATE {table} SET data = ?", (data,))
                fresh = RunColumns(store.database, store.root)
                store.columns = fresh
                with pytest.raises(StoreDamaged, match="doctor"):
                    store.search(question, sort=("run_id",))
            assert examine(store_root, store_root / "mltrack.db").healthy
            assert store.search(question, sort=("run_id",)).run_ids == before


def test_segments_outlive_a_gap_and_what_was_purged(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_segments, "RUNS", 4)
    monkeypatch.setattr(column_segments, "WORTH", 3)
    monkeypatch.setattr(column_segments, "CHANGED", 2)
    at = random.Random(12)
    with open_store() as store:
        ids = [_log(store_root, number, at) for number in range(16)]
        store.refresh(None)
        store.database.execute("DELETE FROM run_segment WHERE id = 1")
        assert len(column_segments.coverage(store.database)[1]) == 4
        assert len(_compare(store, RunColumns(store.database, store.root))["param lr"]) == 16
        # A process of an older mltrack writes metrics anew, and nothing else.
        store.database.execute("UPDATE run_segment SET seq = seq + 1 WHERE id IN (1, 2)")
        store.database.execute("UPDATE param SET value = '7' WHERE run BETWEEN 5 AND 12")
        assert len(column_segments.coverage(store.database)[1]) == 8
        found = _compare(store, RunColumns(store.database, store.root))["param lr"]
        assert [found[run_id] for run_id in ids[4:12]] == ["7"] * 8
        store.purge(ids[9:11])
        held, others = column_segments.coverage(store.database)
        assert len(held.runs) + len(others) == 14
        assert len(_compare(store, RunColumns(store.database, store.root))["param lr"]) == 14


def test_a_reader_does_without_segments(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_segments, "WORTH", 3)
    monkeypatch.setattr(column_segments, "RUNS", 4)
    at = random.Random(8)
    with open_store() as store:
        for number in range(12):
            _log(store_root, number, at)
        store.refresh(None)
    with open_store(readonly=True) as store:
        columns = RunColumns(store.database, store.root)
        assert len(_compare(store, columns)["metric acc max"]) == 12


def test_metrics_of_very_wide_runs_are_picked_run_by_run(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = random.Random(9)
    with open_store() as store:
        for number in range(12):
            _log(store_root, number, at)
        store.refresh(None)
        usual = RunColumns(store.database, store.root)
        usual.refresh()
        expected = _answers(usual)
        monkeypatch.setattr(columns_module, "MOST_SORTED", 0)
        columns = RunColumns(store.database, store.root)
        assert _compare(store, columns) == expected
        _log(store_root, 2, at, first_step=10)
        store.refresh(None)
        assert len(_compare(store, columns)["metric loss last"]) == 12


def test_segments_on_postgresql(store_root: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    monkeypatch.setattr(column_segments, "RUNS", 4)
    monkeypatch.setattr(column_segments, "WORTH", 3)
    monkeypatch.setattr(column_segments, "CHANGED", 2)
    monkeypatch.setenv("MLTRACK_SPOOL", str(store_root))
    at = random.Random(9)
    with open_store(postgres_url) as store:
        for number in range(12):
            _log(store.root, number, at)
        store.refresh(None)
        columns = RunColumns(store.database, store.root)
        assert len(_compare(store, columns)["metric acc max"]) == 12
        assert store.database.execute("SELECT 1 FROM run_segment")
        store.set_tags([f"{3:032x}"], {"team": "moved"})
        assert _compare(store, columns)["tag team"][f"{3:032x}"] == "moved"
