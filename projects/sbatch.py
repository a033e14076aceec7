"""The text that is handed to sbatch, and what may be asked of Slurm. Pure: equal settings give an equal script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mltrack.projects.errors import ProjectError
from mltrack.projects.profiles import parse_size

# What `--slurm KEY=VALUE` and a profile's [NAME.slurm] may hold, with the option of sbatch it becomes.
OPTIONS = {
    "partition": "partition",
    "gres": "gres",
    "time": "time",
    "cpus": "cpus-per-task",
    "memory": "mem",
    "nodes": "nodes",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
    "requeue": "",
    "container": "",
    "image": "",
}
CONTAINERS = ("apptainer", "singularity", "enroot")
# A word that sbatch takes as it stands: no blank, no quote, nothing that could begin another line.
_WORD = re.compile(r"[A-Za-z0-9_.,:;+=*/@%&|()\[\]~!<>-]+")
_TIME = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2}|UNLIMITED", re.IGNORECASE)
_END = "MLTRACK_JOB"


def checked_settings(given: Mapping[str, object]) -> dict[str, str]:
    """The settings as Slurm takes them. Raises ProjectError with a sentence on the first that it would not."""
    found: dict[str, str] = {}
    for key, value in given.items():
        if key not in OPTIONS:
            raise ProjectError(f"Slurm has no setting '{key}' here; there are {', '.join(OPTIONS)}.")
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value).strip()
        if not text:
            continue
        if not _WORD.fullmatch(text) or text.startswith("-"):
            raise ProjectError(f"'{text}' is no value for Slurm's {key}.")
        if key in ("cpus", "nodes") and (not text.isdigit() or int(text) < 1):
            raise ProjectError(f"Slurm's {key} is a number from 1, not '{text}'.")
        if key == "time" and not _TIME.fullmatch(text):
            raise ProjectError(f"'{text}' is no time such as 30 (minutes), 2:00:00 or 1-12 (days-hours).")
        if key == "memory":
            text = f"{max(1, -(-parse_size(text) >> 20))}M" if not text.isdigit() else f"{text}M"
        if key == "requeue" and text not in ("yes", "no"):
            raise ProjectError(f"Slurm's requeue is yes or no, not '{text}'.")
        if key == "container" and text not in CONTAINERS:
            raise ProjectError(f"Images are run by {', '.join(CONTAINERS)}, not '{text}'.")
        found[key] = text
    return found


def gres_of(gpu: str) -> str:
    """What `--gpu` asks of Slurm: ``2`` is gres gpu:2. Raises ProjectError for a GPU by name, which Slurm chooses itself."""
    if gpu in ("", "none", "0"):
        return ""
    if gpu == "free":
        return "gpu:1"
    if not gpu.isdigit():
        raise ProjectError(f"Slurm chooses GPUs itself: --gpu takes a number there, not '{gpu}'.")
    return f"gpu:{gpu}"


def job_name(name: str) -> str:
    """A run's name as Slurm's lists show it."""
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "_", name).strip("_-")[:60] or "mltrack"


def comment_of(run_id: str) -> str:
    """The link from a job to its run."""
    return f"mltrack:{run_id}"


def run_of(comment: str) -> str:
    """The run that a job's comment names; "" when it is none of ours."""
    found = re.fullmatch(r"mltrack:([0-9a-f]{32})", comment)
    return found[1] if found else ""


def render_script(
    *,
    run_id: str,
    name: str,
    settings: Mapping[str, str],
    folder: str,
    output: str,
    python: str,
    payload: str,
    tasks: int = 0,
    at_once: int = 0,
) -> str:
    """The batch script of a job, or of an array of ``tasks``. ``payload`` is one line of JSON for our process on the node.

    It stands in the script because Slurm keeps that to the job's owner, while arguments are seen by everybody.
    """
    lines = ["#!/bin/bash", f"#SBATCH --job-name={job_name(name)}", f"#SBATCH --comment={comment_of(run_id)}"]
    if tasks:
        limit = f"%{at_once}" if at_once else ""
        lines.append(f"#SBATCH --array=0-{tasks - 1}{limit}")
    lines += [
        f"#SBATCH --{OPTIONS[key]}={settings[key]}" for key in OPTIONS if settings.get(key) and OPTIONS[key]
    ]
    lines += [
        "#SBATCH --no-requeue" if settings.get("requeue") == "no" else "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --chdir={_quoted(folder)}",
        f"#SBATCH --output={_quoted(output)}",
        "",
        f"python={shlex.quote(python)}",
        'if [ ! -x "$python" ]; then',
        '    echo "mltrack: $python is not on $(hostname): install mltrack where every node sees it" >&2',
        "    exit 127",
        "fi",
        f"exec \"$python\" -P -m mltrack.projects.slurm_node <<'{_END}'",
        payload,
        _END,
        "",
    ]
    return "\n".join(lines)


def _quoted(path: str) -> str:
    """A path in a directive, which knows double quotes and backslashes only. Raises ProjectError for what cannot be said."""
    if "\n" in path or "\r" in path:
        raise ProjectError(f"Slurm takes no folder with a line break in its name: {path!r}.")
    if re.fullmatch(r"[A-Za-z0-9_./%@+=,:-]+", path):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def output_pattern(folder: str, name: str) -> str:
    """Where Slurm writes a job's output. ``name`` is Slurm's to fill in, the folder is not. Raises ProjectError."""
    if "\\" in folder:
        raise ProjectError(
            f"Slurm takes no folder with a backslash in its name for a job's output: {folder}."
        )
    return f"{folder.replace('%', '%%')}/{name}"


# Variables that would overrule what the script says.
_OVERRULE = (
    "SBATCH_ARRAY_INX SBATCH_COMMENT SBATCH_EXPORT SBATCH_JOB_NAME SBATCH_NO_REQUEUE SBATCH_OPEN_MODE SBATCH_OUTPUT "
    "SBATCH_REQUEUE SBATCH_WAIT"
).split()
_OF_SETTINGS = {
    "partition": "SBATCH_PARTITION",
    "gres": "SBATCH_GRES",
    "time": "SBATCH_TIMELIMIT",
    "account": "SBATCH_ACCOUNT",
    "qos": "SBATCH_QOS",
    "constraint": "SBATCH_CONSTRAINT",
    "reservation": "SBATCH_RESERVATION",
    "memory": "SBATCH_MEM_PER_NODE",
}


# What sends a command of Slurm to another cluster, lets it see fewer jobs, or writes times in another way than is read here.
_ELSEWHERE = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS", "SBATCH_ERROR", "SLURM_TIME_FORMAT")
_NARROWING = ("SQUEUE_", "SCANCEL_", "SACCT_")


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What every command of Slurm gets of an environment."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _ELSEWHERE and not name.startswith(_NARROWING)
    }


def submit_environment(environment: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """What sbatch gets, and passes on to the job: without another job's variables and without overruling the script."""
    dropped = {*_OVERRULE, *(name for key, name in _OF_SETTINGS.items() if settings.get(key))}
    return {
        name: value
        for name, value in slurm_environment(environment).items()
        if name not in dropped
        and (not name.startswith("SLURM_") or name == "SLURM_CONF")
        and name != "CUDA_VISIBLE_DEVICES"  # which GPUs the job has, Slurm says
    }


def container_command(
    tool: str, image: str, command: Sequence[str], folder: str, binds: Sequence[str], gpus: bool
) -> list[str]:
    """A command inside an image; the folders of ``binds`` are there under their own paths."""
    if tool == "enroot":
        kept = re.sub(r"[^A-Za-z0-9_.-]+", "+", image)
        mounts = [word for path in binds for word in ("--mount", f"{path}:{path}")]
        started = shlex.join(["enroot", "start", "--rw", *mounts])
        script = (
            f'at="${{ENROOT_CACHE_PATH:-$HOME/.cache/enroot}}/"{shlex.quote(kept + ".sqsh")}; '
            f'[ -e "$at" ] || enroot import -o "$at" {shlex.quote(reference(image, "#"))} || exit 125; '
            f'exec {started} "$at" sh -c \'cd "$0" && exec "$@"\' {shlex.quote(folder)} "$@"'
        )
        return ["bash", "-c", script, "enroot", *command]
    bound = [word for path in binds for word in ("--bind", path)]
    return [
        tool,
        "exec",
        *(["--nv"] if gpus else []),
        *bound,
        "--pwd",
        folder,
        reference(image, "/"),
        *command,
    ]


def reference(image: str, after_host: str) -> str:
    """An image of a registry as Apptainer (``/``) or enroot (``#``) names it; files and addresses stay as they are."""
    if "://" in image or image.startswith(("/", "./")) or image.endswith((".sif", ".sqsh")):
        return image
    host, slash, rest = image.partition("/")
    if slash and ("." in host or ":" in host):
        return f"docker://{host}{after_host}{rest}"
    return f"docker://{image}"


def public_settings(settings: Mapping[str, Any]) -> str:
    """The settings on one line, as a plan shows them."""
    return (
        "  ".join(f"{key} {value}" for key, value in settings.items()) or "what the cluster gives by itself"
    )
