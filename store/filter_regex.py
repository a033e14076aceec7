"""Regular expressions that cannot hang.

Python's `re` tries one way after another, which takes forever for some patterns on some texts. Here a pattern is
also read into a small automaton that looks at each character once. `re` does the work wherever the number of ways
it could try is known to be small, and the automaton the rest, with the same answers (a property test compares them).
What needs trying by nature (backreferences, looking around, possessive repetition) is refused.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_STATES = 4_000
"""States of an automaton; `.{0,1000}` needs 2,000."""
RE_STEPS = 100_000
"""Ways that `re` may have to try on one text: about 1 ms."""
RE_SECONDS = 0.25
"""When `re` has taken this long the automaton goes on: slower on the usual text, but not on the worst."""
AUTOMATON_STEPS = 20_000_000
"""Characters that the automaton reads before it gives up: about 2 s."""
_SLICE = 256
_MAX_CACHED_MOVES = 100_000
_END = ""
_LAST_NEWLINE = "\n$"


class PatternRefused(Exception):
    """The pattern is wrong, or cannot be matched in bounded time. `index` is the place in the pattern."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.message = message
        self.index = index


@dataclass(frozen=True)
class _One:
    """One character that fits the source: a letter, `.`, `\\d`, `[a-z]`."""

    source: str


@dataclass(frozen=True)
class _Place:
    """A place between characters: `^`, `$`, `\\A`, `\\Z`, `\\b`."""

    source: str


@dataclass(frozen=True)
class _Sequence:
    parts: tuple[_Pattern, ...]


@dataclass(frozen=True)
class _Choice:
    parts: tuple[_Pattern, ...]


@dataclass(frozen=True)
class _Repeat:
    part: _Pattern
    least: int
    most: int | None


_Pattern: TypeAlias = _One | _Place | _Sequence | _Choice | _Repeat


class Regex:
    """A checked pattern. `search(values)` says in which values it is found. Raises PatternRefused."""

    def __init__(self, pattern: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._compiled = re.compile(pattern)
            tree = _Reader(pattern).read()
            self._ways, self._degree = _ways(tree)
            self._automaton = _Automaton(tree, self._compiled.flags)
        except re.error as error:
            raise PatternRefused(f"Not a regular expression: {error.msg}.", error.pos or 0) from None
        except (RecursionError, OverflowError):
            raise PatternRefused("This regular expression is too large.", 0) from None

    def search(self, values: Sequence[str]) -> list[bool]:
        """One answer per value. PatternRefused when even one look at each character would take seconds."""
        found: list[bool] = []
        search = self._compiled.search
        deadline = time.perf_counter() + RE_SECONDS
        for start in range(0, len(values), _SLICE):
            part = values[start : start + _SLICE]
            if time.perf_counter() > deadline:
                found += [self._automaton.search(value) for value in part]
            elif self._steps(max(map(len, part))) <= RE_STEPS:
                found += [search(value) is not None for value in part]
            else:
                found += [self._search_one(value) for value in part]
        return found

    def _search_one(self, value: str) -> bool:
        if self._steps(len(value)) <= RE_STEPS:
            return self._compiled.search(value) is not None
        return self._automaton.search(value)

    def _steps(self, length: int) -> float:
        """At most this many ways are tried on a text of this length, from all its places together."""
        if self._ways == 1 and self._degree == 0:
            return 0  # nothing to choose: as good as a plain text
        return (length + 1.0) * self._ways * (length + 1.0) ** self._degree


def _ways(pattern: _Pattern) -> tuple[float, int]:
    """(w, d): from one place of a text of n characters at most w * (n + 1) ** d ways lead through the pattern."""
    match pattern:
        case _One() | _Place():
            return 1.0, 0
        case _Sequence(parts):
            ways, degree = 1.0, 0
            for part in parts:
                part_ways, part_degree = _ways(part)
                ways, degree = min(ways * part_ways, 1e9), degree + part_degree
            return ways, degree
        case _Choice(parts):
            choices = [_ways(part) for part in parts]
            return min(sum(ways for ways, _ in choices), 1e9), max(degree for _, degree in choices)
        case _Repeat(part, least, most):
            ways, degree = _ways(part)
            if ways > 1 or degree > 0:
                if (least, most) == (0, 1):
                    return min(ways + 1, 1e9), degree
                return 1e9, 1  # repetition of what can itself be read in several ways
            return (1.0, 1) if most is None else (float(max(1, most - least + 1)), 0)


class _Reader:
    """Reads a pattern that `re` has accepted, and refuses what an automaton cannot do."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def read(self) -> _Pattern:
        if self._pattern.startswith("(?i)"):
            self._at = 4
        tree = self._choice()
        if self._at < len(self._pattern):
            raise self._refuse("This part of the regular expression is not understood", self._at)
        return tree

    def _choice(self) -> _Pattern:
        parts = [self._sequence()]
        while self._pattern.startswith("|", self._at):
            self._at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _sequence(self) -> _Pattern:
        parts: list[_Pattern] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _repeated(self, atom: _Pattern) -> _Pattern:
        match = re.compile(r"[*+?]|\{(\d*)(?:(,)(\d*))?\}", re.ASCII).match(self._pattern, self._at)
        if match is None or match.group() == "{}":
            return atom
        self._at = match.end()
        if self._pattern.startswith("+", self._at):
            raise self._refuse("Possessive repetition is not possible here", self._at)
        if self._pattern.startswith("?", self._at):
            self._at += 1  # lazy: which match is found changes, whether there is one does not
        sign = match.group()
        if sign in "*+?":
            return _Repeat(atom, int(sign == "+"), 1 if sign == "?" else None)
        least, comma, most = match.groups()
        if comma is None:
            return _Repeat(atom, int(least), int(least))
        return _Repeat(atom, int(least or 0), int(most) if most else None)

    def _atom(self) -> _Pattern:
        start = self._at
        character = self._pattern[start]
        self._at += 1
        if character in "^$":
            return _Place(character)
        if character == "(":
            return self._group(start)
        if character == "[":
            return _One(self._class(start))
        if character == "\\":
            return self._escape(start)
        return _One(character if character == "." else re.escape(character))

    def _group(self, start: int) -> _Pattern:
        if self._pattern.startswith("?", self._at):
            match = re.compile(r"\?(?::|P<\w+>)").match(self._pattern, self._at)
            if match is None:
                message = (
                    "Of the groups with (? only (?:...), (?P<name>...) and a leading (?i) are possible here"
                )
                raise self._refuse(message, start)
            self._at = match.end()
        tree = self._choice()
        self._at += 1  # the closing bracket: `re` has seen it
        return tree

    def _class(self, start: int) -> str:
        if self._pattern.startswith("^", self._at):
            self._at += 1
        first = self._at
        while self._pattern[self._at] != "]" or self._at == first:
            self._at += 2 if self._pattern[self._at] == "\\" else 1
        self._at += 1
        return self._pattern[start : self._at]

    def _escape(self, start: int) -> _Pattern:
        letter = self._pattern[self._at]
        self._at += 1
        if letter in "AZb":
            return _Place("\\" + letter)
        if letter.isdigit() or letter in "BNz":
            raise self._refuse(f"\\{letter} is not possible here", start)
        self._at += {"x": 2, "u": 4, "U": 8}.get(letter, 0)
        return _One(self._pattern[start : self._at])

    @staticmethod
    def _refuse(message: str, index: int) -> PatternRefused:
        return PatternRefused(f"{message}.", index)


class _State:
    """Where the automaton can be after some text: its positions, and what kind of character came before."""

    __slots__ = ("before", "moves", "positions")

    def __init__(self, positions: frozenset[int], before: str) -> None:
        self.positions = positions
        self.before = before
        self.moves: dict[str, _State] = {}


_FOUND = _State(frozenset(), "")


class _Automaton:
    """Finds a pattern by following all ways at once. States are made when first needed, and then remembered."""

    def __init__(self, tree: _Pattern, flags: int) -> None:
        self._flags = flags & re.IGNORECASE
        self._ones: list[re.Pattern[str] | None] = []
        """For each position the character that leads to its only follower, or None: then it is passed freely."""
        self._places: list[str] = []
        """For a position passed freely: the place it may only be passed at, or empty."""
        self._next: list[list[int]] = []
        self._final = self._add(None)
        self._first = self._build(tree, self._final)
        self._states: dict[tuple[frozenset[int], str], _State] = {}
        self._moves = 0
        self._left = AUTOMATON_STEPS

    def _add(self, one: re.Pattern[str] | None, place: str = "", after: Sequence[int] = ()) -> int:
        if len(self._ones) >= MAX_STATES:
            raise PatternRefused("This regular expression is too large: use smaller counts.", 0)
        self._ones.append(one)
        self._places.append(place)
        self._next.append(list(after))
        return len(self._ones) - 1

    def _build(self, tree: _Pattern, after: int) -> int:
        """Adds the positions of a tree that is followed by position `after`; returns the first of them."""
        match tree:
            case _One(source):
                return self._add(re.compile(source, self._flags), after=[after])
            case _Place(source):
                return self._add(None, source, [after])
            case _Sequence(parts):
                for part in reversed(parts):
                    after = self._build(part, after)
                return after
            case _Choice(parts):
                return self._add(None, after=[self._build(part, after) for part in parts])
            case _Repeat(part, least, most):
                end = after
                if most is None:
                    after = self._add(None, after=[end])
                    self._next[after].append(self._build(part, after))
                else:
                    for _ in range(most - least):
                        after = self._add(None, after=[end, self._build(part, after)])
                for _ in range(least):
                    # The extra position makes MAX_STATES count the repetitions of an empty part too.
                    after = self._build(part, self._add(None, after=[after]))
                return after

    def search(self, value: str) -> bool:
        """Whether the pattern is found anywhere in the text."""
        self._spend(len(value))
        state = self._state(frozenset((self._first,)), "start")
        last = value[-1:] == "\n"
        for symbol in value[:-1] if last else value:
            following = state.moves.get(symbol)
            state = following if following is not None else self._move(state, symbol)
            if state is _FOUND:
                return True
        for symbol in (_LAST_NEWLINE, _END) if last else (_END,):
            following = state.moves.get(symbol)
            state = following if following is not None else self._move(state, symbol)
            if state is _FOUND:
                return True
        return False

    def _move(self, state: _State, symbol: str) -> _State:
        reached = self._reached(state, symbol)
        self._spend(10 + len(reached))
        if self._final in reached:
            following = _FOUND
        else:
            character = symbol[:1]
            positions = {self._first}
            for position in reached:
                one = self._ones[position]
                if one is not None and character and one.match(character):
                    positions.update(self._next[position])
            following = self._state(frozenset(positions), "word" if _is_word(character) else "other")
        self._moves += 1
        if self._moves > _MAX_CACHED_MOVES:
            self._moves = 0
            for known in self._states.values():
                known.moves.clear()
            self._states.clear()
        state.moves[symbol] = following
        return following

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise PatternRefused("This regular expression takes too long on these runs: make it simpler.", 0)

    def _state(self, positions: frozenset[int], before: str) -> _State:
        key = (positions, before)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _State(positions, before)
        return state

    def _reached(self, state: _State, symbol: str) -> set[int]:
        """All positions that can be reached without reading the next character."""
        reached: set[int] = set()
        waiting = list(state.positions)
        while waiting:
            position = waiting.pop()
            if position in reached or not _holds(self._places[position], state.before, symbol):
                continue
            reached.add(position)
            if self._ones[position] is None:
                waiting.extend(self._next[position])
        return reached


def _holds(place: str, before: str, symbol: str) -> bool:
    match place:
        case "":
            return True
        case "^" | "\\A":
            return before == "start"
        case "$":
            return symbol in (_END, _LAST_NEWLINE)
        case "\\Z":
            return symbol == _END
        case _:
            return (before == "word") != _is_word(symbol[:1])


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
