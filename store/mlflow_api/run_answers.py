"""Runs as MLflow's clients know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from mltrack.store.mlflow_api.api import Answer, Api, artifact_uri
from mltrack.store.mlflow_api.wire import filled, missing, number_out
from mltrack.store.records import Run

NAME_TAG, USER_TAG, PARENT_TAG = "mlflow.runName", "mlflow.user", "mlflow.parentRunId"
NOTE_TAG, COMMIT_TAG = "mlflow.note.content", "mlflow.source.git.commit"
# A run whose process is proven gone has failed, as far as MLflow's five states go.
STATUS = {"LOST": "FAILED"}


def shown(api: Api, run_ids: Sequence[str]) -> list[Answer]:
    """These runs, in this order, with all that runs/get tells."""
    experiments = api.experiments()
    numbers = _experiment_numbers(api, run_ids)
    links = _links(api, run_ids)
    return [
        _answer(run, artifact_uri(experiments[numbers[run.run_id]], run.run_id), numbers[run.run_id], links)
        for run in api.store.runs(run_ids)
    ]


def one(api: Api, run_id: str) -> Answer:
    """One run."""
    found = shown(api, [run_id])
    if not found:
        raise missing(f"Run with id={run_id[:80]} not found")
    return found[0]


def tags_shown(run: Run) -> dict[str, str]:
    """A run's tags with those in which MLflow keeps what we keep elsewhere."""
    tags = dict(run.tags)
    # Clients of the REST protocol say their name and user twice, or mean them to be no tag.
    if run.host or NAME_TAG in tags or run.source:
        tags[NAME_TAG] = run.name
    if run.user and run.host:
        tags.setdefault(USER_TAG, run.user)
    if run.parent_id:
        tags[PARENT_TAG] = run.parent_id
    if run.note:
        tags[NOTE_TAG] = run.note
    commit = (run.facts.get("git") or {}).get("commit")
    if isinstance(commit, str):
        tags.setdefault(COMMIT_TAG, commit)
    if isinstance(run.facts.get("script"), str):
        tags.setdefault("mlflow.source.name", run.facts["script"])
    return tags


def info(run: Run, uri: str, experiment: int) -> Answer:
    """The `info` of a run."""
    return filled(
        run_id=run.run_id,
        run_uuid=run.run_id,
        run_name=run.name,
        experiment_id=str(experiment),
        user_id=run.user,
        status=STATUS.get(run.status, run.status),
        start_time=run.start_ms or 0,
        end_time=run.end_ms,
        artifact_uri=uri,
        lifecycle_stage="active" if run.lifecycle == "active" else "deleted",
    )


def _answer(run: Run, uri: str, experiment: int, links: dict[str, dict[str, list[Answer]]]) -> Answer:
    metrics = [
        {
            "key": key,
            "value": number_out(summary.last),
            "timestamp": summary.last_time_ms,
            "step": summary.last_step,
        }
        for key, summary in sorted(run.metrics.items())
    ]
    data = filled(
        metrics=metrics,
        params=[{"key": key, "value": value} for key, value in sorted(run.params.items())],
        tags=[{"key": key, "value": value} for key, value in sorted(tags_shown(run).items())],
    )
    ways = links.get(run.run_id, {})
    inputs = filled(dataset_inputs=_datasets(run), model_inputs=ways.get("input", []))
    return {
        "info": info(run, uri, experiment),
        "data": data,
        "inputs": inputs,
        "outputs": filled(model_outputs=ways.get("output", [])),
    }


def _datasets(run: Run) -> list[Answer]:
    details = [orjson.loads(entry["detail"]) if entry.get("detail") else {} for entry in run.inputs]
    return [
        _dataset(entry, detail)
        for entry, detail in zip(run.inputs, details, strict=True)
        if not detail.get("again")
    ]


def _dataset(entry: dict[str, Any], detail: dict[str, Any]) -> Answer:
    tags = dict(detail.get("tags") or {})
    if entry.get("context"):
        tags.setdefault("mlflow.data.context", str(entry["context"]))
    return filled(
        tags=[{"key": key, "value": value} for key, value in tags.items()],
        dataset=filled(
            name=entry["name"],
            digest=entry["digest"],
            source_type=detail.get("source_type", "local"),
            source=entry.get("source") or "",
            schema=detail.get("schema"),
            profile=detail.get("profile"),
        ),
    )


def _experiment_numbers(api: Api, run_ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(run_ids), 500):
        part = list(run_ids[start : start + 500])
        marks = ", ".join("?" * len(part))
        found.update(
            (str(run_id), int(experiment))
            for run_id, experiment in api.database.execute(
                f"SELECT run_id, experiment_id FROM run WHERE run_id IN ({marks})", part
            )
        )
    return found


def _links(api: Api, run_ids: Sequence[str]) -> dict[str, dict[str, list[Answer]]]:
    found: dict[str, dict[str, list[Answer]]] = {}
    if not api.database.execute("SELECT 1 FROM model_link LIMIT 1"):
        return found
    for start in range(0, len(run_ids), 500):
        part = list(run_ids[start : start + 500])
        marks = ", ".join("?" * len(part))
        for run_id, model, way, step in api.database.execute(
            "SELECT r.run_id, l.model_id, l.way, l.step FROM model_link l JOIN run r ON r.id = l.run"
            f" WHERE r.run_id IN ({marks}) ORDER BY l.model_id",
            part,
        ):
            entry: Answer = {"model_id": model}
            if way == "output":
                entry["step"] = int(step)
            found.setdefault(str(run_id), {}).setdefault(str(way), []).append(entry)
    return found
