"""The API people know from MLflow, against a real store: what was logged is what is read."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import take_in

import mltrack
from mltrack.store import Store, open_store


@pytest.fixture
def root(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")
    for name in ("MLTRACK_RUN_ID", "MLTRACK_EXPERIMENT"):
        monkeypatch.delenv(name, raising=False)
    yield store_root
    while mltrack.active_run() is not None:
        mltrack.end_run()
    mltrack.set_store(None)


def read() -> Store:
    store = open_store()
    take_in(store)
    return store


def test_what_is_logged_is_what_is_read(root: Path) -> None:
    mltrack.set_experiment("vision/cifar")
    with mltrack.start_run(run_name="one", tags={"a": 1}, description="why", total_steps=10) as run:
        mltrack.log_params({"lr": 3e-4, "layers": [1, 2]})
        mltrack.log_metrics({"loss": 0.5, "acc": 1}, step=3)
        mltrack.log_metric("loss", np.float32(0.1), step=4)  # pyright: ignore[reportArgumentType]
        mltrack.set_tag("a", "two")
        mltrack.set_tag("b", "x")
        mltrack.delete_tag("b")
        mltrack.progress(4, 20)
    with read() as store:
        found = store.run("one")
        assert (
            found.run_id == run.run_id and found.experiment == "vision/cifar" and found.status == "FINISHED"
        )
        assert found.params == {"lr": "0.0003", "layers": "[1, 2]"}
        assert found.tags == {"a": "two"} and found.note == "why" and (found.step, found.total) == (4, 20)
        assert store.points(run.run_id, "loss").values.tolist() == [0.5, float(np.float32(0.1))]
        assert found.metrics["acc"].last == 1.0 and found.exit_code == 0
    assert mltrack.get_run("one").run_id == run.run_id
    assert [r.name for r in mltrack.search_runs("loss < 1", order_by=["-loss"])] == ["one"]


def test_steps_count_when_none_is_given_and_go_on_after_a_resume(root: Path) -> None:
    with mltrack.start_run() as run:
        for value in (1.0, 2.0, 3.0):
            mltrack.log_metric("x", value)
        mltrack.log_metric("x", 9.0, step=10)
        mltrack.log_metric("x", 4.0)
    with mltrack.start_run(run_id=run.run_id):
        mltrack.log_metric("x", 5.0)
    with read() as store:
        assert store.points(run.run_id, "x").steps.tolist() == [0, 1, 2, 10, 11, 12]
        assert store.run(run.run_id).name == run.run_name


def test_a_key_names_a_run_to_resume(root: Path) -> None:
    ids = []
    for step in range(2):
        with mltrack.start_run(key="seed-1", experiment="e") as run:
            mltrack.log_metric("x", 1.0, step=step)
            ids.append(run.run_id)
    assert ids[0] == ids[1]
    with mltrack.start_run(key="seed-1", experiment="other") as run:
        assert run.run_id != ids[0]


def test_nested_runs_know_their_parent(root: Path) -> None:
    with mltrack.start_run(run_name="sweep") as parent:
        with pytest.raises(mltrack.UsageError, match="nested=True"):
            mltrack.start_run()
        with mltrack.start_run(run_name="child", nested=True):
            mltrack.log_metric("x", 1.0)
        mltrack.log_metric("y", 2.0)
    with read() as store:
        assert store.run("child").parent_id == parent.run_id
        assert list(store.run("sweep").metrics) == ["y"]


def test_values_are_exact_or_refused_with_a_record(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exact = [
        0.1,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        float("inf"),
        float("-inf"),
        float("nan"),
        2**53,
        True,
    ]
    with mltrack.start_run() as run:
        for step, value in enumerate(exact):
            mltrack.log_metric("exact", value, step=step)
        for bad in ("0.5", None, 2**53 + 1, 10**400, Decimal("0.1"), [1, 2], np.zeros(3)):
            mltrack.log_metric("bad", bad, step=0)  # type: ignore[arg-type]
        mltrack.log_metric("", 1.0)
        mltrack.log_metric("x" * 1001, 1.0)
        mltrack.log_metric("surrogate\ud800", 1.0)
        mltrack.log_metric("far", 1.0, step=2**63)
        mltrack.log_metric("half", 1.0, step=1.5)  # type: ignore[arg-type]
        mltrack.log_metric("edge", 1.0, step=2**63 - 1)
        mltrack.log_metric("edge", 2.0, step=-(2**63))
        mltrack.log_param("big", "x" * (1 << 20))
        mltrack.log_param("too big", "x" * ((1 << 20) + 1))
        mltrack.log_params("no dict")  # type: ignore[arg-type]
    with read() as store:
        found = store.run(run.run_id)
        values = store.points(run.run_id, "exact").values
        assert values.tobytes() == np.array([float(value) for value in exact]).tobytes()
        assert set(found.metrics) == {"exact", "edge"}
        assert store.points(run.run_id, "edge").steps.tolist() == [-(2**63), 2**63 - 1]
        assert len(found.params["big"]) == 1 << 20 and "too big" not in found.params
        assert len(found.facts["refused"]) == 14
    assert "was not stored" in capfd.readouterr().err


def test_what_no_record_can_hold_is_refused_by_name(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A record that its reader would skip is a loss without a word, and shows as damage what was a mistake."""
    with mltrack.start_run(run_name="one", total_steps=100.0, description="kept"):  # type: ignore[arg-type]
        mltrack.log_metric("last", 1.0, step=2**63 - 1)
        mltrack.log_metric("last", 2.0)  # counting goes no further
        mltrack.log_metric("other", 3.0)
        for name in ("half \ud800", "nul \0", None):
            mltrack.log_text("x", name)  # type: ignore[arg-type]
            mltrack.log_artifact(f"/{name}")
        mltrack.log_artifact(__file__, "half \ud800")
    with mltrack.start_run(run_name="two", total_steps=7.5, description="x" * (2 << 20)):  # type: ignore[arg-type]
        mltrack.log_metric("loss", 1.0)
    said = capfd.readouterr().err
    assert "metric 'last'" in said and "total_steps was not stored" in said
    assert "description was not stored" in said
    with read() as store:
        one, two = store.run("one"), store.run("two")
        assert (one.skipped, one.total, one.note) == (0, 100, "kept")
        assert store.points(one.run_id, "last").steps.tolist() == [2**63 - 1]
        assert one.metrics["last"].last_step == 2**63 - 1 and one.metrics["other"].last == 3.0
        assert (two.skipped, two.total, two.note, two.status) == (0, None, "", "FINISHED")
        assert len(one.facts["refused"]) >= 7 and len(two.facts["refused"]) == 2


def test_secrets_in_params_and_errors_are_not_kept(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Who logs a whole configuration logs its keys, too; and an error names the address it could not reach."""
    token, address = "hf_" + "Abcdefgh12345678", "postgres://me:open-sesame@host/db"
    params = {"api_key": "sesame-street", "hub": token, "db": address, "lr": "0.1", "pad_token": "<pad>"}
    params |= {"max_tokens": "512", "note": "prose: the key idea", "use_token": "true"}
    with pytest.raises(RuntimeError), mltrack.start_run(run_name="one"):
        mltrack.log_params(params)
        raise RuntimeError(f"cannot reach {address} with {token}")
    said = capfd.readouterr().err
    assert said.count("looks like a secret") == 3 and "'api_key'" in said
    with read() as store:
        found = store.run("one")
        kept = {"api_key": "***", "hub": "hf_***", "db": "postgres://***@host/db"}
        assert found.params == params | kept
        assert found.reason == "RuntimeError: cannot reach postgres://***@host/db with hf_***"
        assert "RuntimeError: cannot reach postgres" in found.facts["end"]["traceback"]
    for path in root.rglob("*"):
        assert not path.is_file() or b"sesame" not in path.read_bytes(), path
    assert "sesame" not in said and token not in said


def test_artifacts_are_whole_and_keep_what_they_were(root: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(b"first")
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a b.txt").write_text("x")
    (tmp_path / "data" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "data" / "pipe")
    with mltrack.start_run() as run:
        mltrack.log_artifact(checkpoint, "models")
        checkpoint.write_bytes(b"later")
        mltrack.log_artifacts(tmp_path / "data", "data")
        mltrack.log_text("grüße", "notes/a.txt")
        mltrack.log_dict({"a": [1]}, "a.json")
        mltrack.log_table({"x": [1, 2], "y": ["a", "b"]}, "t.json")
        mltrack.log_image(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "i.png")
        mltrack.log_artifact(tmp_path / "missing")
        mltrack.log_text("x", "../out.txt")
        mltrack.log_text("x", "/etc/x")
        mltrack.log_artifact(tmp_path / "data" / "pipe")
    folder = run.folder / "artifacts"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"models/last.ckpt", "data/sub/a b.txt", "notes/a.txt", "a.json", "t.json", "i.png"}
    assert (folder / "models/last.ckpt").read_bytes() == b"first"
    assert json.loads((folder / "t.json").read_text()) == {
        "columns": ["x", "y"],
        "data": [[1, "a"], [2, "b"]],
    }
    png = (folder / "i.png").read_bytes()
    assert png.startswith(b"\x89PNG") and zlib.decompress(png[png.index(b"IDAT") + 4 : -16]) == b"\0" + bytes(
        range(6)
    ) + b"\0" + bytes(range(6, 12))
    assert not (tmp_path / "out.txt").exists()
    with read() as store:
        rows = dict(store.database.execute("SELECT path, sha256 FROM artifact"))
        assert rows["models/last.ckpt"] == hashlib.sha256(b"first").hexdigest()
        assert len(store.run(run.run_id).facts["refused"]) == 4


def test_inputs_have_digests_that_follow_the_content(root: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.bin"
    data.write_bytes(b"one")
    with mltrack.start_run() as run:
        mltrack.log_input(data, context="train")
        mltrack.log_input(data, context="again", digest="full")
        data.write_bytes(b"two, longer")
        mltrack.log_input(data, name="changed")
        mltrack.log_input(tmp_path, name="folder")
        mltrack.log_input(tmp_path / "nothing")
    with read() as store:
        inputs = {entry["name"] + entry["context"]: entry for entry in store.run(run.run_id).inputs}
        assert set(inputs) == {"d.bintrain", "d.binagain", "changed", "folder"}
        assert inputs["d.bintrain"]["digest"] == inputs["d.binagain"]["digest"] != inputs["changed"]["digest"]
        assert inputs["d.bintrain"]["size"] == 3


def test_files_are_private_unless_the_store_is_shared(root: Path, tmp_path: Path) -> None:
    with mltrack.start_run():
        mltrack.log_metric("x", 1.0)
        mltrack.log_text("x", "a/x.txt")
    with read():
        pass
    for path in [root, *root.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    mltrack.set_store(shared)
    before = os.umask(0o077)
    try:
        with mltrack.start_run():
            mltrack.log_metric("x", 1.0)
    finally:
        os.umask(before)
    for path in shared.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o770 == (0o770 if path.is_dir() else 0o660), path


def test_the_end_of_a_script_is_recorded(root: Path) -> None:
    code = "import mltrack, sys\nmltrack.start_run(run_name='s')\nmltrack.log_metric('x', 1.0)\n"
    endings = {"": "FINISHED", "raise ValueError('boom')\n": "FAILED", "raise KeyboardInterrupt\n": "KILLED"}
    for ending, status in endings.items():
        environment = {**os.environ}
        subprocess.run(
            [sys.executable, "-c", code + ending], env=environment, capture_output=True, check=False
        )
        with read() as store:
            found = store.run("@last")
            assert found.status == status, ending
            assert "boom" not in ending or found.reason == "ValueError: boom"
