"""What every command is given: which store was asked for, and what the output can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mltrack.tui.cli.output import warn
from mltrack.tui.cli.terminal import Terminal
from mltrack.tui.draw.numbers import format_bytes

if TYPE_CHECKING:
    from mltrack.store.client.location import StoreChoice
    from mltrack.store.records import Run
    from mltrack.store.store import Store

# How long a reading command may spend on taking in what training processes have written meanwhile.
_REFRESH_SECONDS = 2.0
# How long it waits for stores of other machines that are followed. They go on coming where the app is open.
_FETCH_SECONDS = 5.0


@dataclass(frozen=True)
class Session:
    """One call of the command."""

    where: str | None
    terminal: Terminal

    def missing_store(self) -> StoreChoice | None:
        """The chosen store when it is a folder that nobody has made yet. Asking must not make it. Raises BadInput for a file."""
        from mltrack.store.client.location import choose_store
        from mltrack.store.errors import BadInput

        choice = choose_store(self.where)
        if choice.is_remote or choice.root.is_dir():
            return None
        if choice.root.exists():
            raise BadInput(f"{choice.url} ({choice.chosen_by}) is a file; a store is a folder or an address.")
        return choice

    @contextmanager
    def open(self, *, readonly: bool = False, refresh: bool = True, create: bool = False) -> Iterator[Store]:
        """The store, brought up to date; says so when that did not finish in time. Closed at the end.

        Raises NotFound when it is a folder that is not there: only logging, `mltrack demo` and what
        says ``create`` make stores.
        """
        from mltrack.store.acting import use_channel
        from mltrack.store.errors import NotFound
        from mltrack.store.machines import absent_machines, await_machines
        from mltrack.store.opening import open_store

        missing = None if create else self.missing_store()
        if missing is not None:
            raise NotFound(
                f"Nothing is logged in {missing.url} ({missing.chosen_by}): there is no such folder."
            )
        use_channel("cli")
        with open_store(self.where, readonly=readonly, say=warn) as store:
            if refresh:
                for address in await_machines(store.database, _FETCH_SECONDS):
                    warn(f"{address} has not told all it has yet; what has come is shown")
                report = store.refresh(_REFRESH_SECONDS)
                if report.pending_bytes:
                    warn(
                        f"{format_bytes(report.pending_bytes)} of journals are not read yet; `mltrack fold` reads them"
                    )
                if report.waiting_runs:
                    warn(
                        f"{report.waiting_runs:,} runs of sources are not read yet; `mltrack fold` reads them"
                    )
                for sentence in absent_machines(store.database).values():
                    warn(sentence)
            if store.location.database.startswith(("http://", "https://")):
                for state in store.sources():
                    if state.problem:
                        warn(f"{state.problem}; what was read before is shown")
            yield store


def resolve_run(store: Store, reference: str) -> Run:
    """The one run a reference means. Raises RunNotFound or AmbiguousRun with the candidates listed."""
    from mltrack.store.errors import AmbiguousRun, RunNotFound

    try:
        run_id = store.resolve(reference)
    except AmbiguousRun as error:
        raise AmbiguousRun(_with_candidates(store, error), error.candidates) from None
    runs = store.runs([run_id])
    if not runs:
        raise RunNotFound(f"Run {reference} is not in the store any more.")
    return runs[0]


def resolve_runs(store: Store, references: Sequence[str]) -> list[Run]:
    """The runs that references mean, in their order, each once."""
    runs: dict[str, Run] = {}
    for reference in references:
        run = resolve_run(store, reference)
        runs.setdefault(run.run_id, run)
    return list(runs.values())


def _with_candidates(store: Store, error: object) -> str:
    from mltrack.store.errors import AmbiguousRun
    from mltrack.tui.draw.times import format_moment

    assert isinstance(error, AmbiguousRun)
    shown = error.candidates[:12]
    lines = [error.message]
    for run in store.runs(shown):
        lines.append(
            f"  {run.run_id[:12]}  {format_moment(run.start_ms)}  {run.status:<9}  {run.experiment} › {run.name}"
        )
    if len(error.candidates) > len(shown):
        lines.append(f"  and {len(error.candidates) - len(shown)} more")
    lines.append("Say which by the beginning of its id.")
    return "\n".join(lines)
