"""Runs in a process of its own: the first answer of a fresh process, and the same again. Arguments: store, filter, sort."""

from __future__ import annotations

import json
import statistics
import sys

from measure import cpu_of

import mltrack.store.opening
from mltrack.store import open_store


def main(root: str, text: str, sort: str) -> None:
    assert (
        mltrack.store.opening
    )  # loaded before the clock starts: the store's process is there when a question comes
    with open_store(root) as store:
        keys = (sort,) if sort else ()
        found = []
        cold = cpu_of(lambda: found.append(store.search(text, sort=keys, limit=1000)))
        warm = [cpu_of(lambda: store.search(text, sort=keys, limit=1000)) for _ in range(9)]
        page = [
            cpu_of(lambda: store.runs(store.search(text, sort=keys, limit=1000).run_ids)) for _ in range(3)
        ]
        print(
            json.dumps(
                {"cold": cold, "warm": statistics.median(warm), "rows": min(page), "total": found[0].total}
            )
        )


main(*sys.argv[1:])
