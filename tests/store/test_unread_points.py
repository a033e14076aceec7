"""Points that are not read yet: tables, filters and sorting go by what the writer says of them, and by themselves once in."""

from __future__ import annotations

import json
import math
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.client.series_state import SeriesState

T0 = 1_700_000_000_000
# Without -0.0: a running minimum takes it for 0.0, the points know better.
values = st.one_of(st.sampled_from([math.nan, math.inf, -math.inf]), st.floats()).map(
    lambda value: value + 0.0
)
logged = st.lists(st.tuples(st.sampled_from(["loss", "acc"]), st.integers(-5, 50), values), max_size=12)


def write(
    root: Path, number: int, points: list[tuple[str, int, float]], attempts: int = 1
) -> tuple[str, Path]:
    """A run whose newest attempt's points file is taken away; its id and where that was put."""
    run_id = f"{number:032x}"
    journal = Journal(root, run_id, "")
    for attempt in range(attempts):
        journal = Journal(
            root, run_id, f"{T0 + attempt}-aaaaaa", identity={"host": "far"}, time_ms=T0 + attempt
        )
        journal.meta("start", T0 + attempt, name=f"run {number}", experiment="e", user="ann")
        file = journal.points()
        states: dict[str, SeriesState] = {}
        for place, (key, step, value) in enumerate(points):
            file.append(points_line(step, T0 + place, {key: value}))
            states.setdefault(key, SeriesState(key, "")).add(step, T0 + place, value)
        said = {key: [_quoted(field) for field in state.summary()] for key, state in states.items()}
        if said:
            journal.meta("summary", T0 + 90, upto=file.size, v=said)
        journal.meta("end", T0 + 99, status="FINISHED", exit=0)
        journal.meta("close", T0 + 99, points=file.size)
        journal.close()
    newest = root / "runs" / run_id[:2] / run_id / f"points.{journal.jid}.jsonl"
    newest.rename(root / f"points of {number}")
    return run_id, newest


def _quoted(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def arrive(root: Path, number: int, place: Path) -> None:
    (root / f"points of {number}").rename(place)


def shown(store: Store) -> list[object]:
    found: list[object] = [repr(run.metrics) for run in store.runs([f"{n:032x}" for n in range(4)])]
    for question in (
        "loss > 0",
        "loss.min < 1",
        "acc.max >= 2",
        "count(loss) > 1",
        "loss is null",
        "best(acc) > 0",
    ):
        found.append(sorted(store.search(question).run_ids))
    for sort in ("-loss", "loss.min", "-acc.max", "best(loss)"):
        found.append(store.search("", sort=[sort]).run_ids)
    return found


@settings(max_examples=40)
@given(st.lists(logged, min_size=1, max_size=4), st.integers(0, 1 << 30))
def test_what_is_said_of_points_is_what_they_say_when_they_arrive(
    runs: list[list[tuple[str, int, float]]], seed: int
) -> None:
    """Each point of its own: then the writer's summary and that of the points are the same."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        places = []
        for number, points in enumerate(runs):
            unique = {(key, step): value for key, step, value in points}
            places.append(write(root, number, sorted((k, s, v) for (k, s), v in unique.items()))[1])
        with open_store(folder) as store:
            store.refresh(None, everything=True)
            before = shown(store)
            for number in chance.sample(range(len(runs)), len(runs)):
                arrive(root, number, places[number])
                store.refresh(None, everything=True)
                assert shown(store) == before
            assert not store.database.execute(
                "SELECT 1 FROM run WHERE state LIKE ? OR pending IS NOT NULL", ("%upto%",)
            )
            for path in root.glob("mltrack.db*"):
                path.unlink()
        with open_store(folder) as store:
            store.refresh(None, everything=True)
            assert shown(store) == before


def test_points_that_trickle_in_never_show_less_than_was_said(store_root: Path) -> None:
    run_id, place = write(store_root, 1, [("loss", step, 10.0 - step) for step in range(100)])
    data = (store_root / "points of 1").read_bytes()
    with open_store() as store:
        store.refresh(None, everything=True)
        for end in range(400, len(data), 700):
            place.write_bytes(data[:end])
            store.refresh(None, everything=True)
            assert store.run(run_id).metrics["loss"].count == 100
            assert store.search("loss.min = -89 and loss = -89").run_ids == (run_id,)
            assert len(store.points(run_id, "loss").steps) == data[:end].count(b"\n") - 1
        place.write_bytes(data)
        store.refresh(None, everything=True)
        assert store.run(run_id).metrics["loss"].count == 100
        assert len(store.points(run_id, "loss").steps) == 100


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_resumed_run_whose_newest_points_wait(store_root: Path, attempts: int) -> None:
    run_id, place = write(store_root, 1, [("loss", step, float(step)) for step in range(20)], attempts)
    with open_store() as store:
        store.refresh(None, everything=True)
        assert store.run(run_id).metrics["loss"].count == 20
        arrive(store_root, 1, place)
        store.refresh(None, everything=True)
        assert store.run(run_id).metrics["loss"].count == 20
        points = store.points(run_id, "loss", superseded=True)
        assert points.superseded.sum() == 20 * (attempts - 1) or len(points.steps) == 20
        assert store.search("loss = 19").run_ids == (run_id,)


def test_a_store_that_keeps_what_is_said_with_the_state(store_root: Path) -> None:
    """As the first versions wrote it: what waits is shown, and goes when the points arrive."""
    run_id, place = write(store_root, 1, [("loss", step, float(step)) for step in range(20)])
    with open_store() as store:
        store.refresh(None, everything=True)
        run, state, pending = store.database.execute("SELECT id, state, pending FROM run")[0]
        assert "upto" in pending and "upto" not in state
        together = json.dumps({**json.loads(state), "pending": json.loads(pending)})
        with store.database.transaction():
            store.database.execute(
                "UPDATE run SET state = ?, pending = NULL, summary = NULL WHERE id = ?", (together, run)
            )
        assert store.run(run_id).metrics["loss"].count == 20
        assert store.metric_table([run_id]).present.all()
        arrive(store_root, 1, place)
        store.refresh(None, everything=True)
        assert store.run(run_id).metrics["loss"].count == 20 and store.search("loss = 19").run_ids == (
            run_id,
        )
        assert not store.database.execute(
            "SELECT 1 FROM run WHERE state LIKE ? OR pending IS NOT NULL", ("%upto%",)
        )


def test_a_run_of_only_what_is_said(store_root: Path) -> None:
    """`demo --summaries-only`: no points file ever comes."""
    run_id, _ = write(store_root, 1, [("loss", 3, 0.25)])
    with open_store() as store:
        store.refresh(None, everything=True)
        assert store.search("loss = 0.25").run_ids == (run_id,)
        assert store.run(run_id).status == "FINISHED"
