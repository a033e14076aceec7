"""A damaged database beside a registry, notes and tags: said in a sentence, and rebuilt with everything that was decided."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import Store, open_store
from mltrack.store.client.journal import Journal, points_line
from mltrack.store.doctor import examine
from mltrack.store.errors import MltrackError, StoreDamaged

T0 = 1_700_000_000_000
RUNS = tuple(f"{number:032x}" for number in range(12))
PAGE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store with runs, decisions about them, and a registry with a history; and all its answers."""
    root = tmp_path_factory.mktemp("sound") / "store"
    chance = random.Random(1)
    for number, run_id in enumerate(RUNS):
        journal = Journal(root, run_id, f"{T0 + number}-aaaaaa", identity={"host": "far"}, time_ms=T0)
        journal.meta("start", T0, name=f"run {number}", experiment=f"e{number % 2}", user="ann")
        journal.meta("param", T0, v={"lr": str(chance.random()), "text": "x" * 400})
        file = journal.points()
        for step in range(600):
            file.append(points_line(step, T0 + step, {"loss": chance.random(), "acc": step / 3}))
        journal.meta("end", T0 + 900, status="FINISHED", exit=0)
        journal.meta("close", T0 + 900, points=file.size)
        journal.close()
    with open_store(str(root)) as store:
        store.refresh(None)
        for number, run_id in enumerate(RUNS):
            store.set_tags([run_id], {"team": f"t{number % 3}", "note": "y" * 300})
            store.note(run_id, f"what was seen in {number}: " + "z" * 200)
        store.rename(RUNS[1], "the good one")
        store.move(RUNS[2:4], "moved")
        store.trash([RUNS[4]])
        store.purge([RUNS[5]])
        store.rename_experiment("e0", "renamed")
        for source in ("a", "b", "c"):
            store.registry.register("m", source, reason="because")
        store.registry.promote("m", 2, "Production", "good")
        store.registry.set_alias("m", "champion", 2)
        store.registry.promote("m", 3, "Production", "better")
        store.pin([RUNS[6]])
        store.undo()
        answers = answer(store)
    return root, answers


def answer(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for run in store.runs(RUNS):
        found[run.run_id] = (
            run.name, run.experiment, run.status, run.params, run.tags, run.note, run.lifecycle, run.pinned, run.metrics,
        )  # fmt: skip
        for key in run.metrics:
            points = store.points(run.run_id, key)
            found[f"{run.run_id} {key}"] = points.steps.tobytes(), points.values.tobytes()
    for question in ("", "team = t1 and loss.min < 0.5", "acc > 100"):
        found[f"? {question}"] = sorted(store.search(question, sort=["-loss"]).run_ids)
    found["models"] = store.registry.versions("m"), store.registry.audit(), store.registry.verify_audit()
    return found


def whole(path: Path) -> None:
    """All of the database in one file, so that damage to that file is damage."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def pages(path: Path, chance: random.Random) -> None:
    whole(path)
    count = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        for page in chance.sample(range(1, count), chance.choice([1, 2, 5, 20])):
            file.seek(page * PAGE)
            file.write(os.urandom(PAGE) if chance.random() < 0.7 else bytes(PAGE))


def header(path: Path, chance: random.Random) -> None:
    whole(path)
    with path.open("r+b") as file:
        file.seek(chance.choice([0, 16, 100]))
        file.write(os.urandom(80))


def cut(path: Path, chance: random.Random) -> None:
    whole(path)
    os.truncate(path, chance.randrange(path.stat().st_size))


def garbage_log(path: Path, chance: random.Random) -> None:
    whole(path)
    path.with_name(path.name + "-wal").write_bytes(os.urandom(chance.choice([10, 5000, 100_000])))


def gone(path: Path, chance: random.Random) -> None:
    whole(path)
    path.unlink()


DAMAGES: list[Callable[[Path, random.Random], None]] = [pages, pages, pages, header, cut, garbage_log, gone]


def damaged_copy(root: Path, target: Path, damage: Callable[[Path, random.Random], None], seed: str) -> Path:
    shutil.copytree(root, target)
    damage(target / "mltrack.db", random.Random(seed))
    return target


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_no_damage_gives_a_wrong_answer_or_anything_but_a_sentence(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path, number: int
) -> None:
    root, expected = sound
    for attempt in range(4):
        copy = damaged_copy(root, tmp_path / str(attempt), DAMAGES[number], f"{number}.{attempt}")
        try:
            with open_store(str(copy)) as store:
                store.refresh(None)
                if DAMAGES[number] is not gone:
                    got = answer(store)
                    assert got == expected
        except MltrackError as error:
            assert isinstance(error, StoreDamaged) and "mltrack doctor" in str(error)


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_the_doctor_brings_everything_back(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path, number: int
) -> None:
    root, expected = sound
    for attempt in range(2):
        copy = damaged_copy(root, tmp_path / str(attempt), DAMAGES[number], f"{number}.{attempt}")
        only_looked = examine(copy, copy / "mltrack.db", repair=False)
        diagnosis = examine(copy, copy / "mltrack.db")
        assert only_looked.healthy == diagnosis.healthy
        with open_store(str(copy)) as store:
            assert answer(store) == expected, diagnosis.said
            assert store.database.execute("PRAGMA integrity_check") == [("ok",)]
        if not diagnosis.healthy and DAMAGES[number] is not gone:
            assert list((copy / "backups").glob("damaged-*.db")), "the damaged file is kept"
        assert any("12 runs" in said or "11 runs" in said for said in diagnosis.said)
        assert examine(copy, copy / "mltrack.db").healthy


def test_a_backup_helps_where_sealed_journals_were_dropped(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, expected = sound
    copy = tmp_path / "store"
    shutil.copytree(root, copy)
    with open_store(str(copy)) as store:
        store.gc(journals=True)
        store.gc(journals=True)
        backup = store.backup()
        store.note(RUNS[0], "decided after the backup")
    assert not list(copy.glob("runs/*/*/*.jsonl*"))
    pages(copy / "mltrack.db", random.Random(3))
    (copy / "mltrack.db").write_bytes(os.urandom(9999))
    diagnosis = examine(copy, copy / "mltrack.db")
    assert any(backup.name in said for said in diagnosis.said)
    with open_store(str(copy)) as store:
        assert store.run(RUNS[0]).note == "decided after the backup"
        store.note(RUNS[0], expected[RUNS[0]][5])
        assert answer(store) == expected


def test_decisions_whose_file_is_lost_are_salvaged_from_the_damaged_database(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, expected = sound
    copy = tmp_path / "store"
    shutil.copytree(root, copy)
    (copy / "decisions.jsonl").unlink()
    path = copy / "mltrack.db"
    whole(path)
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'param'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(os.urandom(PAGE))
    diagnosis = examine(copy, path)
    assert not diagnosis.healthy and any("known nowhere else" in said for said in diagnosis.said)
    with open_store(str(copy)) as store:
        assert answer(store) == expected
