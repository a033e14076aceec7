"""`mltrack run`: plan and start a project, alone or as a sweep, and follow it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mltrack.store.client.secrets import redact_text
from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_json, write_lines, write_text
from mltrack.tui.cli.session import Session, resolve_run

if TYPE_CHECKING:
    from mltrack.projects.plan import Plan, Request
    from mltrack.store.client.location import StoreChoice
    from mltrack.store.records import Run

_LOOK_SECONDS = 0.1
_SLURM_LOOK_SECONDS = 0.5


@click.command("run")
@click.argument("project", metavar="PROJECT")
@click.option("-e", "--entry", metavar="ENTRY", help="Entry point, or a .py or .sh file of the project.")
@click.option(
    "-P",
    "--param",
    "params",
    multiple=True,
    metavar="K=V",
    help="A parameter; K=1,2 and K=0..4 make a sweep.",
)
@click.option("-x", "--experiment", metavar="NAME", help="Experiment of the run.")
@click.option("--name", metavar="NAME", help="Name of the run.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="A tag of the run.")
@click.option("--backend", type=click.Choice(["docker", "venv", "local", "slurm"]), help="Where it runs.")
@click.option("--gpu", metavar="none|free|N|UUID", help="GPUs for it.")
@click.option("--queue", is_flag=True, help="Wait until the GPUs are free.")
@click.option("--profile", metavar="NAME", help="A profile of profiles.toml.")
@click.option(
    "--slurm",
    "slurm",
    multiple=True,
    metavar="K=V",
    help="Of a Slurm job: partition, gres, time, cpus, memory, nodes, account, qos, ...",
)
@click.option(
    "--jobs",
    "at_once",
    type=click.IntRange(min=1),
    metavar="N",
    help="So many of a sweep at a time; 1, and on Slurm as many as it gives.",
)
@click.option(
    "--allow-mount", "allow", multiple=True, metavar="PATH", help="Mount a place that is refused otherwise."
)
@click.option(
    "--follow/--detach",
    default=True,
    help="Print its output and end with its exit code (default), or return at once.",
)
@click.option("--dry-run", is_flag=True, help="Show what would happen, and start nothing.")
@click.option("-y", "--yes", is_flag=True, help="Trust this commit of the source.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def run_command(
    session: Session,
    project: str,
    entry: str | None,
    params: Sequence[str],
    experiment: str | None,
    name: str | None,
    tags: Sequence[str],
    backend: str | None,
    gpu: str | None,
    queue: bool,
    profile: str | None,
    slurm: Sequence[str],
    at_once: int | None,
    allow: Sequence[str],
    follow: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Run a project: a folder or GIT_URL, with #SUBDIR and @REVISION if needed.

    The job outlives this command; ctrl+c only stops following it.
    """
    from mltrack.projects.plan import Request
    from mltrack.projects.sweep import expand, grid

    if project.startswith("@"):
        project, entry, params, backend, gpu, profile, slurm = _again(
            session, project, entry, params, backend, gpu, profile, slurm
        )
    given = _pairs(params, "-P")
    request = Request(
        project,
        entry,
        {key: value.replace("\\,", ",") for key, value in given.items()},
        experiment,
        name,
        _pairs(tags, "--tag"),
        backend,
        gpu,
        profile,
        queue,
        tuple(str(Path(path).absolute()) for path in allow),
        _pairs(slurm, "--slurm"),
    )
    several = {key: expand(value) for key, value in given.items()}
    several = {key: values for key, values in several.items() if len(values) > 1}
    combinations = grid(several) if several else [{}]
    return _launch(session, request, combinations, at_once or 0, follow, dry_run, yes, as_json)


def _launch(
    session: Session,
    request: Request,
    combinations: Sequence[dict[str, str]],
    at_once: int,
    follow: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    from mltrack.projects.launch import Launcher, start, start_sweep
    from mltrack.projects.plan import make_plan
    from mltrack.projects.planned_job import command_line
    from mltrack.projects.sweep import swept_texts

    store = _store(session)
    sweep = len(combinations) > 1
    # Its interpreter starts while we look at the project.
    launcher = None if dry_run else Launcher("sweep" if sweep else request.backend or "docker")
    try:
        first = make_plan(_with(request, combinations[0]), store, warn)
        plans = [(combinations[0], first)]
        plans += [
            (one, make_plan(_with(request, one), store, warn, first.fetched)) for one in combinations[1:]
        ]
        if dry_run:
            swept = swept_texts(combinations)
            line = command_line(first, swept, at_once) if swept else first.line
            _show(session, [plan for _, plan in plans], as_json, line)
            return ExitCode.FAILED if first.problems else ExitCode.OK
        for note in first.notes:
            warn(note)
        if not first.trusted:
            _ask_trust(session, first, yes)
            plans = [(one, replace(plan, trusted=True)) for one, plan in plans]
        if sweep:
            run_id, children = start_sweep(plans, at_once, launcher)
        else:
            run_id, job = start(plans[0][1], launcher)
            children = []
            if not as_json:
                warn(
                    f"run {run_id[:12]} {job.run_name}; ctrl+c only stops following it"
                    if follow
                    else f"run {run_id[:12]} {job.run_name}"
                )
    finally:
        if launcher is not None:
            launcher.close()
    if not follow:
        if as_json:
            write_json({"run_id": run_id, "children": children})
        else:
            write_text(run_id, session.terminal)
        return ExitCode.OK
    return _follow(store.root, run_id, children, as_json)


def _store(session: Session) -> StoreChoice:
    from mltrack.store.client.location import choose_store

    return choose_store(session.where)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"{option} takes NAME=VALUE, not '{clean(text, 80)}'.")
        found[key] = value
    return found


def _with(request: Request, values: dict[str, str]) -> Request:
    return replace(request, params={**request.params, **values})


# -- the same again


def _again(
    session: Session,
    reference: str,
    entry: str | None,
    params: Sequence[str],
    backend: str | None,
    gpu: str | None,
    profile: str | None,
    slurm: Sequence[str],
) -> tuple[str, str | None, Sequence[str], str | None, str | None, str | None, Sequence[str]]:
    """What a run was launched with, after asking: a person who types `run @last` may want to see it."""
    with session.open() as store:
        run = resolve_run(store, reference)
    shown = f"`mltrack show {run.run_id[:12]}`"
    asked = run.facts.get("project")
    if not isinstance(asked, dict):
        raise BadInput(
            f"{clean(run.name, 60)} was not launched by mltrack and cannot be run again; did you mean {shown}?"
        )
    line = shlex.join(_line(run, asked))
    if not sys.stdin.isatty():
        raise BadInput(f"Did you mean show or rerun? {shown} shows it; this runs it again:\n{line}")
    sys.stderr.write(f"Did you mean show or rerun? {clean(line, None)}\n[s]how, [r]erun, [N]either: ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip().lower()
    if answer in ("s", "show"):
        from mltrack.tui.cli.show import write_page

        write_page(run, session.terminal, False)
        raise click.exceptions.Exit(0)
    if answer not in ("r", "rerun"):
        raise click.exceptions.Exit(int(ExitCode.FAILED))
    given = {
        **as_typed(asked),
        **_pairs(params, "-P"),
    }
    hidden = [key for key, value in given.items() if value == "***"]
    if hidden:
        raise BadInput(
            f"The value of {', '.join(hidden)} was a secret and is not kept; give it with -P {hidden[0]}=..."
        )
    return (
        str(asked.get("address")),
        entry or str(asked.get("entry")),
        [f"{key}={value}" for key, value in given.items()],
        backend or asked.get("backend"),
        gpu or asked.get("gpu"),
        profile or asked.get("profile"),
        slurm or [f"{key}={value}" for key, value in dict(asked.get("slurm") or {}).items()],
    )


def as_typed(asked: dict[str, Any]) -> dict[str, str]:
    """The parameters of a launch as they are typed, where a comma separates the values of a sweep."""
    given = {key: str(value).replace(",", "\\,") for key, value in dict(asked.get("given") or {}).items()}
    return {**given, **dict(asked.get("swept") or {})}


def _line(run: Run, asked: dict[str, Any]) -> list[str]:
    words = ["mltrack", "run", str(asked.get("address")), "-e", str(asked.get("entry"))]
    for key, value in as_typed(asked).items():
        words += ["-P", f"{key}={value}"]
    for key, value in dict(asked.get("slurm") or {}).items():
        words += ["--slurm", f"{key}={value}"]
    return [*words, "-x", run.experiment, "--backend", str(asked.get("backend"))]


# -- before the start


def plan_json(plan: Plan) -> dict[str, Any]:
    """The stable shape of `--dry-run --json`."""
    return {
        "project": plan.title,
        "address": plan.fetched.address.shown,
        "commit": plan.fetched.commit,
        "dirty": plan.fetched.dirty,
        "entry_point": plan.entry.name,
        "argv": list(plan.shown),
        "experiment": plan.experiment,
        "backend": plan.backend,
        "environment": {
            "python": plan.environment.python,
            "dependencies": [
                redact_text(line) for line in (*plan.environment.dependencies, *plan.environment.local)
            ],
            "system_packages": list(plan.environment.system_packages),
            "sources": list(plan.environment.sources),
        },
        "image": plan.image or None,
        "cached": plan.image_cached,
        "dockerfile": plan.dockerfile or None,
        "mounts": [[mount.source, mount.target, "ro" if mount.read_only else "rw"] for mount in plan.mounts],
        "gpus": list(plan.gpus),
        "slurm": plan.slurm or None,
        "profile": plan.profile.name,
        "trusted": plan.trusted,
        "problems": list(plan.problems),
        "notes": list(plan.notes),
        "line": plan.line,
    }


def plan_lines(plan: Plan) -> list[tuple[str, str]]:
    """(heading, text) of what will happen; the text is not cleaned."""
    from mltrack.projects.sbatch import public_settings

    fetched = plan.fetched
    code = (
        f"{fetched.commit[:12]}{' with uncommitted changes' if fetched.dirty else ''}"
        if fetched.commit
        else "not in git"
    )
    cached = (
        "is there already"
        if plan.image_cached
        else "will be made"
        if plan.backend in ("venv", "slurm")
        else "will be built"
    )
    if plan.environment.image is not None:
        cached = "is there already" if plan.image_cached else "will be pulled"
    lines = [
        ("project", f"{plan.title}  {fetched.address.shown}"),
        ("code", code),
        ("entry point", plan.entry.name),
        ("command", shlex.join(plan.shown)),
        ("backend", plan.backend),
        ("experiment", plan.experiment),
    ]
    if plan.slurm.get("image"):
        lines.append(("image", f"{plan.slurm['image']}  run by {plan.slurm['inside']}"))
    elif plan.image:
        lines.append(("image" if plan.backend == "docker" else "venv", f"{plan.image}  {cached}"))
    if plan.slurm:
        lines.append(("slurm", public_settings(plan.slurm["settings"])))
    passed = dict.fromkeys([name for name, _ in plan.environment.variables] + list(plan.profile.environment))
    if passed and plan.backend == "docker":
        lines.append(("variables", ", ".join(passed)))
    lines += [
        (
            "mount",
            f"{m.source}{'' if m.source == m.target else f' -> {m.target}'}{' (read-only)' if m.read_only else ''}",
        )
        for m in plan.mounts
    ]
    lines.append(("gpu", ", ".join(plan.gpus) or plan.gpu))
    lines += [("note", note) for note in plan.notes]
    lines += [("problem", problem) for problem in plan.problems]
    return lines


def _show(session: Session, plans: Sequence[Plan], as_json: bool, line: str) -> None:
    if as_json:
        write_json(plan_json(plans[0]) if len(plans) == 1 else [plan_json(plan) for plan in plans])
        return
    terminal, plan = session.terminal, plans[0]
    for heading, text in plan_lines(plan):
        style = "red" if heading == "problem" else None
        write_text(f"{heading:<12} {text}", terminal, style)
    if len(plans) > 1:
        write_text(f"{'sweep':<12} {len(plans)} runs; the first is shown", terminal)
    if plan.dockerfile:
        write_lines([""])
        for step in plan.dockerfile.splitlines():
            write_text(step, terminal, "dim")
    write_lines([""])
    write_text(_with_store(session, line), terminal)


def _with_store(session: Session, line: str) -> str:
    """The line with the store that was named for this command."""
    return (
        f"mltrack --store {shlex.quote(session.where)}{line.removeprefix('mltrack')}"
        if session.where
        else line
    )


def _ask_trust(session: Session, plan: Plan, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(
            "This commit of the source was not run here before; look with --dry-run, and add --yes to trust it."
        )
    for heading, text in plan_lines(plan):
        sys.stderr.write(f"{heading:<12} {clean(text, None)}\n")
    sys.stderr.write(f"Run this code of {clean(plan.fetched.address.shown, 200)}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise click.exceptions.Exit(int(ExitCode.FAILED))


# -- after it


def _follow(root: Path, run_id: str, children: Sequence[str], as_json: bool) -> int:
    """Print what the job prints until it has ended. The job's exit code; ctrl+c leaves it running."""
    from mltrack.projects.jobs import job_folder, read_job
    from mltrack.projects.slurm_jobs import look
    from mltrack.store.client.journal import run_folder

    console = run_folder(root, run_id) / "console.log"
    position, said = 0, ""
    try:
        while True:
            found = read_job(job_folder(root, run_id))
            if found is not None and found.job.slurm and not found.ended:
                tasks = [read_job(job_folder(root, child)) for child in children]
                found = look([found, *(task for task in tasks if task is not None)])[0]
                text = str(found.state.get("text") or "")
                if text != said and not as_json:
                    warn(clean(text, 200))
                said = text
            ended = found is None or found.ended
            position = _print_from(console, position, ended, as_json)
            if ended:
                break
            if found is not None and not found.watched and found.phase != "queued":
                warn("nobody looks after the job any more; `mltrack jobs` takes it up again")
                return ExitCode.FAILED
            time.sleep(_LOOK_SECONDS if found is not None and not found.job.slurm else _SLURM_LOOK_SECONDS)
    except KeyboardInterrupt:
        warn(
            f"the job goes on; `mltrack logs -f {run_id[:12]}` follows it, `mltrack stop {run_id[:12]}` ends it"
        )
        return ExitCode.INTERRUPTED
    state = found.state if found is not None else {}
    code = state.get("exit_code")
    if as_json:
        write_json(
            {
                "run_id": run_id,
                "children": list(children),
                "status": state.get("status"),
                "exit_code": code,
                "reason": state.get("reason") or None,
            }
        )
    elif state.get("status") != "FINISHED":
        warn(f"run {run_id[:12]} ended {state.get('status')}: {clean(str(state.get('reason') or ''), 300)}")
    return (
        int(code)
        if isinstance(code, int)
        else ExitCode.FAILED
        if state.get("status") != "FINISHED"
        else ExitCode.OK
    )


def _print_from(path: Path, position: int, everything: bool, quiet: bool) -> int:
    """Print complete lines from ``position``; returns where to go on."""
    try:
        with open(path, "rb") as file:
            file.seek(position)
            data = file.read()
    except OSError:
        return position
    if not everything:
        data = data[: data.rfind(b"\n") + 1]
    if data and not quiet:
        text = data.decode("utf-8", "backslashreplace")
        sys.stdout.write("".join(clean(line, None) + "\n" for line in text.splitlines()))
        sys.stdout.flush()
    return position + len(data)


__all__ = ["plan_json", "plan_lines", "run_command"]
