"""The alerts of this session of the app: when to look, the badge, and what the terminal is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mltrack.tui.alerts import GOOD
from mltrack.tui.clean import clean, clip
from mltrack.tui.config import Config
from mltrack.tui.live import Live

# Looking may take this share of the worker's time, and never happens more often than this.
_SHARE, _LOOK_SECONDS = 0.02, 2.0
_MOST = 500
_NOTICE = 120


class _Timer(Protocol):
    def __call__(self, delay: float, callback: Callable[[], None]) -> object: ...


@dataclass(frozen=True)
class Alert:
    """One alert as it came."""

    time_s: float
    kind: str
    run_id: str
    sentence: str
    experiment: str


class AlertList:
    """Belongs to the app's thread."""

    def __init__(
        self,
        config: Config,
        live: Live,
        set_timer: _Timer,
        send_raw: Callable[[str], None],
        arrived: Callable[[Alert], None],
    ) -> None:
        self.alerts: list[Alert] = []
        self.unseen = 0
        self._config = config
        self._live = live
        self._set_timer = set_timer
        self._send_raw = send_raw
        self._arrived = arrived
        self._waiting = False
        self._since_ms = time.time_ns() // 1_000_000

    def store_changed(self) -> None:
        """Something was logged: look soon."""
        if not self._waiting:
            self._waiting = True
            self._set_timer(_LOOK_SECONDS, self._look)

    def seen(self) -> None:
        """A person has looked at the list."""
        self.unseen = 0

    def _look(self) -> None:
        self._live.ask("alerts", self._answered, self._failed, topic="alerts", since_ms=self._since_ms)

    def _answered(self, answer: dict[str, Any]) -> None:
        for facts in answer["news"]:
            if facts["kind"] not in self._config.alerts:
                continue
            alert = Alert(time.time(), facts["kind"], facts["run_id"], facts["sentence"], facts["experiment"])
            self.alerts = [*self.alerts[-_MOST + 1 :], alert]
            self.unseen += 1
            self._notify(alert)
            self._arrived(alert)
        pause = answer["seconds"] / _SHARE
        if pause > _LOOK_SECONDS:
            self._set_timer(pause, self._again)
        else:
            self._again()

    def _failed(self, error: dict[str, Any]) -> None:
        self._again()  # the store's own trouble is told elsewhere

    def _again(self) -> None:
        self._waiting = False

    def _notify(self, alert: Alert) -> None:
        if self._config.notify == "bell":
            self._send_raw("\a")
        elif self._config.notify == "osc9":
            text = clip(clean(alert.sentence), _NOTICE).replace(";", ",")
            self._send_raw(f"\x1b]9;mltrack: {text}\x1b\\")


def style_of(kind: str) -> str:
    """The colour of a kind."""
    return "green" if kind in GOOD else "yellow" if kind in ("plateau", "idle-gpu") else "error"
