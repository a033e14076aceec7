"""What tidying asks before it asks the person: what would go, and how many bytes that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mltrack.store.errors import BadInput
from mltrack.store.store import Store
from mltrack.tui.clean import cell_width, clean, pad
from mltrack.tui.cli.tidy import find_checkpoints, models_of, trim
from mltrack.tui.cli.trash import size_of, trashed
from mltrack.tui.draw.numbers import format_bytes
from mltrack.tui.worker_calls.run_actions import with_children

_MOST = 100_000
_MOST_SHOWN = 1_000


def weigh_keep(store: Store, run_id: str, count: int) -> dict[str, Any]:
    """What keeping the best ``count`` of a family puts into the trash: {"ids", "names" kept, "bytes", "goal", "spared"}. The family is the
    run's children, or its siblings when it has none."""
    runs = store.runs([run_id], (), ())
    if not runs:
        raise BadInput("The run is not in the store any more.")
    quoted = run_id.replace("'", "''")
    children = store.search(f"parent_id = '{quoted}'", limit=1).run_ids
    parent = run_id if children else runs[0].parent_id
    if parent is None:
        raise BadInput(f"{runs[0].name} is no sweep and stands in none.")
    trimmed, goal = trim(store, parent, count)
    return {
        "ids": [run.run_id for run in trimmed.others],
        "names": [run.name for run in trimmed.kept],
        "bytes": sum(size_of(run, store) for run in trimmed.others),
        "goal": goal,
        "spared": len(trimmed.spared),
    }


def weigh_purge(store: Store, run_ids: Sequence[str] = (), reference: str = "") -> dict[str, Any]:
    """What removing for good takes: {"ids", "bytes", "owners", "held"}: these runs with their children, the run in the trash that
    ``reference`` means, or else the whole trash. Runs that a registered model is made of stay, and are counted in "held".
    Raises BadInput for runs that go on."""
    if reference:
        ids: Sequence[str] = [in_trash(store, reference)]
    elif run_ids:
        ids = with_children(store, run_ids)
    else:
        ids = store.search("", lifecycle="trash", limit=_MOST).run_ids
    held = models_of(store)
    runs = [run for run in store.runs(ids, (), ()) if run.run_id not in held]
    going = [run.name for run in runs if run.status == "RUNNING" and run.lifecycle == "active"]
    if going:
        raise BadInput(f"{going[0]} is still running: X stops it, and what has ended can be purged.")
    return {
        "ids": [run.run_id for run in runs],
        "bytes": sum(size_of(run, store) for run in runs),
        "owners": sorted({run.user for run in runs if run.user}),
        "held": len(ids) - len(runs),
    }


def purge_for_good(store: Store, run_ids: Sequence[str]) -> Any:
    """Remove runs for good, by way of the trash."""
    if living := [run.run_id for run in store.runs(run_ids, (), ()) if run.lifecycle == "active"]:
        store.trash(living)
    return store.purge(run_ids)


def in_trash(store: Store, reference: str) -> str:
    """The id of the run in the trash that a person means. Raises BadInput for one that is not there."""
    return trashed(store, [reference])[0].run_id


def trash_lines(store: Store) -> dict[str, Any]:
    """What is in the trash, the newest run first, with how it comes back."""
    found = store.runs(store.search("", lifecycle="trash", limit=_MOST_SHOWN).run_ids, (), ())
    if not found:
        return {"title": "Trash", "lines": [[[" The trash is empty.", "dim"]]]}
    sizes = [size_of(run, store) for run in found]
    more = " (the newest)" if len(found) == _MOST_SHOWN else ""
    doing = ":restore NAME, :purge NAME (for good), :purge (all of them)"
    head = f" {len(found):,} runs{more}, {format_bytes(sum(sizes))}. {doing}"
    lines: list[list[list[str]]] = [[[head, "dim"]], []]
    wide = max(cell_width(clean(run.name, None)) for run in found)
    for run, size in zip(found, sizes, strict=True):
        lines.append(
            [
                [f" {pad(clean(run.name, None), wide)}  ", ""],
                [f"{run.run_id[:8]}  ", "dim"],
                [f"{format_bytes(size):>8}  ", ""],
                [f"{run.experiment}   {run.user}", "dim"],
            ]
        )
    return {"title": "Trash", "lines": lines}


def weigh_checkpoints(store: Store) -> dict[str, int]:
    """How many checkpoints nothing needs: {"count", "bytes"}."""
    spare = [one.size for _, one in find_checkpoints(store) if not one.needed]
    return {"count": len(spare), "bytes": sum(spare)}


def checkpoint_lines(store: Store) -> list[list[list[str]]]:
    """All checkpoints of the store's runs as lines, the spare ones first."""
    found = find_checkpoints(store)
    found.sort(key=lambda pair: bool(pair[1].needed))
    spare = [one for _, one in found if not one.needed]
    total = format_bytes(sum(one.size for one in spare))
    if not found:
        return [[[" No file of a run is a checkpoint by its name.", "dim"]]]
    head = (
        f" {len(spare):,} of {len(found):,} are needed by nothing, {total}. :checkpoints delete removes them."
    )
    lines: list[list[list[str]]] = [[[head, "dim"]], []]
    wide = max((len(run.name) for run, _ in found), default=0)
    for run, one in found:
        why = [one.needed, "dim"] if one.needed else ["needed by nothing", "yellow"]
        lines.append(
            [
                [f" {run.name:<{wide}}  ", ""],
                [f"{format_bytes(one.size):>8}  ", ""],
                [f"{one.name}   ", "cyan"],
                why,
            ]
        )
    return lines


CALLS = (weigh_keep, weigh_purge, purge_for_good, in_trash, trash_lines, weigh_checkpoints, checkpoint_lines)
