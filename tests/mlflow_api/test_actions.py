"""What changes something by the app and the command, action by action: who may, who may not and is told why, against a real
server with a token of theirs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import pytest
from tests.mlflow_api.conftest import COMMAND, Server, start, until

from mltrack.store import access, open_store
from mltrack.store.access import Grant, scope_of
from mltrack.store.decisions import APPLY
from mltrack.store.errors import BadInput, Forbidden
from mltrack.store.identity import ROLES
from mltrack.store.remote_changes import CALLS
from mltrack.tui.cli.main import cli
from mltrack.tui.keys import KEYS
from mltrack.tui.keys_roles import NEEDED

EDITOR, MANAGER = "editor", "manager"
RUN, MODEL = "experiment", "model"
Operation = dict[str, Any]


@dataclass
class Site:
    """A server with a run and a model, each inside and outside of where most people's roles are."""

    server: Server
    tokens: dict[str, str]
    boss: str
    runs: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **fields: Any) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.boss}"}
        address = f"/api/2.0/mlflow/{path}"
        body: bytes | None = None
        if method == "GET":
            address += f"?{urlencode(fields)}"
        else:
            body = json.dumps(fields).encode()
        return self.server.request(method, address, body, headers).json

    def all(self) -> Any:
        """Everything that an action could change."""
        numbers = [each["experiment_id"] for each in self.experiments()]
        return (
            self.experiments(),
            self.ask("POST", "runs/search", experiment_ids=numbers, run_view_type="ALL", max_results=100),
            self.ask("GET", "registered-models/search"),
            self.ask("GET", "model-versions/search"),
        )

    def experiments(self) -> Any:
        return self.ask("GET", "experiments/search", max_results=100, view_type="ALL")["experiments"]

    def make(self) -> None:
        """The models as they are to be at the beginning, and the runs out of the trash."""
        for model, experiment in (("churn", "vision/a"), ("spam", "audio/b")):
            for name in (model, f"{model}-new"):
                self.ask("DELETE", "registered-models/delete", name=name)
            self.ask("POST", "registered-models/create", name=model)
            for _ in range(2):
                self.ask("POST", "model-versions/create", name=model, source="s3://elsewhere/m")
            if experiment in self.runs:
                self.ask("POST", "runs/restore", run_id=self.runs[experiment])
                continue
            number = self.ask("POST", "experiments/create", name=experiment)["experiment_id"]
            made = self.ask("POST", "runs/create", experiment_id=number, run_name=f"of-{model}", start_time=1)
            self.runs[experiment] = made["run"]["info"]["run_id"]


# Each role on the store, on a folder of experiments and on a model; and those who have one on both of these.
PLACES = ("store", "experiment:vision/", "model:churn")
PEOPLE = {
    **{f"{role}-{place.partition(':')[0]}": [(role, place)] for role in ROLES for place in PLACES},
    **{f"{role}-both": [(role, place) for place in PLACES[1:]] for role in ROLES},
    "nobody": [],
}


@pytest.fixture(scope="module")
def site(shared_store: str) -> Iterator[Site]:
    with open_store(shared_store) as store:
        root = store.root
    tokens: dict[str, str] = {}
    for name, grants in (("boss", [(MANAGER, "store")]), *PEOPLE.items()):
        access.add_user(root, name, [Grant(role, scope_of(place)) for role, place in grants])
        tokens[name] = access.create_token(root, name)[1]
    site = Site(start(shared_store), tokens, tokens["boss"])
    site.make()
    yield site
    site.server.stop()


@dataclass(frozen=True)
class Rule:
    """The least role, on what kind of thing, and the operation on a run or model by its name."""

    role: str
    kind: str
    operation: Callable[[str], Operation]


def _of_run(op: str, **fields: str) -> Rule:
    """A text in a run, another one each time."""
    return Rule(EDITOR, RUN, lambda run: {"value": os.urandom(4).hex(), **fields, "op": op, "run": run})


def _of_model(role: str, op: str, **fields: Any) -> Rule:
    return Rule(role, MODEL, lambda name: {**fields, "op": op, "name": name})


RULES: dict[str, list[Rule]] = {
    "tag": [_of_run("tag", key="k")],
    "field": [
        _of_run("field", field="name"),
        _of_run("field", field="note"),
        _of_run("field", field="lifecycle", value="trash"),
    ],
    "stage": [_of_model(MANAGER, "stage", version=2, stage="Staging")],
    "alias": [_of_model(MANAGER, "alias", version=2, alias="best")],
    "register": [_of_model(EDITOR, "register", source="s3://elsewhere/n")],
    "create_model": [_of_model(EDITOR, "create_model")],
    "rename_model": [
        Rule(MANAGER, MODEL, lambda name: {"op": "rename_model", "name": name, "to": f"{name}-new"})
    ],
    "delete_model": [_of_model(MANAGER, "delete_model")],
    "delete_version": [_of_model(MANAGER, "delete_version", version=1)],
    "model_field": [
        _of_model(EDITOR, "model_field", field="description", value="said", version=version)
        for version in (0, 1)
    ],
    "model_tag": [_of_model(EDITOR, "model_tag", key="k", value="v", version=version) for version in (0, 1)],
}
# Decisions that a store of one's own knows and that cannot be sent to a server: they are refused to everybody, in a sentence.
NOT_SENT = set(
    "rename_experiment purge source make_experiment experiment_lifecycle experiment_tag logged_model put_model put_version"
    " request answer".split()
)


def role_there(name: str, kind: str, inside: bool) -> str:
    """The role that somebody has on the thing inside or outside."""
    return next((role for role, on in PEOPLE[name] if on == "store" or (inside and on.startswith(kind))), "")


def wanted(name: str, rule: Rule, thing: str, scope: str, inside: bool) -> tuple[str, str]:
    """The role that a refusal names, and on what: where one's own is too little, else on just what it is about."""
    mine = next(((has, on) for has, on in PEOPLE[name] if on == "store" or on.startswith(rule.kind)), None)
    if not PEOPLE[name]:
        return rule.role, "store"
    if mine is None:
        # Who sees no run knows no experiment of it.
        return rule.role, scope if rule.kind == MODEL else "experiment:NAME"
    if ROLES.index(mine[0]) < ROLES.index(rule.role):
        return rule.role, mine[1]
    return (
        (rule.role, scope) if not inside else (EDITOR, f"model:{thing}-new")
    )  # the new name is another model's


def test_every_decision_has_a_rule() -> None:
    assert set(RULES) == set(CALLS) and NOT_SENT == set(APPLY) - set(CALLS)


@pytest.mark.parametrize("name", PEOPLE)
def test_every_decision_and_role(
    name: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", site.tokens[name])
    things = {RUN: (site.runs["vision/a"], site.runs["audio/b"]), MODEL: ("churn", "spam")}
    scopes = {RUN: ("experiment:vision/a", "experiment:audio/b"), MODEL: ("model:churn", "model:spam")}
    with open_store(site.server.address) as store:
        until(lambda: store.refresh(0.2) is not None and store.identity(5).guarded, 60)
        before = site.all()
        for rule in (rule for rules in RULES.values() for rule in rules):
            for place, thing in enumerate(things[rule.kind]):
                operation = rule.operation(thing)
                has = role_there(name, rule.kind, not place)
                may = bool(has) and ROLES.index(has) >= ROLES.index(rule.role)
                if operation["op"] == "create_model":
                    # Of a name that is not taken: a role on the store, or on just that model.
                    site.ask("DELETE", "registered-models/delete", name=thing)
                    before = site.all()
                if operation["op"] == "rename_model" and PEOPLE[name] and PEOPLE[name][0][1] != "store":
                    may = False  # the new name is another model's
                if may:
                    store.decide([operation], "Did")
                    assert site.all() != before, (name, operation)
                    site.make()
                    before = site.all()
                    continue
                with pytest.raises(Forbidden) as refused:
                    store.decide([operation], "Did")
                assert site.all() == before, (name, operation)
                role, fits = wanted(name, rule, thing, scopes[rule.kind][place], place == 0)
                said = str(refused.value)
                said = said.removeprefix("The server refused: ")
                assert f"; this needs {role}. " in said and said.startswith(f"{name}, you "), said
                assert said.endswith(f" mltrack auth role grant {name} {role} --on {fits}"), (operation, said)
                if operation["op"] == "create_model":
                    site.make()
                    before = site.all()
        for op in NOT_SENT:
            with pytest.raises(BadInput, match="has no place for"):
                store.decide([{"op": op, "run": things[RUN][0], "name": "churn"}], "Did")
        assert site.all() == before


# Commands that change what others see, by the decision that they take, with words to type; RUN stands for the run's id, NEW for another
# word each time.
COMMANDS: dict[str, tuple[str, str]] = {
    "tag": ("tag", "RUN said=NEW"),
    "note": ("field", "RUN NEW"),
    "rename": ("field", "RUN NEW"),
    "delete": ("field", "RUN --yes"),
    "models register": ("register", "runs:/RUN/m --name churn"),
    "models describe": ("model_field", "churn/1 said"),
    "models tag": ("model_tag", "churn/1 said=so"),
    "models alias": ("alias", "churn/2 best"),
    "models promote": ("stage", "churn/2 Staging --no-check -m why"),
    "models rollback": ("stage", "churn --to 1 --no-verify -m why"),
    "models delete": ("delete_version", "churn/1 -m why"),
}
# The same decisions about what has to be there first.
LIKE_THEM = {"restore": "field", "keep": "field", "purge": "purge"}
# Refused to everybody, in a sentence: a server has no place for them.
REFUSED = {
    "move": "RUN elsewhere",
    "pin": "RUN",
    "undo": "",
    "redo": "",
    "models policy": "churn approvals=1",
    "models request": "churn/2 Production",
}
# They answer, or there is never anything on a server for them.
ANSWERS = set(
    "ui,ls,show,metrics,plot,logs,compare,report,watch,alerts,wait,system,checkpoints,where,config,models audit,models diff,"
    "models history,models inbox,models list,models show,models test,models wait,models approve,models reject,jobs,"
    "project show,source find,source list,models serve,serve,models build-docker".split(",")
)
# They work on this machine, its processes, and stores of one's own; what they log goes by journals (test_access.py).
HERE = set(
    "exec,checkout,rerun,stop,run,demo,init,fold,source add,source remove,import,sync,ship,backup,doctor,gc,server,worker,"
    "auth log,auth role grant,auth role revoke,auth token create,auth token list,auth token revoke,auth users add,"
    "auth users remove".split(",")
)
KEY_DECISIONS = {
    ("runs", "tag"): "tag",
    ("runs", "rename"): "field",
    ("runs", "note"): "field",
    ("run", "note_here"): "field",
    ("runs", "trash"): "field",
    ("runs", "register"): "register",
    ("run", "tag_here"): "tag",
    ("run", "rename_here"): "field",
    ("run", "trash_here"): "field",
    ("run", "register_here"): "register",
    ("models", "describe"): "model_field",
    ("models", "promote"): "stage",
    ("models", "rollback"): "stage",
    ("models", "delete"): "delete_version",
}
# A server has no place for it; it is grey for who only looks.
NO_PLACE = {("runs", "pin_for_all"), ("run", "pin_for_all_here")}


def words_of(command: click.Command, context: click.Context, *path: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from words_of(below, context, *path, name)
    else:
        yield " ".join(path)


def test_every_command_and_key_has_a_rule() -> None:
    known = [*COMMANDS, *LIKE_THEM, *REFUSED, *ANSWERS, *HERE]
    assert sorted(known) == sorted(words_of(cli, click.Context(cli)))
    assert set(NEEDED) == set(KEY_DECISIONS) | NO_PLACE
    for key, decision in KEY_DECISIONS.items():
        assert {(rule.role, rule.kind) for rule in RULES[decision]} == {NEEDED[key]}, key
    # A key that does what such a command does is one that needs a role.
    changing = {f"mltrack {words}" for words in (*COMMANDS, *LIKE_THEM, "pin")}
    for key_ in KEYS:
        does = next((each for each in changing if f"{key_.twin} ".startswith(f"{each} ")), None)
        assert does is None or (key_.focus, key_.id) in NEEDED, key_


@pytest.mark.parametrize("name", ["viewer-both", "editor-both", "manager-both"])
def test_every_command_and_role(name: str, site: Site, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "MLFLOW_TRACKING_TOKEN": site.tokens[name],
    }
    run = site.runs["vision/a"]
    site.make()

    def mltrack(words: str) -> subprocess.CompletedProcess[str]:
        typed = [word.replace("RUN", run).replace("NEW", os.urandom(4).hex()) for word in words.split()]
        command = [*COMMAND, "--store", site.server.address, *typed]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)

    until(lambda: run in mltrack("ls --ids").stdout and "churn" in mltrack("models list").stdout, 60)
    before = site.all()
    for words, (decision, more) in COMMANDS.items():
        rule = RULES[decision][0]
        has = role_there(name, rule.kind, True)
        done = mltrack(f"{words} {more}")
        said = " ".join(done.stderr.split())
        assert "Traceback" not in said
        if ROLES.index(has) >= ROLES.index(rule.role):
            assert done.returncode == 0 and site.all() != before, (words, said)
            site.make()
            before = site.all()
            continue
        fits = (
            "store" if name == "viewer-store" else "experiment:vision/" if rule.kind == RUN else "model:churn"
        )
        assert done.returncode != 0 and site.all() == before, words
        assert f"; this needs {rule.role}. " in said, (words, said)
        assert said.endswith(f" mltrack auth role grant {name} {rule.role} --on {fits}"), (words, said)
    # What nobody can do there is refused to whoever may do all the rest.
    for words, more in REFUSED.items() if name == "manager-both" else ():
        done = mltrack(f"{words} {more}")
        assert done.returncode != 0 and "Traceback" not in done.stderr, words
        assert "server" in done.stderr and site.all() == before, (words, done.stderr)
