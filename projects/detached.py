"""What a process that outlives whoever started it does first: be nobody's rank, answer, and stop listening."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# Of our own environment: they would make the supervisor a rank of somebody's training or a child of some run.
_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "OMPI_",
    "PMI_",
    "PMIX_",
    "SLURM_PROCID",
    "SLURM_STEP",
    "MLTRACK_RUN_ID",
)


def forget_ranks() -> None:
    """Be nobody's rank and nobody's child; what the job prints and needs is its own matter."""
    for name in list(os.environ):
        if name.startswith(_RANKS):
            del os.environ[name]
    os.environ.update({"MLTRACK_CONSOLE": "0", "MLTRACK_FACTS": "0", "MLTRACK_SYSTEM_METRICS": "0"})


def become_quiet(folder: Path) -> None:
    """From now on nobody listens: standard streams lead to a small file that is only there for our own accidents."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    accidents = os.open(
        folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    sys.stdout.flush()
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(accidents, 2)
    os.close(nowhere)
    os.close(accidents)


def answer(**value: object) -> None:
    """One line of JSON for whoever started us."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
