"""Nothing below a source is ever written: every kind at once, through the app and the commands, compared to the inode."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import open_store
from mltrack.store.import_source import import_source
from mltrack.store.sources import KINDS
from mltrack.store.sources.crc32c import crc32c, masked_crc
from mltrack.store.store import Store

Answer = subprocess.CompletedProcess[str]
RUN, MODEL = "0123456789abcdef0123456789abcd01", "m-0123456789abcdef0123456789abcdef"
OLD = 1_700_000_000
# Every kind but those behind a URL.
LOCAL = set(KINDS) - {"mlflow_server", "ssh"}


def part(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer message, at most 127 bytes long."""
    head = (
        bytes([number << 3 & 0x7F | 2])
        if number < 16
        else bytes([number << 3 & 0x7F | 2 | 0x80, number >> 4])
    )
    return head + bytes([len(data)]) + data


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def mlruns(root: Path) -> None:
    write(root / "0" / "meta.yaml", "experiment_id: '0'\nlifecycle_stage: active\nname: Default\n")
    run = root / "0" / RUN
    write(
        run / "meta.yaml",
        f"artifact_uri: file:///gone/0/{RUN}/artifacts\nend_time: 1700000005000\nexperiment_id: '0'\n"
        f"lifecycle_stage: active\nrun_id: {RUN}\nrun_name: of-mlruns\nstart_time: 1700000000000\nstatus: 3\nuser_id: ann\n",
    )
    write(run / "params" / "lr", "0.1")
    write(run / "tags" / "mlflow.runName", "of-mlruns")
    write(run / "metrics" / "loss", "1700000000000 0.5 0\n1700000001000 0.25 1\n")
    write(run / "artifacts" / "notes.txt", "hello")
    write(
        root / "0" / "models" / MODEL / "meta.yaml",
        f"model_id: {MODEL}\nname: net\nsource_run_id: {RUN}\nstatus: 2\n",
    )
    write(root / "models" / "churn" / "meta.yaml", "name: churn\n")
    source = f"source: file:///gone/0/{RUN}/artifacts\n"
    write(
        root / "models" / "churn" / "version-1" / "meta.yaml",
        f"name: churn\nversion: 1\ncurrent_stage: Production\n{source}run_id: {RUN}\n",
    )


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, lifecycle_stage TEXT);"
            "CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, status TEXT, start_time BIGINT, end_time BIGINT,"
            " lifecycle_stage TEXT, experiment_id INTEGER);"
            "CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN);"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT); CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);"
            "INSERT INTO experiments VALUES (0, 'Default', 'active');"
            f"INSERT INTO runs VALUES ('{RUN[:-1]}2', 'of-mlflow-db', 'FINISHED', 1, 2, 'active', 0);"
            f"INSERT INTO metrics VALUES ('loss', 0.5, 1, '{RUN[:-1]}2', 0, 0)"
        )
    connection.close()


def event_file(folder: Path) -> None:
    def record(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return b"".join(piece + struct.pack("<I", masked_crc(crc32c(piece))) for piece in (length, data))

    wall = b"\x09" + struct.pack("<d", OLD)
    value = part(1, b"loss") + b"\x15" + struct.pack("<f", 0.25)
    picture = part(1, b"sample") + part(4, part(4, b"\x89PNG\r\n\x1a\n"))
    events = [
        wall + part(3, b"brain.Event:2"),
        *(wall + b"\x10\x07" + part(5, part(1, each)) for each in (value, picture)),
    ]
    write(folder / f"events.out.tfevents.{OLD}.host", b"".join(map(record, events)))


def wandb(root: Path) -> None:
    run = part(1, b"w1") + part(3, b"churn") + part(8, b"of-wandb")
    step = part(1, part(1, b"loss") + part(16, b"0.5")) + part(2, b"\x08\x01")
    data = b":W&B\xe1\xbe\0"
    for body in (part(17, run), part(2, step)):
        data += struct.pack("<IHB", zlib.crc32(b"\x01" + body), len(body), 1) + body
    write(root / "offline-run-20231114_221320-w1" / "run-w1.wandb", data)
    write(root / "offline-run-20231114_221320-w1" / "files" / "requirements.txt", "numpy\n")


def trackio(root: Path) -> None:
    root.mkdir(parents=True)
    with sqlite3.connect(root / "churn.db") as connection:
        connection.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
        )
        row = ("2023-11-14T22:13:20+00:00", "of-trackio", 1, json.dumps({"loss": 0.5}))
        connection.execute(
            "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", row
        )
    connection.close()


def neptune(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {
        "project_id": ["w/p"],
        "run_id": ["R-1"],
        "attribute_path": ["sys/name"],
        "attribute_type": ["string"],
        "step": pyarrow.array([None], pyarrow.decimal128(18, 6)),
        "timestamp": pyarrow.array([None], pyarrow.timestamp("ms", tz="UTC")),
        "float_value": pyarrow.array([None], pyarrow.float64()),
        "string_value": ["of-neptune"],
    }
    folder = root / f"w_p-{'0' * 16}"
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.table(rows), folder / f"R-1-{'1' * 16}_part_0.parquet")


LOG = """
import sys, mltrack
mltrack.set_store(sys.argv[1])
with mltrack.start_run(run_name="of-mltrack", system_metrics=False):
    mltrack.log_metric("loss", 0.5, 0)
    mltrack.log_text("hello", "notes.txt")
"""


def every_kind(root: Path) -> dict[str, Path]:
    """A source of each kind that lies on this machine, an old run in each."""
    places = {
        "mlruns": root / "mlruns",
        "mlflow_db": root / "mlflow.db",
        "tensorboard": root / "runs",
        "wandb": root / "wandb",
        "lightning_csv": root / "lightning_logs",
        "trackio": root / "trackio",
        "neptune": root / "exports",
        "mltrack": root / "team" / ".mltrack",
    }
    mlruns(places["mlruns"])
    database(places["mlflow_db"])
    event_file(places["tensorboard"] / "lr0.1")
    wandb(places["wandb"])
    write(places["lightning_csv"] / "version_0" / "metrics.csv", "step,loss\n1,0.5\n2,0.25\n")
    trackio(places["trackio"])
    neptune(places["neptune"])
    log = [sys.executable, "-c", LOG, str(places["mltrack"])]
    subprocess.run(log, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")})
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    assert set(places) == LOCAL
    return places


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that a write below a folder would change; not when it was read."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [root, *root.rglob("*")]:
        facts = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        kept = (
            facts.st_ino,
            facts.st_mode,
            facts.st_uid,
            facts.st_nlink,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
        )
        found[str(path.relative_to(root))] = (*kept, content)
    return found


NAMES = {
    "of-mlruns",
    "of-mlflow-db",
    "tb:lr0.1",
    "of-wandb",
    "csv:version_0",
    "of-trackio",
    "of-neptune",
    "of-mltrack",
}


def test_a_whole_session_changes_nothing_below_its_sources(
    tmp_path: Path,
    mltrack: Callable[..., Answer],
    open_app: type,
    command: tuple[tuple[str, ...], dict[str, str]],
) -> None:
    project = tmp_path / "project"
    places = every_kind(project)
    before = tree(project)
    store = str(tmp_path / "store")

    def said(*arguments: str) -> str:
        answer = mltrack("--store", store, *arguments, environ={"COLUMNS": "140"}, cwd=project)
        assert answer.returncode == 0, (arguments, answer.stdout, answer.stderr)
        return answer.stdout

    said("source", "find")
    said("source", "add", *map(str, places.values()))
    assert NAMES <= {line.split()[0] for line in said("ls").splitlines() if line.strip()}
    for name in ("of-mlruns", "tb:lr0.1", "of-neptune"):
        said("show", name, "--all")
    said("note", "of-mlflow-db", "ours")
    said("tag", "of-trackio", "best=yes")
    said("delete", "of-wandb", "--yes")
    said("undo")
    said("metrics", "of-mlruns", "loss")
    said("sync", str(project / "mlruns"))
    assert (
        "1 runs" in mltrack("--store", str(tmp_path / "copies"), "import", str(project), cwd=project).stdout
    )
    app = open_app({**command[1], "MLTRACK_STORE": store, "HOME": str(tmp_path)}, columns=140, lines=40)
    app.until("of-mlruns")
    app.press("\r").until("Overview")
    for _ in range(6):  # through the tabs
        app.press("\t")
    app.press("J").press("J").press("q")
    app.press("Q")
    assert app.finish() == 0
    said("source", "remove", str(places["tensorboard"]))
    said("doctor")
    assert tree(project) == before


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest closes its own to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


FOLLOW = """
import os, sys
from mltrack.store import database, open_store
from mltrack.store.import_source import import_source
schema = database.schema_sql()
database.schema_sql = lambda: schema
home, uid, *paths = sys.argv[1:]

def session(name):
    with open_store(f"{home}/{name}") as store:
        for path in paths: store.add_source(path)
        store.refresh(None)
        yield from (f"{run.name} {run.damage}" for run in store.runs(store.search("").run_ids))
    with open_store(f"{home}/{name}-copies") as store:
        yield str(sum(import_source(store, path).runs for path in paths))

if int(uid):
    list(session("warm"))  # the other user may not read the interpreter's own files
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
for path in paths:  # really not to be written
    try: open(os.path.join(path if os.path.isdir(path) else os.path.dirname(path), "x"), "w")
    except OSError: continue
    raise SystemExit(path + " can be written")
print(*session("mine"), sep="\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user and mounting are for root")
@pytest.mark.parametrize("how", ["another user's", "read-only mount"])
def test_folders_that_cannot_be_written_are_followed(how: str, open_folder: Path) -> None:
    root, home = open_folder / "theirs", open_folder / "home"
    root.mkdir()
    places = every_kind(root)
    for path in [root, *root.rglob("*")]:  # as somebody with an open umask leaves them
        path.chmod(path.stat().st_mode | 0o044 | (0o011 if path.is_dir() else 0))
    home.mkdir()
    user = pwd.getpwnam("nobody").pw_uid if how == "another user's" else 0
    os.chown(home, user, -1)
    mounted = how == "read-only mount"
    if mounted:
        done = subprocess.run(["mount", "--bind", str(root), str(root)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(root)], check=True)
    try:
        before = tree(root)
        done = subprocess.run(
            [sys.executable, "-c", FOLLOW, str(home), str(user), *map(str, places.values())],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        )
        assert done.returncode == 0, done.stderr
        *runs, imported = done.stdout.splitlines()
        assert {line.split()[0] for line in runs} == NAMES and all(line.endswith(" None") for line in runs)
        assert imported == str(len(NAMES))
        assert tree(root) == before
    finally:
        if mounted:
            subprocess.run(["umount", str(root)], check=True)


def imported(store: Store) -> dict[str, Any]:
    """What an import has made of the runs: everything that could be there twice, or half."""
    found: dict[str, Any] = {}
    for run in store.runs(store.search("", lifecycle="all").run_ids):
        files = (
            sorted(str(path.relative_to(run.artifacts)) for path in run.artifacts.rglob("*"))
            if run.artifacts
            else []
        )
        points = {key: store.points(run.run_id, key).values.tolist() for key in run.metrics}
        starts = len(store.details(run.run_id).attempts)
        found[run.run_id] = (run.name, run.source, run.status, run.params, run.tags, points, files, starts)
    return found


def die_at_rename(behind: bool) -> None:
    """From here on this process is killed before, or right behind, the next file that it renames."""
    rename = os.rename

    def dies(source: str, target: str) -> None:
        if behind:
            rename(source, target)
        os.kill(os.getpid(), signal.SIGKILL)

    os.rename = dies


def test_an_import_that_is_killed_is_taken_up_again(tmp_path: Path) -> None:
    """Killed at every rename, before it and behind it: a run is there whole or not at all, and never twice."""
    places = every_kind(tmp_path / "project")
    with open_store(str(tmp_path / "once")) as store:
        assert sum(import_source(store, str(path)).runs for path in places.values()) == len(NAMES)
        expected = imported(store)
    assert {found[0] for found in expected.values()} == NAMES
    with open_store(str(tmp_path / "store")):
        pass
    killed = 0
    for behind in (False, True) * 20:
        child = os.fork()
        if child == 0:
            die_at_rename(behind)
            with open_store(str(tmp_path / "store")) as store:
                for path in places.values():
                    import_source(store, str(path))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        killed += 1
    assert killed >= 2 * len(NAMES)
    with open_store(str(tmp_path / "store")) as store:
        for path in places.values():
            import_source(store, str(path))
        assert imported(store) == expected
        assert list((tmp_path / "store").rglob(".*.part")) == []
