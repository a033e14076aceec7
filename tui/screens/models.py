"""The registry: what is in production, is it what is served, and how does one go back."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.timer import Timer

from mltrack.tui.clean import cell_width, clip
from mltrack.tui.keys import Focus
from mltrack.tui.messages import StoreChanged
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.screens.text import open_text
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span, shown, spans_of

_LIVE_SECONDS = 0.5
_TRYING_SECONDS = 1.0
_MOST_ROWS = 8
_STAGES = {"production": "Production", "staging": "Staging", "archived": "Archived", "none": "None"}


class ModelList(Lines, can_focus=True):
    """The rows of all models; the cursor names the one whose board is below."""

    class Moved(Message):
        """The cursor is on another model."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.names: list[str] = []
        self.rows: list[Line] = []
        self.cursor = 0

    @property
    def current(self) -> str | None:
        """The model under the cursor."""
        return self.names[self.cursor] if self.cursor < len(self.names) else None

    def fill(self, names: list[str], rows: list[Line], current: str | None) -> None:
        """Show these models; the cursor stays on the model it is on."""
        self.names, self.rows = names, rows
        if current in names:
            self.cursor = names.index(current)
        self.cursor = max(0, min(self.cursor, len(names) - 1))
        self.draw()

    def draw(self) -> None:
        """Draw the rows and keep the cursor in the window."""
        self.show([self._drawn(place) for place in range(len(self.rows))])
        self._follow()

    def _drawn(self, place: int) -> Line:
        here = place == self.cursor
        mark: Span = ("▌" if here else " ", "cyan" if here else "")
        row = self.rows[place]
        return (mark, *((text, f"{style} cursor") for text, style in row)) if here else (mark, *row)

    def _follow(self) -> None:
        top, height = round(self.scroll_offset.y), max(1, self.size.height)
        if not top <= self.cursor < top + height:
            target = self.cursor if self.cursor < top else self.cursor - height + 1
            self.scroll_to(y=target, animate=False, immediate=True, force=True)

    def move(self, by: int) -> None:
        """Another model. Only the two rows that change are made anew: there may be a thousand."""
        place = max(0, min(len(self.names) - 1, self.cursor + by))
        if place == self.cursor:
            return
        before, self.cursor = self.cursor, place
        for changed in (before, place):
            self.replace(changed, self._drawn(changed))
        self._follow()
        self.post_message(self.Moved())


class ModelsScreen(BaseScreen):
    """A row for each model; board, checks, way back and history of the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("models")
    file_stem = "models"

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.page: dict[str, Any] | None = None
        self._wanted = name
        self._version: int | None = None
        self._changing: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield Lines(id="heading")
        yield ModelList(id="models")
        yield Lines(id="detail")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    def on_mount(self) -> None:
        self.set_focus(self.models)
        self.query_one("#head", Lines).show([((" Models", "bold"), ("  opening", "dim"))])

    def on_resize(self) -> None:
        self.set_class(self.size.height < 14, "-tiny")
        self.show_footer()
        self._load()

    @property
    def models(self) -> ModelList:
        """The rows."""
        return self.query_one("#models", ModelList)

    @property
    def detail(self) -> dict[str, Any] | None:
        """What is known about the model under the cursor."""
        return self.page["detail"] if self.page else None

    def focuses(self) -> tuple[Focus, ...]:
        return ("models", "everywhere")

    # -- questions and answers

    def _rows_high(self) -> int:
        count = len(self.page["names"]) if self.page else 5
        return max(1, min(count, max(_MOST_ROWS, self.size.height // 4) if self.size.height > 30 else 5))

    def _load(self, rows: bool = True) -> None:
        """Ask for everything, or only for the model under the cursor."""
        if not self.mltrack.live.running:
            self.query_one("#head", Lines).show([((" Models", "bold"),)])
            self.query_one("#detail", Lines).show(self.absent_lines())
            return
        self.mltrack.live.ask(
            "models",
            self._arrived,
            self.failed,
            topic="models" if rows else "model",
            width=self.size.width,
            height=max(6, self.size.height - 4 - self._rows_high()),
            name=self._wanted or self.models.current,
            version=self._version,
            rows=rows,
        )

    def on_store_changed(self, message: StoreChanged) -> None:
        if self._changing is None:
            self._changing = self.set_timer(_LIVE_SECONDS, self._changed)

    def _changed(self) -> None:
        self._changing = None
        self._load()

    def _arrived(self, page: dict[str, Any]) -> None:
        high = self._rows_high()
        self.page = page = {**(self.page or {}), **page}
        self.mltrack.who = page["who"] if "who" in page else self.mltrack.who
        detail = page["detail"]
        self.models.styles.height = self._rows_high()
        self.query_one("#heading", Lines).show([spans_of(page["heading"])])
        rows = [spans_of(row) for row in page["rows"]]
        self.models.fill(page["names"], rows, self.models.current or (detail["name"] if detail else None))
        self._wanted = None
        lines = [spans_of(line) for line in detail["lines"]] if detail else _empty()
        self.query_one("#detail", Lines).show(lines)
        self._show_head()
        self._show_twin()
        if high != self._rows_high():
            self._load()  # the first answer said how many models there are
        if detail and detail["trying"]:
            self.set_timer(_TRYING_SECONDS, self._load)

    @on(ModelList.Moved)
    def _model_moved(self) -> None:
        self._version = None
        self._load(rows=False)

    # -- lines

    def _show_head(self) -> None:
        page = self.page
        assert page is not None
        left = f" Models  {len(page['names']):,}"
        waiting = page["waiting"]
        asked = (
            f"   {waiting} request{'s' if waiting != 1 else ''} wait{'s' if waiting == 1 else ''} for you"
            if waiting
            else ""
        )
        state = "read-only" if self.mltrack.readonly else "live"
        right = f"{clip(page['root'], 30, keep='tail')}  {page['who']['shown']}  "
        room = self.size.width - sum(cell_width(shown(text)) for text in (left, asked, right, state)) - 1
        spans: list[Span] = [(left, "bold"), (asked, "yellow")]
        if room >= 1:
            spans.append((" " * room + right, "dim"))
        self.query_one("#head", Lines).show([(*spans, (state, "green"))])

    def _show_twin(self) -> None:
        detail = self.detail
        command = "list"
        if detail and detail["chosen"]:
            name = shlex.quote(f"{detail['name']}/{detail['chosen']}")
            if detail["chosen"] == detail["production"]:
                command = f"show {name}"
            elif detail["request"]:
                command = f'approve {name} -m "..."'
            else:
                command = f'promote {name} Production -m "..."'
        self.query_one("#twin", Lines).show([((f" $ mltrack{self.store_option} models {command}", "dim"),)])

    # -- moving

    def action_next_model(self) -> None:
        self.models.move(1)

    def action_previous_model(self) -> None:
        self.models.move(-1)

    def action_models_page_down(self) -> None:
        self.models.move(max(1, self.models.size.height - 1))

    def action_models_page_up(self) -> None:
        self.models.move(-max(1, self.models.size.height - 1))

    def action_first_model(self) -> None:
        self.models.move(-len(self.models.names))

    def action_last_model(self) -> None:
        self.models.move(len(self.models.names))

    def action_newer(self) -> None:
        self._turn(-1)

    def action_older(self) -> None:
        self._turn(1)

    def _turn(self, by: int) -> None:
        detail = self.detail
        if not detail or not detail["versions"]:
            return
        place = detail["versions"].index(detail["chosen"]) + by
        if not 0 <= place < len(detail["versions"]):
            self.say("That was the oldest version." if by > 0 else "That was the newest version.")
            return
        self._version = detail["versions"][place]
        self._load(rows=False)

    def ask_outside(self, use: Callable[[dict[str, str] | None], None]) -> None:
        detail = self.detail
        if detail and detail["chosen"]:
            options = {"name": detail["name"], "version": detail["chosen"]}
            self.mltrack.live.ask("model_folder", use, self.failed, **options)
        else:
            use(None)

    # -- pages

    def action_open_version(self) -> None:
        detail = self.detail
        if detail and detail["chosen"]:
            title = f"{detail['name']} v{detail['chosen']}"
            self._page(title, "model_version_page", version=detail["chosen"], width=self.size.width - 1)
        else:
            self.say("There is no version to open.")

    def action_history(self) -> None:
        detail = self.detail
        if detail:
            self._page(f"{detail['name']}: history", "model_history")

    def action_difference(self) -> None:
        detail = self.detail
        if not detail or detail["production"] in (None, detail["chosen"]):
            self.say("Choose a version with h and l: it is compared with the one in Production.")
            return
        title = f"{detail['name']}: v{detail['production']} and v{detail['chosen']}"
        versions = {"one": detail["production"], "other": detail["chosen"]}
        self._page(title, "model_diff", **versions, width=self.size.width - 1)

    def _page(self, title: str, call: str, **options: Any) -> None:
        detail = self.detail
        assert detail is not None

        def read(answer: dict[str, Any]) -> tuple[str, list[Line]]:
            return title, [spans_of(line) for line in answer["lines"]]

        open_text(self, title, call, read, name=detail["name"], **options)

    # -- changes

    def action_try(self) -> None:
        detail = self.detail
        if detail and detail["chosen"]:
            self._decide("model_try", name=detail["name"], version=detail["chosen"])

    def action_promote(self) -> None:
        """Ask where to and why; Production wants its name typed. Then promote, ask for it, or answer who asked."""
        detail = self.detail
        if not detail or not detail["chosen"]:
            self.say("There is no version to promote.")
            return
        name, version, request = detail["name"], detail["chosen"], detail["request"]
        if request is not None and request["actor"] != self.mltrack.who["name"]:
            self._answer(name, version, request)
            return
        label = f"{name} v{version}: stage or @alias"

        def to(text: str | None) -> None:
            if not text or not text.strip():
                return
            target = text.strip() if text.strip().startswith("@") else _STAGES.get(text.strip().lower(), "")
            if not target or target == "@":
                self.say("Write Production, Staging, Archived, None, or an alias with its @.")
                return
            self._reason(lambda reason: self._move(detail, version, target, reason))

        self.app.push_screen(Prompt(label, "", "Staging, Production, @champion"), to)

    def _move(self, detail: dict[str, Any], version: int, target: str, reason: str) -> None:
        name = detail["name"]
        asks = detail["asks"] and target in detail["protected"]

        def go() -> None:
            if asks:
                self._decide("model_ask", name=name, version=version, target=target, reason=reason)
                return
            # Who held it on this screen when the question was asked: whoever was faster meanwhile is named.
            expected = detail["production"] if target == "Production" else -1
            self._decide(
                "model_move", name=name, version=version, target=target, reason=reason, expected=expected
            )

        if target == "Production" and not asks:
            self._typed("Production", f"Type Production for {name} v{version}", go)
        else:
            go()

    def _answer(self, name: str, version: int, request: dict[str, Any]) -> None:
        sentence = (
            f"{request['actor']} asks for {name} v{version} to {request['target']}: y yes, n no, esc later"
        )

        def answered(text: str | None) -> None:
            word = (text or "").strip().lower()
            if word in ("y", "yes", "n", "no"):
                approve = word.startswith("y")
                self._reason(
                    lambda reason: self._decide(
                        "model_answer", request=request["id"], approve=approve, reason=reason
                    )
                )

        self.app.push_screen(Prompt(sentence, "", "y or n"), answered)

    def action_rollback(self) -> None:
        detail = self.detail
        if not detail or detail["previous"] is None:
            self.say("Nothing held Production before: there is no way back.")
            return
        name, to, holder = detail["name"], detail["previous"], detail["production"]

        def why(reason: str) -> None:
            self._typed(
                "Production",
                f"Type Production to go back to v{to}",
                lambda: self._decide("model_back", name=name, to=to, reason=reason, expected=holder),
            )

        self._reason(why)

    def action_delete(self) -> None:
        detail = self.detail
        if not detail or not detail["chosen"]:
            self.say("There is no version to delete.")
            return
        name, version = detail["name"], detail["chosen"]

        def answered(yes: bool | None) -> None:
            if yes:
                self._decide("model_delete", name=name, version=version)

        self.app.push_screen(Question(f"Delete {name} v{version}?"), answered)

    def action_describe(self) -> None:
        detail = self.detail
        if not detail:
            return
        name, version = detail["name"], detail["chosen"] or 0

        def done(text: str | None) -> None:
            if text is not None and text != detail["version_description"]:
                self._decide("model_describe", name=name, version=version, text=text)

        self.app.push_screen(Prompt(f"About {name} v{version}", detail["version_description"]), done)

    def _reason(self, use: Callable[[str], None]) -> None:
        self.app.push_screen(
            Prompt("Why", "", "it stays in the history"),
            lambda text: use(text.strip()) if text is not None else None,
        )

    def _typed(self, word: str, label: str, use: Callable[[], None]) -> None:
        def typed(text: str | None) -> None:
            if text is None:
                return
            if text.strip() == word:
                use()
            else:
                self.say(f"Nothing was changed: that was not {word}.")

        self.app.push_screen(Prompt(label), typed)


def _empty() -> list[Line]:
    return [
        (),
        ((" No model is registered in this store.", "bold"),),
        (),
        ((" In a training script:", "dim"),),
        (('     mltrack.log_model(model, input_example=X[:5], registered_model_name="churn")', ""),),
        ((" At the prompt:", "dim"),),
        (("     mltrack models register runs:/ID/model --name churn", ""),),
        ((" In the table of runs: M on a run that has a model.", "dim"),),
    ]
