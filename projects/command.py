"""From an entry point and parameter values to what is executed: an argv, never shell text made of values.

A template is read once. When it needs no shell, placeholders are filled inside the items of its argv. When the author
needs one (operators, variables, globs), the argv is ``bash -c TEMPLATE`` with a quoted variable at each placeholder,
and the values travel in the environment.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from mltrack.projects.errors import ProjectError
from mltrack.projects.inputs import is_remote, place_for
from mltrack.projects.shell_words import ShellLexer, shell_variables
from mltrack.projects.spec import EntryPoint, Parameter
from mltrack.projects.template import Placeholder, parse_template

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s]")


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed: ``argv`` and the variables it needs beside its environment. ``uses_shell``: argv is bash -c."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    uses_shell: bool = False

    @property
    def shown(self) -> str:
        """The command as one could type it."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.argv)])


@dataclass(frozen=True, slots=True)
class Values:
    """The values of all parameters as text: those the entry point declares, then the others in the given order."""

    declared: dict[str, str]
    extra: dict[str, str]
    paths: tuple[Path, ...] = ()  # files and folders that path parameters name, absolute
    remote: tuple[
        tuple[str, str, Path], ...
    ] = ()  # (parameter, URL, where it will lie) of those to be downloaded

    @property
    def all(self) -> dict[str, str]:
        """Declared and extra together."""
        return {**self.declared, **self.extra}

    def absolute(self, given: Mapping[str, str]) -> dict[str, str]:
        """What was given, with paths of this machine absolute: it means the same wherever it is said again."""
        places = {str(path) for path in self.paths} - {str(place) for _, _, place in self.remote}
        return {
            name: self.declared[name] if self.declared.get(name) in places else value
            for name, value in given.items()
        }


def parameter_values(entry: EntryPoint, given: Mapping[str, str], folder: Path) -> Values:
    """Fill in defaults and check types. Paths become absolute: given ones start at the working folder of the caller,
    defaults at the project's ``folder``; those elsewhere (https://, s3://) will be downloaded.
    Raises ProjectError that names every parameter without a value."""
    missing = [
        parameter.name
        for parameter in entry.parameters.values()
        if parameter.name not in given and parameter.default is None
    ]
    if missing:
        advice = " ".join(f"-P {name}=..." for name in missing)
        raise ProjectError(f"The entry point '{entry.name}' needs a value for {', '.join(missing)}: {advice}")
    declared: dict[str, str] = {}
    paths: list[Path] = []
    remote: list[tuple[str, str, Path]] = []
    for parameter in entry.parameters.values():
        is_given = parameter.name in given
        text = given[parameter.name] if is_given else str(parameter.default)
        if parameter.type == "path" and is_remote(text):
            _no_nul(parameter.name, text)
            place = place_for(parameter.name, text)
            remote.append((parameter.name, text, place))
            paths.append(place)
            declared[parameter.name] = str(place)
            continue
        declared[parameter.name] = _checked(parameter, text, Path.cwd() if is_given else folder, paths)
    extra = {name: value for name, value in given.items() if name not in entry.parameters}
    for name, value in extra.items():
        if not name or name.startswith("-") or "\0" in name or any(space in name for space in " \t\n"):
            raise ProjectError(f"'{name}' is no name of a parameter.")
        _no_nul(name, value)
    return Values(declared, extra, tuple(paths), tuple(remote))


def _checked(parameter: Parameter, text: str, base: Path, paths: list[Path]) -> str:
    _no_nul(parameter.name, text)
    if parameter.type == "path":
        if text.startswith("file://"):
            text = unquote(text[len("file://") :])
        if not text:
            raise ProjectError(f"The parameter {parameter.name} needs the path of a file or folder.")
        path = Path(os.path.abspath(os.path.join(base, os.path.expanduser(text))))
        if not path.exists():
            raise ProjectError(f"The parameter {parameter.name} names {path}, which does not exist.")
        paths.append(path)
        return str(path)
    if parameter.type == "uri" and not _URI.match(text):
        raise ProjectError(
            f"The parameter {parameter.name} must be a URI such as s3://bucket/key, not '{text}'."
        )
    return text


def _no_nul(name: str, value: str) -> None:
    if "\0" in value:
        raise ProjectError(f"The value of {name} holds a NUL character, which no program can be given.")


def build_command(entry: EntryPoint, values: Values) -> Command:
    """The argv of ``entry`` with these values. Raises ProjectError where a value could become code."""
    items = parse_template(entry.command)
    known = values.declared
    for item in items:
        if isinstance(item, Placeholder) and item.name not in known:
            raise ProjectError(
                f"The command of '{entry.name}' uses {{{item.name}}}, which is not among its parameters; declare it, "
                f"or write {{{{{item.name}}}}} for plain braces."
            )
    if not entry.command.strip():
        raise ProjectError(f"The entry point '{entry.name}' has an empty command.")
    extra = {Placeholder(f"--{name}"): value for name, value in values.extra.items()}
    variables = shell_variables([*items, *extra])
    lexer = ShellLexer(items, variables).run()
    texts = {item: _formatted(item, known) for item in items if isinstance(item, Placeholder)}
    if not lexer.needs_shell:
        argv: list[str] = []
        for word in lexer.words:
            argv += [word.guard] if word.guard else []
            argv.append("".join(item if isinstance(item, str) else texts[item] for item in word.items))
        carried = {
            item: text
            for item, text in texts.items()
            if any("${" + variables[item] + "}" in arg for arg in argv)
        }
        for placeholder, value in extra.items():
            argv += [placeholder.name, value]
        return Command(tuple(argv), {variables[item]: text for item, text in carried.items()})
    code = lexer.code.rstrip("\n")
    for placeholder in extra:
        code += f' {shlex.quote(placeholder.name)} "${{{variables[placeholder]}}}"'
    return Command(
        ("bash", "-c", code),
        {variables[item]: text for item, text in {**texts, **extra}.items()},
        True,
    )


def _formatted(item: Placeholder, values: Mapping[str, str]) -> str:
    if not item.format:
        return values[item.name]
    try:
        return format(values[item.name], item.format)
    except ValueError as error:
        raise ProjectError(
            f"The command formats {{{item.name}}} as '{item.format}', which is not possible for text ({error})."
        ) from None
