"""`M` on a run: its model becomes a version of a registered one."""

from __future__ import annotations

from collections.abc import Callable

from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Prompt


def register_model(screen: BaseScreen, run_id: str, decide: Callable[..., None]) -> None:
    """Ask which of the run's models, when there are several, and under which name; then ``decide`` it."""

    def found(uris: list[str]) -> None:
        if not uris:
            screen.say("The run has no model: mltrack.log_model keeps one.")
        elif len(uris) == 1:
            name(uris[0])
        else:
            paths = {uri.split("/", 2)[2]: uri for uri in uris}

            def chosen(text: str | None) -> None:
                if text is not None and text.strip() in paths:
                    name(paths[text.strip()])
                elif text:
                    screen.say(f"There is no model '{text}' in this run; there are: {', '.join(paths)}.")

            screen.app.push_screen(Prompt("Which model", next(iter(paths)), ", ".join(paths)), chosen)

    def name(uri: str) -> None:
        def named(text: str | None) -> None:
            if text and text.strip():
                decide("model_register", uri=uri, name=text.strip())

        screen.app.push_screen(
            Prompt("Register as", "", "the name of a model; it is made when there is none"), named
        )

    screen.mltrack.live.ask("model_folders", found, screen.failed, topic="register", run_id=run_id)
