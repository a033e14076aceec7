"""What logging costs a training: the import, one value, ten values, eight processes at once."""

from __future__ import annotations

import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import MARGIN, RATIO_MARGIN, Figures, answers_of, cpu_of_python

from mltrack.store import open_store


def test_import(figures: Figures, tmp_path: Path) -> None:
    cache = {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    bare, beside, ours = (
        cpu_of_python(code, 15, **cache) for code in ("pass", "import sqlite3", "import mltrack")
    )
    figures.add(
        "`import mltrack`, whole process, beside one that imports sqlite3",
        "2x",
        f"{ours / beside:.1f}x ({ours * 1e3:.0f} ms; sqlite3 {beside * 1e3:.0f} ms, bare Python {bare * 1e3:.0f} ms)",
    )
    assert ours <= 2 * beside * RATIO_MARGIN


def test_log_calls(figures: Figures, mlflow: dict[str, float], store_root: Path) -> None:
    found = answers_of("log_calls.py", store_root, 20_000)
    figures.add(
        "`log_metric`, median, beside a bare `write(2)` of the same bytes",
        "3x",
        f"{found['ratio']:.2f}x ({found['median_us']:.2f} µs; write {found['write_us']:.2f} µs)",
        f"{mlflow['log_metric'] * 1e6:,.0f} µs CPU" if mlflow else "",
    )
    figures.add(
        "`log_metrics` of ten, CPU per value",
        "2 µs",
        f"{found['ten_cpu_us_per_value']:.2f} µs",
        f"{mlflow['log_metrics per value'] * 1e6:,.0f} µs" if mlflow else "",
    )
    assert found["ratio"] <= 3 * RATIO_MARGIN
    assert found["ten_cpu_us_per_value"] <= 2 * MARGIN


def test_eight_processes_at_once(figures: Figures, store_root: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: answers_of("log_calls.py", store_root, 5000), range(8)))
    with open_store(str(store_root)) as store:
        report = store.refresh(None)
    assert (report.skipped, report.damaged) == (0, ())
    # Per process: 5,000 timed calls and their warm-up, 501 records of ten, 5,000 calls.
    assert report.points == 8 * (5001 + 5010 + 5000)
    slowest = statistics.median(one["p99_us"] for one in found)
    cpu = statistics.median(one["cpu_us"] for one in found)
    figures.add(
        "8 processes at once: p99 of `log_metric`; errors",
        "100 µs; 0",
        f"{slowest:.0f} µs; 0 ({cpu:.1f} µs CPU per call)",
    )
    assert cpu <= 100 * MARGIN  # the p99 itself is wall time: read it, on a machine that does nothing else


def test_a_script_loads_no_package(tmp_path: Path) -> None:
    code = "import sys, mltrack\nprint([name for name in ('numpy', 'orjson', 'sqlite3', 'typing', 'dataclasses') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
