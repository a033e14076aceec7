"""Images for models: one with the model's environment alone, to serve in, and one that holds model and server and needs nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mltrack
from mltrack.projects.backends.base import Report
from mltrack.projects.backends.docker import DockerBackend
from mltrack.projects.dockerfile import PROJECT_FOLDER, base_image, render_dockerfile, requirement_files
from mltrack.projects.environment import Environment, read_python_env, requirement_lines
from mltrack.projects.image_context import Source, content_hash
from mltrack.projects.job import Job
from mltrack.projects.profiles import Profile, read_profile
from mltrack.store.client.artifacts import regular_files
from mltrack.store.errors import BadInput
from mltrack.store.mlmodel import read_mlmodel

MODEL_FOLDER = f"{PROJECT_FOLDER}/model"
PORT = 8080
# What our server imports; the model's own packages come from its files.
SERVER_NEEDS = ("numpy", "orjson", "'backports.zstd; python_version < \"3.14\"'", "pyyaml")


@dataclass(frozen=True)
class Built:
    """An image that is there."""

    image: str
    image_id: str
    dockerfile: str


def model_environment(folder: Path) -> Environment:
    """What the model's own files ask for. Raises BadInput when they ask for nothing at all."""
    read_mlmodel(folder)
    if (folder / "python_env.yaml").is_file():
        found = read_python_env(folder, "python_env.yaml")
    elif (folder / "requirements.txt").is_file():
        found = Environment(dependencies=requirement_lines(folder, ["-r requirements.txt"])[0])
    else:
        raise BadInput(
            "The model has no python_env.yaml or requirements.txt to make an image from; serve it with --backend local."
        )
    # The newest patch of the same minor version; models carry nothing that depends on more.
    python = ".".join(found.python.split(".")[:2]) if found.python else None
    return replace(found, python=python, build_dependencies=(), local=(), sources=("the model",))


def build_environment(folder: Path, say: Callable[[str], None], profile: str | None = None) -> Built:
    """An image with the packages of a model, without the model: equal requirements share it."""
    return _build(
        model_environment(folder), None, "mltrack-model-environment", "", say, read_profile(profile)
    )


def build_model_image(
    folder: Path, name: str, say: Callable[[str], None], profile: str | None = None
) -> Built:
    """An image that serves the model on port 8080 wherever it runs. ``name``: the image's, without a tag."""
    environment = model_environment(folder)
    tail = (
        f"ENV PYTHONPATH={PROJECT_FOLDER} HOME=/tmp PYTHONDONTWRITEBYTECODE=1\n"
        f"EXPOSE {PORT}\n"
        "USER 65534:65534\n"
        f'CMD ["python", "-m", "mltrack.projects.serve_image", "{MODEL_FOLDER}", "{PORT}"]\n'
    )
    with tempfile.TemporaryDirectory(prefix="mltrack-image-") as place:
        stage = Path(place)
        for path, relative in regular_files(folder):
            target = stage / "model" / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        package = Path(os.path.realpath(mltrack.__file__)).parent
        for part in ("__init__.py", "store", "projects"):
            _copy_code(package / part, stage / "mltrack" / part)
        files = tuple(sorted(str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()))
        size = sum((stage / name).stat().st_size for name in files)
        source = Source(stage, files, (), size)
        return _build(environment, source, name, tail, say, read_profile(profile))


def _copy_code(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def _build(
    environment: Environment,
    source: Source | None,
    name: str,
    tail: str,
    say: Callable[[str], None],
    profile: Profile,
) -> Built:
    base = base_image(environment, profile.base_image, "3.11")
    dockerfile = render_dockerfile(
        environment, base, build_args=tuple(profile.build_args), certificates=profile.ca is not None
    )
    if tail:
        # Behind the model's own packages, whose layer is the same for every image of them, and before the files.
        head, mark, rest = dockerfile.partition(f"RUN mkdir -p {PROJECT_FOLDER}")
        dockerfile = f"{head}RUN python -m pip install {' '.join(SERVER_NEEDS)}\n{mark}{rest}{tail}"
    files = requirement_files(environment)
    context = {each: text.encode() for each, text in files.items()}
    if profile.ca is not None:
        context["mltrack-ca.crt"] = profile.ca.read_bytes()
    content = content_hash(dockerfile, context, source, "")
    given: dict[str, Any] = {
        "image": f"{name}:{content[:16]}",
        "dockerfile": dockerfile,
        "files": files,
        "ca": str(profile.ca) if profile.ca else None,
        "content": content,
        "base": base,
        "build_args": profile.build_args,
        "build_network": profile.build_network,
        "source": source,
    }
    backend = DockerBackend(Job("", "", "", "", "", "docker", [], {}, "", docker=given))

    def step(number: int, steps: int, what: str) -> None:
        say(f"step {number}/{steps}: {what}")

    facts = backend.prepare(Report(say, lambda piece: None, step, lambda handle: None))
    return Built(str(facts["image"]), str(facts["image_id"]), dockerfile)
