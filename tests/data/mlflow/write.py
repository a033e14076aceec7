"""Run by an environment with MLflow in it: write.py URI. Logs one of everything that mltrack takes in, as MLflow's own client does."""

import os
import sys

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.tracking import MlflowClient

mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
experiment = client.create_experiment("vision", tags={"mlflow.note.content": "cats and dogs", "team": "a"})
parent = client.create_run(
    experiment, run_name="parent", start_time=1_700_000_000_000, tags={"mlflow.user": "ann"}
)
run_id = parent.info.run_id
params = {
    "lr": "0.1",
    "net/depth": "3",
    "lines": "a\nb",
    "empty": "",
    "spaces": "  x  ",
    "é漢": "🦉",
    "long": "x" * 5000,
}
client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
points = [Metric("train/loss", 1 / (step + 1), 1_700_000_000_000 + step * 7, step) for step in range(2500)]
for start in range(0, len(points), 500):
    client.log_batch(run_id, metrics=points[start : start + 500])
odd = [
    float("nan"),
    float("inf"),
    float("-inf"),
    5e-324,
    -0.0,
    1.7976931348623157e308,
    0.1 + 0.2,
    1e-7,
    123456789012345678.0,
]
client.log_batch(run_id, metrics=[Metric("odd values", value, 5, step) for step, value in enumerate(odd)])
order = [(3, 1), (1, 2), (2, 2), (3, 2), (-4, 9), (2**62, 1), (1, 3)]  # as they come, not in order of steps
client.log_batch(
    run_id, metrics=[Metric("order", float(place), time, step) for place, (step, time) in enumerate(order)]
)
client.log_metric(run_id, "same", 1.0, 10, 1)
client.log_metric(run_id, "same", 2.0, 10, 1)
for key, value in {
    "mlflow.note.content": "first\nsecond",
    "a/b": "1\n2",
    "gone": "x",
    "changed": "old",
    "empty": "",
}.items():
    client.set_tag(run_id, key, value)
client.set_tag(run_id, "changed", "new")
client.delete_tag(run_id, "gone")
client.set_tag(run_id, "mlflow.source.git.commit", "0123456789abcdef0123456789abcdef01234567")
data = Dataset(name="tiny", digest="2981c147", source_type="local", source='{"uri": "data.csv"}')
client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
client.log_text(run_id, "hello", "notes/a.txt")
client.log_text(run_id, "{}", "top.json")
client.set_terminated(run_id, "FINISHED", 1_700_000_100_000)

child = client.create_run(experiment, tags={"mlflow.parentRunId": run_id, "mlflow.runName": "child"})
client.log_metric(child.info.run_id, "x", -3.5, 7, -3)
client.set_terminated(child.info.run_id, "FAILED")
killed = client.create_run(experiment, run_name="killed")
client.set_terminated(killed.info.run_id, "KILLED")
running = client.create_run("0", run_name="running", start_time=1_600_000_000_000)
client.log_metric(running.info.run_id, "m", 1.0, 1_600_000_000_001, 0)
scheduled = client.create_run("0", run_name="scheduled")
client.update_run(scheduled.info.run_id, status="SCHEDULED")
deleted = client.create_run(experiment, run_name="deleted")
client.set_terminated(deleted.info.run_id)
client.delete_run(deleted.info.run_id)
old = client.create_experiment("old")
client.set_terminated(client.create_run(old, run_name="in a deleted experiment").info.run_id)
client.delete_experiment(old)

client.create_registered_model("churn", tags={"owner": "ann"}, description="who leaves")
for number in range(3):
    client.create_model_version(
        "churn",
        f"{parent.info.artifact_uri}/notes",
        run_id,
        tags={"n": str(number)},
        description=f"try {number + 1}",
    )
client.transition_model_version_stage("churn", "2", "Production")
client.set_model_version_tag("churn", "3", "checked/by", "ann")
client.update_registered_model("churn", "who leaves, and when")
client.set_registered_model_alias("churn", "champion", "3")
client.set_registered_model_alias("churn", "old", "2")
client.set_registered_model_alias("churn", "gone", "2")
client.delete_registered_model_alias("churn", "gone")
client.delete_model_version("churn", "1")
client.create_registered_model("empty")
if mlflow.__version__.startswith("3"):
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    model = client.create_logged_model(
        experiment,
        "net",
        run_id,
        tags={"a/b": "x"},
        params={"lr": "0.1", "net/depth": "3"},
        model_type="classifier",
    )
    client.finalize_logged_model(model.model_id, "READY")
    client.set_logged_model_tags(model.model_id, {"team": "b", "é": "🦉"})
    for step, value in enumerate((0.5, 0.1 + 0.2, 5e-324, -1e300)):
        client.log_metric(run_id, "acc", value, 7, step, model_id=model.model_id)
    client.log_metric(
        run_id,
        "auc",
        0.9,
        8,
        0,
        dataset_name="tiny",
        dataset_digest="2981c147",
        model_id=model.model_id,
    )
    client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=3)])
    client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
    client.create_logged_model(experiment, "pending")
    gone = client.create_logged_model(experiment, "gone")
    client.delete_logged_model(gone.model_id)
    client.create_model_version("empty", f"models:/{model.model_id}", model_id=model.model_id)
