"""A place in the tokens of a filter or sort text, and the one thing both have in common: the key."""

from __future__ import annotations

from mltrack.store.errors import FilterError
from mltrack.store.filter_key import closest, metric_name, read_key
from mltrack.store.filter_tokens import Token, tokenize
from mltrack.store.filter_tree import AGGREGATES, Key


class Cursor:
    """Walks over the tokens of `text`. The last token is the end, and the walk stays there."""

    def __init__(self, text: str, mlflow: bool) -> None:
        self.text = text
        self.mlflow = mlflow
        self._tokens = tokenize(text, mlflow)
        self._index = 0

    @property
    def here(self) -> Token:
        """The token at this place."""
        return self._tokens[self._index]

    def ahead(self, count: int = 1) -> Token:
        """The token so many places further on."""
        return self._tokens[min(self._index + count, len(self._tokens) - 1)]

    def next(self) -> Token:
        """The token at this place, and on to the following one."""
        token = self.here
        self._index = min(self._index + 1, len(self._tokens) - 1)
        return token

    def replace(self, token: Token) -> None:
        """Puts another token at this place."""
        self._tokens[self._index] = token

    def take_keyword(self, keyword: str) -> bool:
        """Past the keyword if it is here."""
        if self.here.keyword != keyword:
            return False
        self.next()
        return True

    def error(self, position: int, message: str) -> FilterError:
        """An error at a place of this text, for the caller to raise."""
        return FilterError(self.text, position, message)

    def key(self) -> Key:
        """The key at this place (a word is here), and past it: `lr`, `metrics.loss.min`, `best(val/acc)`."""
        token = self.next()
        if self.here.kind != "(" or self.mlflow:
            return read_key(token, self.text, self.mlflow)
        aggregate = AGGREGATES.get(token.keyword)
        if aggregate is None:
            known = ", ".join(f"{name}(...)" for name in AGGREGATES)
            hint = closest(token.keyword, AGGREGATES)
            raise self.error(token.position, f"There is no function '{token.text}'; there are {known}.{hint}")
        opening = self.next()
        if self.here.kind != "word":
            raise self.error(self.here.position, f"Expected the name of a metric, as in {aggregate}(loss).")
        name = metric_name(self.next(), self.text)
        if self.here.kind != ")":
            if self.here.kind == "end":
                raise self.error(opening.position, "This bracket is never closed.")
            raise self.error(self.here.position, f"Expected ')' after the name in {aggregate}(...).")
        self.next()
        return Key("metric", name, token.position, aggregate, exact=True)
