"""schemathesis against every route: no 5xx, and nothing that is not answered in time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.conftest import tool_environment
from tests.mlflow_api.conftest import Server
from tests.mlflow_api.openapi import description

from mltrack.store.mlflow_api.application import ROUTES

SECONDS = int(os.environ.get("MLT_SCHEMA_SECONDS", "600"))


def known(server: Server) -> dict[str, list[str]]:
    """Something of everything, and what names it."""
    experiment = str(server.post("experiments/create", name="fuzzed")["experiment_id"])
    runs = [server.new_run(experiment_id=experiment) for _ in range(4)]
    for run_id in runs:
        server.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1)
    server.post("registered-models/create", name="fuzzed")
    server.post("model-versions/create", name="fuzzed", source=f"runs:/{runs[0]}/model", run_id=runs[0])
    model = server.post("logged-models", experiment_id=experiment, name="fuzzed")["model"]["info"]["model_id"]
    names = ["fuzzed", "new", "../x", "ü", "😀"]
    filters = [
        "metrics.m > 0",
        "params.a LIKE '%'",
        "name = 'fuzzed'",
        "tags.`a b` IS NULL",
        "run_id IN ('a',)",
    ]
    return {
        "experiment_id": [experiment, "0", "99"],
        "run_id": [*runs, "0" * 32],
        "run_uuid": runs,
        "model_id": [model, "m-" + "0" * 32],
        "name": names,
        "new_name": names,
        "experiment_name": names,
        "key": ["m", "a/b", "a//b", "mlflow.runName", "mlflow.note.content"],
        "metric_key": ["m", "none"],
        "tag_key": ["m", "a b"],
        "version": ["1", "2", "x", "-1"],
        "stage": ["Production", "none", "x"],
        "status": ["RUNNING", "FINISHED", "LOGGED_MODEL_READY", "x"],
        "source": [
            f"runs:/{runs[0]}/model",
            "models:/fuzzed/1",
            f"models:/{model}",
            "s3://b/x",
            "/etc",
            "file://h/x",
        ],
        "filter": filters,
        "page_token": ["eyJvZmZzZXQiOiAxfQ==", "zz"],
        "view_type": ["ALL", "x"],
        "path": [f"{experiment}/{runs[0]}/artifacts/f", "f", "a/b", "..", "%2e%2e", "a\x00b"],
        "file": ["meta.0123456789abcdef.jsonl", "console.log", "..", ".x"],
    }


def test_the_description_has_every_route(server: Server) -> None:
    made = description(known(server))
    described = {(method.upper(), path) for path, each in made["paths"].items() for method in each}
    assert {(method, f"/api/2.0/mlflow/{path}") for method, path in ROUTES} <= described
    (fields,) = [
        each["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        for path, each in made["paths"].items()
        if path.endswith("runs/log-batch")
    ]
    assert {"metrics", "params", "tags", "run_id", "archive_existing_versions", "order_by"} <= set(fields)


@pytest.mark.long
def test_no_route_answers_with_a_5xx_or_not_at_all(server: Server, tmp_path: Path) -> None:
    python = tool_environment("schemathesis")
    schema = tmp_path / "openapi.json"
    text = json.dumps(description(known(server)))
    schema.write_text(text)
    command = [str(python.parent / "schemathesis"), "run", str(schema), "--url", server.address]
    command += ["--checks", "not_a_server_error", "--request-timeout", "20", "--max-time", str(SECONDS)]
    command += ["--phases", "coverage,fuzzing", "--continue-on-failure", "--suppress-health-check", "all"]
    command += ["--warnings", "off"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS + 900, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert server.get("experiments/get", experiment_id="0")["experiment"]["name"] == "Default"
