"""Logs with trackio into the folder that TRACKIO_DIR names, and prints what trackio itself reads back."""

import json
import math
import random
import sys

import trackio
from trackio.sqlite_storage import SQLiteStorage

random.seed(1)
sys.stdout, out = sys.stderr, sys.stdout
for name, count in (("one", 3000), ("two", 5)):
    trackio.init(
        project="churn", name=name, config={"lr": 0.1, "model": {"depth": 2}, "none": None}, group="g"
    )
    for step in range(count):
        trackio.log({"loss": random.gauss(0, 1), "acc": step / 7, "nested": {"x": step}})
    trackio.log({"odd": math.nan, "inf": math.inf, "minus": -math.inf, "text": "hello", "flag": True})
    trackio.log({"later": 1.5}, step=9000)
    trackio.finish()
trackio.init(project="other", name="one", config={})
trackio.log({"loss": 1.0})
trackio.finish()

read = {}
for project in ("churn", "other"):
    for run in SQLiteStorage.get_runs(project):
        found = {}
        for row in SQLiteStorage.get_logs(project, run):
            step = row.pop("step")
            row.pop("timestamp")
            for key, value in row.items():
                items = (
                    {f"{key}.{inner}": number for inner, number in value.items()}
                    if isinstance(value, dict)
                    else {key: value}
                )
                for key, number in items.items():
                    if isinstance(number, (int, float)):
                        found.setdefault(key, []).append([step, float(number).hex()])
        read[f"{project}/{run}"] = found
print(json.dumps(read), file=out)
