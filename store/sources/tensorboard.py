"""TensorBoard's event files, read without TensorBoard: each folder that holds some is a run.

What is shown: scalars of both styles, params and outcome of the hparams plugin, texts (the newest of each name), and of images,
audio, histograms, graphs and other plugins how many there are under which name and up to which step.

Several files of a folder are one run; a file that starts later supersedes what earlier ones have from its first step on, as does
a writer that declares a new session. A folder named by a time below a run is where ``add_hparams`` puts its part of that run.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mltrack.store.sources import sidecars
from mltrack.store.sources.base import Found, Piece, Reader, SourcePoints, open_regular, stable_id, why
from mltrack.store.sources.protobuf import NotAMessage
from mltrack.store.sources.run_folders import HPARAMS_FOLDER, RunFile, RunFolder, RunFolders
from mltrack.store.sources.tensorboard_ahead import FILES, Ahead, read_ahead
from mltrack.store.sources.tensorboard_events import Events, Other, decode, read_event
from mltrack.store.sources.tensorboard_hparams import read_session
from mltrack.store.sources.tfrecord import read_chunks

# A file that changed this recently may hold holes that are still being filled, and its run may be going on.
SETTLED_SECONDS = 60.0
LIVE_SECONDS = 600.0
# What is kept of things that are no numbers.
_NAMES, _TEXTS, _TEXT = 200, 50, 4096
# A file with more starts than this was not written by somebody who restarts.
_SESSIONS = 100
_SESSION_TAG = "_hparams_/"
_HEAD_BYTES = 256
# Where trainers and people keep their log directories.
LOG_FOLDERS = re.compile(
    r"(?i)runs|logs?|logdir|tb|tb_?logs?|tensorboard(_?logs?)?|(lightning|training)_logs|outputs?|multirun"
)
# Folders that say nothing of what was tried.
_GENERIC = re.compile(
    r"(?i)(runs?|logs?|logdir|tb|tb_?logs?|tensorboard(_?logs?)?|events?|(lightning|training)_logs|outputs?|multirun|results?|"
    r"experiments?|version_\d+|[\d\-_.:T]+)"
)
_PARTS = ("train", "training", "validation", "valid", "val", "test", "eval", "evaluation")


@dataclass
class _State:
    """What is remembered of a run between two looks: the reader's position."""

    files: dict[str, list[int]] = field(default_factory=dict)
    """Name -> [bytes read, whether in search of the next record, sessions begun, records passed over, records read]."""
    others: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    sidecars: str = ""
    start_ms: int = 0
    last_ms: int = 0
    outcome: list[Any] = field(default_factory=list)
    told: str = ""

    @classmethod
    def parse(cls, position: str) -> _State:
        """The state of a position; a new one for what is none of ours."""
        try:
            return cls(**json.loads(position)) if position else cls()
        except (ValueError, TypeError):
            return cls()

    def position(self) -> str:
        """As text."""
        return json.dumps(vars(self), separators=(",", ":"))


class TensorboardReader(Reader):
    """A log directory, or one event file's folder."""

    kind: ClassVar[str] = "tensorboard"
    title: ClassVar[str] = "TensorBoard"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._folders = RunFolders(self.path, is_event_file)
        self._ids: dict[str, str] = {}
        self._ahead: dict[str, Ahead] = {}

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        """A folder with event files in it, or in folders close below."""
        try:
            return any(True for _ in RunFolders(Path(path), is_event_file).glance())
        except OSError:
            return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        """Folders that trainers name so, and any with event files right in it."""
        yield from (os.path.join(folder, name) for name in folders if LOG_FOLDERS.fullmatch(name))
        if any(is_event_file(name) for name in files):
            yield folder

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        """Runs by the newest change of their files."""
        found: list[tuple[int, Found]] = []
        now = time.time()
        for folder in self._folders.runs():
            if folder is None:
                yield None
                continue
            age = now - folder.changed_ns / 1e9
            stamp = f"{folder.changed_ns}:{folder.size}:{len(folder.files)}{'+' * (age < SETTLED_SECONDS)}"
            if known.get(folder.place) != stamp:
                found.append((folder.changed_ns, Found(folder.place, stamp, age < LIVE_SECONDS, folder)))
        self.total = self._folders.total
        self.unread = sum(1 for _, run in found if not known.get(run.place))
        order = [run for _, run in sorted(found, key=lambda pair: -pair[0])]
        for first in range(0, len(order), FILES):
            part = order[first : first + FILES]
            new = [run.about.files for run in part if not known.get(run.place)]
            self._ahead = read_ahead(file for files in new for file in files)
            yield from part

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        """New events of each file of the run, a chunk a piece."""
        folder = found.about
        assert isinstance(folder, RunFolder)
        run_id = self._run_id(folder)
        if run_id is None:
            return
        yield from _RunRead(self.path, folder, run_id, _State.parse(position), self._ahead).pieces()

    def is_run(self, folder: str) -> bool:
        try:
            names = os.listdir(folder)
        except OSError:
            return False
        return not HPARAMS_FOLDER.fullmatch(os.path.basename(folder)) and any(map(is_event_file, names))

    def _run_id(self, folder: RunFolder) -> str | None:
        """What the run is: the name and first bytes of its first file. None while there are none."""
        if folder.place not in self._ids:
            for file in folder.files:
                try:
                    head = _head(file)
                except OSError:
                    continue
                if len(head) >= 12:
                    name = os.path.basename(file.name)
                    self._ids[folder.place] = stable_id("tensorboard", f"{name}\0{head.hex()}")
                    break
            else:
                if any(file.size for file in folder.files):
                    return stable_id("tensorboard", str(self.path / folder.place))
                return None
        return self._ids[folder.place]


def is_event_file(name: str) -> bool:
    """By its name: ``events.out.tfevents.<seconds>.<host>...``."""
    return "tfevents" in name and not name.endswith((".profile-empty", ".tmp"))


def _head(file: RunFile) -> bytes:
    """The first record, which holds the time at which the file was begun, or what lies in its place."""
    fd = open_regular(file.path)
    try:
        data = os.read(fd, _HEAD_BYTES)
    finally:
        os.close(fd)
    length = int.from_bytes(data[:8], "little")
    return data[: length + 16]


class _RunRead:
    """One look at one run."""

    def __init__(
        self, source: Path, folder: RunFolder, run_id: str, state: _State, ahead: dict[str, Ahead]
    ) -> None:
        self._source = source
        self._ahead = ahead
        self._folder = folder
        self._run_id = run_id
        self._state = state
        self._records: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._attempt = ""

    def pieces(self) -> Iterator[Piece]:
        """Everything new. The first piece introduces the run; the last one says what all of it amounts to."""
        state = self._state
        if state.start_ms == 0:
            state.start_ms = self._started()
            self._introduce()
        self._read_sidecars()
        held: Piece | None = None  # the last piece of all takes in what is summed up: most runs need no other
        for piece in self._read_files():
            if held is not None:
                yield held
            held = piece
        self._sum_up()
        bad = [name for name, known in state.files.items() if known[3] and not known[4]]
        self._problems += [f"{name}: holds no event that can be read" for name in bad]
        end = self._piece(damage="; ".join(self._problems) or None)
        if held is not None:
            records = [*held.records, *end.records]
            end = replace(
                end, records=records, points=held.points, attempt=held.attempt, skipped=held.skipped
            )
        yield end

    def _read_files(self) -> Iterator[Piece]:
        for file in self._folder.files:
            try:
                yield from self._read_file(file)
            except OSError as error:
                self._problems.append(f"{file.name}: {why(error)}")

    def _piece(
        self,
        points: SourcePoints | None = None,
        skipped: int = 0,
        damage: str | None = None,
        position: str | None = None,
    ) -> Piece:
        records, self._records = self._records, []
        heard = self._folder.changed_ns // 1_000_000
        return Piece(
            self._run_id,
            position or self._state.position(),
            records,
            points,
            attempt=self._attempt,
            skipped=skipped,
            damage=damage,
            heard_ms=heard,
        )

    def _add(self, op: str, time_ms: int, **fields: Any) -> None:
        self._records.append({"t": time_ms, "op": op, **fields})

    # -- who it is

    def _started(self) -> int:
        """When the first file was begun: what its first event says, else its name, else its mtime."""
        for file in self._folder.files:
            try:
                event = read_event(_head(file)[12:-4])
            except (OSError, NotAMessage):
                continue
            if 0 < event.wall < 1e11:
                return round(event.wall * 1000)
        first = self._folder.files[0]
        return first.started_ms or first.mtime_ns // 1_000_000

    def _introduce(self) -> None:
        place = self._folder.place
        whole = self._source / place
        start = self._state.start_ms
        name = place if place != "." else (whole.name or "events")
        self._attempt = f"{start:013d}-start"
        self._add(
            "start",
            start,
            name=f"tb:{name}",
            experiment=experiment_name(whole),
            user=owner(self._folder.files[0]),
        )
        self._add("artifacts", start, v=place)

    def _read_sidecars(self) -> None:
        folder, state = self._folder, self._state
        if folder.sidecar_stamp == state.sidecars:
            return
        state.sidecars = folder.sidecar_stamp
        params, problems = sidecars.read_sidecars(self._source / folder.place, folder.sidecars)
        self._take_params(params)
        if problems:
            self._add("facts", folder.changed_ns // 1_000_000, v={"unread": problems})

    def _take_params(self, params: Mapping[str, str]) -> None:
        """Those that are not known yet: a file beside the data and the plugin often say the same in other digits."""
        known = self._state.params
        fresh = {key: value for key, value in params.items() if key not in known}
        if fresh and len(known) < sidecars.PARAMS:
            known.update(fresh)
            self._add("param", self._state.start_ms, v=fresh)

    # -- what it logged

    def _read_file(self, file: RunFile) -> Iterator[Piece]:
        state = self._state
        known = state.files.setdefault(file.name, [0, 0, 0, 0, 0])
        if file.size == known[0]:
            return
        if file.size < known[0]:  # rewritten: what is the same counts once
            known[:3] = [0, 0, 0]
        ahead = self._ahead.pop(file.path, None)
        if ahead is not None and known[0] == 0 and ahead.size == file.size:
            before = state.position()
            known[0], known[1], known[4] = ahead.size, 0, known[4] + ahead.records
            yield from self._take_events(file, known, ahead.events, before)
            return
        settled = time.time() - file.mtime_ns / 1e9 > SETTLED_SECONDS
        fd = open_regular(file.path)
        try:
            for chunk in read_chunks(fd, known[0], bool(known[1]), settled):
                events = decode(chunk)
                before = state.position()
                known[0], known[1] = chunk.position, int(chunk.lost)
                known[3] += events.skipped
                known[4] += len(chunk.starts) - (events.skipped - chunk.skipped)
                yield from self._take_events(file, known, events, before)
        finally:
            os.close(fd)

    def _take_events(self, file: RunFile, known: list[int], events: Events, before: str) -> Iterator[Piece]:
        """``before``: the position of all pieces but the last of a chunk, since all of it is read again or none."""
        for other in events.others:
            self._take_other(other)
        # Behind each start within the file its points belong to a new attempt; a chunk rarely holds one.
        restarts = events.restarts[: max(0, _SESSIONS - known[2])]
        edges = [0, *restarts, 1 << 62]
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            known[2] += low > 0
            self._attempt = f"{file.started_ms or self._state.start_ms:013d}-{file.name}#{known[2]:04d}"
            points = _points(events, (events.record >= low) & (events.record < high))
            if len(points):
                self._state.last_ms = max(self._state.last_ms, int(points.time_ms.max()))
            if high == edges[-1]:
                yield self._piece(points, events.skipped)
            elif len(points):
                yield self._piece(points, position=before)

    def _take_other(self, other: Other) -> None:
        state = self._state
        if other.kind == "hparams":
            try:
                params, status, end_ms = read_session(other.content)
            except NotAMessage:
                return
            self._take_params(params)
            if status is not None:
                state.outcome = [status, end_ms or _milliseconds(other.wall)]
            return
        name = f"{other.kind} {other.tag}"
        found = state.others.get(name)
        if found is None and len(state.others) < _NAMES:
            found = state.others[name] = [0, other.step, other.step]
        if found is not None:
            found[0] += 1
            found[1:] = [min(found[1], other.step), max(found[2], other.step)]
        tag = other.tag.removesuffix("/text_summary")
        if other.text is not None and (tag in state.texts or len(state.texts) < _TEXTS):
            state.texts[tag] = other.text[:_TEXT]

    def _sum_up(self) -> None:
        """What follows from all that was read: told again only when it has changed."""
        state, now = self._state, self._folder.changed_ns // 1_000_000
        if not state.params:
            guessed = sidecars.from_name(
                self._folder.place if self._folder.place != "." else self._source.name
            )
            self._take_params(guessed)
            if guessed:
                self._add("facts", now, v={"derived": sorted(guessed)})
        told = json.dumps([state.others, state.texts, self._ended()])
        if told == state.told:
            return
        state.told = told
        if state.others:
            self._add("facts", now, v={"logged": state.others})
        if state.texts:
            self._add("facts", now, v={"texts": state.texts})
        if state.outcome:
            status, end = self._ended()
            self._add("status", now, v=status, end=end)

    def _ended(self) -> list[Any]:
        """The outcome that the hparams plugin recorded, unless the run went on behind it."""
        outcome = self._state.outcome
        if not outcome or self._state.last_ms > outcome[1] + 1000:
            return ["RUNNING", None]
        return outcome


def _points(events: Events, chosen: npt.NDArray[np.bool_]) -> SourcePoints:
    tag, step, wall, value = (
        events.tag[chosen],
        events.step[chosen],
        events.wall[chosen],
        events.value[chosen],
    )
    with np.errstate(invalid="ignore", over="ignore"):
        sane = np.abs(wall) < 1e15
        time_ms = np.rint(np.where(sane, wall, 0.0) * 1000).astype(np.int64)
    return SourcePoints(events.tags, tag, step, time_ms, value)


def _milliseconds(wall: float) -> int:
    return round(wall * 1000) if abs(wall) < 1e15 else 0


def owner(file: RunFile) -> str:
    """Whose file it is; empty for a user without a name."""
    try:
        return pwd.getpwuid(os.stat(file.path).st_uid).pw_name
    except (KeyError, OSError):
        return ""


def experiment_name(folder: Path) -> str:
    """The nearest folder above a run whose name says something: what all its neighbours were tried for."""
    parts = list(folder.parts[1:-1])
    if folder.name in _PARTS and parts:
        parts.pop()
    for part in reversed(parts):
        if not _GENERIC.fullmatch(part):
            return part
    return "TensorBoard"
