"""What of this machine a container may see, and what it never may."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mltrack.projects.errors import ProjectError
from mltrack.store.client.secrets import looks_secret_file

# The home of root, in this machine and in containers.
ROOT_HOME = "/" + "root"
_SYSTEM = (
    "/",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/run",
    "/var/run",
    "/var",
    "/var/lib/docker",
    ROOT_HOME,
    "/home",
    "/usr",
)
_INSIDE = (
    "/",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/sbin",
    "/mltrack",
    "/project",
)
_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host in the container."""

    source: str
    target: str
    read_only: bool = True


def check_mount(mount: Mount, allowed: Collection[str] = ()) -> None:
    """Raises ProjectError for mounts that would hand over the machine, unless ``allowed`` names the source."""
    if mount.source in allowed:
        return
    reason = _danger(mount)
    if reason:
        raise ProjectError(
            f"{mount.source} is not mounted into a container: {reason}. Name a folder of the data itself; if it has to "
            f"be, --allow-mount {mount.source} says that it is meant."
        )


def _danger(mount: Mount) -> str:
    real = os.path.realpath(mount.source)
    home = os.path.realpath(os.path.expanduser("~"))
    if os.path.basename(real) in _SOCKETS or (os.path.exists(real) and Path(real).is_socket()):
        return "whoever reaches a container engine's socket is root on this machine"
    if real in _SYSTEM or real.startswith(("/proc/", "/sys/", "/dev/", "/etc/")):
        return "it is part of the system"
    if real == home or Path(real) in Path(home).parents:
        return "it holds the home folder with its keys"
    if looks_secret_file(real) or looks_secret_file(real + "/x"):
        return "it looks like a place of keys or passwords"
    target = os.path.normpath(mount.target)
    if target in _INSIDE or target.startswith(("/proc/", "/sys/", "/dev/", "/mltrack/")):
        return f"{target} belongs to the container itself"
    return ""


def parse_volume(text: str, project: Path) -> Mount:
    """``SOURCE:TARGET[:ro|rw]`` of a project; a relative source lies in the project. Raises ProjectError."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise ProjectError(
            f"The volume '{text}' is not SOURCE:TARGET or SOURCE:TARGET:ro, with an absolute TARGET."
        )
    if not source.startswith(("/", ".", "~")):
        raise ProjectError(
            f"The volume '{text}' names a volume of the engine; name a folder: /..., ./... or ~/..."
        )
    path = os.path.abspath(os.path.join(project, os.path.expanduser(source)))
    if not os.path.exists(path):
        raise ProjectError(f"The volume '{text}' names {path}, which does not exist.")
    return Mount(path, target, mode == "ro")
