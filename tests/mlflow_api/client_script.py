"""Runs inside MLflow's environment: a day of a client against the server at argv[1]. Prints what it read back, as JSON without
what differs from server to server (ids, times, names made up)."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow  # noqa: E402  # pyright: ignore[reportMissingImports]
from mlflow import MlflowClient  # noqa: E402  # pyright: ignore[reportMissingImports]
from mlflow.entities import Metric, Param, RunTag, ViewType  # noqa: E402  # pyright: ignore[reportMissingImports]

mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
said: dict[str, Any] = {}


def plain(value: Any) -> Any:
    """What can be compared: NaN as text, ids and times as marks."""
    if isinstance(value, float):
        return str(value)
    if isinstance(value, dict):
        return {plain(str(key)): plain(inner) for key, inner in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(
            r"m-[0-9a-f]{32}", "MODEL", re.sub(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", "RUN", value)
        )
    return value


def refused(work: Callable[[], Any]) -> str:
    try:
        work()
    except mlflow.exceptions.MlflowException as error:
        return str(error.error_code)
    return "accepted"


def run_of(run_id: str) -> dict[str, Any]:
    run = client.get_run(run_id)
    tags = {
        key: value for key, value in run.data.tags.items() if key not in ("mlflow.source.name", "mlflow.user")
    }
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "stage": run.info.lifecycle_stage,
        "ended": run.info.end_time is not None,
        "metrics": run.data.metrics,
        "params": run.data.params,
        "tags": tags,
        "artifacts": re.sub(r".*/(?=[0-9a-f]{32})", "", run.info.artifact_uri),
    }


# -- fluent logging

mlflow.set_experiment("vision/cifar")
with mlflow.start_run(run_name="first", tags={"given": "1"}, description="what for") as run:
    mlflow.log_param("lr", 1e-3)
    mlflow.log_params({"a": 1, "b": "x y", "c": None})
    for step in (3, 1, 2):
        mlflow.log_metric("loss", 1 / step, step=step)
    mlflow.log_metrics({"m": 1.5, "nan": float("nan")}, step=7)
    mlflow.set_tags({"k": "v", "ünï": "cödé"})
    mlflow.log_text("hello wörld", "sub dir/ü.txt")
    mlflow.log_dict({"a": [1]}, "d.json")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5):
            (Path(folder) / f"f{number}").write_text("x" * (number + 1))
        mlflow.log_artifacts(folder, "many")
    with mlflow.start_run(nested=True, run_name="child") as child:
        mlflow.log_metric("loss", 0.5)
first = run.info.run_id
said["run"] = run_of(first)
said["child"] = client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == first
said["history"] = [(point.step, point.value) for point in client.get_metric_history(first, "loss")]
said["listed"] = [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(first)]
said["listed below"] = [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(first, "many")]
said["text"] = mlflow.artifacts.load_text(f"runs:/{first}/sub dir/ü.txt")
with tempfile.TemporaryDirectory() as folder:
    got = Path(client.download_artifacts(first, "", folder))
    said["downloaded"] = sorted(str(path.relative_to(got)) for path in got.rglob("*") if path.is_file())

# -- the client's calls

client.log_batch(first, [Metric("big", 2.0**60, 5, 2**40)], [Param("p", "1")], [RunTag("t", "1")])
client.set_tag(first, "mlflow.note.content", "a note")
client.delete_tag(first, "k")
client.update_run(first, name="renamed")
client.set_terminated(first, "FAILED")
said["changed"] = run_of(first)
with mlflow.start_run(run_id=first):
    mlflow.log_metric("loss", 9, step=0)
    said["resumed"] = client.get_run(first).info.status
said["resumed to"] = run_of(first)["metrics"]
client.delete_run(first)
said["deleted"] = run_of(first)["stage"]
said["write to deleted"] = refused(lambda: client.log_metric(first, "x", 1))
client.restore_run(first)
said["param changed"] = refused(lambda: client.log_param(first, "lr", 7))
said["param again"] = refused(lambda: client.log_param(first, "p", "1"))
said["no run"] = refused(lambda: client.get_run("0" * 32))
said["no tag"] = refused(lambda: client.delete_tag(first, "nothing"))
said["bad filter"] = refused(lambda: client.search_runs(["1"], "metrics.a ? 3"))
said["bad key"] = refused(lambda: client.log_metric(first, "a//b", 1))

# -- experiments and search

here = client.get_experiment_by_name("vision/cifar").experiment_id
for number in range(6):
    made = client.create_run(here, run_name=f"s{number}", start_time=1000 + number)
    client.log_metric(made.info.run_id, "acc", float("nan") if number == 4 else number / 10)
    client.log_param(made.info.run_id, "opt", ["adam", "Adamw", "sgd"][number % 3])
    if number % 2:
        client.set_tag(made.info.run_id, "odd", "yes")
for text, order in (
    ("metrics.acc > 0.1", ["metrics.acc DESC"]),
    ("metrics.acc != 0.2", ["metrics.acc ASC"]),
    ("params.opt LIKE 'ada%'", ["params.opt", "attributes.start_time DESC"]),
    ("params.opt ILIKE 'ada%' AND tags.odd = 'yes'", []),
    ("tags.odd != 'no'", []),
    ("attributes.run_name IN ('s1')", []),
    ("attributes.run_name LIKE 's%'", ["metrics.acc DESC", "tags.odd"]),
    ("start_time >= 1002 and start_time < 1005", ["start_time"]),
    ("params.opt IS NOT NULL AND tags.odd IS NULL", ["run_name DESC"]),
    ("status = 'RUNNING'", []),
):
    try:
        found = client.search_runs([here], text, order_by=order)
        said[f"search {text}"] = [each.info.run_name for each in found]
    except mlflow.exceptions.MlflowException as error:
        said[f"search {text}"] = error.error_code
pages, token = [], None
while True:
    page = client.search_runs([here], "attributes.run_name LIKE 's%'", max_results=4, page_token=token)
    pages.append([each.info.run_name for each in page])
    token = page.token
    if not token:
        break
said["pages"] = pages
other = client.create_experiment("other", tags={"a": "b"})
client.set_experiment_tag(other, "c", "d")
client.rename_experiment(other, "renamed")
said["experiment"] = (client.get_experiment(other).name, client.get_experiment(other).tags)
client.delete_experiment(other)
said["experiment deleted"] = client.get_experiment(other).lifecycle_stage
said["experiments"] = sorted(each.name for each in client.search_experiments())
said["all experiments"] = sorted(each.name for each in client.search_experiments(view_type=ViewType.ALL))
said["named"] = [each.name for each in client.search_experiments(filter_string="name LIKE 'vis%'")]
client.restore_experiment(other)
said["experiment again"] = refused(lambda: client.create_experiment("renamed"))

# -- the registry

client.create_registered_model("clf", {"k": "v"}, "a classifier")
said["model again"] = refused(lambda: client.create_registered_model("clf"))
for _ in range(3):
    client.create_model_version("clf", f"runs:/{first}/many", first, tags={"t": "1"})
client.transition_model_version_stage("clf", "1", "Production")
client.transition_model_version_stage("clf", "2", "Production", archive_existing_versions=True)
client.transition_model_version_stage("clf", "3", "Staging")
client.set_registered_model_alias("clf", "champion", "2")
client.set_model_version_tag("clf", "3", "u", "2")
client.delete_model_version_tag("clf", "3", "t")
client.update_model_version("clf", "3", "third")
client.delete_model_version("clf", "1")


def version_of(version: Any) -> dict[str, Any]:
    return {
        "version": str(version.version),
        "stage": version.current_stage,
        "description": version.description or "",
        "tags": version.tags,
        "aliases": list(version.aliases),
        "run": version.run_id,
        "source": version.source,
        "status": version.status,
    }


by_number = sorted(client.search_model_versions("name = 'clf'"), key=lambda each: int(each.version))
# MLflow leaves aliases out of what a search finds.
said["versions"] = [{**version_of(each), "aliases": []} for each in by_number]
said["latest"] = [version_of(each) for each in client.get_latest_versions("clf", ["Production", "Staging"])]
said["by alias"] = version_of(client.get_model_version_by_alias("clf", "champion"))
said["no alias"] = refused(lambda: client.get_model_version_by_alias("clf", "none"))
said["bad stage"] = refused(lambda: client.transition_model_version_stage("clf", "2", "Live"))
said["bad alias"] = refused(lambda: client.set_registered_model_alias("clf", "latest", "2"))
said["no version"] = refused(lambda: client.get_model_version("clf", "9"))
said["uri"] = client.get_model_version_download_uri("clf", "2").rpartition("/")[2]
client.rename_registered_model("clf", "clf2")
client.update_registered_model("clf2", "better")
client.set_registered_model_tag("clf2", "x", "y")
client.delete_registered_model_tag("clf2", "k")
model = client.get_registered_model("clf2")
said["model"] = (model.name, model.description, model.tags, model.aliases)
said["models"] = [each.name for each in client.search_registered_models("name LIKE 'clf%'")]
fourth = client.create_model_version("clf2", f"runs:/{first}/many", first)
said["fourth"] = str(fourth.version)

# -- packaged models

if len(sys.argv) > 2 and sys.argv[2] == "models":
    import numpy as np  # pyright: ignore[reportMissingImports]
    from sklearn.linear_model import LogisticRegression  # pyright: ignore[reportMissingImports]

    features = np.random.RandomState(0).rand(60, 3)
    labels = (features[:, 0] > 0.5).astype(int)
    mlflow.set_experiment("sklearn")
    mlflow.sklearn.autolog(log_models=False)
    with mlflow.start_run() as trained:
        classifier = LogisticRegression().fit(features, labels)
    mlflow.sklearn.autolog(disable=True)
    said["autolog"] = run_of(trained.info.run_id)["params"]
    inputs = client.get_run(trained.info.run_id).inputs.dataset_inputs
    said["inputs"] = [
        (each.dataset.name, each.dataset.digest, [(t.key, t.value) for t in each.tags]) for each in inputs
    ]
    with mlflow.start_run() as logged:
        info = mlflow.sklearn.log_model(
            classifier, name="model", registered_model_name="skl", input_example=features[:2]
        )
    said["model files"] = sorted(each.path for each in client.list_artifacts(logged.info.run_id, "model"))
    client.set_registered_model_alias("skl", "best", "1")
    client.transition_model_version_stage("skl", "1", "Production")
    expected = classifier.predict(features)
    for uri in (
        f"runs:/{logged.info.run_id}/model",
        "models:/skl/1",
        "models:/skl/Production",
        "models:/skl@best",
        info.model_uri,
    ):
        loaded = mlflow.pyfunc.load_model(uri).predict(features)
        said[f"predictions {uri}"] = bool((loaded == expected).all())
    (found_model,) = mlflow.search_logged_models(filter_string="name = 'model'", output_format="list")
    said["logged model"] = (
        found_model.name,
        str(found_model.status),
        found_model.source_run_id == logged.info.run_id,
    )

print(json.dumps(plain(said)))
