"""Questions that a network answers: asked by threads, so that nobody waits longer than they want."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

AGAIN_SECONDS = 10.0
_KEPT = 16


@dataclass
class Asked:
    """A question, and what came back."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    problem: str = ""
    at: float = 0.0


class Questions:
    """What was asked is kept for ten seconds, the last few answers only. ``tell`` makes an error a sentence."""

    def __init__(self, name: str, tell: Callable[[Exception], str] = str) -> None:
        self._name = name
        self._tell = tell
        self._asked: OrderedDict[tuple[str, ...], Asked] = OrderedDict()
        self._lock = threading.Lock()

    def ask(
        self, key: tuple[str, ...], work: Callable[[], Any], seconds: float, again: bool = False
    ) -> Asked:
        """The answer of ``work``, or what there is of it after ``seconds``: asked again later, it goes on. ``again``: what was
        answered before does not count."""
        with self._lock:
            asked = self._asked.get(key)
            if asked is None or (
                asked.done.is_set() and (again or time.monotonic() - asked.at > AGAIN_SECONDS)
            ):
                asked = self._asked[key] = Asked()
                threading.Thread(target=self._work, args=(asked, work), name=self._name, daemon=True).start()
            self._asked.move_to_end(key)
            while len(self._asked) > _KEPT:
                self._asked.popitem(last=False)
        asked.done.wait(seconds)
        return asked

    def _work(self, asked: Asked, work: Callable[[], Any]) -> None:
        try:
            asked.answer = work()
        except (OSError, KeyError, TypeError, ValueError) as error:
            asked.problem = self._tell(error)
        finally:
            asked.at = time.monotonic()
            asked.done.set()
