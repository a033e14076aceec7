"""The metric files of MLflow's file store: lines ``time value [step [dataset digest]]`` that are only ever appended."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mltrack.store.series import Floats, Ints
from mltrack.store.sources.base import SourcePoints, open_regular, why

READ_BYTES = 256 * 1024
# A line that is longer is none of MLflow's.
LINE_BYTES = 64 * 1024
_CHECKED = 32
_FEW_LINES = 64


_NOTHING: tuple[Ints, Ints, Floats] = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one or more metrics of a run."""

    points: SourcePoints | None
    skipped: int


class MetricFiles:
    """Reads what is new in the metric files of one run.

    ``position``: key -> [bytes read, lines read, checksum of the last bytes read]. ``damage``: the first line that was no point.
    """

    def __init__(self, position: Mapping[str, list[int]], damage: str = "") -> None:
        self.position = {key: list(value) for key, value in position.items()}
        self.damage = damage

    def read(self, files: Mapping[str, tuple[str, int]], limit: int, points: int) -> Iterator[Batch]:
        """``files``: key -> (path, size). Batches of about ``limit`` bytes or ``points`` points; damage stays in its file."""
        names: list[str] = []
        parts: list[tuple[Ints, Ints, Floats]] = []
        size = count = skipped = 0
        for key, (path, now) in files.items():
            if now == self.position.get(key, [0])[0]:
                continue
            for part, bad, taken in self._file(key, path):
                if len(part[2]):
                    names.append(key)
                    parts.append(part)
                size, count, skipped = size + taken, count + len(part[2]), skipped + bad
                if size >= limit or count >= points:
                    yield Batch(_join(names, parts), skipped)
                    names, parts, size, count, skipped = [], [], 0, 0, 0
        if parts or skipped:
            yield Batch(_join(names, parts), skipped)

    def _file(self, key: str, path: str) -> Iterator[tuple[tuple[Ints, Ints, Floats], int, int]]:
        """New points of one file, slice by slice: (times, steps, values), lines that are no points, bytes."""
        try:
            fd = open_regular(path)
        except OSError as error:
            self.damage = self.damage or f"metrics/{key}: {why(error)}"
            return
        try:
            done, lines, check = self.position.get(key, [0, 0, 0])
            size = os.fstat(fd).st_size
            before = os.pread(fd, _CHECKED, max(0, done - _CHECKED)) if done else b""
            if size < done or (done and zlib.crc32(before[: min(done, _CHECKED)]) != check):
                # Another file lies there now. Equal points are one, so that reading all of it does no harm.
                done, lines, before = 0, 0, b""
                if self.damage.startswith((f"metrics/{key} ", f"metrics/{key}:")):
                    self.damage = ""
            while True:
                data = os.pread(fd, READ_BYTES, done)
                whole = data.rfind(b"\n") + 1
                part, bad = _NOTHING, [1]
                if whole == 0:
                    if len(data) < LINE_BYTES:
                        return  # nothing, or the beginning of a line
                    whole = len(data)  # no line of MLflow's: skipped up to its end, part by part
                else:
                    data = data[:whole]
                    part, bad = parse(data)
                if bad:
                    self.damage = self.damage or f"metrics/{key} line {lines + bad[0]}: not 'time value step'"
                done, lines = done + whole, lines + data.count(b"\n")
                before = (before + data)[-_CHECKED:]
                self.position[key] = [done, lines, zlib.crc32(before[-min(done, _CHECKED) :])]
                yield part, len(bad), whole
        except OSError as error:
            self.damage = self.damage or f"metrics/{key}: {why(error)}"
        finally:
            os.close(fd)


def parse(data: bytes) -> tuple[tuple[Ints, Ints, Floats], list[int]]:
    """Times, steps and values of whole lines, and the numbers (from 1) of those that are no points."""
    if not data:
        return _line_by_line(data)
    lines = data.count(b"\n")
    tokens = data.split()
    if len(tokens) == 3 * lines and (lines < _FEW_LINES or _regular(data, lines)):
        try:
            if lines >= _FEW_LINES or all(len(line.split(b" ")) == 3 for line in data[:-1].split(b"\n")):
                times = np.array(list(map(int, tokens[0::3])), np.int64)
                steps = np.array(list(map(int, tokens[2::3])), np.int64)
                return (times, steps, np.array(list(map(float, tokens[1::3])), np.float64)), []
        except (ValueError, OverflowError):
            pass  # one line is damaged: look at each
    return _line_by_line(data)


def _regular(data: bytes, lines: int) -> bool:
    """Whether each line has exactly two spaces."""
    raw = np.frombuffer(data, np.uint8)
    spaces = np.flatnonzero(raw == 32)
    if len(spaces) != 2 * lines:
        return False
    ends = np.flatnonzero(raw == 10)
    starts = np.concatenate((np.array([-1]), ends[:-1]))
    return bool((spaces[0::2] > starts).all() and (spaces[1::2] < ends).all() and (spaces[0::2] < ends).all())


def _line_by_line(data: bytes) -> tuple[tuple[Ints, Ints, Floats], list[int]]:
    times: list[int] = []
    steps: list[int] = []
    values: list[float] = []
    bad: list[int] = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), start=1):
        parts = line.strip().split(b" ")
        try:
            if len(parts) not in (2, 3, 5):
                raise ValueError("fields")
            time, value = int(parts[0]), float(parts[1])
            # The earliest versions had no steps.
            step = int(parts[2]) if len(parts) > 2 else 0
            if not all(-(1 << 63) <= whole < 1 << 63 for whole in (time, step)):
                raise ValueError("64 bits")
        except ValueError:
            bad.append(number)
            continue
        times.append(time)
        steps.append(step)
        values.append(value)
    return (np.array(times, np.int64), np.array(steps, np.int64), np.array(values, np.float64)), bad


def _join(names: list[str], parts: list[tuple[Ints, Ints, Floats]]) -> SourcePoints | None:
    if not parts:
        return None
    sizes = [len(part[2]) for part in parts]
    return SourcePoints(
        names,
        np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )
