"""Lightning's CSVLogger: ``<name>/version_<n>/metrics.csv`` with a ``step`` column, and ``hparams.yaml`` beside it.

The file holds no times: points take the time of the folder's oldest file, so that reading again gives the same points. When a new
metric comes, Lightning writes the whole file anew with another header; equal points are one.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mltrack.store.sources import sidecars
from mltrack.store.sources.base import (
    Found,
    Piece,
    Reader,
    SourcePoints,
    open_regular,
    points,
    stable_id,
    why,
)
from mltrack.store.sources.run_folders import RunFile, RunFolder, RunFolders
from mltrack.store.sources.tensorboard import LIVE_SECONDS, LOG_FOLDERS, experiment_name, owner

NAME = "metrics.csv"
_CHUNK = 256 * 1024
# A line longer than this is none of Lightning's.
_LINE = 1 << 20
_STEP_LIMIT = 1 << 63


@dataclass
class _State:
    """What is remembered of a run between two looks."""

    read: int = 0
    header: list[str] = field(default_factory=list)
    start_ms: int = 0
    sidecars: str = ""
    params: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, position: str) -> _State:
        """The state of a position; a new one for what is none of ours."""
        try:
            return cls(**json.loads(position)) if position else cls()
        except (ValueError, TypeError):
            return cls()


class LightningReader(Reader):
    """A folder of CSVLogger's runs."""

    kind: ClassVar[str] = "lightning_csv"
    title: ClassVar[str] = "Lightning CSV logs"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._folders = RunFolders(self.path, _is_metrics)
        self._ids: dict[str, str] = {}

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        """A folder with a metrics.csv that has steps, in it or close below."""
        try:
            return any(
                "step" in _first_lines(file)[0] for file in RunFolders(Path(path), _is_metrics).glance()
            )
        except OSError:
            return False

    @classmethod
    def candidates(cls, folder: str, folders: Sequence[str], files: Sequence[str]) -> Iterable[str]:
        """Folders that trainers name so, and any with a metrics.csv right in it."""
        yield from (os.path.join(folder, name) for name in folders if LOG_FOLDERS.fullmatch(name))
        if NAME in files:
            yield folder

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        found: list[tuple[int, Found]] = []
        now = time.time()
        for folder in self._folders.runs():
            if folder is None:
                yield None
                continue
            stamp = f"{folder.changed_ns}:{folder.size}"
            if known.get(folder.place) != stamp:
                live = now - folder.changed_ns / 1e9 < LIVE_SECONDS
                found.append((folder.changed_ns, Found(folder.place, stamp, live, folder)))
        self.total = self._folders.total
        self.unread = sum(1 for _, run in found if not known.get(run.place))
        for _, run in sorted(found, key=lambda pair: -pair[0]):
            yield run

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        folder = found.about
        assert isinstance(folder, RunFolder)
        file = folder.files[0]
        if folder.place not in self._ids:
            header, row = _first_lines(file.path)
            if "step" not in header and not position:
                return  # nothing written yet, or another tool's file of this name
            whole = Path(os.path.abspath(self.path / folder.place))
            # A new column moves the others: the first row is known by its values.
            first = sorted((key, value) for key, value in zip(header, row, strict=False) if value)
            what = json.dumps([whole.parent.name, whole.name, first])
            self._ids[folder.place] = stable_id("lightning_csv", what)
        yield from _read_run(self.path, folder, file, self._ids[folder.place], _State.parse(position))


def _is_metrics(name: str) -> bool:
    return name == NAME


def _first_lines(path: str) -> tuple[list[str], list[str]]:
    """Header and first row, empty while they are not there. Raises OSError."""
    fd = open_regular(path)
    try:
        data = os.read(fd, _CHUNK)
    finally:
        os.close(fd)
    lines = data.split(b"\n")[:-1][:2]
    header, row = ([_cells(line) or [] for line in lines] + [[], []])[:2]
    return (header, row) if row else ([], [])


def _cells(line: bytes) -> list[str] | None:
    """The cells of a line, None for what is none of CSV."""
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r")], strict=True), [])
    except (csv.Error, UnicodeDecodeError):
        return None


def _read_run(source: Path, folder: RunFolder, file: RunFile, run_id: str, state: _State) -> Iterator[Piece]:
    records: list[dict[str, Any]] = []
    changed_ms = folder.changed_ns // 1_000_000
    whole = source / folder.place
    if state.start_ms == 0:
        state.start_ms = max(1, min(changed_ms, *_mtimes(whole, folder.sidecars)))
        start = {"t": state.start_ms, "op": "start", "user": owner(file)}
        name = folder.place if folder.place != "." else whole.resolve().name
        records.append({**start, "name": f"csv:{name}", "experiment": experiment_name(whole)})
        records.append({"t": state.start_ms, "op": "artifacts", "v": folder.place})
    if folder.sidecar_stamp != state.sidecars:
        state.sidecars = folder.sidecar_stamp
        params, problems = sidecars.read_sidecars(whole, folder.sidecars)
        fresh = {key: value for key, value in params.items() if key not in state.params}
        state.params.update(fresh)
        if fresh:
            records.append({"t": state.start_ms, "op": "param", "v": fresh})
        if problems:
            records.append({"t": changed_ms, "op": "facts", "v": {"unread": problems}})
    damage: str | None = None
    try:
        for columns, skipped in _rows(file, state):
            yield _piece(run_id, state, records, changed_ms, columns, skipped)
            records = []
    except OSError as error:
        damage = f"{file.name}: {why(error)}"
    if state.header and "step" not in state.header:
        damage = f"{file.name}, line 1: has no column named step"
    yield _piece(run_id, state, records, changed_ms, None, 0, damage)


def _piece(
    run_id: str,
    state: _State,
    records: list[dict[str, Any]],
    changed_ms: int,
    columns: SourcePoints | None,
    skipped: int,
    damage: str | None = None,
) -> Piece:
    position = json.dumps(vars(state), separators=(",", ":"))
    return Piece(run_id, position, records, columns, skipped=skipped, damage=damage, heard_ms=changed_ms)


def _mtimes(folder: Path, names: list[str]) -> list[int]:
    found = [1 << 62]
    for name in names:
        try:
            found.append(os.stat(folder / name).st_mtime_ns // 1_000_000)
        except OSError:
            continue
    return found


def _rows(file: RunFile, state: _State) -> Iterator[tuple[SourcePoints, int]]:
    """Points of whole lines behind the position, and how many lines were no rows; ``state`` moves on before each."""
    fd = open_regular(file.path)
    try:
        head = os.pread(fd, _CHUNK, 0)
        line, newline, _ = head.partition(b"\n")
        if not newline:
            return
        header = _cells(line) or []
        if header != state.header or file.size < state.read:
            state.header, state.read = header, len(line) + 1
        if "step" not in header:
            return
        while data := os.pread(fd, _CHUNK, state.read):
            end = data.rfind(b"\n") + 1
            while end == 0 and len(data) < _LINE and (more := os.pread(fd, _CHUNK, state.read + len(data))):
                data += more
                end = data.rfind(b"\n") + 1
            if end == 0:
                if len(data) < _LINE:
                    return  # not whole yet
                end = len(data)
            state.read += end
            yield _columns(data[:end].split(b"\n")[:-1] if data[:end].endswith(b"\n") else [b"\0"], state)
    finally:
        os.close(fd)


def _columns(lines: list[bytes], state: _State) -> tuple[SourcePoints, int]:
    header, skipped = state.header, 0
    place = header.index("step")
    numbers: list[int] = []
    steps: list[int] = []
    values: list[float] = []
    for line in lines:
        cells = _cells(line)
        if not cells and not line.strip():
            continue
        try:
            if cells is None or len(cells) != len(header):
                raise ValueError("not a row")
            step = _whole(cells[place])
            row = [(number, float(cell)) for number, cell in enumerate(cells) if cell and number != place]
        except ValueError:
            skipped += 1
            continue
        for number, value in row:
            numbers.append(number)
            steps.append(step)
            values.append(value)
    return points(header, numbers, steps, [state.start_ms] * len(steps), values), skipped


def _whole(cell: str) -> int:
    """A step. Raises ValueError for what is no whole number of 64 bits."""
    step = int(cell)
    if not -_STEP_LIMIT <= step < _STEP_LIMIT:
        raise ValueError("not a step")
    return step
