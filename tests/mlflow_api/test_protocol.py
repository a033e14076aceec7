"""MLflow's protocol by plain HTTP: shapes, values, errors, paging, order."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mlflow_api.conftest import Answer, Server

from mltrack.store import open_store

JSON = {"Content-Type": "application/json"}


def test_a_run_from_birth_to_end(new_server: Callable[..., Server]) -> None:
    server = new_server()
    assert server.get("experiments/get", experiment_id="0")["experiment"]["name"] == "Default"
    experiment = server.post("experiments/create", name="vision/cifar", tags=[{"key": "team", "value": "ml"}])
    run = server.post(
        "runs/create",
        experiment_id=experiment["experiment_id"],
        user_id="ann",
        run_name="first",
        start_time=1_700_000_000_000,
        tags=[{"key": "mlflow.source.git.commit", "value": "a" * 40}],
    )["run"]
    info = run["info"]
    assert info["status"] == "RUNNING" and info["run_uuid"] == info["run_id"] and "end_time" not in info
    assert info["artifact_uri"] == f"mlflow-artifacts:/{info['experiment_id']}/{info['run_id']}/artifacts"
    run_id = info["run_id"]
    server.post("runs/log-parameter", run_id=run_id, key="lr", value="1e-3")
    for step in range(3):
        server.post(
            "runs/log-metric", run_id=run_id, key="loss", value=1 / (step + 1), timestamp=10 + step, step=step
        )
    server.post("runs/update", run_id=run_id, status="FINISHED", end_time=1_700_000_005_000)
    read = server.get("runs/get", run_id=run_id, run_uuid=run_id)["run"]
    assert read["info"]["status"] == "FINISHED" and read["info"]["end_time"] == 1_700_000_005_000
    assert read["data"]["metrics"] == [{"key": "loss", "value": 1 / 3, "timestamp": 12, "step": 2}]
    assert read["data"]["params"] == [{"key": "lr", "value": "1e-3"}]
    # MLflow's clients resume a run by saying that it is running.
    server.post("runs/update", run_id=run_id, status="RUNNING")
    again = server.get("runs/get", run_id=run_id)["run"]["info"]
    assert again["status"] == "RUNNING" and "end_time" not in again
    server.stop()
    with open_store(server.store) as store:
        mine = store.run("first")
        assert (mine.experiment, mine.user, mine.start_ms) == ("vision/cifar", "ann", 1_700_000_000_000)
        assert mine.facts["git"]["commit"] == "a" * 40
        assert store.points(run_id, "loss").values.tolist() == [1.0, 0.5, 1 / 3]


@pytest.mark.parametrize(
    "value",
    [0.1, -0.0, 1e308, 5e-324, "NaN", "Infinity", "-Infinity", 3, 2**53, "0.5"],
)
def test_a_value_comes_back_exactly(server: Server, value: float | str) -> None:
    run_id = server.new_run()
    server.post("runs/log-metric", run_id=run_id, key="v", value=value, timestamp=5)
    (back,) = server.get("metrics/get-history", run_id=run_id, metric_key="v")["metrics"]
    wanted, found = float(value), float(back["value"])
    assert (
        math.isnan(found)
        if math.isnan(wanted)
        else (found, math.copysign(1, found)) == (wanted, math.copysign(1, wanted))
    )
    assert (back["timestamp"], back["step"]) == (5, 0)


@pytest.mark.parametrize(
    "text",
    [
        '"value":1e999,"timestamp":1',
        '"value":"1e999","timestamp":1',
        '"value":9007199254740993,"timestamp":1',
        '"value":"abc","timestamp":1',
        '"value":true,"timestamp":1',
        '"value":[1],"timestamp":1',
        '"value":1,"timestamp":9223372036854775808',
        '"value":1,"timestamp":1,"step":9223372036854775808',
        '"value":1,"timestamp":1,"step":1e30',
        '"value":1,"timestamp":"soon"',
        '"value":1',
    ],
)
def test_what_cannot_be_stored_exactly_is_refused(server: Server, text: str) -> None:
    run_id = server.new_run()
    body = f'{{"run_id":"{run_id}","key":"v",{text}}}'.encode()
    answer = server.request("POST", "/api/2.0/mlflow/runs/log-metric", body, JSON)
    assert answer.status == 400 and answer.json["error_code"] == "INVALID_PARAMETER_VALUE"
    assert server.get("metrics/get-history", run_id=run_id, metric_key="v") == {}


def test_steps_at_the_borders_of_64_bits(server: Server) -> None:
    run_id = server.new_run()
    steps = [-(2**63), -1, 0, 2**63 - 1]
    for step in steps:
        server.post("runs/log-metric", run_id=run_id, key="v", value=step % 7, timestamp=1, step=step)
    points = server.get("metrics/get-history", run_id=run_id, metric_key="v")["metrics"]
    assert [point["step"] for point in points] == steps
    assert server.get("runs/get", run_id=run_id)["run"]["data"]["metrics"][0]["step"] == 2**63 - 1


@settings(max_examples=15)
@given(value=st.text(st.characters(codec="utf-8"), max_size=200))
def test_texts_are_kept_as_they_are(server: Server, value: str) -> None:
    run_id = server.new_run(tags=[{"key": "t", "value": value}])
    server.post("runs/log-parameter", run_id=run_id, key="p", value=value)
    data = server.get("runs/get", run_id=run_id)["run"]["data"]
    assert {"key": "p", "value": value} in data["params"] and {"key": "t", "value": value} in data["tags"]


def test_a_batch_is_stored_whole_or_not_at_all(server: Server) -> None:
    run_id = server.new_run()
    server.post("runs/log-batch", run_id=run_id, params=[{"key": "a", "value": "1"}])
    metric = {"key": "m", "value": 1, "timestamp": 1}
    changed = {"params": [{"key": "b", "value": "2"}, {"key": "a", "value": "other"}], "metrics": [metric]}
    answer = server.call("POST", "runs/log-batch", run_id=run_id, **changed)
    assert answer.status == 400 and "'a' was already logged" in answer.json["message"]
    bad = [metric, {"key": "m//", "value": 1, "timestamp": 1}]
    assert server.call("POST", "runs/log-batch", run_id=run_id, metrics=bad).status == 400
    assert server.call("POST", "runs/log-batch", run_id=run_id, metrics=[metric] * 1001).status == 400
    data = server.get("runs/get", run_id=run_id)["run"]["data"]
    assert data["params"] == [{"key": "a", "value": "1"}] and "metrics" not in data
    for _ in range(3):  # a client that got no answer sends it again
        server.post("runs/log-batch", run_id=run_id, metrics=[metric], params=[{"key": "a", "value": "1"}])
    assert len(server.get("metrics/get-history", run_id=run_id, metric_key="m")["metrics"]) == 1


def test_errors_have_mlflows_shape_and_are_never_worth_a_retry(server: Server) -> None:
    def code(answer: object) -> tuple[int, str]:
        return answer.status, answer.json["error_code"]  # type: ignore[attr-defined]

    unknown = server.call("GET", "runs/get", run_id="0" * 32)
    assert code(unknown) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert code(server.call("GET", "runs/get", run_id="../../etc")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert code(server.call("GET", "experiments/get-by-name", experiment_name="no")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
    )
    assert code(server.call("POST", "experiments/create", name="Default")) == (400, "RESOURCE_ALREADY_EXISTS")
    assert code(server.call("POST", "experiments/search")) == (400, "INVALID_PARAMETER_VALUE")
    for body in (b"{", b"[1]", b"null", b'"x"', b"[" * 100_000, b'{"a":' * 2000, b"\xff\xfe", b""):
        answer = server.request("POST", "/api/2.0/mlflow/runs/log-metric", body, JSON)
        assert code(answer) == (400, "INVALID_PARAMETER_VALUE"), body[:20]
    assert server.request("POST", "/api/2.0/mlflow/runs/search", b"{}").status == 400  # no content type
    large = b'{"run_id":"' + b"a" * (17 << 20) + b'"}'
    assert server.request("POST", "/api/2.0/mlflow/runs/search", large, JSON).status == 413
    assert code(server.request("GET", "/api/2.0/mlflow/nothing")) == (404, "ENDPOINT_NOT_FOUND")
    assert code(server.request("POST", "/api/2.0/mlflow/traces", b"{}", JSON)) == (501, "NOT_IMPLEMENTED")
    assert server.request("GET", "/api/2.0/mlflow/runs/log-metric").status == 405
    wrong = server.call("POST", "runs/search", experiment_ids=["0"], filter="metrics.a ? 3")
    assert code(wrong) == (400, "INVALID_PARAMETER_VALUE") and "Invalid filter" in wrong.json["message"]


def test_searching_pages_through_runs_in_order(server: Server) -> None:
    here = server.post("experiments/create", name="paged")["experiment_id"]
    values = {
        server.new_run(experiment_id=here, run_name=f"r{place}", start_time=place): place
        for place in range(7)
    }
    for run_id, place in values.items():
        server.post(
            "runs/log-metric", run_id=run_id, key="m", value="NaN" if place == 3 else place, timestamp=1
        )
    found: list[str] = []
    token = ""
    while True:
        page = server.post(
            "runs/search", experiment_ids=[here], order_by=["metrics.m DESC"], max_results=3, page_token=token
        )
        found += [run["info"]["run_name"] for run in page["runs"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert found == ["r6", "r5", "r4", "r2", "r1", "r0", "r3"]
    few = server.post(
        "runs/search", experiment_ids=[here], filter="metrics.m > 3 and attributes.run_name != 'r6'"
    )
    assert [run["info"]["run_name"] for run in few["runs"]] == ["r5", "r4"]
    assert server.post("runs/search", experiment_ids=["99"]) == {}
    first = next(iter(values))
    server.post("runs/delete", run_id=first)
    assert len(server.post("runs/search", experiment_ids=[here])["runs"]) == 6
    gone = server.post("runs/search", experiment_ids=[here], run_view_type="DELETED_ONLY")["runs"]
    assert [run["info"]["run_id"] for run in gone] == [first]
    assert server.call("POST", "runs/log-metric", run_id=first, key="m", value=1, timestamp=1).status == 400
    server.post("runs/restore", run_id=first)
    assert len(server.post("runs/search", experiment_ids=[here], run_view_type="ALL")["runs"]) == 7


def test_experiments_are_deleted_with_their_runs_and_come_back(server: Server) -> None:
    experiment = server.post("experiments/create", name="a")["experiment_id"]
    run_id = server.new_run(experiment_id=experiment)
    server.post("experiments/update", experiment_id=experiment, new_name="b")
    server.post("experiments/delete", experiment_id=experiment)
    assert (
        server.get("experiments/get-by-name", experiment_name="b")["experiment"]["lifecycle_stage"]
        == "deleted"
    )
    assert server.get("runs/get", run_id=run_id)["run"]["info"]["lifecycle_stage"] == "deleted"
    assert server.call("POST", "experiments/delete", experiment_id=experiment).status == 404
    assert server.call("POST", "experiments/create", name="b").json["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert server.call("POST", "runs/create", experiment_id=experiment).status == 400
    server.post("experiments/restore", experiment_id=experiment)
    assert server.get("runs/get", run_id=run_id)["run"]["info"]["lifecycle_stage"] == "active"
    names = server.post("experiments/search", max_results=10, filter="name LIKE 'b%'")["experiments"]
    assert [row["name"] for row in names] == ["b"]


def test_a_persons_edit_and_a_clients_tag_meet(server: Server) -> None:
    run_id = server.new_run(run_name="given")
    server.post("runs/set-tag", run_id=run_id, key="k", value="client")
    with open_store(server.store) as store:
        store.set_tags([run_id], {"k": "person"})
        store.rename(run_id, "mine")
    assert {"key": "k", "value": "person"} in server.get("runs/get", run_id=run_id)["run"]["data"]["tags"]
    server.post("runs/set-tag", run_id=run_id, key="k", value="client again")
    server.post("runs/update", run_id=run_id, run_name="theirs")
    run = server.get("runs/get", run_id=run_id)["run"]
    assert {"key": "k", "value": "client again"} in run["data"]["tags"]
    assert {"key": "mlflow.runName", "value": "theirs"} in run["data"]["tags"] and run["info"][
        "run_name"
    ] == "theirs"
    server.post("runs/delete-tag", run_id=run_id, key="k")
    assert server.call("POST", "runs/delete-tag", run_id=run_id, key="k").status == 404
    with open_store(server.store) as store:
        assert store.undo().sentence.startswith(
            "Undid: Renamed"
        )  # the person's own last change, not the client's


def test_histories_are_paged_and_bulk_histories_thinned(server: Server) -> None:
    run_id = server.new_run()
    for first in range(0, 3000, 1000):
        metrics = [
            {"key": "m", "value": step, "timestamp": step, "step": step}
            for step in range(first, first + 1000)
        ]
        server.post("runs/log-batch", run_id=run_id, metrics=metrics)
    found: list[float] = []
    token = ""
    while True:
        page = server.get(
            "metrics/get-history", run_id=run_id, metric_key="m", max_results=1024, page_token=token
        )
        found += [point["value"] for point in page["metrics"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert found == [float(step) for step in range(3000)]
    bulk = server.get("metrics/get-history-bulk-interval", run_ids=[run_id], metric_key="m", max_results=100)[
        "metrics"
    ]
    assert len(bulk) == 100 and (bulk[0]["step"], bulk[-1]["step"]) == (0, 2999)


def test_artifacts_go_in_and_out_and_nowhere_else(server: Server, tmp_path: Path) -> None:
    run_id = server.new_run()
    base = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert (
        server.request("PUT", f"{base}/sub%20dir/%C3%BC.txt", b"hello", {"Content-Type": "text/plain"}).status
        == 200
    )
    assert server.request("PUT", f"{base}/big.bin", b"x" * (20 << 20)).status == 200
    listed = server.request("GET", f"/api/2.0/mlflow-artifacts/artifacts?path=0/{run_id}/artifacts").json[
        "files"
    ]
    assert [(file["path"], file.get("file_size")) for file in listed] == [
        ("big.bin", 20 << 20),
        ("sub dir", None),
    ]
    whole = server.get("artifacts/list", run_id=run_id, path="sub dir")
    assert whole["files"] == [{"path": "sub dir/ü.txt", "is_dir": False, "file_size": 5}]
    answer = server.request("GET", f"{base}/sub%20dir/%C3%BC.txt", headers={"Range": "bytes=1-2"})
    assert (answer.status, answer.body) == (206, b"el")
    folder = server.root / "runs" / run_id[:2] / run_id / "artifacts"
    (folder / "link").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    for path in ("link", "out/secret", "nothing"):
        assert server.request("GET", f"{base}/{path}").status == 404
    for path in ("..%2F..%2Fx", "%2e%2e/x", "a\\..\\b", "a%00b", "%252e%252e%252fx"):
        answer = server.request("PUT", f"{base}/{path}", b"x")
        assert answer.status in (400, 404) or not (tmp_path / "x").exists(), path
        assert server.request("GET", f"{base}/{path}").status in (400, 404), path
    assert server.request("PUT", f"{base}/out/new", b"x").status == 400 and not (tmp_path / "new").exists()
    assert server.request("DELETE", f"{base}/sub%20dir").status == 200
    assert not (folder / "sub dir").exists() and secret.read_text() == "secret"
    assert not list(server.root.rglob("*.part"))


def test_the_registry_keeps_mlflows_rules(server: Server) -> None:
    run_id = server.new_run()
    server.post("registered-models/create", name="m", tags=[{"key": "k", "value": "v"}])
    again = server.call("POST", "registered-models/create", name="m")
    assert (again.status, again.json["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")
    for _ in range(3):
        server.post("model-versions/create", name="m", source=f"runs:/{run_id}/model", run_id=run_id)
    assert server.call("DELETE", "model-versions/delete", name="m", version="3").status == 200
    fourth = server.post("model-versions/create", name="m", source="s3://bucket/model")["model_version"]
    assert fourth["version"] == "4" and fourth["current_stage"] == "None" and fourth["run_id"] == ""
    for source in ("/etc", "file:///etc", "runs:/" + "0" * 32 + "/../../x", "../x", f"runs:/{'1' * 32}/m"):
        answer = server.call("POST", "model-versions/create", name="m", source=source, run_id=run_id)
        assert answer.status == 400, source
    for version in ("1", "2"):
        server.post(
            "model-versions/transition-stage",
            name="m",
            version=version,
            stage="production",
            archive_existing_versions=True,
        )
    model = server.get("registered-models/get", name="m")["registered_model"]
    assert [(each["version"], each["current_stage"]) for each in model["latest_versions"]] == [
        ("1", "Archived"),
        ("2", "Production"),
        ("4", "None"),
    ]
    for stage in ("None", "Archived", "Live"):
        answer = server.call(
            "POST",
            "model-versions/transition-stage",
            name="m",
            version="1",
            stage=stage,
            archive_existing_versions=True,
        )
        assert answer.status == 400
    server.post("registered-models/alias", name="m", alias="champion", version="2")
    found = server.get("registered-models/alias", name="m", alias="champion")["model_version"]
    assert (found["version"], found["aliases"]) == ("2", ["champion"])
    assert server.call("GET", "registered-models/alias", name="m", alias="no").status == 400
    for alias in ("latest", "v7", "a b"):
        assert (
            server.call("POST", "registered-models/alias", name="m", alias=alias, version="2").status == 400
        )
    clause = "name LIKE '%' AND tag.`mlflow.prompt.is_prompt` != 'true'"
    assert [
        each["name"] for each in server.get("registered-models/search", filter=clause)["registered_models"]
    ] == ["m"]
    uri = server.get("model-versions/get-download-uri", name="m", version="1")["artifact_uri"]
    assert uri == f"mlflow-artifacts:/0/{run_id}/artifacts/model"
    assert server.call("GET", "model-versions/get", name="m", version="x").status == 400
    assert server.call("GET", "model-versions/get", name="m", version="9").status == 404
    assert server.call("DELETE", "registered-models/delete", name="m").status == 200
    assert server.call("GET", "registered-models/get", name="m").status == 404


def test_logged_models_are_found_by_what_was_said_of_them(server: Server) -> None:
    run_id = server.new_run()
    made = server.post(
        "logged-models",
        experiment_id="0",
        name="net",
        source_run_id=run_id,
        params=[{"key": "p", "value": "1"}],
    )["model"]["info"]
    model_id = made["model_id"]
    assert made["status"] == "LOGGED_MODEL_PENDING" and made["artifact_uri"].endswith(
        f"/models/{model_id}/artifacts"
    )
    assert server.call("POST", "logged-models", experiment_id="0", name="a/b").status == 400
    body = json.dumps({"status": "LOGGED_MODEL_READY"}).encode()
    assert server.request("PATCH", f"/api/2.0/mlflow/logged-models/{model_id}", body, JSON).status == 200
    server.post(
        "runs/log-metric",
        run_id=run_id,
        key="acc",
        value=0.75,
        timestamp=1,
        model_id=model_id,
        dataset_name="d",
        dataset_digest="1",
    )
    server.post("runs/outputs", run_id=run_id, models=[{"model_id": model_id, "step": 3}])
    (found,) = server.post(
        "logged-models/search", experiment_ids=["0"], filter="metrics.acc > 0.7 AND name = 'net'"
    )["models"]
    assert found["data"]["metrics"][0]["value"] == 0.75 and found["data"]["params"] == [
        {"key": "p", "value": "1"}
    ]
    assert server.post("logged-models/search", experiment_ids=["0"], filter="params.p = '2'") == {}
    run = server.get("runs/get", run_id=run_id)["run"]
    assert run["outputs"]["model_outputs"] == [{"model_id": model_id, "step": 3}]
    assert server.request("DELETE", f"/api/2.0/mlflow/logged-models/{model_id}", b"{}", JSON).status == 200
    assert server.call("GET", f"logged-models/{model_id}").status == 404


def test_a_metric_of_a_logged_model_is_in_the_next_answer(server: Server) -> None:
    run_id = server.new_run()
    made = server.post("logged-models", experiment_id="0", name="of nobody")["model"][
        "info"
    ]  # no run made it
    place = f"logged-models/{made['model_id']}"
    metric = {"key": "acc", "timestamp": 1, "model_id": made["model_id"]}

    def values(answer: Answer) -> list[float]:
        return [each["value"] for each in answer.json["model"]["data"]["metrics"]]

    for step, (method, path, fields) in enumerate(
        (
            ("GET", place, {}),
            ("PATCH", f"{place}/tags", {"tags": [{"key": "k", "value": "v"}]}),
            ("PATCH", place, {"status": "LOGGED_MODEL_READY"}),
        )
    ):
        server.post("runs/log-metric", run_id=run_id, value=step, step=step, **metric)
        assert values(server.call(method, path, **fields)) == [float(each) for each in range(step + 1)], path


def test_one_point_at_a_time_costs_few_bytes(new_server: Callable[..., Server]) -> None:
    server = new_server()
    run_id = server.new_run()
    connection = http.client.HTTPConnection(server.host, server.port)
    for step in range(2000):
        body = json.dumps(
            {
                "run_id": run_id,
                "key": "train/loss",
                "value": 1 / (step + 1),
                "timestamp": 1_700_000_000_000 + step,
                "step": step,
            }
        )
        connection.request("POST", "/api/2.0/mlflow/runs/log-metric", body, JSON)
        connection.getresponse().read()
    connection.close()
    assert len(server.get("metrics/get-history", run_id=run_id, metric_key="train/loss")["metrics"]) == 2000
    server.stop()
    written = sum(path.stat().st_size for path in (server.root / "runs").rglob("*.jsonl"))
    assert written / 2000 < 100
    with open_store(server.store) as store:
        assert store.database.execute("SELECT sum(count) FROM block")[0][0] == 2000
