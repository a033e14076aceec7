"""Everything recorded about a run on one page: why it ended as it did first, figures and facts after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mltrack.store.direction import guess_direction
from mltrack.store.machines import place_over_there
from mltrack.store.records import ENDED, Attempt, Run, RunDetails, Summary
from mltrack.store.store import Store
from mltrack.tui.clean import cell_width, clean, pad
from mltrack.tui.cli.columns import derived_mark, logged_names
from mltrack.tui.cli.run_look import duration_seconds, now_ms, status_cell, status_sentence
from mltrack.tui.draw.numbers import format_bytes, format_column, format_number, format_parameter, format_step
from mltrack.tui.draw.times import format_age, format_duration, format_moment
from mltrack.tui.goal import direction_arrow, guess_goal, guess_loss, is_background
from mltrack.tui.worker_calls.code import gpu_text
from mltrack.tui.worker_calls.logs import log_page
from mltrack.tui.worker_calls.starts import starts_of

Line = list[list[str]]

_LAST_LINES = 8
_MOST_METRICS, _MOST_PARAMS, _MOST_LOGGED = 40, 60, 20
_NAME = 11


def overview(store: Store, run_id: str, width: int) -> dict[str, Any]:
    """ "lines" of [text, style] pairs. "again" while another machine has not sent the end of the log."""
    runs = store.runs([run_id])
    if not runs:
        return {"lines": [[["The run is not in the store any more.", "dim"]]]}
    run, details, now = runs[0], store.details(run_id), now_ms()
    parent = next(iter(store.runs([run.parent_id])), None) if run.parent_id else None
    children = store.search(f"parent_id = '{run_id}'").total
    ending, again = _ending(store, run)
    lines = [
        *_state(run, details, now),
        *ending,
        *_who(run, details, parent, children, now),
        *_attempts(starts_of(run, details.attempts), now),
        *_metrics(run, width),
        *_params(run, width),
        *_data(run),
        *_models(details),
        *_logged(run),
        *_refused(details),
    ]
    return {"lines": lines, "again": again}


CALLS = (overview,)


def _state(run: Run, details: RunDetails, now: int) -> list[Line]:
    style = status_cell(run, now).style or ""
    lines: list[Line] = [[[status_sentence(run, now), f"bold {style}"]]]
    if run.damage is not None:
        lines.append(_fact("damaged", run.damage, "red"))
    if run.skipped:
        lines.append(
            _fact("skipped", f"{run.skipped:,} records could not be read; all others are here", "yellow")
        )
    if run.lifecycle != "active":
        lines.append(_fact("state", f"in the {run.lifecycle}", "yellow"))
    if run.step is not None:
        lines.append(
            _fact("step", format_step(run.step) + (f" of {format_step(run.total)}" if run.total else ""))
        )
    return lines


def _ending(store: Store, run: Run) -> tuple[list[Line], bool]:
    """Why it ended: exit code, signal, traceback, the last lines it printed. And whether to ask again for these."""
    lines: list[Line] = []
    again = False
    end = run.facts.get("end")
    end = end if isinstance(end, Mapping) else {}
    if run.exit_code is not None:
        lines.append(_fact("exit code", str(run.exit_code), "" if run.exit_code == 0 else "red"))
    if end.get("signal"):
        lines.append(_fact("signal", str(end["signal"])))
    if end.get("traceback"):
        lines += [[], [["TRACEBACK", "header"]]]
        rows = str(end["traceback"]).splitlines()
        # What it died of begins where the indented places in the code end.
        said = len(rows) - 1
        while said > 0 and not rows[said - 1].startswith((" ", "Traceback")):
            said -= 1
        lines += [
            [["  " + row.expandtabs(4), "red" if place >= said else ""]] for place, row in enumerate(rows)
        ]
    if run.status in ENDED and run.status != "FINISHED" or run.quiet:
        page = log_page(store, run.run_id, -_LAST_LINES, _LAST_LINES)
        again = bool(page.get("again"))
        last = "".join(text for text, _ in page["lines"][-1]).strip() if page["lines"] else ""
        if last and last in str(end.get("traceback", "")):
            return [*lines, []], again  # the log ends with what stands above
        lines += [[], [["LAST LINES", "header"]]]
        lines += [[["  ", ""], *line] for line in page["lines"]] or [[["  " + page["why"], "dim"]]]
    return [*lines, []], again


def _who(run: Run, details: RunDetails, parent: Run | None, children: int, now: int) -> list[Line]:
    lines: list[Line] = [[["RUN", "header"]]]
    started = format_moment(run.start_ms, now)
    lines.append(_fact("started", f"{started}, ran {format_duration(duration_seconds(run, now))}"))
    if run.end_ms is not None:
        lines.append(_fact("ended", format_moment(run.end_ms, now)))
    if run.heard_ms is not None and run.status not in ENDED:
        lines.append(_fact("heard", f"{format_age((now - run.heard_ms) / 1000)} ago"))
    lines.append(
        _fact(
            "by",
            f"{run.user or 'unknown'} on {run.host or 'unknown'}" + (f", pid {run.pid}" if run.pid else ""),
        )
    )
    lines.append(_fact("id", run.run_id))
    if run.parent_id:
        lines.append(_fact("parent", f"{parent.name} ({run.parent_id[:12]})" if parent else run.parent_id))
    if children:
        lines.append(_fact("children", f"{children:,} runs"))
    if details.ranks != (0,):
        lines.append(
            _fact("ranks", f"{len(details.ranks)}: {', '.join(str(rank) for rank in details.ranks[:16])}")
        )
    if run.tags:
        tags = "  ".join(f"{key}={value}" if value else key for key, value in run.tags.items())
        lines.append(_fact("tags", tags))
    if run.note:
        rows = run.note.splitlines() or [""]
        lines += [_fact("note" if not place else "", row) for place, row in enumerate(rows[:20])]
    facts = run.facts
    command = facts.get("command")
    if isinstance(command, Sequence) and not isinstance(command, str):
        lines.append(_fact("command", " ".join(str(part) for part in command)))
    else:
        lines.append(_fact("command", "not captured", "faint"))
    lines.append(
        _fact("folder", str(facts["cwd"])) if facts.get("cwd") else _fact("folder", "not captured", "faint")
    )
    git = facts.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        branch = f" on {git['branch']}" if git.get("branch") else ""
        dirty = "  ± uncommitted changes" if git.get("dirty") else ""
        lines.append(_fact("code", f"{str(git['commit'])[:12]}{branch}{dirty}"))
    else:
        why = str(facts.get("code_note", "")).removeprefix("the code was not recorded: ")
        lines.append(_fact("code", "not captured" + (f": {why}" if why else ""), "faint"))
    gpus = facts.get("gpus")
    if isinstance(gpus, Sequence) and not isinstance(gpus, str):
        lines += [_fact("gpu" if not place else "", gpu_text(gpu)) for place, gpu in enumerate(gpus)]
    slurm = facts.get("slurm")
    if isinstance(slurm, Mapping) and slurm:
        lines.append(_fact("slurm", "  ".join(f"{key} {value}" for key, value in slurm.items())))
    if details.files:
        total = sum(file.size for file in details.files)
        lines.append(_fact("files", f"{len(details.files):,} logged, {format_bytes(total)}"))
    if run.folder is not None:
        lines.append(_fact("kept in", str(run.folder)))
    elif there := place_over_there(run.source, run.run_id):
        lines.append(_fact("kept in", there))
    if run.source:
        lines.append(_fact("source", run.source))
    sealed = f", {details.sealed} sealed" if details.sealed else ""
    if details.journals:
        lines.append(_fact("journals", f"{details.journals}{sealed}"))
    return lines


def _attempts(starts: Sequence[Attempt], now: int) -> list[Line]:
    """The starts of the run, when there were several."""
    if len(starts) < 2:
        return []
    lines: list[Line] = [[], [["STARTS", "header"], [f"  {len(starts)}", "dim"]]]
    for number, attempt in enumerate(starts, 1):
        if attempt.status:
            code = f", exit code {attempt.exit_code}" if attempt.exit_code is not None else ""
            how = f"{attempt.status.lower()}{code}" + (f": {attempt.reason}" if attempt.reason else "")
        else:
            how = "no end was recorded" if number < len(starts) else "goes on, or ended without a word"
        until = ""
        if attempt.start_ms is not None and attempt.end_ms is not None:
            until = f", ran {format_duration((attempt.end_ms - attempt.start_ms) / 1000)}"
        where = (
            f" on {attempt.host}" + (f", pid {attempt.pid}" if attempt.pid else "") if attempt.host else ""
        )
        lines.append(
            [
                [f"  {number:>2}  ", "dim"],
                [f"{format_moment(attempt.start_ms, now)}{where}{until}  ", ""],
                [how, "dim"],
            ]
        )
    return lines


def _metrics(run: Run, width: int) -> list[Line]:
    if not run.metrics:
        return [[], [["METRICS", "header"]], [["  none logged", "dim"]]]
    goal = guess_goal(dict.fromkeys(run.metrics, 1))
    loss = guess_loss(run.metrics, goal)
    order = sorted(
        run.metrics,
        key=lambda key: (key.startswith("system/"), is_background(key), key != goal, key != loss, key),
    )
    shown = [run.metrics[key] for key in order[:_MOST_METRICS]]
    name_width = min(max(12, width // 3), max(cell_width(clean(row.key)) + 2 for row in shown))
    head = [pad("metric", name_width), "last", "best", "@step", "points"]
    lines: list[Line] = [
        [],
        [["METRICS", "header"], [f"  {len(run.metrics):,}", "dim"]],
        [[f"  {head[0]} {head[1]:>12} {head[2]:>12} {head[3]:>10} {head[4]:>9}", "dim"]],
    ]
    for row in shown:
        best, step = _best(row)
        texts = format_column([row.last, best if direction_arrow(row.key) else None], 4, 6)
        if row.key.endswith("_bytes"):
            texts[0] = format_bytes(row.last) if row.last == row.last else "NaN"
        line: Line = [
            ["  " + pad(clean(row.key) + direction_arrow(row.key), name_width), "cyan"],
            [f" {texts[0]:>12}", "bold"],
            [f" {texts[1] if direction_arrow(row.key) else '':>12}", ""],
            [f" {format_step(step) if direction_arrow(row.key) else '':>10}", "dim"],
            [f" {row.count:>9,}", "dim"],
        ]
        if row.nan_count:
            line.append([f"  {row.nan_count:,} NaN", "red"])
        lines.append(line)
    if len(order) > len(shown):
        lines.append(
            [[f"  and {len(order) - len(shown):,} more: the charts' tab shows them, / finds one", "dim"]]
        )
    return lines


def _best(row: Summary) -> tuple[float | None, int | None]:
    down = guess_direction(row.key) == "min"
    return (row.min, row.min_step) if down else (row.max, row.max_step)


def _params(run: Run, width: int) -> list[Line]:
    if not run.params:
        return []
    pairs = [
        (clean(key, 60), clean(format_parameter(value) + derived_mark(run, key), 60))
        for key, value in list(run.params.items())[:_MOST_PARAMS]
    ]
    names = max(cell_width(key) for key, _ in pairs)
    values = max(min(30, cell_width(value)) for _, value in pairs)
    across = max(1, min(4, (width - 2) // (names + values + 5)))
    height = -(-len(pairs) // across)
    lines: list[Line] = [[], [["PARAMS", "header"], [f"  {len(run.params):,}", "dim"]]]
    for row in range(height):
        line: Line = [["  ", ""]]
        for key, value in pairs[row::height]:
            line += [
                [pad(key, names) + "  ", "cyan"],
                [(pad(value, values) if across > 1 else value) + "   ", ""],
            ]
        lines.append(line)
    if len(run.params) > len(pairs):
        lines.append([[f"  and {len(run.params) - len(pairs):,} more: the params' tab shows them", "dim"]])
    for key, other in run.conflicts.items():
        lines.append(
            [["  ! ", "yellow"], [key, "cyan"], [f" was also logged as {other}; the first counts", "yellow"]]
        )
    return lines


def _data(run: Run) -> list[Line]:
    if not run.inputs:
        return []
    lines: list[Line] = [[], [["DATA", "header"]]]
    for entry in run.inputs:
        size = entry.get("size")
        kind = str(entry.get("digest_kind") or "")
        lines.append(
            [
                [f"  {entry.get('name', '')}", "cyan"],
                [f"  {entry.get('context', '')}  ", "dim"],
                [str(entry.get("digest", ""))[:16] + ("…" if entry.get("digest") else "no digest"), ""],
                [f" ({kind})" if kind else "", "dim"],
                [f"  {format_bytes(size)}" if isinstance(size, (int, float)) else "", ""],
                [f"  {entry.get('source', '')}", "dim"],
            ]
        )
    return lines


def _models(details: RunDetails) -> list[Line]:
    """Logged models of MLflow 3: things beside runs."""
    if not details.models:
        return []
    lines: list[Line] = [[], [["MODELS", "header"], [f"  {len(details.models):,}", "dim"]]]
    for model in details.models[:_MOST_LOGGED]:
        state = model.status.removeprefix("LOGGED_MODEL_").lower()
        said = "read" if model.way == "input" else state
        lines.append(
            [["  " + clean(model.name or model.model_id, 40), "cyan"], [f"  {said}  {model.model_id}", "dim"]]
        )
        texts = [f"{key}={format_number(value)}" for key, value in model.metrics.items()]
        texts += [f"{key}={value}" for key, value in {**model.params, **model.tags}.items()]
        if texts:
            lines.append([["    " + clean("  ".join(texts), 400), ""]])
    return lines


def _logged(run: Run) -> list[Line]:
    """What another tool logged beside numbers: texts as far as they fit, everything else by name and count."""
    lines: list[Line] = []
    names = logged_names(run)
    if names:
        lines += [[], [["LOGGED", "header"], [f"  {len(names):,}", "dim"]]]
        for name, (count, first, last, *_) in list(names.items())[:_MOST_LOGGED]:
            at = format_step(first) if first == last else f"{format_step(first)} to {format_step(last)}"
            lines.append([["  " + clean(name, 60), "cyan"], [f"  {count:,} at {at}", "dim"]])
        lines.append([["  the files' tab shows them", "dim"]])
    texts = run.facts.get("texts")
    if isinstance(texts, Mapping) and texts:
        lines += [[], [["TEXTS", "header"], [f"  {len(texts):,}", "dim"]]]
        for name, text in list(texts.items())[:_MOST_LOGGED]:
            first_line, *rest = str(text).splitlines() or [""]
            lines.append([["  " + clean(str(name), 40) + "  ", "cyan"], [first_line, ""]])
            lines += [[["    " + row, ""]] for row in rest[:_LAST_LINES]]
    unread = run.facts.get("unread")
    if isinstance(unread, Sequence) and not isinstance(unread, str):
        lines += [[["  not read  ", "yellow"], [str(problem), ""]] for problem in unread[:_MOST_LOGGED]]
    return lines


def _refused(details: RunDetails) -> list[Line]:
    if not details.refused:
        return []
    lines: list[Line] = [[], [["NOT STORED", "header"], [f"  {len(details.refused)}", "dim"]]]
    lines += [[["  " + what, "yellow"], [f": {why}", "dim"]] for what, why in details.refused]
    return lines


def _fact(name: str, value: str, style: str = "") -> Line:
    return [["  " + pad(name, _NAME), "dim"], [value, style]]
