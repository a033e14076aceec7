"""A large mlruns folder: how soon there are rows, how fast all of it is in, what a second opening costs, and the memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from measure import Figures, cpu_of
from mlruns_folder import write_folder

from mltrack.store import open_store

RUNS = 10_000
# In a process of its own: what it needs beside the store that is open already.
AGAIN = """
import sys, time
from mltrack.store import open_store
store = open_store(sys.argv[1])
began = time.process_time()
report = store.refresh(None)
print(report.records + report.points, time.process_time() - began)
"""


def test_a_folder_of_10000_runs(figures: Figures, tmp_path: Path) -> None:
    write_folder(tmp_path / "mlruns", RUNS)
    with open_store(str(tmp_path / "store")) as store:
        store.add_source(str(tmp_path / "mlruns"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        store.refresh(0.2)
        while not store.search("", limit=30).total:
            store.refresh(0.2)
        first = time.perf_counter() - began
        spent = cpu_of(lambda: store.refresh(None))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert store.search("").total == RUNS
        page = store.runs(store.search("", limit=1).run_ids)
        assert (len(page[0].params), len(page[0].metrics)) == (20, 20)
    figures.add("10,000 `mlruns` runs x 20 params x 20 metrics: first rows", "3 s", f"{first:.2f} s")
    figures.add("The same, all of it, CPU", "a rate", f"{RUNS / spent:,.0f} runs/s, memory +{grown:.0f} MB")
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    read, again = done.stdout.split()
    figures.add("The same, second opening, CPU", "only what changed", f"{float(again):.2f} s")
    assert first < 6 and int(read) == 0 and float(again) < spent / 10
