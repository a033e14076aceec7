"""What a project needs installed, from the files that declare it: one description for every backend.

Nothing is dropped silently: what a backend cannot give is listed in ``not_honoured`` as sentences.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mltrack.projects.errors import ProjectError
from mltrack.projects.limited_yaml import BYTES, Document, read_yaml
from mltrack.projects.locks import locked_lines
from mltrack.projects.spec import Project, inside, read_toml

_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")
_SYSTEM_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*(?:=[A-Za-z0-9.+:~-]+)?")
_REQUIREMENT_DEPTH = 10
# What pip installs itself with, and conda files list beside it.
_BUILD_TOOLS = frozenset({"pip", "setuptools", "wheel"})


@dataclass(frozen=True, slots=True)
class Environment:
    """``dependencies`` are lines for pip; ``local`` those that need the project's own files; ``conda`` specs as they are written."""

    python: str | None = None
    build_dependencies: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    not_honoured: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # the files all this is from
    image: str | None = None  # used as it is; nothing is installed
    volumes: tuple[str, ...] = ()
    variables: tuple[tuple[str, str | None], ...] = ()
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    @property
    def installs(self) -> bool:
        """Whether anything is to be installed."""
        return bool(self.build_dependencies or self.dependencies or self.local or self.conda)


def read_environment(project: Project) -> Environment:
    """The environment a project declares. Raises ProjectError with file and line."""
    declared, settings = project.environment, project.settings
    if declared.kind == "docker":
        found = Environment(image=declared.image, volumes=declared.volumes, variables=declared.variables)
    elif declared.path is not None and declared.kind == "conda":
        found = _conda(project.folder, declared.path)
    elif declared.path is not None:
        found = read_python_env(project.folder, declared.path)
    else:
        found = _undeclared(project.folder)
    packages = (*settings.system_packages, *_apt_file(project.folder))
    for name in packages:
        if not _SYSTEM_PACKAGE.fullmatch(name):
            raise ProjectError(f"'{name[:60]}' is no name of a system package.")
    if packages and found.image is not None:
        return replace(found, not_honoured=(f"system packages are not installed into {found.image}",))
    python = _checked_version(settings.python, "[tool.mltrack] python") if settings.python else found.python
    return replace(found, python=python, system_packages=tuple(dict.fromkeys(packages)))


def _apt_file(folder: Path) -> list[str]:
    names: list[str] = []
    for name in ("apt.txt", "packages.txt"):
        if (folder / name).is_file():
            text = _text(inside(folder, name, "The file"), name)
            names += [line.split("#")[0].strip() for line in text.splitlines()]
    return [name for name in names if name]


# -- YAML files


def read_python_env(folder: Path, path: str) -> Environment:
    """The environment of one python_env.yaml in ``folder``. Raises ProjectError with file and line."""
    document = read_yaml(inside(folder, path, "The environment file"), path)
    table = document.value or {}
    if not isinstance(table, dict):
        raise document.error("it must hold 'python:', 'build_dependencies:' and 'dependencies:'")
    for key in table:
        if key not in ("python", "build_dependencies", "dependencies"):
            raise document.error(f"'{key}' is not known here; a conda file is named with conda_env", key)
    python = table.get("python")
    version = None if python is None else _yaml_version(document, python, "python")
    build, _, _ = requirement_lines(folder, _texts(document, table, "build_dependencies"))
    lines, local, constraints = requirement_lines(folder, _texts(document, table, "dependencies"))
    lines = _with_own_dependencies(folder, lines, local)
    return Environment(version, build, lines, constraints, local, sources=(path,))


def _conda(folder: Path, path: str) -> Environment:
    document = read_yaml(inside(folder, path, "The environment file"), path)
    table = document.value or {}
    if not isinstance(table, dict):
        raise document.error("it must hold 'dependencies:'")
    listed = table.get("dependencies") or []
    if not isinstance(listed, list):
        raise document.error("'dependencies' must be a list", "dependencies")
    version: str | None = None
    build: list[str] = []
    pip: list[str] = []
    conda: list[str] = []
    for item in listed:
        if isinstance(item, dict):
            pip += _texts(document, item, "pip")
            continue
        text = re.sub(r"\s", "", str(item)).rpartition("::")[2]
        found = re.match(r"([A-Za-z0-9._-]+)(.*)", text)
        if found is None:
            raise document.error(f"'{item}' is no conda package", "dependencies")
        name, pinned = found[1].lower(), found[2]
        if name == "python":
            if any(mark in pinned for mark in "<>!|,"):
                raise document.error(f"pin Python as python=3.11, not '{item}'", "dependencies")
            version = _checked_version(pinned.strip("=").rstrip(".*"), path) if pinned.strip("=") else None
        elif name in _BUILD_TOOLS:
            build.append(
                name + (f"=={pinned.strip('=').split('=')[0]}" if pinned.startswith("=") else pinned)
            )
        else:
            conda.append(str(item).strip())
    lines, local, constraints = requirement_lines(folder, pip)
    channels = tuple(_texts(document, table, "channels"))
    return Environment(
        version,
        tuple(build),
        lines,
        constraints,
        local,
        sources=(path,),
        conda=tuple(conda),
        channels=channels,
    )


def _texts(document: Document, table: dict[str, object], key: str) -> list[str]:
    value = table.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float)) for item in value):
        raise document.error(f"'{key}' must be a list of texts", key)
    return [str(item) for item in value]


def _yaml_version(document: Document, value: object, key: str) -> str:
    if isinstance(value, float) and value == 3.1:
        raise document.error('write python: "3.10" in quotes; without them YAML reads 3.1', key)
    return _checked_version(str(value), document.path)


def _checked_version(text: str, where: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ProjectError(f"{where}: '{text[:40]}' is no Python version such as 3.11 or 3.11.7")
    return text


# -- what lies there without being declared


def _undeclared(folder: Path) -> Environment:
    pyproject = (
        read_toml(inside(folder, "pyproject.toml", "The file"))
        if (folder / "pyproject.toml").is_file()
        else {}
    )
    python = _lowest_python(folder, pyproject)
    for name in ("uv.lock", "poetry.lock"):
        if (folder / name).is_file():
            table = read_toml(inside(folder, name, "The file"))
            locked, said = locked_lines(name, table, pyproject)
            remote, local, _ = requirement_lines(folder, locked)
            return Environment(python, (), remote, (), local, not_honoured=said, sources=(name,))
    if (folder / "requirements.txt").is_file():
        lines, local, constraints = requirement_lines(folder, ["-r requirements.txt"])
        lines = _with_own_dependencies(folder, lines, local)
        return Environment(python, (), lines, constraints, local, sources=("requirements.txt",))
    for name in ("environment.yml", "environment.yaml"):
        if (folder / name).is_file():
            return _conda(folder, name)
    declared = _own_dependencies(pyproject)
    return Environment(python, dependencies=declared, sources=("pyproject.toml",) if declared else ())


def _lowest_python(folder: Path, pyproject: dict[str, object]) -> str | None:
    path = folder / ".python-version"
    if path.is_file():
        first = _text(inside(folder, ".python-version", "The file"), ".python-version").split()
        if first and _VERSION.fullmatch(first[0]):
            return first[0]
    project = pyproject.get("project")
    wanted = project.get("requires-python") if isinstance(project, dict) else None
    # An exact minor version is a choice; ">=3.9" is none.
    pinned = (
        re.fullmatch(r"\s*(?:==|~=)\s*(\d+\.\d+)(?:\.[\d*]+)?\s*", wanted)
        if isinstance(wanted, str)
        else None
    )
    return pinned[1] if pinned else None


def _own_dependencies(pyproject: dict[str, object]) -> tuple[str, ...]:
    project = pyproject.get("project")
    listed = project.get("dependencies", []) if isinstance(project, dict) else []
    if not isinstance(listed, list) or not all(isinstance(line, str) for line in listed):
        raise ProjectError("[project] dependencies must be a list of texts", "pyproject.toml")
    return tuple(_one_line(line) for line in listed)


def _with_own_dependencies(folder: Path, lines: tuple[str, ...], local: tuple[str, ...]) -> tuple[str, ...]:
    """What the project itself needs, so that installing the project later has nothing left to fetch."""
    itself = any(re.fullmatch(r"(?:-e\s*|--editable[ =])?\.(?:\[.*\])?/?", line) for line in local)
    if not itself or not (folder / "pyproject.toml").is_file():
        return lines
    own = _own_dependencies(read_toml(inside(folder, "pyproject.toml", "The file")))
    return (*lines, *(line for line in own if line not in lines))


# -- requirement files


def requirement_lines(
    folder: Path, given: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(lines for anywhere, lines that need the folder's files, constraints), with -r and -c read in. Raises ProjectError."""
    remote: list[str] = []
    local: list[str] = []
    constraints: list[str] = []
    for line in _flattened(folder, given, constraints, 0):
        (local if _is_local(folder, line) else remote).append(line)
    return tuple(dict.fromkeys(remote)), tuple(dict.fromkeys(local)), tuple(dict.fromkeys(constraints))


def _flattened(folder: Path, given: list[str], constraints: list[str], depth: int) -> Iterator[str]:
    for text in given:
        line = _one_line(text)
        if not line:
            continue
        option = re.match(r"(-r|--requirement|-c|--constraint)[ =]?\s*(\S+)$", line)
        if option is None:
            yield line
            continue
        if depth >= _REQUIREMENT_DEPTH:
            raise ProjectError(
                f"Requirement files include each other deeper than {_REQUIREMENT_DEPTH} levels."
            )
        if "://" in option[2]:
            yield line
            continue
        path = inside(folder, option[2], "The requirement file")
        if not path.is_file():
            raise ProjectError(f"The requirement file '{option[2]}' is not in the project.")
        # As pip does: names in a file are relative to that file.
        above = os.path.dirname(option[2])
        inner = [_relative(entry, above) for entry in _logical_lines(_text(path, option[2]))]
        if option[1] in ("-c", "--constraint"):
            constraints += [entry for entry in map(_one_line, inner) if entry]
        else:
            yield from _flattened(folder, inner, constraints, depth + 1)


def _relative(line: str, above: str) -> str:
    option = re.match(r"\s*(-r|--requirement|-c|--constraint)([ =]?\s*)(\S+)\s*$", line)
    if option and above and "://" not in line and not os.path.isabs(option[3]):
        return f"{option[1]} {above}/{option[3]}"
    return line


def _logical_lines(text: str) -> list[str]:
    return re.sub(r"\s*\\\r?\n\s*", " ", text).splitlines()


def _one_line(text: str) -> str:
    return re.sub(r"(^|\s+)#.*$", "", " ".join(text.splitlines())).strip()


def _is_local(folder: Path, line: str) -> bool:
    if line.startswith(("-e", "--editable", ".", "/", "file:")) or " @ file:" in line:
        return "://" not in line or "file:" in line
    name = re.split(r"[\s;\[]", line)[0]
    return (
        not line.startswith("-")
        and ("/" in name or name.endswith((".whl", ".tar.gz", ".zip")))
        and ("://" not in line and (folder / name).exists())
    )


def _text(path: Path, shown: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise ProjectError("it is larger than 1 MiB", shown)
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ProjectError(f"it cannot be read ({error.strerror})", shown) from None
    except UnicodeDecodeError:
        raise ProjectError("it is not UTF-8 text", shown) from None
