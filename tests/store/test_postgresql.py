"""PostgreSQL answers as SQLite does: the same journals and decisions, whatever texts are in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.store import Store, open_store
from mltrack.store.client.journal import points_line
from mltrack.store.database import Database, open_sqlite
from mltrack.store.errors import BadInput
from mltrack.store.records import Location

RUNS = tuple(f"a{number}" * 16 for number in range(4))
HEADER = {"mltrack": 1, "rank": 0, "role": "main", "host": "far", "pid": 7, "time": 1_700_000_000_000}
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
SORTS = ((), ("name",), ("-name", "start"), ("params.p",), ("-params.p",), ("tags.t desc",), ("-m", "name"))

# All of Unicode but surrogates, with more than chance would give of what databases find special.
texts = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\0\x01\x02%_\\'\"?aAÄä\U0001f600")),
    max_size=12,
)
keys = texts.filter(bool)
said = st.fixed_dictionaries(
    {
        "name": keys,
        "experiment": keys,
        "user": texts,
        "note": texts,
        "params": st.dictionaries(st.one_of(keys, st.just("p")), texts, max_size=3),
        "tags": st.dictionaries(st.one_of(keys, st.just("t")), texts, max_size=3),
        "metrics": st.dictionaries(st.one_of(keys, st.just("m")), st.floats(), max_size=3),
        "input": texts,
        "artifact": keys,
        "tagged": st.one_of(st.none(), st.tuples(keys, texts)),
        "renamed": st.one_of(st.none(), keys),
        "noted": st.one_of(st.none(), texts),
    }
)


def journals(root: Path, run_id: str, record: dict[str, Any]) -> None:
    folder = root / "runs" / run_id[:2] / run_id
    folder.mkdir(parents=True)
    at = 1_700_000_000_000
    start = {name: record[name] for name in ("name", "experiment", "user", "note")}
    meta = [
        {"op": "start", **start},
        {"op": "param", "v": record["params"]},
        {"op": "tags", "v": record["tags"]},
        {"op": "input", "name": record["input"], "digest": record["input"], "source": record["input"]},
        {"op": "artifact", "path": record["artifact"], "size": 1, "sha256": "00"},
        {"op": "facts", "v": {"said": record["note"]}},
        {"op": "end", "status": "FINISHED", "exit": 0},
    ]
    lines: dict[str, list[bytes]] = {
        "meta": [json.dumps({"t": at + number, **each}).encode() for number, each in enumerate(meta)],
        "points": [points_line(1, at, record["metrics"])[:-1]] if record["metrics"] else [],
    }
    jid = run_id[:16]
    for kind, body in lines.items():
        head = json.dumps(
            {**HEADER, "kind": kind, "jid": jid, "run": run_id, "attempt": "0001700000000-aaaaaa"}
        )
        (folder / f"{kind}.{jid}.jsonl").write_bytes(b"\n".join([head.encode(), *body, b""]))


def decide(store: Store, records: list[dict[str, Any]]) -> None:
    for run_id, record in zip(RUNS, records, strict=False):
        if record["tagged"] is not None:
            store.set_tags([run_id], dict([record["tagged"]]))
        if record["renamed"] is not None:
            store.rename(run_id, record["renamed"])
        if record["noted"] is not None:
            store.note(run_id, record["noted"])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def answer(store: Store, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is shown of the runs, and what searches for their own texts find."""
    found: dict[str, Any] = {}
    for run in store.runs(RUNS):
        shown = asdict(run)
        del shown["folder"], shown["metrics"], shown["quiet"]
        found[run.run_id] = shown, repr(run.metrics)  # NaN is NaN here
        for key in run.metrics:
            got = store.points(run.run_id, key)
            found[f"{run.run_id} {key}"] = got.steps.tobytes(), got.values.tobytes()
    questions = {""}
    for record in records:
        questions |= {
            f"name = {quoted(record['name'])}",
            f"name ilike {quoted(record['name'][:3] + '%')}",
            f"note != {quoted(record['note'])}",
            f"dataset.name = {quoted(record['input'])}",
            f"experiment in ({quoted(record['experiment'])})",
        }
        questions |= {
            f"params.`{key}` = {quoted(value)}" for key, value in record["params"].items() if "`" not in key
        }
        questions |= {f"tags.`{key}` is not null" for key in record["tags"] if "`" not in key}
        questions |= {f"metrics.`{key}` > 0" for key in record["metrics"] if "`" not in key}
    for question in sorted(questions):
        found[f"? {question}"] = sorted(store.search(question).run_ids)
    for sort in SORTS:
        found[f"by {sort}"] = store.search("", sort=sort).run_ids
    for kind in ("param", "metric", "tag"):
        found[kind] = sorted(store.keys(kind))
    found["experiments"] = sorted(each.name for each in store.experiments())
    return found


@settings(max_examples=30, suppress_health_check=SLOW)
@given(st.lists(said, min_size=1, max_size=4))
def test_any_texts_give_the_answers_of_sqlite(
    postgres: Callable[[], Database], records: list[dict[str, Any]]
) -> None:
    database = postgres()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for run_id, record in zip(RUNS, records, strict=False):
            journals(root, run_id, record)
        answers = []
        for engine in (database, open_sqlite(root / "mltrack.db", root)):
            store = Store(engine, root, Location(root, engine.where, engine.kind, "test", ()))
            report = store.refresh(None, everything=True)
            assert (report.damaged, report.skipped) == ((), 0)
            decide(store, records)
            answers.append(answer(store, records))
        store.close()
    assert answers[0] == answers[1]
    for run_id, record in zip(RUNS, records, strict=False):
        assert run_id in answers[0][f"? name = {quoted(record['name'])}"] or record["renamed"] is not None


@pytest.mark.parametrize("where", ["key", "name", "path"])
def test_what_postgresql_cannot_hold_costs_its_run_and_says_so(
    postgres: Callable[[], Database], tmp_path: Path, where: str
) -> None:
    """Longer than our client writes: a row of an index has room for 2,704 bytes."""
    plain: dict[str, Any] = {
        "name": "n", "experiment": "e", "user": "u", "note": "", "params": {}, "tags": {}, "metrics": {"m": 1.0},
        "input": "i", "artifact": "a",
    }  # fmt: skip
    huge = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(3000))
    bad = {"key": {"params": {huge: "1"}}, "name": {"experiment": huge}, "path": {"artifact": huge}}[where]
    journals(tmp_path, RUNS[0], {**plain, **bad})
    journals(tmp_path, RUNS[1], plain)
    database = postgres()
    store = Store(database, tmp_path, Location(tmp_path, database.where, database.kind, "test", ()))
    report = store.refresh(None, everything=True)
    assert "PostgreSQL cannot hold" in report.damaged[0]
    damaged, healthy = store.runs(RUNS[:2])
    assert "PostgreSQL cannot hold" in str(damaged.damage)
    assert healthy.damage is None and healthy.params == {} and healthy.metrics["m"].last == 1.0
    assert RUNS[1] in store.search("metrics.m > 0").run_ids
    longest = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(666))
    store.set_tags([RUNS[1]], {longest: huge, "\0" * 1000: huge})
    assert store.run(RUNS[1]).tags == {longest: huge, "\0" * 1000: huge}
    with pytest.raises(BadInput, match="2000 bytes"):
        store.set_tags([RUNS[1]], {longest + "ää": huge})


TRAINING = """
import sys, time, mltrack
with mltrack.start_run(run_name="far") as run:
    print(run.run_id, flush=True)
    for step in range(400):
        mltrack.log_metric("m", step * 0.5, step)
        time.sleep(0.005)
    sys.stdin.readline()
"""


def test_a_training_holds_no_connection_to_its_postgresql_store(
    postgres_url: str, store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred trainings of one machine are one connection: that of the companion, which sends their journals on."""
    monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "spool"))
    with open_store(postgres_url) as store:
        trainings = [
            subprocess.Popen(
                [sys.executable, "-c", TRAINING],
                env={**os.environ, "MLTRACK_STORE": postgres_url},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        try:
            run_ids = [str(training.stdout and training.stdout.readline()).strip() for training in trainings]
            deadline = time.monotonic() + 60
            everything_sent = False
            while not everything_sent:
                assert time.monotonic() < deadline, "not all of it was sent"
                for training in trainings:
                    process = psutil.Process(training.pid)
                    assert process.net_connections(kind="all") == []
                    assert "psycopg" not in Path(f"/proc/{training.pid}/maps").read_text()
                found = store.runs(run_ids)
                everything_sent = [run.metrics["m"].count for run in found if "m" in run.metrics] == [400] * 3
                time.sleep(0.02)
            ports = store.database.execute(
                "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            owners = {
                connection.pid
                for connection in psutil.net_connections("tcp")
                if connection.laddr and (connection.laddr.port,) in ports
            }
            assert len(ports) == 1 and owners.isdisjoint(training.pid for training in trainings)
            for training in trainings:
                assert training.stdin is not None
                training.stdin.write("\n")
                training.stdin.close()
            assert [training.wait(60) for training in trainings] == [0, 0, 0]
        finally:
            for training in trainings:
                training.kill()
                training.wait()
