"""`mltrack show RUN`: one page with everything known about a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import click

from mltrack.store.machines import files_over_there, place_over_there
from mltrack.store.ssh_address import SCHEME
from mltrack.tui.cli.output import (
    json_number,
    list_options,
    warn,
    write_csv,
    write_json,
    write_lines,
    write_text,
)
from mltrack.tui.cli.run_look import duration_seconds, now_ms, run_json, status_sentence
from mltrack.tui.cli.session import Session, resolve_run
from mltrack.tui.cli.table import Cell, Column, draw_table
from mltrack.tui.kept_files import COMMAND_SECONDS

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.store.store import Store
    from mltrack.tui.cli.terminal import Terminal

# Path, bytes, address.
FarFile: TypeAlias = tuple[str, int, str]
_METRICS_SHOWN = 40
_FILES_SHOWN = 20
# How many names of media and texts of another tool's run are shown.
_LOGGED = 8


@click.command("show")
@click.argument("run")
@click.option("--all", "everything", is_flag=True, help="Every metric and file, also system/*.")
@list_options
@click.pass_obj
def show_command(
    session: Session, run: str, everything: bool, as_json: bool, as_csv: bool, raw: bool
) -> None:
    """Show everything known about a run."""
    with session.open() as store:
        found = resolve_run(store, run)
        far = _files_elsewhere(store, found)
        if as_json:
            write_json(_full_json(found, far))
        elif as_csv:
            write_csv(["kind", "key", "value"], _pairs(found), raw=raw)
        else:
            write_page(found, session.terminal, everything, far)


def write_page(run: Run, terminal: Terminal, everything: bool, far: Sequence[FarFile] = ()) -> None:
    from mltrack.tui.cli.columns import derived_mark
    from mltrack.tui.draw.numbers import format_parameter, format_step
    from mltrack.tui.draw.sparkline import draw_bar
    from mltrack.tui.draw.times import format_duration, format_moment

    now = now_ms()
    write_text(f"{run.experiment} › {run.name}", terminal, "bold")
    write_text(status_sentence(run, now), terminal, _status_colour(run))
    if run.step is not None and run.total:
        bar = draw_bar(run.step / run.total, 24)
        write_text(f"step {format_step(run.step)} of {format_step(run.total)} {bar}", terminal)
    facts: list[tuple[str, str]] = [
        ("id", run.run_id),
        ("started", f"{format_moment(run.start_ms, now)}  ran {format_duration(duration_seconds(run, now))}"),
        ("by", f"{run.user or '-'} on {run.host or '-'}" + (f", pid {run.pid}" if run.pid else "")),
    ]
    facts += _facts_lines(run)
    if run.parent_id:
        facts.append(("parent", run.parent_id))
    if run.lifecycle != "active":
        facts.append(("state", run.lifecycle))
    if run.skipped:
        facts.append(("damaged", f"{run.skipped:,} records could not be read and were skipped"))
    if run.folder is not None:
        facts.append(("files", str(run.folder)))
    elif there := place_over_there(run.source, run.run_id):
        facts.append(("files", there))
    if run.tags:
        facts.append(
            ("tags", "  ".join(f"{key}={value}" if value else key for key, value in sorted(run.tags.items())))
        )
    if run.note:
        facts.append(("note", run.note))
    width = terminal.width
    write_lines(
        draw_table(
            [
                Column("", [Cell(name, "dim") for name, _ in facts], weight=0),
                Column("", [text for _, text in facts], weight=0, widest=width),
            ],
            terminal,
            heading=False,
        )
    )
    if run.params:
        write_text("", terminal)
        write_text("PARAMS", terminal, "header")
        pairs = [
            (key, format_parameter(value) + derived_mark(run, key))
            for key, value in sorted(run.params.items())
        ]
        write_lines(_side_by_side(pairs, terminal))
        if run.facts.get("derived"):
            write_text("  * read from the folder's name", terminal, "dim")
        for key, why in sorted(run.conflicts.items()):
            write_text(f"  {key}: {why}", terminal, "yellow")
    if run.metrics:
        write_text("", terminal)
        _write_metrics(run, terminal, everything)
    _write_files(run, far, terminal, everything)
    _write_refused(run, terminal)
    end = run.facts.get("end")
    if isinstance(end, Mapping) and end.get("traceback"):
        write_text("", terminal)
        write_text("TRACEBACK", terminal, "header")
        for line in str(end["traceback"]).splitlines():
            write_text(f"  {line}", terminal)


def _write_refused(run: Run, terminal: Terminal) -> None:
    """What the training wanted to log and could not, with the reason."""
    refused = run.facts.get("refused")
    if not isinstance(refused, Mapping) or not refused:
        return
    write_text("", terminal)
    write_text(f"NOT STORED  {len(refused)}", terminal, "header")
    for _, (what, why) in sorted(refused.items()):
        write_text(f"  {what}: {why}", terminal, "yellow")


def _write_metrics(run: Run, terminal: Terminal, everything: bool) -> None:
    from mltrack.store.direction import guess_direction
    from mltrack.tui.draw.numbers import format_number, format_step
    from mltrack.tui.goal import direction_arrow, is_background

    keys = [key for key in sorted(run.metrics) if everything or not key.startswith("system/")]
    keys.sort(key=is_background)
    hidden = len(run.metrics) - len(keys)
    if not everything and len(keys) > _METRICS_SHOWN:
        hidden += len(keys) - _METRICS_SHOWN
        keys = keys[:_METRICS_SHOWN]
    rows = [run.metrics[key] for key in keys]
    downward = [guess_direction(row.key) == "min" for row in rows]
    best = [row.min if down else row.max for row, down in zip(rows, downward, strict=True)]
    best_step = [row.min_step if down else row.max_step for row, down in zip(rows, downward, strict=True)]
    write_lines(
        draw_table(
            [
                Column("METRIC", [row.key + direction_arrow(row.key) for row in rows], weight=0),
                Column("LAST", [Cell(format_number(row.last), "bold") for row in rows], "right", 0),
                Column(
                    "BEST",
                    [
                        format_number(value) if direction_arrow(row.key) else ""
                        for value, row in zip(best, rows, strict=True)
                    ],
                    "right",
                    0,
                ),
                Column(
                    "@STEP",
                    [
                        format_step(step) if direction_arrow(row.key) else ""
                        for step, row in zip(best_step, rows, strict=True)
                    ],
                    "right",
                    1,
                ),
                Column(
                    "STEPS",
                    [f"{format_step(row.first_step)}-{format_step(row.last_step)}" for row in rows],
                    "right",
                    3,
                ),
                Column("POINTS", [f"{row.count:,}" for row in rows], "right", 2),
                Column(
                    "NaN",
                    [Cell(f"{row.nan_count:,}", "red") if row.nan_count else "" for row in rows],
                    "right",
                    4,
                ),
            ],
            terminal,
        )
    )
    if hidden:
        write_text(f"and {hidden:,} more; --all shows them", terminal, "dim")


def _write_files(run: Run, far: Sequence[FarFile], terminal: Terminal, everything: bool) -> None:
    from mltrack.tui.draw.numbers import format_bytes

    if run.inputs:
        write_text("", terminal)
        write_text("DATA", terminal, "header")
        for entry in run.inputs:
            digest = str(entry.get("digest", ""))[:12]
            size = entry.get("size")
            shown_size = format_bytes(size) if isinstance(size, (int, float)) else ""
            write_text(
                f"{entry.get('name', '')}  {digest}  {shown_size}  {entry.get('source', '')}", terminal
            )
    files = artifact_files(run, far)
    if files:
        write_text("", terminal)
        write_text("ARTIFACTS", terminal, "header")
        shown = files if everything else files[:_FILES_SHOWN]
        columns = [
            Column("", [path for path, _, _ in shown], weight=0, widest=terminal.width, keep="tail"),
            Column("", [format_bytes(size) for _, size, _ in shown], "right", 0),
        ]
        if far:
            schemes = [address.partition("://")[0] for _, _, address in shown]
            columns.append(Column("", [Cell(scheme, "dim") for scheme in schemes], weight=0))
        write_lines(draw_table(columns, terminal, heading=False))
        if len(shown) < len(files):
            write_text(f"and {len(files) - len(shown):,} more; --all shows them", terminal, "dim")


def _files_elsewhere(store: Store, run: Run) -> list[FarFile]:
    """The files of a run that are not on this machine: in an object store, or where the run is."""
    machine = files_over_there(run)
    if machine is None:
        return [(copy.path, copy.size, copy.address) for copy in store.far([run.run_id])]
    place = f"{SCHEME}{place_over_there(run.source, run.run_id)}/artifacts"
    told = machine.listing(run.run_id, COMMAND_SECONDS)
    if told.answer is not None:
        return [(path, size, f"{place}/{path}") for path, kind, size, _ in told.answer[0] if kind == "file"]
    why = told.problem or f"{machine.host} has not answered within {COMMAND_SECONDS:.0f} seconds"
    warn(f"{why}; the files are those that were logged")
    return [(file.path, file.size, f"{place}/{file.path}") for file in store.details(run.run_id).files]


def artifact_files(run: Run, far: Sequence[FarFile]) -> list[tuple[str, int, str]]:
    """(path below the run's artifacts folder, bytes, address of what lies elsewhere) of regular files, sorted; symbolic links are not
    followed."""
    import os

    files = [*far]
    if run.artifacts is None:
        return sorted(files)
    root = run.artifacts
    for folder, _, names in os.walk(root, onerror=None, followlinks=False):
        for name in names:
            path = os.path.join(folder, name)
            try:
                files.append((os.path.relpath(path, root), os.lstat(path).st_size, ""))
            except OSError:
                continue  # it went while we looked
    return sorted(files)


def _source_lines(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """What another tool's files hold beside numbers: media by kind and name, texts, and what lies there unread."""
    lines: list[tuple[str, str]] = []
    logged = facts.get("logged")
    if isinstance(logged, Mapping):
        counts = [f"{name} x{seen[0]}" for name, seen in logged.items() if isinstance(seen, list) and seen]
        lines.append(("logged", ", ".join(counts[:_LOGGED]) + (", ..." if len(counts) > _LOGGED else "")))
    texts = facts.get("texts")
    if isinstance(texts, Mapping):
        lines += [
            (str(name), " ".join(str(text).split())[:500]) for name, text in list(texts.items())[:_LOGGED]
        ]
    unread = facts.get("unread")
    if isinstance(unread, Sequence) and not isinstance(unread, str):
        lines += [("unread", str(problem)) for problem in unread]
    return lines


def _facts_lines(run: Run) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    facts: Mapping[str, object] = run.facts
    command = facts.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        lines.append(("command", " ".join(str(part) for part in command)))
    if facts.get("cwd"):
        lines.append(("in", str(facts["cwd"])))
    git = facts.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        dirty = " ± uncommitted changes" if git.get("dirty") else ""
        kept = ", patch kept" if git.get("patch") else ""
        branch = f" on {git['branch']}" if git.get("branch") else ""
        lines.append(("code", f"{str(git['commit'])[:10]}{branch}{dirty}{kept}"))
    elif facts.get("code_note"):
        lines.append(
            ("code", f"not captured: {str(facts['code_note']).removeprefix('the code was not recorded: ')}")
        )
    gpus = facts.get("gpus")
    if isinstance(gpus, Sequence) and gpus and not isinstance(gpus, str):
        names = [str(gpu.get("name", gpu)) if isinstance(gpu, Mapping) else str(gpu) for gpu in gpus]
        lines.append(("gpu", ", ".join(names)))
    lines += _source_lines(facts)
    slurm = facts.get("slurm")
    if isinstance(slurm, Mapping) and slurm:
        lines.append(("slurm", "  ".join(f"{key} {value}" for key, value in slurm.items())))
    return lines


def _side_by_side(pairs: Sequence[tuple[str, str]], terminal: Terminal) -> list[str]:
    """Short pairs in as many columns as fit, read downwards."""
    from mltrack.tui.clean import cell_width, clean, pad

    shown = [(terminal.fold(clean(key, 60)), terminal.fold(clean(value))) for key, value in pairs]
    widest = (
        max(cell_width(key) for key, _ in shown) + 2 + max(min(cell_width(value), 40) for _, value in shown)
    )
    columns = max(1, min(4, terminal.width // (widest + 3)))
    height = -(-len(shown) // columns)
    lines: list[str] = []
    for row in range(height):
        parts = []
        for column in range(columns):
            index = column * height + row
            if index >= len(shown):
                continue
            key, value = shown[index]
            in_column = shown[column * height : (column + 1) * height]
            key_width = max(cell_width(name) for name, _ in in_column)
            room = widest - key_width - 2 if columns > 1 else terminal.width - key_width - 2
            value = pad(value, room)
            parts.append(terminal.style(pad(key, key_width), "cyan") + "  " + value)
        lines.append("   ".join(parts).rstrip())
    return lines


def _status_colour(run: Run) -> str:
    from mltrack.tui.cli.run_look import status_cell

    return status_cell(run, now_ms()).style or ""


def _full_json(run: Run, far: Sequence[FarFile]) -> dict[str, object]:
    """What `ls` gives, and the rest."""
    return {
        **run_json(run),
        "summaries": {
            key: {
                "first_step": row.first_step,
                "last_step": row.last_step,
                "last_time": row.last_time_ms,
                "last": json_number(row.last),
                "min": json_number(row.min),
                "min_step": row.min_step,
                "max": json_number(row.max),
                "max_step": row.max_step,
                "count": row.count,
                "nan_count": row.nan_count,
            }
            for key, row in run.metrics.items()
        },
        "reason": run.reason,
        "exit_code": run.exit_code,
        "host": run.host,
        "pid": run.pid,
        "heard": run.heard_ms,
        "quiet": run.quiet,
        "step": run.step,
        "total": run.total,
        "parent_id": run.parent_id,
        "note": run.note,
        "lifecycle": run.lifecycle,
        "pinned": run.pinned,
        "conflicts": run.conflicts,
        "facts": run.facts,
        "inputs": list(run.inputs),
        "artifacts": [
            {"path": path, "size": size, **({"address": address} if address else {})}
            for path, size, address in artifact_files(run, far)
        ],
        "folder": None if run.folder is None else str(run.folder),
        "damage": run.damage,
        "skipped": run.skipped,
        "source": run.source,
    }


def _pairs(run: Run) -> list[tuple[str, str, object]]:
    rows: list[tuple[str, str, object]] = [
        ("run", key, value)
        for key, value in run_json(run).items()
        if key not in ("params", "metrics", "tags")
    ]
    rows += [("param", key, value) for key, value in sorted(run.params.items())]
    rows += [("metric", key, json_number(row.last)) for key, row in sorted(run.metrics.items())]
    rows += [("tag", key, value) for key, value in sorted(run.tags.items())]
    return rows
