"""Runs in a process of its own: one series to arrays. Arguments: store, run id, key."""

from __future__ import annotations

import json
import sys

from measure import cpu_of

import mltrack.store.opening
from mltrack.store import open_store


def main(root: str, run_id: str, key: str) -> None:
    assert mltrack.store.opening
    found = []
    with open_store(root) as store:
        cold = cpu_of(lambda: found.append(store.points(run_id, key)))
    print(json.dumps({"cold": cold, "points": len(found[0].values)}))


main(*sys.argv[1:])
