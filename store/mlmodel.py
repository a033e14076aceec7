"""An MLmodel file as data: what MLflow and we write beside a model. Read with limits, and never anything imported from it."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mltrack.store.client.artifacts import regular_files
from mltrack.store.errors import BadInput, NotFound

FILE = "MLmodel"
_MOST_BYTES = 1 << 20
_PICKLE_NAMES = (".pkl", ".pickle", ".joblib", ".pth", ".pt", ".dill", ".cloudpickle")
# The first two bytes of a pickle of protocol 2 to 5.
_PICKLE_STARTS = tuple(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5))
# From narrow to wide: a value of one kind can be given where a later one of its row is asked for.
_WIDENS = (("boolean",), ("integer", "long", "float", "double"), ("string",), ("binary",), ("datetime",))


@dataclass(frozen=True, slots=True)
class Field:
    """A column, a param or a tensor of a signature. ``shape`` is None for columns; -1 in it means any number."""

    name: str
    type: str
    required: bool = True
    shape: tuple[int, ...] | None = None

    @property
    def kind(self) -> str:
        """Type, with the shape of a tensor."""
        sizes = ", ".join("any" if size < 0 else str(size) for size in self.shape or ())
        return f"{self.type}[{sizes}]" if self.shape else self.type

    def sentence(self) -> str:
        """``name: type`` as a person reads it."""
        return f"{self.name or 'input'}: {self.kind}{'' if self.required else ' (optional)'}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. A part is None when the file does not say."""

    inputs: tuple[Field, ...] | None = None
    outputs: tuple[Field, ...] | None = None
    params: tuple[Field, ...] | None = None


@dataclass(frozen=True, slots=True)
class MLModel:
    """An MLmodel file. ``document`` is all of it, plain values."""

    flavors: dict[str, dict[str, Any]]
    signature: Signature | None
    example: str
    run_id: str
    created: str
    mlflow_version: str
    metadata: dict[str, Any]
    document: dict[str, Any]

    @property
    def main_flavor(self) -> str:
        """The library's flavor where there is one beside python_function."""
        special = [name for name in self.flavors if name != "python_function"]
        return special[0] if special else "python_function" if self.flavors else ""


def parse_mlmodel(text: str) -> MLModel:
    """The file's content. Raises BadInput for what is no MLmodel, or could only be meant to hurt."""
    document = _parse_yaml(text)
    if not isinstance(document, dict):
        raise BadInput("The MLmodel file is no mapping of names to values.")
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not all(isinstance(conf, dict) for conf in flavors.values()):
        raise BadInput("The MLmodel file names no flavors.")
    stated = document.get("signature")
    example = document.get("saved_input_example_info")
    metadata = document.get("metadata")
    return MLModel(
        flavors={str(name): conf for name, conf in flavors.items()},
        signature=_signature(stated) if isinstance(stated, dict) else None,
        example=str(example.get("artifact_path") or "") if isinstance(example, dict) else "",
        run_id=str(document.get("run_id") or ""),
        created=str(document.get("utc_time_created") or ""),
        mlflow_version=str(document.get("mlflow_version") or ""),
        metadata=metadata if isinstance(metadata, dict) else {},
        document=document,
    )


def read_mlmodel(folder: Path) -> MLModel:
    """The MLmodel of a model folder. Raises NotFound and BadInput."""
    return parse_mlmodel(read_text(folder, FILE, _MOST_BYTES))


def read_text(folder: Path, name: str, limit: int = _MOST_BYTES) -> str:
    """A small text file of a model folder. Raises NotFound, and BadInput for one that is too large or leads out of it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{name!r} leads out of the model's folder.")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            body = file.read(limit + 1)
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror}).") from None
    if len(body) > limit:
        raise BadInput(f"{path} has more than {limit >> 10:,} KiB.")
    return body.decode("utf-8", "replace")


def pickles(folder: Path) -> list[str]:
    """Files whose loading runs code, by name and by their first bytes; sorted."""
    return [name for path, name in regular_files(folder) if _is_pickle(path)]


def narrowed(old: tuple[Field, ...] | None, new: tuple[Field, ...] | None) -> list[str]:
    """Why callers of the old inputs would fail with the new ones: columns that are asked for anew, types that take less."""
    if old is None or new is None:
        return []
    wrong: list[str] = []
    before = {field.name: field for field in old}
    after = {field.name: field for field in new}
    for name, field in after.items():
        known = before.get(name)
        if known is None:
            if field.required:
                wrong.append(f"{field.name or 'an input'} is new and required")
        elif not _takes(field, known):
            wrong.append(f"{name or 'the input'} takes {field.kind}, no longer {known.kind}")
        elif field.required and not known.required:
            wrong.append(f"{name} is required now")
    wrong += [f"{name or 'an input'} was removed" for name in before if name not in after]
    return wrong


def _takes(new: Field, old: Field) -> bool:
    if new.shape is not None and old.shape is not None and not _fits(old.shape, new.shape):
        return False
    if new.type == old.type or new.type == "any":
        return True
    return any(
        old.type in row and new.type in row and row.index(old.type) <= row.index(new.type) for row in _WIDENS
    )


def _fits(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    return len(old) == len(new) and all(there in (-1, here) for here, there in zip(old, new, strict=True))


def _signature(stated: dict[str, Any]) -> Signature:
    return Signature(*(_fields(stated.get(part)) for part in ("inputs", "outputs", "params")))


def _fields(text: object) -> tuple[Field, ...] | None:
    if text is None:
        return None
    try:
        stated = orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError as error:
        raise BadInput(f"The signature in the MLmodel file is not JSON ({error}).") from None
    if not isinstance(stated, list) or not all(isinstance(each, dict) for each in stated):
        raise BadInput("The signature in the MLmodel file is no list of columns.")
    return tuple(_field(each) for each in stated)


def _field(stated: dict[str, Any]) -> Field:
    name, kind = str(stated.get("name") or ""), str(stated.get("type") or stated.get("dtype") or "any")
    tensor = stated.get("tensor-spec")
    if kind == "tensor" and isinstance(tensor, dict):
        shape = tensor.get("shape")
        sizes = shape if isinstance(shape, list) else []
        return Field(name, str(tensor.get("dtype")), True, tuple(int(size) for size in sizes if _whole(size)))
    default_given = "default" in stated
    return Field(name, kind, bool(stated.get("required", not default_given)))


def _whole(value: object) -> bool:
    return isinstance(value, int) or isinstance(value, float) and math.isfinite(value)


def _is_pickle(path: Path) -> bool:
    if path.name.lower().endswith(_PICKLE_NAMES):
        return True
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            start = file.read(4)
            if start[:2] in _PICKLE_STARTS:
                return True
            if start == b"PK\x03\x04" and not path.name.endswith(".skops"):
                with zipfile.ZipFile(file) as archive:
                    return any(name.endswith(".pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return False
    return False


def _parse_yaml(text: str) -> Any:
    """YAML of plain values: no tags that make objects, few aliases, not deep."""
    import yaml  # here: a worker's start need not pay for it

    from mltrack.store.yaml_limits import BAD_VALUES, Beyond, Loader, check_limits, sentence

    if len(text) > _MOST_BYTES:
        raise BadInput(f"The MLmodel file has more than {_MOST_BYTES >> 10:,} KiB.")
    try:
        check_limits(text)
        return yaml.load(text, Loader=Loader)
    except Beyond as error:
        place = f" line {error.line}:" if error.line else ""
        raise BadInput(f"The MLmodel file cannot be read:{place} {error.reason}.") from None
    except (yaml.YAMLError, *BAD_VALUES) as error:
        raise BadInput(f"The MLmodel file cannot be read: {sentence(error).rstrip('.')}.") from None
