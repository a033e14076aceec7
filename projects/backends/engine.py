"""Reaching a container engine and telling which one it is: Docker and podman speak alike and differ quietly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mltrack.projects.errors import LaunchError
from mltrack.store.client.secrets import redact_text


@dataclass(frozen=True, slots=True)
class Engine:
    """A connected engine. ``gaps`` are sentences about what it does not do though it says nothing."""

    api: Any
    name: str  # docker or podman
    version: str
    rootless: bool
    gpu_runtime: bool
    gaps: tuple[str, ...] = ()


def connect(timeout_seconds: int = 60) -> Engine:
    """The engine that DOCKER_HOST names, else Docker's socket, else podman's. Raises LaunchError with what to do."""
    import docker
    from docker.errors import DockerException

    address = os.environ.get("DOCKER_HOST") or _socket()
    try:
        api = docker.APIClient(base_url=address, version="auto", timeout=timeout_seconds)
        told = api.version()
        info = api.info()
    except DockerException as error:
        raise LaunchError(_advice(address, str(error))) from None
    components = told.get("Components") or [{}]
    podman = "podman" in str(components[0].get("Name", "")).lower()
    rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or []) or bool(
        podman and info.get("Rootless", os.geteuid() != 0)
    )
    gaps: tuple[str, ...] = ()
    if podman:
        gaps = (
            "podman may ignore memory limits and GPU requests without saying so; both are checked after the start",
        )
    return Engine(
        api,
        "podman" if podman else "docker",
        str(told.get("Version", "")),
        rootless,
        "nvidia" in (info.get("Runtimes") or {}) or bool(info.get("CDISpecDirs")),
        gaps,
    )


def _socket() -> str:
    user = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    candidates = (
        "/var/run/docker.sock",
        f"{user}/docker.sock",
        f"{user}/podman/podman.sock",
        "/run/podman/podman.sock",
    )
    for path in candidates:
        if os.path.exists(path):
            return f"unix://{path}"
    return "unix:///var/run/docker.sock"


def _advice(address: str, reason: str) -> str:
    shown = redact_text(address)
    if "Permission denied" in reason:
        return (
            f"The container engine at {shown} does not let you in. Whoever may use it is root on this machine: ask for "
            "rootless Docker or podman, or to be added to its group; --backend venv works without."
        )
    return f"No container engine answers at {shown}. Start Docker or podman, set DOCKER_HOST, or use --backend venv."


def local_image(engine: Engine, reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None when it is not here. Never pulls."""
    from docker.errors import APIError, ImageNotFound

    try:
        return dict(engine.api.inspect_image(reference))
    except ImageNotFound:
        return None
    except APIError as error:
        raise LaunchError(
            f"The engine cannot say whether {reference} is here ({explained(error)})."
        ) from None


def explained(error: Exception) -> str:
    """The engine's own sentence, without secrets."""
    text = getattr(error, "explanation", None)
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return redact_text(str(text or error)).strip().rstrip(".")[:400]
