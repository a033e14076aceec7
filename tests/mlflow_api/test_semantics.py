"""What MLflow's own tests ask of a server beyond the shape of its answers: each of these was once answered otherwise here."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from tests.mlflow_api.conftest import Server

from mltrack.store import open_store

JSON = {"Content-Type": "application/json"}


def tags(entry: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in entry.get("tags", ())}


@pytest.mark.parametrize(
    ("given", "kept", "run"),
    [
        ("s3://b/p?key=1", "s3://b/p?key=1", "s3://b/p/{run}/artifacts?key=1"),
        ("/abs/folder/", "/abs/folder/", "/abs/folder/{run}/artifacts"),
        ("a/b", "{here}/a/b", "{here}/a/b/{run}/artifacts"),
        ("file:a?x=y", "file://{here}/a?x=y", "file://{here}/a/{run}/artifacts?x=y"),
    ],
)
def test_a_run_lies_below_its_experiments_place(server: Server, given: str, kept: str, run: str) -> None:
    made = server.post("experiments/create", name=f"at {given}", artifact_location=given)["experiment_id"]
    found = server.get("experiments/get", experiment_id=made)["experiment"]
    assert found["artifact_location"] == kept.format(here=os.getcwd())
    info = server.post("runs/create", experiment_id=made, start_time=1)["run"]["info"]
    assert info["artifact_uri"] == run.format(here=os.getcwd(), run=info["run_id"])


def test_an_end_that_nobody_said_is_none_and_sorts_last(server: Server) -> None:
    here = server.post("experiments/create", name="ends")["experiment_id"]
    for name, end in (("early", 100), ("unsaid", None), ("late", 900)):
        run_id = server.new_run(experiment_id=here, run_name=name)
        said = {} if end is None else {"end_time": end}
        info = server.post("runs/update", run_id=run_id, status="FINISHED", **said)["run_info"]
        assert (info["status"], info.get("end_time")) == ("FINISHED", end)
    for order, wanted in (("ASC", ["early", "late", "unsaid"]), ("DESC", ["late", "early", "unsaid"])):
        found = server.post("runs/search", experiment_ids=[here], order_by=[f"attributes.end_time {order}"])
        assert [run["info"]["run_name"] for run in found["runs"]] == wanted


def test_the_tag_of_a_runs_name_can_go_while_the_name_stays(server: Server) -> None:
    run_id = server.new_run(run_name="named")
    server.post("runs/delete-tag", run_id=run_id, key="mlflow.runName")
    run = server.get("runs/get", run_id=run_id)["run"]
    assert run["info"]["run_name"] == "named" and "mlflow.runName" not in tags(run["data"])
    server.post("runs/update", run_id=run_id, run_name="again")
    assert tags(server.get("runs/get", run_id=run_id)["run"]["data"])["mlflow.runName"] == "again"


def test_a_tag_moves_a_run_in_its_family(server: Server) -> None:
    """Hyperparameter searches often say of a run whose child it is after it has begun."""
    one, other, child = (server.new_run(run_name=name) for name in ("one", "other", "child"))

    def parent() -> str | None:
        with open_store(server.store) as store:
            store.refresh(None)
            return store.run(child).parent_id

    for of in (one, other):
        server.post("runs/set-tag", run_id=child, key="mlflow.parentRunId", value=of)
        assert parent() == of
    server.post("runs/delete-tag", run_id=child, key="mlflow.parentRunId")
    assert parent() is None
    server.post("runs/log-batch", run_id=child, tags=[{"key": "mlflow.parentRunId", "value": one}])
    assert parent() == one


def test_the_contexts_of_a_data_set_are_kept_though_clients_see_the_first(server: Server) -> None:
    run_id = server.new_run()
    for context in ("train", "eval", "train"):
        data = {"name": "n", "digest": "d", "source_type": "local", "source": "s"}
        tag = {"key": "mlflow.data.context", "value": context}
        server.post("runs/log-inputs", run_id=run_id, datasets=[{"dataset": data, "tags": [tag]}])
    (shown,) = server.get("runs/get", run_id=run_id)["run"]["inputs"]["dataset_inputs"]
    assert tags(shown) == {"mlflow.data.context": "train"}
    with open_store(server.store) as store:
        store.refresh(None)
        assert sorted(entry["context"] for entry in store.run(run_id).inputs) == ["eval", "train"]


def test_data_sets_of_one_name_stand_in_one_order(server: Server) -> None:
    run_id = server.new_run()
    for digest, context in (("b", "train"), ("a", "train"), ("a", "eval")):
        data = {"name": "n", "digest": digest, "source_type": "local", "source": "s"}
        tag = {"key": "mlflow.data.context", "value": context}
        server.post("runs/log-inputs", run_id=run_id, datasets=[{"dataset": data, "tags": [tag]}])
    with open_store(server.store) as store:
        store.refresh(None)
        inputs = [(entry["digest"], entry["context"]) for entry in store.run(run_id).inputs]
    assert inputs == [("a", "eval"), ("a", "train"), ("b", "train")]
    shown = server.get("runs/get", run_id=run_id)["run"]["inputs"]["dataset_inputs"]
    assert [entry["dataset"]["digest"] for entry in shown] == ["a", "b"]


def test_a_file_of_a_run_in_the_trash_is_kept(server: Server) -> None:
    run_id = server.new_run()
    server.post("runs/delete", run_id=run_id)
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/late.txt"
    assert server.request("PUT", path, b"x").status == 200
    assert server.request("GET", path).body == b"x"
    assert server.call("POST", "runs/set-tag", run_id=run_id, key="k", value="v").status == 400
    server.post("runs/restore", run_id=run_id)
    assert [file["path"] for file in server.get("artifacts/list", run_id=run_id)["files"]] == ["late.txt"]


def test_the_history_of_models_is_written_as_mlflow_writes_it(server: Server) -> None:
    run_id = server.new_run()
    model = {"run_id": run_id, "artifact_path": "m", "utc_time_created": "now", "flavors": {"f": {}}}
    server.post("runs/log-model", run_id=run_id, model_json=json.dumps(model))
    run = server.get("runs/get", run_id=run_id)["run"]
    assert tags(run["data"])["mlflow.log-model.history"] == json.dumps([model])


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("a.txt", "text/plain", "attachment; filename=a.txt"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("conf.yaml", "text/plain", "attachment; filename=conf.yaml"),
        ("b.pkl", "application/octet-stream", "attachment; filename=b.pkl"),
        ("dog+step+20.png", "image/png", "attachment; filename=dog+step+20.png"),
        ('sp "a".txt', "text/plain", 'attachment; filename="sp \\"a\\".txt"'),
        ("ü.txt", "text/plain", "attachment; filename=u.txt; filename*=UTF-8''%C3%BC.txt"),
        ("日.bin", "application/octet-stream", "attachment; filename=.bin; filename*=UTF-8''%E6%97%A5.bin"),
    ],
)
def test_a_file_says_what_it_is_and_how_it_is_called(
    server: Server, name: str, kind: str, disposition: str
) -> None:
    from urllib.parse import quote

    run_id = server.new_run()
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/{quote(name)}"
    assert server.request("PUT", path, b"x").status == 200
    for place in (path, f"//get-artifact?run_uuid={run_id}&path={quote(name)}"):
        answer = server.request("GET", place)
        said = {header.lower(): value for header, value in answer.headers.items()}
        assert answer.body == b"x" and said["content-type"] == kind
        assert said["content-disposition"] == disposition and said["x-content-type-options"] == "nosniff"
    head = server.request("HEAD", path)
    assert (head.status, {name.lower(): value for name, value in head.headers.items()}["content-length"]) == (
        200,
        "1",
    )


def test_a_page_may_send_a_small_file_of_a_run_and_another_sites_may_not(server: Server) -> None:
    run_id = server.new_run()
    place = "/ajax-api/2.0/mlflow/upload-artifact"
    for query, body, problem in (
        ("", b"", "Request must specify run_uuid."),
        (f"?run_uuid={run_id}", b"", "Request must specify path."),
        (f"?run_uuid={run_id}&path=../t", b"x", "Invalid path"),
        (f"?run_uuid={run_id}&path=t.txt", b"", "Request must specify data."),
    ):
        answer = server.request("POST", place + query, body)
        assert (answer.status, answer.json["message"]) == (400, problem)
    whole = f"{place}?run_uuid={run_id}&path=a/t.txt"
    assert server.request("POST", whole, b"hello", {"Origin": "https://evil.example"}).status == 403
    assert server.request("POST", whole, b"hello").status == 200
    assert server.request("GET", f"/get-artifact?run_uuid={run_id}&path=a/t.txt").body == b"hello"
    assert server.request("POST", f"{place}?run_uuid=nobody&path=t", b"x").status == 404


def test_what_touches_a_model_and_what_does_not(server: Server) -> None:
    """MLflow's clients sort by these times."""
    server.post("registered-models/create", name="touched")

    def times() -> tuple[int, int]:
        model = server.get("registered-models/get", name="touched")["registered_model"]
        found = server.call("GET", "model-versions/get", name="touched", version="1")
        version = found.json["model_version"]["last_updated_timestamp"] if found.status == 200 else 0
        return model["last_updated_timestamp"], version

    one = {"name": "touched", "version": "1"}
    for method, path, fields, touched in (
        ("POST", "registered-models/set-tag", {"name": "touched", "key": "k", "value": "v"}, (False, False)),
        ("DELETE", "registered-models/delete-tag", {"name": "touched", "key": "k"}, (False, False)),
        ("PATCH", "registered-models/update", {"name": "touched", "description": "d"}, (True, False)),
        ("POST", "model-versions/create", {"name": "touched", "source": "s3://b/m"}, (True, True)),
        ("PATCH", "model-versions/update", {**one, "description": "d"}, (False, True)),
        ("POST", "model-versions/set-tag", {**one, "key": "k", "value": "v"}, (False, False)),
        ("POST", "registered-models/alias", {**one, "alias": "champion"}, (False, False)),
        ("POST", "model-versions/transition-stage", {**one, "stage": "Staging"}, (True, True)),
    ):
        before = times()
        until_next_ms()
        assert server.call(method, path, **fields).status == 200, path
        after = times()
        assert (after[0] > before[0], after[1] > before[1]) == touched, path


def until_next_ms() -> None:
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= now:
        pass


def test_logged_models_are_ordered_by_metrics_of_data_sets(server: Server) -> None:
    here = server.post("experiments/create", name="ordered models")["experiment_id"]
    run_id = server.new_run(experiment_id=here)
    logged = {
        "first": [("m", 0.1, 0, "one"), ("m", 1.0, 1, "two"), ("n", 0.2, 0, "one"), ("n", 1.0, 1, "one")],
        "second": [("m", 0.2, 0, "one"), ("m", 0.1, 1, "two"), ("n", 0.5, 0, "one"), ("only", 1.0, 0, "")],
    }
    for name, metrics in logged.items():
        model_id = server.post("logged-models", experiment_id=here, name=name)["model"]["info"]["model_id"]
        for key, value, at, data in metrics:
            of = {"dataset_name": data, "dataset_digest": "d"} if data else {}
            point = {"key": key, "value": value, "timestamp": at, "step": at, "model_id": model_id, **of}
            server.post("runs/log-metric", run_id=run_id, **point)

    def found(filter: str = "", datasets: Any = (), *order: Any) -> list[str]:
        fields = {"experiment_ids": [here], "filter": filter, "datasets": list(datasets)}
        answer = server.post("logged-models/search", **fields, order_by=list(order))
        return [model["info"]["name"] for model in answer.get("models", ())]

    def by(key: str, ascending: bool = True, of: str = "") -> Any:
        return {"field_name": f"metrics.{key}", "ascending": ascending, "dataset_name": of}

    assert found("", (), by("m")) == ["second", "first"]  # the newest value counts
    assert found("", (), by("m", of="one")) == ["first", "second"]
    assert found("", (), by("n", ascending=False)) == ["first", "second"]
    for ascending in (True, False):  # who has none comes last, both ways
        assert found("", (), by("only", ascending)) == ["second", "first"]
    assert found("", (), {"field_name": "name"}, by("m")) == ["first", "second"]
    assert found("metrics.m < 0.15") == ["second", "first"]  # one value that satisfies it is enough
    assert found("metrics.m > 0.15", [{"dataset_name": "two"}]) == ["first"]
    assert found("", [{"dataset_name": "nothing"}]) == []


def test_a_logged_model_says_which_versions_were_made_of_it(server: Server) -> None:
    made = server.post("logged-models", experiment_id="0", name="registered")["model"]["info"]
    server.post("registered-models/create", name="from a logged model")
    for _ in range(2):
        fields = {"source": made["artifact_uri"], "model_id": made["model_id"]}
        server.post("model-versions/create", name="from a logged model", **fields)
    info = server.get(f"logged-models/{made['model_id']}")["model"]["info"]
    wanted = [{"name": "from a logged model", "version": version} for version in (1, 2)]
    assert tags(info)["mlflow.modelVersions"] == json.dumps(wanted)
    path = f"/api/2.0/mlflow/logged-models/{made['model_id']}/params"
    for value, status in (("1", 200), ("1", 200), ("2", 400)):
        body = json.dumps({"params": [{"key": "p", "value": value}]}).encode()
        assert server.request("POST", path, body, JSON).status == status


@pytest.mark.parametrize(
    ("method", "path", "fields", "phrase"),
    [
        ("POST", "experiments/search", {"max_results": 0}, "It must be a positive integer"),
        ("POST", "experiments/search", {"max_results": 1_000_000}, "It must be at most 50000"),
        ("POST", "runs/search", {"filter": "attributes.lifecycle_stage = 'a'"}, "Invalid attribute key 'lifecycle_stage'"),
        ("GET", "registered-models/search", {"filter": "name LIKE"}, "Invalid clause(s) in filter string"),
        ("GET", "registered-models/search", {"filter": "name != x"}, "either not quoted or unidentified quote types"),
        ("GET", "registered-models/search", {"order_by": ["run_id"]}, "Invalid order by key 'run_id' specified"),
        ("GET", "registered-models/search", {"order_by": ["name DESC x"]}, "Invalid order_by clause 'name DESC x'"),
        ("GET", "model-versions/search", {"order_by": ["run_id"]}, "Invalid attribute key 'run_id' specified"),
        ("GET", "model-versions/search", {"filter": "run_id IN ()"}, "but got empty list"),
        ("GET", "model-versions/search", {"filter": "run_id IN (1)"}, "but got different type in list"),
        ("GET", "model-versions/search", {"filter": "run_id IN ('a',,'b')"}, "but got ill-formed list"),
        ("POST", "logged-models/search", {"experiment_ids": [], "order_by": [{"field_name": "x"}]}, "Invalid order by field name: x"),
    ],
)  # fmt: skip
def test_errors_name_what_mlflows_name(
    server: Server, method: str, path: str, fields: Any, phrase: str
) -> None:
    """Tests and users of MLflow look for these words."""
    answer = server.call(method, path, **fields)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert phrase in answer.json["message"]
