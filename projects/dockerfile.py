"""The Dockerfile of an environment: a pure function of what is declared, so equal declarations give equal text.

Order: base, certificates, system packages, dependencies from only the lines that declare them, then the source. An
edit of the source therefore changes the last layers only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mltrack.projects.conda import conda_file
from mltrack.projects.environment import Environment
from mltrack.projects.errors import ProjectError

# The name under which it lies beside the Dockerfile.
CONDA_TOOL = "micromamba"
PROJECT_FOLDER = "/project"
CERTIFICATES = "/etc/ssl/mltrack-ca.crt"
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def base_image(environment: Environment, chosen: str | None, default_python: str) -> str:
    """The image a build begins from: the chosen one, else the slim Python image of the wanted version."""
    image = chosen or f"python:{environment.python or default_python}-slim"
    return checked_image(image)


def checked_image(image: str) -> str:
    """``image`` if it is a reference to an image. Raises ProjectError."""
    if not _IMAGE.fullmatch(image):
        raise ProjectError(f"'{image[:80]}' is no name of an image such as python:3.11-slim.")
    return image


def requirement_files(environment: Environment) -> dict[str, str]:
    """The small files beside the Dockerfile: lines for pip, by name."""
    files = {
        "build.txt": environment.build_dependencies,
        "constraints.txt": environment.constraints,
        "requirements.txt": environment.dependencies,
        "local.txt": environment.local,
    }
    found = {name: "".join(f"{line}\n" for line in lines) for name, lines in files.items() if lines}
    conda = conda_file(environment)
    return {**found, "conda.yml": conda} if conda else found


def render_dockerfile(
    environment: Environment, base: str, *, build_args: Sequence[str] = (), certificates: bool = False
) -> str:
    """The text. ``build_args``: names that the build is given; ``certificates``: an own CA file lies in the context."""
    lines = ["# Made by mltrack from: " + (", ".join(environment.sources) or "no declared dependencies")]
    lines.append(f"FROM {checked_image(base)}")
    for name in sorted(build_args):
        if not _ARGUMENT.fullmatch(name):
            raise ProjectError(f"'{name[:60]}' is no name of a build argument.")
        lines.append(f"ARG {name}")
    if certificates:
        lines.append(f"COPY mltrack-ca.crt {CERTIFICATES}")
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
        lines.append("ENV " + " ".join(f"{name}={CERTIFICATES}" for name in names))
    lines.append(
        "ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore"
    )
    if environment.system_packages:
        packages = " ".join(environment.system_packages)
        lines.append(
            "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
            f"{packages} && rm -rf /var/lib/apt/lists/*"
        )
    files = requirement_files(environment)
    if "conda.yml" in files:
        # The program comes from this machine; the environment goes before everything else on the path.
        lines.append(f"COPY {CONDA_TOOL} conda.yml /mltrack/")
        lines.append(
            f"RUN /mltrack/{CONDA_TOOL} create -y -r /opt/conda -p /opt/conda/env -f /mltrack/conda.yml "
            f"&& /mltrack/{CONDA_TOOL} clean -y -a -r /opt/conda"
        )
        lines.append("ENV PATH=/opt/conda/env/bin:$PATH")
    constraints = " -c /mltrack/constraints.txt" if "constraints.txt" in files else ""
    if constraints:
        lines.append("COPY constraints.txt /mltrack/")
    for name in ("build.txt", "requirements.txt"):
        if name in files:
            lines.append(f"COPY {name} /mltrack/")
            lines.append(f"RUN python -m pip install -r /mltrack/{name}{constraints}")
    # Whoever runs the container may write beside the source, as in a folder of their own.
    lines.append(f"RUN mkdir -p {PROJECT_FOLDER} && chmod 0777 {PROJECT_FOLDER}")
    lines.append(f"WORKDIR {PROJECT_FOLDER}")
    lines.append(f"COPY project/ {PROJECT_FOLDER}/")
    if "local.txt" in files:
        lines.append("COPY local.txt /mltrack/")
        lines.append(f"RUN python -m pip install -r /mltrack/local.txt{constraints}")
    return "\n".join(lines) + "\n"
