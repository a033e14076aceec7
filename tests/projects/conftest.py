"""The container engine, profiles that let builds reach the package index, and a cluster."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture
def engine(store_root: Path) -> Iterator[Any]:
    """The engine's API; no container of a test is left when it has ended."""
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip(
            "needs a container engine: run `export $(tests/services/start-docker.sh)`, or set DOCKER_HOST to an engine that "
            "has the image python:3.11-slim"
        )
    import docker

    # Two processes may run tests: whoever looks for what is left must be alone with the engine.
    alone = os.open(Path(gettempdir()) / f"mltrack-engine-{os.getuid()}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(alone, fcntl.LOCK_EX)
    profiles = Path(os.environ["XDG_CONFIG_HOME"]) / "mltrack" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    ca = f'ca = "{CERTIFICATES}"\n' if CERTIFICATES.exists() else ""
    profiles.write_text(
        f'[default]\nbuild_network = "host"\nnetwork = "none"\n{ca}[small]\nnetwork = "none"\nmemory = "48m"\n'
    )
    api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
    before = {container["Id"] for container in api.containers(all=True)}
    yield api
    left = [container["Names"] for container in api.containers(all=True) if container["Id"] not in before]
    api.close()
    os.close(alone)
    assert not left


@pytest.fixture
def cluster(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm of two nodes, asked every half second; no job of a test goes on when it has ended."""
    configured = os.environ.get("MLT_SLURM_CONF")
    if not configured:
        pytest.skip(
            "needs Slurm: run `export $(tests/services/start-slurm.sh)` as root, with slurm-wlm installed"
        )
    # What one test keeps busy, another would wait for.
    alone = os.open(Path(gettempdir()) / f"mltrack-slurm-{os.getuid()}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(alone, fcntl.LOCK_EX)
    monkeypatch.setenv("SLURM_CONF", configured)
    monkeypatch.setenv("MLTRACK_SLURM_SECONDS", "0.5")
    yield
    left = subprocess.run(
        ["squeue", "--me", "-h", "-o", "%A"], capture_output=True, text=True, check=True
    ).stdout
    for number in left.split():
        subprocess.run(["scancel", number], check=False)
    os.close(alone)
