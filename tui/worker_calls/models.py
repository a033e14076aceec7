"""The registry as the models screen draws it: a row for each model, and the board, checks and history of one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mltrack.store.client.host import user
from mltrack.store.errors import MltrackError
from mltrack.store.model_checks import Check, check
from mltrack.store.records import Run
from mltrack.store.registry import AuditRow, ModelVersion, Request, Standing
from mltrack.store.store import Store
from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.cli.columns import runs_with_key
from mltrack.tui.cli.models import change_words, held, served
from mltrack.tui.cli.models_wait import LOOKS
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.draw.numbers import format_bytes, format_number
from mltrack.tui.draw.times import format_age, format_moment
from mltrack.tui.goal import direction_arrow, guess_goal
from mltrack.tui.worker_calls.who import who

Span = list[str]
Line = list[Span]
_STAGES = ("None", "Staging", "Production", "Archived")
_HEADINGS = ("MODEL", "PRODUCTION", "STAGING", "SERVED NOW", "CHANGED")
_SHARES = (0.175, 0.25, 0.14, 0.17)
_CHECK_WIDTH = 15
_LEAST_HISTORY = 3
# Answers of models to their example, by folder: asked once, when somebody wants to know. None: on the way.
tried: dict[str, tuple[bool, str] | None] = {}
_verified: dict[str, tuple[int, str, bool]] = {}
_MOST_CHECKED = 20_000
# Ages in the rows lag by at most this.
_KEPT_SECONDS = 5.0
_kept: tuple[tuple[object, ...], float, dict[str, Any], list[Standing]] | None = None
_files_seen: dict[tuple[str, int], tuple[object, Check]] = {}


def models(
    store: Store,
    width: int = 80,
    height: int = 24,
    name: str | None = None,
    version: int | None = None,
    rows: bool = True,
) -> dict[str, Any]:
    """Rows of all models by name, and the focused one in full. ``height``: lines there are for board, checks and history.

    Without ``rows`` only "detail" of the model ``name``.
    """
    if not rows and name is not None:
        found = store.registry.standings(name)
        if found:
            return {"detail": _detail(store, found[0], version, width, height, now_ms())}
    page, standings = _page(store, width)
    answer = {**page, "who": who(store), "detail": None}
    if standings:
        names = page["names"]
        focused = standings[names.index(name)] if name in names else standings[0]
        answer["detail"] = _detail(store, focused, version, width, height, now_ms())
    return answer


def _page(store: Store, width: int) -> tuple[dict[str, Any], list[Standing]]:
    """All rows. Runs that log change the store all the time: while nothing happened to models, the rows of a moment ago will do."""
    global _kept
    registry = store.registry
    served_now = [(each.run_id, each.name, each.version, each.follows) for each in registry.serving()]
    made_of = (str(store.location.root), width, registry.audit_head(), served_now)
    if _kept is not None and _kept[0] == made_of and time.monotonic() - _kept[1] < _KEPT_SECONDS:
        return _kept[2], _kept[3]
    standings = registry.standings()
    now = now_ms()
    page: dict[str, Any] = {
        "names": [standing.name for standing in standings],
        "heading": _heading(width),
        "rows": [_row(standing, width, now) for standing in standings],
        "waiting": sum(_for_me(store, request) for standing in standings for request in standing.requests),
        "root": str(store.location.root),
    }
    _kept = made_of, time.monotonic(), page, standings
    return page, standings


def _heading(width: int) -> Line:
    return [
        [" ", ""],
        *([pad(word, size), "header"] for word, size in zip(_HEADINGS, _sizes(width), strict=True)),
    ]


def _sizes(width: int) -> list[int]:
    sizes = [max(6, int(width * share)) for share in _SHARES]
    return [*sizes, max(6, width - 1 - sum(sizes))]


def _row(standing: Standing, width: int, now: int) -> Line:
    behind = any(
        each.follows == "Production" and each.version not in {one.version for one in standing.production}
        for each in standing.serving
    )
    last = standing.last
    changed = f"{format_age((now - last.time_ms) / 1000)}  {_brief(last)}" if last else ""
    cells = (
        (standing.name, "bold"),
        (held(standing.production, now) or "none", "" if standing.production else "dim"),
        (" ".join(f"v{each.version}" for each in standing.staging) or "-", ""),
        (served(standing) or "-", "error" if behind else "green" if standing.serving else "dim"),
        (f"{changed}", "yellow" if standing.requests else "dim"),
    )
    return [
        [pad(clip(text, size - 2), size), style]
        for (text, style), size in zip(cells, _sizes(width), strict=True)
    ]


def _brief(row: AuditRow) -> str:
    """A change in a few characters: `v8 asked`, `v3 Production`."""
    if row.action in ("asked", "approved", "rejected", "withdrawn", "registered", "deleted"):
        return f"v{row.version} {row.action}"
    if row.action == "stage":
        return f"v{row.version} {row.new_value}"
    return row.action if row.action.startswith("rolled back") else change_words(row)


# -- one model


def _detail(
    store: Store, standing: Standing, wanted: int | None, width: int, height: int, now: int
) -> dict[str, Any]:
    registry = store.registry
    name = standing.name
    versions = registry.versions(name)
    model = registry.model(name)
    chosen = _chosen(standing, versions, wanted)
    production = registry.holder(name, "Production")
    previous = registry.previous(name, "Production")
    shown = _shown_versions(versions, chosen)
    runs = {run.run_id: run for run in store.runs([each.run_id for each in shown if each.run_id])}
    goal = model.policy.goal or guess_goal(runs_with_key(list(runs.values()))) or ""
    policy = model.policy.sentence()
    title = f"goal {goal} {direction_arrow(goal)}" if goal else ""
    lines: list[Line] = [_rule([name, title, f"policy: {policy}" if policy else ""], width)]
    board = _board(standing, versions, chosen, runs, goal, previous, width, now, max(4, min(10, height // 3)))
    lines += board
    current = next((each for each in versions if each.version == chosen), None)
    if current is not None:
        run = runs.get(current.run_id)
        lines.append(_rule(_against(store, current, production, run), width))
        room = height - len(lines) - _LEAST_HISTORY - 2
        lines += [check_line(each, width) for each in _telling(checks_of(store, current, goal), room)]
        lines.append(check_line(_way_back(store, name, previous), width))
    room = max(1, height - len(lines) - 1)
    rows = registry.audit(name)
    lines.append(_rule(["history", _chain(store)], width))
    for row in rows[: -room - 1 : -1]:
        via = f"via {row.channel}" if row.channel else ""
        reason = f'  "{row.reason}"' if row.reason else ""
        said = f" {format_moment(row.time_ms, now):<13} {clip(row.actor, 10):<10} {change_words(row)}"
        left = clip(said + reason, max(20, width - len(via) - 2))
        lines.append([[left, ""], [" " * max(1, width - cell_width(left) - len(via) - 1) + via, "dim"]])
    request = next((each for each in standing.requests if each.version == chosen), None)
    return {
        "name": name,
        "lines": lines,
        "versions": [each.version for each in versions],
        "chosen": chosen,
        "production": production,
        "previous": previous,
        "description": model.description,
        "version_description": current.description if current else "",
        "request": None
        if request is None
        else {"id": request.id, "target": request.target, "actor": request.actor},
        "asks": bool(model.policy.approvals),
        "protected": list(model.policy.protected),
        "trying": any(value is None for value in tried.values()),
    }


def _chosen(standing: Standing, versions: Sequence[ModelVersion], wanted: int | None) -> int | None:
    """The version that is looked at: the one asked for, else one that waits, the newest in Staging, the newest of all."""
    numbers = [each.version for each in versions]
    if wanted in numbers:
        return wanted
    for candidates in (standing.requests, standing.staging, versions):
        if candidates:
            return candidates[0].version
    return None


def _shown_versions(versions: Sequence[ModelVersion], chosen: int | None) -> list[ModelVersion]:
    """Those whose metric is worth looking up: the newest of each stage, and the one that is looked at."""
    found: list[ModelVersion] = []
    for stage in _STAGES:
        found += [each for each in versions if each.stage == stage][:5]
    return found + [each for each in versions if each.version == chosen and each not in found]


def _board(
    standing: Standing,
    versions: Sequence[ModelVersion],
    chosen: int | None,
    runs: dict[str, Run],
    goal: str,
    previous: int | None,
    width: int,
    now: int,
    height: int,
) -> list[Line]:
    size = (width - 1) // 4
    columns: list[list[tuple[str, str]]] = []
    best = _metric_of(next((each for each in versions if each.stage == "Production"), None), runs, goal)
    for stage in _STAGES:
        cells: list[tuple[str, str]] = [(stage.upper(), "header")]
        there = [each for each in versions if each.stage == stage]
        first = [each for each in there if each.version == chosen]
        full = max(1, (height - 1) // 2)
        if len(there) > full:
            full = max(1, (height - 2) // 2)  # a line is left for the rest
        entries = there[:full]
        if first and first[0] not in entries:
            entries = [*entries[:-1], first[0]]
        for each in entries:
            value = _metric_of(each, runs, goal)
            number = format_number(value) if value is not None else ""
            mark = _better(value, best, goal) if stage != "Production" else ""
            style = "here" if each.version == chosen else "bold" if stage == "Production" else ""
            cells.append((f"v{each.version:<4}{number}{mark} {each.actor}", style))
            dirty = " ± dirty" if _is_dirty(runs.get(each.run_id)) else ""
            asked = " asked" if any(one.version == each.version for one in standing.requests) else ""
            aliases = "".join(f" @{alias}" for alias in each.aliases)
            cells.append((f"     {format_age((now - each.staged_ms) / 1000)}{aliases}{dirty}{asked}", "dim"))
        rest = [f"v{each.version}" for each in there if each not in entries]
        if stage == "Production" and previous is not None:
            cells.append((f"previous: v{previous}", "dim"))
        elif rest:
            cells.append((clip(" ".join(rest), size - 2), "dim"))
        columns.append(cells)
    tallest = min(height, max(len(column) for column in columns))
    lines: list[Line] = []
    for place in range(tallest):
        line: Line = [[" ", ""]]
        for column in columns:
            text, style = column[place] if place < len(column) else ("", "")
            words = clip(text, size - 1)
            line += [[words, style], [" " * (size - cell_width(words)), ""]]
        lines.append(line)
    return lines


def _metric_of(version: ModelVersion | None, runs: dict[str, Run], goal: str) -> float | None:
    run = runs.get(version.run_id) if version else None
    summary = run.metrics.get(goal) if run and goal else None
    if summary is None:
        return None
    return summary.min if direction_arrow(goal) == "↓" else summary.max


def _better(value: float | None, best: float | None, goal: str) -> str:
    if value is None or best is None or value == best:
        return ""
    return " ▲" if (value > best) == (direction_arrow(goal) != "↓") else " ▼"


def _is_dirty(run: Run | None) -> bool:
    git = run.facts.get("git") if run else None
    return isinstance(git, dict) and bool(git.get("dirty"))


def _against(store: Store, version: ModelVersion, production: int | None, run: Run | None) -> list[str]:
    against = f" against v{production}" if production not in (None, version.version) else ""
    files = store.registry.files(version.name, version.version) or []
    git = run.facts.get("git") if run else None
    commit = str(git.get("commit", ""))[:7] if isinstance(git, dict) else ""
    return [
        f"v{version.version}{against}",
        f"run {run.name}" if run else "",
        f"code {commit}" if commit else "",
        format_bytes(sum(int(size) for _, size, _ in files)) if files else "",
    ]


def _rule(parts: Sequence[str], width: int) -> Line:
    """`─── churn ───── goal auc ↑ ── policy: … ──────`."""
    line: Line = [["─── ", "faint"]]
    used = 4
    for place, part in enumerate(part for part in parts if part):
        gap = "" if not place else " ── "
        room = width - used - len(gap) - 2
        if room < 6:
            break
        words = clip(part, room)
        line += [[gap, "faint"], [words, "bold" if not place else "dim"]]
        used += len(gap) + cell_width(words)
    line.append([" " + "─" * max(0, width - used - 2), "faint"])
    return line


def check_line(check: Check, width: int) -> Line:
    glyph, style = LOOKS[check.outcome]
    return [
        [f" {glyph} ", style],
        [pad(check.name, _CHECK_WIDTH), ""],
        [clip(check.sentence, width - _CHECK_WIDTH - 4), ""],
    ]


def _telling(checks: Sequence[Check], room: int) -> list[Check]:
    """As many as there is room for: what is well, or cannot be known, leaves first."""
    kept = list(checks)
    for name, outcomes in (
        ("pickle", ("pass",)),
        ("code", ("unknown",)),
        ("metric", ("unknown",)),
        ("files", ("pass",)),
        ("code", ("pass",)),
        ("example", ("unknown",)),
    ):
        if len(kept) <= room:
            break
        kept = [each for each in kept if each.name != name or each.outcome not in outcomes]
    return kept


def checks_of(store: Store, version: ModelVersion, goal: str = "") -> list[Check]:
    """All checks, the metric's for ``goal`` where the policy names none. The files' digests are read once, and the example's answer
    is there once somebody asked for it."""
    found: list[Check] = []
    files = _files_once(store, version)
    if files is not None:
        found.append(files)
    for each in check(
        store, version.name, version.version, kinds=("signature", "metric", "code", "pickle"), goal=goal
    ):
        found.append(each)
        if each.name == "signature":
            found.append(_example(store, version))
    return found


def _files_once(store: Store, version: ModelVersion) -> Check | None:
    """The files check of the last time, while the files look the same."""
    try:
        folder = store.registry.folder_here(version)
        looks = tuple(
            (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))
        )
    except (MltrackError, OSError):
        return None
    kept = _files_seen.get((version.name, version.version))
    if kept is not None and kept[0] == looks:
        return kept[1]
    now = check(store, version.name, version.version, kinds=("files",))
    if not now:
        return None
    _files_seen[version.name, version.version] = (looks, now[0])
    return now[0]


def _example(store: Store, version: ModelVersion) -> Check:
    try:
        folder = store.registry.folder_here(version)
    except MltrackError as error:
        return Check("example", "warn", error.message)
    if str(folder) not in tried:
        return Check("example", "unknown", "not asked yet: t asks it in a process of its own")
    answer = tried[str(folder)]
    if answer is None:
        return Check("example", "unknown", "asked just now …")
    return Check(
        "example",
        "pass" if answer[0] else store.registry.model(version.name).policy.level("example"),
        answer[1],
    )


def _way_back(store: Store, name: str, previous: int | None) -> Check:
    if previous is None:
        return Check("way back", "unknown", "nobody held Production before")
    back = store.registry.version(name, previous)
    kept = _files_once(store, back)
    if kept is not None and kept.outcome == "pass":
        return Check("way back", "pass", f"v{previous} {kept.sentence}")
    if kept is not None:
        return Check("way back", "block", f"v{previous}: {kept.sentence}")
    return Check("way back", "warn", f"v{previous} is not on this machine: its files cannot be verified")


def _chain(store: Store) -> str:
    """Whether the audit holds. Only what is new since the last look is checked; very long ones are left to the command."""
    root = str(store.location.root)
    newest, count, head = store.registry.audit_head()
    if not count:  # an MLflow server keeps none
        return ""
    checked, hash_then, held = _verified.get(root, (0, "", True))
    if newest != checked and held:
        if count > _MOST_CHECKED and not checked:
            return f"{count:,} changes: mltrack models audit --verify"
        held = store.registry.verify_audit(checked, hash_then) is None
        _verified[root] = (newest, head, held)
    return f"audit chain {'✓' if held else '✗ BROKEN'} {count:,} rows"


def _for_me(store: Store, request: Request) -> bool:
    """Whether I may answer it."""
    policy = store.registry.model(request.name).policy
    mine = request.actor == user()
    return not (mine and policy.approvals) and (not policy.approvers or user() in policy.approvers)


CALLS = (models,)
