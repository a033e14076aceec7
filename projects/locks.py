"""Lock files of uv and Poetry as lines for pip: exactly the locked versions that the project itself needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mltrack.projects.errors import ProjectError

# A package that many ways with different markers lead to is taken without any.
_MARKERS = 8
_Conditions = frozenset[str] | None  # None: always


def locked_lines(
    name: str, lock: Mapping[str, Any], pyproject: Mapping[str, Any]
) -> tuple[list[str], tuple[str, ...]]:
    """(lines, sentences about what cannot be honoured) of ``uv.lock`` or ``poetry.lock``."""
    packages = [package for package in _list(lock, "package") if isinstance(package, dict)]
    if not packages and lock.get("package"):
        raise ProjectError("it holds no packages", name)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for package in packages:
        by_name.setdefault(_normal(str(package.get("name", ""))), []).append(package)
    if name == "uv.lock":
        roots = list(_uv_roots(packages, pyproject))
        edges = _uv_edges
    else:
        roots = list(_poetry_roots(pyproject))
        edges = _poetry_edges
    needed: dict[int, _Conditions] = {}
    waiting = [(wanted, version, marker, frozenset({""})) for wanted, version, marker in roots]
    while waiting:
        wanted, version, marker, above = waiting.pop()
        for package in by_name.get(_normal(wanted), []):
            if version and str(package.get("version")) != version:
                continue
            merged = _merge(needed.get(id(package), frozenset()), above, marker)
            if id(package) in needed and merged == needed[id(package)]:
                continue
            needed[id(package)] = merged
            below = frozenset({""}) if merged is None else merged
            waiting += [(other, pinned, condition, below) for other, pinned, condition in edges(package)]
    lines: list[str] = []
    said: list[str] = []
    for package in packages:
        if id(package) in needed:
            line = _line(package, said)
            conditions = needed[id(package)]
            if line and conditions:
                line += " ; " + " or ".join(
                    f"({one})" if len(conditions) > 1 else one for one in sorted(conditions)
                )
            if line:
                lines.append(line)
    return [*_indexes(packages, needed), *lines], tuple(said)


def _merge(known: _Conditions, above: frozenset[str], marker: str) -> _Conditions:
    if known is None:
        return None
    ways = {
        " and ".join(
            part
            for part in (f"({way})" if way and marker else way, f"({marker})" if way and marker else marker)
            if part
        )
        for way in above
    }
    if "" in ways:
        return None
    merged = known | ways
    return merged if len(merged) <= _MARKERS else None


def _line(package: Mapping[str, Any], said: list[str]) -> str:
    name, version = str(package.get("name")), str(package.get("version", ""))
    source = package.get("source") or {}
    if not isinstance(source, dict):
        return ""
    kind = source.get("type")
    if "virtual" in source or source.get("editable") == ".":
        return ""  # the project itself
    if "git" in source or kind == "git":
        address = str(source.get("git") or source.get("url", ""))
        base, _, commit = address.partition("#")
        commit = commit or str(source.get("resolved_reference") or "")
        return f"{name} @ git+{base.partition('?')[0]}{'@' + commit if commit else ''}"
    for key in ("editable", "directory", "path"):
        if key in source:
            return f"./{source[key]}"
    if kind in ("directory", "file"):
        return f"./{source.get('url', '')}"
    if kind == "url" or ("url" in source and kind is None):
        return f"{name} @ {source['url']}"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not re.fullmatch(r"[A-Za-z0-9.!+_-]+", version):
        said.append(f"the locked package {name[:60]!r} has no usable version and is not installed")
        return ""
    return f"{name}=={version}"


def _indexes(packages: list[dict[str, Any]], needed: Mapping[int, object]) -> list[str]:
    found: list[str] = []
    for package in packages:
        source = package.get("source") or {}
        if id(package) not in needed or not isinstance(source, dict):
            continue
        address = source.get("registry") or (source.get("url") if source.get("type") == "legacy" else None)
        line = f"--extra-index-url {address}"
        if (
            isinstance(address, str)
            and address.startswith("https://")
            and "pypi.org" not in address
            and line not in found
        ):
            found.append(line)
    return found


# -- uv


def _uv_roots(packages: list[dict[str, Any]], pyproject: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    own = _normal(str(_table(pyproject, "project").get("name", "")))
    for package in packages:
        source = package.get("source") or {}
        itself = "virtual" in source or source.get("editable") == "."
        if itself and (not own or _normal(str(package.get("name"))) == own):
            yield from _uv_edges(package)


def _uv_edges(package: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for edge in _list(package, "dependencies"):
        if isinstance(edge, dict):
            yield str(edge.get("name", "")), str(edge.get("version", "")), str(edge.get("marker", ""))
            for extra in _list(edge, "extra"):
                yield f"{edge.get('name', '')}[{extra}]", "", str(edge.get("marker", ""))
    optional = package.get("optional-dependencies")
    if isinstance(optional, dict):
        # Extras are locked only when somebody asked for them.
        for edges in optional.values():
            for edge in edges if isinstance(edges, list) else []:
                if isinstance(edge, dict):
                    yield str(edge.get("name", "")), str(edge.get("version", "")), str(edge.get("marker", ""))


# -- Poetry


def _poetry_roots(pyproject: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for line in _list(_table(pyproject, "project"), "dependencies"):
        name = re.match(r"[A-Za-z0-9._-]+", str(line))
        if name:
            yield name[0], "", str(line).partition(";")[2].strip()
    for name_, wanted in _table(pyproject, "tool", "poetry", "dependencies").items():
        if name_.lower() != "python":
            yield from _poetry_edge(name_, wanted)


def _poetry_edges(package: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, wanted in _table(package, "dependencies").items():
        yield from _poetry_edge(name, wanted)


def _poetry_edge(name: str, wanted: Any) -> Iterator[tuple[str, str, str]]:
    for one in wanted if isinstance(wanted, list) else [wanted]:
        if not isinstance(one, dict):
            yield name, "", ""
        elif not one.get("optional"):
            yield name, "", str(one.get("markers", ""))


# -- shapes


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def _list(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else []


def _table(table: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = table.get(key)
        if not isinstance(found, dict):
            return {}
        table = found
    return table
