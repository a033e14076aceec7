"""mlflow-artifacts/*: files of runs and logged models, streamed in and out.

A client's path is a list of names below one of our folders, walked name by name without following a link: it cannot lead
anywhere else. What a client sends as a URI is never opened.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mltrack.store.client.journal import make_folder, open_file, random_hex, run_folder, share_mode
from mltrack.store.copies import Copy, by_run, note_removed, remove_objects
from mltrack.store.mlflow_api.api import Answer, Api, artifact_uri
from mltrack.store.mlflow_api.runs import run_id_of
from mltrack.store.mlflow_api.wire import ApiError, Fields, filled, invalid
from mltrack.store.object_owner import identity

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Place:
    """A path of a client: below ``root``, which may not exist yet; ``run_id`` when it is an artifact of a run."""

    root: Path
    names: tuple[str, ...]
    run_id: str = ""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root.joinpath(*self.names)


def split(path: str) -> tuple[str, ...]:
    """The names of a relative path. Raises ApiError for anything that could lead somewhere else."""
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if (
        path.startswith("/")
        or "\\" in path
        or "\0" in path
        or ".." in names
        or "://" in path
        or len(path) > 4096
    ):
        raise invalid("Invalid path")
    for name in names:
        if len(os.fsencode(name)) > 255 or "%2e%2e" in name.lower() or "%2f" in name.lower():
            raise invalid("Invalid path")
    return names


def place(api: Api, path: str) -> Place:
    """Where a path of the proxy lies: ``<experiment>/<run>/artifacts/...``, ``<experiment>/models/<id>/artifacts/...``, or
    anything else, kept beside them."""
    names = split(path)
    if len(names) >= 3 and names[2] == "artifacts" and len(names[1]) == 32 and _HEX.issuperset(names[1]):
        return Place(run_folder(api.store.root, names[1]) / "artifacts", names[3:], names[1])
    if len(names) >= 4 and names[1] == "models" and names[3] == "artifacts" and names[2].startswith("m-"):
        return Place(model_folder(api, names[2]), names[4:])
    return Place(api.store.root / "files", names)


def model_folder(api: Api, model_id: str) -> Path:
    """Where the files of a logged model lie."""
    return api.store.root / "models" / model_id / "artifacts"


def kind_of(target: Place) -> str:
    """`file`, `folder` or nothing, looked at name by name: a link on the way is nothing."""
    path = target.root
    for name in ("", *target.names):
        path = path / name if name else path
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if stat.S_ISLNK(mode):
            return ""
        if stat.S_ISREG(mode):
            return "file" if path == target.path else ""
        if not stat.S_ISDIR(mode):
            return ""
    return "folder"


def copies_at(api: Api, target: Place) -> list[Copy]:
    """What lies at or below a place, but only in an object store."""
    if not target.run_id:
        return []
    at = "/".join(target.names)
    return [copy for copy in api.store.far([target.run_id]) if not at or f"{copy.path}/".startswith(f"{at}/")]


def listed(api: Api, target: Place, before: str = "") -> list[Answer]:
    """Files and folders directly in a folder, by name; ``before`` goes in front of their names."""
    found = _here(target, before) if kind_of(target) == "folder" else []
    there = {str(entry["path"]) for entry in found}
    for copy in copies_at(api, target):
        names = copy.path.split("/")[len(target.names) :]
        name = before + (names[0] if names else "")
        if names and name not in there:
            there.add(name)
            size = {} if len(names) > 1 else {"file_size": copy.size}
            found.append({"path": name, "is_dir": len(names) > 1, **size})
    return sorted(found, key=lambda entry: str(entry["path"]))


def _here(target: Place, before: str) -> list[Answer]:
    found: list[Answer] = []
    for entry in sorted(os.scandir(target.path), key=lambda entry: entry.name):
        if entry.name.startswith(".") and entry.name.endswith(".part"):
            continue
        name = before + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        if entry.is_dir(follow_symlinks=False):
            found.append({"path": name, "is_dir": True})
        elif entry.is_file(follow_symlinks=False):
            size = entry.stat(follow_symlinks=False).st_size
            found.append({"path": name, "is_dir": False, "file_size": size})
    return found


async def receive(api: Api, target: Place, chunks: AsyncIterator[bytes], sha256: str = "") -> None:
    """Store a file as it arrives; it is visible only when it is whole, and what ``sha256`` names where that is given."""
    if not target.names:
        raise invalid("Invalid path: it names no file.")
    if target.run_id:
        api.writer(target.run_id, deleted=True)
    folder = target.path.parent
    for depth in range(len(target.names)):
        above = Place(target.root, target.names[:depth])
        if os.path.lexists(above.path) and kind_of(above) != "folder":
            raise invalid(f"Invalid path: '{'/'.join(target.names[:depth])}' is not a folder.")
    if kind_of(target) == "folder":
        raise invalid(f"Invalid path: '{'/'.join(target.names)}' is a folder.")
    make_folder(folder, api.store.root)
    part = folder / f".{random_hex(12)}.part"
    digest, size = hashlib.sha256(), 0
    try:
        with os.fdopen(
            open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, share_mode(api.store.root)),
            "wb",
        ) as file:
            async for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            # A large file takes the disk seconds, and others want answers meanwhile.
            await asyncio.to_thread(os.fsync, file.fileno())
        if sha256 and digest.hexdigest() != sha256:
            raise invalid("The bytes are not those that their sha256 names; send them again.")
        os.replace(part, target.path)
    except OSError as error:
        raise ApiError("TEMPORARILY_UNAVAILABLE", f"The file cannot be stored ({error.strerror}).") from error
    finally:
        part.unlink(missing_ok=True)
    if target.run_id:
        writer = api.writer(target.run_id, deleted=True)
        api.writers.meta(
            writer,
            "artifact",
            path="/".join(target.names),
            size=size,
            sha256=digest.hexdigest(),
            how="upload",
        )
    api.send_on()


async def remove(api: Api, target: Place) -> None:
    """Delete a file or a folder with all in it. An object store, and a large folder, may take their time: others go on meanwhile."""
    if target.run_id:
        api.writer(target.run_id, deleted=True)
    kind = kind_of(target)
    far = copies_at(api, target) if target.names else []
    ours_is = identity(api.database, api.store.root) if far else ""
    for ours in by_run(far):
        await asyncio.to_thread(remove_objects, ours, ours_is, api.store.root)
        note_removed(api.store, ours[0].run_id, [(copy.path, copy.sha256) for copy in ours])
    if not kind or not target.names:
        return  # asked again, or never there: MLflow's clients take both for done
    try:
        if kind == "file":
            target.path.unlink(missing_ok=True)
        else:
            await asyncio.to_thread(_remove_folder, target.path)
    except OSError as error:
        raise ApiError("TEMPORARILY_UNAVAILABLE", f"It cannot be removed ({error.strerror}).") from error


def _remove_folder(path: Path) -> None:
    """Whoever else removes it at this moment."""
    while os.path.lexists(path):
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def of_run(api: Api, fields: Fields) -> Place:
    """get-artifact: a file of a run."""
    names = split(fields.needed("path"))
    run_id = run_id_of(fields)
    api.run(run_id)
    return Place(run_folder(api.store.root, run_id) / "artifacts", names, run_id)


def list_of_run(api: Api, fields: Fields) -> Answer:
    """artifacts/list: paths relative to the run's own folder."""
    run_id, path = run_id_of(fields), fields.text("path")
    row = api.run(run_id)
    names = split(path)
    root = Place(run_folder(api.store.root, run_id) / "artifacts", names, run_id)
    experiment = api.experiment(str(row.experiment_id))
    before = "/".join(names) + "/" if names else ""
    return filled(root_uri=artifact_uri(experiment, run_id), files=listed(api, root, before))


ROUTES = {("GET", "artifacts/list"): list_of_run}
