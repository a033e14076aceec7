"""`mltrack models`: what scripts rely on (JSON, exit codes) and what a person is told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack.store import open_store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
MLMODEL = (
    "flavors: {python_function: {loader_module: os}}\n"
    'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n'
)


@pytest.fixture
def models(mltrack: Run, small_store: str, tmp_path: Path) -> Run:
    """`mltrack models` on a store where churn has three versions."""
    for number in range(3):
        folder = tmp_path / f"model{number}"
        folder.mkdir()
        (folder / "MLmodel").write_text(MLMODEL)
        (folder / "weights").write_text(str(number))

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return mltrack("--store", small_store, "models", *arguments, **options)

    for number in range(3):
        answer = run("register", str(tmp_path / f"model{number}"), "--name", "churn", "--json")
        assert json.loads(answer.stdout) == {"name": "churn", "version": number + 1}, answer.stderr
    return run


def shown(models: Run, name: str = "churn") -> dict[int, str]:
    answer = json.loads(models("show", name, "--json").stdout)
    assert answer["name"] == name
    return {version["version"]: version["stage"] for version in answer["versions"]}


def test_promote_roll_back_and_tell_what_happened(models: Run) -> None:
    assert models("promote", "churn/1", "Production", "-m", "first").returncode == 0
    answer = json.loads(models("promote", "churn/2", "production", "-m", "drift", "--json").stdout)
    assert answer == {"name": "churn", "version": 2, "target": "Production", "previous": 1}
    assert shown(models) == {1: "Archived", 2: "Production", 3: "None"}
    stale = models("promote", "churn/3", "Production", "--expect", "1")
    assert (stale.returncode, "Production of churn is now v2" in stale.stderr) == (1, True)
    assert "by " in stale.stderr
    assert models("rollback", "churn", "-m", "latency").returncode == 0
    assert shown(models) == {1: "Production", 2: "Archived", 3: "None"}
    told = models("history", "churn", environ={"COLUMNS": "120"}).stdout
    assert "rolled back to v1 in Production" in told and "latency" in told and "cli" in told
    rows = json.loads(models("history", "churn", "--json").stdout)
    assert rows[-1]["action"] == "rolled back" and rows[-1]["identity"] in ("kernel", "claimed")
    assert models("audit", "--verify").returncode == 0
    page = models("audit", "--html").stdout
    assert page.startswith("<!doctype html>") and "The chain of" in page and "<script" not in page


def test_aliases_point_and_move(models: Run) -> None:
    assert models("alias", "churn/1", "champion").returncode == 0
    assert models("promote", "churn@champion", "Staging").returncode == 0
    assert models("promote", "churn/2", "@champion", "-m", "better").returncode == 0
    versions = json.loads(models("show", "churn", "--json").stdout)["versions"]
    assert {each["version"]: each["aliases"] for each in versions} == {1: [], 2: ["champion"], 3: []}
    assert models("alias", "churn", "champion", "--delete").returncode == 0
    assert models("show", "churn@champion").returncode == 3
    assert models("alias", "churn/1", "latest").returncode == 2


def test_requests_wait_for_somebody_else(models: Run) -> None:
    assert models("policy", "churn", "approvals=1").returncode == 0
    refused = models("promote", "churn/1", "Production")
    assert refused.returncode == 1 and "second person" in refused.stderr
    assert models("request", "churn/1", "Production", "-m", "shadow ok").returncode == 0
    (waiting,) = json.loads(models("inbox", "--json").stdout)
    assert (waiting["name"], waiting["version"], waiting["target"]) == ("churn", 1, "Production")
    assert "yourself" in models("approve", "churn/1").stderr
    assert models("reject", "churn/1", "-m", "not yet").returncode == 0
    assert "Nobody waits" in models("inbox").stdout
    assert shown(models)[1] == "None"


def test_checks_are_told_and_can_block(models: Run, tmp_path: Path) -> None:
    assert models("promote", "churn/1", "Production").returncode == 0
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    (narrow / "MLmodel").write_text(MLMODEL.replace("double", "long"))
    assert models("register", str(narrow), "--name", "churn").returncode == 0
    answer = models("test", "churn/4", "--json")
    found = {each["check"]: each["outcome"] for each in json.loads(answer.stdout)}
    assert found == {
        "files": "pass",
        "signature": "warn",
        "example": "unknown",
        "metric": "unknown",
        "code": "unknown",
        "pickle": "pass",
    }
    assert models("policy", "churn", "signature=block").returncode == 0
    assert models("test", "churn/4").returncode == 1
    refused = models("promote", "churn/4", "Production")
    assert refused.returncode == 1 and "callers of v1 would fail" in refused.stderr
    assert shown(models)[4] == "None"
    assert models("policy", "churn", "signature=perhaps").returncode == 2


def test_waiting_ends_when_somebody_promotes(models: Run, small_store: str, command: Any) -> None:
    arguments, environment = command
    waiting = subprocess.Popen(
        [*arguments, "--store", small_store, "models", "wait", "churn", "--stage", "Production", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert models("wait", "churn", "--timeout", "0").returncode == 1
    assert models("promote", "churn/3", "Production").returncode == 0
    output, _ = waiting.communicate(timeout=60)
    assert json.loads(output) == {"name": "churn", "version": 3, "target": "Production"}


def test_deletion_and_its_undoing(models: Run, mltrack: Run, small_store: str) -> None:
    assert models("promote", "churn/1", "Production").returncode == 0
    assert "in Production" in models("delete", "churn/1").stderr
    assert models("delete", "churn/3").returncode == 0
    assert shown(models) == {1: "Production", 2: "None"}
    assert mltrack("--store", small_store, "undo").returncode == 0
    assert shown(models)[3] == "None"


def test_what_names_nothing_says_so(models: Run) -> None:
    for arguments, code in (
        (("show", "nobody"), 3),
        (("show", "churn/9"), 3),
        (("promote", "churn/1", "Prod"), 2),
        (("promote", "churn", "Production"), 2),
        (("rollback", "churn"), 3),
        (("history", "churn", "--at", "yesterday"), 2),
        (("register", "/nonexistent", "--name", "churn"), 3),
    ):
        answer = models(*arguments)
        assert (answer.returncode, answer.stdout) == (code, ""), arguments
        assert answer.stderr.startswith(("mltrack: ", "usage: ")), answer.stderr


def test_a_broken_chain_is_noticed(models: Run, small_store: str) -> None:
    with open_store(small_store) as store, store.database.transaction():
        store.database.execute("UPDATE audit SET actor = 'eve' WHERE id = 2")
    answer = models("audit", "--verify")
    assert answer.returncode == 1 and "broken at change 2 of 3" in answer.stdout


def test_hostile_names_reach_no_terminal(models: Run, tmp_path: Path) -> None:
    bad = "m\x1b]52;c;AAAA\x07\u202e"
    assert models("register", str(tmp_path / "model0"), "--name", bad, "--about", bad).returncode == 0
    for arguments in (
        ("list",),
        ("show", bad),
        ("history", bad),
        ("audit",),
        ("audit", "--html"),
        ("diff", f"{bad}/1", "churn/1"),
    ):
        output = models(*arguments).stdout
        assert output and not set("\x1b\x07\u202e") & set(output), arguments
