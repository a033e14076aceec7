"""What people decided: undone and redone exactly, kept when the database is lost, done or not when killed within."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import folder_of

from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, now_ms
from mltrack.store.database import Database
from mltrack.store.doctor import examine
from mltrack.store.errors import BadInput, Conflict, ExperimentNotFound, RunNotFound

RUNS = tuple(f"{digit}{digit}" * 16 for digit in "123")


def journal(root: Path, run_id: str, experiment: str = "e", at_ms: int | None = None) -> None:
    at_ms = now_ms() if at_ms is None else at_ms
    written = Journal(root, run_id, f"{at_ms:013d}-aaaaaa", identity={"host": "far"}, time_ms=at_ms)
    written.meta("start", at_ms, name=f"name of {run_id[:2]}", experiment=experiment, user="u", note="said")
    written.meta("tags", at_ms, v={"a": "journal"})
    written.meta("end", at_ms + 1, status="FINISHED", exit=0)
    written.meta("close", at_ms + 2, points=0)
    written.close()


def answer(store: Store) -> Any:
    fields = ("run_id", "name", "note", "experiment", "tags", "lifecycle", "pinned", "status")
    runs = [
        tuple(getattr(run, field) for field in fields)
        for run in sorted(store.runs([*RUNS, "9" * 32]), key=lambda run: run.run_id)
    ]
    found = {
        (text, lifecycle): sorted(store.search(text, lifecycle=lifecycle).run_ids)
        for text in ("", "tags.a = 'x'", "name = 'new'", "experiment = 'f'")
        for lifecycle in ("active", "trash")
    }
    return runs, found


run_of = st.sampled_from(RUNS)
actions = st.one_of(
    st.tuples(st.just("tag"), run_of, st.sampled_from("ab"), st.sampled_from("xy")),
    st.tuples(st.just("untag"), run_of, st.sampled_from("ab")),
    st.tuples(st.just("note"), run_of, st.sampled_from(["", "n1", "n2"])),
    st.tuples(st.just("name"), run_of, st.sampled_from(["new", "newer"])),
    st.tuples(st.just("move"), run_of, st.sampled_from("efg")),
    st.tuples(st.just("pin"), run_of, st.booleans()),
    st.tuples(st.just("trash"), run_of),
    st.tuples(st.just("restore"), run_of),
    st.tuples(st.just("rename_experiment"), st.sampled_from("efg"), st.sampled_from("efgh")),
    st.tuples(st.just("undo")),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
    st.tuples(st.just("reopen")),
)


def act(store: Store, action: tuple[Any, ...]) -> None:
    what, *rest = action
    if what == "tag":
        store.set_tags([rest[0]], {rest[1]: rest[2]})
    elif what == "untag":
        store.delete_tags([rest[0]], [rest[1]])
    elif what == "note":
        store.note(rest[0], rest[1])
    elif what == "name":
        store.rename(rest[0], rest[1])
    elif what == "move":
        store.move([rest[0]], rest[1])
    elif what == "pin":
        store.pin([rest[0]], rest[1])
    elif what in ("trash", "restore"):
        getattr(store, what)([rest[0]])
    else:
        store.rename_experiment(rest[0], rest[1])


def play(address: str, chosen: list[tuple[Any, ...]]) -> Any:
    """Do the actions beside a model that only remembers what the answers were."""
    done: list[tuple[Any, Any]] = []
    undone: list[tuple[Any, Any]] = []
    store = open_store(address)
    store.refresh(None)
    for action in chosen:
        before = answer(store)
        if action[0] == "reopen":
            store.close()
            store = open_store(address)
            assert answer(store) == before
        elif action[0] in ("undo", "redo"):
            source, target = (done, undone) if action[0] == "undo" else (undone, done)
            try:
                getattr(store, action[0])()
            except (BadInput, Conflict) as error:
                assert answer(store) == before
                assert isinstance(error, Conflict) or not source
                if isinstance(error, Conflict):
                    break
                continue
            earlier, later = source.pop()
            assert answer(store) == (earlier if action[0] == "undo" else later)
            target.append((earlier, later))
        else:
            try:
                act(store, action)
            except (Conflict, BadInput, RunNotFound, ExperimentNotFound) as error:
                assert answer(store) == before, error
                continue
            done.append((before, answer(store)))
            undone.clear()
    found = answer(store)
    store.close()
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(actions, max_size=14))
def test_undo_and_redo_restore_exactly_and_all_survives_the_database(chosen: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, other = Path(folder) / "store", Path(folder) / "other"
        for run_id in RUNS:
            journal(root, run_id, at_ms=1_700_000_000_000)
        found = play(str(root), chosen)
        shutil.copytree(root, other)
        for path in root.glob("mltrack.db*"):
            path.unlink()
        with open_store(str(root)) as store:  # decisions first, journals later
            store.refresh(None)
            assert answer(store) == found
        for path in other.glob("mltrack.db*"):
            path.unlink()
        examine(other, other / "mltrack.db")  # journals first, decisions later
        with open_store(str(other)) as store:
            assert answer(store) == found
            store.refresh(None, everything=True)
            assert answer(store) == found


@settings(
    max_examples=15,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(st.lists(actions, max_size=14))
def test_undo_and_redo_restore_exactly_on_postgresql(
    postgres: Callable[[], Database], postgres_url: str, chosen: list[tuple[Any, ...]]
) -> None:
    postgres()
    root = folder_of(postgres_url)
    shutil.rmtree(root, ignore_errors=True)  # of the example before
    for run_id in RUNS:
        journal(root, run_id, at_ms=1_700_000_000_000)
    play(postgres_url, chosen)


def test_a_rename_holds_for_late_journals_and_not_for_later_runs(tmp_path: Path) -> None:
    early, late, later = RUNS
    long_ago = now_ms() - 1_000_000
    journal(tmp_path, early, "e", long_ago)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        store.rename_experiment("e", "f")
        journal(tmp_path, late, "e", long_ago + 5)
        journal(tmp_path, later, "e", now_ms() + 60_000)
        store.refresh(None)
        expected = [("f", early), ("f", late), ("e", later)]
        assert [(run.experiment, run.run_id) for run in store.runs(RUNS)] == expected
    for rebuild in ("open", "doctor"):
        for path in tmp_path.glob("mltrack.db*"):
            path.unlink()
        if rebuild == "doctor":
            examine(tmp_path, tmp_path / "mltrack.db")
        with open_store(str(tmp_path)) as store:
            store.refresh(None)
            assert [(run.experiment, run.run_id) for run in store.runs(RUNS)] == expected
            assert sorted(experiment.name for experiment in store.experiments() if experiment.runs) == [
                "e",
                "f",
            ]


def test_what_was_purged_stays_gone(tmp_path: Path) -> None:
    for run_id in RUNS:
        journal(tmp_path, run_id)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "runs", copy)
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        store.trash([RUNS[0]])
        store.purge([RUNS[0]])
        assert not (tmp_path / "runs" / "11" / RUNS[0]).exists()
        with pytest.raises(Conflict, match="files are gone"):
            store.undo()
    shutil.copytree(copy, tmp_path / "runs", dirs_exist_ok=True)  # a copy brings its files back
    for lost in (False, True):
        if lost:
            for path in tmp_path.glob("mltrack.db*"):
                path.unlink()
        with open_store(str(tmp_path)) as store:
            store.fold_folder(copy / "11" / RUNS[0])
            store.refresh(None, everything=True)
            assert sorted(store.search("").run_ids) == list(RUNS[1:])
            assert store.runs([RUNS[0]]) == []


DECIDING = """
import os, sys
from mltrack.store import open_store
acks, run, prefix = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open_store() as store:
    for number in range(100_000):
        store.set_tags([run], {f"{prefix}{number}": str(number)})
        os.write(acks, b".")
"""


def test_a_kill_within_a_decision_leaves_it_done_or_not(store_root: Path) -> None:
    chance = random.Random(os.urandom(8))
    journal(store_root, RUNS[0])
    with open_store() as store:
        store.refresh(None)
    for number in range(10):
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", DECIDING, str(writer), RUNS[0], f"r{number}."],
            pass_fds=[writer],
        )
        os.close(writer)
        acked = len(os.read(reader, 65536))
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.wait()
        while got := os.read(reader, 65536):
            acked += len(got)
        os.close(reader)
        with open_store() as store:
            tags = store.run(RUNS[0]).tags
            mine = [key for key in tags if key.startswith(f"r{number}.")]
            assert len(mine) in (acked, acked + 1)
            assert all(tags[f"r{number}.{place}"] == str(place) for place in range(len(mine)))
            if store.database.kind == "sqlite":
                assert store.database.execute("PRAGMA integrity_check")[0][0] == "ok"
    with open_store() as store:
        tags, kind = store.run(RUNS[0]).tags, store.database.kind
    if kind == "postgresql":
        return
    for path in store_root.glob("mltrack.db*"):
        path.unlink()
    with open_store() as store:
        store.refresh(None)
        assert store.run(RUNS[0]).tags == tags


def test_many_deciders_lose_nothing(store_root: Path) -> None:
    journal(store_root, RUNS[0])
    with open_store() as store:
        store.refresh(None)
    code = DECIDING.replace("100_000", "25").replace("os.write(acks, b'.')", "pass")
    processes = [
        subprocess.Popen([sys.executable, "-c", code, "1", RUNS[0], f"p{number}."], stdout=subprocess.PIPE)
        for number in range(6)
    ]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    expected = {f"p{number}.{place}": str(place) for number in range(6) for place in range(25)} | {
        "a": "journal"
    }
    with open_store() as store:
        assert store.run(RUNS[0]).tags == expected
        assert store.database.execute("SELECT count(*) FROM decision")[0][0] == 150
        if store.database.kind == "sqlite":
            assert len((store_root / "decisions.jsonl").read_bytes().splitlines()) == 150


def test_garbage_in_the_file_of_decisions_hides_none(tmp_path: Path) -> None:
    journal(tmp_path, RUNS[0])
    file = tmp_path / "decisions.jsonl"
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        store.set_tags([RUNS[0]], {"one": "1"})
    with file.open("ab") as writer:
        writer.write(b'\x00\xff garbage\n[1]\n{"id": "x"}\n{"id": "y", "ops": 5, "time": "z"}\n{"torn": ')
    with open_store(str(tmp_path)) as store:
        store.set_tags([RUNS[0]], {"two": "2"})
        assert store.run(RUNS[0]).tags == {"a": "journal", "one": "1", "two": "2"}
    for path in tmp_path.glob("mltrack.db*"):
        path.unlink()
    with open_store(str(tmp_path)) as store:
        store.refresh(None)
        assert store.run(RUNS[0]).tags == {"a": "journal", "one": "1", "two": "2"}
