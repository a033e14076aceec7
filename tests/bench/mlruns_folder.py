"""A large mlruns folder, as MLflow's file store lays it out, written without MLflow: that would take an hour."""

from __future__ import annotations

import os
import random
from pathlib import Path

EXPERIMENT = (
    "artifact_location: file://{root}/0\ncreation_time: 1795473496684\nexperiment_id: '0'\n"
    "last_update_time: 1795473496684\nlifecycle_stage: active\nname: Default\n"
)
RUN = (
    "artifact_uri: file://{root}/0/{id}/artifacts\nend_time: {end}\nentry_point_name: ''\nexperiment_id: '0'\n"
    "lifecycle_stage: active\nrun_id: {id}\nrun_name: run-{number}\nsource_name: ''\nsource_type: 4\nsource_version: ''\n"
    "start_time: {start}\nstatus: 3\ntags: []\nuser_id: ann\n"
)


def write_folder(root: Path, runs: int, keys: int = 20, points: int = 5) -> None:
    """``runs`` ended runs with ``keys`` params, ``keys`` metrics of ``points`` points and four tags, the newest first by its times."""
    rng = random.Random(1)
    (root / "0").mkdir(parents=True)
    (root / "0" / "meta.yaml").write_text(EXPERIMENT.format(root=root))
    for number in range(runs):
        run_id = f"{rng.getrandbits(128):032x}"
        folder = f"{root}/0/{run_id}"
        start = 1_700_000_000_000 - number * 60_000
        files = {"meta.yaml": RUN.format(root=root, id=run_id, number=number, start=start, end=start + 5000)}
        files |= {f"params/p{key}": repr(rng.random()) for key in range(keys)}
        for key in range(keys):
            lines = (f"{start + step} {rng.random()!r} {step}\n" for step in range(points))
            files[f"metrics/m{key}"] = "".join(lines)
        tags = {"runName": f"run-{number}", "user": "ann", "source.name": "train.py", "source.type": "LOCAL"}
        files |= {f"tags/mlflow.{key}": value for key, value in tags.items()}
        for name in ("params", "metrics", "tags", "artifacts"):
            os.makedirs(f"{folder}/{name}")
        for name, text in files.items():
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
            os.utime(f"{folder}/{name}", (start / 1000, start / 1000))
        for name in ("params", "metrics", "tags", "artifacts", ""):
            os.utime(f"{folder}/{name}", (start / 1000, start / 1000))
