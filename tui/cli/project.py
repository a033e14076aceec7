"""`mltrack project show`: what a project declares, without running any of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mltrack.tui.cli.output import write_json, write_lines, write_text
from mltrack.tui.cli.session import Session

if TYPE_CHECKING:
    from mltrack.projects.fetch import Fetched
    from mltrack.projects.spec import Project


@click.group("project")
def project_command() -> None:
    """Look at projects that can be run."""


@project_command.command("show")
@click.argument("address", metavar="DIR|GIT_URL[#SUBDIR][@REV]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(session: Session, address: str, as_json: bool) -> None:
    """Show entry points, parameters and environment of a project."""
    from mltrack.projects.fetch import fetch, parse_address
    from mltrack.projects.spec import read_project
    from mltrack.tui.cli.output import warn

    fetched = fetch(parse_address(address), warn)
    project = read_project(fetched.folder)
    if as_json:
        write_json(project_json(project, fetched))
        return
    terminal = session.terminal
    where = fetched.commit[:12] if fetched.commit else "no commit"
    changed = " with uncommitted changes" if fetched.dirty else ""
    write_text(
        f"{project.name or fetched.folder.name}  {fetched.address.shown}  {where}{changed}", terminal, "bold"
    )
    environment = project.environment
    write_text(
        f"environment  {environment.kind}  {environment.image or environment.path or ''}".rstrip(), terminal
    )
    for note in fetched.notes:
        write_text(f"note  {note}", terminal)
    for entry in project.entry_points.values():
        write_lines([""])
        write_text(entry.name, terminal, "bold")
        write_text(f"  {entry.command.strip()}", terminal)
        for parameter in entry.parameters.values():
            default = "needed" if parameter.default is None else f"default {parameter.default}"
            write_text(
                f"  -P {parameter.name}  {parameter.type}  {default}  {parameter.help}".rstrip(), terminal
            )
    if not project.entry_points:
        write_text("no entry points; add an MLproject file", terminal)


def project_json(project: Project, fetched: Fetched) -> dict[str, Any]:
    """The stable shape of `--json`."""
    environment = project.environment
    declared: dict[str, Any] = {"type": environment.kind, "path": environment.path}
    if environment.kind == "docker":
        declared = {
            "type": "docker",
            "image": environment.image,
            "volumes": list(environment.volumes),
            "environment": [
                [name, value] if value is not None else name for name, value in environment.variables
            ],
        }
    return {
        "name": project.name,
        "entry_points": {
            entry.name: {
                "command": entry.command,
                "parameters": {
                    parameter.name: {"type": parameter.type, "default": _plain(parameter.default)}
                    for parameter in entry.parameters.values()
                },
            }
            for entry in project.entry_points.values()
        },
        "environment": declared,
        "commit": fetched.commit,
    }


def _plain(value: Any) -> Any:
    """A default as JSON can hold it: YAML also has dates and infinities."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
