"""The models screen on somebody else's MLflow server: what is pressed here is what MLflow's own client sees there, and what
somebody else did meanwhile is said instead of overwritten."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.mlflow_api.conftest import COMMAND, Server
from tests.mlflow_api.conftest import until as until_true
from tests.tui.conftest import command_environment
from tests.tui.test_app_models import text, type_in, until
from textual.pilot import Pilot

from mltrack.store import open_store
from mltrack.store.errors import BadInput, Conflict, NotFound
from mltrack.tui.app import MltrackApp
from mltrack.tui.screens.models import ModelsScreen
from mltrack.tui.screens.runs import RunsScreen

Story = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", command_environment()["PYTHONPATH"])
    yield


class Theirs:
    """The server as its other clients see it, through plain requests."""

    def __init__(self, address: str, model: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.server = Server(cast("Any", None), "", Path(), host, int(port))
        self.model = model
        self.run_id = self.server.new_run(run_name=f"train {model}")
        self.server.post("registered-models/create", name=model)
        for _ in range(3):
            source = f"runs:/{self.run_id}/model"
            self.server.post("model-versions/create", name=model, source=source, run_id=self.run_id)
        self.move(1, "Production")

    def move(self, version: int, stage: str) -> None:
        fields = {
            "name": self.model,
            "version": str(version),
            "stage": stage,
            "archive_existing_versions": True,
        }
        self.server.post("model-versions/transition-stage", **fields)

    def version(self, version: int) -> Any:
        return self.server.get("model-versions/get", name=self.model, version=str(version))["model_version"]

    def stages(self) -> list[str]:
        return [self.version(version)["current_stage"] for version in (1, 2, 3)]


def play(address: str, model: str, story: Story) -> None:
    async def run() -> None:
        app = MltrackApp(address, place=address)
        async with app.run_test(size=(100, 30)) as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.view)
            await pilot.press("2")
            await until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen) and pilot.app.screen.page)
            await until(pilot, lambda: model in known(pilot, "names"))
            while screen(pilot).models.current != model:
                await pilot.press("j")
            await until(pilot, lambda: known_of(pilot, "name") == model)
            await story(pilot)

    asyncio.run(run())


def screen(pilot: Pilot[None]) -> ModelsScreen:
    return next(each for each in pilot.app.screen_stack if isinstance(each, ModelsScreen))


def known(pilot: Pilot[None], key: str) -> Any:
    page = screen(pilot).page
    return page[key] if page else ()


def known_of(pilot: Pilot[None], key: str) -> Any:
    detail = screen(pilot).detail
    return detail[key] if detail else None


def keys_of(theirs: Theirs) -> Story:
    async def story(pilot: Pilot[None]) -> None:
        assert (known_of(pilot, "chosen"), known_of(pilot, "production")) == (3, 1)
        await pilot.press("P")
        for answer in ("Production", "passes shadow", "Production"):
            await type_in(pilot, answer)
        await until(pilot, lambda: known_of(pilot, "production") == 3)
        assert theirs.stages() == ["Archived", "None", "Production"]
        tags = {tag["key"]: tag["value"] for tag in theirs.version(3)["tags"]}
        assert tags["mltrack.reason"].startswith("Production: passes shadow (")
        await pilot.press("P")
        for answer in ("@champion", "the best"):
            await type_in(pilot, answer)
        await until(pilot, lambda: "@champion" in text(pilot))
        alias = theirs.server.get("registered-models/alias", name=theirs.model, alias="champion")
        assert alias["model_version"]["version"] == "3"
        await pilot.press("e")
        await type_in(pilot, "what it is")
        await until(pilot, lambda: known_of(pilot, "version_description") == "what it is")
        assert theirs.version(3)["description"] == "what it is"
        await pilot.press("B")
        for answer in ("it drifts", "Production"):
            await type_in(pilot, answer)
        await until(pilot, lambda: known_of(pilot, "production") == 1)
        assert theirs.stages() == ["Production", "None", "Archived"]
        # Somebody else is faster: they are named, and nothing is changed.
        theirs.move(2, "Production")
        screen(pilot)._version = 3
        await pilot.press("P")
        for answer in ("Production", "again", "Production"):
            await type_in(pilot, answer)
        await until(pilot, lambda: "is now v2 on the server" in text(pilot))
        assert theirs.stages() == ["Archived", "Production", "Archived"]
        await until(pilot, lambda: known_of(pilot, "production") == 2)
        screen(pilot)._version = 1
        screen(pilot)._load()
        await until(pilot, lambda: known_of(pilot, "chosen") == 1)
        await pilot.press("D")
        await until(pilot, lambda: "Delete" in text(pilot))
        await pilot.press("y")
        await until(pilot, lambda: known_of(pilot, "versions") == [3, 2])
        gone = theirs.server.call("GET", "model-versions/get", name=theirs.model, version="1")
        assert gone.status == 404

    return story


def test_keys_change_a_real_mlflow_server(reference: str) -> None:
    theirs = Theirs(reference, "by keys")
    play(reference, theirs.model, keys_of(theirs))


def test_keys_change_a_server_of_ours(server: Server) -> None:
    theirs = Theirs(server.address, "by keys")
    play(server.address, theirs.model, keys_of(theirs))


def test_what_somebody_else_did_meanwhile_is_said(reference: str) -> None:
    theirs = Theirs(reference, "meanwhile")
    with open_store(reference) as store:
        registry = store.registry

        def shown(version: int) -> bool:
            store.refresh(0.2)
            return "meanwhile" in registry.models() and registry.holder("meanwhile", "Production") == version

        until_true(lambda: shown(1), 60)
        theirs.move(2, "Production")
        with pytest.raises(Conflict, match="Production of meanwhile is now v2 on the server"):
            registry.promote("meanwhile", 3, "Production", "", expected_holder=1)
        assert theirs.stages() == ["Archived", "Production", "None"]
        until_true(lambda: shown(2), 60)  # told, and shown from then on
        theirs.server.post("registered-models/alias", name="meanwhile", alias="best", version="1")
        with pytest.raises(Conflict, match="@best of meanwhile is now v1"):
            registry.set_alias("meanwhile", "best", 3, expected_holder=None)
        fields = {"name": "meanwhile", "version": "3", "description": "theirs"}
        theirs.server.call("PATCH", "model-versions/update", **fields)
        with pytest.raises(Conflict, match="theirs"):
            registry.describe("meanwhile", "mine", 3)
        for version, why in ((2, "in Production on the server"), (1, "@best on the server")):
            with pytest.raises(Conflict, match=why):
                registry.delete_version("meanwhile", version)
        with pytest.raises(NotFound, match="The server refused"):
            registry.promote("meanwhile", 9, "Staging", "")
        for refused, why in (
            (lambda: registry.request("meanwhile", 3, "Production"), "keeps no requests"),
            (lambda: store.pin([theirs.run_id]), "no place for pins"),
            (store.undo, "keeps no history"),
        ):
            with pytest.raises(BadInput, match=why):
                refused()
        with pytest.raises(BadInput, match="v1 was archived last. Say which version it goes back to: to=1"):
            registry.rollback("meanwhile")
        with pytest.raises(NotFound, match="keeps no history of @best"):
            registry.rollback("meanwhile", "@best")
        assert theirs.stages() == ["Archived", "Production", "None"]
        assert theirs.version(3)["description"] == "theirs"
        assert registry.register_from(f"runs:/{theirs.run_id}/model", "meanwhile") == 4


def test_the_command_promotes_and_goes_back_on_a_server(reference: str) -> None:
    theirs = Theirs(reference, "by command")
    for words, wanted in (
        (("promote", "by command/2", "Production", "-m", "better"), ["Archived", "Production", "None"]),
        (("rollback", "by command", "--to", "1", "-m", "worse"), ["Production", "Archived", "None"]),
    ):
        command = [*COMMAND, "--store", reference, "models", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert theirs.stages() == wanted
    guess = [*COMMAND, "--store", reference, "models", "rollback", "by command"]
    done = subprocess.run(guess, capture_output=True, text=True, timeout=120, check=False, input="")
    assert done.returncode == 2 and "v2 was archived last" in done.stderr and "--to 2" in done.stderr
    assert theirs.stages() == ["Production", "Archived", "None"]
