"""Where the files of a model version lie, that they are still what was registered, and keeping copies of foreign ones."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import orjson

from mltrack.store.client.artifacts import artifact_path, regular_files, store_file
from mltrack.store.client.journal import make_folder, random_hex, run_folder
from mltrack.store.client.values import Refused
from mltrack.store.errors import BadInput, NotFound

FOLDER = "models"
KEPT = "mltrack:/models/"
"""Source of a version whose files the registry keeps itself: followed by the name of a folder below ``models/``."""
_RUN = re.compile(r"runs:/([0-9a-f]{32})/(.+)\Z", re.DOTALL)
_PROXIED = re.compile(r"mlflow-artifacts:(?://[^/]*)?/[^/]+/([0-9a-f]{32})/artifacts/(.+)\Z", re.DOTALL)
_KEPT = re.compile(re.escape(KEPT) + r"([0-9a-f]{64})\Z")
_LOGGED = re.compile(
    r"(?:models:|mlflow-artifacts:(?://[^/]*)?/[^/]+/models)/(m-[0-9a-f]{32})(?:/artifacts(?:/(.+))?)?\Z",
    re.DOTALL,
)
"""A logged model of MLflow's 3.x clients: its files came through the server."""
# A manifest is part of a decision's line: a folder of more files is no model.
_MOST_FILES = 20_000

Files = list[list[str | int]]
"""[[path below the folder, bytes, sha256], ...] in order of the paths."""


def run_of(source: str) -> str | None:
    """The id of the run whose artifacts a source names."""
    found = _RUN.match(source) or _PROXIED.match(source)
    return found[1] if found else None


def proxied_path(source: str) -> str:
    """The path below a run's artifacts that a source names, as it stands there; "" for others."""
    found = _RUN.match(source) or _PROXIED.match(source)
    return found[2] if found else ""


def locate(root: Path, source: str) -> Path | None:
    """The folder of a source, None when it is not on this machine. It may be missing. Raises BadInput for one that leads out."""
    found = _RUN.match(source) or _PROXIED.match(source)
    if found:
        base = run_folder(root, found[1]) / "artifacts"
        try:
            return _beneath(
                base, str(artifact_path(unquote(found[2]) if source.startswith("mlf") else found[2]))
            )
        except Refused as error:
            raise BadInput(f"The source {source!r} cannot be used: {error}.") from None
    logged = _LOGGED.match(source)
    if logged:
        base = root / FOLDER / logged[1] / "artifacts"
        try:
            return _beneath(base, str(artifact_path(unquote(logged[2])))) if logged[2] else base
        except Refused as error:
            raise BadInput(f"The source {source!r} cannot be used: {error}.") from None
    kept = _KEPT.match(source)
    if kept:
        return root / FOLDER / kept[1]
    if source.startswith("file://"):
        return Path(unquote(source[len("file://") :]))
    return Path(source) if os.path.isabs(source) else None


def source_of(root: Path, folder: Path) -> str | None:
    """The ``runs:/`` source of a folder that lies among a run's artifacts, else None."""
    try:
        relative = folder.resolve().relative_to((root / "runs").resolve())
    except ValueError:
        return None
    parts = relative.parts
    if len(parts) > 3 and parts[2] == "artifacts" and re.fullmatch(r"[0-9a-f]{32}", parts[1]):
        return f"runs:/{parts[1]}/{'/'.join(parts[3:])}"
    return None


def list_files(folder: Path) -> Files:
    """Every regular file with size and digest. Raises BadInput for a folder that cannot be a model."""
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.")
    found = regular_files(folder)
    if len(found) > _MOST_FILES:
        raise BadInput(f"{folder} holds {len(found):,} files: that is no model.")
    return [
        [name, path.lstat().st_size, _digest(path)] for path, name in sorted(found, key=lambda each: each[1])
    ]


def listed_at(root: Path, source: str) -> Files | None:
    """The files of a source; None when they are not on this machine."""
    folder = locate(root, source)
    return list_files(folder) if folder is not None and folder.is_dir() else None


def problems(folder: Path, files: Files) -> list[str]:
    """What is not as it was registered: a sentence for each file that is missing or differs; empty when all is there."""
    wrong: list[str] = []
    for name, size, digest in files:
        path = folder / str(name)
        try:
            facts = path.lstat()
            if not stat.S_ISREG(facts.st_mode):
                wrong.append(f"{name} is no regular file any more")
            elif facts.st_size != size or _digest(path) != digest:
                wrong.append(f"{name} was changed")
        except OSError:
            wrong.append(f"{name} is missing")
    return wrong


def keep(root: Path, folder: Path, files: Files) -> str:
    """Copy a model's files below the store's ``models/``, once per content. Returns the source that names the copy."""
    name = hashlib.sha256(orjson.dumps(files)).hexdigest()
    target = root / FOLDER / name
    if target.is_dir() and not problems(target, files):
        os.utime(target)  # as good as new: a clean-up leaves it for a day
        return KEPT + name
    part = root / FOLDER / f".{random_hex(12)}.part"
    make_folder(part, root)
    try:
        for relative, _, digest in files:
            stored = store_file(folder / str(relative), root, part, str(relative))
            if stored.sha256 != digest:
                raise BadInput(f"{folder / str(relative)} changed while it was copied.")
        os.rename(part, target)
    except Refused as error:
        raise BadInput(f"The model at {folder} could not be kept: {error}.") from None
    except OSError:
        if not target.is_dir():
            raise  # else somebody else kept the same files at the same time
    return KEPT + name


def is_kept_name(name: str) -> bool:
    """Whether a folder below ``models/`` is one of ``keep``, whole or not."""
    return _KEPT.match(KEPT + name) is not None or name.startswith(".") and name.endswith(".part")


def total_bytes(files: Sequence[Sequence[str | int]]) -> int:
    """Size of all files."""
    return sum(int(size) for _, size, _ in files)


def parse_files(text: str) -> Files | None:
    """The stored list; None when the files lay out of reach at registration."""
    return orjson.loads(text) if text else None


def require(folder: Path | None, what: str) -> Path:
    """The folder, which is there. Raises NotFound."""
    if folder is None:
        raise NotFound(f"The files of {what} are not on this machine.")
    if not folder.is_dir():
        raise NotFound(f"The files of {what} are gone: there is no folder {folder}.")
    return folder


def _beneath(base: Path, relative: str) -> Path:
    path = base / relative
    if path.exists() and not path.resolve().is_relative_to(base.resolve()):
        raise BadInput(f"{relative!r} leads out of the artifacts of its run.")
    return path


def _digest(path: Path) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
