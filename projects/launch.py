"""Starting what was planned: a supervisor that is ready before it is needed, sweeps, and taking up orphaned jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mltrack.projects.errors import LaunchError, ProjectError
from mltrack.projects.job import Job
from mltrack.projects.jobs import JobState, list_jobs
from mltrack.projects.plan import Plan
from mltrack.projects.planned_job import command_line, job_of, redacted_value
from mltrack.projects.remembered import remember, trust
from mltrack.projects.sweep import child_name, swept_texts
from mltrack.store.client.artifacts import store_blob
from mltrack.store.client.journal import make_folder, now_ms

ANSWER_LIMIT = 1 << 20


class Launcher:
    """A supervisor that waits for its job, so that starting one costs no interpreter start. Use it once."""

    def __init__(self, backend: str = "local") -> None:
        # -P: the working folder is a project of somebody, and must not shadow a module.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mltrack.projects.supervise", f"--{backend}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let go of it: a supervisor without a job ends."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def start(self, message: str) -> dict[str, Any]:
        """Hand over a job; returns its answer once the run is there. Raises LaunchError."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            process.stdin.write(message.encode() + b"\n")
            process.stdin.close()
            line = process.stdout.readline(ANSWER_LIMIT)
            answer = json.loads(line) if line.strip() else {}
            if "run_id" in answer:
                return dict(answer)
            said = (
                answer.get("error")
                or process.stderr.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            )
        except (OSError, ValueError) as error:
            said = str(error)
        finally:
            self.close()
        raise LaunchError(f"The job could not be started: {said or 'its supervisor ended at once'}")


def start(plan: Plan, launcher: Launcher | None = None) -> tuple[str, Job]:
    """Start one job; returns its run id. The run is there when this returns. Raises ProjectError or LaunchError."""
    _check(plan)
    job = _recorded(plan, job_of(plan))
    answer = (launcher or Launcher(plan.backend)).start(job.to_json())
    _remember(plan)
    return str(answer["run_id"]), job


def start_sweep(
    plans: Sequence[tuple[Mapping[str, str], Plan]], at_once: int, launcher: Launcher | None = None
) -> tuple[str, list[str]]:
    """Start a parent with a child per plan, ``at_once`` at a time (0: one, or as many as Slurm gives); ``plans`` are (what
    varies, plan)."""
    first = plans[0][1]
    for _, plan in plans:
        _check(plan)
    parent = _recorded(first, job_of(first))
    swept = swept_texts([values for values, _ in plans])
    varied = sorted(swept)
    parent = replace(
        parent,
        backend="sweep",
        run_name=first.request.name or f"sweep {' '.join(varied)}"[:100],
        params={name: value for name, value in parent.params.items() if name not in varied},
        command=[],
        shown=["sweep", *varied],
        tags={**parent.tags, "mltrack.sweep": ",".join(varied)},
        facts={**parent.facts, "project": {**parent.facts["project"], "swept": swept}},
        line=command_line(first, swept, at_once),
        created_ms=now_ms(),
    )
    children = []
    for values, plan in plans:
        job = job_of(
            plan, parent=parent.run_id, name=child_name(first.request.name or first.entry.name, values)
        )
        children.append(replace(_recorded(plan, job), waits=plan.gpu != "none" and not plan.slurm))
    if first.slurm:
        # One array: the parent is the whole of it, and each child knows which task it is.
        ids = [child.run_id for child in children]
        parent = replace(parent, slurm={**first.slurm, "tasks": len(children), "children": ids})
        children = [
            replace(child, slurm={**child.slurm, "task": task}) for task, child in enumerate(children)
        ]
    message = {
        "parent": json.loads(parent.to_json()),
        "children": [json.loads(child.to_json()) for child in children],
        "at_once": max(0, at_once),
    }
    answer = (launcher or Launcher("sweep")).start(json.dumps(message))
    _remember(first)
    return str(answer["run_id"]), [child.run_id for child in children]


def _check(plan: Plan) -> None:
    if plan.problems:
        raise ProjectError("This cannot run: " + "; ".join(plan.problems) + ".")
    if not plan.trusted:
        raise ProjectError(
            f"{plan.fetched.address.shown} at {(plan.fetched.commit or '')[:12]} has not been run here before; --yes says "
            "that you trust it."
        )


def _recorded(plan: Plan, job: Job) -> Job:
    """The uncommitted changes go into the store before the run that names them."""
    root = Path(job.root)
    make_folder(root, root)
    if plan.fetched.patch is None or "git" not in job.facts:
        return job
    digest = store_blob(plan.fetched.patch, root)
    return replace(job, facts={**job.facts, "git": {**job.facts["git"], "patch": digest}})


def _remember(plan: Plan) -> None:
    if plan.fetched.address.is_git and plan.fetched.commit:
        trust(plan.fetched.remote, plan.fetched.commit)
    choices = {
        "name": plan.title,
        "entry": plan.entry.name,
        "backend": plan.backend,
        "gpu": plan.gpu if plan.gpu in ("none", "free") or plan.gpu.isdigit() else "none",
        "profile": plan.profile.name,
        "slurm": dict(plan.slurm.get("asked") or plan.request.slurm),
        "given": {name: value for name, value in job_params(plan).items() if value != "***"},
    }
    try:
        remember(plan.fetched.address.shown, choices)
    except OSError:
        return  # a read-only home loses a convenience, not a job


def job_params(plan: Plan) -> dict[str, str]:
    """The parameters as given, without secrets."""
    return {
        name: redacted_value(name, value) for name, value in plan.values.absolute(plan.request.params).items()
    }


def orphans(jobs: Sequence[JobState]) -> list[JobState]:
    """Jobs that go on, or say so, though nobody looks after them."""
    watched = {job.job.run_id for job in jobs if job.watched}
    return [
        job
        for job in jobs
        if not job.ended
        and not job.watched
        and not job.job.slurm
        and not (job.phase == "queued" and job.state.get("sweep") in watched)
    ]


def take_up_orphans(root: str | Path) -> list[str]:
    """Give every orphaned job of this user and machine a supervisor again; returns their run ids."""
    taken: list[str] = []
    for job in orphans(list_jobs(root)):
        if not job.own:
            continue
        from mltrack.store.client import host

        if (job.state.get("supervisor") or {}).get("machine", host.machine()) != host.machine():
            continue
        subprocess.Popen(
            [sys.executable, "-P", "-m", "mltrack.projects.supervise", "--attach", str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        taken.append(job.job.run_id)
    return taken
