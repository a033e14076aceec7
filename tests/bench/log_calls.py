"""Runs in a process of its own: what log calls cost beside bare writes. Arguments: store, calls. Prints JSON.

The rounds alternate, so that whatever else the machine does meets both. Latencies are medians: a process that loses the
processor for a moment moves none of them.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time

import mltrack

ROUND = 1000


def main(store: str, calls: int) -> None:
    draw = random.Random(1)
    mltrack.set_store(store)
    clock, write, log_metric = time.perf_counter_ns, os.write, mltrack.log_metric
    bare: list[int] = []
    logged: list[int] = []
    with mltrack.start_run(system_metrics=False) as run:
        log_metric("loss", 0.5, step=0)
        fd = os.open(run.folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        time.sleep(1.0)  # the facts of the run are gathered in the background; wait for that
        for first in range(1, calls, ROUND):
            values = [draw.random() for _ in range(ROUND)]
            lines = [
                f'[{first + index},{time.time_ns() // 1_000_000},"loss",{value!r}]\n'.encode()
                for index, value in enumerate(values)
            ]
            for line in lines:
                began = clock()
                write(fd, line)
                bare.append(clock() - began)
            for index, value in enumerate(values, first):
                began = clock()
                log_metric("loss", value, index)
                logged.append(clock() - began)
        ten = {f"metric_{number}": draw.random() for number in range(10)}
        mltrack.log_metrics(ten, step=0)
        rounds = range(1, 1 + calls // 10)
        before = time.process_time()
        for step in rounds:
            mltrack.log_metrics(ten, step=step)
        per_value = (time.process_time() - before) / len(rounds) / 10
        before = time.process_time()
        for index in range(calls):
            log_metric("loss", ten["metric_3"], index)
        per_call = (time.process_time() - before) / calls
        os.close(fd)
    slowest = sorted(logged)
    print(
        json.dumps(
            {
                "ratio": statistics.median(logged) / statistics.median(bare),
                "write_us": statistics.median(bare) / 1e3,
                "median_us": statistics.median(logged) / 1e3,
                "p99_us": slowest[int(len(slowest) * 0.99)] / 1e3,
                "cpu_us": per_call * 1e6,
                "ten_cpu_us_per_value": per_value * 1e6,
            }
        )
    )


main(sys.argv[1], int(sys.argv[2]))
