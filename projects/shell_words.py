"""Bash as far as needed to put parameters into a command without ever making them part of its text.

The lexer goes through a command template once. Where no shell is needed it gives the words of an argv. Where one is
needed it gives the template with every placeholder replaced by a quoted reference to an environment variable: bash does
not evaluate what a variable expands to. Places where bash would do so all the same (eval, arithmetic, subscripts,
here-documents, another shell's standard input) are refused by name; the code of ``sh -c CODE`` is treated the same way,
one level down.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NoReturn

from mltrack.projects.errors import ProjectError
from mltrack.projects.template import Item, Placeholder

SHELLS = frozenset("sh bash dash zsh ksh mksh ash".split())
# Words after which the next one is a command again.
_PREFIXES = frozenset("if then elif else while until do ! { time coproc".split())
# Only a shell has these; programs of the same name are missing or do something else.
_ONLY_SHELL = _PREFIXES | frozenset(
    "for case select function [[ cd export source . eval exec set unset alias trap ulimit umask exit return shift read "
    "declare typeset local let readonly wait jobs fg bg builtin command type hash shopt pushd popd dirs".split()
)
# Their arguments are code, or names whose subscripts are evaluated.
_EVALUATES = frozenset(
    "eval trap let declare typeset local unset read mapfile readarray getopts alias enable complete".split()
)
# They hand text to a shell of their own, somewhere our variables do not reach.
_ELSEWHERE = frozenset(
    "ssh su sudo doas watch parallel at batch script expect docker podman chroot nsenter fish csh tcsh".split()
)
# They run the command that their arguments are.
_WRAPPERS = frozenset(
    "env nohup nice ionice time exec timeout stdbuf xargs setsid command find srun mpirun torchrun uv poetry conda".split()
)
_CONDITIONS = frozenset("-eq -ne -lt -le -gt -ge -v -t".split())
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")


@dataclass
class Word:
    """One word: its text without quotes, and where its written form lies in the output."""

    items: list[Item] = field(default_factory=list)
    start: int = 0
    end: int = 0
    active: bool = False  # holds something that bash expands
    guard: str = ""  # goes before it in an argv

    @property
    def filled(self) -> bool:
        """Whether a placeholder is part of it."""
        return any(isinstance(item, Placeholder) for item in self.items)

    @property
    def text(self) -> str:
        """The literal text; placeholders as NUL."""
        return "".join(item if isinstance(item, str) else "\0" for item in self.items)


@dataclass
class _State:
    """Where the reader is in a list of commands."""

    command: list[Word] = field(default_factory=list)
    word: Word | None = None
    condition: bool = False  # between [[ and ]]
    redirected: bool = False  # the next word is the target of a redirection


def shell_variables(items: Sequence[Item]) -> dict[Placeholder, str]:
    """The environment variable that carries each placeholder's value into a shell."""
    variables: dict[Placeholder, str] = {}
    for item in items:
        if isinstance(item, Placeholder) and item not in variables:
            base = "MLTRACK_PARAM_" + re.sub(r"[^A-Za-z0-9]", "_", item.name).upper()
            variable, number = base, 2
            while variable in variables.values():
                variable, number = f"{base}_{number}", number + 1
            variables[item] = variable
    return variables


class ShellLexer:
    """One pass over a template. After ``run``: ``needs_shell``, ``words`` (the argv when not), ``code`` (when it does)."""

    def __init__(self, items: Sequence[Item], variables: Mapping[Placeholder, str]) -> None:
        self._items = items
        self._position = 0
        self._variables = variables
        self._out: list[str] = []
        self._any = any(isinstance(item, Placeholder) for item in items)
        self.needs_shell = False
        self.words: list[Word] = []

    @property
    def code(self) -> str:
        """The template as bash code that takes the values from the environment."""
        return "".join(self._out)

    def run(self) -> ShellLexer:
        """Read everything. Raises ProjectError where a value could become code."""
        self._commands(None)
        return self

    # -- reading

    def _peek(self, ahead: int = 0) -> Item | None:
        index = self._position + ahead
        return self._items[index] if index < len(self._items) else None

    def _follows(self, text: str) -> bool:
        return all(self._peek(index) == character for index, character in enumerate(text))

    def _take(self) -> Item:
        item = self._items[self._position]
        self._position += 1
        return item

    def _emit(self, text: str) -> None:
        self._out.append(text)

    def _refuse(self, item: Placeholder | None, where: str) -> NoReturn:
        name = f"{{{item.name}}}" if item is not None else "a parameter"
        raise ProjectError(
            f"The command uses {name} {where}, where a shell would run the value as code. Pass it as an ordinary "
            "argument, or move that part into a script of the project."
        )

    def _reference(self, item: Placeholder) -> str:
        # The braces end the name, whatever follows.
        return "${" + self._variables[item] + "}"

    # -- commands

    def _commands(self, closing: str | None, array: bool = False) -> None:
        """A list of commands up to ``closing`` (")" or "`"), which is taken. ``array``: only words, no commands."""
        state = _State()
        while (item := self._peek()) is not None:
            if item == closing:
                self._end_command(state, closing, array)
                self._emit(str(self._take()))
                return
            if item in (" ", "\t"):
                self._end_word(state)
                self._emit(str(self._take()))
            elif item == "\\" and self._peek(1) == "\n":
                self._position += 2
                self._emit("\\\n")
            elif item in ("\n", ";", "&", "|", "(", ")", "<", ">") and not (
                self._follows("<(") or self._follows(">(")
            ):
                self._operator(state, closing, array)
            elif item == "#" and state.word is None:
                self.needs_shell = True
                while self._peek() not in (None, "\n"):
                    comment = self._take()
                    self._emit(comment if isinstance(comment, str) else "?")
            else:
                if state.word is None:
                    state.word = Word(start=len(self._out))
                self._piece(state.word)
        if closing is not None:
            raise ProjectError(f"The command lacks a closing '{closing}'.")
        state.condition = False
        self._end_command(state, closing, array)

    def _end_word(self, state: _State) -> None:
        word = state.word
        if word is None:
            return
        word.end = len(self._out)
        state.word = None
        if state.redirected:
            state.redirected = False
            return
        state.command.append(word)
        if word.text == "[[" and len(state.command) == 1:
            state.condition = True
        elif word.text == "]]":
            state.condition = False

    def _end_command(self, state: _State, closing: str | None, array: bool) -> None:
        self._end_word(state)
        if state.condition:
            return  # && and || between [[ and ]] belong to it
        if not array:
            self._check(state.command)
        if closing is None:
            self.words += state.command
        state.command = []

    def _operator(self, state: _State, closing: str | None, array: bool) -> None:
        # A newline at the very end separates nothing.
        self.needs_shell = self.needs_shell or self._peek() != "\n" or self._more_follows()
        word = state.word
        if self._follows("((") and word is None and not state.command:
            self._emit("((")
            self._position += 2
            self._arithmetic("))")
            return
        if self._follows("<<") and not self._follows("<<<"):
            self._end_word(state)
            for item in self._items[self._position :]:
                if isinstance(item, Placeholder):
                    self._refuse(item, "in or after a here-document (<<)")
            while self._peek() is not None:
                self._emit(str(self._take()))
            return
        item = str(self._take())
        if item in "<>" and word is not None and word.text.isdigit():
            state.word = None  # 2> names a descriptor
        makes_array = item == "(" and word is not None and word.text.endswith("=")
        self._end_word(state)
        self._emit(item)
        if item in "<>":
            while self._peek() in ("<", ">", "&", "|"):
                self._emit(str(self._take()))
            state.redirected = True
        elif item == "(":
            if not makes_array:
                self._end_command(state, closing, array)
            self._commands(")", makes_array)
        elif not (item == "&" and self._peek() == ">"):
            self._end_command(state, closing, array)

    def _more_follows(self) -> bool:
        return any(not (isinstance(item, str) and item.isspace()) for item in self._items[self._position :])

    # -- pieces of words

    def _piece(self, word: Word) -> None:
        item = self._take()
        if isinstance(item, Placeholder):
            word.items.append(item)
            self._emit(f'"{self._reference(item)}"')
        elif item == "\\":
            following = self._peek()
            if isinstance(following, str):
                self._position += 1
                word.items.append(following)
                self._emit("\\" + following)
            elif following is None:
                word.items.append("\\")
                self._emit("\\\\")
        elif item == "'":
            self._single(word)
        elif item == '"':
            self._double(word)
        elif item in "$`<>":
            self._expansion(item, word)
        else:
            if item in "*?[{}!" or (item == "~" and (not word.items or word.items[-1] in ("=", ":"))):
                self.needs_shell = True
            word.items.append(item)
            self._emit(item)

    def _single(self, word: Word) -> None:
        self._emit("'")
        word.items.append("")  # makes '' a word
        while (item := self._peek()) is not None:
            self._position += 1
            if item == "'":
                self._emit("'")
                return
            word.items.append(item)
            self._emit(item if isinstance(item, str) else f"'\"{self._reference(item)}\"'")
        raise ProjectError("The command lacks a closing single quote.")

    def _double(self, word: Word) -> None:
        self._emit('"')
        word.items.append("")
        while (item := self._peek()) is not None:
            self._position += 1
            if item == '"':
                self._emit('"')
                return
            if isinstance(item, Placeholder):
                word.items.append(item)
                self._emit(self._reference(item))
            elif item == "\\":
                following = self._peek()
                if following is not None and isinstance(following, str) and following in '$`"\\\n':
                    self._position += 1
                    if following != "\n":
                        word.items.append(following)
                    self._emit("\\" + following)
                else:
                    word.items.append("\\")
                    self._emit("\\" if following is not None and isinstance(following, str) else "\\\\")
            elif item in "$`":
                self._expansion(item, word, quoted=True)
            else:
                word.items.append(item)
                self._emit(item)
        raise ProjectError("The command lacks a closing double quote.")

    def _expansion(self, item: str, word: Word, quoted: bool = False) -> None:
        """What follows a ``$``, backtick or ``<(``: copied, with the commands inside read as commands."""
        self.needs_shell = True
        word.active = True
        self._emit(item)
        if item == "`":
            # Between backticks a backslash means something else; no value may depend on it.
            end = self._position
            while end < len(self._items) and self._items[end] != "`":
                if self._items[end] == "\\" and self._any:
                    self._refuse(None, "near a backslash between backticks; write $(...) instead")
                end += 1
            self._commands("`")
        elif item in "<>":
            self._emit(str(self._take()))
            self._commands(")")
        elif self._follows("(("):
            self._emit("((")
            self._position += 2
            self._arithmetic("))")
        elif self._follows("("):
            self._emit(str(self._take()))
            self._commands(")")
        elif self._follows("{") or self._follows("["):
            opening = str(self._take())
            self._emit(opening)
            self._arithmetic("}" if opening == "{" else "]")
        elif self._follows("'") and not quoted:
            self._emit(str(self._take()))
            while self._peek() not in (None, "'"):
                if self._peek() == "\\":
                    self._emit(str(self._take()))
                taken = self._take() if self._peek() is not None else ""
                if isinstance(taken, Placeholder):
                    self._refuse(taken, "inside $'...'")
                self._emit(taken)
            if self._peek() is None:
                raise ProjectError("The command lacks a closing single quote.")
            self._emit(str(self._take()))
        word.items.append("$")

    def _arithmetic(self, closing: str) -> None:
        """Arithmetic, or the inside of ``${...}``: bash evaluates values there, so none may stand in it."""
        self.needs_shell = True
        depth = 0
        opening = {")": "(", "}": "{", "]": "["}[closing[0]]
        while (item := self._peek()) is not None:
            if isinstance(item, Placeholder):
                self._refuse(item, "in arithmetic or inside ${...}")
            if depth == 0 and self._follows(closing):
                self._position += len(closing)
                self._emit(closing)
                return
            depth += (item == opening) - (item == closing[0])
            self._emit(str(self._take()))
        raise ProjectError(f"The command lacks a closing '{closing}'.")

    # -- what a command does with its words

    def _check(self, command: list[Word]) -> None:
        """Refuse commands that evaluate their arguments; rewrite the code of shells that are called with -c."""
        words = list(command)
        while words and words[0].text in _PREFIXES:
            words.pop(0)
            self.needs_shell = True
        while words and _ASSIGNMENT.match(words[0].text):
            self.needs_shell = True
            words.pop(0)
        if not words:
            return
        first = words[0]
        name = PurePosixPath(first.text).name
        filled = next((item for word in words for item in word.items if isinstance(item, Placeholder)), None)
        self.needs_shell = self.needs_shell or name in _ONLY_SHELL
        if filled is not None:
            self._check_values(words, name, filled)
        code = self._shell_code(words, filled)
        if code is not None:
            self._nest(code)
        if first.filled:
            if "[" in first.text or "=" in first.text:
                self._refuse(filled, "in the name of a variable")
            # The value could be the name of a builtin such as eval; env runs programs only.
            self._out[first.start] = "env -- " + self._out[first.start]

    def _check_values(self, words: list[Word], name: str, filled: Placeholder) -> None:
        texts = [word.text for word in words]
        if name in _EVALUATES or (name in ("printf", "test", "[", "wait") and "-v" in texts):
            self._refuse(filled, f"as an argument of '{name}'")
        if name in ("export", "readonly"):
            for word in words[1:]:
                if word.filled and not _ASSIGNMENT.match(word.text):
                    self._refuse(filled, f"as a name for '{name}'")
        if name == "[[" and _CONDITIONS.intersection(texts):
            self._refuse(filled, "in a numeric comparison of [[ ]]; use [ ] instead")
        reached = words if name in _WRAPPERS else words[:1]
        for word in reached:
            if PurePosixPath(word.text).name in _ELSEWHERE:
                self._refuse(filled, f"in a command that '{word.text}' runs elsewhere")
        if name == "env" and any(text in ("-S", "-i", "-") or text.startswith("--split") for text in texts):
            self._refuse(filled, "after 'env -S' or 'env -i'")

    def _shell_code(self, words: list[Word], filled: Placeholder | None) -> Word | None:
        """The word that a shell among the words takes as code, if a placeholder is in it."""
        for index, word in enumerate(words):
            if PurePosixPath(word.text).name not in SHELLS:
                continue
            takes_code = reads_input = False
            for at in range(index + 1, len(words)):
                argument = words[at]
                if argument.text[:1] in ("-", "+") and len(argument.text) > 1 and not argument.filled:
                    if not argument.text.startswith("--"):
                        takes_code = takes_code or "c" in argument.text
                        reads_input = reads_input or "s" in argument.text
                    continue
                if words[at - 1].text in ("-o", "+o", "-O", "+O"):
                    continue
                if takes_code:
                    return argument if argument.filled else None
                if argument.text.startswith("\0"):
                    # The value is the name of a script and must not be taken for an option.
                    argument.guard = "--"
                    self._out[argument.start] = "-- " + self._out[argument.start]
                if not reads_input:
                    return None
            if self._any and (index == 0 or PurePosixPath(words[0].text).name in _WRAPPERS | _ELSEWHERE):
                self._refuse(filled, f"together with a '{word.text}' that reads code from its standard input")
        return None

    def _nest(self, word: Word) -> None:
        """Replace the code of an inner shell by code that takes the values from the environment."""
        placeholder = next(item for item in word.items if isinstance(item, Placeholder))
        if word.active:
            self._refuse(placeholder, "in code for another shell that this one expands; use single quotes")
        if not word.text.replace("\0", "").strip():
            self._refuse(placeholder, "as the whole code of another shell")
        inner = ShellLexer([item for item in word.items if item != ""], self._variables).run()
        self._out[word.start : word.end] = [shlex.quote(inner.code)]
        word.items = list(inner.code)
        word.end = word.start + 1
