"""Logged models of MLflow 3: things beside runs, each with params, tags, and metrics that runs logged of it.

In a folder, ``<experiment>/models/m-<id>/`` with meta.yaml, params/, tags/ and metrics/ (lines ``time value step run [dataset digest]``);
in a database, the tables ``logged_models`` and ``logged_model_*``. What a run read or made stands with the run (``inputs``, ``outputs``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mltrack.store.sources.base import Found, LoggedModel, Piece, read_small, why
from mltrack.store.sources.mlflow_run import milliseconds, mlflow_run_id
from mltrack.store.sources.sql import Tables
from mltrack.store.sources.yaml_text import load_mapping

_STATUSES = {
    0: "LOGGED_MODEL_PENDING",
    1: "LOGGED_MODEL_PENDING",
    2: "LOGGED_MODEL_READY",
    3: "LOGGED_MODEL_UPLOAD_FAILED",
}
_WAYS = {"MODEL_INPUT": "input", "RUN_INPUT": "input", "MODEL": "input", "RUN_OUTPUT": "output"}
# Lines of one metric file that are read; models have a few.
_METRIC_BYTES = 1 << 20
_DEPTH = 8
_PLACE = "model:"


@dataclass(frozen=True, slots=True)
class ModelAbout:
    """Where a logged model was found: its folder, or "" for a database, whose row ``row`` is."""

    experiment: str
    folder: str
    row: Mapping[str, Any]


def folder_models(
    root: str, experiments: Iterable[tuple[str, str]], known: Mapping[str, str]
) -> Iterator[Found | None]:
    """Logged models that have changed; ``experiments`` as (folder, name)."""
    for folder, name in experiments:
        try:
            with os.scandir(os.path.join(folder, "models")) as entries:
                models = [entry.path for entry in entries if entry.name.startswith("m-") and entry.is_dir()]
        except OSError:
            continue  # none was logged here
        for number, path in enumerate(models):
            place = os.path.relpath(path, root)
            stamp = _stamp(path, name)
            if stamp and known.get(place) != stamp:
                yield Found(place, stamp, False, ModelAbout(name, path, {}), run=False)
            elif number % 256 == 255:
                yield None
        yield None


def table_models(
    tables: Tables, experiments: Mapping[int, tuple[str, bool]], known: Mapping[str, str]
) -> Iterator[Found | None]:
    """Logged models of a database that have changed."""
    if not tables.columns("logged_models"):
        return
    marks: dict[str, int] = {}
    for row in tables.rows("logged_model_tags", ("model_id", "tag_key", "tag_value")):
        text = f"{row['tag_key']}\0{row['tag_value']}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest())
        marks[str(row["model_id"])] = marks.get(str(row["model_id"]), 0) + number
    for table in ("logged_model_metrics", "logged_model_params"):
        if tables.columns(table):
            for model, count in tables.query(f"SELECT model_id, count(*) FROM {table} GROUP BY model_id", ()):
                marks[str(model)] = marks.get(str(model), 0) * 31 + int(count)
    yield None
    for row in tables.rows("logged_models", _COLUMNS):
        name, deleted = experiments.get(int(row["experiment_id"]), (str(row["experiment_id"]), False))
        if deleted:
            continue
        place = f"{_PLACE}{row['model_id']}"
        stamp = _digest(repr((list(row.values()), name, marks.get(str(row["model_id"])))))
        if known.get(place) != stamp:
            yield Found(place, stamp, False, ModelAbout(name, "", row), run=False)


def read_folder_model(root: str, found: Found) -> Iterator[Piece]:
    """The one piece of a model's folder; a damaged one says what is wrong."""
    about: ModelAbout = found.about
    problems: list[str] = []
    said: dict[str, Any] = {}
    try:
        said = load_mapping(read_small(os.path.join(about.folder, "meta.yaml")))
    except (OSError, ValueError) as error:
        problems.append(f"meta.yaml: {_reason(error)}")
    texts = {part: _texts(about.folder, part, problems) for part in ("params", "tags", "metrics")}
    metrics = [row for key, text in texts["metrics"].items() for row in _lines(key, text, problems)]
    damage = f"{found.place}: {'; '.join(problems[:3])}" if problems else None
    if not said:
        yield Piece("", "", damage=damage)
        return
    where = os.path.relpath(os.path.join(about.folder, "artifacts"), root)
    names = {key: said.get(key) for key in _COLUMNS} | {
        "creation_timestamp_ms": said.get("creation_timestamp"),
        "last_updated_timestamp_ms": said.get("last_updated_timestamp"),
        "model_id": said.get("model_id") or os.path.basename(about.folder),
    }
    yield Piece(
        "", "", damage=damage, model=_model(names, about, where, texts["params"], texts["tags"], metrics)
    )


def read_table_model(tables: Tables, found: Found) -> Iterator[Piece]:
    """The one piece of a model's rows."""
    about: ModelAbout = found.about
    model = str(about.row["model_id"])

    def pairs(table: str, name: str) -> dict[str, str]:
        columns = (f"{name}_key", f"{name}_value")
        rows = tables.rows(table, columns, "WHERE model_id = ?", (model,))
        return {str(row[columns[0]]): str(row[columns[1]] or "") for row in rows}

    metrics = [
        (
            mlflow_run_id(str(row["run_id"])),
            str(row["metric_name"]),
            int(row["metric_step"]),
            int(row["metric_timestamp_ms"]),
            float(row["metric_value"]),
            str(row["dataset_name"] or ""),
            str(row["dataset_digest"] or ""),
        )
        for row in tables.rows("logged_model_metrics", _METRIC_COLUMNS, "WHERE model_id = ?", (model,))
    ]
    params, tags = pairs("logged_model_params", "param"), pairs("logged_model_tags", "tag")
    where = str(about.row["artifact_location"] or "")
    yield Piece("", "", model=_model(about.row, about, where, params, tags, metrics))


def folder_links(
    files: Mapping[str, Mapping[str, Any]], before: str, at: int
) -> tuple[str, list[dict[str, Any]]]:
    """(mark, records) of what a run's ``inputs`` and ``outputs`` say of models; no records where the mark is as before.

    ``files``: kind -> path below it -> file with a ``path`` and ``mtime_ns``.
    """
    found = [
        (key, file)
        for kind in ("inputs", "outputs")
        for key, file in sorted(files.get(kind, {}).items())
        if key.endswith("/meta.yaml")
    ]
    mark = _digest(repr([(key, file.mtime_ns) for key, file in found])) if found else ""
    if mark == before:
        return mark, []
    records: list[dict[str, Any]] = []
    for _, file in found:
        try:
            said = load_mapping(read_small(file.path))
        except (OSError, ValueError):
            continue  # said where datasets are read
        way = _WAYS.get(str(said.get("source_type")))
        model = str(said.get("destination_id") if way == "output" else said.get("source_id"))
        if way is not None and model.startswith("m-"):
            records.append(_link(at, model, way, said.get("step")))
    return mark, records


def table_links(tables: Tables, run: str, at: int) -> list[dict[str, Any]]:
    """The same from the table ``inputs``."""
    if "destination_type" not in tables.columns("inputs"):
        return []
    names = ("source_type", "destination_id", "step")
    rows = tables.rows("inputs", names, "WHERE source_id = ? ORDER BY destination_id, source_type", (run,))
    return [
        _link(at, str(row["destination_id"]), _WAYS[row["source_type"]], row["step"])
        for row in rows
        if row["source_type"] in _WAYS and str(row["destination_id"]).startswith("m-")
    ]


def _link(at: int, model: str, way: str, step: object) -> dict[str, Any]:
    return {"op": "model_link", "t": at, "model": model, "way": way, "step": step if type(step) is int else 0}


def _model(
    row: Mapping[str, Any],
    about: ModelAbout,
    where: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    metrics: list[tuple[str, str, int, int, float, str, str]],
) -> LoggedModel:
    status = row["status"]
    deleted = row.get("lifecycle_stage") == "deleted"
    return LoggedModel(
        str(row["model_id"]),
        about.experiment,
        mlflow_run_id(str(row["source_run_id"])) if row["source_run_id"] else "",
        str(row["name"] or ""),
        _STATUSES.get(status, "LOGGED_MODEL_PENDING") if type(status) is int else str(status or ""),
        str(row["model_type"] or ""),
        milliseconds(row["creation_timestamp_ms"]) or 0,
        milliseconds(row["last_updated_timestamp_ms"]) or 0,
        where,
        params,
        tags,
        metrics,
        deleted,
    )


_COLUMNS = (
    "model_id",
    "experiment_id",
    "name",
    "artifact_location",
    "creation_timestamp_ms",
    "last_updated_timestamp_ms",
    "status",
    "lifecycle_stage",
    "model_type",
    "source_run_id",
)
_METRIC_COLUMNS = (
    "run_id",
    "metric_name",
    "metric_step",
    "metric_timestamp_ms",
    "metric_value",
    "dataset_name",
    "dataset_digest",
)


def _stamp(folder: str, experiment: str) -> str:
    """Changes with meta.yaml, with files that come or go, and with tags and metrics that are written again.

    Empty for a folder without meta.yaml: MLflow makes such beside a run that logs a metric of another experiment's model, and
    does not read them.
    """
    if not os.path.lexists(f"{folder}/meta.yaml"):
        return ""
    marks: list[object] = [experiment]
    for name in ("meta.yaml", "params", "tags", "metrics"):
        try:
            status = os.stat(f"{folder}/{name}")
            marks += (status.st_mtime_ns, status.st_size if name == "meta.yaml" else 0)
        except OSError:
            marks.append(0)
    for name in ("tags", "metrics"):
        try:
            with os.scandir(f"{folder}/{name}") as entries:
                changed = [entry.stat() for entry in entries]
                marks.append(sum(status.st_mtime_ns + status.st_size for status in changed))
        except OSError:
            continue
    return _digest(repr(marks))


def _texts(folder: str, part: str, problems: list[str]) -> dict[str, str]:
    """One text per file; a key with "/" is a path."""
    found: dict[str, str] = {}
    root = os.path.join(folder, part)
    for base, folders, names in os.walk(root):
        if os.path.relpath(base, root).count("/") > _DEPTH:
            folders.clear()
        for name in names:
            path = os.path.join(base, name)
            try:
                limit = _METRIC_BYTES if part == "metrics" else 1 << 20
                found[os.path.relpath(path, root)] = read_small(path, limit).decode("utf-8")
            except (OSError, ValueError) as error:
                problems.append(f"{os.path.relpath(path, folder)}: {_reason(error)}")
    return found


def _lines(key: str, text: str, problems: list[str]) -> Iterator[tuple[str, str, int, int, float, str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split(" ")
        try:
            if len(parts) not in (4, 6):
                raise ValueError("fields")
            time_ms, value, step = int(parts[0]), float(parts[1]), int(parts[2])
            if not all(-(1 << 63) <= whole < 1 << 63 for whole in (time_ms, step)):
                raise ValueError("64 bits")
        except ValueError:
            problems.append(f"metrics/{key} line {number}: not 'time value step run'")
            continue
        data, digest = (parts[4], parts[5]) if len(parts) == 6 else ("", "")
        yield mlflow_run_id(parts[3]), key, step, time_ms, value, data, digest


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    return why(error) if isinstance(error, OSError) else str(error)
