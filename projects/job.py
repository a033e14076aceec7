"""A job: one launch as it is handed to the process that looks after it, and what of it may be written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeAlias, cast


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a supervisor needs. Values that may be secrets are in ``command``, ``environment``, ``inputs`` and ``given`` only.

    ``docker``, ``python`` and ``slurm`` are the parts of their backends: plain data that plan.py writes and the backends read.
    """

    run_id: str
    run_name: str
    experiment: str
    store: str  # folder or URL
    root: str  # the folder journals are written to
    backend: str  # docker, venv, local or slurm; sweep for the parent of several
    command: list[str]
    environment: dict[str, str]  # of the process; for docker what is added to that of the image
    folder: str  # the project
    copies: bool = False  # the project is a checkout in our cache: local processes get a copy of it
    inputs: list[list[str]] = field(
        default_factory=list
    )  # [URL, where it is to lie] of what is downloaded first
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)  # as recorded: without secrets
    facts: dict[str, Any] = field(default_factory=dict)  # as recorded
    line: str = ""  # the command line that does the same, without secrets
    shown: list[str] = field(default_factory=list)  # the command without secrets
    docker: dict[str, Any] = field(default_factory=dict)
    python: dict[str, Any] = field(default_factory=dict)
    # settings, and what the job runs in on its node; of a sweep also the number of tasks, or which of them it is
    slurm: dict[str, Any] = field(default_factory=dict)
    gpu: str = "none"  # none, free, a number, or UUIDs
    mlflow: bool = False  # the project logs with MLflow
    waits: bool = False  # in the queue until its GPUs are free
    created_ms: int = 0

    def to_json(self) -> str:
        """One line, with secrets: for a pipe, never for a file."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def public(self) -> dict[str, Any]:
        """What is written down of it."""
        kept = asdict(self)
        for name in ("command", "environment"):
            del kept[name]
        kept["inputs"] = [["", place] for _, place in self.inputs]
        # Requirements may name an index or a repository with a password.
        kept["docker"] = {
            name: value for name, value in self.docker.items() if name not in ("build_args", "files")
        }
        kept["python"] = {}
        return kept


def job_from(table: dict[str, Any]) -> Job:
    """A job from its JSON; what a newer version added is left out. Raises TypeError for what is not of its type."""
    known = {item.name: str(item.type) for item in fields(Job)}
    given = {name: value for name, value in table.items() if name in known}
    for name, value in given.items():
        if not _is_of(value, known[name]):
            raise TypeError(f"{name} of a job is {known[name]}")
    slurm = kept(
        given.get("slurm", {}), {"tasks": int, "task": int, "children": list, "inside": str, "image": str}
    )
    facts = kept(given.get("facts", {}), {"project": {"address": str, "entry": str}})
    return Job(**{"command": [], "environment": {}, **given, "slurm": slurm, "facts": facts})


def _is_of(value: object, type_name: str) -> bool:
    if type_name.endswith(" | None"):
        return value is None or _is_of(value, type_name.removesuffix(" | None"))
    kind = {"str": str, "bool": bool, "int": int, "list": list, "dict": dict}[type_name.partition("[")[0]]
    if not isinstance(value, kind):
        return False
    if type_name in ("list[str]", "dict[str, str]"):
        items = value.values() if isinstance(value, dict) else cast("list[object]", value)
        return all(isinstance(item, str) for item in items)
    return True


Types: TypeAlias = "Mapping[str, type | Types]"


def kept(table: Mapping[str, Any], types: Types) -> dict[str, Any]:
    """``table`` without what is not of its type there: others may have written it. Whole numbers have 64 bits."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        kind = types.get(name)
        if isinstance(kind, Mapping):
            if isinstance(value, dict):
                found[name] = kept(value, kind)
        elif kind is None or value is None or (isinstance(value, kind) and not _is_huge(value)):
            found[name] = value
    return found


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= 1 << 63
