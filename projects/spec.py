"""What a project declares: its entry points, their parameters and its environment. Reads files, runs nothing.

``MLproject`` is read as MLflow reads it (MLmodel and projects of other people must keep working); a folder without one
offers what it has: ``[tool.mltrack]``, the scripts of ``pyproject.toml``, ``*.py`` and ``*.sh``.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mltrack.projects.errors import ProjectError
from mltrack.projects.limited_yaml import BYTES, Document, read_yaml

EnvironmentKind = Literal["python", "conda", "docker"]
ENVIRONMENT_KEYS: dict[str, EnvironmentKind] = {
    "python_env": "python",
    "conda_env": "conda",
    "docker_env": "docker",
}
KNOWN_TYPES = ("string", "float", "int", "path", "uri")
# Names of files that are not programs, though they end like some.
_NO_PROGRAMS = frozenset({"setup.py", "conftest.py", "__init__.py", "noxfile.py", "fabfile.py"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """``type`` as written; any word but float, path and uri means text. A default of None is no default."""

    name: str
    type: str = "string"
    default: Any = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """``command`` is a template for str.format."""

    name: str
    command: str
    parameters: dict[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnvironmentDeclaration:
    """Which environment the project names. ``path`` is relative to the project; for docker, the image as it is used."""

    kind: EnvironmentKind
    path: str | None = None
    image: str | None = None
    volumes: tuple[str, ...] = ()
    variables: tuple[tuple[str, str | None], ...] = ()  # None: copied from the caller


@dataclass(frozen=True, slots=True)
class Settings:
    """The table ``[tool.mltrack]`` of pyproject.toml as far as launching goes."""

    python: str | None = None
    base_image: str | None = None
    gpu_base_image: str | None = None
    system_packages: tuple[str, ...] = ()
    profile: str | None = None
    shm_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A folder that can be run. ``source`` is the file that declares the entry points, "" when none does."""

    folder: Path
    name: str | None
    entry_points: dict[str, EntryPoint]
    environment: EnvironmentDeclaration
    settings: Settings = Settings()
    source: str = ""

    def entry_point(self, name: str | None = None) -> EntryPoint:
        """The entry point of this name, or the script of this name; None: "main", or the only one there is.

        Raises ProjectError that lists what there is.
        """
        if name is None:
            usual: tuple[str, ...] = ("main", "train", "main.py", "train.py")
            names = [known for known in usual if known in self.entry_points]
            if not names and len(self.entry_points) == 1:
                names = list(self.entry_points)
            if not names:
                raise ProjectError(f"The project has no entry point 'main'. {self._listed()}")
            name = names[0]
        if name in self.entry_points:
            return self.entry_points[name]
        script = script_entry_point(name)
        if script is None:
            raise ProjectError(f"The project has no entry point '{name}'. {self._listed()}")
        path = inside(self.folder, name, "The entry point")
        if not path.is_file():
            raise ProjectError(f"The project has no file '{name}'. {self._listed()}")
        return script

    def _listed(self) -> str:
        if not self.entry_points:
            return "It declares none: add an MLproject file, or name a .py or .sh file."
        return f"It has: {', '.join(self.entry_points)}. A .py or .sh file may be named as well."


def inside(folder: Path, path: str, what: str) -> Path:
    """``path`` below ``folder`` with all links resolved. Raises ProjectError when it leads out."""
    if "\0" in path:
        raise ProjectError(f"{what} holds a NUL character.")
    root = Path(os.path.realpath(folder))
    target = Path(os.path.realpath(root / path))
    if target != root and root not in target.parents:
        raise ProjectError(f"{what} '{path}' leads out of the project; only files inside it are used.")
    return target


def script_entry_point(name: str) -> EntryPoint | None:
    """How a script file is run directly; None for other kinds of files."""
    programs = {".py": "python", ".sh": "bash"}
    program = programs.get(os.path.splitext(name)[1])
    if program is None:
        return None
    # Braces in a file name are no placeholders.
    return EntryPoint(name, f"{program} {shlex.quote(name)}".replace("{", "{{").replace("}", "}}"))


def read_project(folder: Path) -> Project:
    """The project in ``folder``. Raises ProjectError when there is none, or with file and line of what is wrong."""
    if not folder.is_dir():
        raise ProjectError(f"There is no folder {folder}.")
    root = Path(os.path.realpath(folder))
    pyproject = _pyproject(root)
    settings = _settings(pyproject)
    path = _mlproject(root)
    if path is not None:
        return _from_mlproject(root, path, settings)
    name, entry_points, source = _from_pyproject(pyproject)
    for script in sorted(os.listdir(root)):
        if script in _NO_PROGRAMS or script.startswith((".", "test_", "_")) or script in entry_points:
            continue
        found = script_entry_point(script)
        if found is not None and inside(root, script, "The script").is_file():
            entry_points[script] = found
    return Project(root, name, entry_points, _default_environment(root), settings, source)


# -- MLproject


def _mlproject(root: Path) -> Path | None:
    names = sorted(name for name in os.listdir(root) if name.lower() == "mlproject")
    for name in names:
        path = inside(root, name, "The project file")
        if path.is_file():
            return path
    return None


def _from_mlproject(root: Path, path: Path, settings: Settings) -> Project:
    document = read_yaml(path)
    value = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        raise document.error("it must hold 'name:', 'entry_points:' and so on, one per line")
    environments = [key for key in ENVIRONMENT_KEYS if key in value]
    if len(environments) > 1:
        raise document.error(
            f"a project has one environment, this one has {' and '.join(environments)}; remove all but one",
            environments[1],
        )
    if "databricks_spark_job" in value:
        raise document.error(
            "'databricks_spark_job' runs on Databricks only; declare entry_points instead",
            "databricks_spark_job",
        )
    name = value.get("name")
    if name is not None and not isinstance(name, (str, int, float)):
        raise document.error("'name' must be a text", "name")
    entry_points = entry_points_of(document, value.get("entry_points"))
    environment = _declared_environment(root, document, value)
    return Project(root, None if name is None else str(name), entry_points, environment, settings, path.name)


def entry_points_of(document: Document, table: Any) -> dict[str, EntryPoint]:
    """The entry points of a parsed file, in its order."""
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise document.error("'entry_points' must hold names with a command each", "entry_points")
    found: dict[str, EntryPoint] = {}
    for key, entry in table.items():
        at = ("entry_points", key)
        if not isinstance(entry, dict):
            raise document.error(
                f"the entry point '{key}' needs a line 'command: ...' below it, indented", *at
            )
        command = entry.get("command")
        if not isinstance(command, str) or not command.strip():
            raise document.error(
                f"the entry point '{key}' has no command; add 'command: \"python ...\"'", *at
            )
        if "\0" in command:
            raise document.error(f"the command of '{key}' holds a NUL character", *at, "command")
        found[str(key)] = EntryPoint(str(key), command, _parameters(document, at, entry.get("parameters")))
    return found


def _parameters(document: Document, at: tuple[object, ...], table: Any) -> dict[str, Parameter]:
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise document.error(
            "'parameters' must hold names with a type or {type, default} each", *at, "parameters"
        )
    found: dict[str, Parameter] = {}
    for key, value in table.items():
        name = str(key)
        if isinstance(value, str):
            found[name] = Parameter(name, value)
            continue
        if not isinstance(value, dict):
            raise document.error(
                f"the parameter '{name}' needs a type, such as 'float', or {{type: float, default: 0.1}}",
                *at,
                "parameters",
                key,
            )
        kind = value.get("type", "string")
        help_text = value.get("help", value.get("description", ""))
        found[name] = Parameter(name, str(kind), value.get("default"), str(help_text or ""))
    return found


def _declared_environment(root: Path, document: Document, value: Mapping[str, Any]) -> EnvironmentDeclaration:
    docker = value.get("docker_env")
    if docker:
        return _docker_environment(document, docker)
    for key in ("python_env", "conda_env"):
        path = value.get(key)
        if path:
            if not isinstance(path, str):
                raise document.error(f"'{key}' must be the path of a file", key)
            if not inside(root, path, f"The {key}").is_file():
                raise document.error(f"'{key}' names {path}, which is not in the project", key)
            return EnvironmentDeclaration(ENVIRONMENT_KEYS[key], path)
    return _default_environment(root)


def _default_environment(root: Path) -> EnvironmentDeclaration:
    for name, kind in (("python_env.yaml", "python"), ("conda.yaml", "conda")):
        if (root / name).exists() and inside(root, name, "The environment file").is_file():
            return EnvironmentDeclaration("python" if kind == "python" else "conda", name)
    return EnvironmentDeclaration("python")


def _docker_environment(document: Document, table: Any) -> EnvironmentDeclaration:
    if not isinstance(table, dict) or not table.get("image") or not isinstance(table["image"], str):
        raise document.error("'docker_env' needs an image: add 'image: NAME:TAG' below it", "docker_env")
    volumes = table.get("volumes") or []
    if not isinstance(volumes, list) or not all(isinstance(volume, str) for volume in volumes):
        raise document.error(
            "'volumes' must be a list of texts, such as [\"/data:/data:ro\"]", "docker_env", "volumes"
        )
    variables: list[tuple[str, str | None]] = []
    listed = table.get("environment") or []
    advice = "'environment' must be a list of NAME (copied from here) or [NAME, VALUE]"
    if not isinstance(listed, list):
        raise document.error(advice, "docker_env", "environment")
    for item in listed:
        if isinstance(item, str):
            variables.append((item, None))
        elif isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
            variables.append((item[0], str(item[1])))
        else:
            raise document.error(advice, "docker_env", "environment")
    for name, _ in variables:
        if not name or "=" in name or "\0" in name:
            raise document.error(
                f"'{name}' is no name of an environment variable", "docker_env", "environment"
            )
    return EnvironmentDeclaration("docker", None, table["image"], tuple(volumes), tuple(variables))


# -- pyproject.toml


def _pyproject(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    if not path.exists():
        return {}
    return read_toml(inside(root, "pyproject.toml", "The file"))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of at most 16 MiB (lock files are long). Raises ProjectError."""
    try:
        with open(path, "rb") as file:
            content = file.read(16 * BYTES + 1)
        if len(content) > 16 * BYTES:
            raise ProjectError("it is larger than 16 MiB", path.name)
        return tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise ProjectError(f"it cannot be read ({error.strerror})", path.name) from None
    except (ValueError, RecursionError) as error:  # TOML and UTF-8 mistakes; the message names the line
        raise ProjectError(f"it is not TOML ({error})", path.name) from None


def _settings(pyproject: Mapping[str, Any]) -> Settings:
    table = _table(pyproject, "tool", "mltrack")
    packages = table.get("system_packages", [])
    if not isinstance(packages, list) or not all(isinstance(name, str) for name in packages):
        raise ProjectError("[tool.mltrack] system_packages must be a list of names", "pyproject.toml")
    texts: dict[str, str | None] = {}
    for key in ("python", "base_image", "gpu_base_image", "profile"):
        value = table.get(key)
        if value is not None and not isinstance(value, str):
            raise ProjectError(f"[tool.mltrack] {key} must be a text", "pyproject.toml")
        texts[key] = value
    return Settings(
        texts["python"], texts["base_image"], texts["gpu_base_image"], tuple(packages), texts["profile"]
    )


def _from_pyproject(pyproject: Mapping[str, Any]) -> tuple[str | None, dict[str, EntryPoint], str]:
    name = _table(pyproject, "project").get("name")
    entry_points: dict[str, EntryPoint] = {}
    declared = _table(pyproject, "tool", "mltrack").get("entry_points")
    if declared is not None:
        document = Document({}, None, "pyproject.toml [tool.mltrack]")
        entry_points.update(entry_points_of(document, declared))
    for script, target in _table(pyproject, "project", "scripts").items():
        module, colon, function = str(target).partition(":")
        parts = [*module.split("."), *function.split(".")]
        if script in entry_points or not colon or not all(part.isidentifier() for part in parts):
            continue
        # Runs without installing the project itself, also from a src layout.
        code = f"import sys; sys.path[:0] = ['src', '.']; from {module} import {function.split('.')[0]}"
        code += f"; sys.exit({function}())"
        entry_points[script] = EntryPoint(script, f'python -c "{code}"')
    return (name if isinstance(name, str) else None), entry_points, "pyproject.toml" if entry_points else ""


def _table(value: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = value.get(key)
        if not isinstance(found, dict):
            return {}
        value = found
    return value
