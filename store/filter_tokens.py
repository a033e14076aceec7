"""The words of a filter text.

A word ends at a space, at a quotation mark, at one of `(),;<>=~`, and before `!=` and `!~`. So `val/acc`,
`s3://bucket`, `-2d` and `resnet-50` are words. After a dot, part of a word may be in quotes: metrics.`a b`.min
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mltrack.store.errors import FilterError

MAX_TEXT = 10_000
"""Characters of a filter."""

QUOTES = "'\"`"
_OPERATORS = ("<=", ">=", "==", "!=", "<>", "!~", "=~", "<", ">", "=", "~")
_WORD_ENDS = frozenset("(),;<>=~" + QUOTES)
# What MLflow's tokenizer takes for one quoted thing. It gives the inside as it is, doubled quotes and all.
_MLFLOW_QUOTED = {
    "'": re.compile(r"'(?:''|\\'|[^'])*'"),
    '"': re.compile(r'"(?:""|\\"|[^"])*"'),
    "`": re.compile(r"`(?:``|[^`])*`"),
}


@dataclass(frozen=True)
class Part:
    """A piece of a word; `quote` is the quotation mark around it, or empty."""

    text: str
    quote: str


@dataclass(frozen=True)
class Token:
    """A word (of one part, or of several joined by dots), an operator, a bracket, a comma, or the end.

    `kind` is "word", "operator", "(", ")", "," or "end".
    """

    kind: str
    parts: tuple[Part, ...]
    position: int
    end: int

    @property
    def text(self) -> str:
        """The word without its quotes."""
        return "".join(part.text for part in self.parts)

    @property
    def keyword(self) -> str:
        """The word in lower case if it stands without quotes, so that it may be a keyword; otherwise empty."""
        if self.kind == "word" and len(self.parts) == 1 and not self.parts[0].quote:
            return self.parts[0].text.lower()
        return ""


def tokenize(text: str, mlflow: bool = False) -> list[Token]:
    """The tokens of a text; the last is always the end. FilterError for a text that is too long or a stray quote."""
    if len(text) > MAX_TEXT:
        raise FilterError(
            text, MAX_TEXT, f"A filter may have {MAX_TEXT:,} characters; this one has {len(text):,}."
        )
    tokens: list[Token] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if position == len(text):
            tokens.append(Token("end", (), position, position))
            return tokens
        token = _punctuation(text, position) or _word(text, position, mlflow)
        tokens.append(token)
        position = token.end


def _punctuation(text: str, position: int) -> Token | None:
    character = text[position]
    if character == "(" or character == ")" or character == ",":
        return Token(character, (Part(character, ""),), position, position + 1)
    for operator in _OPERATORS:
        if text.startswith(operator, position):
            return Token("operator", (Part(operator, ""),), position, position + len(operator))
    if character == ";":
        raise FilterError(text, position, "';' means nothing here; put a value that contains it in quotes.")
    return None


def _word(text: str, start: int, mlflow: bool) -> Token:
    parts: list[Part] = []
    position = start
    while position < len(text):
        if text[position] in QUOTES:
            # The lone minus is the one before a sort key: -`a b`
            if parts and not parts[-1].text.endswith(".") and parts[-1].text != "-":
                raise FilterError(text, position, "A quote inside a word: put the whole value in quotes.")
            part, position = _quoted(text, position, mlflow)
            parts.append(part)
            if not text.startswith(".", position):
                break
        else:
            end = _plain_end(text, position)
            if end == position:
                break
            parts.append(Part(text[position:end], ""))
            position = end
            if position < len(text) and text[position] not in QUOTES:
                break
    return Token("word", tuple(parts), start, position)


def _plain_end(text: str, position: int) -> int:
    while position < len(text):
        character = text[position]
        if character in _WORD_ENDS or character.isspace():
            break
        if character == "!" and text[position + 1 : position + 2] in ("=", "~"):
            break
        position += 1
    return position


def _quoted(text: str, start: int, mlflow: bool) -> tuple[Part, int]:
    """The quoted part that starts here and where it ends. Twice the quotation mark stands for one of it."""
    quote = text[start]
    if mlflow:
        match = _MLFLOW_QUOTED[quote].match(text, start)
        if match is not None:
            return Part(match.group()[1:-1], quote), match.end()
    else:
        end = text.find(quote, start + 1)
        while end != -1 and text.startswith(quote, end + 1):
            end = text.find(quote, end + 2)
        if end != -1:
            return Part(text[start + 1 : end].replace(2 * quote, quote), quote), end + 1
    raise FilterError(text, start, f"This {quote} is never closed.")
