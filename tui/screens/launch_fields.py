"""The fields of the form to launch a project, tab by tab: pure, from what was asked for and what the worker answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from mltrack.store.client.secrets import REDACTED, looks_secret

Field: TypeAlias = tuple[str, str, str, str]
"""Key, label, value and note. Keys that begin with ``line`` are only read."""

# Of a Slurm job, with what may stand there; others in profiles.toml and by `mltrack run --slurm`.
SLURM = {
    "partition": "of the cluster: sinfo lists them",
    "time": "30 (minutes), 2:00:00, 1-12 (days-hours)",
    "cpus": "a number",
    "memory": "16g, of a node",
    "gres": "gpu:2, gpu:a100:1",
}
_OF_ENVIRONMENT = ("code", "image", "venv", "slurm", "note", "problem")


def fields_of(
    tab: int, asked: Mapping[str, Any], form: Mapping[str, Any], plan: Mapping[str, Any] | None
) -> list[Field]:
    """The fields of a tab (0 parameters, 1 environment, 2 machine); ``plan`` is None while it is made."""
    lines = [(head, text) for head, text in plan["lines"]] if plan else []
    if tab == 0:
        return _parameters(asked, form, lines)
    if tab == 1:
        docker = plan["dockerfile"].splitlines() if plan else []
        return _environment(asked, form, lines, docker)
    return _machine(asked, form, lines)


def parameters_of(form: Mapping[str, Any], entry: str) -> list[dict[str, Any]]:
    """What an entry point declares: {"name", "type", "default", "help"} each."""
    return next((one["parameters"] for one in form["entries"] if one["name"] == entry), [])


def _parameters(
    asked: Mapping[str, Any], form: Mapping[str, Any], lines: list[tuple[str, str]]
) -> list[Field]:
    several = f"{len(form['entries'])} of them" if len(form["entries"]) > 1 else ""
    fields: list[Field] = [
        ("go", "▶ launch", "enter here, r anywhere", ""),
        ("entry", "entry point", str(asked["entry"]), several),
    ]
    given, declared = asked["params"], parameters_of(form, asked["entry"])
    widest = max((len(one["type"]) for one in declared), default=0)
    for one in declared:
        name = one["name"]
        value = given.get(name, one["default"])
        says = ("" if name in given or value is None else "default", one["help"])
        note = "  ".join((one["type"].ljust(widest), *(part for part in says if part)))
        fields.append((f"P {name}", name, "needed" if value is None else _shown(name, value), note))
    known = {one["name"] for one in declared}
    fields += [
        (f"P {name}", name, _shown(name, value), "not declared")
        for name, value in given.items()
        if name not in known
    ]
    fields.append(("more", "+", "another parameter", "1,2,3 and 0..4 make a sweep"))
    command = next((text for head, text in lines if head == "command"), "")
    return [*fields, ("line gap", "", "", ""), ("line command", "runs", command, "")] if command else fields


def _shown(name: str, value: str) -> str:
    return REDACTED if value and looks_secret(name, value) else value


def _environment(
    asked: Mapping[str, Any], form: Mapping[str, Any], lines: list[tuple[str, str]], docker: list[str]
) -> list[Field]:
    backend = str(asked.get("backend") or "chosen by itself")
    fields: list[Field] = [
        ("backend", "backend", backend, ", ".join(form["backends"])),
        ("profile", "profile", str(asked.get("profile") or "default"), "of profiles.toml"),
    ]
    fields += [
        (f"line {n}", head, text, "") for n, (head, text) in enumerate(lines) if head in _OF_ENVIRONMENT
    ]
    return fields + [
        (f"line D{n}", "Dockerfile" if n == 0 else "", text, "") for n, text in enumerate(docker)
    ]


def _machine(asked: Mapping[str, Any], form: Mapping[str, Any], lines: list[tuple[str, str]]) -> list[Field]:
    slurm = asked.get("backend") == "slurm"
    note = "none or a number: Slurm chooses them" if slurm else "none, free, a number, gpu0"
    gpu = str(asked.get("gpu") or "none")
    fields: list[Field] = [("gpu", "gpu", gpu, note)]
    if slurm:
        chosen = dict(asked.get("slurm") or {})
        fields += [(f"S {name}", name, chosen.get(name, ""), note) for name, note in SLURM.items()]
    else:
        if gpu not in ("none", "0"):
            fields.append(("queue", "wait for it", "yes" if asked.get("queue") else "no", "until it is free"))
        there = form["gpus"] or [f"none: {form['no_gpu']}"]
        fields += [(f"line G{n}", "" if n else "gpus here", text, "") for n, text in enumerate(there)]
    usual = "all" if slurm else "1"
    fields += [
        ("experiment", "experiment", str(asked.get("experiment") or form["title"]), "of the run"),
        ("name", "name", str(asked.get("name") or "made up"), "of the run"),
        ("at_once", "at a time", str(asked.get("at_once") or usual), "runs of a sweep"),
    ]
    return fields + [
        (f"line {n}", head, text, "")
        for n, (head, text) in enumerate(lines)
        if head in ("variables", "mount")
    ]
