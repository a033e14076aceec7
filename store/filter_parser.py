"""The filter language: text -> tree. docs/search.md is the page for people.

    filter     := [or]
    or         := and ("or" and)*
    and        := not ("and" not)*
    not        := "not"* (  "(" or ")"  |  term  )
    term       := "mine"  |  word+  |  key test
    test       := comparator value  |  ["not"] "in" "(" value ("," value)* ")"  |  ["not"] ("like"|"ilike") value
                | ("~" | "!~") value  |  "is" ["not"] "null"
    key        := [prefix "."] name ["." aggregate]  |  aggregate "(" [prefix "."] name ")"

`parse` raises FilterError and nothing else. With `mlflow=True` it takes MLflow's grammar only (terms joined by "and",
values in quotes, its attributes and comparators) and reads it as MLflow does.
"""

from __future__ import annotations

from typing import cast

from mltrack.store.column_types import NUMBER_ATTRIBUTES
from mltrack.store.errors import FilterError
from mltrack.store.filter_cursor import Cursor
from mltrack.store.filter_tokens import Token
from mltrack.store.filter_tree import (
    And,
    Comparator,
    Compare,
    Everything,
    Expr,
    Key,
    Matches,
    MatchHow,
    Mine,
    Missing,
    Node,
    Not,
    OneOf,
    Or,
    Value,
    Written,
)
from mltrack.store.filter_values import typed

MAX_TERMS = 100
"""Terms of a filter, each value of a list counted."""
MAX_DEPTH = 50
"""Brackets and `not` inside one another."""
MAX_PATTERN = 256
"""Characters of a pattern of like, ilike, ~ and of a bare word."""

_COMPARATORS: dict[str, Comparator] = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_PATTERN_OPERATORS: dict[str, tuple[MatchHow, bool]] = {
    "~": ("regex", False), "=~": ("regex", False), "!~": ("regex", True),
}  # fmt: skip
_HOW: dict[str, MatchHow] = {"like": "like", "ilike": "ilike"}
_RESERVED = frozenset(("and", "or", "not", "in"))
# Operators of other languages, which would otherwise be looked for in the names of runs. In quotes they are words again.
_FOREIGN = {
    "contains": "like '%text%' (or ilike, in any letter case)",
    "includes": "like '%text%' (or ilike, in any letter case)",
    "startswith": "like 'text%'",
    "endswith": "like '%text'",
    "equals": "=",
    "matches": "~ and a regular expression",
    "regexp": "~ and a regular expression",
    "rlike": "~ and a regular expression",
    "between": "key >= 1 and key <= 2",
}
_SYMBOLS = {"&": "and", "&&": "and", "|": "or", "||": "or"}


def parse(text: str, mlflow: bool = False) -> Expr:
    """The tree of a filter. An empty text matches every run."""
    return Expr(text, _Parser(Cursor(text, mlflow)).whole(), mlflow)


class _Parser:
    """Recursive descent over the tokens; the depth of brackets is limited, so the stack is too."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._text = cursor.text
        self._mlflow = cursor.mlflow
        self._terms = 0
        self._depth = 0

    # -- structure

    def whole(self) -> Node:
        if self._cursor.here.kind == "end":
            return Everything()
        node = self._or()
        if self._cursor.here.kind != "end":
            raise self._expected_joint()
        return node

    def _or(self) -> Node:
        parts = [self._and()]
        while not self._mlflow and self._cursor.take_keyword("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Node:
        if self._mlflow:
            return self._mlflow_terms()
        parts = [self._not()]
        while self._cursor.take_keyword("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _mlflow_terms(self) -> Node:
        """MLflow reads `and` as a mere space between terms: clients leave one at an end."""
        parts: list[Node] = []
        while self._cursor.here.kind != "end":
            if self._cursor.take_keyword("and"):
                continue
            if parts and self._cursor.here.keyword in _RESERVED:
                raise self._expected_joint()
            parts.append(self._term())
        if not parts:
            return Everything()
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Node:
        before = self._depth
        negated = False
        while self._cursor.here.keyword == "not":
            self._deeper()
            self._cursor.next()
            negated = not negated
        if self._cursor.here.kind == "(":
            opening = self._cursor.here
            self._deeper()
            self._cursor.next()
            node = self._or()
            if self._cursor.here.kind != ")":
                if self._cursor.here.kind != "end":
                    raise self._expected_joint()
                raise self._cursor.error(opening.position, "This bracket is never closed.")
            self._cursor.next()
        else:
            node = self._term()
        self._depth = before
        return Not(node) if negated else node

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            message = f"Brackets and 'not' may be {MAX_DEPTH} deep; this is deeper."
            raise self._cursor.error(self._cursor.here.position, message)

    # -- terms

    def _term(self) -> Node:
        token = self._cursor.here
        if token.kind != "word" or token.keyword in _RESERVED:
            raise self._expected_term()
        self._count_term(token)
        function = self._cursor.ahead().kind == "(" and not self._mlflow
        if not function and not self._is_test(1):
            return self._without_test()
        key = self._cursor.key()
        if not self._is_test(0):
            raise self._cursor.error(self._cursor.here.position, "Expected a comparison, like > 0.5, here.")
        return self._test(key)

    def _is_test(self, ahead: int) -> bool:
        """Whether the tokens so many places further on are what may follow a key."""
        token = self._cursor.ahead(ahead)
        if token.kind == "operator":
            return True
        if token.keyword == "not":
            return self._cursor.ahead(ahead + 1).keyword in ("in", "like", "ilike")
        return token.keyword in ("in", "like", "ilike", "is")

    def _without_test(self) -> Node:
        """`mine`, or words that a run's name contains."""
        first = self._cursor.next()
        if self._mlflow:
            raise self._cursor.error(
                self._cursor.here.position, f"Expected a comparison after '{first.text}'."
            )
        if first.keyword == "mine":
            return Mine()
        words: list[Node] = [self._name_contains(first)]
        while (
            self._cursor.here.kind == "word"
            and self._cursor.here.keyword not in _RESERVED
            and self._cursor.here.text not in _SYMBOLS
        ):
            if self._is_test(1) or self._cursor.ahead().kind == "(":
                break
            if len(words) == 1 and self._cursor.ahead().kind == "word":
                self._refuse_foreign(self._cursor.here)
            self._count_term(self._cursor.here)
            words.append(self._name_contains(self._cursor.next()))
        return words[0] if len(words) == 1 else And(tuple(words))

    def _refuse_foreign(self, token: Token) -> None:
        if token.keyword in _FOREIGN:
            message = f"There is no operator '{token.text}': write {_FOREIGN[token.keyword]}, or '{token.text}' in quotes for the word."
            raise self._cursor.error(token.position, message)

    def _name_contains(self, token: Token) -> Node:
        pattern = self._pattern(Written(token.text, len(token.parts[0].quote) > 0, token.position))
        return Matches(Key("attribute", "run_name", token.position, exact=True), "contains", pattern, False)

    def _test(self, key: Key) -> Node:
        token = self._cursor.next()
        if token.text in _COMPARATORS and token.kind == "operator":
            if self._mlflow and token.text in ("==", "<>"):
                raise self._cursor.error(token.position, f"MLflow's filters have no '{token.text}'.")
            return self._compare(key, token)
        negated = token.keyword == "not"
        operator = self._cursor.next() if negated else token
        if operator.kind == "operator":
            if self._mlflow:
                raise self._cursor.error(operator.position, f"MLflow's filters have no '{operator.text}'.")
            how, negated = _PATTERN_OPERATORS[operator.text]
            return self._match(key, how, negated, operator)
        match operator.keyword:
            case "in":
                return self._one_of(key, negated, operator)
            case "is":
                return self._missing(key, operator)
            case "like" | "ilike" as word:
                if self._mlflow and negated:
                    raise self._cursor.error(token.position, "MLflow's filters have no 'not like'.")
                return self._match(key, _HOW[word], negated, operator)
            case _:
                raise AssertionError(operator)

    def _compare(self, key: Key, operator: Token) -> Node:
        comparator = _COMPARATORS[operator.text]
        if (
            comparator not in ("=", "!=")
            and _is_text(key)
            and (self._mlflow or key.kind in ("attribute", "dataset"))
        ):
            allowed = "=, !=, like and ilike" if self._mlflow else "=, !=, in, like and ~"
            message = f"'{key.name}' is text and can be compared with {allowed}, not with '{operator.text}'."
            raise self._cursor.error(operator.position, message)
        value = typed(self._value(), key.kind, key.name, comparator, self._text, self._mlflow)
        return Compare(key, comparator, value)

    def _one_of(self, key: Key, negated: bool, operator: Token) -> Node:
        if self._mlflow and key.kind != "dataset" and key.name != "run_id":
            raise self._cursor.error(
                operator.position,
                "Only 'run_id' and datasets support comparison with a list of quoted string values.",
            )
        if self._cursor.here.kind != "(":
            raise self._cursor.error(
                self._cursor.here.position, "Expected a list in brackets, like (1, 2), after 'in'."
            )
        opening = self._cursor.next()
        values: list[Value] = []
        while self._cursor.here.kind != ")":
            if values:
                if self._cursor.here.kind == "end":
                    raise self._cursor.error(opening.position, "This bracket is never closed.")
                if self._cursor.here.kind != ",":
                    raise self._cursor.error(self._cursor.here.position, "Expected ',' or ')' in the list.")
                self._cursor.next()
                if self._cursor.here.kind == ")":
                    break
                self._count_term(self._cursor.here)
            values.append(typed(self._value(), key.kind, key.name, "=", self._text, self._mlflow))
        if not values:
            raise self._cursor.error(self._cursor.here.position, "The list is empty.")
        self._cursor.next()
        return OneOf(key, tuple(values), negated)

    def _missing(self, key: Key, operator: Token) -> Node:
        negated = self._cursor.take_keyword("not")
        if not self._cursor.take_keyword("null"):
            raise self._cursor.error(self._cursor.here.position, "Expected 'null' or 'not null' after 'is'.")
        if self._mlflow and key.kind not in ("param", "tag"):
            raise self._cursor.error(
                operator.position, "MLflow's filters have 'is null' for params and tags only."
            )
        return Missing(key, negated)

    def _match(self, key: Key, how: MatchHow, negated: bool, operator: Token) -> Node:
        if not _is_text(key) and key.kind != "any":
            message = f"'{key.name}' is a number and cannot be compared with '{operator.text}'."
            raise self._cursor.error(operator.position, message)
        pattern = self._pattern(self._value())
        if self._mlflow:
            pattern = cast(Written, typed(pattern, key.kind, key.name, "=", self._text, True))
        if how == "regex":
            from mltrack.store.filter_regex import PatternRefused, Regex

            try:
                Regex(pattern.text)
            except PatternRefused as error:
                place = pattern.position + pattern.quoted + error.index
                raise self._cursor.error(place, error.message) from None
        return Matches(key, how, pattern, negated)

    def _pattern(self, value: Written) -> Written:
        if len(value.text) > MAX_PATTERN:
            message = f"A pattern may have {MAX_PATTERN} characters; this one has {len(value.text):,}."
            raise self._cursor.error(value.position, message)
        return value

    def _value(self) -> Written:
        token = self._cursor.here
        if token.kind == "word" and token.keyword not in _RESERVED:
            part, *more = token.parts
            if more:
                raise self._cursor.error(
                    token.position, "A value is one word, or stands in quotes as a whole."
                )
            if self._mlflow and part.quote == "`":
                raise self._cursor.error(token.position, "A value stands in ' or \" quotes.")
            self._cursor.next()
            return Written(token.text, part.quote != "", token.position)
        if token.kind == "end":
            raise self._cursor.error(token.position, "The filter ends where a value was expected.")
        message = f"Expected a value, found '{token.text}'; a value that looks like this stands in quotes."
        raise self._cursor.error(token.position, message)

    def _count_term(self, token: Token) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise self._cursor.error(
                token.position, f"A filter may have {MAX_TERMS} terms; this one has more."
            )

    # -- errors

    def _expected_joint(self) -> FilterError:
        token = self._cursor.here
        if token.kind == ")" and not self._mlflow:
            return self._cursor.error(token.position, "This bracket was never opened.")
        if self._mlflow:
            message = f"Expected 'and' before '{token.text}': MLflow's filters are terms joined by 'and'."
            return self._cursor.error(token.position, message)
        word = _SYMBOLS.get(token.text)
        hint = f": write '{word}'" if word else ""
        return self._cursor.error(token.position, f"Expected 'and' or 'or' before '{token.text}'{hint}.")

    def _expected_term(self) -> FilterError:
        token = self._cursor.here
        if token.kind == "end":
            return self._cursor.error(
                token.position, "The filter ends where a term, like lr < 0.01, was expected."
            )
        return self._cursor.error(token.position, f"Expected a term, like lr < 0.01, found '{token.text}'.")


def _is_text(key: Key) -> bool:
    return key.kind in ("param", "tag", "dataset") or (
        key.kind == "attribute" and key.name not in NUMBER_ATTRIBUTES
    )
