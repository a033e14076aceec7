"""Journals as disks, networks and enemies leave them: each damage costs its own record, is counted, and hides no neighbour."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mltrack
from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.errors import NotFound
from mltrack.store.records import Run

GOOD, BAD = "0a" * 16, "0b" * 16
BORDER = 1 << 63


def write(root: Path, run_id: str, count: int = 100, end: bool = True) -> Journal:
    """A healthy run: its journal, closed."""
    journal = Journal(
        root, run_id, "1700000000000-aaaaaa", identity={"host": "far", "pid": 1}, time_ms=1_700_000_000_000
    )
    journal.meta("start", 1_700_000_000_000, name=f"run {run_id[:2]}", experiment="e", user="u")
    journal.meta("param", 1_700_000_000_001, v={"lr": "0.1"})
    for step in range(count):
        journal.points().append(points_line(step, 1_700_000_000_000 + step, {"loss": step / 7}))
    if end:
        journal.meta("end", 1_700_000_001_000, status="FINISHED", exit=0)
    journal.close()
    return journal


def path_of(journal: Journal, kind: str = "points") -> Path:
    return journal.folder / f"{kind}.{journal.jid}.jsonl"


def fold(root: Path) -> Store:
    store = open_store(str(root))
    store.refresh(None, everything=True)
    return store


def good_is_there(store: Store) -> None:
    run = store.run(GOOD)
    assert (run.status, run.params, run.skipped, run.damage) == ("FINISHED", {"lr": "0.1"}, 0, None)
    assert store.points(GOOD, "loss").values.tolist() == [step / 7 for step in range(100)]
    assert GOOD in store.search("metrics.loss >= 0 and params.lr = '0.1'").run_ids


def steps(store: Store, run_id: str = BAD) -> list[int]:
    found: list[int] = store.points(run_id, "loss").steps.tolist()
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, GOOD)
    return tmp_path


# -- bytes


def test_garbage_between_records_is_skipped_and_counted(root: Path) -> None:
    journal = write(root, BAD, 0)
    lines = [points_line(step, 1, {"loss": float(step)}) for step in range(6)]
    garbage = [
        b"\xff\xfe\n",
        b"{}\n",
        b"[1,2]\n",
        b'[1,2,"a"]\n',
        b"\n",
        b'[1,2,"a",1.0\n',
        b'["1",2,"a",1.0]\n',
        b"null\n",
    ]
    with path_of(journal, "meta").open("ab") as file:
        file.write(b'garbage\n{"t":1}\n{"op":"param","v":{}}\n{"t":1,"op":"tags","v":7}\n["x"]\n')
    body = (
        journal._header("points")
        + b"".join(a + b for a, b in zip(lines, garbage[:6], strict=True))
        + b"".join(garbage[6:])
    )
    path_of(journal).write_bytes(body)
    with fold(root) as store:
        assert steps(store) == list(range(6)) and store.run(BAD).skipped == len(garbage) + 5
        assert store.run(BAD).status == "FINISHED"
        good_is_there(store)


def test_a_torn_tail_is_not_yet(root: Path) -> None:
    path = path_of(write(root, BAD))
    whole = path.read_bytes()
    with fold(root) as store:
        for cut in (1, 2, 7, 30):
            path.write_bytes(whole[:-cut])
            store.refresh(None, everything=True)
        assert steps(store) == list(range(100)), "what was read stays read"
    for name in ("mltrack.db", "mltrack.db-wal", "mltrack.db-shm"):
        (root / name).unlink(missing_ok=True)
    last = whole.rindex(b"\n", 0, -1) + 1
    path.write_bytes(whole[: last + 5])
    with fold(root) as store:
        assert steps(store) == list(range(99)) and store.run(BAD).skipped == 0
        path.write_bytes(whole)
        store.refresh(None, everything=True)
        assert steps(store) == list(range(100)) and store.run(BAD).skipped == 0
        good_is_there(store)


def test_a_hole_of_nul_bytes_is_waited_for(root: Path) -> None:
    path = path_of(write(root, BAD))
    whole = path.read_bytes()
    middle = whole.index(b"\n", len(whole) // 2) + 1
    path.write_bytes(whole[:middle] + bytes(len(whole) - middle))
    with fold(root) as store:
        there = len(steps(store))
        assert 0 < there < 100 and store.run(BAD).skipped == 0
        path.write_bytes(whole)  # the network brought the rest
        store.refresh(None, everything=True)
        assert steps(store) == list(range(100)) and store.run(BAD).skipped == 0
        good_is_there(store)


def test_a_file_cut_below_the_position_is_read_again(root: Path) -> None:
    journal = write(root, BAD)
    path = path_of(journal)
    whole = path.read_bytes()
    with fold(root) as store:
        cut = whole.index(b"\n", len(whole) // 3) + 1
        path.write_bytes(
            whole[:cut] + points_line(1000, 5, {"loss": 1.0})
        )  # shorter than the position, with news
        store.refresh(None, everything=True)
        assert steps(store) == [*range(100), 1000]
        with path.open("ab") as file:
            file.write(points_line(1001, 6, {"loss": 2.0}))
        assert store.refresh(None, everything=True).points == 1
        assert steps(store) == [*range(100), 1000, 1001]
        assert store.run(BAD).metrics["loss"].count == 102
        good_is_there(store)


def test_a_rewritten_file_counts_its_damage_once(root: Path) -> None:
    journal = write(root, BAD)
    path = path_of(journal)
    with path.open("ab") as file:
        file.write(b"garbage\n")
    with fold(root) as store:
        assert store.run(BAD).skipped == 1
        for number in range(3):
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join([lines[0], points_line(200 + number, 1, {"loss": 0.5}), *lines[1:]]))
            store.refresh(None, everything=True)
        assert store.run(BAD).skipped == 1
        assert steps(store) == [*range(100), 200, 201, 202]
        assert store.run(BAD).params == {"lr": "0.1"} and store.run(BAD).conflicts == {}
        good_is_there(store)


def test_another_journal_in_the_place_of_one(root: Path) -> None:
    """A restored backup, or a name used again by hand: what lies there now is what counts, what was read stays."""
    path = path_of(write(root, BAD))
    with fold(root) as store:
        other = write(root, "0c" * 16, 50)
        os.replace(path_of(other), path)
        for _ in range(2):
            store.refresh(None, everything=True)
        assert steps(store) == list(range(100))
        assert steps(store, "0c" * 16) == list(range(50))
        good_is_there(store)


def test_a_line_longer_than_any_record_costs_only_itself(root: Path) -> None:
    journal = write(root, BAD, 5)
    with path_of(journal).open("ab") as file:
        for _ in range(70):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + points_line(7, 1, {"loss": 1.0}))
    with fold(root) as store:
        assert steps(store) == [0, 1, 2, 3, 4, 7] and store.run(BAD).skipped == 1
        assert store.refresh(None, everything=True).skipped == 0
        good_is_there(store)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_reaches_a_neighbour(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any bytes anywhere in the files of one run: the fold goes on, its neighbour is whole, and reading shows no traceback."""
    root = tmp_path_factory.mktemp("damage")
    write(root, GOOD)
    journal = write(root, BAD, 10, end=data.draw(st.booleans()))
    extra = data.draw(st.lists(hostile_meta, max_size=4))
    with path_of(journal, "meta").open("ab") as file:
        for record in extra:
            file.write(json.dumps(record).encode() + b"\n")
    for kind in ("meta", "points"):
        path = path_of(journal, kind)
        body = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, max(0, len(body) - 1)))
            how = data.draw(st.sampled_from(["flip", "insert", "cut", "nul", "swap"]))
            if how == "flip" and body:
                body[place] ^= data.draw(st.integers(1, 255))
            elif how == "insert":
                body[place:place] = data.draw(st.binary(max_size=20))
            elif how == "cut":
                del body[place:]
            elif how == "nul":
                body[place : place + 9] = bytes(len(body[place : place + 9]))
            else:
                body[place:place] = data.draw(
                    st.sampled_from([b"\n", b'"', b"[", b"99999999999999999999", b"1e999"])
                )
        path.write_bytes(bytes(body))
    with fold(root) as store:
        store.refresh(None)
        good_is_there(store)
        look(store)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["NaN", "\x00", "\x1b]52;c;x\x07", "é", "../../x", "9" * 400]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "v", "loss"]), inner, max_size=3)
    ),
    max_leaves=6,
)
OPS = "start param tags untag note name input artifact progress facts summary refused end close".split()
FIELDS = "v k name experiment user parent total note key step path size sha256 digest upto status exit points what why reason".split()
hostile_meta = st.builds(
    lambda time, op, fields: {"t": time, "op": op, **fields},
    st.integers(0, 1 << 41) | anything,
    st.sampled_from(OPS),
    st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6),
)


def look(store: Store) -> None:
    """Everything a reader does with every run."""
    page = store.search("", lifecycle="all", sort=["-metrics.loss", "name"])
    for run in store.runs(page.run_ids):
        assert isinstance(run, Run) and isinstance(run.name, str)
        for key, summary in run.metrics.items():
            assert summary.key == key and isinstance(summary.count, int)
        for key in run.metrics:
            try:
                store.points(run.run_id, key)
            except NotFound:
                pass  # only its summary is known
    store.experiments()
    for text in (
        "duration > 1",
        "params.lr > 0 or status = 'LOST'",
        "start > -2d and step >= 0",
        "tags.a != 'b'",
    ):
        store.search(text)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(hostile_meta, min_size=1, max_size=8))
def test_any_meta_record_is_taken_or_counted(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("meta")
    write(root, GOOD)
    journal = write(root, BAD, 3, end=False)
    with path_of(journal, "meta").open("ab") as file:
        for record in records:
            file.write(json.dumps(record).encode() + b"\n")
    with open_store(str(root)) as store:
        report = store.refresh(None, everything=True)
        assert report.damaged == ()
        good_is_there(store)
        assert store.run(BAD).run_id == BAD and steps(store) == [0, 1, 2]
        look(store)


headers = st.fixed_dictionaries(
    {"mltrack": st.just(1) | anything, "kind": st.sampled_from(["meta", "points"]) | anything},
    optional={
        "jid": st.just("ab" * 8) | st.sampled_from(["../../../../x", "AB" * 8, "a" * 15]) | anything,
        "run": st.just(BAD) | st.sampled_from(["../" * 10 + "xx", "z" * 32]) | anything,
        "attempt": st.just("1-a") | anything,
        "rank": st.sampled_from([0, 1, -1, 1 << 18, 1 << 31, 1 << 70]) | anything,
        "pid": anything,
        "host": anything,
        "boot": anything,
        "pidns": anything,
        "pstart": anything,
        "machine": anything,
        "time": anything,
        "role": anything,
    },
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(headers, st.booleans())
def test_any_first_line_is_a_journal_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], points: bool
) -> None:
    root = tmp_path_factory.mktemp("header")
    write(root, GOOD)
    folder = root / "runs" / BAD[:2] / BAD
    folder.mkdir(parents=True)
    outside = root / f"x.{BAD}"
    outside.write_text("not yours")
    record = b'[1,2,"loss",0.5]\n' if points else b'{"t":1,"op":"start","name":"n"}\n'
    (folder / f"{'points' if points else 'meta'}.{'ab' * 8}.jsonl").write_bytes(
        json.dumps(header).encode() + b"\n" + record
    )
    with open_store(str(root)) as store:
        store.refresh(None, everything=True)
        store.refresh(None)
        good_is_there(store)
        look(store)
    assert outside.exists()


# -- files that are none


def test_what_is_no_file_stops_nobody(root: Path) -> None:
    folder = root / "runs" / BAD[:2] / BAD
    folder.mkdir(parents=True)
    os.mkfifo(folder / f"points.{'1' * 16}.jsonl")
    (folder / f"meta.{'2' * 16}.jsonl").mkdir()
    (folder / f"meta.{'3' * 16}.jsonl").symlink_to("/dev/zero")
    (folder / f"meta.{'4' * 16}.jsonl").symlink_to(folder / f"meta.{'4' * 16}.jsonl")
    (folder / f"points.{'5' * 16}.jsonl").write_bytes(b"")
    (folder / f"points.{'6' * 16}.jsonl").write_bytes(b"x" * 70_000)
    for file in folder.iterdir():  # a week old: such a run does not stand in front of all that happened since
        os.utime(file, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    (root / "runs" / "zz").mkdir()
    (root / "runs" / "file").write_text("x")
    (root / "open").mkdir(exist_ok=True)
    (root / "open" / f"{'7' * 16}.{'8' * 32}").touch()
    (root / "open" / "...").mkdir()
    with open_store(str(root)) as store:
        report = store.refresh(None, everything=True)
        assert len(report.damaged) >= 3
        store.refresh(None)
        assert store.run(BAD).damage
        assert store.run(BAD).start_ms == 1_700_000_000_000
        good_is_there(store)


def test_a_newer_format_is_refused_beside_records_that_are_read(root: Path) -> None:
    journal = write(root, BAD, 5)
    header = json.loads(journal._header("points"))
    newer = {**header, "mltrack": 2, "jid": "e" * 16}
    (journal.folder / f"points.{'e' * 16}.jsonl").write_text(json.dumps(newer) + "\n" + '[9,9,"loss",9.0]\n')
    with open_store(str(root)) as store:
        report = store.refresh(None, everything=True)
        assert any("format 2" in text and "update" in text for text in report.damaged)
        run = store.run(BAD)
        assert run.damage and "format 2" in run.damage and run.status == "FINISHED"
        assert steps(store) == list(range(5))
        good_is_there(store)


# -- values, through the client


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")
    mltrack.set_store(tmp_path / "store")
    return tmp_path / "store"


def test_numbers_at_every_border_are_exact(client: Path) -> None:
    numbers = [
        0.0, -0.0, 5e-324, -5e-324, sys.float_info.max, -sys.float_info.max, sys.float_info.min, sys.float_info.epsilon,
        math.nan, math.inf, -math.inf, 1 / 3, 2.0**53, 2.0**53 + 2, 1e22, 1e23, 123456789012345.67, 0.1 + 0.2,
    ]  # fmt: skip
    places = [-BORDER, -BORDER + 1, -1, 0, 1, BORDER - 2, BORDER - 1]
    with mltrack.start_run(run_id=GOOD):
        for step, number in enumerate(numbers):
            mltrack.log_metric("value", number, step=step)
        for place in places:
            mltrack.log_metric("step", 1.0, step=place, timestamp=place)
        mltrack.log_metric("whole", 2**53, step=0)
        mltrack.log_metric("true", True, step=0)
    with fold(client) as store:
        got = store.points(GOOD, "value").values.tolist()
        pairs = zip(got, numbers, strict=True)
        assert all(
            struct.pack("<d", a) == struct.pack("<d", b) or math.isnan(a) and math.isnan(b) for a, b in pairs
        )
        points = store.points(GOOD, "step")
        assert points.steps.tolist() == places and points.times_ms.tolist() == places
        assert store.run(GOOD).metrics["step"].last_step == BORDER - 1
        assert store.run(GOOD).metrics["value"].nan_count == 1
        assert store.points(GOOD, "whole").values.tolist() == [2.0**53]
        assert store.run(GOOD).skipped == 0


def test_what_cannot_be_stored_is_refused_by_name_and_nothing_else_is(
    client: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused: list[tuple[Any, Any, Any]] = [
        ("big", 2**53 + 1, 0), ("huge", 10**400, 0), ("text", "1.0", 0), ("none", None, 0), ("list", [1, 2], 0),
        ("step", 1.0, BORDER), ("low", 1.0, -BORDER - 1), ("half", 1.0, 0.5), ("", 1.0, 0), ("k" * 1001, 1.0, 0),
        (7, 1.0, 0), ("sur\ud800", 1.0, 0), ("nanstep", 1.0, math.nan), ("infstep", 1.0, math.inf), ("strstep", 1.0, "3"),
    ]  # fmt: skip
    with mltrack.start_run(run_id=GOOD):
        for key, value, step in refused:
            mltrack.log_metric(key, value, step=step)
            mltrack.log_metrics({"fine": 1.0}, step=1)
        mltrack.log_metrics({"kept": 2.0, "dropped": "x", "also": 3.0}, step=2)  # type: ignore[dict-item]
        mltrack.log_metrics(None, step=2)  # type: ignore[arg-type]
        mltrack.log_param("large", "x" * ((1 << 20) + 1))
        mltrack.log_param("whole", "é" * (1 << 19))
        mltrack.set_tag("sur", "\udcff")
        mltrack.set_note("\ud800")
        mltrack.progress("x")  # type: ignore[arg-type]
    said = capfd.readouterr().err
    assert "was not stored" in said and "Traceback" not in said
    with fold(client) as store:
        run = store.run(GOOD)
        assert (
            set(run.metrics) == {"fine", "kept", "also"}
            and run.metrics["fine"].count == 1
            or run.metrics["fine"].count > 1
        )
        assert run.params == {"whole": "é" * (1 << 19)} and run.tags == {}
        assert len(run.facts["refused"]) == len(refused) + 6
        assert run.skipped == 0 and run.status == "FINISHED"


def test_hostile_texts_come_back_as_they_were(client: Path) -> None:
    texts = [
        "\x1b]52;c;eA==\x07", "\u202eevil", "a\nb\rc\td", "\x00", "'; DROP TABLE run; --", "{}[]\"\\", "🏳️‍🌈", "Z̸̢" * 50,
        "\u2028\u2029\x85", "%s ? :a", "[/]", " ", "\ufeff", "\U0010ffff",
    ]  # fmt: skip
    with mltrack.start_run(run_id=GOOD, run_name=texts[0]):
        for number, text in enumerate(texts):
            mltrack.log_param(text, text)
            mltrack.set_tag(text, text)
            mltrack.log_metric(text, float(number), step=1)
    with fold(client) as store:
        run = store.run(GOOD)
        assert run.name == texts[0] and run.skipped == 0
        assert run.params == {text: text for text in texts} and run.tags == run.params
        assert {key: metric.last for key, metric in run.metrics.items()} == {
            text: float(n) for n, text in enumerate(texts)
        }
        for number, text in enumerate(texts):
            assert store.points(GOOD, text).values.tolist() == [float(number)]


def test_names_that_are_not_utf_8_lose_no_record(client: Path, tmp_path: Path) -> None:
    """Bytes of the operating system that no text holds become visible escapes; the record they are in is kept."""
    odd = tmp_path / os.fsdecode(b"w\xff.bin")
    odd.write_bytes(b"data")
    with mltrack.start_run(
        run_id=GOOD, run_name="n\udcff", description="d\ud800", tags={"t": 1}, experiment="e\udc80"
    ):
        mltrack.log_artifact(odd)
        mltrack.delete_tag("x\ud800")
        mltrack.log_param("lr", 1)
    with fold(client) as store:
        run = store.run(GOOD)
        assert run.skipped == 0 and run.params == {"lr": "1"} and run.tags == {"t": "1"}
        assert (run.name, run.note, run.experiment) == ("n\\udcff", "d\\ud800", "e\\udc80")


def test_very_many_large_values_in_one_call_are_all_there(client: Path) -> None:
    """Together more than the longest line a reader takes."""
    params = {f"p{number}": "🦔" * (1 << 18) for number in range(30)}
    with mltrack.start_run(run_id=GOOD):
        mltrack.log_params(params)
        mltrack.log_metric("after", 1.0, step=1)
        mltrack.log_metrics({f"{'m' * 900}{number}": float(number) for number in range(12_000)}, step=1)
        mltrack.log_metric("after", 2.0, step=2)
    with fold(client) as store:
        run = store.run(GOOD)
        assert run.params == params and run.status == "FINISHED" and run.skipped == 0
        for path in client.glob("runs/*/*/*.jsonl"):
            assert max(map(len, path.read_bytes().splitlines())) < 32 << 20
        assert run.metrics["after"].count == 2 and len(run.metrics) == 12_001


def test_a_clock_that_jumps_back_keeps_the_order_of_attempts(client: Path) -> None:
    code = f"""
import sys, time
import mltrack.store.client.journal as journal
import mltrack.store.client.run as run
shift = int(sys.argv[1]) * 1_000_000
real = time.time_ns
for module in (journal, run):
    module.time_ns = lambda: real() + shift
import mltrack
with mltrack.start_run(run_id={GOOD!r}):
    for step in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
        mltrack.log_metric("loss", float(sys.argv[3]), step=step)
"""
    for shift, first, value in (("0", "0", "1"), ("-86400000", "5", "2"), ("-172800000", "8", "3")):
        arguments = [sys.executable, "-c", code, shift, first, value]
        subprocess.run(arguments, check=True, env={**os.environ, "MLTRACK_STORE": str(client)}, timeout=60)
    with fold(client) as store:
        points = store.points(GOOD, "loss")
        assert points.steps.tolist() == list(range(18))
        assert points.values.tolist() == [1.0] * 5 + [2.0] * 3 + [3.0] * 10
        assert store.run(GOOD).metrics["loss"].last == 3.0 and store.run(GOOD).status == "FINISHED"
