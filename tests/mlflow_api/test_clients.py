"""MLflow's own clients: what they read back from us is what they read back from MLflow's server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.mlflow_api.conftest import QUIET, Server, said
from tests.mlflow_api.same_requests import SAME

SCRIPT = Path(__file__).with_name("client_script.py")


def test_the_newest_client_reads_from_us_what_it_reads_from_mlflow(
    mlflow_python: Path, said_by_mlflow: Callable[..., Any], server: Server
) -> None:
    ours, theirs = said(mlflow_python, SCRIPT, server.address, "models"), said_by_mlflow(SCRIPT, "models")
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs.get(key)} == {}


# Named by the server, or the time of the request; and what only ours says (who registered a version; the user of a run).
VARYING = frozenset(
    "creation_time last_update_time creation_timestamp last_updated_timestamp experiment_id artifact_location artifact_uri"
    " next_page_token user_id sqlstate error_class workspace message outputs latest_versions aliases root_uri".split()
)


def answers(address: str) -> list[tuple[int, Any]]:
    """What a server says to SAME, ids replaced by their names."""
    host, port = address.removeprefix("http://").split(":")
    server = Server(cast("Any", None), "", Path(), host, int(port))
    experiment = str(server.post("experiments/create", name="same")["experiment_id"])
    run = server.post("runs/create", experiment_id=experiment, run_name="r", start_time=1)["run"]["info"][
        "run_id"
    ]
    found = []
    for method, path, fields in SAME:
        text = json.dumps(fields).replace("$run", run).replace("$exp", experiment)
        answer = server.call(method, path, **json.loads(text))
        body = json.loads(answer.body.decode().replace(run, "$run"))
        found.append((answer.status, stripped(body) if answer.status == 200 else body["error_code"]))
    return found


def stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: stripped(inner) for key, inner in value.items() if key not in VARYING}
    if isinstance(value, list):
        parts = [stripped(inner) for inner in value]
        if all(isinstance(part, dict) and "key" in part and "step" not in part for part in parts):
            return sorted(parts, key=lambda part: str(part["key"]))
        if all(isinstance(part, dict) and "key" in part and "run_id" not in part for part in parts):
            return sorted(parts, key=lambda part: (str(part["key"]), part["step"], part["timestamp"]))
        return parts
    return value


@pytest.fixture(scope="module")
def mlflows_answers(reference: str) -> list[tuple[int, Any]]:
    """Those of MLflow's own server, which is asked once: the second time it would have what was made."""
    return answers(reference)


def test_raw_requests_are_answered_as_mlflow_answers_them(
    mlflows_answers: list[tuple[int, Any]], new_server: Callable[..., Server]
) -> None:
    ours = answers(new_server().address)
    differing = [
        (request, mine, their)
        for request, mine, their in zip(SAME, ours, mlflows_answers, strict=True)
        if mine != their
    ]
    assert differing == []


def test_a_client_of_mlflow_2_works(
    mlflow2_python: Path, reference: str, new_server: Callable[..., Server]
) -> None:
    ours = said(mlflow2_python, SCRIPT, new_server().address)
    assert ours["run"]["metrics"]["loss"] == str(1 / 3)
    assert ours["pages"] == [["s5", "s4", "s3", "s2"], ["s1", "s0"]]
    assert [each["stage"] for each in ours["versions"]] == ["Production", "Staging"]
    assert ours["downloaded"] == ["d.json", *(f"many/f{number}" for number in range(5)), "sub dir/ü.txt"]


def test_mlflows_command_line(mlflow_python: Path, server: Server) -> None:
    environment = {**os.environ, **QUIET, "MLFLOW_TRACKING_URI": server.address}
    command = [str(mlflow_python), "-m", "mlflow", "experiments", "create", "--experiment-name", "by hand"]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    command = [str(mlflow_python), "-m", "mlflow", "experiments", "search"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "by hand" in done.stdout
