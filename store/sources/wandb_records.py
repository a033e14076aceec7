"""W&B's records: what a run is called, its config, its history and how it ended. Field numbers as its files have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mltrack.store.sources import protobuf
from mltrack.store.sources.protobuf import LENGTH, VARINT

HISTORY, SUMMARY, CONFIG, STATS, RUN, EXIT, ENVIRONMENT = 2, 3, 5, 7, 17, 18, 26
WANTED = frozenset((HISTORY, SUMMARY, CONFIG, STATS, RUN, EXIT, ENVIRONMENT))
_ITEM_KEY, _ITEM_NESTED, _ITEM_JSON = 1, 2, 16


@dataclass(slots=True)
class RunRecord:
    """What a run says of itself; texts are empty where it does not."""

    run_id: str = ""
    entity: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    notes: str = ""
    sweep: str = ""
    host: str = ""
    tags: list[str] = field(default_factory=list)
    config: list[tuple[tuple[str, ...], bytes]] = field(default_factory=list)
    start_ms: int = 0
    commit: str = ""
    remote: str = ""


@dataclass(slots=True)
class Environment:
    """The process that logged."""

    python: str = ""
    args: list[str] = field(default_factory=list)
    program: str = ""
    root: str = ""
    host: str = ""
    username: str = ""
    commit: str = ""
    remote: str = ""


def split_record(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a record that matter here, by field number. Raises NotAMessage."""
    for number, wire, a, b in protobuf.fields(data):
        if number in WANTED and wire == LENGTH:
            yield number, data[a:b]


def read_items(data: bytes, number: int = 1) -> list[tuple[tuple[str, ...], bytes]]:
    """Path of the key, and the value as JSON, of each item in field ``number``."""
    found: list[tuple[tuple[str, ...], bytes]] = []
    for field_number, wire, start, end in protobuf.fields(data):
        if field_number != number or wire != LENGTH:
            continue
        key, nested, value = "", [], b"null"
        for inner, inner_wire, a, b in protobuf.fields(data, start, end):
            if inner_wire != LENGTH:
                continue
            if inner == _ITEM_KEY:
                key = protobuf.text(data, a, b)
            elif inner == _ITEM_NESTED:
                nested.append(protobuf.text(data, a, b))
            elif inner == _ITEM_JSON:
                value = data[a:b]
        found.append((tuple(nested) if nested else (key,), value))
    return found


def read_step(data: bytes) -> int | None:
    """The step of a history record; its message leaves a step of 0 out, so it may be there and empty."""
    for number, wire, start, end in protobuf.fields(data):
        if number == 2 and wire == LENGTH:
            for inner, inner_wire, value, _ in protobuf.fields(data, start, end):
                if inner == 1 and inner_wire == VARINT:
                    return protobuf.signed(value)
            return 0
    return None


def number_of(value: bytes) -> float | None:
    """The number that a JSON text is (NaN and infinities too, true as 1), or None for anything else."""
    try:
        return float(value)
    except ValueError:
        return {b"true": 1.0, b"false": 0.0}.get(value)


def json_of(value: bytes) -> Any:
    """Any JSON text. Raises ValueError."""
    return json.loads(value)


def read_run(data: bytes) -> RunRecord:
    """A run record. Raises NotAMessage."""
    run = RunRecord()
    names = {
        1: "run_id",
        2: "entity",
        3: "project",
        6: "group",
        7: "job_type",
        8: "name",
        9: "notes",
        12: "sweep",
        13: "host",
    }
    for number, wire, a, b in protobuf.fields(data):
        if wire != LENGTH:
            continue
        if number in names:
            setattr(run, names[number], protobuf.text(data, a, b))
        elif number == 10:
            run.tags.append(protobuf.text(data, a, b))
        elif number == 4:
            run.config = read_items(data[a:b])
        elif number == 17:
            run.start_ms = read_timestamp(data[a:b])
        elif number == 21:
            run.remote, run.commit = _git(data, a, b)
    return run


def read_environment(data: bytes) -> Environment:
    """An environment record; there are several, each with a part. Raises NotAMessage."""
    found = Environment()
    names = {2: "python", 6: "program", 11: "root", 12: "host", 13: "username"}
    for number, wire, a, b in protobuf.fields(data):
        if wire != LENGTH:
            continue
        if number in names:
            setattr(found, names[number], protobuf.text(data, a, b))
        elif number == 5:
            found.args.append(protobuf.text(data, a, b))
        elif number == 9:
            found.remote, found.commit = _git(data, a, b)
    return found


def _git(data: bytes, start: int, end: int) -> tuple[str, str]:
    parts = {
        number: protobuf.text(data, a, b)
        for number, wire, a, b in protobuf.fields(data, start, end)
        if wire == LENGTH
    }
    return parts.get(1, ""), parts.get(2, "")


def read_timestamp(data: bytes) -> int:
    """google.protobuf.Timestamp as ms."""
    parts = {
        number: protobuf.signed(value) for number, wire, value, _ in protobuf.fields(data) if wire == VARINT
    }
    return parts.get(1, 0) * 1000 + parts.get(2, 0) // 1_000_000


def read_stats(data: bytes) -> tuple[int, list[tuple[tuple[str, ...], bytes]]]:
    """(ms, items) of the system's metrics."""
    time_ms = 0
    for number, wire, a, b in protobuf.fields(data):
        if number == 2 and wire == LENGTH:
            time_ms = read_timestamp(data[a:b])
    return time_ms, read_items(data, 3)


def read_exit(data: bytes) -> int:
    """The exit code."""
    for number, wire, value, _ in protobuf.fields(data):
        if number == 1 and wire == VARINT:
            return protobuf.signed(value)
    return 0
