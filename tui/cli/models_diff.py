"""How two model versions differ, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mltrack.store.errors import MltrackError
from mltrack.tui.draw.numbers import format_bytes, format_parameter

if TYPE_CHECKING:
    from mltrack.store.mlmodel import MLModel
    from mltrack.store.records import Run
    from mltrack.store.registry_reading import ModelVersion
    from mltrack.store.store import Store

_ABSENT = "-"
Row = tuple[str, str, str, str]


def differences(store: Store, one: ModelVersion, other: ModelVersion) -> list[Row]:
    """(section, key, value of one, value of the other) for everything that is not the same."""
    rows: list[Row] = []

    def compare(section: str, first: dict[str, str], second: dict[str, str]) -> None:
        for key in sorted({*first, *second}):
            values = (first.get(key, _ABSENT), second.get(key, _ABSENT))
            if values[0] != values[1]:
                rows.append((section, key, *values))

    compare("version", _version(one), _version(other))
    first, second = _model(store, one), _model(store, other)
    for part in ("inputs", "outputs", "params"):
        compare(part, _fields(first, part), _fields(second, part))
    compare("model", _facts(first), _facts(second))
    runs = [_run(store, version) for version in (one, other)]
    compare("metric", *(_metrics(run) for run in runs))
    compare(
        "param",
        *({key: format_parameter(value) for key, value in run.params.items()} if run else {} for run in runs),
    )
    compare("code", *(_code(run) for run in runs))
    compare("file", *(_files(store, version) for version in (one, other)))
    return rows


def _version(version: ModelVersion) -> dict[str, str]:
    return {
        "stage": version.stage,
        "aliases": " ".join(version.aliases) or _ABSENT,
        "source": version.source,
        "by": version.actor,
        **{f"tag {key}": value for key, value in version.tags.items()},
    }


def _model(store: Store, version: ModelVersion) -> MLModel | None:
    from mltrack.store.mlmodel import read_mlmodel

    try:
        return read_mlmodel(store.registry.folder(version))
    except MltrackError:
        return None


def _fields(model: MLModel | None, part: str) -> dict[str, str]:
    fields = getattr(model.signature, part) if model and model.signature else None
    return {field.name or "(all)": field.sentence().partition(": ")[2] for field in fields or ()}


def _facts(model: MLModel | None) -> dict[str, str]:
    if model is None:
        return {}
    function = model.flavors.get("python_function", {})
    return {"flavor": model.main_flavor, "python": str(function.get("python_version", _ABSENT))}


def _run(store: Store, version: ModelVersion) -> Run | None:
    runs = store.runs([version.run_id]) if version.run_id else []
    return runs[0] if runs else None


def _metrics(run: Run | None) -> dict[str, str]:
    if run is None:
        return {}
    return {key: f"{each.last:.6g}" for key, each in run.metrics.items() if not key.startswith("system/")}


def _code(run: Run | None) -> dict[str, str]:
    git = run.facts.get("git") if run else None
    if not isinstance(git, dict):
        return {}
    return {
        "commit": str(git.get("commit", ""))[:10],
        "uncommitted changes": "yes" if git.get("dirty") else "no",
    }


def _files(store: Store, version: ModelVersion) -> dict[str, str]:
    files = store.registry.files(version.name, version.version) or []
    return {str(path): f"{format_bytes(int(size))}  {str(digest)[:8]}" for path, size, digest in files}
