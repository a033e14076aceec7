"""Big stores within a minute: rows as the fold writes them, through the store's own encoders, without journals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import orjson

from mltrack.store import open_store, summary
from mltrack.store.experiments import experiment_for
from mltrack.store.fold_points import KeyIds
from mltrack.store.series import PointColumns, distinct, encode_block

START_MS = 1_763_000_000_000
_STATUSES = ("FINISHED", "FINISHED", "FINISHED", "FAILED", "KILLED")
_OPTIMIZERS = ("adamw", "sgd", "lion")


def make_store(
    root: Path | str,
    runs: int,
    metrics: int = 20,
    points: int = 10,
    seed: int = 1,
    params: int = 8,
    experiments: int = 20,
) -> None:
    """A store of ended runs, each with `metrics` series of `points` points, `params` params (8 or more) and 2 tags."""
    random = np.random.default_rng(seed)
    with open_store(str(root)) as store:
        database = store.database
        keys = KeyIds(database)
        for first in range(0, runs, 2000):
            with database.transaction():
                keys.add({f"eval/metric_{number:02d}" for number in range(metrics)})
                numbers = np.sort(np.array(list(keys.ids.values()), np.int64))
                in_turn = [
                    experiment_for(database, f"group/{number}", START_MS) for number in range(experiments)
                ]
                for index in range(first, min(runs, first + 2000)):
                    start = START_MS + index * 60_000
                    made = distinct(_points(random, numbers, points, start))
                    run = database.execute(
                        "INSERT INTO run (run_id, experiment_id, name, owner, host, pid, status, start_ms, end_ms, heard_ms, step,"
                        " exit_code, state, facts, summary, seq) VALUES (?, ?, ?, ?, ?, 7, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?) RETURNING id",
                        (
                            hashlib.sha256(f"{seed}.{index}".encode()).hexdigest()[:32],
                            in_turn[index % experiments],
                            f"swift-owl-{index}",
                            ("ann", "bob", "eve")[index % 3],
                            f"gpu-{index % 8}",
                            _STATUSES[index % 5],
                            start,
                            start + 3_600_000 + index,
                            start + 3_600_000 + index,
                            points - 1,
                            _state(index, start, experiments),
                            '{"command":["python","train.py"],"cwd":"/home/ann/train","script":"train.py"}',
                            summary.pack(summary.rows_of_points(made)),
                            database.next_seq(),
                        ),
                    )[0][0]
                    database.execute(
                        "INSERT INTO block (run, kind, first_step, last_step, count, data) VALUES (?, 1, 0, ?, ?, ?)",
                        (run, points - 1, len(made), encode_block(made, small=False)),
                    )
                    database.execute_many(
                        "INSERT INTO param (run, key, value, stamp) VALUES (?, ?, ?, ?)",
                        [
                            (run, key, value, f"{start:016d}.x.1")
                            for key, value in _params(random, index, params)
                        ],
                    )
                    database.execute_many(
                        "INSERT INTO tag (run, key, value, stamp) VALUES (?, ?, ?, ?)",
                        [
                            (run, "team", ("vision", "text")[index % 2], f"{start:016d}.x.2"),
                            (run, "sweep", f"s{index // 50}", f"{start:016d}.x.2"),
                        ],
                    )


def _points(
    random: np.random.Generator, keys: np.ndarray[tuple[int], np.dtype[np.int64]], points: int, start: int
) -> PointColumns:
    """All metrics logged together at each step, about every half second."""
    n = len(keys) * points
    times = start + np.cumsum(random.integers(480, 520, points))
    zero = np.zeros(n, np.int64)
    return PointColumns(
        np.tile(keys, points),
        zero,
        zero,
        np.repeat(np.arange(points, dtype=np.int64), len(keys)),
        np.repeat(times, len(keys)),
        random.random(n),
    )


def _params(random: np.random.Generator, index: int, count: int) -> list[tuple[str, str]]:
    return [
        ("lr", f"{10 ** random.uniform(-5, -1):.6g}"),
        ("batch_size", str(2 ** int(random.integers(4, 10)))),
        ("optimizer", _OPTIMIZERS[index % 3]),
        ("dropout", f"{random.uniform(0, 0.5):.2f}"),
        ("seed", str(index)),
        ("model", "resnet50"),
        ("data", "/data/c100"),
        ("epochs", "90"),
        # Of a real configuration most is the same everywhere.
        *(
            (f"model/layer_{number}", str(index % 7 if number % 10 == 0 else number))
            for number in range(count - 8)
        ),
    ]


def _state(index: int, start: int, experiments: int) -> str:
    stamp = f"{start:016d}.0123456789abcdef.000000000000"
    state = {
        f"begin {start}-abcdef": [stamp, {"start": start, "jid": "0123456789abcdef", "header": {"pid": 7}}],
        "name": [stamp, f"swift-owl-{index}"],
        "first": [stamp, {"experiment": f"group/{index % experiments}", "start": start}],
        f"end {start}-abcdef": [stamp, {"status": _STATUSES[index % 5], "end": start + 3_600_000, "exit": 0}],
    }
    return orjson.dumps(state).decode()
