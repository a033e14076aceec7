"""The app on a server that knows its users: who one is, what one may not do, and why, before anything is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.mlflow_api.conftest import COMMAND, Server, start, until

from mltrack.store import open_store

OpenApp = Callable[..., Any]
Command = tuple[tuple[str, ...], dict[str, str]]
TRAIN = """
import mltrack, sys
mltrack.set_store(sys.argv[1])
with mltrack.start_run(run_name="sage-owl", experiment="vision/cifar", system_metrics=False):
    mltrack.log_metric("loss", 0.25)
"""


@dataclass
class Team:
    server: Server
    tokens: dict[str, str]
    environment: dict[str, str]

    def of(self, name: str) -> dict[str, str]:
        home = self.server.root.parent / name  # with a cache of their own
        home.mkdir(exist_ok=True)
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        return {**self.environment, **own, "MLFLOW_TRACKING_TOKEN": self.tokens[name]}

    def wait_for(self, name: str) -> None:
        """Until all that somebody may see of the server is in their cache."""
        until(lambda: "sage-owl" in self.mltrack(name, "ls").stdout, 60.0)

    def mltrack(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "--store", self.server.address, *words],
            env=self.of(name),
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Iterator[Team]:
    root = tmp_path_factory.mktemp("roles") / "store"
    subprocess.run([sys.executable, "-c", TRAIN, str(root)], env=command[1], check=True)
    model = root.parent / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}\n")
    with open_store(str(root)) as store:
        store.refresh(None)
        store.registry.register_from(str(model), "churn")

    def auth(*words: str) -> str:
        done = subprocess.run(
            [*COMMAND, "--store", str(root), "auth", *words], env=command[1], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    people = {
        "ann": ("manager",),
        "bob": ("viewer",),
        "eve": ("editor", "--on", "experiment:vision/"),
        "joe": ("viewer", "--on", "experiment:vision/"),
    }
    tokens: dict[str, str] = {}
    for name, (role, *more) in people.items():
        auth("users", "add", name, "--role", role, *more)
        tokens[name] = next(word for word in auth("token", "create", name).split() if word.startswith("mlt_"))
    auth("role", "grant", "joe", "editor", "--on", "model:churn")
    server = start(root)
    yield Team(server, tokens, {**command[1], "HOME": str(root.parent)})
    server.stop()


def test_the_header_says_who_one_is(team: Team, open_app: OpenApp) -> None:
    for name, said in (("ann", r"ann \(manager\)"), ("eve", r"eve \(editor of experiment:vision/\)")):
        app = open_app(team.of(name), "--store", team.server.address, columns=140)
        app.until("sage-owl")
        app.redrawn(said)
        app.press("Q")
        assert app.finish() == 0


def test_what_one_may_not_do_is_said_before_anything_is_asked(team: Team, open_app: OpenApp) -> None:
    app = open_app(team.of("bob"), "--store", team.server.address, columns=140)
    app.until("sage-owl")
    app.redrawn(r"bob \(viewer\)")
    for key in "TRDeMP":
        app.press(key).until("bob, you are viewer here; this needs editor")
        app.press("l").until("mark|sort")  # the sentence goes with the next key
    app.press("2").until("churn")
    app.press("P").until("bob, you are viewer here; this needs manager")
    app.press("Q")
    assert app.finish() == 0
    ann = team.mltrack("ann", "show", "sage-owl", "--json")
    assert json.loads(ann.stdout)["lifecycle"] == "active"


def test_a_key_names_the_role_that_fits_where_one_has_one(team: Team, open_app: OpenApp) -> None:
    app = open_app(team.of("joe"), "--store", team.server.address, columns=200)
    app.until("sage-owl")
    app.redrawn(r"joe \(editor of model:churn\)")
    for key in "TRDeP":
        wanted = "joe, you are viewer of experiment:vision/; this needs editor"
        app.press(key).until(f"{wanted}.* mltrack auth role grant joe editor --on experiment:vision/")
        app.press("l").until("mark|sort")
    app.press("2").until("churn")
    for key in "PBD":
        wanted = "joe, you are editor of model:churn; this needs manager"
        app.press(key).until(f"{wanted}.* mltrack auth role grant joe manager --on model:churn")
        app.press("j")
    app.press("Q")
    assert app.finish() == 0


def test_the_command_says_the_same(team: Team) -> None:
    team.wait_for("bob")
    team.wait_for("eve")
    done = team.mltrack("bob", "tag", "sage-owl", "a=b")
    assert done.returncode != 0 and "bob, you are viewer here; this needs editor" in done.stderr
    assert "Traceback" not in done.stderr
    # Somebody with a role on a part is told by the server, which knows what the run belongs to.
    assert team.mltrack("eve", "tag", "sage-owl", "a=b").returncode == 0
    done = team.mltrack("eve", "models", "describe", "churn/1", "x")
    assert done.returncode != 0 and "There is no registered model 'churn'" in done.stderr, (
        "nor does she learn of it"
    )


def test_mine_are_the_runs_of_whom_the_server_knows(team: Team, tmp_path: Path) -> None:
    team.wait_for("ann")
    made = team.mltrack("ann", "ls", "mine", "--json")
    assert made.returncode == 0 and json.loads(made.stdout) == []
    code = (
        "import os, urllib3, json\nheaders = {'Authorization': 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'],"
        " 'Content-Type': 'application/json'}\n"
        f"print(urllib3.request('POST', '{team.server.address}/api/2.0/mlflow/runs/create', headers=headers,"
        " body=json.dumps({'experiment_id': '0', 'run_name': 'of-ann', 'user_id': 'mallory'})).status)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=team.of("ann"), capture_output=True, text=True)
    assert done.stdout.strip() == "200", done.stderr
    until(lambda: "of-ann" in team.mltrack("ann", "ls").stdout, 60.0)
    shown = json.loads(team.mltrack("ann", "ls", "mine", "--json").stdout)
    assert [run["run_name"] for run in shown] == ["of-ann"]
