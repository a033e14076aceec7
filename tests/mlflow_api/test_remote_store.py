"""A server as a store: MLflow's own and ours, seen and changed from here; slow and absent ones hold up nobody."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.mlflow_api.conftest import COMMAND, QUIET, Server, until

from mltrack.store import open_store
from mltrack.store.errors import BadInput, NotFound
from mltrack.store.sources.mlflow_files import ServerFiles
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.worker_calls.files import file_preview, files
from mltrack.tui.worker_calls.sharing import place_outside

SCRIPT = """
import json, sys, mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
if sys.argv[2] == "log":
    mlflow.set_experiment("far/away")
    with mlflow.start_run(run_name="parent", tags={"team": "ml"}) as run:
        mlflow.log_params({"lr": "1e-3", "opt": "adam"})
        for step in range(50):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metric("nan", float("nan"))
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("loss", 0.5)
    client.create_registered_model("net")
    for _ in range(2):
        client.create_model_version("net", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_registered_model_alias("net", "champion", "1")
    print(run.info.run_id)
else:
    run = client.get_run(sys.argv[2])
    version = client.get_model_version("net", "2")
    print(json.dumps([run.info.run_name, run.data.tags, version.current_stage, version.description,
                      client.get_model_version_by_alias("net", "champion").version, run.info.lifecycle_stage]))
"""


def client(python: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **QUIET},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield


def look_and_change(python: Path, address: str) -> None:
    run_id = client(python, address, "log")
    with open_store(address) as store:
        store.refresh(20)
        parent, child = store.run("parent"), store.run("child")
        assert (parent.run_id, parent.experiment, parent.status) == (run_id, "far/away", "FINISHED")
        assert child.parent_id == run_id and parent.params == {"lr": "1e-3", "opt": "adam"}
        assert parent.tags["team"] == "ml" and math.isnan(parent.metrics["nan"].last)
        assert store.search("params.opt = adam and metrics.loss < 0.1").run_ids == (run_id,)
        assert parent.metrics["loss"].count == 1  # only the newest point until somebody looks
        store.patience = 20.0
        assert store.points(run_id, "loss").values.tolist() == [1 / (step + 1) for step in range(50)]
        assert store.run("parent").metrics["loss"].max == 1.0
        assert [(version.version, version.aliases) for version in store.registry.versions("net")] == [
            (2, ()),
            (1, ("champion",)),
        ]
        store.set_tags([run_id], {"paper": "yes"})
        store.rename(run_id, "renamed")
        store.note(run_id, "what a run")
        store.registry.promote("net", 2, "Production", "better")
        store.registry.set_alias("net", "champion", 2)
        store.registry.describe("net", "second", 2)
        assert store.registry.register("net", f"runs:/{run_id}/model", run_id) == 3
        for refused in (lambda: store.pin([run_id]), lambda: store.move([run_id], "x"), store.undo):
            with pytest.raises(BadInput):
                refused()
        with pytest.raises(NotFound):
            store.registry.promote("net", 9, "Production", "")
        store.refresh(20)
        assert store.run(run_id).name == "renamed" and store.run(run_id).note == "what a run"
        assert store.registry.version("net", 2).stage == "Production"
        store.trash([run_id])
        store.refresh(20)
        assert store.run(run_id).lifecycle == "trash"
    name, tags, stage, description, alias, lifecycle = json.loads(client(python, address, run_id))
    assert (name, stage, description, alias, lifecycle) == ("renamed", "Production", "second", "2", "deleted")
    assert tags["paper"] == "yes" and tags["mlflow.note.content"] == "what a run"


def test_a_real_mlflow_server_is_seen_and_changed(mlflow_python: Path, reference: str) -> None:
    look_and_change(mlflow_python, reference)


def test_our_own_server_too(mlflow_python: Path, server: Server) -> None:
    look_and_change(mlflow_python, server.address)


def test_a_run_that_goes_on_over_there_goes_on_here(server: Server) -> None:
    run_id = server.new_run(run_name="live")
    server.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1, step=0)
    with open_store(server.address) as store:
        store.refresh(20)
        assert store.run(run_id).status == "RUNNING"
        server.post("runs/log-metric", run_id=run_id, key="m", value=2, timestamp=2, step=1)
        server.post("runs/update", run_id=run_id, status="FINISHED", end_time=3)

        def ended() -> bool:
            store.refresh(0.2)
            return store.run(run_id).status == "FINISHED"

        until(ended, 60)
        assert store.points(run_id, "m").values.tolist() == [1, 2]


def test_a_server_beside_runs_of_ones_own(server: Server, tmp_path: Path) -> None:
    run_id = server.new_run(run_name="there")
    with open_store(str(tmp_path / "mine")) as store:
        store.add_source(server.address)
        store.refresh(20)
        assert store.run("there").run_id == run_id and store.run("there").source == server.address
        store.set_tags([run_id], {"mine": "only"})  # a decision of ours: nothing is written to a source
    tags = server.get("runs/get", run_id=run_id)["run"]["data"]["tags"]
    assert "mine" not in {tag["key"] for tag in tags}


def run_with_files(python: Path, address: str) -> str:
    script = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run(run_name="files") as run:
    mlflow.log_text("first line\\n" * 20, "notes/deep/a b.txt")
    mlflow.log_text("x" * 5_000_000, "large.txt")
    mlflow.log_text("", "empty.txt")
print(run.info.run_id)
"""
    done = subprocess.run(
        [str(python), "-c", script, address],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **QUIET},
        check=True,
    )
    return done.stdout.splitlines()[-1]


def patiently(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask again as the screen does, until the server has answered."""
    answers: list[dict[str, Any]] = []

    def answered() -> bool:
        answers.append(call())
        return not answers[-1].get("again")

    until(answered, 60)
    return answers[-1]


def look_at_files(python: Path, address: str, store_at: str, source: bool) -> None:
    run_id = run_with_files(python, address)
    with open_store(store_at) as store:
        if source:
            store.add_source(address)
        store.refresh(20)
        listed = patiently(lambda: files(store, run_id))
        assert [entry[:3] for entry in listed["entries"]] == [
            ["empty.txt", "file", 0],
            ["large.txt", "file", 5_000_000],
            ["notes", "folder", 220],
            ["notes/deep", "folder", 220],
            ["notes/deep/a b.txt", "file", 220],
        ]
        shown = patiently(lambda: file_preview(store, run_id, "notes/deep/a b.txt", 60, 10))
        assert "first line" in str(shown["lines"])
        large = patiently(lambda: file_preview(store, run_id, "large.txt", 60, 10))
        assert format_bytes(5_000_000) in str(large["facts"])
        patiently(lambda: file_preview(store, run_id, "empty.txt", 60, 10))
        with pytest.raises(NotFound):
            patiently(lambda: file_preview(store, run_id, "absent", 60, 10))
        page = place_outside(store, run_id)
        assert page is not None and page["target"].startswith(f"{address}/#/experiments/")
        assert page["target"].endswith(f"/runs/{run_id}")
        file = place_outside(store, run_id, path="notes/deep/a b.txt")
        assert file is not None
        with urllib.request.urlopen(file["target"], timeout=20) as answer:
            assert answer.read().decode() == "first line\n" * 20


def test_files_of_a_real_mlflow_server_are_listed_and_streamed(mlflow_python: Path, reference: str) -> None:
    look_at_files(mlflow_python, reference, reference, False)


def test_files_of_our_own_server_beside_local_runs(
    mlflow_python: Path, server: Server, tmp_path: Path
) -> None:
    look_at_files(mlflow_python, server.address, str(tmp_path / "mine"), True)


def test_an_absent_server_is_a_sentence_and_the_cache_answers(server: Server, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = subprocess.run(
        [*COMMAND, "--store", nobody, "ls"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and "does not answer" in done.stderr and "Traceback" not in done.stderr


def test_a_silent_server_holds_up_nobody(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)  # takes connections and never answers
        with open_store(f"http://127.0.0.1:{listening.getsockname()[1]}") as store:
            store.refresh(0.1)
            for _ in range(20):
                store.refresh(0.05)
                assert store.search("").total == 0
            began = time.monotonic()
            asked = ServerFiles(str(store.sources()[0].path))
            for _ in range(5):
                assert asked.listing("a" * 32, 0.05).waiting and asked.head("a" * 32, "x", 0.05).waiting
            assert time.monotonic() - began < 4  # the server was asked, and nobody waited for it
            # All of that was answered while the server's first answer is still being waited for.
            (state,) = store.sources()
            assert state.problem == "" and state.runs == 0
