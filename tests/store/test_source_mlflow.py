"""MLflow's own files and databases, written by MLflow, read by us: equal to what its client reads back, and never touched."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import open_store
from mltrack.store.doctor import examine
from mltrack.store.errors import Conflict
from mltrack.store.import_source import import_source
from mltrack.store.store import Store

SCRIPTS = Path(__file__).parents[1] / "data" / "mlflow"


def mlflow_does(python: Path, script: str, uri: str, work: Path) -> str:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "GIT_PYTHON_REFRESH": "quiet"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), "-W", "ignore", str(SCRIPTS / script), uri],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(
    scope="session", params=["mlflow_python", pytest.param("mlflow2_python", marks=pytest.mark.long)]
)
def python(request: pytest.FixtureRequest) -> Path:
    """An interpreter with today's MLflow, then one with 2.x, which .ci/long asks."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Path)
    return found


@pytest.fixture(scope="session")
def folder(python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An mlruns folder that this MLflow wrote, and what its client reads back."""
    work = tmp_path_factory.mktemp("mlflow-folder")
    uri = (work / "mlruns").as_uri()
    mlflow_does(python, "write.py", uri, work)
    return work / "mlruns", json.loads(mlflow_does(python, "read.py", uri, work))


@pytest.fixture(scope="session")
def database(python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An mlflow.db that this MLflow wrote, and what its client reads back."""
    work = tmp_path_factory.mktemp("mlflow-db")
    uri = f"sqlite:///{work / 'mlflow.db'}"
    mlflow_does(python, "write.py", uri, work)
    return work / "mlflow.db", json.loads(mlflow_does(python, "read.py", uri, work))


def files_below(root: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder, as far as a write would show."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mtime_ns,
            path.lstat().st_ctime_ns,
            path.lstat().st_size,
        )
        for path in [root, *root.rglob("*")]
    }


def by_rule(points: list[list[Any]]) -> list[tuple[int, int, str]]:
    """Points in the order of (step, time, value), each once."""
    found = {(int(step), int(at), str(value)) for step, at, value in points}

    def order(point: tuple[int, int, str]) -> tuple[int, int, float]:
        value = float.fromhex(point[2])
        return point[0], point[1], -math.inf if math.isnan(value) else value

    return sorted(found, key=order)


def assert_equal(store: Store, expected: dict[str, Any]) -> None:
    """Every run, param, tag, point, file, dataset, model and version is what MLflow's client says."""
    found = {run.run_id: run for run in store.runs(store.search("", lifecycle="all").run_ids)}
    assert set(found) == set(expected["runs"])
    for run_id, said in expected["runs"].items():
        run = found[run_id]
        assert run.damage is None and run.skipped == 0
        assert (run.name, run.experiment, run.status) == (said["name"], said["experiment"], said["status"])
        assert (run.start_ms, run.end_ms) == (said["start"], said["end"])
        assert (run.lifecycle == "active") == said["active"]
        assert run.params == said["params"]
        assert run.tags == said["tags"]
        assert run.parent_id == said["tags"].get("mlflow.parentRunId")
        assert run.note == said["tags"].get("mlflow.note.content", "")
        assert set(run.metrics) == set(said["points"])
        for key, points in said["points"].items():
            mine = store.points(run_id, key)
            got = list(zip(mine.steps.tolist(), mine.times_ms.tolist(), mine.values.tolist(), strict=True))
            assert [(step, at, value.hex()) for step, at, value in got] == by_rule(points), key
        assert [[each["name"], each["digest"], each["context"]] for each in run.inputs] == said["inputs"]
        listed = (
            [] if run.artifacts is None else [path for path in run.artifacts.rglob("*") if path.is_file()]
        )
        assert sorted(str(path.relative_to(run.artifacts or "")) for path in listed) == said["artifacts"]
    assert set(store.registry.models()) == set(expected["models"])
    for name, said in expected["models"].items():
        model = store.registry.model(name)
        assert (model.description or None, model.tags) == (said["description"] or None, said["tags"])
        versions = {str(version.version): version for version in store.registry.versions(name)}
        assert set(versions) == set(said["versions"])
        for number, row in said["versions"].items():
            mine_version = versions[number]
            assert (mine_version.stage, mine_version.source) == (row["stage"], row["source"])
            assert (mine_version.run_id, mine_version.description) == (
                row["run_id"] or "",
                row["description"] or "",
            )
            assert (mine_version.tags, list(mine_version.aliases)) == (row["tags"], row["aliases"])
            assert mine_version.created_ms == row["created"]
    mine_models = logged_models(store)
    for model_id, told in expected["logged"].items():
        known = mine_models[model_id]["metrics"]
        assert len(known) == 5 * bool(told["metrics"])
        if len(told["metrics"]) < len(
            known
        ):  # of a folder MLflow's client tells the newest of each name only
            mine_models[model_id]["metrics"] = known[-2:]
    assert mine_models == expected["logged"]
    links = store.database.execute(
        "SELECT r.run_id, l.model_id, l.way, l.step FROM model_link l JOIN run r ON r.id = l.run"
    )
    assert sorted([list(link) for link in links]) == expected["links"]
    for name, tags in expected["experiments"].items():
        rows = store.database.execute(
            "SELECT t.key, t.value FROM experiment_tag t JOIN experiment e ON e.id = t.experiment_id WHERE e.name = ?",
            (name,),
        )
        assert dict(rows) == tags


def logged_models(store: Store) -> dict[str, Any]:
    """Logged models as read.py tells them."""
    found: dict[str, Any] = {}
    for row in store.database.execute(
        "SELECT m.model_id, m.name, e.name, m.run_id, m.status, m.model_type, m.created_ms, m.updated_ms, m.detail"
        " FROM logged_model m JOIN experiment e ON e.id = m.experiment_id"
    ):
        metrics = store.database.execute(
            "SELECT r.run_id, m.key, m.step, m.time_ms, m.value, m.dataset_name, m.dataset_digest FROM model_metric m"
            " JOIN run r ON r.id = m.run WHERE m.model_id = ?",
            (row[0],),
        )
        fields = dict(
            zip(("name", "experiment", "run", "status", "type", "created", "updated"), row[1:8], strict=True)
        )
        detail = json.loads(row[8])
        values = sorted([*metric[:4], float(metric[4]).hex(), *metric[5:]] for metric in metrics)
        found[row[0]] = {**fields, "params": detail["params"], "tags": detail["tags"], "metrics": values}
    return found


def test_a_folder_reads_as_mlflow_reads_it(
    folder: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = folder
    before = files_below(path.parent)
    with open_store(store_address) as store:
        store.add_source(str(path))
        assert store.refresh(None).damaged == ()
        assert_equal(store, expected)
        again = store.refresh(None)
        assert (again.records, again.points) == (0, 0)
    with open_store(store_address) as store:  # a new process reads only what has changed
        report = store.refresh(None)
        assert (report.records, report.points) == (0, 0)
        assert_equal(store, expected)
    assert files_below(path.parent) == before


def test_a_database_reads_as_mlflow_reads_it(
    database: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = database
    before = files_below(path.parent)
    with open_store(store_address) as store:
        store.add_source(f"sqlite:///{path}")
        assert store.refresh(None).damaged == ()
        assert_equal(store, expected)
    with open_store(store_address) as store:
        report = store.refresh(None)
        assert (report.records, report.points) == (0, 0)
    assert files_below(path.parent) == before


def test_postgresql_reads_as_mlflow_reads_it(
    python: Path, postgres_url: str, tmp_path: Path, store_address: str
) -> None:
    mlflow_does(python, "write.py", postgres_url, tmp_path)
    expected = json.loads(mlflow_does(python, "read.py", postgres_url, tmp_path))
    with open_store(store_address) as store:
        store.add_source(postgres_url)
        assert store.refresh(None).damaged == ()
        assert_equal(store, expected)
    with open_store(store_address) as store:
        report = store.refresh(None)
        assert (report.records, report.points) == (0, 0)


def test_a_moved_folder_keeps_its_files_and_its_runs(
    folder: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = folder
    first, second = tmp_path / "before" / "mlruns", tmp_path / "after" / "elsewhere"
    shutil.copytree(path, first)
    with open_store(store_address) as store:
        store.add_source(str(first))
        store.refresh(None)
        run_id = next(run_id for run_id, said in expected["runs"].items() if said["name"] == "parent")
        store.note(run_id, "mine")
        second.parent.mkdir()
        first.rename(second)
        store.add_source(str(second))
        store.refresh(None)
        (run,) = store.runs([run_id])
        assert run.artifacts is not None and run.artifacts.is_relative_to(second)
        assert (run.artifacts / "notes" / "a.txt").read_text() == "hello"
        assert (run.source, run.note) == (str(second), "mine")
        assert store.search("", lifecycle="all").total == len(expected["runs"])
        assert store.points(run_id, "train/loss").values.tolist() == [1 / (step + 1) for step in range(2500)]


def test_the_same_run_reached_twice_is_one(
    folder: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = folder
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (tmp_path / "link").symlink_to(path)
    with open_store(store_address) as store:
        for source in (path, copy, tmp_path / "link"):
            store.add_source(str(source))
        store.refresh(None)
        assert [state.runs for state in store.sources()] == [len(expected["runs"]), 0]
        assert store.search("", lifecycle="all").total == len(expected["runs"])
        # Its copy takes over when the first is followed no longer.
        store.remove_source(str(path))
        assert store.search("", lifecycle="active").total == 0
        store.refresh(None)
        assert [state.runs for state in store.sources()] == [len(expected["runs"])]
        assert store.refresh(None).points == 0
        assert_equal_counts(store, expected)


def assert_equal_counts(store: Store, expected: dict[str, Any]) -> None:
    for run_id, said in expected["runs"].items():
        (run,) = store.runs([run_id])
        assert run.params == said["params"] and run.tags == said["tags"]
        assert {key: summary.count for key, summary in run.metrics.items()} == {
            key: len(by_rule(points)) for key, points in said["points"].items()
        }


def test_notes_tags_and_the_trash_are_ours(
    folder: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = folder
    before = files_below(path)
    by_name = {said["name"]: run_id for run_id, said in expected["runs"].items()}
    with open_store(store_address) as store:
        store.add_source(str(path))
        store.refresh(None)
        store.note(by_name["parent"], "look here")
        store.set_tags([by_name["parent"]], {"best": "yes", "changed": "by me"})
        store.rename(by_name["killed"], "axed")
        store.trash([by_name["child"]])
        store.restore([by_name["deleted"]])
        with pytest.raises(Conflict, match="belongs to"):
            store.registry.promote("churn", 3, "Production", "it is better")
        store.purge([by_name["killed"]])
        store.refresh(None)
        found = {run.name: run for run in store.runs(store.search("", lifecycle="all").run_ids)}
        assert found["parent"].note == "look here"
        assert (found["parent"].tags["best"], found["parent"].tags["changed"]) == ("yes", "by me")
        assert found["child"].lifecycle == "trash" and found["deleted"].lifecycle == "active"
        assert "axed" not in found and "killed" not in found
        removed = store.remove_source(str(path))
        assert str(path) in removed.sentence
        assert store.search("").total == 0 and store.registry.models() == []
        store.undo()
        store.refresh(None)
        assert {run.name: run.note for run in store.runs(store.search("").run_ids)}["parent"] == "look here"
        assert store.registry.models() == ["churn", "empty"]
    assert files_below(path) == before


FOLLOWED = """
import os, sys
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1])
run = client.create_run("0", run_name="live")
print(run.info.run_id, flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Client:
    """MLflow's client in a process of its own, told line by line what to do. ``answer`` is what it said first."""

    def __init__(self, python: Path, program: str, uri: str, work: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-c", program, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=work,
            env=environment,
        )
        assert self._process.stdout is not None
        self.answer = self._process.stdout.readline().strip()

    def say(self, line: str) -> None:
        """Have it done."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@pytest.mark.parametrize("kind", ["folder", "sqlite"])
def test_a_run_is_followed_while_mlflow_writes_it(
    kind: str, python: Path, tmp_path: Path, store_address: str
) -> None:
    place = tmp_path / ("mlruns" if kind == "folder" else "mlflow.db")
    uri = place.as_uri() if kind == "folder" else f"sqlite:///{place}"
    client = Client(python, FOLLOWED, uri, tmp_path)
    run_id, say = client.answer, client.say
    assert len(run_id) == 32
    with client, open_store(store_address) as store:
        store.add_source(uri)

        def now() -> Any:
            store.refresh(None)
            return store.runs([run_id])[0]

        run = now()
        assert (run.status, run.end_ms) == ("RUNNING", None)
        for step in range(3):
            say(f"client.log_metric(run.info.run_id, 'loss', {step}.5, step={step})")
            assert now().metrics["loss"].last == step + 0.5
        say("client.set_tag(run.info.run_id, 'phase', 'one')")
        assert now().tags["phase"] == "one"
        say("client.set_tag(run.info.run_id, 'phase', 'two'); client.log_param(run.info.run_id, 'lr', 0.1)")
        assert (now().tags["phase"], now().params) == ("two", {"lr": "0.1"})
        say("client.delete_tag(run.info.run_id, 'phase')")
        assert "phase" not in now().tags
        say("client.set_terminated(run.info.run_id)")
        assert now().status == "FINISHED"
        # MLflow lets a run go on, be renamed and be deleted after its end.
        say("client.update_run(run.info.run_id, status='RUNNING', name='again')")
        assert (now().status, now().name, now().end_ms is None) == ("RUNNING", "again", kind == "never")
        say(
            "client.log_metric(run.info.run_id, 'loss', 9.0, step=1); client.set_terminated(run.info.run_id, 'FAILED')"
        )
        assert (now().status, now().metrics["loss"].count) == ("FAILED", 4)
        say("client.delete_run(run.info.run_id)")
        assert now().lifecycle == "trash"
        say("client.restore_run(run.info.run_id)")
        assert now().lifecycle == "active"
        # A tag set again on a run that ended long ago changes nothing but its own file, or a row that keeps its number.
        say("client.set_tag(run.info.run_id, 'phase', 'one')")
        if kind == "folder":
            for path in [*place.glob(f"0/{run_id}/**/*"), place / "0" / run_id]:
                os.utime(path, (time.time() - 86_400, time.time() - 86_400))
        store.refresh(None)
        say(
            "old = run.info.run_id; run = client.create_run('0'); client.log_metric(run.info.run_id, 'loss', 0.5)"
        )
        store.refresh(None)
        for value in ("two", "four"):  # of one length and of another
            say(f"client.set_tag(old, 'phase', '{value}')")
            deadline = time.monotonic() + 30  # the promise is some seconds
            while store.runs([run_id])[0].tags.get("phase") != value:
                assert time.monotonic() < deadline
                time.sleep(0.1)
                store.refresh(0.5)


def test_an_old_run_without_an_end_stays_what_mlflow_says(
    folder: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = folder
    copy = tmp_path / "mlruns"
    shutil.copytree(path, copy)
    run_id = next(run_id for run_id, said in expected["runs"].items() if said["name"] == "running")
    for file in [*copy.glob(f"0/{run_id}/**/*"), copy / "0" / run_id]:
        os.utime(file, (time.time() - 86_400, time.time() - 86_400))
    with open_store(store_address) as store:
        store.add_source(str(copy))
        store.refresh(None)
        (run,) = store.runs([run_id])
        assert (run.status, run.quiet) == ("RUNNING", True)


@pytest.mark.parametrize("followed", [False, True])
def test_imported_runs_need_their_source_no_more(
    followed: bool, folder: tuple[Path, dict[str, Any]], tmp_path: Path, store_address: str
) -> None:
    path, expected = folder
    copy = tmp_path / "mlruns"
    shutil.copytree(path, copy)
    for file in [*copy.rglob("*")]:
        os.utime(file, (time.time() - 86_400, time.time() - 86_400))
    before = files_below(copy)
    ended = {run_id: said for run_id, said in expected["runs"].items() if said["end"] is not None}
    with open_store(store_address) as store:
        parent = next(run_id for run_id, said in ended.items() if said["name"] == "parent")
        if followed:
            store.add_source(str(copy))
            store.refresh(None)
            store.note(parent, "kept")
        done = import_source(store, str(copy))
        assert (done.runs, done.left) == (len(expected["runs"]), [])
        assert files_below(copy) == before
        assert import_source(store, str(copy)).known == len(expected["runs"])
        if followed:
            store.remove_source(str(copy))
        shutil.rmtree(copy)
        for attempt in range(2):  # once as it is, once from a folder's journals alone
            for run_id, said in ended.items():
                (run,) = store.runs([run_id])
                assert run.source == "" and run.damage is None
                assert (run.name, run.experiment, run.status) == (
                    said["name"],
                    said["experiment"],
                    said["status"],
                )
                assert (run.start_ms, run.end_ms, run.lifecycle == "active") == (
                    said["start"],
                    said["end"],
                    said["active"],
                )
                assert (run.params, run.tags) == (said["params"], said["tags"])
                assert run.parent_id == said["tags"].get("mlflow.parentRunId")
                for key, points in said["points"].items():
                    mine = store.points(run_id, key)
                    got = zip(mine.steps.tolist(), mine.times_ms.tolist(), mine.values.tolist(), strict=True)
                    assert [(step, at, value.hex()) for step, at, value in got] == by_rule(points)
                files = [] if run.artifacts is None else [p for p in run.artifacts.rglob("*") if p.is_file()]
                assert sorted(str(p.relative_to(run.artifacts or "")) for p in files) == said["artifacts"]
            mine_models = logged_models(store)
            for model_id, told in expected["logged"].items():
                mine = mine_models.pop(model_id)
                assert mine.pop("metrics")[-2:] == told["metrics"][-2:]
                assert mine == {key: value for key, value in told.items() if key != "metrics"}
            assert mine_models == {}
            if followed:
                assert store.runs([parent])[0].note == "kept"
            running = [
                run for run in store.runs(store.search("status = killed").run_ids) if "no end" in run.reason
            ]
            assert {run.name for run in running} == {"running", "scheduled"}
            if attempt == 0 and Path(store_address).is_absolute():
                store.close()
                (tmp_path / "store" / "mltrack.db").unlink()
                examine(tmp_path / "store", tmp_path / "store" / "mltrack.db")
                store = open_store(store_address)
        store.close()
