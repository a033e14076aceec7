"""Experiments by name: which one a run belongs to, also when it was renamed or deleted meanwhile."""

from __future__ import annotations

from mltrack.store.database import Database
from mltrack.store.records import Experiment


def experiment_for(database: Database, name: str, at_ms: int) -> int:
    """The experiment a run started at ``at_ms`` under ``name`` belongs to; made when there is none. Inside a transaction.

    A rename or deletion holds for runs that started before it, however late their journals arrive; a run that starts
    later under the old name begins a new experiment.
    """
    renamed = database.execute(
        "SELECT experiment_id FROM experiment_name WHERE name = ? AND until_ms >= ? ORDER BY until_ms LIMIT 1",
        (name, at_ms),
    )
    if renamed:
        return int(renamed[0][0])
    rows = database.execute(
        "SELECT id FROM experiment WHERE name = ? AND (lifecycle = 'active' OR deleted_ms >= ?) ORDER BY lifecycle LIMIT 1",
        (name, at_ms),
    )
    if rows:
        return int(rows[0][0])
    made = database.execute(
        "INSERT INTO experiment (name, created_ms, updated_ms) VALUES (?, ?, ?) RETURNING id",
        (name, at_ms, at_ms),
    )
    return int(made[0][0])


def experiments(database: Database) -> list[Experiment]:
    """All experiments with the number of their runs by status, newest activity first."""
    counts: dict[int, dict[str, int]] = {}
    newest: dict[int, int] = {}
    for experiment_id, status, count, last in database.execute(
        "SELECT experiment_id, status, count(*), max(coalesce(heard_ms, end_ms, start_ms)) FROM run"
        " WHERE lifecycle = 'active' GROUP BY experiment_id, status"
    ):
        counts.setdefault(int(experiment_id), {})[str(status)] = int(count)
        newest[int(experiment_id)] = max(newest.get(int(experiment_id), 0), int(last or 0))
    found = [
        Experiment(
            int(key),
            str(name),
            str(lifecycle),
            sum(counts.get(int(key), {}).values()),
            counts.get(int(key), {}),
            newest.get(int(key)),
        )
        for key, name, lifecycle in database.execute("SELECT id, name, lifecycle FROM experiment")
    ]
    return sorted(found, key=lambda experiment: (-(experiment.last_ms or 0), experiment.name))


def count_in_use(database: Database) -> int:
    """How many experiments have active runs. A look into an index for each, not at every run."""
    used = "EXISTS (SELECT 1 FROM run r WHERE r.experiment_id = e.id AND r.lifecycle = 'active')"
    return int(database.execute(f"SELECT count(*) FROM experiment e WHERE {used}")[0][0])
