"""What MLflow knows of a run, as records of ours: the same whether a folder or a database says it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mltrack.store.sources.base import RUN_ID, read_small, stable_id, why
from mltrack.store.sources.yaml_text import load_mapping

FIELD_TAGS = (
    "mlflow.runName",
    "mlflow.user",
    "mlflow.parentRunId",
    "mlflow.note.content",
    "mlflow.source.name",
    "mlflow.source.git.commit",
    "mlflow.source.git.branch",
    "mlflow.source.git.repoURL",
)
"""Tags that stand for fields of ours. They stay tags too."""


def mlflow_run_id(name: str) -> str:
    """Our id of an MLflow run: the same, unless it is not 32 hex digits (MLflow allows other letters)."""
    return name if RUN_ID.fullmatch(name) else stable_id("mlflow", name)


def milliseconds(value: object) -> int | None:
    """A time that fits our columns, or None."""
    return value if type(value) is int and abs(value) < 1 << 62 else None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The fields of a run besides its params, tags and metrics."""

    start_ms: int
    end_ms: int | None
    name: str
    user: str
    status: str
    experiment: str
    deleted: bool
    artifacts: str
    tags: Mapping[str, str]  # of FIELD_TAGS

    def records(self, gone: Collection[str] = ()) -> list[dict[str, Any]]:
        """Everything but params, tags and inputs. ``gone``: tags that it had before."""
        at, tags = self.start_ms, self.tags
        begin: dict[str, Any] = {
            "op": "start",
            "t": at,
            "experiment": self.experiment,
            "name": tags.get("mlflow.runName") or self.name,
            "user": tags.get("mlflow.user") or self.user,
        }
        if tags.get("mlflow.parentRunId"):
            begin["parent"] = mlflow_run_id(tags["mlflow.parentRunId"])
        elif "mlflow.parentRunId" in gone:
            begin["parent"] = ""
        if tags.get("mlflow.source.name"):
            begin["script"] = tags["mlflow.source.name"]
        records = [begin, {"op": "experiment", "t": at, "v": self.experiment}]
        if tags.get("mlflow.source.git.commit"):
            git = {"commit": tags["mlflow.source.git.commit"]}
            for field_name, key in (("branch", "branch"), ("remote", "repoURL")):
                if tags.get(f"mlflow.source.git.{key}"):
                    git[field_name] = tags[f"mlflow.source.git.{key}"]
            records.append({"op": "facts", "t": at, "v": {"git": git}})
        if "mlflow.note.content" in tags or "mlflow.note.content" in gone:
            records.append({"op": "note", "t": at, "v": tags.get("mlflow.note.content", "")})
        records.append({"op": "status", "t": at, "v": self.status, "end": self.end_ms})
        records.append({"op": "lifecycle", "t": at, "v": "trash" if self.deleted else "active"})
        records.append({"op": "artifacts", "t": at, "v": self.artifacts})
        return records


def dataset_inputs(
    paths: Iterable[str], experiment: str, at: int, problems: list[str]
) -> list[dict[str, Any]]:
    """Records of the datasets that a run's ``inputs/<id>/meta.yaml`` name; their own files lie with the experiment."""
    records: list[dict[str, Any]] = []
    for path in paths:
        try:
            said = load_mapping(read_small(path))
            if said.get("source_type") != "DATASET":
                continue
            number = os.path.basename(str(said["source_id"]))
            data = load_mapping(read_small(os.path.join(experiment, "datasets", number, "meta.yaml")))
            tags = said.get("tags") if isinstance(said.get("tags"), dict) else {}
            records.append(
                {
                    "op": "input",
                    "t": at,
                    "name": str(data["name"]),
                    "digest": str(data.get("digest") or ""),
                    "context": str((tags or {}).get("mlflow.data.context", "")),
                    "source": str(data.get("source") or ""),
                    "digest_kind": "mlflow",
                }
            )
        except (OSError, ValueError, KeyError) as error:
            reason = why(error) if isinstance(error, OSError) else str(error)
            problems.append(f"inputs/{os.path.basename(os.path.dirname(path))}: {reason}")
    return records
