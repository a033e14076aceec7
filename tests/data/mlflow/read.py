"""Run by an environment with MLflow in it: read.py URI. Prints as JSON what MLflow's own client reads back; floats as hex."""

import json
import os
import sys

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()


def files(run_id, path=None):
    for entry in client.list_artifacts(run_id, path):
        if entry.is_dir:
            yield from files(run_id, entry.path)
        else:
            yield entry.path


experiments = {each.experiment_id: each for each in client.search_experiments(ViewType.ALL)}
runs = {}
for run in client.search_runs(list(experiments), run_view_type=ViewType.ALL, max_results=50000):
    info = run.info
    experiment = experiments[info.experiment_id]
    runs[info.run_id] = {
        "name": info.run_name,
        "experiment": experiment.name,
        "status": info.status,
        "start": info.start_time,
        "end": info.end_time,
        "active": info.lifecycle_stage == "active",
        "params": run.data.params,
        "tags": run.data.tags,
        "last": {key: value.hex() for key, value in run.data.metrics.items()},
        "points": {
            key: [[p.step, p.timestamp, p.value.hex()] for p in client.get_metric_history(info.run_id, key)]
            for key in run.data.metrics
        },
        "inputs": [
            [
                each.dataset.name,
                each.dataset.digest,
                {tag.key: tag.value for tag in each.tags}.get("mlflow.data.context"),
            ]
            for each in run.inputs.dataset_inputs
        ],
        "artifacts": sorted(files(info.run_id)),
    }
models = {}
for model in client.search_registered_models():
    versions = {}
    for version in client.search_model_versions(f"name = '{model.name}'"):
        version = client.get_model_version(model.name, version.version)
        versions[str(version.version)] = {
            "stage": version.current_stage,
            "source": version.source,
            "run_id": version.run_id,
            "description": version.description,
            "tags": version.tags,
            "aliases": sorted(version.aliases),
            "created": version.creation_timestamp,
        }
    models[model.name] = {"description": model.description, "tags": model.tags, "versions": versions}
tags = {each.name: each.tags for each in experiments.values() if each.lifecycle_stage == "active"}
logged, links = {}, []
if mlflow.__version__.startswith("3"):
    for each in client.search_logged_models(
        [key for key, each in experiments.items() if each.lifecycle_stage == "active"]
    ):
        model = client.get_logged_model(each.model_id)
        logged[model.model_id] = {
            "name": model.name,
            "experiment": experiments[model.experiment_id].name,
            "run": model.source_run_id or "",
            "status": f"LOGGED_MODEL_{model.status.value if hasattr(model.status, 'value') else model.status}",
            "type": model.model_type or "",
            "created": model.creation_timestamp,
            "updated": model.last_updated_timestamp,
            "params": model.params,
            "tags": model.tags,
            "metrics": sorted(
                [
                    m.run_id,
                    m.key,
                    m.step,
                    m.timestamp,
                    m.value.hex(),
                    m.dataset_name or "",
                    m.dataset_digest or "",
                ]
                for m in model.metrics or []
            ),
        }
    for run_id in runs:
        run = client.get_run(run_id)
        links += [[run_id, each.model_id, "input", 0] for each in run.inputs.model_inputs]
        links += [
            [run_id, each.model_id, "output", each.step]
            for each in (run.outputs.model_outputs if run.outputs else [])
        ]
found = {"runs": runs, "models": models, "experiments": tags, "logged": logged, "links": sorted(links)}
json.dump(found, sys.stdout)
