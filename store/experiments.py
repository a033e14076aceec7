"""Experiments by name: which one a run belongs to, also when it was renamed or deleted meanwhile."""

from __future__ import annotations

from mltrack.store.database import Database
from mltrack.store.records import Experiment


class ExperimentNames:
    """Which experiment a name stands for. Reads each name once, so it is good for one transaction and what that makes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._renamed: dict[str, list[tuple[int, int]]] = {}
        self._named: dict[str, list[tuple[int, int | None]]] = {}

    def number(self, name: str, at_ms: int) -> int:
        """The experiment a run started at ``at_ms`` under ``name`` belongs to; made when there is none.

        A rename or deletion holds for runs that started before it, however late their journals arrive; a run that starts
        later under the old name begins a new experiment.
        """
        if name not in self._named:
            self._read(name)
        for number, until_ms in self._renamed[name]:
            if until_ms >= at_ms:
                return number
        for number, deleted_ms in self._named[name]:
            if deleted_ms is None or deleted_ms >= at_ms:
                return number
        made = self._database.execute(
            "INSERT INTO experiment (name, created_ms, updated_ms) VALUES (?, ?, ?) RETURNING id",
            (name, at_ms, at_ms),
        )
        number = int(made[0][0])
        self._named[name].insert(0, (number, None))
        return number

    def _read(self, name: str) -> None:
        renamed = self._database.execute(
            "SELECT experiment_id, until_ms FROM experiment_name WHERE name = ? ORDER BY until_ms", (name,)
        )
        self._renamed[name] = [(int(number), int(until_ms)) for number, until_ms in renamed]
        named = self._database.execute(
            "SELECT id, lifecycle, deleted_ms FROM experiment"
            " WHERE name = ? AND (lifecycle = 'active' OR deleted_ms IS NOT NULL) ORDER BY lifecycle, id",
            (name,),
        )
        self._named[name] = [
            (int(number), None if lifecycle == "active" else int(deleted_ms))
            for number, lifecycle, deleted_ms in named
        ]


def experiment_for(database: Database, name: str, at_ms: int) -> int:
    """The experiment that a run started at ``at_ms`` under ``name`` belongs to. Inside a transaction."""
    return ExperimentNames(database).number(name, at_ms)


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
