"""Users, roles and tokens: the matrix of all routes, and a server that people with roles of their own use."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pwd
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mlflow_api.conftest import COMMAND, Server, until

from mltrack.store import access, open_store
from mltrack.store.access import Grant, Scope
from mltrack.store.identity import ROLES
from mltrack.store.mlflow_api import application, journals, versions
from mltrack.store.mlflow_api.api import Api
from mltrack.store.mlflow_api.application import ROUTES, Application
from mltrack.store.mlflow_api.guard import Rules
from mltrack.store.mlflow_api.permissions import NEEDS
from mltrack.store.mlflow_api.wire import ApiError

FILES = "/api/2.0/mlflow-artifacts/artifacts"
# Route by route: the least role on what it names. "": everybody with a token, who then sees only their own.
WANTED: dict[str, str] = {
    "viewer": """
        GET experiments/get, GET experiments/get-by-name, GET runs/get, POST runs/search, GET metrics/get-history,
        GET metrics/get-history-bulk, GET metrics/get-history-bulk-interval, POST experiments/search-datasets,
        GET artifacts/list, POST logged-models/search, GET logged-models/{model_id},
        GET logged-models/{model_id}/artifacts/directories, GET registered-models/get,
        POST registered-models/get-latest-versions, GET registered-models/get-latest-versions, GET registered-models/alias,
        GET model-versions/get, GET model-versions/get-download-uri""",
    "editor": """
        POST experiments/create, POST experiments/update, POST experiments/set-experiment-tag,
        POST experiments/delete-experiment-tag, POST runs/create, POST runs/update, POST runs/delete, POST runs/restore,
        POST runs/set-tag, POST runs/delete-tag, POST runs/log-metric, POST runs/log-parameter, POST runs/log-batch,
        POST runs/log-inputs, POST runs/outputs, POST runs/log-model, POST logged-models, PATCH logged-models/{model_id},
        DELETE logged-models/{model_id}, PATCH logged-models/{model_id}/tags,
        DELETE logged-models/{model_id}/tags/{tag_key}, POST logged-models/{model_id}/params,
        POST registered-models/create, PATCH registered-models/update, POST registered-models/set-tag,
        DELETE registered-models/delete-tag, POST model-versions/create, PATCH model-versions/update,
        POST model-versions/set-tag, DELETE model-versions/delete-tag""",
    "manager": """
        POST experiments/delete, POST experiments/restore, POST registered-models/rename, DELETE registered-models/delete,
        POST registered-models/alias, DELETE registered-models/alias, DELETE model-versions/delete,
        POST model-versions/transition-stage""",
    "": """
        POST experiments/search, GET experiments/search, GET registered-models/search, GET model-versions/search""",
}
LEAST = {
    (route.split()[0], route.split()[1]): role
    for role, routes in WANTED.items()
    for route in routes.split(",")
}
# Links of MLflow's pages, beside its protocol.
PAGES = {("GET", "/get-artifact"): "viewer", ("GET", "/model-versions/get-artifact"): "viewer"}


class Things:
    """An experiment with a run and a logged model, and a registered model."""

    def __init__(self, api: Api, experiment: str, model: str) -> None:
        def call(route: tuple[str, str], **fields: Any) -> Any:
            return HANDLERS[route](api, application.Fields(fields))

        self.experiment, self.model = experiment, model
        self.number = call(("POST", "experiments/create"), name=experiment)["experiment_id"]
        self.run = call(("POST", "runs/create"), experiment_id=self.number)["run"]["info"]["run_id"]
        made = call(("POST", "logged-models"), experiment_id=self.number, name="m")
        self.logged = made["model"]["info"]["model_id"]
        call(("POST", "registered-models/create"), name=model)

    def request(self, path: str) -> dict[str, Any]:
        """Fields that name these things on any route."""
        fields: dict[str, Any] = {
            "experiment_id": self.number,
            "experiment_ids": [self.number],
            "experiment_name": self.experiment,
            "run_id": self.run,
            "run_ids": [self.run],
            "name": self.model,
            "version": "1",
            "key": "k",
            "path": "x",
        }
        if path == "experiments/create":
            fields["name"] = f"{self.experiment}-new"
        if path.startswith(("logged-models", "runs/", "artifacts")) or path == "model-versions/create":
            fields["model_id"] = self.logged
        if path == "logged-models":
            fields["source_run_id"] = self.run
        return fields


HANDLERS = dict(ROUTES)


def send(app: Application, method: str, path: str, fields: dict[str, Any], token: str = "") -> int:
    """The status of a request, through the whole application."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    got: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(fields).encode()}

    async def answer(message: Any) -> None:
        if message["type"] == "http.response.start":
            got.append(message["status"])

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(fields, doseq=True).encode() if method == "GET" else b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(app(scope, receive, answer))  # type: ignore[arg-type]
    return got[0]


@pytest.fixture
def served(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Application, Api, Things, Things]]:
    """An application whose routes do nothing, things in two places, and a token for everybody in $TOKENS."""
    with open_store() as store:
        api = Api(store)
        inside, outside = Things(api, "vision/a", "churn"), Things(api, "audio/b", "spam")
        for route in ROUTES:
            monkeypatch.setitem(ROUTES, route, lambda api, fields: {})
        yield Application(api, Rules()), api, inside, outside
        api.close()


def person(root: Path, name: str, *grants: Grant) -> str:
    access.add_user(root, name, grants)
    return access.create_token(root, name)[1]


def test_every_route_and_role(served: tuple[Application, Api, Things, Things]) -> None:
    app, api, inside, outside = served
    assert set(LEAST) == set(ROUTES) and set(NEEDS) == set(ROUTES) | set(PAGES)
    root = api.store.root
    vision, churn, store = Scope("experiment", "vision/"), Scope("model", "churn"), Scope("store")
    tokens = {"": "", "nothing": person(root, "nothing")}
    for role in ROLES:
        tokens[role] = person(root, role, Grant(role, vision), Grant(role, churn))
        tokens[f"store {role}"] = person(root, f"store-{role}", Grant(role, store))
    tokens["elsewhere"] = person(
        root,
        "elsewhere",
        *(Grant("manager", Scope(*where)) for where in (("experiment", "vision"), ("model", "churn2"))),
    )
    for (method, path), least in (LEAST | PAGES).items():
        for things in (inside, outside):
            url = path.replace("{model_id}", things.logged).replace("{tag_key}", "k")
            url = url if url.startswith("/") else f"/api/2.0/mlflow/{url}"
            for who, token in tokens.items():
                status = send(app, method, url, things.request(path), token)
                role = who.removeprefix("store ")
                has = who.startswith("store ") or things is inside
                if not who:
                    wanted = 401
                elif not least or (role in ROLES and has and ROLES.index(role) >= ROLES.index(least)):
                    wanted = 404 if url == path else 200  # there are no files
                else:
                    wanted = 403
                assert status == wanted, (method, path, who, things.experiment, status)
    # Journals say themselves where they belong, at any place in them: only a role on the whole store is enough.
    for method, call in journals.ROUTES:
        for who, token in tokens.items():
            status = send(app, method, f"{journals.PREFIX}{call}{inside.run}/x", {}, token)
            enough = ["store editor", "store manager", *(["store viewer"] if method == "GET" else [])]
            assert (status not in (401, 403)) == (who in enough), (method, call, who, status)
    # Files: whose they are, their run says, whatever experiment stands in the path.
    for things in (inside, outside):
        for experiment in (inside.number, outside.number):
            for what in (f"{things.run}/artifacts/x", f"models/{things.logged}/artifacts/x"):
                for method, least in (("GET", "viewer"), ("PUT", "editor"), ("DELETE", "editor")):
                    for role in ROLES:
                        status = send(app, method, f"{FILES}/{experiment}/{what}", {}, tokens[role])
                        may = things is inside and ROLES.index(role) >= ROLES.index(least)
                        assert (status != 403) == may, (method, what, role, status)
    assert send(app, "GET", f"{FILES}/0/x", {}, tokens["manager"]) == 403
    assert (
        send(app, "GET", "/version", {}) == 401 and send(app, "GET", "/version", {}, tokens["nothing"]) == 200
    )


def test_a_route_without_a_rule_is_for_managers_of_the_store(
    served: tuple[Application, Api, Things, Things], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, api, inside, _ = served
    monkeypatch.setitem(ROUTES, ("POST", "runs/new-thing"), lambda api, fields: {})
    editor = person(api.store.root, "ed", Grant("editor", Scope("store")))
    boss = person(api.store.root, "boss", Grant("manager", Scope("store")))
    assert send(app, "POST", "/api/2.0/mlflow/runs/new-thing", {"run_id": inside.run}, editor) == 403
    assert send(app, "POST", "/api/2.0/mlflow/runs/new-thing", {"run_id": inside.run}, boss) == 200


def test_what_a_request_also_names_counts(served: tuple[Application, Api, Things, Things]) -> None:
    app, api, inside, outside = served
    ann = person(
        api.store.root,
        "ann",
        Grant("manager", Scope("experiment", "vision/")),
        Grant("manager", Scope("model", "churn")),
    )

    def refused(method: str, path: str, **fields: Any) -> bool:
        return send(app, method, f"/api/2.0/mlflow/{path}", fields, ann) == 403

    assert not refused("POST", "experiments/update", experiment_id=inside.number, new_name="vision/c")
    assert refused("POST", "experiments/update", experiment_id=inside.number, new_name="audio/c")
    assert refused("POST", "registered-models/rename", name="churn", new_name="other")
    assert refused("POST", "logged-models", experiment_id=inside.number, source_run_id=outside.run)
    assert refused("POST", "runs/search", experiment_ids=[inside.number, outside.number])
    metric = {"key": "k", "value": 1, "timestamp": 1, "model_id": outside.logged}
    assert refused("POST", "runs/log-batch", run_id=inside.run, metrics=[metric])
    assert refused("POST", "runs/log-inputs", run_id=inside.run, models=[{"model_id": outside.logged}])
    for source in (
        f"runs:/{outside.run}/m",
        f"models:/{outside.logged}",
        f"mlflow-artifacts:/1/{outside.run}/artifacts/m",
    ):
        assert refused("POST", "model-versions/create", name="churn", source=source), source
    assert not refused("POST", "model-versions/create", name="churn", source=f"runs:/{inside.run}/m")
    # A version of another model has its files, by whatever name of it.
    for source in (
        "models:/spam/1",
        "models:/spam@best",
        "models:/spam/latest",
        "models:///spam/1",
        "models:spam/1",
    ):
        assert refused("POST", "model-versions/create", name="churn", source=source), source
    assert not refused("POST", "model-versions/create", name="churn", source="models:/churn/1")
    # Each of these names its runs by a field of its own.
    assert refused("GET", "metrics/get-history-bulk", run_id=[inside.run, outside.run], metric_key="k")
    assert refused(
        "GET", "metrics/get-history-bulk-interval", run_ids=[inside.run, outside.run], metric_key="k"
    )
    assert not refused("GET", "metrics/get-history-bulk", run_id=inside.run, metric_key="k")
    # Nobody learns by asking what there is.
    assert refused("GET", "runs/get", run_id="0" * 32) and refused(
        "GET", "experiments/get", experiment_id="999"
    )


def test_where_the_files_of_a_version_lie_no_client_says(
    served: tuple[Application, Api, Things, Things],
) -> None:
    _, api, inside, outside = served

    def call(method: str, path: str, **fields: Any) -> Any:
        return HANDLERS[method, path](api, application.Fields(fields))

    tag = {"key": versions.STORED_TAG, "value": f"mlflow-artifacts:/{outside.number}/{outside.run}/artifacts"}
    create = {"name": inside.model, "source": "s3://elsewhere/m"}
    asyncio.run(call("POST", "model-versions/create", **create))
    with pytest.raises(ApiError, match="the server's own"):
        asyncio.run(call("POST", "model-versions/create", **create, tags=[tag]))
    with pytest.raises(ApiError, match="the server's own"):
        call("POST", "model-versions/set-tag", name=inside.model, version="1", **tag)


NAMES = st.text(st.sampled_from("ab/"), max_size=5)


@given(name=NAMES, folder=NAMES)
def test_a_folder_covers_what_lies_in_it(name: str, folder: str) -> None:
    covered = Scope("experiment", folder).covers(Scope("experiment", name))
    inside = folder.split("/")[:-1] if folder.endswith("/") else None
    parts = name.split("/")
    assert covered == (name == folder if inside is None else parts[: len(inside)] == inside)


def request(
    server: Server, method: str, path: str, token: str, body: Any = None, raw: bytes | None = None
) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    return server.request(method, path, data, headers)


def auth(store: str, *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, "--store", store, "auth", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_people_with_roles_on_a_server(new_server: Callable[..., Server]) -> None:
    server = new_server("--max-file", "1K")
    store_at, root = server.store, server.root
    experiment = server.post("experiments/create", name="vision/a")["experiment_id"]
    server.post("experiments/create", name="secret")
    before = server.new_run(experiment_id=experiment)
    # Without users it is what clients say.
    claimed = server.new_run(experiment_id=experiment, user_id="eve")
    server.post("runs/set-tag", run_id=claimed, key="mlflow.user", value="bob")
    said = server.get("runs/get", run_id=claimed)["run"]["data"]["tags"]
    assert {"key": "mlflow.user", "value": "bob"} in said
    # The first user shuts the door for whoever shows nothing.
    auth(store_at, "users", "add", "ann", "--role", "editor", "--on", "experiment:vision/")
    assert server.call("GET", "experiments/search", max_results=10).status == 401
    ann = auth(store_at, "token", "create", "ann", "--label", "laptop")
    assert ann not in (root / "server.access.json").read_text()
    assert stat.S_IMODE((root / "server.access.json").stat().st_mode) == 0o600
    who = request(server, "GET", "/api/2.0/mltrack/whoami", ann).json
    assert who == {
        "user": "ann",
        "identity": "token",
        "roles": [{"role": "editor", "on": "experiment:vision/"}],
    }
    seen = request(server, "GET", "/api/2.0/mlflow/experiments/search?max_results=10", ann).json[
        "experiments"
    ]
    assert [each["name"] for each in seen] == ["vision/a"]
    body = {"experiment_id": experiment, "user_id": "bob", "tags": [{"key": "mlflow.user", "value": "bob"}]}
    made = request(server, "POST", "/api/2.0/mlflow/runs/create", ann, body).json["run"]
    run_id = made["info"]["run_id"]
    assert made["info"]["user_id"] == "ann" and {"key": "mlflow.user", "value": "ann"} in made["data"]["tags"]
    # Nor later: the tag says whose the run is, by whatever way it is set, and of a run from before there were users nothing.
    theirs = {"key": "mlflow.user", "value": "bob"}
    for path, more in (
        ("set-tag", theirs),
        ("log-batch", {"tags": [theirs, {"key": "a", "value": "b"}]}),
    ):
        for each in (run_id, before):
            said = request(server, "POST", f"/api/2.0/mlflow/runs/{path}", ann, {"run_id": each, **more})
            assert said.status == 200
    for each, wanted in ((run_id, "ann"), (before, None)):
        found = request(server, "GET", f"/api/2.0/mlflow/runs/get?run_id={each}", ann).json["run"]["data"][
            "tags"
        ]
        shown = {tag["key"]: tag["value"] for tag in found}
        assert (shown.get("mlflow.user"), shown["a"]) == (wanted, "b")
    for step in range(3):
        metric = {"run_id": run_id, "key": "m", "value": step, "timestamp": 1, "step": step}
        assert request(server, "POST", "/api/2.0/mlflow/runs/log-metric", ann, metric).status == 200
    place = f"{FILES}/{experiment}/{run_id}/artifacts/a"
    assert request(server, "PUT", place, ann, raw=b"x" * 1024).status == 200
    assert request(server, "PUT", place, ann, raw=b"x" * 1025).status == 413
    refused = request(
        server, "POST", "/api/2.0/mlflow/experiments/delete", ann, {"experiment_id": experiment}
    )
    assert (
        refused.status == 403 and "role grant ann manager --on experiment:vision/a" in refused.json["message"]
    )
    # A role counts from the next request on, and so does its loss.
    auth(store_at, "role", "grant", "ann", "manager", "--on", "experiment:vision/")
    again = request(server, "POST", "/api/2.0/mlflow/experiments/delete", ann, {"experiment_id": experiment})
    assert again.status == 200
    token_id = json.loads(auth(store_at, "token", "list", "--json"))[0]["id"]
    auth(store_at, "token", "revoke", token_id)
    assert request(server, "GET", "/version", ann).status == 401
    old = auth(store_at, "token", "create", "ann", "--days", "0.00000001")
    assert request(server, "GET", "/version", old).status == 401
    # What was done stands there, with who and how that is known.
    lines = [json.loads(line) for line in auth(store_at, "log").splitlines()]
    told = [
        (line["actor"], line["channel"], line["identity"], line["action"], "refused" in line)
        for line in lines
    ]
    assert ("ann", "rest", "token", "runs/create", False) in told
    assert [line[3] for line in told].count("runs/log") == 2, "once for each of two runs"
    assert ("ann", "rest", "token", "experiments/delete", True) in told
    assert ("ann", "rest", "token", "experiments/delete", False) in told
    assert any(line[1:3] == ("cli", "kernel") and line[3].startswith("made a token of ann") for line in told)
    with open_store(store_at) as store:
        rows = store.database.execute("SELECT actor, record FROM decision ORDER BY time_ms DESC LIMIT 1")
        assert rows[0][0] == "ann" and json.loads(rows[0][1])["identity"] == "token"
        assert store.run(run_id).user == "ann"


def test_who_removes_the_last_user_opens_no_door(new_server: Callable[..., Server]) -> None:
    server = new_server("--name", "box.example.org")
    assert server.call("GET", "experiments/search", max_results=10).status == 200
    auth(server.store, "users", "add", "ann", "--role", "viewer")
    auth(server.store, "users", "remove", "ann")
    assert server.call("GET", "experiments/search", max_results=10).status == 401
    assert "answers nobody" in auth(server.store, "users")
    (server.root / access.FILE).unlink()  # a mistake while it runs
    assert server.call("GET", "experiments/search", max_results=10).status == 401


def test_what_clients_are_told_is_the_servers_name_and_to_show_a_token_of_theirs(store_root: Path) -> None:
    with open_store():
        pass
    access.add_user(store_root, "ann", [])
    process = subprocess.Popen(
        [*COMMAND, "server", "--host", "0.0.0.0", "--port", "0", "--name", "box.example.org"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
    finally:
        process.terminate()
        process.wait(30)
    assert lines[1].startswith("  export MLFLOW_TRACKING_URI=http://box.example.org:")
    assert lines[2] == "  a token of theirs in MLFLOW_TRACKING_TOKEN: mltrack auth token create NAME\n"


def test_too_much_is_refused_for_a_while(new_server: Callable[..., Server]) -> None:
    server = new_server("--rate", "2")
    auth(server.store, "users", "add", "ann", "--role", "viewer")
    token = auth(server.store, "token", "create", "ann")
    statuses = [request(server, "GET", "/version", token).status for _ in range(40)]
    assert statuses[:10] == [200] * 10 and 429 in statuses
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    wrong: list[int] = []
    for _ in range(700):
        connection.request("GET", "/version", headers={"Authorization": "Bearer no"})
        answer = connection.getresponse()
        answer.read()
        wrong.append(answer.status)
    connection.close()
    assert wrong[0] == 401 and wrong[-1] == 429


def test_a_file_that_somebody_else_could_have_written_lets_nobody_in(store_root: Path) -> None:
    with open_store(str(store_root)):
        pass
    access.add_user(store_root, "ann", [])
    (store_root / access.FILE).chmod(0o620)
    with pytest.raises(access.StoreUnavailable, match="written by somebody else"):
        access.read(store_root)
    (store_root / access.FILE).chmod(0o600)
    (store_root / access.FILE).write_text(
        '{"version": 1, "users": {"ann": [{"role": "king", "on": "store"}]}, "tokens": []}'
    )
    with pytest.raises(access.StoreUnavailable, match="damaged"):
        access.read(store_root)


def test_https_with_a_given_certificate(new_server: Callable[..., Server], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (Debian's openssl) to make a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        + [
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    server = new_server("--tls-cert", str(certificate), "--tls-key", str(key))
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection(server.host, server.port, timeout=60, context=context)
    connection.request("GET", "/version")
    assert connection.getresponse().status == 200
    done = subprocess.run(
        [*COMMAND, "--store", str(tmp_path / "x"), "server", "--tls-cert", str(key)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0 and "cannot be used" in done.stderr and "Traceback" not in done.stderr


_ASK = """
import socket, sys
c = socket.socket(socket.AF_UNIX)
c.connect(sys.argv[1])
body = sys.argv[2].encode()
c.sendall(b"POST /api/2.0/mlflow/experiments/" + sys.argv[3].encode() + b" HTTP/1.1\\r\\nHost: x\\r\\n"
          b"Content-Type: application/json\\r\\n"
          b"Connection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
data = b""
while part := c.recv(4096):
    data += part
print(data.split()[1].decode())
"""


def test_the_kernel_says_who_asks_over_the_socket(short_folder: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, and setpriv (Debian's util-linux), to be several people")
    root, place = short_folder / "store", short_folder / "s"
    process = subprocess.Popen(
        [*COMMAND, "--store", str(root), "server", "--uds", str(place)], stdout=subprocess.DEVNULL
    )

    def ask(name: str, experiment: str, call: str = "create") -> str:
        body = {"name": experiment} if call == "create" else {"experiment_id": experiment}
        uid = pwd.getpwnam(name).pw_uid
        before = ["setpriv", f"--reuid={uid}", "--regid=65534", "--clear-groups"]
        before += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"] if uid else []
        done = subprocess.run(
            [*before, sys.executable, "-c", _ASK, str(place), json.dumps(body), call],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.strip() or done.stderr

    try:
        until(lambda: place.exists() and ask("root", "first") in ("200", "400"))
        assert ask("daemon", "x") == "401"  # nobody's colleague in a store of one
        auth(str(root), "users", "add", "daemon", "--role", "editor", "--on", "experiment:hers/")
        assert (
            ask("daemon", "hers/one") == "200"
            and ask("daemon", "other") == "403"
            and ask("bin", "y") == "401"
        )
        with open_store(str(root)) as store:
            rows = store.database.execute("SELECT record FROM decision ORDER BY time_ms DESC LIMIT 1")
        record = json.loads(rows[0][0])
        assert (record["actor"], record["channel"], record["identity"]) == ("daemon", "rest", "kernel")
        # Three people with three roles: one makes, one only looks, one also deletes.
        auth(str(root), "users", "add", "bin", "--role", "viewer")
        auth(str(root), "users", "add", "sys", "--role", "manager")
        with open_store(str(root)) as store:
            number = str(store.database.execute("SELECT id FROM experiment WHERE name = 'hers/one'")[0][0])
        assert [ask(name, "hers/two") for name in ("bin", "games")] == ["403", "401"]
        assert [ask(name, number, "delete") for name in ("daemon", "bin", "sys")] == ["403", "403", "200"]
        told = [json.loads(line) for line in auth(str(root), "log").splitlines()]
        seen = {
            (line["actor"], "refused" in line) for line in told if line.get("action") == "experiments/delete"
        }
        assert seen == {("daemon", True), ("bin", True), ("sys", False)}
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder that everybody may enter, with a path short enough for a socket."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_server_of_a_job_is_the_jobs_alone(store_root: Path) -> None:
    with open_store():
        pass
    access.add_user(store_root, "ann", [Grant("manager", Scope("store"))])
    ann = access.create_token(store_root, "ann")[1]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mltrack.projects.mlflow_bridge", "--port"],
        env={**os.environ, "MLTRACK_BRIDGE_TOKEN": "of-this-job"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("http://").partition(":")
        server = Server(process, "", store_root, host, int(port))
        assert server.request("GET", "/version").status == 401
        assert request(server, "GET", "/version", ann).status == 401
        assert (
            request(server, "POST", "/api/2.0/mlflow/experiments/create", "of-this-job", {"name": "x"}).status
            == 200
        )
    finally:
        process.terminate()
        process.wait(30)
