"""Runs inside MLflow's environment: the same work on its SQLite store. Prints its figures as one line of JSON."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
DATABASE = FOLDER / "mlflow.db"
os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{DATABASE}"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"

import mlflow  # noqa: E402  # pyright: ignore[reportMissingImports]
from mlflow.entities import Metric  # noqa: E402  # pyright: ignore[reportMissingImports]

CALLS, STEPS, KEYS, RUNS, HISTORY = 1000, 1000, 20, 10_000, 100_000


def cpu(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def log_one_by_one() -> None:
    for step in range(CALLS):
        mlflow.log_metric("loss", random.random(), step=step)


def log_ten_at_once() -> None:
    for step in range(CALLS // 10):
        mlflow.log_metrics({f"metric_{key}": random.random() for key in range(10)}, step=step)


def log_batches(client: mlflow.MlflowClient, run_id: str) -> None:
    at = 1_763_000_000_000
    for first in range(0, STEPS, 50):
        metrics = [
            Metric(f"train/metric_{key}", random.random(), at + step * 500, step)
            for step in range(first, first + 50)
            for key in range(KEYS)
        ]
        client.log_batch(run_id, metrics=metrics)


def used(connection: sqlite3.Connection) -> int:
    pages = (
        connection.execute("PRAGMA page_count").fetchone()[0]
        - connection.execute("PRAGMA freelist_count").fetchone()[0]
    )
    return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])


def insert_runs(connection: sqlite3.Connection, experiment_id: str) -> None:
    """What the API would have written, in a hundredth of its time."""
    with connection:
        for index in range(RUNS):
            run_id, start = uuid.uuid4().hex, 1_763_000_000_000 + index
            connection.execute(
                "INSERT INTO runs (run_uuid, name, source_type, status, start_time, end_time, lifecycle_stage, experiment_id, user_id,"
                " artifact_uri) VALUES (?, ?, 'LOCAL', 'FINISHED', ?, ?, 'active', ?, 'ann', '')",
                (run_id, f"swift-owl-{index}", start, start + 3_600_000, int(experiment_id)),
            )
            connection.executemany(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, 9, 0, ?)",
                [(f"eval/metric_{key:02d}", random.random(), start, run_id) for key in range(KEYS)],
            )
            connection.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [(f"param_{key}", str(random.random()), run_id) for key in range(8)],
            )


def insert_history(connection: sqlite3.Connection, run_id: str) -> None:
    with connection:
        connection.executemany(
            "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES ('long', ?, ?, ?, 0, ?)",
            [(random.random(), 1_763_000_000_000 + step * 500, step, run_id) for step in range(HISTORY)],
        )


def main() -> None:
    found: dict[str, float] = {}
    experiment_id = mlflow.set_experiment("bench").experiment_id
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_metric("warm", 1.0, step=0)
        found["log_metric"] = cpu(log_one_by_one) / CALLS
        found["log_metrics per value"] = cpu(log_ten_at_once) / CALLS
        connection = sqlite3.connect(DATABASE)
        before = used(connection)
        points = STEPS * KEYS
        found["batch points per second"] = points / cpu(lambda: log_batches(client, run.info.run_id))
        found["bytes per point"] = (used(connection) - before) / points
        insert_history(connection, run.info.run_id)
    insert_runs(connection, experiment_id)
    connection.close()

    def search() -> None:
        client.search_runs(
            [experiment_id],
            "metrics.`eval/metric_03` < 0.5",
            order_by=["metrics.`eval/metric_07`"],
            max_results=1000,
        )

    found["search first"] = cpu(search)
    found["search"] = min(cpu(search) for _ in range(3))
    history = cpu(lambda: client.get_metric_history(run.info.run_id, "long"))
    found["history seconds per million"] = history * 1_000_000 / HISTORY
    found["version"] = float(".".join(mlflow.__version__.split(".")[:2]))
    print(json.dumps(found))


main()
