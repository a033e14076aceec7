"""The messages of the whole app. Each says when it is sent; those that supersede each other say so."""

from __future__ import annotations

from typing import Any

from textual.message import Message


class Answered(Message):
    """The worker answered a request; sent from the thread that reads its output."""

    def __init__(self, request: int, result: Any, error: dict[str, Any] | None) -> None:
        self.request = request
        self.result = result
        self.error = error
        super().__init__()


class StoreChanged(Message):
    """Something in the store is new. A later one makes an earlier one superfluous."""

    def __init__(self, seq: int, pending_bytes: int, waiting_runs: int = 0) -> None:
        """``waiting_runs``: of other tools, not read yet."""
        self.seq = seq
        self.pending_bytes = pending_bytes
        self.waiting_runs = waiting_runs
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, StoreChanged)


class Trouble(Message):
    """The worker says that something is wrong with the store, in a sentence; an empty one takes it back."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__()


class Note(Message):
    """The worker says what it is busy with, in a sentence: nothing is wrong, but answers take their time."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__()


class WorkerEnded(Message):
    """The worker's output ended: it died, or could not start. ``last_words`` is the last line it wrote to stderr."""

    def __init__(self, process: int, code: int | None, last_words: str) -> None:
        self.process = process
        self.code = code
        self.last_words = last_words
        super().__init__()


class TerminalAnswered(Message):
    """The terminal answered a question about itself; sent from the thread that reads the keyboard."""

    def __init__(self, reply: str) -> None:
        self.reply = reply
        super().__init__()
