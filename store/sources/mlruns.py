"""``mlruns/``: the folder that MLflow's file store writes, versions 1.x to 3.x.

    <experiment>/meta.yaml                     name, lifecycle_stage; deleted experiments lie below .trash/
    <experiment>/<run>/meta.yaml               run_id, run_name, status (a number), start_time, end_time, user_id, lifecycle_stage
    <experiment>/<run>/params/<key>            the value; a key with "/" is a path
    <experiment>/<run>/tags/<key>              the value
    <experiment>/<run>/metrics/<key>           lines "time value [step [dataset digest]]", only ever appended to
    <experiment>/<run>/inputs/<id>/meta.yaml   which of <experiment>/datasets/<id> the run used
    <experiment>/<run>/artifacts/              files; found here also when ``artifact_uri`` says where the folder lay before

A stamp is one letter (R running, W ended a moment ago, E ended), a digest of what shows without listing anything (meta.yaml and the
folders of a run), and sums over all files. What runs is compared file by file at every look. Of what ended the digest is, and file
by file the newest runs and as many others as that took time, in turn: a metric may be appended to even then, and a tag that is set
again changes nothing but its own file.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import orjson

from mltrack.store.sources.base import (
    PIECE_BYTES,
    PIECE_POINTS,
    Catalogue,
    Found,
    Piece,
    Reader,
    read_small,
    why,
)
from mltrack.store.sources.mlflow_metrics import MetricFiles
from mltrack.store.sources.mlflow_models import folder_links, folder_models, read_folder_model
from mltrack.store.sources.mlflow_registry import folder_catalogue
from mltrack.store.sources.mlflow_run import (
    FIELD_TAGS,
    RunFacts,
    dataset_inputs,
    milliseconds,
    mlflow_run_id,
)
from mltrack.store.sources.yaml_text import load_mapping

STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_NOT_EXPERIMENTS = frozenset(("models", ".trash"))
_NOT_RUNS = frozenset(("tags", "datasets", "models", "traces", "meta.yaml"))
_KINDS = ("params", "tags", "metrics", "inputs", "outputs")
# After this long without a change nobody is likely to write to a run that has ended.
_WARM_NANOSECONDS = 600 * 1_000_000_000
# A run's folder is there before its meta.yaml.
_NEW_NANOSECONDS = 5 * 1_000_000_000
# So many of the ended runs are compared file by file with each look, the newest, and at least so many others in turn.
_NEWEST = 100
_SWEPT = 200
_DEPTH = 16
_LOOKS_LIKE = re.compile(rb"(?m)^experiment_id:")


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment's folder, and what its meta.yaml says."""

    folder: str
    name: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class _Look:
    """A run's folder as it was when it was listed."""

    folder: str
    experiment: Experiment
    meta: dict[str, Any]
    damage: str | None
    files: dict[str, dict[str, _File]]
    unreadable: list[str] = field(default_factory=list)
    newest_ns: int = 0


class MlrunsReader(Reader):
    """Follows one mlruns folder."""

    kind: ClassVar[str] = "mlruns"
    title: ClassVar[str] = "MLflow folder"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._experiments: dict[str, tuple[int, Experiment]] = {}
        self._swept: int | None = None

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        try:
            with os.scandir(path) as entries:
                for number, entry in enumerate(entries):
                    if number >= 200:
                        return False
                    meta = os.path.join(entry.path, "meta.yaml")
                    if entry.name not in _NOT_EXPERIMENTS and entry.is_dir() and os.path.isfile(meta):
                        if _LOOKS_LIKE.search(read_small(meta)):
                            return not os.path.isdir(os.path.join(entry.path, "metrics"))
        except OSError:
            return False
        return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        if "mlruns" in folders:
            yield os.path.join(folder, "mlruns")
        if ".trash" in folders or any(
            name == "0" or (name.isdigit() and len(name) >= 15) for name in folders
        ):
            yield folder  # under another name, as with --backend-store-uri

    def catalogue(self, stamp: str) -> Catalogue | None:
        experiments = {
            experiment.name: (folder, str(changed))
            for folder, (changed, experiment) in self._experiments.items()
            if not experiment.deleted
        }
        return folder_catalogue(str(self.path), experiments, stamp)

    # -- looking

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        entries: list[tuple[int, str, str, Experiment]] = []
        for experiment in self._list_experiments():
            base = os.path.basename(experiment.folder)
            try:
                with os.scandir(experiment.folder) as found:
                    for entry in found:
                        if entry.name not in _NOT_RUNS and entry.is_dir():
                            changed = entry.stat().st_mtime_ns
                            entries.append((changed, f"{base}/{entry.name}", entry.path, experiment))
            except OSError:
                continue  # said by the catalogue
            yield None
        self.total = len(entries)
        self.unread = sum(1 for entry in entries if not known.get(entry[1]))
        entries.sort(key=lambda entry: -entry[0])
        ended: list[tuple[str, str, Experiment]] = []
        spent = 0.0
        for live in (True, False):
            for number, (_, place, folder, experiment) in enumerate(entries):
                before = known.get(place)
                if (before is not None and before[:1] in ("R", "W")) is not live:
                    continue
                if before and before[0] == "E":
                    began = time.perf_counter()
                    same = before[1:17] == _folders(folder, experiment)
                    spent += time.perf_counter() - began
                    if same:  # what is found here is not looked at again behind it
                        ended.append((place, folder, experiment))
                        if number % 256 == 0:
                            yield None
                        continue
                yield self._found(place, folder, experiment, before)
        yield from self._sweep(ended[:_NEWEST], known)
        yield from self._in_turn(ended[_NEWEST:], known, spent)
        shown = ((each.folder, each.name) for _, each in self._experiments.values() if not each.deleted)
        yield from folder_models(str(self.path), shown, known)

    def _sweep(
        self, ended: list[tuple[str, str, Experiment]], known: Mapping[str, str]
    ) -> Iterator[Found | None]:
        """Compare ended runs file by file."""
        for place, folder, experiment in ended:
            yield self._found(place, folder, experiment, known.get(place))

    def _in_turn(
        self, ended: list[tuple[str, str, Experiment]], known: Mapping[str, str], seconds: float
    ) -> Iterator[Found | None]:
        """Compare some of them file by file, for about so many seconds; others the next time."""
        if not ended:
            return
        if self._swept is None:
            # A first look has other things to do, and may be the only one: it begins anywhere.
            start, seconds = random.randrange(len(ended)), seconds / 4
        else:
            start = self._swept % len(ended)
        began = time.perf_counter()
        for number, (place, folder, experiment) in enumerate(ended[start:] + ended[:start]):
            if number >= _SWEPT and time.perf_counter() - began > seconds:
                break
            self._swept = start + number + 1
            yield self._found(place, folder, experiment, known.get(place))

    def _found(self, place: str, folder: str, experiment: Experiment, before: str | None) -> Found | None:
        """The run with a new stamp, or None when nothing of it has changed or it is no run at all."""
        folders = _folders(folder, experiment)
        if folders is None:
            self.unread -= not before  # somebody else's folder, not a run that waits
            return None
        look = _Look(folder, experiment, {}, None, {})
        total = _list_files(look)
        if before and before[1:] == folders + total and before[0] != "W":
            return None
        _read_meta(look)
        if look.damage is not None and abs(time.time_ns() - look.newest_ns) < _NEW_NANOSECONDS:
            return None  # being made just now
        running = look.meta.get("status") in (1, 2) and not experiment.deleted
        warm = abs(time.time_ns() - look.newest_ns) < _WARM_NANOSECONDS
        stamp = ("R" if running else "W" if warm else "E") + folders + total
        return None if stamp == before else Found(place, stamp, running, look)

    def _list_experiments(self) -> list[Experiment]:
        found: list[Experiment] = []
        for base in (str(self.path), os.path.join(self.path, ".trash")):
            try:
                entries = list(os.scandir(base))
            except FileNotFoundError:
                if base == str(self.path):
                    raise
                continue
            for entry in entries:
                if entry.name not in _NOT_EXPERIMENTS and entry.is_dir():
                    found.append(self._experiment(entry.path, base.endswith(".trash")))
        return found

    def _experiment(self, folder: str, in_trash: bool) -> Experiment:
        meta = os.path.join(folder, "meta.yaml")
        try:
            changed = os.stat(meta).st_mtime_ns
            before = self._experiments.get(folder)
            if before is not None and before[0] == changed:
                return before[1]
            said = load_mapping(read_small(meta))
            name = str(said.get("name") or os.path.basename(folder))
            deleted = in_trash or said.get("lifecycle_stage") == "deleted"
        except (OSError, ValueError):
            return Experiment(folder, os.path.basename(folder), in_trash)
        self._experiments[folder] = (changed, Experiment(folder, name, deleted))
        return self._experiments[folder][1]

    # -- reading

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        if not isinstance(found.about, _Look):
            yield from read_folder_model(str(self.path), found)
            return
        look = found.about
        before: dict[str, Any] = orjson.loads(position) if position else {}
        records: list[dict[str, Any]] = []
        problems = [look.damage] if look.damage else list(look.unreadable)
        name = _run_id(look)
        at = milliseconds(look.meta.get("start_time")) or 0
        after: dict[str, Any] = {}
        tags = self._tags(look, before.get("t", {}), at, records, problems)
        after["t"] = tags
        self._params(look, before, after, at, records, problems)
        self._inputs(look, before, after, at, records, problems)
        after["l"], links = folder_links(look.files, before.get("l", ""), at)
        records += links
        if look.damage is None:
            self._meta(look, before, after, at, records)
        metrics = MetricFiles(before.get("x", {}), str(before.get("d", "")))
        heard = look.newest_ns // 1_000_000
        begun = False
        files = {key: (file.path, file.size) for key, file in look.files.get("metrics", {}).items()}
        for batch in metrics.read(files, PIECE_BYTES, PIECE_POINTS):
            yield self._piece(look, name, after, metrics, [] if begun else records, batch, problems, heard)
            begun = True
        if not begun:
            piece = self._piece(look, name, after, metrics, records, None, problems, heard)
            if records or piece.position != position or piece.damage:
                yield piece

    def _piece(
        self,
        look: _Look,
        name: str,
        after: dict[str, Any],
        metrics: MetricFiles,
        records: list[dict[str, Any]],
        batch: Any,
        problems: list[str],
        heard: int,
    ) -> Piece:
        position = {**after, "x": metrics.position}
        if metrics.damage:
            position["d"] = metrics.damage
        problem = next(iter(problems), None) or metrics.damage or None
        damage = f"{os.path.relpath(look.folder, self.path)}: {problem}" if problem else None
        return Piece(
            mlflow_run_id(name),
            orjson.dumps(position).decode(),
            records,
            batch.points if batch is not None else None,
            skipped=batch.skipped if batch is not None else 0,
            damage=damage,
            heard_ms=heard,
        )

    def _meta(
        self,
        look: _Look,
        before: dict[str, Any],
        after: dict[str, Any],
        at: int,
        records: list[dict[str, Any]],
    ) -> None:
        """What meta.yaml says, and those tags that stand for fields of ours."""
        said = look.meta
        said_tags = [record["v"] for record in records if record["op"] == "tags"]
        tags = {key: value for each in said_tags for key, value in each.items()}
        known = {**before.get("f", {}), **{key: tags[key] for key in FIELD_TAGS if key in tags}}
        gone = {key for record in records if record["op"] == "untag" for key in record["k"]}
        known = after["f"] = {key: value for key, value in known.items() if key not in gone}
        summed = repr((sorted(said.items(), key=str), look.experiment, known))
        after["m"] = hashlib.sha256(summed.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if after["m"] == before.get("m"):
            return
        status = said.get("status")
        facts = RunFacts(
            at,
            milliseconds(said.get("end_time")),
            str(said.get("run_name") or said.get("name") or ""),
            str(said.get("user_id") or ""),
            STATUS.get(status, "RUNNING") if type(status) is int else str(status or "RUNNING"),
            look.experiment.name,
            look.experiment.deleted or said.get("lifecycle_stage") == "deleted",
            self._artifacts(look),
            known,
        )
        records += facts.records(gone)

    def _artifacts(self, look: _Look) -> str:
        """Beside the run, wherever the folder lies now; elsewhere only when that is where MLflow was told to put them."""
        beside = os.path.join(look.folder, "artifacts")
        said = str(look.meta.get("artifact_uri") or "")
        own = said.endswith(f"/{os.path.basename(look.folder)}/artifacts")
        if os.path.isdir(beside) or own or not said:
            if os.path.isdir(beside) or "://" not in said.removeprefix("file://"):
                return os.path.relpath(beside, self.path)
        return said

    def _tags(
        self,
        look: _Look,
        before: dict[str, Any],
        at: int,
        records: list[dict[str, Any]],
        problems: list[str],
    ) -> dict[str, Any]:
        """Tags that are new or changed, and those that are gone. Returns what to compare with the next time."""
        kept: dict[str, Any] = {}
        changed: dict[str, str] = {}
        for key, file in look.files.get("tags", {}).items():
            mark = f"{file.mtime_ns}.{file.size}"
            if before.get(key) != mark:
                value = _value(look, file, problems)
                if value is None:
                    if key in before:
                        kept[key] = before[key]
                    continue
                changed[key] = value
            kept[key] = mark
        gone = [key for key in before if key not in kept and key not in look.files.get("tags", {})]
        if changed:
            records.append({"op": "tags", "t": at, "v": changed})
        if gone:
            records.append({"op": "untag", "t": at, "k": gone})
        return kept

    def _params(
        self,
        look: _Look,
        before: dict[str, Any],
        after: dict[str, Any],
        at: int,
        records: list[dict[str, Any]],
        problems: list[str],
    ) -> None:
        files = look.files.get("params", {})
        after["p"] = _digest(f"{key}.{file.mtime_ns}.{file.size}" for key, file in sorted(files.items()))
        if not files or after["p"] == before.get("p"):
            return
        values = {key: _value(look, file, problems) for key, file in files.items()}
        records.append(
            {"op": "param", "t": at, "v": {key: text for key, text in values.items() if text is not None}}
        )

    def _inputs(
        self,
        look: _Look,
        before: dict[str, Any],
        after: dict[str, Any],
        at: int,
        records: list[dict[str, Any]],
        problems: list[str],
    ) -> None:
        """Datasets: each input names one of the experiment's datasets and what it was used for."""
        files = {
            key: file for key, file in look.files.get("inputs", {}).items() if key.endswith("/meta.yaml")
        }
        after["i"] = _digest(f"{key}.{file.mtime_ns}" for key, file in sorted(files.items()))
        if not files or after["i"] == before.get("i"):
            return
        paths = [file.path for file in files.values()]
        records += dataset_inputs(paths, look.experiment.folder, at, problems)


def _value(look: _Look, file: _File, problems: list[str]) -> str | None:
    """The text of a file that holds one value; None, with the problem noted, when it cannot be read."""
    try:
        return read_small(file.path).decode("utf-8")
    except UnicodeDecodeError as error:
        problems.append(f"{os.path.relpath(file.path, look.folder)}: not UTF-8 (byte {error.start})")
    except OSError as error:
        problems.append(f"{os.path.relpath(file.path, look.folder)}: {why(error)}")
    return None


def _run_id(look: _Look) -> str:
    """What meta.yaml calls the run; its folder's name where YAML took an id of digits for a number."""
    said = look.meta.get("run_id") or look.meta.get("run_uuid")
    return said if isinstance(said, str) else os.path.basename(look.folder)


def _read_meta(look: _Look) -> None:
    try:
        look.meta = load_mapping(read_small(os.path.join(look.folder, "meta.yaml")))
        if not any(look.meta.get(key) not in (None, "") for key in ("run_id", "run_uuid")):
            look.damage = "meta.yaml: has no run_id"
    except FileNotFoundError:
        look.damage = "meta.yaml is missing"
    except OSError as error:
        look.damage = f"meta.yaml: {why(error)}"
    except ValueError as error:
        reason = f"not UTF-8 (byte {error.start})" if isinstance(error, UnicodeDecodeError) else str(error)
        look.damage = f"meta.yaml: {reason}"


def _folders(folder: str, experiment: Experiment) -> str | None:
    """16 hex digits that change with meta.yaml, files that come or go and the experiment; None: not a run."""
    marks: list[int] = []
    for name in ("meta.yaml", *_KINDS):
        try:
            status = os.stat(f"{folder}/{name}")
            marks += (status.st_mtime_ns, status.st_size if name == "meta.yaml" else 0)
        except OSError:
            marks += (0, 0)
    if not any(marks[:8]):
        return None
    return _digest((str(marks), experiment.name, str(experiment.deleted)))


def _list_files(look: _Look) -> str:
    """List the files of a run; sums over them as text."""
    count = size = moved = 0
    for kind in _KINDS:
        files = look.files[kind] = {}
        _list_below(os.path.join(look.folder, kind), "", files, look, 0)
        for file in files.values():
            count, size, moved = count + 1, size + file.size, moved + file.mtime_ns
            look.newest_ns = max(look.newest_ns, file.mtime_ns)
    try:
        look.newest_ns = max(look.newest_ns, os.stat(os.path.join(look.folder, "meta.yaml")).st_mtime_ns)
    except OSError:
        look.newest_ns = look.newest_ns or os.stat(look.folder).st_mtime_ns
    return f"{count}.{size}.{moved & 0xFFFFFFFFFFFF}"


def _list_below(folder: str, prefix: str, files: dict[str, _File], look: _Look, depth: int) -> None:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEPTH:
                        _list_below(entry.path, f"{prefix}{entry.name}/", files, look, depth + 1)
                elif entry.is_file():
                    status = entry.stat()
                    files[prefix + entry.name] = _File(entry.path, status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        return  # an older MLflow made no such folder, or it is gone by now
    except NotADirectoryError:
        look.unreadable.append(f"{os.path.relpath(folder, look.folder)} is not a folder")
    except OSError as error:
        look.unreadable.append(f"{os.path.relpath(folder, look.folder)}: {why(error)}")


def _digest(parts: Any) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
