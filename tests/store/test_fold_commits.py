"""Many small journals share a commit: a bad one costs its neighbours nothing, and a kill within it leaves no half."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import Store, fold, fold_commit, open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.database import Database, open_sqlite
from mltrack.store.errors import NotFound
from mltrack.store.journal_state import RunState
from mltrack.store.records import Location

START_MS = 1_700_000_000_000
HOW_MANY = 60
METRICS = 5
BAD = "no database takes this"
# Longer than a row of an index of PostgreSQL.
HUGE = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(3000))


def run_id(number: int) -> str:
    return f"{number % 7:02x}{number:030x}"


def write(root: Path, number: int, experiment: str = "e") -> None:
    """A run that has ended, of few points, with what its writer's summary says of them."""
    journal = Journal(root, run_id(number), f"{START_MS:013d}-aaaaaa", identity={"host": "far"})
    journal.meta("start", START_MS, name=f"run {number}", experiment=experiment, user="u")
    journal.meta("param", v={"lr": str(number), "seed": "1"})
    points = journal.points()
    for step in range(3):
        points.append(
            points_line(step, START_MS + step, {f"m{key}": number + step / 4 for key in range(METRICS)})
        )
    fields = [0, 2, START_MS + 2, number + 0.5, number, 0, number + 0.5, 2, 3, 0]
    journal.meta("summary", upto=points.size, v={f"m{key}": fields for key in range(METRICS)})
    journal.meta("end", START_MS + 9, status="FINISHED", exit=0)
    journal.meta("close", points=points.size)
    journal.close()


def is_whole(store: Store, number: int) -> bool:
    (run,) = store.runs([run_id(number)])
    try:
        points = store.points(run.run_id, "m0")
    except NotFound:
        return False
    return (
        (run.name, run.status, run.damage, run.skipped) == (f"run {number}", "FINISHED", None, 0)
        and run.params == {"lr": str(number), "seed": "1"}
        and {summary.count for summary in run.metrics.values()} == {3}
        and len(run.metrics) == METRICS
        and points.values.tolist() == [number, number + 0.25, number + 0.5]
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store over the journals of a folder, in each of the engines."""
    if request.param == "postgresql":
        database: Database = request.getfixturevalue("postgres")()
    else:
        database = open_sqlite(tmp_path / "mltrack.db", tmp_path)
    found = Store(database, tmp_path, Location(tmp_path, database.where, database.kind, "test", ()))
    yield found
    found.close()


def count_statements(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each statement goes to a database from now on, by its first word."""
    counts: dict[str, int] = {}
    run = Database.execute

    def counted(database: Database, sql: str, parameters: object = ()) -> list[tuple[object, ...]]:
        word = sql.split()[0]
        counts[word] = counts.get(word, 0) + 1
        return run(database, sql, parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(Database, "execute", counted)
    return counts


def test_small_journals_share_a_commit_and_few_statements(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (fold, fold_commit):
        monkeypatch.setattr(module, "COMMIT_SECONDS", 600.0)  # however slow the machine is
    for number in range(HOW_MANY):
        write(tmp_path, number)
    counts = count_statements(monkeypatch)
    report = store.refresh(None)
    assert report.points == HOW_MANY * METRICS * 3 and report.pending_bytes == 0
    assert counts["COMMIT"] < 10
    assert sum(counts.values()) < 20 * HOW_MANY, counts
    assert all(is_whole(store, number) for number in range(HOW_MANY))
    assert not list((tmp_path / "open").iterdir())


def test_a_followed_run_that_says_nothing_new_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals = [Journal(tmp_path, run_id(number), f"{START_MS:013d}-aaaaaa") for number in range(20)]
    for journal in journals:
        journal.meta("start", START_MS, name="live", experiment="e", user="u")
    store.refresh(None)
    counts = count_statements(monkeypatch)
    store.refresh(None)
    assert counts.get("COMMIT", 0) <= 1 and "UPDATE" not in counts  # one may remember new folders of runs
    journals[7].points().append(points_line(1, START_MS, {"m": 1.0}))
    assert store.refresh(None).points == 1
    for journal in journals:
        journal.close()


def refuse_huge_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses them by itself. SQLite takes everything that passes our own checks, so a fault of ours stands in."""
    if store.database.kind == "postgresql":
        return
    fold_meta = fold_commit.fold_meta

    def refusing(database: Database, state: RunState, *rest: Any) -> int:
        taken = fold_meta(database, state, *rest)
        if state.get("first", {}).get("experiment") == HUGE:
            raise ValueError(BAD)
        return taken

    monkeypatch.setattr(fold_commit, "fold_meta", refusing)


@pytest.mark.parametrize("bad", [(0,), (HOW_MANY - 1,), (7, 8, 30), tuple(range(0, HOW_MANY, 2))])
def test_a_bad_journal_costs_its_neighbours_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[int, ...]
) -> None:
    refuse_huge_names(store, monkeypatch)
    for number in range(HOW_MANY):
        write(tmp_path, number, HUGE if number in bad else "e")
    report = store.refresh(None)
    reason = BAD if store.database.kind == "sqlite" else "PostgreSQL cannot hold"
    assert len(report.damaged) == len(bad) and all(reason in text for text in report.damaged)
    for number in range(HOW_MANY):
        if number in bad:
            (run,) = store.runs([run_id(number)])
            assert reason in str(run.damage)
        else:
            assert is_whole(store, number)
    seq = store.database.setting("seq")
    assert len(store.refresh(None).damaged) == len(bad)
    assert store.database.setting("seq") == seq, "nothing changed, so nobody is told that something did"
    if store.database.kind == "sqlite":
        monkeypatch.undo()
        store.refresh(None, everything=True)
        assert {run.name for run in store.runs([run_id(number) for number in bad])} == {
            f"run {n}" for n in bad
        }
        assert all(store.points(run_id(number), "m1").values.tolist()[0] == number for number in bad)


def test_a_bad_journal_does_not_hold_up_short_refreshes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refresh has time for no more than one group, and the first of them has a bad one in it."""
    refuse_huge_names(store, monkeypatch)
    for number in range(HOW_MANY):
        write(tmp_path, number, HUGE if number % 9 == 0 else "e")
    good = [number for number in range(HOW_MANY) if number % 9]
    for _ in range(HOW_MANY):
        store.refresh(0.0001)
        if len(store.runs([run_id(number) for number in good])) == len(good):
            break
    assert all(is_whole(store, number) for number in good)


FOLDER = """
import sys
from mltrack.store import fold, open_store
fold.COMMIT_JOURNALS = 20  # many commits
with open_store(sys.argv[1]) as store:
    sys.stdout.write("f")
    sys.stdout.flush()
    store.refresh(None)
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_fold_killed_within_a_commit_leaves_every_journal_whole_or_not_there(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(os.urandom(8))
    many = 200
    written = tmp_path / "written"
    for number in range(many):
        write(written, number)
    emptied: Callable[[], Database] | None = None
    where = str(tmp_path / "store")
    if engine == "postgresql":
        emptied = request.getfixturevalue("postgres")
        where = request.getfixturevalue("postgres_url")
        monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "spool"))
    within = 0
    for _ in range(12):
        if emptied is not None:
            emptied()
        with open_store(where) as store:
            root = store.root
        shutil.copytree(written, root, dirs_exist_ok=True)
        process = subprocess.Popen([sys.executable, "-c", FOLDER, where], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.read(1) == b"f"
        wanted = chance.randrange(many * 3 // 4)
        with open_store(where, readonly=True) as store:
            while process.poll() is None:
                if store.database.execute("SELECT count(*) FROM run")[0][0] >= wanted:
                    break
                time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.wait()
        process.stdout.close()
        with open_store(where) as store:
            there = {run.run_id for run in store.runs([run_id(number) for number in range(many)])}
            within += 0 < len(there) < many
            halves = [
                number for number in range(many) if run_id(number) in there and not is_whole(store, number)
            ]
            # The time of a commit may end between the two journals of a run: then its summary stands in for its points.
            assert len(halves) <= 1
            for run in store.runs([run_id(number) for number in halves]):
                assert run.status == "FINISHED" and {summary.count for summary in run.metrics.values()} == {3}
            report = store.refresh(None)
            assert report.points == (many - len(there) + len(halves)) * METRICS * 3, "each point once"
            assert not report.damaged
            assert all(is_whole(store, number) for number in range(many))
        shutil.rmtree(root)
        if within > 1:
            return
    assert within, "no round was killed within the fold: make the store larger"
