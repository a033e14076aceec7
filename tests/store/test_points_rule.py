"""The rule of points: however records are split, repeated and ordered over journals, every question has one answer."""

from __future__ import annotations

import itertools
import json
import math
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.store import Store, open_store
from mltrack.store.client.journal import encode_number, points_line
from mltrack.store.database import Database, open_postgresql
from mltrack.store.errors import NotFound
from mltrack.store.records import Location, Run

RUNS = ("a1" * 16, "a2" * 16)
KEYS = ("loss", "val/äcc")
ATTEMPTS = ("0001700000000-aaaaaa", "0001700000500-000000", "0001700000900-ffffff")
LARGEST = (1 << 63) - 1
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)


@dataclass(frozen=True)
class Point:
    run: int
    attempt: int
    rank: int
    key: str
    step: int
    time: int
    value: float


steps = st.one_of(
    st.integers(0, 6), st.integers(-(1 << 63), LARGEST), st.sampled_from([-(1 << 63), LARGEST, LARGEST - 1])
)
times = st.one_of(st.integers(0, 4), st.sampled_from([-(1 << 63), LARGEST, 1_700_000_000_000]))
values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.5, math.nan, math.inf, -math.inf, 5e-324]), st.floats(allow_nan=True)
)
points = st.builds(
    Point,
    st.integers(0, 1),
    st.integers(0, 2),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from(KEYS),
    steps,
    times,
    values,
)
metas = st.one_of(
    st.fixed_dictionaries(
        {
            "op": st.just("param"),
            "v": st.dictionaries(st.sampled_from(["lr", "x"]), st.sampled_from("abc"), min_size=1),
        }
    ),
    st.fixed_dictionaries(
        {
            "op": st.just("tags"),
            "v": st.dictionaries(st.sampled_from(["t", "u"]), st.sampled_from("abc"), min_size=1),
        }
    ),
    st.fixed_dictionaries({"op": st.just("untag"), "k": st.just(["t"])}),
    st.fixed_dictionaries({"op": st.just("note"), "v": st.sampled_from(["one", "two"])}),
    st.fixed_dictionaries({"op": st.just("name"), "v": st.sampled_from(["first", "second"])}),
    st.fixed_dictionaries({"op": st.just("progress"), "step": st.integers(0, 9), "total": st.just(10)}),
    st.fixed_dictionaries({"op": st.just("refused"), "what": st.just("x"), "why": st.sampled_from("yz")}),
    st.fixed_dictionaries(
        {"op": st.just("facts"), "v": st.fixed_dictionaries({"packages": st.sampled_from("pq")})}
    ),
)


@dataclass
class Journal:
    run: str
    attempt: int
    rank: int
    jid: str
    meta: list[bytes]
    points: list[bytes]

    def header(self, kind: str) -> bytes:
        head = {
            "mltrack": 1,
            "kind": kind,
            "jid": self.jid,
            "run": self.run,
            "attempt": ATTEMPTS[self.attempt],
            "rank": self.rank,
            "host": "far",
            "pid": 7,
            "time": 1_700_000_000_000,
        }
        return json.dumps(head).encode() + b"\n"


def line_of(point: Point) -> bytes:
    return points_line(point.step, point.time, {point.key: point.value})


def arrange(found: list[Point], said: list[dict[str, Any]], chance: random.Random) -> list[Journal]:
    """Journals that hold every record at least once, in any place and order that their writers allow."""
    journals: list[Journal] = []
    for run in range(2):
        for attempt in range(3):
            for rank in range(2):
                for _ in range(chance.randint(1, 3)):
                    jid = f"{chance.getrandbits(64):016x}"
                    journals.append(Journal(RUNS[run], attempt, rank, jid, [], []))
    for point in found:
        homes = [
            j for j in journals if (j.run, j.attempt, j.rank) == (RUNS[point.run], point.attempt, point.rank)
        ]
        for home in chance.sample(homes, chance.randint(1, len(homes))):
            home.points += [line_of(point)] * chance.choice([1, 1, 1, 2])
    for record in said:
        homes = [
            j for j in journals if j.rank == 0 and (j.run, j.attempt) == (record["run"], record["attempt"])
        ]
        text = {key: value for key, value in record.items() if key not in ("run", "attempt")}
        for home in chance.sample(homes, chance.randint(1, len(homes))):
            home.meta += [json.dumps(text).encode() + b"\n"] * chance.choice([1, 1, 2])
    for journal in journals:
        chance.shuffle(journal.meta)
        chance.shuffle(journal.points)
    return [journal for journal in journals if journal.meta or journal.points]


def files_of(journals: list[Journal], root: Path) -> Iterator[tuple[Path, bytes]]:
    for journal in journals:
        folder = root / "runs" / journal.run[:2] / journal.run
        for kind, lines in (("meta", journal.meta), ("points", journal.points)):
            if lines:
                yield folder / f"{kind}.{journal.jid}.jsonl", journal.header(kind) + b"".join(lines)


def fold(
    journals: list[Journal],
    root: Path,
    chance: random.Random,
    stages: int,
    opened: Callable[[Path], Store] = lambda root: open_store(str(root)),
) -> None:
    """Let the files grow in ``stages`` pieces of any size, folded in between, now and then by a new process's Store."""
    files = list(files_of(journals, root))
    chance.shuffle(files)
    ends = [
        sorted(chance.randint(0, len(data)) for _ in range(stages - 1)) + [len(data)] for _, data in files
    ]
    store = opened(root)
    for stage in range(stages):
        for (path, data), places in zip(files, ends, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[: places[stage]])
        store.refresh(None, everything=True)
        if chance.random() < 0.5:
            store.close()
            store = opened(root)
    assert store.refresh(None, everything=True).points == 0
    store.close()


def bits(value: float | None) -> bytes | None:
    return None if value is None else b"nan" if math.isnan(value) else struct.pack(">d", value)


def answer(store: Store) -> dict[str, Any]:
    """Everything the store says about the runs, in values that compare exactly."""
    found: dict[str, Any] = {}
    for run in sorted(store.runs(RUNS), key=lambda run: run.run_id):
        shown = {
            name: getattr(run, name)
            for name in Run.__dataclass_fields__
            if name not in ("metrics", "facts", "folder", "heard_ms", "quiet")
        }
        shown["metrics"] = {key: summary(run, key) for key in run.metrics}
        facts = dict(run.facts)
        shown["packages"] = facts.get("packages")
        shown["refused"] = {why for _, why in facts.get("refused", {}).values()}
        for key in KEYS:
            for rank in (0, 1):
                for superseded in (False, True):
                    shown[f"{key} {rank} {superseded}"] = series(store, run.run_id, key, rank, superseded)
        found[run.run_id] = shown
    for question in ("", "metrics.loss > 0.25", "metrics.loss.min < 0 or params.lr = 'a'", "tags.t = 'b'"):
        for sort in ((), ("metrics.loss",), ("-metrics.loss.max", "name")):
            found[f"search {question} {sort}"] = store.search(question, sort=sort).run_ids
    return found


def summary(run: Run, key: str) -> tuple[Any, ...]:
    s = run.metrics[key]
    return (
        s.first_step,
        s.last_step,
        s.last_time_ms,
        bits(s.last),
        bits(s.min),
        s.min_step,
        bits(s.max),
        s.max_step,
        s.count,
        s.nan_count,
    )


def series(store: Store, run_id: str, key: str, rank: int, superseded: bool) -> tuple[bytes, ...] | None:
    try:
        got = store.points(run_id, key, rank, superseded)
    except NotFound:
        return None
    return got.steps.tobytes(), got.times_ms.tobytes(), got.values.tobytes(), got.superseded.tobytes()


# -- the same, told by ordinary Python


def order(value: float) -> tuple[int, float, int]:
    return (0, 0.0, 0) if math.isnan(value) else (1, value, 1 if math.copysign(1, value) > 0 else 0)


def model(found: list[Point], run: int, key: str, rank: int) -> list[tuple[Point, bool]]:
    """Distinct points in order, each with whether a newer attempt took over."""
    mine = [point for point in found if (point.run, point.key, point.rank) == (run, key, rank)]
    kept: dict[tuple[int, int, bytes | None], tuple[Point, bool]] = {}
    for point in mine:
        old = any(other.attempt > point.attempt and other.step <= point.step for other in mine)
        identity = (point.step, point.time, bits(point.value))
        if identity not in kept or not old:
            kept[identity] = (point, old)
    return sorted(kept.values(), key=lambda entry: (entry[0].step, entry[0].time, order(entry[0].value)))


def model_summary(every: list[tuple[Point, bool]]) -> tuple[Any, ...]:
    live = [point for point, old in every if not old]
    numbers = [point for point in live if not math.isnan(point.value)]
    last = live[-1]
    low = min(numbers, key=lambda point: (order(point.value), point.step), default=None)
    high = max(numbers, key=lambda point: (order(point.value), -point.step), default=None)
    return (
        min(point.step for point in live),
        last.step,
        last.time,
        bits(last.value),
        bits(low.value) if low else None,
        low.step if low else None,
        bits(high.value) if high else None,
        high.step if high else None,
        len(live),
        len(live) - len(numbers),
    )


def said_by(texts: list[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Meta records with times of their own, and a start and an end for every attempt that says anything."""
    records: list[dict[str, Any]] = []
    clock = 1_700_000_000_000
    for run in range(2):
        for attempt in range(3):
            clock += 1000
            start: dict[str, Any] = {
                "op": "start",
                "name": f"n{run}",
                "experiment": "e",
                "user": "u",
                "command": [str(attempt)],
            }
            if attempt == 1:
                start["slurm"] = {"job": "1"}
            texts.append((run, attempt, start))
            texts.append((run, attempt, {"op": "end", "status": "FINISHED", "exit": attempt}))
    for number, (run, attempt, text) in enumerate(texts):
        records.append({"t": clock + number, **text, "run": RUNS[run], "attempt": attempt})
    return records


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(points, max_size=40),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), metas), max_size=12),
    st.integers(0, 1 << 32),
)
def test_any_order_split_and_repetition_gives_one_answer(
    found: list[Point], texts: list[tuple[int, int, dict[str, Any]]], seed: int
) -> None:
    chance = random.Random(seed)
    said = said_by(list(texts))
    answers = []
    for stages in (1, 1, 4):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            fold(arrange(found, said, chance), root, chance, stages)
            with open_store(folder) as store:
                answers.append(answer(store))
    assert answers[0] == answers[1]
    assert answers[0] == answers[2]
    for run in range(2):
        shown = answers[0][RUNS[run]]
        for key in KEYS:
            every = model(found, run, key, 0)
            assert shown["metrics"].get(key) == (model_summary(every) if every else None)
            for rank in (0, 1):
                every = model(found, run, key, rank)
                for superseded in (False, True):
                    wanted = [point for point, old in every if superseded or not old]
                    got = shown[f"{key} {rank} {superseded}"]
                    if not every:
                        assert got is None
                        continue
                    assert got[0] == b"".join(struct.pack("<q", point.step) for point in wanted)
                    assert got[1] == b"".join(struct.pack("<q", point.time) for point in wanted)
                    values_got = struct.unpack(f"<{len(wanted)}d", got[2])
                    assert [bits(value) for value in values_got] == [bits(point.value) for point in wanted]
                    assert got[3] == bytes(old for _, old in every if superseded or not old)


@settings(max_examples=12)
@given(st.integers(0, 1 << 32), st.integers(1500, 6000))
def test_long_series_in_any_order_merge_to_the_same_points(seed: int, count: int) -> None:
    """Enough points for chunks and packs, out of order and repeated, over several attempts."""
    chance = random.Random(seed)
    found = [
        Point(
            0,
            chance.choice([0, 0, 1]),
            0,
            chance.choice(KEYS),
            chance.randrange(3000),
            chance.randrange(5),
            chance.random(),
        )
        for _ in range(count)
    ]
    said = said_by([])
    answers = []
    for stages in (1, 5):
        with tempfile.TemporaryDirectory() as folder:
            fold(arrange(found, said, chance), Path(folder), chance, stages)
            with open_store(folder) as store:
                answers.append(answer(store))
    assert answers[0] == answers[1]
    for key in KEYS:
        assert answers[0][RUNS[0]]["metrics"][key] == model_summary(model(found, 0, key, 0))


@settings(max_examples=15, suppress_health_check=SLOW)
@given(
    st.lists(points, max_size=40),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), metas), max_size=12),
    st.integers(0, 1 << 32),
)
def test_postgresql_gives_the_same_answers(
    postgres_url: str,
    postgres: Callable[[], Database],
    found: list[Point],
    texts: list[tuple[int, int, dict[str, Any]]],
    seed: int,
) -> None:
    def opened(root: Path) -> Store:
        database = open_postgresql(postgres_url)
        return Store(database, root, Location(root, database.where, database.kind, "test", ()))

    chance = random.Random(seed)
    journals = arrange(found, said_by(list(texts)), chance)
    postgres()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fold(journals, root, chance, 3, opened)
        with opened(root) as store:
            there = answer(store)
        fold(journals, root, chance, 2)
        with open_store(folder) as store:
            assert answer(store) == there


def test_only_the_newest_attempt_says_whether_a_run_lives_and_in_any_order(tmp_path: Path) -> None:
    """An older attempt ended years ahead by a clock that was wrong: the newest, of a host that fell silent, is lost all the same."""
    began = time.time_ns() // 1_000_000 - 3_600_000
    ahead = 10 * 365 * 86_400_000
    said: dict[str, list[dict[str, Any]]] = {
        ATTEMPTS[0]: [{"op": "end", "t": began + 90, "status": "SCHEDULED", "until": began + 95}],
        ATTEMPTS[1]: [{"op": "end", "t": began + 50, "status": "KILLED", "exit": 9, "at": began + ahead}],
        ATTEMPTS[2]: [],
    }
    whole: list[Journal] = []
    for number, (attempt, records) in enumerate(said.items()):
        start: dict[str, Any] = {
            "op": "start",
            "t": began + number,
            "name": "n",
            "experiment": "e",
            "user": "u",
        }
        lines = [json.dumps(record).encode() + b"\n" for record in (start, *records)]
        whole.append(Journal(RUNS[0], ATTEMPTS.index(attempt), 0, f"{number:016x}", lines, []))
    rows: set[tuple[Any, ...]] = set()
    for place, order in enumerate(itertools.permutations(whole)):
        root = tmp_path / str(place)
        with open_store(str(root)) as store:
            for path, data in files_of(list(order), root):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                store.fold_folder(path.parent)
            got = store.database.execute("SELECT status, heard_ms, end_ms, exit_code FROM run")
            rows.update(tuple(row) for row in got)
    assert rows == {("LOST", None, began + 2, None)}


@given(values)
def test_a_number_written_is_the_number_read(value: float) -> None:
    read = json.loads(encode_number(value))
    assert bits({"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(str(read), read)) == bits(
        value
    )
