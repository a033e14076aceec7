"""Everything a launch will do, before it does any of it: commit, entry point, argv, environment, image, mounts, GPUs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mltrack.projects.command import Command, Values, build_command, parameter_values
from mltrack.projects.conda import find_tool, honoured
from mltrack.projects.dockerfile import (
    CONDA_TOOL,
    base_image,
    checked_image,
    render_dockerfile,
    requirement_files,
)
from mltrack.projects.environment import Environment, read_environment
from mltrack.projects.errors import LaunchError, ProjectError
from mltrack.projects.fetch import Fetched, fetch, parse_address
from mltrack.projects.gpus import choose_gpus, lease_folder, list_gpus
from mltrack.projects.image_context import collect_source, content_hash
from mltrack.projects.mounts import ROOT_HOME, Mount, check_mount, parse_volume
from mltrack.projects.planned_job import command_line, python_part, redacted_value
from mltrack.projects.profiles import Profile, read_profile
from mltrack.projects.remembered import is_trusted, last_choices
from mltrack.projects.spec import EntryPoint, Project, read_project
from mltrack.store.client import host
from mltrack.store.client.location import StoreChoice
from mltrack.store.client.secrets import looks_secret, redact_command, redact_url

BACKENDS = ("docker", "venv", "local", "slurm")
CODE_FOLDER = "/mlflow/projects/code"


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for; None is "as last time, else the usual"."""

    address: str
    entry: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    backend: str | None = None
    gpu: str | None = None
    profile: str | None = None
    queue: bool = False
    allow_mounts: tuple[str, ...] = ()
    slurm: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will happen. ``problems`` are reasons why it cannot work; ``notes`` what one should know."""

    request: Request
    store: StoreChoice
    fetched: Fetched
    project: Project
    entry: EntryPoint
    values: Values
    command: Command
    shown: tuple[str, ...]
    environment: Environment
    backend: str
    profile: Profile
    gpu: str
    gpus: tuple[str, ...] = ()
    dockerfile: str = ""
    image: str = ""
    image_cached: bool = False
    mounts: tuple[Mount, ...] = ()
    docker: dict[str, Any] = field(default_factory=dict)
    slurm: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trusted: bool = True
    line: str = ""

    @property
    def experiment(self) -> str:
        """The experiment of the run: asked for, or named like the project."""
        return self.request.experiment or os.environ.get("MLTRACK_EXPERIMENT") or self.title

    @property
    def title(self) -> str:
        """The project's name, or its folder's."""
        return self.project.name or self.project.folder.name


def make_plan(
    request: Request,
    store: StoreChoice,
    say: Callable[[str], object] = lambda line: None,
    fetched: Fetched | None = None,
) -> Plan:
    """Look at everything; start nothing. Raises ProjectError for what is wrong with the request or the project."""
    fetched = fetched or fetch(parse_address(request.address), say)
    project = read_project(fetched.folder)
    entry = project.entry_point(request.entry)
    values = parameter_values(entry, request.params, project.folder)
    command = build_command(entry, values)
    environment = read_environment(project)
    last = last_choices(fetched.address.shown)
    profile = read_profile(request.profile or project.settings.profile or last.get("profile"))
    backend = _choose_backend(request, profile, environment, last)
    environment = honoured(environment, backend)
    shown = tuple(redact_command(build_command(entry, _redacted(values)).argv))
    stray = bool(request.slurm) and backend != "slurm"
    plan = Plan(
        request,
        store,
        fetched,
        project,
        entry,
        values,
        command,
        shown,
        environment,
        backend,
        profile,
        request.gpu or str(last.get("gpu") or "none"),
        notes=(
            *fetched.notes,
            *environment.not_honoured,
            *(f"{name} will be downloaded from {redact_url(url)}" for name, url, _ in values.remote),
            *(("the settings for Slurm count with --backend slurm only",) if stray else ()),
        ),
        trusted=not fetched.address.is_git or is_trusted(fetched.remote, fetched.commit or ""),
    )
    if backend == "slurm":
        plan = _with_slurm(plan, last)
    else:
        plan = _with_gpus(plan)
    if backend == "docker":
        plan = _with_image(plan)
    elif backend == "slurm":
        if plan.slurm["inside"] == "venv":
            plan = _with_venv(plan)
    elif environment.image is not None:
        plan = replace(
            plan,
            problems=(
                *plan.problems,
                f"the project runs in the image {environment.image}: use --backend docker",
            ),
        )
    elif backend == "venv":
        plan = _with_venv(plan)
    elif environment.installs:
        plan = replace(plan, notes=(*plan.notes, "local: what the project declares is not installed"))
    return replace(plan, line=command_line(plan))


def _redacted(values: Values) -> Values:
    def hidden(table: dict[str, str]) -> dict[str, str]:
        return {name: redacted_value(name, value) for name, value in table.items()}

    return Values(hidden(values.declared), hidden(values.extra), values.paths, values.remote)


def _choose_backend(
    request: Request, profile: Profile, environment: Environment, last: Mapping[str, Any]
) -> str:
    chosen = (
        request.backend
        or (last.get("backend") if last.get("backend") in BACKENDS else None)
        or profile.backend
    )
    if chosen is not None:
        if chosen not in BACKENDS:
            raise ProjectError(f"There is no backend '{chosen}'. Choose one of {', '.join(BACKENDS)}.")
        return str(chosen)
    if environment.image is not None:
        return "docker"
    from mltrack.projects.backends.engine import connect

    try:
        connect(5).api.close()
    except LaunchError:
        return "venv" if environment.installs else "local"
    return "docker"


def _with_gpus(plan: Plan) -> Plan:
    if plan.gpu in ("", "none", "0"):
        return replace(plan, gpu="none")
    gpus, why = list_gpus()
    if not gpus:
        return replace(
            plan,
            problems=(*plan.problems, f"a GPU is wanted ({plan.gpu}), and {why}; --gpu none runs without"),
        )
    try:
        chosen = tuple(choose_gpus(plan.gpu, gpus))
    except ProjectError as error:
        if plan.request.queue:
            return replace(plan, notes=(*plan.notes, "waits in the queue until enough GPUs are free"))
        return replace(plan, problems=(*plan.problems, error.message))
    notes = plan.notes
    if not lease_folder()[1]:
        notes = (
            *notes,
            "GPUs are kept apart among your own launches only: this machine has no shared folder for leases",
        )
    return replace(plan, gpus=chosen, notes=notes)


def _with_slurm(plan: Plan, last: Mapping[str, Any]) -> Plan:
    """Settings of the profile, then those of the last time or this time; an image, or a virtual environment."""
    import shutil

    from mltrack.projects.sbatch import CONTAINERS, checked_settings, gres_of

    asked = plan.request.slurm or (last.get("slurm") if last.get("backend") == "slurm" else None) or {}
    settings = checked_settings({**plan.profile.slurm, **dict(asked)})
    gres = gres_of(plan.gpu)
    if gres and "gres" not in settings:
        settings["gres"] = gres
    problems, notes = plan.problems, plan.notes
    if shutil.which("sbatch") is None:
        problems = (*problems, "sbatch is not on this machine: jobs are submitted where Slurm's commands are")
    image = settings.pop("image", None) or plan.environment.image
    tool = settings.pop("container", None)
    inside = "venv" if plan.environment.installs else "local"
    if image is not None:
        inside = tool or next((name for name in CONTAINERS if shutil.which(name)), "")
        if not inside:
            problems = (
                *problems,
                f"the project runs in the image {image}, and none of {', '.join(CONTAINERS)} is here; --slurm container=NAME "
                "says which one the nodes have",
            )
    return replace(
        plan,
        gpu="none" if plan.gpu in ("", "0") else plan.gpu,
        image=image or "",
        slurm={
            "asked": {str(key): str(value) for key, value in dict(asked).items()},
            "settings": settings,
            "inside": inside or "local",
            **({"image": image} if image else {}),
        },
        problems=problems,
        notes=notes,
    )


def _with_venv(plan: Plan) -> Plan:
    from mltrack.projects.backends.venv import find_python, venv_folder

    folder = venv_folder(python_part(plan), str(plan.project.folder))
    notes, problems = plan.notes, plan.problems
    if plan.environment.system_packages:
        notes = (*notes, f"system packages are not installed: {', '.join(plan.environment.system_packages)}")
    import shutil

    if (
        not plan.environment.conda
        and find_python(plan.environment.python) is None
        and shutil.which("uv") is None
    ):
        problems = (
            *problems,
            f"Python {plan.environment.python} is not on this machine, and uv, which fetches it, neither",
        )
    return replace(
        plan, image=str(folder), image_cached=(folder / ".complete").exists(), notes=notes, problems=problems
    )


# -- containers


def _with_image(plan: Plan) -> Plan:
    from mltrack.projects.backends.engine import connect, local_image

    environment, profile, settings = plan.environment, plan.profile, plan.project.settings
    try:
        engine = connect(20)
    except LaunchError as error:
        return replace(plan, problems=(*plan.problems, error.message))
    try:
        notes = [*plan.notes, *engine.gaps]
        problems = list(plan.problems)
        if plan.gpus and engine.name == "docker" and not engine.gpu_runtime:
            problems.append("the engine has no GPU support; install nvidia-container-toolkit on this machine")
        docker: dict[str, Any] = {
            **_user(),
            "network": profile.network,
            "memory": profile.memory_bytes,
            "gpus": list(plan.gpus),
            "project": plan.title,
        }
        dockerfile, cached = "", False
        if environment.image is not None:
            image = checked_image(environment.image)
            cached = local_image(engine, image) is not None
            docker.update(image=image, code=CODE_FOLDER)
        else:
            wanted = (
                settings.gpu_base_image
                if plan.gpu != "none" and settings.gpu_base_image
                else settings.base_image
            )
            base = base_image(environment, wanted or profile.base_image, _own_python())
            dockerfile = render_dockerfile(
                environment, base, build_args=tuple(profile.build_args), certificates=profile.ca is not None
            )
            files = requirement_files(environment)
            source = collect_source(plan.project.folder)
            if source.secret:
                notes.append(
                    f"left out of the image, because they look like secrets: {', '.join(source.secret[:10])}"
                )
            context = {name: text.encode() for name, text in files.items()}
            if profile.ca is not None:
                context["mltrack-ca.crt"] = profile.ca.read_bytes()
            tool = find_tool("docker") if environment.conda else None
            if tool is not None:
                context[CONDA_TOOL] = Path(tool).read_bytes()
            found = local_image(engine, base)
            if found is None:
                notes.append(f"the base image {base} is not here and will be pulled")
            content = content_hash(dockerfile, context, source, str(found["Id"]) if found else "")
            image = f"mltrack/{_tag_name(plan.title)}:{content[:16]}"
            cached = local_image(engine, image) is not None
            for name, value in profile.build_args.items():
                if looks_secret(name, value) or "@" in value.partition("://")[2].partition("/")[0]:
                    notes.append(
                        f"the build argument {name} looks like a secret and stays in the image's history"
                    )
            docker.update(
                image=image,
                dockerfile=dockerfile,
                files=files,
                ca=str(profile.ca) if profile.ca else None,
                conda_tool=tool,
                content=content,
                base=base,
                build_args=profile.build_args,
                build_network=profile.build_network,
                workdir="/project",
            )
        mounts = tuple(_mounts(plan, engine.rootless))
        docker["mounts"] = [[mount.source, mount.target, mount.read_only] for mount in mounts]
    finally:
        engine.api.close()
    return replace(
        plan,
        dockerfile=dockerfile,
        image=image,
        image_cached=cached,
        mounts=mounts,
        docker=docker,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _own_python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _tag_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "project"


def _user() -> dict[str, Any]:
    uid, gid = os.geteuid(), os.getegid()
    name = re.sub(r"[^a-z0-9_-]", "", host.user().lower())[:32]
    if not re.match(r"[a-z_]", name) or (name == "root" and uid != 0):
        name = f"user{uid}"
    return {"uid": uid, "gid": gid, "user": name, "groups": sorted(set(os.getgroups()) - {gid})}


def _mounts(plan: Plan, rootless: bool) -> list[Mount]:
    found = [Mount(str(path), str(path), True) for path in plan.values.paths]
    if plan.environment.image is not None:
        found.append(Mount(str(plan.project.folder), CODE_FOLDER, True))
        found += [parse_volume(volume, plan.project.folder) for volume in plan.environment.volumes]
    user = _user()
    home = ROOT_HOME if rootless or user["uid"] == 0 else f"/home/{user['user']}"
    for folder in plan.profile.cache_mounts:
        source = Path(os.path.expanduser(folder))
        below = os.path.relpath(source, os.path.expanduser("~"))
        if below.startswith(".."):
            raise ProjectError(f"The cache folder {folder} of the profile does not lie below your home.")
        source.mkdir(mode=0o700, parents=True, exist_ok=True)
        found.append(Mount(str(source), f"{home}/{below}", False))
    unique = {mount.target: mount for mount in found}
    for mount in unique.values():
        check_mount(mount, plan.request.allow_mounts)
    return list(unique.values())
