"""Lightning's CSV logs, trackio's databases and Neptune's exports: as their tools wrote them, and damaged."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mltrack.store.records import Run
from mltrack.store.sources.base import Reader
from mltrack.store.sources.lightning_csv import LightningReader
from mltrack.store.sources.neptune import NeptuneReader
from mltrack.store.sources.trackio import TrackioReader
from mltrack.store.store import Store

DATA = Path(__file__).parent.parent / "data" / "sources"
Follow = Callable[[Path], dict[str, Run]]
Series = dict[str, list[list[Any]]]


def ours(store: Store, run: Run) -> Series:
    found = {}
    for key in run.metrics:
        points = store.points(run.run_id, key, superseded=True)
        pairs = zip(points.steps.tolist(), points.values.tolist(), strict=True)
        found[key] = [[step, value.hex()] for step, value in pairs]
    return found


def states(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


# -- Lightning


def write_csv(folder: Path, header: str, rows: list[str], when: int = 1_700_000_000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.csv"
    path.write_text("".join(f"{line}\n" for line in (header, *rows)))
    os.utime(path, (when, when))
    return path


def test_lightning_logs_grow_by_rows_and_by_columns(store: Store, follow: Follow, tmp_path: Path) -> None:
    logs = tmp_path / "digits" / "lightning_logs"
    folder = logs / "version_3"
    write_csv(folder, "epoch,step,train_loss", ["0,0,0.1", "0,1,0.30000000000000004"])
    (folder / "hparams.yaml").write_text("lr: 0.1\nmodel: {depth: 3}\n")
    run = follow(logs)["csv:version_3"]
    assert (run.experiment, run.params) == ("digits", {"lr": "0.1", "model.depth": "3"})
    assert ours(store, run)["train_loss"] == [[0, (0.1).hex()], [1, (0.30000000000000004).hex()]]
    rows = ["0,0,0.1,", "0,1,0.30000000000000004,", "0,1,,nan", "1,2,-inf,1e-300"]
    write_csv(
        folder, "epoch,step,train_loss,val_loss", rows, 1_700_000_001
    )  # as Lightning does for a new metric
    run = follow(logs)["csv:version_3"]
    assert ours(store, run) == {
        "epoch": [[0, "0x0.0p+0"], [1, "0x0.0p+0"], [2, "0x1.0000000000000p+0"]],
        "train_loss": [[0, (0.1).hex()], [1, (0.30000000000000004).hex()], [2, "-inf"]],
        "val_loss": [[1, "nan"], [2, (1e-300).hex()]],
    }
    with (folder / "metrics.csv").open("a") as file:
        file.write("1,3,0.5,\n1,4,0.2")  # the second is not whole yet
    run = follow(logs)["csv:version_3"]
    assert [step for step, _ in ours(store, run)["train_loss"]] == [0, 1, 2, 3]
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,\n")
    run = follow(logs)["csv:version_3"]
    assert ours(store, run)["train_loss"][-1] == [4, (0.25).hex()]
    assert (run.skipped, run.damage) == (0, None)
    ids = {run.run_id}
    shutil.copytree(logs, tmp_path / "copy" / "lightning_logs")
    assert {run.run_id for run in follow(tmp_path / "copy").values()} == ids


def test_damaged_csv_rows_are_counted_and_hide_nothing(store: Store, follow: Follow, tmp_path: Path) -> None:
    good = [f"0,{step},{step / 2}" for step in range(50)]
    bad = ["0,x,1", "0,1", '0,"7,1', "0,1e400,2", "\ufffd\0", "0,99999999999999999999,1"]
    write_csv(tmp_path / "a", "epoch,step,loss", [*good[:20], *bad, *good[20:]])
    write_csv(tmp_path / "b", "epoch,step,loss", good)
    write_csv(tmp_path / "no step", "a,b,c", good)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.csv").write_bytes(b"\0\xff\xfe" * 5000 + b"\n1\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metrics.csv").write_bytes(b"")
    (tmp_path / "e").mkdir()
    with (tmp_path / "e" / "metrics.csv").open("wb") as file:
        file.write(b"step,loss\n1,2\n" + b"9" * 3_000_000 + b"\n2,3\n")
    runs = follow(tmp_path)
    for name, skipped in (("a", 6), ("b", 0)):
        run = runs[f"csv:{name}"]
        assert [step for step, _ in ours(store, run)["loss"]] == list(range(50)) and run.skipped == skipped
    assert set(runs) == {"csv:a", "csv:b", "csv:e"}  # the others are no logs of Lightning
    assert ours(store, runs["csv:e"])["loss"] == [[1, (2.0).hex()], [2, (3.0).hex()]]
    write_csv(tmp_path / "b", "a,b", ["1,2"], 1_700_000_009)
    run = follow(tmp_path)["csv:b"]
    assert "no column named step" in str(run.damage) and len(ours(store, run)["loss"]) == 50


@pytest.mark.long
def test_lightnings_own_writer(lightning_python: str, store: Store, follow: Follow, tmp_path: Path) -> None:
    """Long, for its installation takes a gigabyte with torch; the test above holds the format."""
    subprocess.run(
        [lightning_python, str(DATA / "lightning_write.py"), str(tmp_path)], check=True, capture_output=True
    )
    run = follow(tmp_path / "lightning_logs")["csv:version_0"]
    assert run.params == {"lr": "0.1", "model.depth": "3", "name": "None"} and run.skipped == 0
    found = ours(store, run)
    assert found["train_loss"] == [[step, (1 / (step + 1)).hex()] for step in range(100)]
    assert found["val_loss"] == [[9, "nan"]] + [[step, (step / 7).hex()] for step in range(19, 100, 10)]


# -- trackio


@pytest.fixture(scope="session")
def trackio(trackio_python: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Series]]:
    """trackio's folder, and what it reads back from it itself."""
    folder = tmp_path_factory.mktemp("trackio") / "trackio"
    environment = os.environ | {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    write = [trackio_python, str(DATA / "trackio_write.py")]
    answer = subprocess.run(write, check=True, capture_output=True, text=True, env=environment).stdout
    return folder, json.loads(answer)


def test_trackio_runs_are_as_it_reads_them(
    trackio: tuple[Path, dict[str, Series]], store: Store, follow: Follow
) -> None:
    folder, read = trackio
    before = states(folder)
    runs = {f"{run.experiment}/{run.name}": run for run in store_runs(store, follow, folder)}
    assert set(runs) == set(read)
    for name, series in read.items():
        assert ours(store, runs[name]) == series
    one = runs["churn/one"]
    assert one.params == {"lr": "0.1", "model.depth": "2", "none": "None"} and one.tags == {"group": "g"}
    assert one.facts["texts"] == {"text": "hello"} and one.skipped == 0
    assert len(read["churn/one"]["loss"]) == 3000
    assert states(folder) == before


def store_runs(store: Store, follow: Follow, folder: Path) -> list[Run]:
    """Runs of several projects may have one name."""
    follow(folder)
    return store.runs(store.search("", limit=1000).run_ids)


def test_trackio_is_followed_while_it_writes(store: Store, follow: Follow, tmp_path: Path) -> None:
    """A writer in WAL mode, with its log beside the file; and a project whose file is broken."""
    path = tmp_path / "churn.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = wal")
    writer.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
    )
    (tmp_path / "broken.db").write_bytes(path.read_bytes()[:50] + b"\xff" * 5000)
    (tmp_path / "other.db").write_bytes(b"hello")
    (tmp_path / "empty.db").write_bytes(b"")
    insert = "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)"
    stamp = "2026-11-23T10:00:00.125000+00:00"
    for step in range(5):
        writer.execute(insert, (stamp, "live", step, json.dumps({"loss": step / 3})))
        writer.execute(insert, (stamp, "live", step, "not json"))
        writer.execute(insert, (stamp, "other", step, b'{"loss": [1, 2]}'))
        runs = follow(tmp_path)
        assert ours(store, runs["live"])["loss"][-1] == [step, (step / 3).hex()]
        assert runs["live"].skipped == step + 1
    writer.execute(
        insert, (stamp, "live", 0, json.dumps({"loss": 7.0}))
    )  # behind what was read, with an earlier step
    assert [(7.0).hex()] == [
        value for step, value in ours(store, follow(tmp_path)["live"])["loss"] if value == (7.0).hex()
    ]
    assert follow(tmp_path)["other"].facts["logged"] == {"list loss": [5, 0, 4]}
    problems = [source.problem for source in store.sources()]
    assert any("broken.db" in problem or "other.db" in problem for problem in problems)
    writer.close()


# -- Neptune


def write_neptune(folder: Path, project: str, run: str, rows: list[dict[str, Any]], part: int = 0) -> Path:
    """A part as neptune-exporter writes it (its schema; the exporter itself needs an account that no longer exists)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    moment = pa.timestamp("ms", tz="UTC")
    schema = pa.schema(
        [
            ("project_id", pa.string()), ("run_id", pa.string()), ("attribute_path", pa.string()),
            ("attribute_type", pa.string()), ("step", pa.decimal128(18, 6)), ("timestamp", moment),
            ("int_value", pa.int64()), ("float_value", pa.float64()), ("string_value", pa.string()),
            ("bool_value", pa.bool_()), ("datetime_value", moment), ("string_set_value", pa.list_(pa.string())),
            ("file_value", pa.struct([("path", pa.string())])),
            ("histogram_value", pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))])),
        ]
    )  # fmt: skip
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    columns["project_id"], columns["run_id"] = [project] * len(rows), [run] * len(rows)
    path = folder / f"{project.replace('/', '_')}-{'0' * 16}" / f"{run}-{'1' * 16}_part_{part}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns, schema), path, compression="snappy", row_group_size=1000)
    return path


def value(path: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"attribute_path": path, "attribute_type": kind, **fields}


def point(path: str, step: float, number: float) -> dict[str, Any]:
    when = datetime.fromtimestamp(1_700_000_000 + step, UTC)
    return value(path, "float_series", step=Decimal(str(step)), timestamp=when, float_value=number)


NEPTUNE = [
    value("parameters/lr", "float", float_value=3e-4),
    value("parameters/layers", "int", int_value=3),
    value("parameters/opt", "string", string_value="adam"),
    value("parameters/flag", "bool", bool_value=True),
    *[point("train/loss", step, 1 / (step + 1)) for step in range(2500)],
    point("train/odd", 0, math.nan),
    point("train/odd", 1, math.inf),
    point("monitoring/1a2b/cpu", 3, 12.5),
    value("log", "string_series", step=Decimal(1), string_value="hello"),
    value(
        "hist",
        "histogram_series",
        step=Decimal(2),
        histogram_value={"type": "COUNTING", "edges": [0.0, 1.0], "values": [1.0]},
    ),
    value("model", "file", file_value={"path": "w_p-0000000000000000/R-1-1111111111111111/model.bin"}),
    value("sys/name", "string", string_value="wide net"),
    value("sys/owner", "string", string_value="ann"),
    value("sys/description", "string", string_value="a note"),
    value("sys/creation_time", "datetime", datetime_value=datetime.fromtimestamp(1_699_999_999, UTC)),
    value("sys/tags", "string_set", string_set_value=["a", "b"]),
    value("sys/failed", "bool", bool_value=True),
]


def test_a_neptune_export_is_read_whole(store: Store, follow: Follow, tmp_path: Path) -> None:
    data = tmp_path / "exports" / "data"
    write_neptune(data, "w/p", "R-1", NEPTUNE[:1500])
    write_neptune(data, "w/p", "R-1", NEPTUNE[1500:], part=1)
    write_neptune(data, "w/p", "R-2", [point("loss", 1, 2.0)])
    files = tmp_path / "exports" / "files" / "w_p-0000000000000000" / "R-1-1111111111111111"
    files.mkdir(parents=True)
    (files / "model.bin").write_bytes(b"x")
    runs = follow(data)
    one = runs["wide net"]
    assert one.params == {
        "parameters/lr": "0.0003",
        "parameters/layers": "3",
        "parameters/opt": "adam",
        "parameters/flag": "True",
    }
    found = ours(store, one)
    assert found["train/loss"] == [[step, (1 / (step + 1)).hex()] for step in range(2500)]
    assert found["train/odd"] == [[0, "nan"], [1, "inf"]] and found["system/1a2b/cpu"] == [[3, (12.5).hex()]]
    assert (one.experiment, one.user, one.note, one.status) == ("w/p", "ann", "a note", "FAILED")
    assert one.start_ms == 1_699_999_999_000 and one.tags == {"a": "true", "b": "true"}
    assert one.facts["logged"] == {"histograms hist": [1, 2, 2], "files model": [1, 0, 0]}
    assert one.facts["texts"] == {"log": "hello"} and one.artifacts == files
    assert runs["R-2"].status == "FINISHED" and runs["R-2"].metrics["loss"].last == 2.0
    assert store.refresh(None).points == 0


def test_a_broken_part_of_an_export_hides_nothing(store: Store, follow: Follow, tmp_path: Path) -> None:
    write_neptune(tmp_path, "w/p", "whole", [point("loss", 1, 2.0)])
    write_neptune(tmp_path, "w/p", "half", [point("loss", 1, 2.0)])
    broken = write_neptune(tmp_path, "w/p", "half", [point("loss", 2, 3.0)], part=1)
    broken.write_bytes(broken.read_bytes()[:-100])
    write_neptune(tmp_path, "w/p", "empty", []).write_bytes(b"")
    runs = follow(tmp_path)
    assert ours(store, runs["whole"])["loss"] == [[1, (2.0).hex()]] and runs["whole"].damage is None
    assert ours(store, runs["half"])["loss"] == [[1, (2.0).hex()]] and "half" in str(runs["half"].damage)
    assert len(runs) == 3 and sum(run.damage is not None for run in runs.values()) == 2


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    write_neptune(tmp_path, "w/p", "one", [point("loss", 1, 2.0)])
    read = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from mltrack.store.sources.neptune import NeptuneReader\n"
        f"reader = NeptuneReader({str(tmp_path)!r}); print(reader.recognise({str(tmp_path)!r}))\n"
        "try: list(reader.scan({}))\n"
        "except OSError as error: print(error.strerror)"
    )
    answer = subprocess.run([sys.executable, "-c", read], check=True, capture_output=True, text=True).stdout
    assert answer == "True\na Neptune export needs pyarrow: pip install 'mltrack-tui[import]'\n"


# -- any content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    kind=st.sampled_from(["csv", "db", "parquet"]),
    data=st.binary(max_size=400)
    | st.text('0123456789,.\n"xstep', max_size=200).map(lambda text: b"step,x\n" + text.encode()),
    begin=st.sampled_from([b"", b"SQLite format 3\0", b"PAR1", b"step,loss\n1,2\n"]),
)
def test_any_content_ends_in_pieces_or_an_oserror(
    tmp_path: Path, kind: str, data: bytes, begin: bytes
) -> None:
    folder = tmp_path / "p-0000000000000000"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name, reader_class = {
        "csv": ("metrics.csv", LightningReader),
        "db": ("x.db", TrackioReader),
        "parquet": ("r-0000000000000000_part_0.parquet", NeptuneReader),
    }[kind]
    (folder / name).write_bytes(begin + data)
    reader: Reader = reader_class(folder)
    reader.recognise(folder)
    try:
        for found in reader.scan({}):
            if found is not None:
                assert len(list(reader.read(found, ""))) <= 10
    except OSError:
        pass
