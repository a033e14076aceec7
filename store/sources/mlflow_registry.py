"""Registered models as MLflow keeps them: folders ``models/<name>/version-<n>/`` of the file store, or tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mltrack.store.sources.base import Catalogue, ModelRow, read_small, why
from mltrack.store.sources.mlflow_run import milliseconds, mlflow_run_id
from mltrack.store.sources.sql import Tables
from mltrack.store.sources.yaml_text import load_mapping

STAGES = ("None", "Staging", "Production", "Archived")
_DELETED = "Deleted_Internal"


def folder_catalogue(root: str, experiments: Mapping[str, tuple[str, str]], stamp: str) -> Catalogue | None:
    """Experiments (name -> folder and mark of its meta.yaml) and the models below ``root``; None when ``stamp`` still holds."""
    models = os.path.join(root, "models")
    marks = hashlib.blake2b(digest_size=12)
    for name, (folder, mark) in sorted(experiments.items()):
        marks.update(
            f"{name}\0{mark}\0{_mark(os.path.join(folder, 'tags'))}\n".encode("utf-8", "surrogateescape")
        )
    folders = list(_model_folders(models))
    for folder in folders:
        for path in (folder, *_versions(folder)):
            for part in ("meta.yaml", "tags", "aliases"):
                text = f"{path}\0{_mark(os.path.join(path, part))}\n"
                marks.update(text.encode("utf-8", "surrogateescape"))
    if marks.hexdigest() == stamp:
        return None
    rows: list[ModelRow] = []
    damaged: list[str] = []
    for folder in folders:
        try:
            rows += _read_model(root, folder, damaged)
        except (OSError, ValueError) as error:
            damaged.append(f"{os.path.relpath(folder, root)}: {_reason(error)}")
    tags = {name: _texts(os.path.join(folder, "tags"), damaged) for name, (folder, _) in experiments.items()}
    return Catalogue(marks.hexdigest(), tags, rows, damaged)


def _model_folders(models: str) -> Iterator[str]:
    try:
        with os.scandir(models) as entries:
            for entry in entries:
                if entry.is_dir() and os.path.isfile(os.path.join(entry.path, "meta.yaml")):
                    yield entry.path
    except OSError:
        return  # no model was registered here


def _versions(folder: str) -> list[str]:
    try:
        return sorted(entry.path for entry in os.scandir(folder) if entry.name.startswith("version-"))
    except OSError:
        return []


def _read_model(root: str, folder: str, damaged: list[str]) -> Iterator[ModelRow]:
    said = load_mapping(read_small(os.path.join(folder, "meta.yaml")))
    name = str(said.get("name") or os.path.basename(folder))
    aliases: dict[str, int] = {}
    for alias, text in _texts(os.path.join(folder, "aliases"), damaged).items():
        if text.strip().isdigit():
            aliases[alias] = int(text)
    yield ModelRow(
        name,
        description=str(said.get("description") or ""),
        created_ms=milliseconds(said.get("creation_timestamp")) or 0,
        updated_ms=milliseconds(said.get("last_updated_timestamp")) or 0,
        tags=_texts(os.path.join(folder, "tags"), damaged),
    )
    for path in _versions(folder):
        try:
            row = load_mapping(read_small(os.path.join(path, "meta.yaml")))
            version = int(row.get("version") or os.path.basename(path).partition("-")[2])
        except (OSError, ValueError) as error:
            damaged.append(f"{os.path.relpath(path, root)}/meta.yaml: {_reason(error)}")
            continue
        if row.get("current_stage") == _DELETED:
            continue
        given = [alias for alias, target in aliases.items() if target == version]
        yield _version(root, name, version, row, _texts(os.path.join(path, "tags"), damaged), given)


def _version(
    root: str, name: str, version: int, row: Mapping[str, Any], tags: Mapping[str, str], aliases: list[str]
) -> ModelRow:
    stage = str(row.get("current_stage") or "None")
    return ModelRow(
        name,
        version,
        stage if stage in STAGES else "None",
        _location(root, str(row.get("source") or ""), str(row.get("run_id") or "")),
        mlflow_run_id(str(row["run_id"])) if row.get("run_id") else "",
        str(row.get("description") or ""),
        str(row.get("user_id") or ""),
        milliseconds(row.get("creation_timestamp", row.get("creation_time"))) or 0,
        milliseconds(row.get("last_updated_timestamp", row.get("last_updated_time"))) or 0,
        tags,
        sorted(aliases),
    )


def _location(root: str, said: str, run: str) -> str:
    """Where a version's files are; found again below ``root`` when that was moved since."""
    path = said.removeprefix("file://")
    if not run or not path.startswith("/") or os.path.exists(path):
        return said
    before, found, below = path.partition(f"/{run}/artifacts")
    moved = os.path.join(root, os.path.basename(before), f"{run}/artifacts{below}")
    return f"file://{moved}" if found and os.path.exists(moved) else said


def table_catalogue(tables: Tables, root: str, stamp: str) -> Catalogue | None:
    """The same from a database. It is small, so that it is compared by reading it."""
    experiments: dict[str, dict[str, str]] = {}
    names: dict[Any, str] = {}
    for row in tables.rows("experiments", ("experiment_id", "name")):
        names[row["experiment_id"]] = str(row["name"])
        experiments[str(row["name"])] = {}
    for row in tables.rows("experiment_tags", ("key", "value", "experiment_id")):
        if row["experiment_id"] in names:
            experiments[names[row["experiment_id"]]][str(row["key"])] = str(row["value"] or "")
    tags: dict[tuple[str, int], dict[str, str]] = {}
    for row in tables.rows("registered_model_tags", ("key", "value", "name")):
        tags.setdefault((str(row["name"]), 0), {})[str(row["key"])] = str(row["value"] or "")
    for row in tables.rows("model_version_tags", ("key", "value", "name", "version")):
        tags.setdefault((str(row["name"]), int(row["version"])), {})[str(row["key"])] = str(
            row["value"] or ""
        )
    aliases: dict[tuple[str, int], list[str]] = {}
    for row in tables.rows("registered_model_aliases", ("alias", "version", "name")):
        aliases.setdefault((str(row["name"]), int(row["version"])), []).append(str(row["alias"]))
    rows = [
        ModelRow(
            str(row["name"]),
            description=str(row["description"] or ""),
            created_ms=milliseconds(row["creation_time"]) or 0,
            updated_ms=milliseconds(row["last_updated_time"]) or 0,
            tags=tags.get((str(row["name"]), 0), {}),
        )
        for row in tables.rows(
            "registered_models", ("name", "creation_time", "last_updated_time", "description")
        )
    ]
    for row in tables.rows("model_versions", _VERSION_COLUMNS):
        if row["current_stage"] != _DELETED:
            key = (str(row["name"]), int(row["version"]))
            rows.append(_version(root, *key, row, tags.get(key, {}), aliases.get(key, [])))
    found = repr((sorted(experiments.items()), rows)).encode("utf-8", "surrogatepass")
    mark = hashlib.blake2b(found, digest_size=12).hexdigest()
    return None if mark == stamp else Catalogue(mark, experiments, rows)


_VERSION_COLUMNS = (
    "name",
    "version",
    "creation_time",
    "last_updated_time",
    "description",
    "user_id",
    "current_stage",
    "source",
    "run_id",
)


def _texts(folder: str, damaged: list[str]) -> dict[str, str]:
    """One value per file; a key with "/" is a path."""
    found: dict[str, str] = {}
    for base, folders, names in os.walk(folder):
        if os.path.relpath(base, folder).count("/") > 16:
            folders.clear()
        for name in names:
            path = os.path.join(base, name)
            try:
                found[os.path.relpath(path, folder)] = read_small(path).decode("utf-8")
            except (OSError, ValueError) as error:
                damaged.append(f"{path}: {_reason(error)}")
    return found


def _mark(path: str) -> str:
    """Changes with a file, or with the files of a folder."""
    try:
        status = os.stat(path)
        newest, size, count = status.st_mtime_ns, status.st_size, 0
        if os.path.isdir(path):
            for base, _, names in os.walk(path):
                for name in names:
                    status = os.stat(os.path.join(base, name))
                    newest, size, count = max(newest, status.st_mtime_ns), size + status.st_size, count + 1
        return f"{newest}.{size}.{count}"
    except OSError:
        return ""


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    return why(error) if isinstance(error, OSError) else str(error)
