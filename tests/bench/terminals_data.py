"""Runs with the Python of the programs beside us: ten runs as TensorBoard's files and as W&B's offline runs. Argument: a folder."""

from __future__ import annotations

import math
import os
import random
import sys
from typing import Any

RUNS, METRICS, STEPS = 10, 6, 5000


def main(root: str) -> None:
    random.seed(1)
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=root)
    import tensorboardX  # type: ignore[import-not-found,unused-ignore]  # lives in the environment of the others
    import wandb  # type: ignore[import-not-found,unused-ignore]  # as above

    for number in range(RUNS):
        writer: Any = tensorboardX.SummaryWriter(f"{root}/tb/run-{number:02}")
        run: Any = wandb.init(
            project="p", name=f"run-{number:02}", settings={"x_disable_stats": True, "console": "off"}
        )
        for step in range(STEPS):
            values = {
                f"train/metric_{key}": math.exp(-3 * step / STEPS) + random.gauss(0, 0.05)
                for key in range(METRICS)
            }
            for key, value in values.items():
                writer.add_scalar(key, value, step)
            run.log(values, step=step)
        writer.close()
        run.finish()


main(*sys.argv[1:])
