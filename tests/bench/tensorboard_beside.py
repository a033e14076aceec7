"""Runs where the tensorboard package is: write event files, and read one with its own loaders. Prints JSON."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path


def write(folder: str, runs: int, steps: int) -> None:
    """``runs`` folders with four series of ``steps`` points each."""
    from tensorboardX import SummaryWriter

    keys = ("train/loss", "train/acc", "val/loss", "lr")
    for run in range(runs):
        place = Path(folder) / f"lr{run + 1}e-4_seed{run % 5}" if runs > 1 else Path(folder)
        with SummaryWriter(str(place), max_queue=1000, flush_secs=600) as writer:
            began = time.time() - steps
            for step in range(steps):
                for key in keys:
                    writer.add_scalar(key, random.random(), step, walltime=began + step)


def read(path: str) -> dict[str, float]:
    """Points per CPU second of each of its loaders; the slowest gets a part of the file."""
    from tensorboard.backend.event_processing import event_accumulator, event_file_loader

    found = {}
    for name, most in (("LegacyEventFileLoader", 1 << 60), ("EventFileLoader", 100_000)):
        before, count = time.process_time(), 0
        for _ in getattr(event_file_loader, name)(path).Load():
            count += 1
            if count >= most:
                break
        found[name] = count / (time.process_time() - before)
    before = time.process_time()
    data = event_accumulator.EventAccumulator(path, size_guidance={"scalars": 0, "tensors": 0})
    data.Reload()
    count = sum(len(data.Tensors(tag)) for tag in data.Tags()["tensors"])
    count += sum(len(data.Scalars(tag)) for tag in data.Tags()["scalars"])
    found["EventAccumulator"] = count / (time.process_time() - before)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        print("null")
    else:
        print(json.dumps(read(sys.argv[2])))
