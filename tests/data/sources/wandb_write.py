"""Writes W&B runs without a network, and prints what was logged. Arguments: the folder, and the story."""

import json
import math
import os
import random
import sys
import time

os.environ |= {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_DIR": sys.argv[1],
    "WANDB_CONSOLE": "off",
}

import wandb

story = sys.argv[2]
points: dict[str, list] = {}


def log(values, step=None):
    run.log(values, step=step)
    for key, value in values.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                points.setdefault(f"{key}.{inner}", []).append([logged[0], float(number).hex()])
        elif isinstance(value, (int, float)):
            points.setdefault(key, []).append([logged[0] if step is None else step, float(value).hex()])
    logged[0] = logged[0] + 1 if step is None else step + 1


logged = [0]
random.seed(story)
if story == "whole":
    run = wandb.init(
        project="churn",
        name="first try",
        config={
            "lr": 3e-4,
            "model": {"depth": 4, "name": "vit"},
            "sizes": [1, 2],
            "none": None,
            "flag": True,
        },
        tags=["a", "b"],
        notes="a note",
        group="g1",
        job_type="train",
    )
    for step in range(500):
        log({"loss": random.gauss(0, 1), "acc": step / 7, "nested": {"x": step}})
    log({"odd": math.nan}), log({"odd": math.inf}), log({"odd": -math.inf}), log({"big": 2**53, "flag": True})
    log({"later": 1.5}, step=5000)
    # Without a step it belongs to the last one, which is still open.
    run.log(
        {
            "text": "hello",
            "page": wandb.Html("<b>x</b>"),
            "hist": wandb.Histogram(np_histogram=([1, 2], [0.0, 1.0, 2.0])),
        }
    )
    run.summary["best"] = 0.25
    points["best"] = [[5000, (0.25).hex()]]
    run.config.update({"late": "yes"})
    run.finish()
elif story == "failed":
    run = wandb.init(project="churn", id="fails")
    log({"loss": 1.0})
    run.finish(exit_code=3)
elif story == "resumed":
    for begin in (0, 3):
        run = wandb.init(project="churn", id="again", resume="allow", config={"lr": 1})
        for step in range(begin, begin + 5):
            log({"loss": begin * 100.0 + step}, step=step)
        run.finish()
        time.sleep(1.1)  # folder names tell seconds apart
elif story == "killed":
    run = wandb.init(project="other", id="dies")
    for step in range(2000):
        log({"loss": float(step)})
    time.sleep(3)
    print(json.dumps(points), flush=True)
    os.kill(os.getpid(), 9)
print(json.dumps(points))
