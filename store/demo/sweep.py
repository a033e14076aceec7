"""The middle of the story: a sweep of 41 runs over one idea, in which the learning rate is not to blame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

OWNERS = ("alice", "bob", "carol")
HOSTS = ("gpu1", "gpu2", "gpu3")
EXPERIMENT = "vision/cifar"
TOTAL_STEPS = 100_000

# What the screens of the documentation show is in the story under the same names.
_NAMED = (
    "sage-owl-41",
    "calm-elk-12",
    "warm-ant-13",
    "glad-fox-88",
    "pale-cod-05",
    "tidy-hen-30",
    "numb-bat-19",
    "bold-yak-07",
    "dim-ram-23",
)
_QUALITIES = "brisk crisp deft eager fond grand keen late mild neat proud quick rare slim smart snug spry swift tame vast".split()
_ANIMALS = (
    "asp bee carp crow deer emu frog goat hare ibis jay koi lamb mole newt orca pike quail rook seal".split()
)


@dataclass(frozen=True)
class Trial:
    """One run of the sweep: its settings, and how it turned out."""

    name: str
    params: dict[str, str]
    best: float
    peak: int
    stop: int
    outcome: str
    floor: float
    pace: float

    @property
    def lr(self) -> float:
        """The learning rate as a number."""
        return float(self.params["lr"])


def common_params() -> dict[str, str]:
    """Settings that no run of the sweep changes."""
    return {
        "model": "resnet50",
        "data.root": "/data/c100",
        "data.workers": "8",
        "data.mean": "0.5071,0.4867,0.4408",
        "data.augment": "flip,crop,randaug",
        "opt.betas": "0.9,0.999",
        "opt.eps": "1e-08",
        "opt.clip": "1.0",
        "sched.name": "cosine",
        "sched.warmup": "500",
        "sched.min_lr": "0.0",
        "train.steps": str(TOTAL_STEPS),
        "train.precision": "bf16",
        "train.compile": "True",
        "train.ema": "0.9999",
        "eval.every": "200",
        "eval.batch_size": "1024",
        "log.every": "20",
    }


def trials(seed: int) -> Iterator[Trial]:
    """The 41 trials, best first as far as they are named in the documentation."""
    random = np.random.default_rng([seed, 41])
    for index in range(41):
        crop, opt = "32", str(random.choice(["adamw", "adamw", "lion"]))
        lr = float(random.choice([1e-4, 2.7e-4, 3e-4, 3.1e-4, 9e-4]))
        batch = int(random.choice([128, 256, 256, 512]))
        name = (
            _NAMED[index]
            if index < len(_NAMED)
            else f"{_QUALITIES[index % 20]}-{_ANIMALS[(index * 7) % 20]}-{int(random.integers(0, 100)):02d}"
        )
        stop, outcome = int(random.integers(38, 60)) * 200, "FINISHED"
        if name == "sage-owl-41":
            lr, opt, batch, stop, outcome = 3e-4, "adamw", 256, 41_220, "RUNNING"
        elif name == "calm-elk-12":
            lr, opt, batch = 3e-4, "lion", 256
        elif name == "glad-fox-88":
            lr, opt, batch, stop, outcome = 3.1e-4, "adamw", 128, 63_000, "RUNNING"
        elif name == "tidy-hen-30":
            lr, batch, stop, outcome = 3e-4, 256, 39_500, "QUIET"
        elif name == "numb-bat-19":
            lr, batch, stop, outcome = 9e-4, 512, 1_200, "NAN"
        elif name == "bold-yak-07":
            lr, batch, stop, outcome = 1e-4, 1024, 340, "OOM"
        elif name == "dim-ram-23":
            # Looks like the learning rate; it is the crop, and with it other data.
            lr, opt, crop, batch, stop = 1e-3, "adamw", "224", 256, 23_000
        elif index % 13 == 12:
            outcome = "KILLED"
        elif index in (30, 35):
            outcome = "RUNNING"
        best = (
            0.9312
            - 0.004 * math.log10(lr / 3e-4) ** 2
            - (0.0012 if opt == "lion" else 0.0)
            - 0.0007 * abs(math.log2(batch / 256))
        )
        best -= abs(float(random.normal(0, 0.0015))) if name != "sage-owl-41" else 0.0
        if crop == "224":
            best = 0.8120
        weight_decay, dropout = (
            str(random.choice(["0.05", "0.05", "0.1"])),
            str(random.choice(["0.1", "0.1", "0.2"])),
        )
        params = {
            **common_params(),
            "lr": f"{lr:.2g}".replace("e-0", "e-"),
            "batch_size": str(batch),
            "opt.name": opt,
            "opt.weight_decay": weight_decay,
            "dropout": dropout,
            "data.crop": crop,
            "seed": str(index if crop == "32" else 7),
        }
        peak = 4_200 if name == "sage-owl-41" else int(random.integers(30, 50)) * 200
        floor = 0.18 + (0.9 if crop == "224" else 0.0) + abs(float(random.normal(0, 0.02)))
        yield Trial(
            name, params, round(best, 4), peak, stop, outcome, floor, 1.0 + float(random.normal(0, 0.1))
        )
