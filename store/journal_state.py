"""What the journals say of a run, kept between slices of them: read from its row, and written back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from mltrack.store.database import Database

# An end that says that the attempt goes on after all: MLflow's clients resume a run so.
REOPENED = ("RUNNING", "SCHEDULED")


@dataclass
class RunState:
    """The journals' own values of a run, each with its stamp, and what of it changed. Lives in ``run.state``
    and ``run.pending``."""

    run: int
    values: dict[str, Any]
    facts: dict[str, Any]
    changed: bool = False
    skipped: int = 0
    # By jid the size of the points file that its writer closed with.
    closed: dict[str, int] = field(default_factory=dict)
    # Names of the params that have a row, once they were read.
    params: set[str] | None = None

    def offer(self, name: str, stamp: str, value: Any) -> None:
        """Largest stamp wins."""
        old = self.values.get(name)
        if old is None or stamp > old[0]:
            self.values[name] = [stamp, value]
            self.changed = True

    def get(self, name: str, default: Any = None) -> Any:
        """The winning value."""
        found = self.values.get(name)
        return default if found is None else found[1]

    def has_ended(self, attempt: str) -> bool:
        """Whether the journals say how an attempt ended."""
        return self.get(f"end {attempt}", {"status": "RUNNING"})["status"] not in REOPENED


def load_state(database: Database, run: int) -> RunState:
    """The stored state of a run; what stands in for unread points is its value "pending"."""
    state, pending, facts = database.execute("SELECT state, pending, facts FROM run WHERE id = ?", (run,))[0]
    return RunState(run, whole_state(state, pending), orjson.loads(facts))


def whole_state(state: str, pending: str | None) -> dict[str, Any]:
    """The values of a run from their two columns. Whoever only looks at a run need not read the second, which a run of 1,500
    metrics has 160 kB of: its summary has them in already. Stores of the first versions have both in the first."""
    values: dict[str, Any] = orjson.loads(state)
    if pending:
        values["pending"] = orjson.loads(pending)
    return values


def save_state(
    database: Database, run: int, values: dict[str, Any], facts: dict[str, Any] | None = None
) -> None:
    """Write the values of a run, and its facts. Inside a transaction that settles the run."""
    kept = {name: value for name, value in values.items() if name != "pending"}
    pending = orjson.dumps(values["pending"]).decode() if values.get("pending") else None
    written: list[Any] = [orjson.dumps(kept).decode(), pending]
    if facts is not None:
        written.append(orjson.dumps(facts).decode())
    database.execute(
        f"UPDATE run SET state = ?, pending = ?{'' if facts is None else ', facts = ?'} WHERE id = ?",
        [*written, run],
    )


def store_state(database: Database, state: RunState) -> None:
    """Write what changed of a run's state. Inside a transaction."""
    if state.changed:
        save_state(database, state.run, state.values, state.facts)
