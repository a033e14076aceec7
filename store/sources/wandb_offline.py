"""``wandb/``: what W&B keeps of each run on its own disk, ``[offline-]run-<time>-<id>/run-<id>.wandb``.

Read are config, history, system metrics, summary values that no history has, tags, notes, the process and how it ended; of media how
many there are. Folders of one id are one run: each is a start of it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mltrack.store.client.secrets import redact_command
from mltrack.store.sources import wandb_records as records
from mltrack.store.sources.base import Found, Piece, Reader, open_regular, points, stable_id, why
from mltrack.store.sources.protobuf import NotAMessage
from mltrack.store.sources.sidecars import PARAMS, flatten
from mltrack.store.sources.wandb_log import WandbLog

_FOLDER = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)")
_LIVE_SECONDS = 600.0
# A piece: little enough to be folded in one commit.
_PIECE_POINTS, _PIECE_RECORDS = 20_000, 5_000
_NAMES, _TEXTS, _TEXT = 200, 50, 4096


@dataclass(frozen=True, slots=True)
class _Log:
    """One start of a run: its folder's name, its .wandb file, and that file's size and mtime."""

    folder: str
    path: str
    began: str
    size: int
    mtime_ns: int


@dataclass
class _State:
    """What is remembered of a run between two looks."""

    files: dict[str, list[int]] = field(default_factory=dict)
    """Folder -> [bytes read, whether its start was told, records read, records passed over]."""
    config: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    others: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    told: str = ""
    step: int = 0
    last_ms: int = 0

    @classmethod
    def parse(cls, position: str) -> _State:
        """The state of a position; a new one for what is none of ours."""
        try:
            return cls(**json.loads(position)) if position else cls()
        except (ValueError, TypeError):
            return cls()


class WandbReader(Reader):
    """Follows one folder of W&B runs."""

    kind: ClassVar[str] = "wandb"
    title: ClassVar[str] = "W&B offline runs"

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        """A folder with run folders in it, or a run folder."""
        try:
            return any(True for _ in _logs(Path(path)))
        except OSError:
            return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        """W&B names its folder itself."""
        if "wandb" in folders:
            yield os.path.join(folder, "wandb")

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        runs: dict[str, list[_Log]] = {}
        for name, log in _logs(self.path):
            runs.setdefault(name, []).append(log)
        self.total = len(runs)
        now = time.time()
        found: list[tuple[int, Found]] = []
        for name, logs in runs.items():
            logs.sort(key=lambda log: log.began)
            changed = max(log.mtime_ns for log in logs)
            stamp = f"{len(logs)}:{sum(log.size for log in logs)}:{changed}"
            if known.get(name) != stamp:
                found.append((changed, Found(name, stamp, now - changed / 1e9 < _LIVE_SECONDS, logs)))
        self.unread = sum(1 for _, run in found if not known.get(run.place))
        for _, run in sorted(found, key=lambda pair: -pair[0]):
            yield run

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        logs: list[_Log] = found.about
        project = next((name for log in logs if (name := _project(log)) is not None), None)
        if project is None:
            if not any(log.size for log in logs):
                return
            project = ""
        run_id = stable_id("wandb", f"{project}/{found.place}")
        yield from _RunRead(self.path, found.place, run_id, logs, _State.parse(position)).pieces()


def _logs(path: Path) -> Iterator[tuple[str, _Log]]:
    """(id of W&B, log) of every run folder at or directly below a path. Raises OSError."""
    if _FOLDER.fullmatch(path.name):
        yield from _log_of(str(path), ".")
        return
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if _FOLDER.fullmatch(entry.name))
    for name in names:
        yield from _log_of(str(path / name), name)


def _log_of(folder: str, name: str) -> Iterator[tuple[str, _Log]]:
    match = _FOLDER.fullmatch(os.path.basename(folder))
    assert match is not None
    path = os.path.join(folder, f"run-{match[2]}.wandb")
    try:
        found = os.stat(path)
    except OSError:
        return
    yield match[2], _Log(name, path, match[1], found.st_size, found.st_mtime_ns)


def _project(log: _Log) -> str | None:
    """The project that the log's first records name; None when there is none yet."""
    try:
        fd = open_regular(log.path)
    except OSError:
        return None
    try:
        for number, data in enumerate(WandbLog(fd).records()):
            for kind, part in records.split_record(data):
                if kind == records.RUN:
                    return records.read_run(part).project
            if number >= 20:
                break
    except (OSError, NotAMessage):
        return None
    finally:
        os.close(fd)
    return None


class _RunRead:
    """One look at one run."""

    def __init__(self, source: Path, name: str, run_id: str, logs: list[_Log], state: _State) -> None:
        self._source = source
        self._name = name
        self._run_id = run_id
        self._logs = logs
        self._state = state
        self._keys = set(state.keys)
        self._records: list[dict[str, Any]] = []
        self._points: tuple[list[str], list[int], list[int], list[float]] = ([], [], [], [])
        self._run = records.RunRecord()
        self._process = records.Environment()

    def pieces(self) -> Iterator[Piece]:
        """Everything new, log by log; the last piece of all says what is wrong."""
        problems: list[str] = []
        attempt = ""
        for log in self._logs:
            known = self._state.files.setdefault(log.folder, [0, 0, 0, 0])
            attempt = f"{_began_ms(log):013d}-{os.path.basename(log.folder)[:80]}"
            if log.size < known[0]:
                known[0] = 0
            try:
                yield from self._read_log(log, known, attempt)
            except OSError as error:
                problems.append(f"{log.folder}: {why(error)}")
            if log.size and known[3] and not known[2]:
                problems.append(f"{log.folder}: holds no record that can be read")
        self._sum_up(self._logs[-1])
        yield self._piece(attempt, damage="; ".join(problems) or None)

    def _piece(self, attempt: str, skipped: int = 0, damage: str | None = None) -> Piece:
        self._state.keys = sorted(self._keys)
        names, steps, times, values = self._points
        index = {name: number for number, name in enumerate(dict.fromkeys(names))}
        columns = points(list(index), [index[name] for name in names], steps, times, values)
        told, self._records, self._points = self._records, [], ([], [], [], [])
        return Piece(
            self._run_id,
            json.dumps(vars(self._state), separators=(",", ":")),
            told,
            columns if len(columns) else None,
            attempt=attempt,
            skipped=skipped,
            damage=damage,
            heard_ms=max(log.mtime_ns for log in self._logs) // 1_000_000,
        )

    def _add(self, op: str, time_ms: int, **fields: Any) -> None:
        self._records.append({"t": time_ms, "op": op, **fields})

    def _read_log(self, log: _Log, known: list[int], attempt: str) -> Iterator[Piece]:
        if log.size == known[0]:
            return
        fd = open_regular(log.path)
        try:
            reader = WandbLog(fd, known[0])
            taken = broken = counted = 0
            for data in reader.records():
                try:
                    for kind, part in records.split_record(data):
                        self._take(kind, part, log, known)
                    taken += 1
                except (NotAMessage, ValueError):
                    broken += 1
                if len(self._points[0]) >= _PIECE_POINTS or taken >= _PIECE_RECORDS:
                    skipped = reader.skipped + broken - counted
                    known[0], known[2], known[3] = reader.position, known[2] + taken, known[3] + skipped
                    counted, taken = counted + skipped, 0
                    self._begin(log, known)
                    yield self._piece(attempt, skipped)
            skipped = reader.skipped + broken - counted
            known[0], known[2], known[3] = reader.position, known[2] + taken, known[3] + skipped
            self._begin(log, known)
            yield self._piece(attempt, skipped)
        finally:
            os.close(fd)

    # -- records

    def _take(self, kind: int, data: bytes, log: _Log, known: list[int]) -> None:
        if kind == records.HISTORY:
            self._take_history(data)
        elif kind == records.STATS:
            time_ms, items = records.read_stats(data)
            step = max(0, time_ms - _began_ms(log)) // 1000
            for path, value in items:
                self._add_number(f"system/{'.'.join(path)}", step, time_ms, value)
        elif kind == records.SUMMARY:
            self._take_summary(records.read_items(data))
        elif kind == records.CONFIG:
            self._take_config(records.read_items(data))
        elif kind == records.RUN:
            self._run = records.read_run(data)
            self._take_config(self._run.config)
            if known[1]:  # said again: a name, note or tag was changed
                self._describe(max(self._state.last_ms, self._run.start_ms))
        elif kind == records.ENVIRONMENT:
            self._take_process(records.read_environment(data))
        elif kind == records.EXIT:
            code = records.read_exit(data)
            self._begin(log, known)
            status = "FINISHED" if code == 0 else "FAILED"
            self._add("end", self._state.last_ms or _began_ms(log), status=status, exit=code)
            self._tell_summary()

    def _take_history(self, data: bytes) -> None:
        items = records.read_items(data)
        special = {path[0]: value for path, value in items if path[0].startswith("_") and len(path) == 1}
        step = records.read_step(data)
        if step is None:
            step = int(records.number_of(special.get("_step", b"")) or 0)
        seconds = records.number_of(special.get("_timestamp", b"")) or 0.0
        time_ms = round(seconds * 1000) if abs(seconds) < 1e12 else 0
        self._state.step, self._state.last_ms = step, max(self._state.last_ms, time_ms)
        media = {path[:-1]: value for path, value in items if path[-1] == "_type" and len(path) > 1}
        counted: set[tuple[str, ...]] = set()
        for path, value in items:
            if len(path) == 1 and path[0] in special:
                continue
            part = next((path[:size] for size in range(1, len(path)) if path[:size] in media), None)
            if part is None:
                self._take_value(path, value, step, time_ms)
            elif part not in counted:
                counted.add(part)
                self._count(".".join(part), str(records.json_of(media[part])), step)

    def _take_value(self, path: tuple[str, ...], value: bytes, step: int, time_ms: int) -> None:
        name = ".".join(path)
        if self._add_number(name, step, time_ms, value):
            self._keys.add(name)
            return
        found = records.json_of(value)
        if isinstance(found, str):
            if name in self._state.texts or len(self._state.texts) < _TEXTS:
                self._state.texts[name] = found[:_TEXT]
        elif isinstance(found, dict):
            if "_type" in found:
                self._count(name, str(found["_type"]), step)
                return
            for key, inner in found.items():
                self._take_value((*path, str(key)), json.dumps(inner).encode(), step, time_ms)

    def _add_number(self, name: str, step: int, time_ms: int, value: bytes) -> bool:
        number = records.number_of(value)
        if number is None:
            return False
        names, steps, times, values = self._points
        names.append(name)
        steps.append(step)
        times.append(time_ms)
        values.append(number)
        return True

    def _count(self, name: str, kind: str, step: int) -> None:
        name = f"{kind} {name}"
        found = self._state.others.get(name)
        if found is None and len(self._state.others) < _NAMES:
            found = self._state.others[name] = [0, step, step]
        if found is not None:
            found[0] += 1
            found[1:] = [min(found[1], step), max(found[2], step)]

    def _take_summary(self, items: list[tuple[tuple[str, ...], bytes]]) -> None:
        media = {path[:-1] for path, _ in items if path[-1] == "_type"}
        media |= {(name.split(" ", 1)[1],) for name in self._state.others}
        for path, value in items:
            number = records.number_of(value)
            if (
                number is None
                or path[0].startswith("_")
                or any(path[:size] in media for size in range(1, len(path)))
            ):
                continue
            if len(self._state.summary) < PARAMS:
                self._state.summary[".".join(path)] = number

    def _take_config(self, items: list[tuple[tuple[str, ...], bytes]]) -> None:
        for path, value in items:
            if path[0] == "_wandb":
                continue
            found = records.json_of(value)
            flatten({".".join(path): found["value"] if _wrapped(found) else found}, self._state.config)

    def _take_process(self, new: records.Environment) -> None:
        """The environment comes in parts."""
        for name in ("python", "program", "root", "host", "username", "commit", "remote", "args"):
            if getattr(new, name):
                setattr(self._process, name, getattr(new, name))

    # -- what follows

    def _begin(self, log: _Log, known: list[int]) -> None:
        """Tell of this start of the run, once its process is known."""
        run, process = self._run, self._process
        if known[1] or not (run.run_id or run.project):
            return
        known[1] = 1
        start = run.start_ms or _began_ms(log)
        fields: dict[str, Any] = {
            "name": run.name or self._name,
            "experiment": run.project or "uncategorized",
            "user": process.username or run.entity,
            "script": process.program,
            "python": process.python,
            "cwd": process.root,
        }
        if process.program:
            fields["command"] = redact_command([process.program, *process.args])
        self._add("start", start, **{name: value for name, value in fields.items() if value})
        self._add("artifacts", start, v=f"{log.folder}/files")
        self._describe(start)
        facts: dict[str, Any] = {}
        if run.host or process.host:
            facts["host"] = run.host or process.host
        if run.commit or process.commit:
            facts["git"] = {"commit": run.commit or process.commit, "remote": run.remote or process.remote}
        if facts:
            self._add("facts", start, v=facts)

    def _describe(self, time_ms: int) -> None:
        run = self._run
        if run.name:
            self._add("name", time_ms, v=run.name)
        if run.notes:
            self._add("note", time_ms, v=run.notes)
        tags = dict.fromkeys(run.tags, "true")
        tags |= {
            name: value
            for name, value in (("group", run.group), ("job_type", run.job_type), ("sweep", run.sweep))
            if value
        }
        if tags:
            self._add("tags", time_ms, v=tags)

    def _tell_summary(self) -> None:
        """Values that were only ever set in the summary: one point each, where the run ended."""
        state = self._state
        for name, number in state.summary.items():
            if name not in self._keys:
                names, steps, times, values = self._points
                names.append(name)
                steps.append(state.step)
                times.append(state.last_ms)
                values.append(number)

    def _sum_up(self, log: _Log) -> None:
        state, now = self._state, log.mtime_ns // 1_000_000
        told = json.dumps([state.config, state.others, state.texts])
        if told == state.told:
            return
        state.told = told
        if state.config:
            self._add("param", state.last_ms or _began_ms(log), v=state.config)
        if state.others:
            self._add("facts", now, v={"logged": state.others})
        if state.texts:
            self._add("facts", now, v={"texts": state.texts})


def _wrapped(value: Any) -> bool:
    """Config as older clients have it: {"value": ..., "desc": null}."""
    return isinstance(value, dict) and "value" in value and set(value) <= {"value", "desc"}


def _began_ms(log: _Log) -> int:
    """When a run's folder was made, by its name (local time)."""
    try:
        return int(time.mktime(time.strptime(log.began, "%Y%m%d_%H%M%S")) * 1000)
    except (ValueError, OverflowError):
        return 0
