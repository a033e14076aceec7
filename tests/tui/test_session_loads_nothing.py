"""A whole session over hostile models, every process of it real: app, worker, server, importer and commands load no pickle.

Each interpreter that starts is watched from its first moment by an audit hook that a `sitecustomize` of the test sets: it writes
down every class that a pickle names, and every import of something that loads models.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Command = tuple[tuple[str, ...], dict[str, str]]
OpenApp = Callable[..., Any]

WATCH = """
import os, sys

LOG = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
LOADERS = {"joblib", "cloudpickle", "dill", "torch", "sklearn", "skops", "onnxruntime", "keras", "mlflow", "evil"}

def note(*words):
    os.write(LOG, (" ".join(map(str, words)) + "\\n").encode())

def watch(event, arguments):
    if event == "pickle.find_class":
        note("PICKLE", *arguments)
    elif event == "import" and (
        arguments[0].partition(".")[0] in LOADERS or arguments[0].startswith("mltrack.store.flavors")
    ):
        note("IMPORT", arguments[0])

sys.addaudithook(watch)
note("began", *sys.orig_argv[1:])
"""
# What an MLmodel may hold to make its reader run something, look elsewhere or never end.
HOSTILE = (
    "flavors: {python_function: {loader_module: evil, code: code, data: model.pkl}, sklearn: {pickled_model: model.pkl}}\n"
    'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n',
    "flavors: {python_function: {loader_module: evil, code: ../../../../etc, data: /etc/passwd}}\n"
    "saved_input_example_info: {artifact_path: ../../model.pkl, type: dataframe}\n"
    'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n',
    "flavors: !!python/object/apply:os.system ['touch MARK']\nrun_id: !!python/name:os.system\n",
    "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
    "flavors: {pytorch: {model_data: data, pickle_module_info: evil}}\n",
)


class Bomb:
    """What a model of somebody else may do when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


class Watched:
    """The commands under watch, and what was seen of them."""

    def __init__(self, folder: Path, command: Command) -> None:
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        self.log = folder / "seen"
        self.mark = folder / "ran"
        self.words = command[0]
        path = f"{folder / 'watch'}{os.pathsep}{command[1]['PYTHONPATH']}"
        self.environment = {**command[1], "PYTHONPATH": path, "WATCH_LOG": str(self.log)}

    def mltrack(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [*self.words, *arguments], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode in codes and "Traceback" not in done.stderr, (arguments, done.stderr)
        return done.stdout + done.stderr

    def seen(self) -> list[str]:
        return self.log.read_text().splitlines()

    def clean(self, *began: str) -> None:
        """Each of these was watched, and nothing was loaded."""
        for words in began:
            assert any(line.startswith("began") and re.search(words, line) for line in self.seen()), words
        assert [line for line in self.seen() if not line.startswith("began")] == []
        assert not self.mark.exists()


@pytest.fixture
def watched(tmp_path: Path, command: Command) -> Watched:
    return Watched(tmp_path, command)


def write_model(folder: Path, text: str, mark: Path) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text(text.replace("MARK", str(mark)))
    for name in ("model.pkl", "weights.bin", "data/model.pth", "input_example.joblib"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    (folder / "code" / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    return folder


def write_mlruns(root: Path, mark: Path, first: str) -> Path:
    """An mlruns folder whose runs hold the models, and a registry that points to them."""
    common = "lifecycle_stage: active\n"
    (root / "0").mkdir(parents=True)
    (root / "0" / "meta.yaml").write_text(
        f"artifact_location: file://{root}/0\nexperiment_id: '0'\nname: Default\n{common}"
    )
    for number, text in enumerate(HOSTILE):
        run_id = f"{first}{number:031x}"
        run = root / "0" / run_id
        for name in ("params", "metrics", "tags"):
            (run / name).mkdir(parents=True)
        (run / "meta.yaml").write_text(
            f"artifact_uri: file://{run}/artifacts\nend_time: 1700000005000\nexperiment_id: '0'\nrun_id: {run_id}\n"
            f"run_name: theirs-{number}\nsource_type: 4\nstart_time: 1700000000000\nstatus: 3\nuser_id: ann\n{common}"
        )
        (run / "metrics" / "auc").write_text("1700000001000 0.9 0\n")
        history = [
            {
                "run_id": run_id,
                "artifact_path": "model",
                "flavors": {"python_function": {"loader_module": "os"}},
            }
        ]
        (run / "tags" / "mlflow.log-model.history").write_text(json.dumps(history))
        write_model(run / "artifacts" / "model", text, mark)
        version = root / "models" / "theirs" / f"version-{number + 1}"
        version.mkdir(parents=True)
        (version / "meta.yaml").write_text(
            f"creation_timestamp: 1700000006000\ncurrent_stage: None\nlast_updated_timestamp: 1700000006000\nname: theirs\n"
            f"run_id: {run_id}\nsource: {run}/artifacts/model\nstatus: READY\nversion: {number + 1}\n"
        )
    (root / "models" / "theirs" / "meta.yaml").write_text(
        "creation_timestamp: 1700000006000\nlast_updated_timestamp: 1700000006000\nname: theirs\n"
    )
    return root


def test_the_watch_sees_what_it_is_for(watched: Watched, tmp_path: Path) -> None:
    for code in ("import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))", "import mltrack.store.flavors"):
        bomb = tmp_path / "bomb.pkl"
        bomb.write_bytes(pickle.dumps(Bomb(tmp_path / "control")))
        subprocess.run([sys.executable, "-c", code, str(bomb)], env=watched.environment, check=True)
    assert any(line.startswith("PICKLE posix system") for line in watched.seen())
    assert "IMPORT mltrack.store.flavors" in watched.seen()


@pytest.fixture
def store(watched: Watched, tmp_path: Path) -> str:
    """Models registered from folders, and runs of others with theirs, imported and followed."""
    store = str(tmp_path / "store")
    watched.mltrack("init", store)
    for number, text in enumerate(HOSTILE):
        folder = write_model(tmp_path / f"model{number}", text, watched.mark)
        watched.mltrack("--store", store, "models", "register", str(folder), "--name", "evil", codes=(0, 1))
    mlruns = write_mlruns(tmp_path / "mlruns", watched.mark, "a")
    watched.mltrack("--store", store, "import", str(mlruns))
    watched.mltrack(
        "--store", store, "source", "add", str(write_mlruns(tmp_path / "more", watched.mark, "b"))
    )
    return store


def test_importer_and_commands(watched: Watched, store: str) -> None:
    assert watched.mltrack("--store", store, "ls", "--csv").count("theirs-") == 2 * len(HOSTILE)
    versions = [
        f"{model['name']}/{version}"
        for model in json.loads(watched.mltrack("--store", store, "models", "list", "--json"))
        for version in range(1, model["versions"] + 1)
    ]
    assert len(versions) >= len(HOSTILE) + 2
    for version in versions:
        watched.mltrack("--store", store, "models", "show", version)
        watched.mltrack("--store", store, "models", "diff", versions[0], version, codes=(0, 1, 2))
    watched.mltrack(
        "--store", store, "models", "promote", versions[0], "Production", "-m", "on trust", codes=(0, 1)
    )
    watched.mltrack("--store", store, "gc")
    watched.mltrack("--store", store, "doctor")
    watched.clean(" import ", " source add ", " models register ", " models promote ", " doctor")


def test_app_and_worker(watched: Watched, store: str, open_app: OpenApp) -> None:
    app = open_app(watched.environment, "--store", store, "--screen", "models", columns=120, lines=40)
    app.until("audit chain")
    # The newest version is looked at first.
    for version in (3, 2):
        app.press("\r").until(r"B  model\.pkl")
        app.press("q").until("audit chain")
        app.press("l").until(f"v{version} ─")
    app.press("\r").until(r"B  model\.pkl")
    app.press("q").until("audit chain")
    app.press("H").until("evil: history")
    app.press("q").until("audit chain")
    app.press("P").until("stage or @alias")
    app.press("Staging\r").until("Why")
    app.press("a try\r").until("Moved evil")
    app.press("1").until("theirs-0")
    app.press("\r").until("Overview")
    app.press("Q")
    assert app.finish() == 0
    watched.clean(r"mltrack\.tui\.entry", "worker")


@pytest.fixture
def server(watched: Watched, store: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*watched.words, "--store", store, "server", "--port", "0"],
        env=watched.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = None
        while found is None:
            line = process.stdout.readline()
            assert line, "the server ended"
            found = re.search(r"http://[\d.]+:\d+", line)
        yield found[0]
    finally:
        process.terminate()
        process.wait(60)


def test_server(watched: Watched, server: str, tmp_path: Path) -> None:
    def ask(method: str, path: str, body: object = None) -> Any:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{server}/api/2.0/{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content[:1] == b"{" else content

    run = ask("POST", "mlflow/runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    for path in sorted((tmp_path / "model0").rglob("*")):
        if path.is_file():
            name = path.relative_to(tmp_path)
            ask("PUT", f"mlflow-artifacts/artifacts/0/{run}/artifacts/{name}", path.read_bytes())
    flavors = {"python_function": {"loader_module": "evil", "data": "model.pkl"}}
    told = {
        "run_id": run,
        "artifact_path": "model0",
        "flavors": flavors,
        "utc_time_created": "2026-01-01 00:00:00",
    }
    ask("POST", "mlflow/runs/log-model", {"run_id": run, "model_json": json.dumps(told)})
    source = f"mlflow-artifacts:/0/{run}/artifacts/model0"
    ask("POST", "mlflow/registered-models/create", {"name": "sent"})
    ask("POST", "mlflow/model-versions/create", {"name": "sent", "source": source, "run_id": run})
    stage = {"name": "sent", "version": "1", "stage": "Production", "archive_existing_versions": True}
    ask("POST", "mlflow/model-versions/transition-stage", stage)
    assert ask("GET", "mlflow/model-versions/get-download-uri?name=sent&version=1")["artifact_uri"]
    assert ask("GET", "mlflow/registered-models/search?max_results=100")["registered_models"]
    assert ask("GET", f"mlflow/artifacts/list?run_id={run}&path=model0")["files"]
    assert ask("GET", f"mlflow-artifacts/artifacts/0/{run}/artifacts/model0/model.pkl").startswith(b"\x80")
    watched.clean(" server ")
