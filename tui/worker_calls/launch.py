"""What the screens Projects, Launch and Jobs ask. Fetching, planning and starting take their time: they go on in threads,
and the screen asks again until they are done."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack.projects.errors import LaunchError, ProjectError
from mltrack.projects.fetch import Fetched, fetch, parse_address
from mltrack.projects.gpus import list_gpus
from mltrack.projects.jobs import JobState, job_folder, list_jobs, read_job, stop_job
from mltrack.projects.launch import Launcher, start, start_sweep, take_up_orphans
from mltrack.projects.plan import BACKENDS, Plan, Request, make_plan
from mltrack.projects.planned_job import command_line
from mltrack.projects.remembered import last_choices, recent
from mltrack.projects.slurm_jobs import look, with_sweeps
from mltrack.projects.slurm_queue import is_fresh
from mltrack.projects.spec import Project, read_project
from mltrack.projects.sweep import expand, grid, swept_texts
from mltrack.store.client.journal import run_folder
from mltrack.store.client.location import StoreChoice, choose_store
from mltrack.store.client.secrets import REDACTED
from mltrack.store.errors import MltrackError
from mltrack.store.store import Store
from mltrack.tui.cli.jobs import job_json, phase_text
from mltrack.tui.cli.launch import as_typed, plan_lines
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.draw.times import format_age

_MOST_FOLDERS = 300
_MOST_JOBS = 200
_KEPT = 16
_TAIL_BYTES, _TAIL_LINES = 8192, 20
# scancel answers in milliseconds; a controller that is busy is not waited for.
_STOP_SECONDS = 1.0

_results: dict[str, dict[str, Any]] = {}
_fetched: dict[str, Fetched] = {}
_plans: dict[str, list[tuple[dict[str, str], Plan]]] = {}
_launcher: Launcher | None = None
_taken_up = False
_asking = False


def _later(key: str, work: Callable[[], dict[str, Any]], again: bool = False) -> dict[str, Any]:
    """The result of ``work``, which goes on in a thread: {"working": True} until it is there, or {"error": sentence}."""
    known = _results.get(key)
    if known is not None and not (again and not known.get("working")):
        return known
    _results[key] = {"working": True}
    while len(_results) > _KEPT:
        _results.pop(next(iter(_results)))

    def run() -> None:
        try:
            _results[key] = work()
        except MltrackError as error:
            _results[key] = {"error": error.message}
        except OSError as error:
            _results[key] = {"error": f"{error.filename or 'the system'}: {error.strerror or error}"}

    threading.Thread(target=run, daemon=True).start()
    return _results[key]


def _choice(store: Store) -> StoreChoice:
    """The store of this worker as the launch knows it; it was opened under this address."""
    chosen = choose_store(os.environ.get("MLTRACK_STORE") or None)
    return chosen if chosen.root == store.root else StoreChoice(str(store.root), store.root, "the open store")


# -- projects


def projects_page(store: Store) -> dict[str, Any]:
    """Rows of recent projects, and of those that lie where the app was started: [address, name, what, age in text]."""
    rows: list[list[str]] = []
    now = now_ms()
    for address, choices in recent():
        age = format_age(max(0.0, (now - int(choices.get("time_ms") or now)) / 1000))
        rows.append(
            [
                address,
                str(choices.get("name", "")),
                f"{choices.get('entry', '')}  {choices.get('backend', '')}",
                age,
            ]
        )
    known = {row[0] for row in rows}
    for folder in _discovered(Path.cwd()):
        if str(folder) not in known:
            rows.append([str(folder), folder.name, "found here", ""])
    return {"rows": rows, "folder": str(Path.cwd())}


def _discovered(start_folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        below = sorted(
            entry.path
            for entry in os.scandir(start_folder)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError:
        below = []
    for folder in (start_folder, *map(Path, below[:_MOST_FOLDERS])):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        declared = any(name.lower() == "mlproject" for name in names)
        if not declared and "pyproject.toml" in names:
            try:
                declared = b"[tool.mltrack" in (folder / "pyproject.toml").read_bytes()[: 1 << 20]
            except OSError:
                declared = False
        if declared:
            found.append(folder)
    return found


# -- the form


def launch_form(store: Store, address: str, again: bool = False) -> dict[str, Any]:
    """What a project declares, and what was chosen for it the last time."""
    global _launcher
    if _launcher is None:
        _launcher = Launcher("docker")

    def work() -> dict[str, Any]:
        fetched = fetch(parse_address(address))
        _fetched[address] = fetched
        project = read_project(fetched.folder)
        gpus, why = list_gpus()
        last = last_choices(fetched.address.shown)
        return {
            "address": fetched.address.shown,
            "title": project.name or fetched.folder.name,
            "commit": fetched.commit or "",
            "dirty": fetched.dirty,
            "entries": _entries(project),
            "last": {**last, "given": as_typed(last)},
            "backends": [name for name in BACKENDS if name != "slurm" or shutil.which("sbatch")],
            "gpus": [
                f"gpu{gpu.index}  {gpu.name}  {gpu.memory_bytes >> 30} GB  {'free' if gpu.free else 'in use'}"
                for gpu in gpus
            ],
            "no_gpu": why,
        }

    return _later(f"form {address}", work, again)


def _entries(project: Project) -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "command": entry.command.strip(),
            "parameters": [
                {
                    "name": one.name,
                    "type": one.type,
                    "default": None if one.default is None else str(one.default),
                    "help": one.help,
                }
                for one in entry.parameters.values()
            ],
        }
        for entry in project.entry_points.values()
    ]


def launch_plan(store: Store, asked: dict[str, Any], again: bool = False) -> dict[str, Any]:
    """What would happen: {"lines", "verdict", "ok", "line", "dockerfile", "trusted", "source"}."""
    key = _key(asked)
    choice = _choice(store)

    def work() -> dict[str, Any]:
        plans = _make_plans(asked, choice)
        while len(_plans) >= _KEPT:
            _plans.pop(next(iter(_plans)))
        _plans[key] = plans
        plan = plans[0][1]
        swept = swept_texts([one for one, _ in plans])
        return {
            "lines": [list(line) for line in plan_lines(plan)],
            "verdict": _verdict(plan, len(plans)),
            "ok": not plan.problems,
            "line": command_line(plan, swept, int(asked.get("at_once") or 0)) if swept else plan.line,
            "dockerfile": plan.dockerfile,
            "trusted": plan.trusted,
            "source": plan.fetched.address.shown,
            "commit": (plan.fetched.commit or "")[:12],
        }

    return _later(f"plan {key}", work, again)


def _key(asked: dict[str, Any]) -> str:
    return json.dumps(asked, sort_keys=True)


def _make_plans(asked: dict[str, Any], choice: StoreChoice) -> list[tuple[dict[str, str], Plan]]:
    address = str(asked["address"])
    known = _fetched.get(address)
    fetched = known if known is not None and known.address.is_git else None
    given = {str(name): str(value) for name, value in dict(asked.get("params") or {}).items()}
    for name, value in given.items():
        if value == REDACTED:
            raise ProjectError(f"The value of {name} was a secret and is not kept: type it again.")
    several = {
        name: values
        for name, values in ((name, expand(value)) for name, value in given.items())
        if len(values) > 1
    }
    request = Request(
        address,
        asked.get("entry") or None,
        {name: value.replace("\\,", ",") for name, value in given.items()},
        asked.get("experiment") or None,
        asked.get("name") or None,
        {},
        asked.get("backend") or None,
        asked.get("gpu") or None,
        asked.get("profile") or None,
        bool(asked.get("queue")),
        slurm={str(key): str(value) for key, value in dict(asked.get("slurm") or {}).items()},
    )
    plans: list[tuple[dict[str, str], Plan]] = []
    for one in grid(several) if several else [{}]:
        plan = make_plan(replace(request, params={**request.params, **one}), choice, fetched=fetched)
        fetched = plan.fetched
        plans.append((one, plan))
    return plans


def _verdict(plan: Plan, runs: int) -> str:
    if plan.problems:
        return plan.problems[0]
    what = f"{runs} runs" if runs > 1 else "1 run"
    how = {
        "docker": "in a container",
        "venv": "in a virtual environment",
        "local": "in the environment that is there",
        "slurm": f"as {'an array' if runs > 1 else 'a job'} of Slurm",
    }
    image = ""
    if plan.backend == "slurm" and plan.slurm.get("image"):
        image = f", in an image by {plan.slurm['inside']}"
    elif plan.backend != "local" and plan.slurm.get("inside") != "local":
        image = ", image cached" if plan.image_cached else ", image will be built"
        if plan.backend == "slurm":
            image = (
                f", in a virtual environment{' made already' if plan.image_cached else ' that will be made'}"
            )
        elif plan.backend == "venv":
            image = ", made already" if plan.image_cached else ", will be made"
    return f"ready: {what} {how[plan.backend]}{image}"


def launch_go(store: Store, asked: dict[str, Any], trusted: bool = False, ticket: str = "") -> dict[str, Any]:
    """Start what was planned: {"run_id", "name", "children"}. ``ticket`` makes one start of one key press."""
    key = _key(asked)

    def work() -> dict[str, Any]:
        global _launcher
        plans = _plans.get(key)
        if not plans:
            raise LaunchError("The plan is gone; look at it again.")
        if trusted:
            plans = [(one, replace(plan, trusted=True)) for one, plan in plans]
        launcher, _launcher = _launcher, None
        if len(plans) > 1:
            run_id, children = start_sweep(plans, int(asked.get("at_once") or 0), launcher)
            return {"run_id": run_id, "name": "sweep", "children": children}
        run_id, job = start(plans[0][1], launcher)
        return {"run_id": run_id, "name": job.run_name, "children": []}

    answer = _later(f"go {ticket} {key}", work)
    if "run_id" in answer:
        store.refresh(0.5)  # the screen of the run opens next
    return answer


# -- jobs


def jobs_page(store: Store, current: str | None = None) -> dict[str, Any]:
    """The jobs of this store, those that go on first, and more of the one whose run is ``current``:
    {"title": [name, project, entry point], "command", "tail": the last lines it printed}."""
    global _taken_up
    if not _taken_up and not store.database.readonly:
        _taken_up = True
        take_up_orphans(store.root)
    now = now_ms()
    jobs = _with_slurm(store, list_jobs(store.root, _MOST_JOBS))
    chosen = next((job for job in jobs if job.job.run_id == current), jobs[0] if jobs else None)
    return {
        "jobs": [{**job_json(job), "phase_text": phase_text(job), "age": _age(job, now)} for job in jobs],
        "detail": _detail(store, chosen) if chosen is not None else None,
    }


def _detail(store: Store, found: JobState) -> dict[str, Any]:
    asked = found.job.facts.get("project") or {}
    names = (found.job.run_name, str(asked.get("name") or ""), str(asked.get("entry") or ""))
    return {
        "run_id": found.job.run_id,
        "title": [name for name in names if name],
        "command": shlex.join(found.job.shown),
        "tail": _tail(run_folder(store.root, found.job.run_id) / "console.log"),
    }


def _tail(path: Path) -> list[str]:
    """The last lines of a log; of a bar that draws over itself what it shows now."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []  # nothing was printed yet, or the run was deleted
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return [line for line in lines if line.strip()][-_TAIL_LINES:]


def ask_slurm(store: Store) -> None:
    """What the app asks now and then, so that a job of Slurm ends in the table also when its node could not say so."""
    _with_slurm(store, list_jobs(store.root, _MOST_JOBS))


def _goes_on(jobs: list[JobState]) -> bool:
    return any(job.job.slurm and not job.ended for job in jobs)


def _with_slurm(store: Store, jobs: list[JobState]) -> list[JobState]:
    """The jobs as Slurm sees them; it is asked in a thread, because a controller may take its time."""
    if not (_goes_on(jobs) or _goes_on(with_sweeps(jobs))):
        return jobs
    if store.database.readonly:
        return look(jobs, ask=False)

    def ask() -> None:
        global _asking
        try:
            look(jobs)
        finally:
            _asking = False

    global _asking
    if not _asking and not is_fresh():
        _asking = True
        threading.Thread(target=ask, daemon=True).start()
    return look(jobs, ask=False)


def _age(job: JobState, now: int) -> str:
    return format_age(max(0.0, (now - job.job.created_ms) / 1000))


def job_stop(store: Store, run_id: str) -> dict[str, Any]:
    """Ask a job to end, without waiting for it."""
    found = read_job(job_folder(store.root, run_id))
    if found is None:
        raise LaunchError("There is no such job any more.")
    if found.job.slurm:
        stop_slurm(found)
        return {"name": found.job.run_name}
    stop_job(found, 0.0)
    return {"name": found.job.run_name}


def stop_slurm(found: JobState) -> None:
    """Let scancel do it in a thread, and wait a moment for what it says. Raises LaunchError with that."""

    def work() -> dict[str, Any]:
        stop_job(found, 0.0)
        return {}

    key = f"stop {found.job.run_id}"
    _later(key, work, again=True)
    deadline = time.monotonic() + _STOP_SECONDS
    while _results[key].get("working") and time.monotonic() < deadline:
        time.sleep(0.02)
    if "error" in _results[key]:
        raise LaunchError(str(_results[key]["error"]))


def launch_like(store: Store, run_id: str) -> dict[str, Any]:
    """The form of a run that was launched, filled in: {"address", "entry", "params", "backend", "gpu", "profile"}."""
    runs = store.runs([run_id])
    asked = runs[0].facts.get("project") if runs else None
    if not isinstance(asked, dict):
        job = read_job(job_folder(store.root, run_id))
        asked = job.job.facts.get("project") if job is not None else None
    if not isinstance(asked, dict):
        raise LaunchError("This run was not launched by mltrack, so it is not known how to run it again.")
    return {
        "address": str(asked.get("address", "")),
        "entry": asked.get("entry"),
        "params": as_typed(asked),
        "backend": asked.get("backend"),
        "gpu": asked.get("gpu"),
        "profile": asked.get("profile"),
        "slurm": dict(asked.get("slurm") or {}),
        "experiment": runs[0].experiment if runs else None,
    }


CALLS = (projects_page, launch_form, launch_plan, launch_go, jobs_page, job_stop, launch_like, ask_slurm)
