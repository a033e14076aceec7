"""The job that a plan describes, and the command line that does the same; neither starts anything."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mltrack.projects.conda import conda_file
from mltrack.projects.errors import ProjectError
from mltrack.projects.gpus import list_gpus
from mltrack.projects.identity import (
    STORE_IN_CONTAINER,
    client_folder,
    identity_variables,
    with_client,
    without_foreign_identity,
)
from mltrack.projects.job import Job
from mltrack.projects.mlflow_bridge import logs_with_mlflow
from mltrack.store.client import host
from mltrack.store.client.journal import now_ms, random_hex
from mltrack.store.client.names import run_name
from mltrack.store.client.secrets import (
    GIVEN,
    GIVEN_LENGTH,
    REDACTED,
    looks_secret,
    redact_text,
    redact_url,
)

if TYPE_CHECKING:
    from mltrack.projects.plan import Plan


def redacted_value(name: str, value: str) -> str:
    """The value of a parameter as it may be kept and shown."""
    return REDACTED if value and looks_secret(name, value) else redact_text(value)


def python_part(plan: Plan) -> dict[str, Any]:
    environment = plan.environment
    return {
        "version": environment.python,
        "build": list(environment.build_dependencies),
        "lines": list(environment.dependencies),
        "constraints": list(environment.constraints),
        "local": list(environment.local),
        "conda": conda_file(environment),
    }


def job_of(plan: Plan, *, parent: str | None = None, name: str | None = None) -> Job:
    """The job that a plan describes. Raises ProjectError for what it needs and is not here."""
    fetched, request = plan.fetched, plan.request
    run_id = random_hex(32)
    params = {key: redacted_value(key, value) for key, value in plan.values.all.items()}
    params.update({key: redact_url(url) for key, url, _ in plan.values.remote})
    said = plan.values.absolute(request.params)
    given = {key: redacted_value(key, value) for key, value in said.items()}
    tags = {
        "mlflow.source.name": fetched.address.shown,
        "mlflow.source.type": "PROJECT",
        "mlflow.project.entryPoint": plan.entry.name,
        "mlflow.project.env": {"docker": "docker", "venv": "virtualenv"}.get(
            str(plan.slurm.get("inside", plan.backend)), "local"
        ),
        "mlflow.project.backend": "slurm" if plan.slurm else "local",
        "mlflow.user": host.user(),
    }
    optional = {
        "mlflow.source.git.commit": fetched.commit,
        "mlflow.source.git.repoURL": fetched.remote,
        "mlflow.source.git.branch": fetched.branch,
        "mlflow.parentRunId": parent,
    }
    tags.update({key: value for key, value in optional.items() if value})
    tags.update({key: redacted_value(key, str(value)) for key, value in request.tags.items()})
    facts: dict[str, Any] = {
        "cwd": str(plan.project.folder),
        "project": {
            "address": fetched.address.shown,
            "name": plan.title,
            "entry": plan.entry.name,
            "given": given,
            "backend": plan.backend,
            "profile": plan.profile.name,
            "gpu": plan.gpu,
            **({"slurm": dict(plan.slurm["asked"])} if plan.slurm else {}),
        },
    }
    if fetched.commit:
        facts["git"] = {
            "commit": fetched.commit,
            "branch": fetched.branch,
            "remote": fetched.remote,
            "dirty": fetched.dirty,
            "patch": None,
            "complete": fetched.complete,
            "left_out": list(fetched.left_out),
        }
    inside = plan.backend == "docker"
    where = STORE_IN_CONTAINER if inside else plan.store.url
    variables = identity_variables(run_id, plan.experiment, where)
    hidden = [value for key, value in plan.values.all.items() if looks_secret(key, value)]
    if any(len(value) >= GIVEN_LENGTH for value in hidden):
        variables[GIVEN] = json.dumps(hidden)
    environment = {**variables, **plan.command.environment}
    if inside:
        environment.update(_passed_on(plan))
    else:
        own = without_foreign_identity(dict(os.environ))
        if plan.gpu == "none" and not plan.slurm and list_gpus()[0]:
            own["CUDA_VISIBLE_DEVICES"] = ""  # a launch never takes all GPUs because nobody said anything
        if (
            not plan.slurm
        ):  # our own process on the node needs all of us there; it adds the client for the job
            own["PYTHONPATH"] = with_client(own.get("PYTHONPATH"), str(client_folder()))
        environment = {**own, **environment}
    return Job(
        run_id=run_id,
        run_name=name or request.name or run_name(),
        experiment=plan.experiment,
        store=plan.store.url,
        root=str(plan.store.root),
        backend=plan.backend,
        command=list(plan.command.argv),
        environment=environment,
        folder=str(plan.project.folder),
        inputs=[[url, str(place)] for _, url, place in plan.values.remote],
        copies=fetched.address.is_git,
        parent=parent,
        tags=tags,
        params=params,
        facts=facts,
        line=plan.line,
        shown=list(plan.shown),
        docker=dict(plan.docker),
        python=python_part(plan),
        slurm=dict(plan.slurm),
        gpu=",".join(plan.gpus) or plan.gpu,
        mlflow=not variables.get("MLFLOW_TRACKING_URI")
        and logs_with_mlflow(plan.environment, plan.project.folder)
        and (not inside or plan.environment.image is None),
        waits=request.queue and plan.gpu != "none" and not plan.slurm,
        created_ms=now_ms(),
    )


def _passed_on(plan: Plan) -> dict[str, str]:
    """Variables of the project and the profile; a name alone is copied from here, and must be set here."""
    passed: dict[str, str] = {}
    for name, value in plan.environment.variables:
        if value is None and name not in os.environ:
            raise ProjectError(
                f"The project passes on the environment variable {name}, which is not set here."
            )
        passed[name] = os.environ[name] if value is None else value
    for name in plan.profile.environment:
        if name in os.environ:
            passed.setdefault(name, os.environ[name])
    return passed


def command_line(plan: Plan, swept: Mapping[str, str] | None = None, at_once: int = 0) -> str:
    """The `mltrack run` line that does the same, without secrets; of a sweep with what varies as ``1,2,3``, ``at_once`` at a time."""
    request = plan.request
    words = ["mltrack", "run", plan.fetched.address.shown, "-e", plan.entry.name]
    for name, value in plan.values.absolute(request.params).items():
        several = (swept or {}).get(name)
        shown = redacted_value(name, value).replace(",", "\\,") if several is None else several
        words += ["-P", f"{name}={shown}"]
    words += ["-x", plan.experiment] if request.experiment else []
    words += ["--name", request.name] if request.name else []
    for key, value in request.tags.items():
        words += ["--tag", f"{key}={redacted_value(key, value)}"]
    words += ["--backend", plan.backend]
    words += ["--gpu", plan.gpu] if plan.gpu != "none" else []
    for key, value in plan.slurm.get("asked", request.slurm).items():
        words += ["--slurm", f"{key}={value}"]
    words += ["--profile", plan.profile.name] if plan.profile.name != "default" else []
    words += ["--queue"] if request.queue else []
    words += [word for path in request.allow_mounts for word in ("--allow-mount", path)]
    words += ["--jobs", str(at_once)] if at_once else []
    return shlex.join(words)
