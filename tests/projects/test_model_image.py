"""Models in containers, on a real engine: served there, and as images that stand alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.projects.launching import wait_until
from tests.projects.served import ROOT, Serving
from tests.tui.conftest import command_environment

from mltrack.store import open_store

pytestmark = pytest.mark.usefixtures("engine")

MODEL = """\
import os, socket, time

class Model:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, data):
        value = float(data.ravel()[0])
        if value == 777:
            time.sleep(600)
        if value == 555:
            raise RuntimeError(f"uid {os.getuid()} sees {sorted(os.listdir('/mltrack'))} {socket.if_nameindex()}")
        return data * self.factor
"""
SAVE = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from contained_model import Model
from mltrack.store.flavors.saving import save_model
from mltrack.store.flavors.schema import ModelSignature
spec = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
save_model(Model(float(sys.argv[2])), Path(sys.argv[1]), signature=ModelSignature(spec), input_example=[[1.0, 2.0]],
           code_paths=[sys.argv[3] + "/contained_model.py"], pip_requirements=["numpy"])
"""


def containers(engine: Any) -> list[dict[str, Any]]:
    return list(engine.containers(all=True, filters={"label": "mltrack.model"}))


def test_served_from_containers_swapped_and_built_into_an_image(
    store_root: Path, tmp_path: Path, engine: Any
) -> None:
    (tmp_path / "contained_model.py").write_text(MODEL)
    with open_store() as store:
        for number, factor in enumerate(("2", "3"), 1):
            folder = tmp_path / f"m{number}"
            subprocess.run(
                [sys.executable, "-c", SAVE, str(folder), factor, str(tmp_path)],
                check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            )
            store.registry.register_from(str(folder), "double")
        store.registry.promote("double", 1, "Production", "")

    served = Serving(store_root, "models:/double/Production", "--backend", "docker", "--timeout", "3")
    try:
        assert served.ask({"inputs": [[1, 2]]}) == (200, {"predictions": [[2.0, 4.0]]})
        _, told = served.ask({"inputs": [[555, 0]]})
        assert (
            f"uid {os.getuid()} sees ['client', 'model', 'requirements.txt'] [(1, 'lo')]" in told["message"]
        )
        [first] = containers(engine)
        # One that hangs is ended with its container, and another one takes its place.
        assert served.ask({"inputs": [[777, 0]]})[0] == 504
        wait_until(lambda: served.ask({"inputs": [[1, 0]]})[0] == 200, "it was served again")
        wait_until(lambda: [each["Id"] for each in containers(engine)] != [first["Id"]], "another container")
        answers: list[int] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                answers.append(served.ask({"inputs": [[1, 0]]})[0])

        client = threading.Thread(target=load)
        client.start()
        with open_store() as store:
            store.registry.promote("double", 2, "Production", "")
        served.hears("Serving double v2 now, v1 before")
        stop.set()
        client.join()
        assert set(answers) == {200}
        assert served.ask({"inputs": [[1, 2]]})[1] == {"predictions": [[3.0, 6.0]]}
    finally:
        assert served.stop() == 0, served.said
    wait_until(lambda: not containers(engine), "no container was left")

    done = subprocess.run(
        [sys.executable, "-m", "mltrack.tui.cli", "models", "build-docker", "models:/double/2", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=command_environment(),
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert (built["model"], built["version"]) == ("double", 2) and built["image"].startswith(
        "mltrack-model/double:"
    )
    # The packages of the model were there already, from serving it.
    assert "step" in done.stderr
    answer = stand_alone(engine, built["image"])
    assert json.loads(answer) == {"predictions": [[3.0, 6.0]]}
    engine.remove_image(built["image"], force=True)


def test_a_container_that_is_ended_while_it_is_made_leaves_nothing(engine: Any, tmp_path: Path) -> None:
    relay = [sys.executable, "-P", "-m", "mltrack.projects.backends.model_container", "python:3.11-slim"]

    def end_after(seconds: float) -> None:
        with subprocess.Popen(
            [*relay, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=command_environment(),
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.terminate()
            process.terminate()  # once more, into the middle of its tidying

    began = time.monotonic()
    end_after(0)
    whole = time.monotonic() - began + 1.0
    for part in range(12):
        end_after(whole * part / 12)
        assert not containers(engine), part


def stand_alone(engine: Any, image: str) -> str:
    """What the image answers, asked inside its own container: nothing of this machine is mounted."""
    made = engine.create_container(image, host_config=engine.create_host_config(network_mode="none"))
    try:
        engine.start(made["Id"])
        wait_until(lambda: b"Serving" in engine.logs(made["Id"]), f"it served: {engine.logs(made['Id'])!r}")
        question = (
            "import urllib.request as u; print(u.urlopen(u.Request('http://127.0.0.1:8080/invocations',"
            "b'{\"inputs\": [[1, 2]]}', {'Content-Type': 'application/json'})).read().decode())"
        )
        asked = engine.exec_create(made["Id"], ["python", "-c", question])
        return str(engine.exec_start(asked["Id"]).decode())
    finally:
        engine.remove_container(made["Id"], force=True)
