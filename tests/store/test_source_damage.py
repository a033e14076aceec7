"""Damaged and hostile mlruns folders and databases: a broken run is listed with the reason, and hides no neighbour."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.store import open_store
from mltrack.store.errors import BadInput
from mltrack.store.records import Run
from mltrack.store.sources.base import Found
from mltrack.store.sources.mlflow_metrics import MetricFiles, parse
from mltrack.store.sources.mlruns import MlrunsReader
from mltrack.store.sources.yaml_text import load_mapping
from mltrack.store.store import Store

EXPERIMENT = "artifact_location: file:///x\nexperiment_id: '0'\nlifecycle_stage: active\nname: Default\n"
META = (
    "artifact_uri: file:///x/0/{id}/artifacts\nend_time: 1700000005000\nentry_point_name: ''\nexperiment_id: '0'\n"
    "lifecycle_stage: active\nrun_id: {id}\nrun_name: {name}\nsource_name: ''\nsource_type: 4\nsource_version: ''\n"
    "start_time: 1700000000000\nstatus: 3\ntags: []\nuser_id: ann\n"
)
GOOD, BAD = "0123456789abcdef0123456789abcd01", "0123456789abcdef0123456789abcd02"


def make_run(root: Path, run_id: str, name: str) -> Path:
    """A run as MLflow's file store writes it, an hour old."""
    root.joinpath("0").mkdir(parents=True, exist_ok=True)
    root.joinpath("0", "meta.yaml").write_text(EXPERIMENT)
    folder = root / "0" / run_id
    for name_of_part in ("params", "tags", "metrics", "artifacts"):
        (folder / name_of_part).mkdir(parents=True)
    (folder / "meta.yaml").write_text(META.format(id=run_id, name=name))
    (folder / "params" / "lr").write_text("0.1")
    (folder / "tags" / "mlflow.runName").write_text(name)
    (folder / "metrics" / "loss").write_text(
        "".join(f"170000000{step} {1 / (step + 1)!r} {step}\n" for step in range(5))
    )
    return folder


def old(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


def read_all(store: Store, root: Path) -> dict[str, Run]:
    store.add_source(str(root))
    store.refresh(None)
    return {run.run_id: run for run in store.runs(store.search("", lifecycle="all").run_ids)}


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no meta": (lambda run: (run / "meta.yaml").unlink(), "meta.yaml is missing"),
    "empty meta": (lambda run: (run / "meta.yaml").write_text(""), "meta.yaml: empty"),
    "torn meta": (
        lambda run: (run / "meta.yaml").write_text("artifact_uri: 'file:///x\nend_ti"),
        "meta.yaml: line",
    ),
    "binary meta": (lambda run: (run / "meta.yaml").write_bytes(bytes(range(256))), "meta.yaml: not UTF-8"),
    "a list": (lambda run: (run / "meta.yaml").write_text("- a\n- b\n"), "not a list of keys"),
    "no id": (lambda run: (run / "meta.yaml").write_text("status: 3\n"), "has no run_id"),
    "huge meta": (lambda run: (run / "meta.yaml").write_bytes(b"a" * (2 << 20)), "larger than"),
    "a bomb": (
        lambda run: (run / "meta.yaml").write_text(
            "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
        ),
        "more than 1,000,000 values",
    ),
    "deep": (lambda run: (run / "meta.yaml").write_text("a: " + "[" * 5000), "nested"),
    "a folder": (
        lambda run: ((run / "meta.yaml").unlink(), (run / "meta.yaml").mkdir()),
        "not a regular file",
    ),
    "a pipe": (
        lambda run: ((run / "meta.yaml").unlink(), os.mkfifo(run / "meta.yaml")),
        "not a regular file",
    ),
    "a loop": (
        lambda run: ((run / "meta.yaml").unlink(), (run / "meta.yaml").symlink_to("meta.yaml")),
        "symbolic links",
    ),
    "binary param": (lambda run: (run / "params" / "lr").write_bytes(b"\xff\xfe"), "params/lr: not UTF-8"),
    "huge param": (
        lambda run: (run / "params" / "lr").write_bytes(b"x" * (2 << 20)),
        "params/lr: larger than",
    ),
    "params is a file": (
        lambda run: (shutil.rmtree(run / "params"), (run / "params").write_text("x")),
        "params is not a folder",
    ),
    "metric line": (
        lambda run: (run / "metrics" / "loss").write_text("1 0.5 0\nnonsense\n2 0.25 1\n"),
        "metrics/loss line 2",
    ),
    "binary metric": (
        lambda run: (run / "metrics" / "loss").write_bytes(b"\0\xff\n" * 100),
        "metrics/loss line 1",
    ),
    "beyond 64 bits": (
        lambda run: (run / "metrics" / "loss").write_text(f"1 0.5 {2**70}\n"),
        "metrics/loss line 1",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_broken_run_is_listed_and_its_neighbour_is_whole(
    kind: str, tmp_path: Path, store_address: str
) -> None:
    root = tmp_path / "mlruns"
    make_run(root, GOOD, "good")
    broken = make_run(root, BAD, "bad")
    damage, reason = DAMAGE[kind]
    damage(broken)
    old(root)
    with open_store(store_address) as store:
        found = read_all(store, root)
        assert set(found) == {GOOD, BAD}
        good, bad = found[GOOD], found[BAD]
        assert (good.name, good.damage, good.params, good.metrics["loss"].count) == (
            "good",
            None,
            {"lr": "0.1"},
            5,
        )
        assert bad.damage is not None and reason in bad.damage and f"0/{BAD}" in bad.damage
        assert [state.damaged for state in store.sources()] == [1]
        # Mended, it is a run like any other.
        shutil.rmtree(broken)
        make_run(root, BAD, "bad")
        store.refresh(None)
        (mended,) = store.runs([BAD])
        assert (mended.name, mended.status, mended.params) == ("bad", "FINISHED", {"lr": "0.1"})
        assert mended.damage is None


@pytest.mark.parametrize(
    "run_id", ["0" * 32, "0" * 31 + "7", "12345678901234567890123456789012", "0b" + "1" * 30]
)
def test_an_id_that_yaml_takes_for_a_number_is_the_folders_name(
    run_id: str, tmp_path: Path, store_address: str
) -> None:
    folder = make_run(tmp_path / "mlruns", run_id, "numbers")
    assert (
        f"run_id: {run_id}\n" in (folder / "meta.yaml").read_text()
    )  # and just written, so that a fault would wait
    with open_store(store_address) as store:
        (run,) = read_all(store, tmp_path / "mlruns").values()
        assert (run.run_id, run.name, run.damage) == (run_id, "numbers", None)
        assert [state.waiting for state in store.sources()] == [0]


def test_the_parent_of_a_run_is_what_its_tag_says_now(tmp_path: Path, store_address: str) -> None:
    root = tmp_path / "mlruns"
    tag = make_run(root, GOOD, "child") / "tags" / "mlflow.parentRunId"
    with open_store(store_address) as store:
        assert read_all(store, root)[GOOD].parent_id is None
        for parent in (BAD, "ab" * 16):
            tag.write_text(parent)
            assert read_all(store, root)[GOOD].parent_id == parent
        tag.unlink()
        assert read_all(store, root)[GOOD].parent_id is None


def test_a_clock_ahead_keeps_no_damaged_run_waiting(tmp_path: Path, store_address: str) -> None:
    folder = make_run(tmp_path / "mlruns", "ab" * 16, "broken")
    (folder / "meta.yaml").write_text("- a\n")
    ahead = time.time() + 86_400
    os.utime(folder / "meta.yaml", (ahead, ahead))
    with open_store(store_address) as store:
        (run,) = read_all(store, tmp_path / "mlruns").values()
        assert run.damage is not None and "not a list of keys" in run.damage


def test_a_folder_that_is_no_run_does_not_wait_for_ever(tmp_path: Path, store_address: str) -> None:
    make_run(tmp_path / "mlruns", "ab" * 16, "a run")
    (tmp_path / "mlruns" / "0" / "checkpoints").mkdir()
    (tmp_path / "mlruns" / "0" / "checkpoints" / "last.ckpt").write_text("x")
    with open_store(store_address) as store:
        assert len(read_all(store, tmp_path / "mlruns")) == 1
        assert [state.waiting for state in store.sources()] == [0]


def test_what_is_before_and_behind_a_bad_line_is_kept(tmp_path: Path, store_address: str) -> None:
    root = tmp_path / "mlruns"
    metric = make_run(root, GOOD, "good") / "metrics" / "loss"
    metric.write_text("1 0.5 0\nnonsense\n2 nan 1\n3 0.125")
    with open_store(store_address) as store:
        run = read_all(store, root)[GOOD]
        assert (run.metrics["loss"].count, run.metrics["loss"].nan_count, run.skipped) == (2, 1, 1)
        with metric.open("a") as file:
            file.write(" 2\n")
        store.refresh(None)
        (run,) = store.runs([GOOD])
        assert (run.metrics["loss"].last, run.metrics["loss"].count, run.skipped) == (0.125, 3, 1)


def test_a_metric_file_that_was_written_anew_is_read_anew(tmp_path: Path, store_address: str) -> None:
    root = tmp_path / "mlruns"
    metric = make_run(root, GOOD, "good") / "metrics" / "loss"
    with open_store(store_address) as store:
        read_all(store, root)
        metric.write_text("1700000009 7.5 9\n")
        store.refresh(None)
        assert store.runs([GOOD])[0].metrics["loss"].last == 7.5
        with metric.open("a") as file:
            file.write("1700000010 8.5 10\n")
        store.refresh(None)
        assert store.runs([GOOD])[0].metrics["loss"].last == 8.5


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest closes its own to others whenever a session starts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user: run the tests as root")
def test_another_users_folder_that_may_only_be_read(open_folder: Path) -> None:
    root = open_folder / "theirs" / "mlruns"
    make_run(root, GOOD, "good")
    secret = make_run(root, BAD, "bad")
    (secret / "params" / "lr").chmod(0)
    secret.joinpath("metrics").chmod(0)
    code = """
import os, sys
from pathlib import Path
from mltrack.store import database, fold_sources, open_store, sources
from mltrack.store.sources import reader_class, KINDS
for kind in KINDS: reader_class(kind)
schema = database.schema_sql()
database.schema_sql = lambda: schema
with open_store(sys.argv[1] + "/warm") as store: store.refresh(None)
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[3]))
with open_store(sys.argv[1] + "/mine") as store:
    store.add_source(sys.argv[2])
    store.refresh(None)
    for run in store.runs(store.search("").run_ids):
        print(run.name, run.params, sorted(run.metrics), run.damage)
"""
    nobody = pwd.getpwnam("nobody")
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    done = subprocess.run(
        [sys.executable, "-c", code, str(home), str(root), str(nobody.pw_uid)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert lines[0].startswith("bad {} []") and "Permission denied" in lines[0]
    assert lines[1] == "good {'lr': '0.1'} ['loss'] None"


@pytest.mark.parametrize(
    "content", [b"", b"SQLite format 3\0", b"x" * 100_000, b"SQLite format 3\0" + b"\xff" * 8192]
)
def test_what_is_no_database_is_refused_in_a_sentence(
    content: bytes, tmp_path: Path, store_address: str
) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with (
        open_store(store_address) as store,
        pytest.raises(BadInput, match="nothing that can be followed"),
    ):
        store.add_source(str(path))


def make_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, lifecycle_stage TEXT);"
        "CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, status TEXT, start_time BIGINT, end_time BIGINT,"
        " lifecycle_stage TEXT, experiment_id INTEGER);"
        "CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN);"
        "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT); CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);"
        "INSERT INTO experiments VALUES (0, 'Default', 'active')"
    )
    for run_id in (GOOD, BAD):
        connection.execute("INSERT INTO runs VALUES (?, 'x', 'FINISHED', 1, 2, 'active', 0)", (run_id,))
        connection.execute("INSERT INTO metrics VALUES ('loss', 0.5, 1, ?, 0, 0)", (run_id,))
    connection.commit()
    connection.close()


def test_a_database_of_another_version_is_read_as_far_as_its_columns_go(
    tmp_path: Path, store_address: str
) -> None:
    path = tmp_path / "mlflow.db"
    make_database(path)
    with open_store(store_address) as store:
        found = read_all(store, path)
        assert {run.metrics["loss"].last for run in found.values()} == {0.5}
        assert {run.status for run in found.values()} == {"FINISHED"}


def test_values_that_are_none_of_mlflows_cost_their_run_only(tmp_path: Path, store_address: str) -> None:
    path = tmp_path / "mlflow.db"
    make_database(path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO metrics VALUES ('loss', 'text', 'x', ?, 1, 0)", (BAD,))
    connection.execute("UPDATE runs SET start_time = 'soon', status = 'SLEEPING' WHERE run_uuid = ?", (BAD,))
    connection.commit()
    connection.close()
    with open_store(store_address) as store:
        found = read_all(store, path)
        assert found[GOOD].damage is None and found[GOOD].metrics["loss"].count == 1
        assert found[BAD].damage is not None


def test_a_locked_or_vanished_database_is_said_and_comes_back(tmp_path: Path, store_address: str) -> None:
    path = tmp_path / "mlflow.db"
    make_database(path)
    with open_store(store_address) as store:
        read_all(store, path)
        path.rename(tmp_path / "away")
        assert any("mlflow.db" in reason for reason in store.refresh(None).damaged)
        assert store.sources()[0].problem
        assert store.search("").total == 2
        (tmp_path / "away").rename(path)
        connection = sqlite3.connect(path)
        connection.execute("INSERT INTO metrics VALUES ('loss', 0.25, 2, ?, 1, 0)", (GOOD,))
        connection.commit()
        connection.close()
        store.refresh(None)
        assert store.runs([GOOD])[0].metrics["loss"].last == 0.25
        assert store.sources()[0].problem == ""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
            st.tuples(st.integers(), st.floats(), st.integers()).map(
                lambda p: f"{p[0]} {p[1]!r} {p[2]}".encode()
            ),
            st.tuples(st.integers(0, 9), st.floats()).map(lambda p: f"{p[0]} {p[1]!r}".encode()),
            st.just(b"1 0.5 3 data digest"),
        ),
        max_size=100,
    )
)
def test_any_metric_file_gives_the_points_of_its_good_lines(lines: list[bytes]) -> None:
    (times, steps, values), bad = parse(b"".join(line + b"\n" for line in lines))
    assert len(times) == len(steps) == len(values) == len(lines) - len(bad)
    single = [parse(line + b"\n") for line in lines]
    assert [number for number, (_, each) in enumerate(single, start=1) if each] == bad
    assert [part[1].tolist() for part, each in single if not each] == [[step] for step in steps.tolist()]
    assert [part[2].tobytes() for part, each in single if not each] == [
        value.tobytes() for value in values.reshape(-1, 1)
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
)
def test_any_yaml_is_a_mapping_or_a_reason(data: bytes) -> None:
    try:
        assert isinstance(load_mapping(data), dict)
    except ValueError as error:
        assert str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "meta.yaml",
                "params/lr",
                "tags/mlflow.runName",
                "metrics/loss",
                "metrics",
                "inputs/a/meta.yaml",
                "tags",
            ]
        ),
        st.one_of(st.none(), st.binary(max_size=200)),
        max_size=4,
    )
)
def test_a_run_folder_of_any_content_is_read_or_named(
    tmp_path: Path, contents: dict[str, bytes | None]
) -> None:
    root = tmp_path / "mlruns"
    shutil.rmtree(root, ignore_errors=True)
    folder = make_run(root, BAD, "bad")
    for name, data in contents.items():
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        if data is not None and not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    old(root)
    reader = MlrunsReader(root)
    for found in reader.scan({}):
        if isinstance(found, Found):
            for piece in reader.read(found, ""):
                assert len(piece.run_id) == 32


def test_a_position_of_another_file_is_no_reason_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "loss"
    path.write_bytes(b"1 0.5 0\n" * 10)
    for position in ({"loss": [72, 9, 1]}, {"loss": [10_000, 9, 1]}, {}):
        files = MetricFiles(position)
        batches = list(files.read({"loss": (str(path), 80)}, 1 << 20, 1000))
        assert sum(len(batch.points or ()) for batch in batches) == 10
