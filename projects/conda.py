"""Packages of conda, through whatever installs them here: micromamba for images, or mamba and conda too for environments."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

from mltrack.projects.environment import Environment

_FOR_IMAGES = ("micromamba",)  # one static program, which can be put into an image
_FOR_ENVIRONMENTS = ("micromamba", "mamba", "conda")


def find_tool(backend: str) -> str | None:
    """The program that can install packages of conda for this backend."""
    named = os.environ.get("MAMBA_EXE", "")
    if named and os.path.basename(named) == "micromamba" and os.access(named, os.X_OK):
        return named
    names = {"docker": _FOR_IMAGES, "venv": _FOR_ENVIRONMENTS}.get(backend, ())
    return next((found for found in map(shutil.which, names) if found), None)


def honoured(environment: Environment, backend: str) -> Environment:
    """The environment as this backend can give it: without packages of conda where nothing installs them, and saying so."""
    if not environment.conda or find_tool(backend) is not None:
        return environment
    listed = ", ".join(environment.conda)
    advice = "with micromamba on the PATH they are; or list them under 'pip:', or name an image that has them"
    said = f"{environment.sources[0]}: conda packages are not installed ({listed}); {advice}"
    return replace(environment, conda=(), not_honoured=(*environment.not_honoured, said))


def conda_file(environment: Environment) -> str:
    """An environment file with Python, pip and what is declared; "" where no package of conda is. JSON is YAML, too."""
    if not environment.conda:
        return ""
    python = f"python={environment.python}" if environment.python else "python"
    channels = list(environment.channels) or ["conda-forge"]
    return json.dumps({"channels": channels, "dependencies": [python, "pip", *environment.conda]}) + "\n"
