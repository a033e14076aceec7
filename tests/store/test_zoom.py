"""A curve from stored outlines: nothing is hidden, and what it cannot say exactly is read point by point."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mltrack
from mltrack.store import Store, doctor, open_store
from mltrack.store.blocks import CHUNK_MIN, write_merged
from mltrack.store.curve import Floats
from mltrack.store.series import Ints, PointColumns, encode_block, no_points
from mltrack.store.zoom import GROUP, Chunk, decode_zoom, encode_zoom
from mltrack.tui.worker_calls import curves
from mltrack.tui.worker_calls.compare import compare_curves
from mltrack.tui.worker_calls.series_memory import OutlineMemory, SeriesMemory

ODD = st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0])


def columns_of(steps: Ints, values: Floats, attempt: int = 0, key: int = 1) -> PointColumns:
    n = len(steps)
    full = [np.full(n, number, np.int64) for number in (key, 0, attempt)]
    return PointColumns(full[0], full[1], full[2], steps, steps * 7, values)


@given(
    seed=st.integers(0, 1 << 32),
    sizes=st.lists(st.integers(CHUNK_MIN, 3 * CHUNK_MIN), min_size=1, max_size=4),
    tail=st.integers(0, 90),
    odd=st.lists(st.tuples(st.integers(0, 20_000), ODD), max_size=40),
    columns=st.integers(1, 12),
    window=st.none() | st.tuples(st.floats(0, 0.7), st.floats(0.1, 1)),
)
@settings(max_examples=60, deadline=None)
def test_every_column_has_its_exact_extremes(
    seed: int,
    sizes: list[int],
    tail: int,
    odd: list[tuple[int, float]],
    columns: int,
    window: tuple[float, float] | None,
) -> None:
    random = np.random.default_rng(seed)
    count = sum(sizes) + tail
    steps = np.cumsum(random.integers(1, 1000, count))
    values = random.normal(size=count)
    for place, value in odd:
        values[place % count] = value
    cuts = np.cumsum([0, *sizes]).tolist()
    parts = [
        encode_zoom(columns_of(steps[begin:end], values[begin:end]))
        for begin, end in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    chunks: list[Chunk] = []
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        said = values[begin:end][~np.isnan(values[begin:end])]
        low_high = (float(said.min()), float(said.max())) if len(said) else (None, None)
        chunks.append(Chunk(int(steps[begin]), int(steps[end - 1]), end - begin, *low_high))
    zoom = decode_zoom(
        [part for part in parts if part is not None],
        columns_of(steps[cuts[-1] :], values[cuts[-1] :]),
        chunks,
    )
    assert zoom is not None and len(zoom.values) <= count * 4 // GROUP + len(sizes) * 6 + len(odd) + tail
    low = high = None
    if window is not None:
        low, high = (float(steps[0] + share * (steps[-1] - steps[0])) for share in sorted(window))
    curve = zoom.curve(columns, low, high)
    if curve is None:
        assert window is not None or len(zoom.starts) < 3 * columns, "only where there are too few groups"
        return
    x, y = curve
    real = dict(zip(steps.tolist(), values.tolist(), strict=True))
    assert (np.diff(x) > 0).all() and np.array_equal(y, [real[int(step)] for step in x], equal_nan=True)
    # Groups of 64 points in each chunk, of one behind them; a column is those that begin in it.
    begins = [
        start for begin, end in zip(cuts[:-1], cuts[1:], strict=True) for start in range(begin, end, GROUP)
    ]
    begins += range(cuts[-1], count)
    ends = [*begins[1:], count]
    left = float(steps[0]) if low is None else low
    right = float(steps[-1]) if high is None else high
    first_kept = zoom.steps[zoom.starts]
    within = [
        place
        for place in range(len(begins))
        if steps[ends[place] - 1] >= left and first_kept[place] <= right and first_kept[place] >= left
    ]
    column = {
        place: min(columns - 1, int((first_kept[place] - left) / ((right - left) / columns) + 1e-12))
        for place in within
    }
    for number in set(column.values()):
        members = [place for place in within if column[place] == number]
        begin, end = begins[members[0]], ends[members[-1]]
        exact = values[begin:end]
        drawn = y[(x >= steps[begin]) & (x <= steps[end - 1])]
        finite, kept = exact[np.isfinite(exact)], drawn[np.isfinite(drawn)]
        assert (~np.isfinite(exact)).any() == (~np.isfinite(drawn)).any()
        if len(finite):
            assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert x[0] == steps[0] or low is not None
    assert x[-1] == steps[-1] or high is not None


def unpacked(text: str) -> npt.NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(text), "<f8")


def drawn(store: Store, run_id: str, columns: int, low: Any = None, high: Any = None) -> tuple[Any, ...]:
    (entry,) = compare_curves(store, [run_id], ["loss"], columns, low, high)["loss"]
    assert entry is not None
    return unpacked(entry["x"]), unpacked(entry["y"]), entry["ends"]


def log(root: Path, steps: range, run_id: str | None = None, at: float = 0.0) -> str:
    random = np.random.default_rng(len(steps))
    with mltrack.start_run(run_id=run_id, run_name="long") as run:
        for step in steps:
            mltrack.log_metric(
                "loss", float(random.normal()) + (50.0 if step == 4321 else 0.0) + at, step=step
            )
        return run.run_id


@pytest.fixture
def root(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLTRACK_SYSTEM_METRICS", "0")
    return store_root


def test_a_run_is_drawn_from_its_outline_and_an_old_store_point_by_point(root: Path) -> None:
    run_id = log(root, range(20_000))
    with open_store() as store:
        store.refresh()
        assert store.outline(run_id, "loss", store.loose_points(run_id)) is not None
        whole, near = drawn(store, run_id, 40), drawn(store, run_id, 100, 9000.0, 9600.0)
        beyond = drawn(store, run_id, 40, 30_000.0, 31_000.0)
        # As an older mltrack has left it.
        store.database.execute("UPDATE block SET zoom = NULL")
        store.database.execute("UPDATE run SET seq = seq + 1000")
        assert store.outline(run_id, "loss", store.loose_points(run_id)) is None
        old, old_near = drawn(store, run_id, 40), drawn(store, run_id, 100, 9000.0, 9600.0)
        assert np.array_equal(beyond[0], drawn(store, run_id, 40, 30_000.0, 31_000.0)[0])
    assert 4321.0 in whole[0] and 4321.0 in old[0]
    assert whole[2] == old[2] == (0.0, 19_999.0) and len(whole[0]) <= 3 * 40 + 2
    assert (whole[1].min(), whole[1].max()) == (old[1].min(), old[1].max())
    # So near, every point is one of its own.
    assert np.array_equal(near[0], old_near[0]) and np.array_equal(near[1], old_near[1])


def test_the_charts_of_a_run_begin_with_outlines_and_go_on_with_points(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = log(root, range(20_000))
    monkeypatch.setattr(curves, "memory", SeriesMemory())
    monkeypatch.setattr(curves, "outlines", OutlineMemory())

    def chart(low: float | None = None, high: float | None = None, **options: Any) -> Any:
        found = curves.curves(store, run_id, ["loss"], 40, low, high, **options)
        (line,) = found["lines"]["loss"]["lines"]
        return unpacked(line["x"]), unpacked(line["y"]), found["lines"]["loss"]["ends"], found["clock"]

    with open_store() as store:
        store.refresh()
        first, near = chart(), chart(9000.0, 9600.0)
        assert not curves.memory.has(store, run_id, "loss")
        curves.events(store, run_id, "loss")
        assert curves.memory.has(store, run_id, "loss")
        whole, exact = chart(), chart(9000.0, 9600.0)
        # What only all points can say is never drawn from an outline.
        others: list[dict[str, Any]] = [{"weight": 0.6}, {"x": "relative"}, {"every_rank": True}]
        for options in others:
            monkeypatch.setattr(curves, "memory", SeriesMemory())
            chart(**options)
            assert curves.memory.has(store, run_id, "loss")
        times = store.points(run_id, "loss").times_ms
    assert 4321.0 in first[0] and first[2] == whole[2] == [0.0, 19_999.0]
    assert (first[1].min(), first[1].max()) == (whole[1].min(), whole[1].max())
    assert np.array_equal(near[0], exact[0]) and np.array_equal(near[1], exact[1])
    steps, at = first[3]
    assert [steps[0], steps[-1]] == [0, 19_999] and len(steps) > 300
    assert all(ms >= times[step] for step, ms in zip(steps, at, strict=True)) and at[-1] == times.max()


def test_what_came_after_the_last_merge_is_in_the_outline(root: Path) -> None:
    steps = np.arange(5000, dtype=np.int64)
    values = np.sin(steps / 100)
    run_id = log(root, range(3))
    with open_store() as store:
        store.refresh()
        database = store.database
        run = database.execute("SELECT id FROM run")[0][0]
        key = database.execute("SELECT id FROM metric_key WHERE key = 'loss'")[0][0]
        with database.transaction():
            database.execute("DELETE FROM block")
            write_merged(database, run, columns_of(steps[:3000], values[:3000], key=key))
            write_merged(database, run, columns_of(steps[3000:4500], values[3000:4500], key=key))
            write_merged(database, run, columns_of(steps[4500:], values[4500:], key=key))  # too few: a pack
        zoom = store.outline(run_id, "loss", store.loose_points(run_id))
        assert zoom is not None and (zoom.steps[0], zoom.steps[-1]) == (0, 4999)
        x, y, ends = drawn(store, run_id, 20)
        assert ends == (0.0, 4999.0) and (y.min(), y.max()) == (values.min(), values.max())
        for low, high in ((2900.0, 3100.0), (4400.0, 4600.0), (100.0, 180.0)):
            x, y, _ = drawn(store, run_id, 100, low, high)
            inside = (x >= low) & (x <= high)
            assert np.array_equal(x[inside], np.arange(low, high + 1))
            assert (x[0], x[-1]) == (low - 1, high + 1)


def test_series_that_an_outline_cannot_say_have_none(root: Path) -> None:
    resumed = log(root, range(3000))
    log(root, range(2000, 5000), resumed, at=9.0)
    twice = log(root, range(1))
    with mltrack.start_run(run_id=twice):
        for step in range(4000):
            mltrack.log_metric("loss", float(step), step=step // 2)
    with open_store() as store:
        store.refresh()
        for run_id in (resumed, twice):
            assert store.outline(run_id, "loss", store.loose_points(run_id)) is None
        _, y, ends = drawn(store, resumed, 20)
        assert ends == (0.0, 4999.0) and y.max() > 50
        _, y, _ = drawn(store, twice, 20)
        assert y[-1] == 3999.0


def test_a_damaged_outline_is_not_believed(root: Path) -> None:
    run_id = log(root, range(2000))
    with open_store() as store:
        store.refresh()
        store.database.execute("UPDATE block SET zoom = ? WHERE zoom IS NOT NULL", (b"\x01\x02",))
        assert OutlineMemory().outline(store, run_id, "loss") is None
        assert len(drawn(store, run_id, 2000)[0]) == 2000
    assert decode_zoom([b""], no_points()) is None
    assert decode_zoom([encode_block(no_points(), small=True)], no_points()) is None


@pytest.mark.parametrize("other", [range(1, 2001), range(1900), range(0, 4000, 2)])
def test_an_outline_of_another_chunk_is_not_believed(root: Path, other: range) -> None:
    run_id = log(root, range(2000))
    steps = np.array(other, np.int64)
    theirs = encode_zoom(columns_of(steps, steps.astype(np.float64)))
    with open_store() as store:
        store.refresh()
        assert OutlineMemory().outline(store, run_id, "loss") is not None
        store.database.execute("UPDATE block SET zoom = ? WHERE zoom IS NOT NULL", (theirs,))
        assert OutlineMemory().outline(store, run_id, "loss") is None


def test_the_doctor_reads_outlines(root: Path) -> None:
    log(root, range(2000))
    with open_store() as store:
        store.refresh()
        path = Path(store.database.where)
        store.database.execute("UPDATE block SET zoom = ? WHERE zoom IS NOT NULL", (b"\x01\x02",))
    assert doctor._problem(path)


def test_values_that_an_outline_leaves_out_are_missed(root: Path) -> None:
    """The lowest and the highest of a chunk are known beside it."""
    run_id = log(root, range(2000))
    steps = np.arange(2000, dtype=np.int64)
    theirs = encode_zoom(columns_of(steps, np.full(2000, 0.5)))
    with open_store() as store:
        store.refresh()
        store.database.execute("UPDATE block SET zoom = ? WHERE zoom IS NOT NULL", (theirs,))
        assert OutlineMemory().outline(store, run_id, "loss") is None
