"""An MLflow server that fails between two changes, or answers late: what was done is told as it is, and nobody waits for more."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.mlflow_api.conftest import Server, until
from tests.mlflow_api.test_access import auth
from tests.tui.conftest import command_environment
from tests.tui.test_app_models import until as until_shown

from mltrack.store import open_store
from mltrack.store.errors import Forbidden, StoreUnavailable
from mltrack.store.identity import Identity, told_by
from mltrack.store.sources import mlflow_http
from mltrack.store.sources.mlflow_http import MlflowClient, NotReached
from mltrack.tui.app import MltrackApp
from mltrack.tui.screens.help import HelpScreen
from mltrack.tui.screens.runs import RunsScreen
from mltrack.tui.worker_calls.models_pages import model_move
from mltrack.tui.worker_calls.who import who


class Between:
    """Hands requests on to a server. Answers to those whose path has ``cut`` in it are lost; those with ``held`` wait."""

    def __init__(self, server: Server) -> None:
        self.cut = self.held = ""
        self.free = threading.Event()
        self.asked: list[str] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                between.asked.append(f"{self.command} {self.path}")
                if between.held and between.held in self.path:
                    between.free.wait(60)
                connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if between.cut and between.cut in self.path:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def times(self, path: str) -> int:
        return sum(path in asked for asked in self.asked)


@pytest.fixture
def between(
    new_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Between, Server]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    server = new_server()
    server.post("registered-models/create", name="net")
    for _ in range(2):
        server.post("model-versions/create", name="net", source="s3://elsewhere/model")
    made = Between(server)
    yield made, server
    made.free.set()
    made.http.shutdown()
    made.http.server_close()


def stage(server: Server, version: int) -> str:
    found = server.get("model-versions/get", name="net", version=str(version))
    return str(found["model_version"]["current_stage"])


def test_what_was_changed_is_told_and_seen(between: tuple[Between, Server], tmp_path: Path) -> None:
    way, server = between
    hooks = tmp_path / "config" / "mltrack"
    hooks.mkdir(parents=True)
    (hooks / "config.toml").write_text(f"[hooks]\npromote = ['touch', '{tmp_path / 'told'}']\n")
    with open_store(way.address) as store:
        until(lambda: store.refresh(0.2) is not None and "net" in store.registry.models(), 60)
        # The stage moved, and only the reason is missing: whoever is told of promotions is told.
        way.cut = "set-tag"
        said = model_move(store, "net", 2, "Production", "better", None)["sentence"]
        assert said.startswith("v2 is Production now, but the reason could not be noted (")
        assert "not known whether it was changed" in said and stage(server, 2) == "Production"
        assert (tmp_path / "told").exists()
        until(lambda: store.refresh(0.2) is not None and store.registry.holder("net", "Production") == 2, 60)
        # The answer to the change itself is lost: it is sent once, and looked at again.
        way.cut = "transition-stage"
        before = way.times("transition-stage")
        with pytest.raises(StoreUnavailable, match="it is not known whether it was changed: look again"):
            store.registry.promote("net", 1, "Production", "")
        assert way.times("transition-stage") == before + 1
        until(lambda: store.refresh(0.2) is not None and store.registry.holder("net", "Production") == 1, 60)
        way.cut = "delete"
        with pytest.raises(StoreUnavailable, match="not known"):
            store.registry.delete_version("net", 2)
        assert way.times("DELETE /") == 1
        # A registry that is slow to list holds up nobody who changes something in it.
        way.cut, way.held = "", "search"
        assert store.registry.promote("net", 1, "Staging", "").trouble == ""
        assert stage(server, 1) == "Staging"
    way.free.set()
    with pytest.raises(NotReached):
        MlflowClient("http://127.0.0.1:9", patient=False).call("POST", "registered-models/create", name="x")


def test_how_long_was_waited_is_a_persons_number(
    between: tuple[Between, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, _ = between
    way.held = "registered-models"
    # Who has pressed a key waits less than who reads in the background, and each of them as long as they are to.
    monkeypatch.setattr(mlflow_http, "PRESSED_SECONDS", 0.9)
    monkeypatch.setattr(mlflow_http, "READ_SECONDS", 1.9)
    monkeypatch.setattr(mlflow_http, "CONNECT_SECONDS", 1.0)
    for patient, seconds in ((False, 1), (True, 2)):
        with pytest.raises(OSError) as error:
            MlflowClient(way.address, patient).call("POST", "registered-models/create", name="x")
        assert error.value.strerror == f"does not answer (nothing came within {seconds} s)"


def test_a_role_that_was_given_meanwhile_counts_at_once(
    between: tuple[Between, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, server = between
    run_id = server.new_run(run_name="one")
    auth(server.store, "users", "add", "ann", "--role", "viewer")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", auth(server.store, "token", "create", "ann"))
    with open_store(way.address) as store:
        until(lambda: store.refresh(0.2) is not None and len(store.runs([run_id])) == 1, 60)
        until(lambda: store.identity(20).guarded, 60)
        with pytest.raises(Forbidden, match="you are viewer here"):
            store.set_tags([run_id], {"a": "b"})
        auth(server.store, "role", "grant", "ann", "editor", "--on", "store")
        store.set_tags([run_id], {"a": "b"})
        assert [*who(store)["refusals"]["experiment"]] == [*who(store)["refusals"]["model"]] == ["manager"]
        auth(server.store, "role", "grant", "ann", "manager", "--on", "store")
        until(lambda: "manager" not in who(store, again=True)["refusals"]["model"], 60)


def test_a_key_that_was_refused_asks_again_for_the_next_press(
    between: tuple[Between, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, server = between
    server.new_run(run_name="one")
    auth(server.store, "users", "add", "bob", "--role", "viewer")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", auth(server.store, "token", "create", "bob"))
    monkeypatch.setenv("PYTHONPATH", command_environment()["PYTHONPATH"])

    async def story() -> None:
        app = MltrackApp(way.address, place=way.address)

        def help_line(id: str) -> str:
            assert isinstance(app.screen, HelpScreen)
            rows = app.screen.actions.rows
            return next("".join(text for text, _ in row.line) for row in rows if row.key and row.key.id == id)

        async with app.run_test(size=(140, 40)) as pilot:
            await until_shown(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.view)
            await until_shown(pilot, lambda: app.refusal("runs", "tag"))
            await pilot.press("question_mark")
            await until_shown(pilot, lambda: isinstance(app.screen, HelpScreen) and app.screen.actions.rows)
            assert "you are viewer here" in help_line("tag") and "you are viewer" not in help_line("sort")
            await pilot.press("escape")
            await until_shown(pilot, lambda: isinstance(app.screen, RunsScreen))
            auth(server.store, "role", "grant", "bob", "editor", "--on", "store")
            await pilot.press("T")
            await until_shown(pilot, lambda: not app.refusal("runs", "tag"))

    asyncio.run(story())


def test_a_server_that_has_no_users_leaves_one_the_own_name() -> None:
    me = Identity("me")
    assert told_by({"user": "root", "identity": "claimed", "roles": None}, me) is me
    ann = told_by({"user": "ann", "identity": "token", "roles": [{"role": "viewer", "on": "store"}]}, me)
    assert ann == Identity("ann", True, (("viewer", "store"),))
