"""YAML of strangers: safe types only, 1 MiB, at most 100 aliases and 50 levels, and every value knows its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mltrack.projects.errors import ProjectError
from mltrack.store.yaml_limits import BAD_VALUES, Beyond, Loader, check_limits, sentence

BYTES = 1 << 20


class Document:
    """A parsed file. ``value`` is plain Python data; ``line`` finds where a key stands."""

    def __init__(self, value: Any, root: yaml.Node | None, path: str) -> None:
        self.value = value
        self.path = path
        self._root = root

    def line(self, *keys: object) -> int | None:
        """The line (from 1) of the key that this way through the mappings leads to, as far as it exists."""
        node: yaml.Node | None = self._root
        found: int | None = None
        for wanted in keys:
            if not isinstance(node, yaml.MappingNode):
                break
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value == str(wanted):
                    found, node = key.start_mark.line + 1, value
                    break
            else:
                break
        return found

    def error(self, message: str, *keys: object) -> ProjectError:
        """An error that points at a key of this file."""
        return ProjectError(message, self.path, self.line(*keys))


def read_yaml(path: Path, shown: str = "") -> Document:
    """Read a YAML file within the limits. Raises ProjectError with the line of the mistake."""
    name = shown or path.name
    try:
        with open(path, "rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise ProjectError(f"it cannot be read ({error.strerror})", name) from None
    return parse_yaml(content, name)


def parse_yaml(content: bytes, name: str) -> Document:
    """Parse YAML within the limits. Raises ProjectError with the line of the mistake."""
    if len(content) > BYTES:
        raise ProjectError("it is larger than 1 MiB, which no project file is", name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ProjectError("it is not UTF-8 text; save it as UTF-8", name, line) from None
    try:
        check_limits(text)
        loader = Loader(text)
        try:
            root = loader.get_single_node()
            value = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except Beyond as error:
        raise ProjectError(error.reason, name, error.line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "it is not YAML"
        raise ProjectError(f"{what}{_advice(what)}", name, mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, *BAD_VALUES) as error:
        raise ProjectError(f"it is not YAML ({sentence(error)})", name) from None
    return Document(value, root, name)


def _advice(problem: str) -> str:
    if "could not determine a constructor" in problem:
        return "; tags such as !!python/... are refused: write plain values"
    if "'\\t'" in problem or "cannot start any token" in problem:
        return "; indent with spaces, and quote values that begin with a special character"
    if "mapping values are not allowed" in problem:
        return "; quote a value that holds ': '"
    return ""
