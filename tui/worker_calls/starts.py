"""The starts of a run, as a person counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mltrack.store.records import Attempt, Run


def starts_of(run: Run, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    """Without those of whoever looks after a launched job: that process makes the run before the job starts, and starts it once
    more to write down the end of a job that logged itself."""
    if not attempts or not isinstance(run.facts.get("project"), dict):
        return attempts
    seen = Counter((attempt.host, attempt.pid) for attempt in attempts)
    first = (attempts[0].host, attempts[0].pid)
    own = [
        attempt
        for attempt in attempts
        if (attempt.host, attempt.pid) != first and seen[attempt.host, attempt.pid] == 1
    ]
    return own or attempts[:1]
