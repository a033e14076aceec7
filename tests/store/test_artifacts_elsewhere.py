"""Artifacts that lie only in an object store: listed and shown, served, loaded, registered, and gone exactly when they should be."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3

import mltrack
from mltrack.store import open_store
from mltrack.store.client.destination import Destination, object_name
from mltrack.store.client.journal import run_folder
from mltrack.store.copies import bring, copies, set_destination
from mltrack.store.errors import Conflict, StoreDamaged
from mltrack.store.object_owner import MARKER
from mltrack.store.object_store import open_objects
from mltrack.store.store import Store
from mltrack.store.upload import SMALL_BYTES, send_now
from mltrack.tui.worker_calls.files import file_preview, files
from mltrack.tui.worker_calls.run import run_page

WEIGHTS = os.urandom(SMALL_BYTES + 100)
MLMODEL = "artifact_path: model\nflavors:\n  python_function:\n    loader_module: x\n"


@pytest.fixture
def run_id(store_root: Path, s3_place: str) -> str:
    """A run whose large files lie only in the object store."""
    with open_store(str(store_root)) as store:
        set_destination(store.database, store.root, Destination(s3_place, drop_local=True))
    with mltrack.start_run(run_name="train", system_metrics=False) as run:
        run.sending = float("inf")
        Path("weights.bin").write_bytes(WEIGHTS)
        Path("log.txt").write_text("line of text\n" * (SMALL_BYTES // 10))
        mltrack.log_artifact("weights.bin", "model")
        mltrack.log_text(MLMODEL, "model/MLmodel")
        mltrack.log_artifact("log.txt")
    done = send_now(str(store_root), print)
    assert done is not None and (done.files, done.dropped) == (3, 2)
    return run.run_id


def _command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "mltrack.tui.cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _names(place: str) -> list[str]:
    return sorted(found.name for found in open_objects(place).listing() if found.name != MARKER)


def _name(run_id: str, path: str, content: bytes) -> str:
    return object_name(run_id, path, hashlib.sha256(content).hexdigest())


def _preview(store: Store, run_id: str, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (answer := file_preview(store, run_id, path, 80, 20)).get("again"):
        assert time.monotonic() < deadline
    return answer


def test_the_files_tab_lists_and_shows_them(run_id: str, store_root: Path, s3_place: str) -> None:
    with open_store(str(store_root)) as store:
        answer = files(store, run_id)
        entries = [(path, kind, size) for path, kind, size, _ in answer["entries"]]
        text_bytes = 13 * (SMALL_BYTES // 10)
        assert entries == [
            ("log.txt", "file", text_bytes),
            ("model", "folder", len(WEIGHTS) + len(MLMODEL)),
            ("model/MLmodel", "file", len(MLMODEL)),
            ("model/weights.bin", "file", len(WEIGHTS)),
        ]
        assert not answer["gone"]
        assert run_page(store, run_id)["files"] == 3
        shown = _preview(store, run_id, "log.txt")
        assert "line of text" in str(shown["lines"]) and "✓ as logged" in str(shown["facts"])
        name = _name(run_id, "log.txt", b"line of text\n" * (SMALL_BYTES // 10))
        assert f"{s3_place}/{name}" in str(shown["facts"])
        assert "also at" in str(_preview(store, run_id, "model/MLmodel")["facts"])


def test_show_lists_them_with_where_they_lie(run_id: str, s3_place: str) -> None:
    assert "weights.bin" in _command("show", "train")
    found = {file["path"]: file for file in json.loads(_command("show", "train", "--json"))["artifacts"]}
    assert (
        found["model/weights.bin"]["address"] == f"{s3_place}/{_name(run_id, 'model/weights.bin', WEIGHTS)}"
    )
    assert "address" not in found["model/MLmodel"]


def test_a_model_is_registered_checked_and_brought_here(run_id: str, store_root: Path) -> None:
    with open_store(str(store_root)) as store:
        version = store.registry.register("churn", f"runs:/{run_id}/model")
        assert [name for name, _, _ in store.registry.files("churn", version) or ()] == [
            "MLmodel",
            "weights.bin",
        ]
        assert store.registry.file_problems("churn", version) == []
        found = store.registry.version("churn", version)
        assert not (store.registry.folder_here(found) / "weights.bin").exists()
        folder = store.registry.folder(found)
        assert (folder / "weights.bin").read_bytes() == WEIGHTS and (
            folder / "MLmodel"
        ).read_text() == MLMODEL
        assert store.registry.locate("models:/churn/1") == folder
        with pytest.raises(Conflict, match="registered model version"):
            store.purge([run_id])
        store.gc_objects()
        assert store.registry.folder(found) == folder


def test_other_bytes_than_those_that_were_logged_are_refused(
    run_id: str, store_root: Path, s3_place: str
) -> None:
    Path("other").write_bytes(WEIGHTS[::-1])
    open_objects(s3_place).put(Path("other").open("rb"), _name(run_id, "model/weights.bin", WEIGHTS))
    with open_store(str(store_root)) as store, pytest.raises(StoreDamaged, match="not what was logged"):
        bring(store.database, store.root, f"runs:/{run_id}/model")


def test_purging_a_run_removes_just_its_objects(run_id: str, store_root: Path, s3_place: str) -> None:
    with mltrack.start_run(run_name="other", system_metrics=False) as other:
        other.sending = float("inf")
        mltrack.log_text("x", "a.txt")
    send_now(str(store_root), print)
    assert len(_names(s3_place)) == 4
    _command("delete", "train", "-y")
    (said,) = (line for line in _command("purge", "train", "--dry-run").splitlines() if "would go" in line)
    assert int(said.split()[0]) * 1000 > len(WEIGHTS) + SMALL_BYTES, "what lies only there counts, too"
    _command("purge", run_id, "-y")
    deadline = time.monotonic() + 60
    while _names(s3_place) != [_name(other.run_id, "a.txt", b"x")]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not list((store_root / "runs").glob(f"*/{run_id}"))


def test_gc_finds_what_nothing_names_and_says_so_first(
    run_id: str, store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mltrack.store import object_gc

    Path("x").write_bytes(b"12345")
    objects = open_objects(s3_place)
    spare = [
        f"{run_id}/artifacts/never-logged.bin",
        f"{'0' * 32}/artifacts/of-another-store.bin",
        "readme.txt",
    ]
    for name in spare:
        objects.put(Path("x").open("rb"), name)
    assert "never-logged" not in _command("gc", "--dry-run"), "it may be on its way"
    monkeypatch.setattr(object_gc, "UNNAMED_SECONDS", -60)
    with open_store(str(store_root)) as store:
        dry = store.gc_objects(dry=True)
        assert dry.count_by_kind == {"objects that no run names": 1} and dry.bytes_by_kind == {
            "objects that no run names": 5
        }
        assert len(_names(s3_place)) == 6
        store.gc_objects()
    assert sorted(set(spare) - set(_names(s3_place))) == [spare[0]]
    assert len(_names(s3_place)) == 5


def test_gc_removes_what_an_earlier_purge_left(run_id: str, store_root: Path, s3_place: str) -> None:
    with open_store(str(store_root)) as store:
        store.trash([run_id])
        store.decide([{"op": "purge", "run": run_id}], "purged by a process that died then")
    assert "3 objects of purged runs" in _command("gc", "--dry-run")
    assert len(_names(s3_place)) == 3
    _command("gc")
    assert not _names(s3_place)
    with open_store(str(store_root)) as store:
        assert store.database.setting("artifact_removals") == "[]"


def test_gc_says_what_it_could_not_reach(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = subprocess.run([sys.executable, "-m", "mltrack.tui.cli", "gc"], capture_output=True, text=True)
    assert done.returncode == 1 and "cannot be used" in done.stderr and "Traceback" not in done.stderr


def test_spare_checkpoints_go_there_too(store_root: Path, s3_place: str) -> None:
    with open_store(str(store_root)) as store:
        set_destination(store.database, store.root, Destination(s3_place, drop_local=True))
    with mltrack.start_run(run_name="train", system_metrics=False) as run:
        run.sending = float("inf")
        for step in (1, 2):
            Path(f"step_{step}.ckpt").write_bytes(WEIGHTS)
            mltrack.log_artifact(f"step_{step}.ckpt", "checkpoints")
    send_now(str(store_root), print)
    assert "Removed 1 checkpoints" in _command("checkpoints", "--delete", "-y")
    assert _names(s3_place) == [_name(run.run_id, "checkpoints/step_2.ckpt", WEIGHTS)]
    with open_store(str(store_root)) as store:
        assert [copy.path for copy in copies(store.database, store.root, run.run_id)] == [
            "checkpoints/step_2.ckpt"
        ]


def test_the_server_hands_them_out(run_id: str, store_root: Path, s3_place: str) -> None:
    started = _command("server", "start", "--port", "0")
    address = started.split("MLFLOW_TRACKING_URI=")[1].split()[0]
    try:
        files_at = f"{address}/api/2.0/mlflow-artifacts/artifacts"
        listed = urllib3.request("GET", f"{address}/api/2.0/mlflow/artifacts/list?run_id={run_id}").json()[
            "files"
        ]
        assert [(file["path"], file["is_dir"]) for file in listed] == [("log.txt", False), ("model", True)]
        inside = urllib3.request("GET", f"{files_at}?path=0/{run_id}/artifacts/model").json()["files"]
        assert [(file["path"], file["file_size"]) for file in inside] == [
            ("MLmodel", len(MLMODEL)),
            ("weights.bin", len(WEIGHTS)),
        ]
        got = urllib3.request("GET", f"{files_at}/0/{run_id}/artifacts/model/weights.bin")
        assert got.status == 200 and got.data == WEIGHTS
        assert (
            urllib3.request("GET", f"{address}/get-artifact?run_id={run_id}&path=model/weights.bin").data
            == WEIGHTS
        )
        assert urllib3.request("GET", f"{files_at}/0/{run_id}/artifacts/model/none.bin").status == 404
        assert urllib3.request("DELETE", f"{files_at}/0/{run_id}/artifacts/model/weights.bin").status == 200
        assert urllib3.request("GET", f"{files_at}/0/{run_id}/artifacts/model/weights.bin").status == 404
        assert _name(run_id, "model/weights.bin", WEIGHTS) not in _names(s3_place)
        put = urllib3.request("PUT", f"{files_at}/0/{run_id}/artifacts/sent/by client.bin", body=WEIGHTS)
        assert put.status == 200
        deadline = time.monotonic() + 60
        while _name(run_id, "sent/by client.bin", WEIGHTS) not in _names(s3_place):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        _command("server", "stop")


def test_files_come_from_there_on_a_machine_that_never_had_them(
    postgres_url: str, store_root: Path, s3_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLTRACK_STORE", postgres_url)
    monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "here"))
    said = _command("--store", postgres_url, "init", "--artifacts", s3_place)
    assert s3_place in said
    code = (
        "import mltrack\nwith mltrack.start_run(run_name='train', system_metrics=False) as run:\n"
        f" mltrack.log_text('x' * {SMALL_BYTES * 2}, 'model/weights.txt')\n print(run.run_id)"
    )
    run_id = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    deadline = time.monotonic() + 60
    with open_store(postgres_url) as store:
        while not copies(store.database, store.root, run_id):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    monkeypatch.setenv("MLTRACK_SPOOL", str(tmp_path / "elsewhere"))
    with open_store(postgres_url) as store:
        assert not run_folder(store.root, run_id).exists()
        assert [entry[0] for entry in files(store, run_id)["entries"]] == ["model", "model/weights.txt"]
        assert "xxx" in str(_preview(store, run_id, "model/weights.txt")["lines"])
        folder = store.registry.locate(f"runs:/{run_id}/model")
        assert (folder / "weights.txt").stat().st_size == SMALL_BYTES * 2


def test_a_journal_cannot_send_us_anywhere(store_root: Path, s3_place: str) -> None:
    with open_store(str(store_root)) as store:
        set_destination(store.database, store.root, Destination(f"{s3_place}/ours", drop_local=True))
    secret = store_root.parent / "secret.bin"
    secret.write_bytes(WEIGHTS)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    open_objects(s3_place).put(secret.open("rb"), "x/artifacts/y")
    with mltrack.start_run(run_name="liar", system_metrics=False) as run:
        run.sending = float("inf")
        mltrack.log_text("x", "a.txt")
        outside = "../" * 4 + "secret.bin"
        link = run.folder / "artifacts" / "link.bin"
        link.symlink_to(secret)
        for path, place in (
            (outside, f"{s3_place}/ours"),
            ("far.bin", f"{s3_place}/theirs"),
            ("link.bin", f"{s3_place}/ours"),
        ):
            run.record("artifact", path=path, size=len(WEIGHTS), sha256=digest, how="copy")
            run.record("artifact_copy", path=path, sha256=digest, place=place)
        run.record("artifact", path=outside + ".2", size=1, sha256=digest, how="copy")
    (store_root.parent / "secret.bin.2").write_bytes(b"x")
    done = send_now(str(store_root), print)
    assert done is not None and (done.files, done.dropped) == (1, 0)
    assert secret.read_bytes() == WEIGHTS and link.is_symlink()
    assert _names(f"{s3_place}/ours") == [_name(run.run_id, "a.txt", b"x")]
    with open_store(str(store_root)) as store:
        assert [copy.path for copy in copies(store.database, store.root, run.run_id)] == ["a.txt", "link.bin"]
        store.trash([run.run_id])
        store.purge([run.run_id])
        store.gc_objects()
    assert _names(s3_place) == [f"ours/{MARKER}", "x/artifacts/y"]


def test_a_copy_that_only_a_journal_speaks_of_lets_no_file_go(store_root: Path, s3_place: str) -> None:
    with open_store(str(store_root)) as store:
        set_destination(store.database, store.root, Destination(s3_place, drop_local=True))
    with mltrack.start_run(run_name="liar", system_metrics=False) as run:
        run.sending = float("inf")
        Path("w.bin").write_bytes(WEIGHTS)
        mltrack.log_artifact("w.bin")
        run.record("artifact_copy", path="w.bin", sha256=hashlib.sha256(WEIGHTS).hexdigest(), place=s3_place)
    done = send_now(str(store_root), print)
    assert done is not None and done.dropped == 0
    assert (run.folder / "artifacts" / "w.bin").read_bytes() == WEIGHTS


def test_what_went_to_an_earlier_address_is_still_found(run_id: str, store_root: Path, s3_place: str) -> None:
    _command("init", str(store_root), "--artifacts", f"{s3_place}/new")
    with open_store(str(store_root)) as store:
        assert "line of text" in str(_preview(store, run_id, "log.txt")["lines"])
