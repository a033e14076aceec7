"""The form to launch a project: parameters, environment, machine, one line that says whether it can work, and enter."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.clean import cell_width, clip, pad, wrap
from mltrack.tui.keys import Focus
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.screens.launch_fields import SLURM, fields_of, parameters_of
from mltrack.tui.screens.text import TextScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span
from mltrack.tui.widgets.row_list import RowList

TABS = ("Parameters", "Environment", "Machine")
# How often the worker is asked whether it has fetched, planned or started.
_ASK_SECONDS = 0.1
# Of a sentence at the bottom, and of a text that is only read.
_VERDICT_LINES = 4
_READ_LINES = 40
_USUAL = ("main", "train", "main.py", "train.py")


class LaunchScreen(BaseScreen):
    """``asked`` is what the worker is asked to plan: address, entry, params, backend, gpu, profile, experiment, name."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("launch")
    file_stem = "launch"

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__()
        self.asked: dict[str, Any] = {"params": {}, **asked}
        self.form: dict[str, Any] | None = None
        self.plan: dict[str, Any] | None = None
        self.tab = 0
        self._starting = False
        self._said = ("", "")

    def compose(self) -> ComposeResult:
        yield Lines(id="head", ground="bar")
        yield Lines(id="tabs")
        yield RowList(id="rows")
        yield Lines(id="verdict")
        yield Lines(id="twin")
        yield Lines(id="foot", ground="bar")

    @property
    def rows(self) -> RowList:
        """The fields of the tab in front."""
        return self.query_one("#rows", RowList)

    def focuses(self) -> tuple[Focus, ...]:
        return ("launch", "everywhere")

    def on_mount(self) -> None:
        self.set_focus(self.rows)
        self.query_one("#verdict", Lines).show([((" reading the project", "dim"),)])
        self._read(again=True)

    def on_resize(self) -> None:
        self.show_footer()
        self._verdict(*self._said)
        self._draw()

    # -- the worker

    def _read(self, again: bool = False) -> None:
        def arrived(form: dict[str, Any]) -> None:
            if form.get("working"):
                self.set_timer(_ASK_SECONDS, self._read)
            elif "error" in form:
                self._verdict(form["error"], "error")
            else:
                self.form = form
                self._begin(form)

        address = self.asked["address"]
        self.mltrack.live.ask("launch_form", arrived, self.failed, topic="form", address=address, again=again)

    def _begin(self, form: dict[str, Any]) -> None:
        last, names = form["last"], [entry["name"] for entry in form["entries"]]
        if not self.asked.get("entry"):
            usual = [name for name in _USUAL if name in names]
            chosen = last.get("entry") if last.get("entry") in names else None
            self.asked["entry"] = chosen or (usual or names or [""])[0]
            if last.get("entry") == self.asked["entry"] and not self.asked["params"]:
                self.asked["params"] = dict(last.get("given") or {})
        for name in ("backend", "gpu", "profile", "slurm"):
            if not self.asked.get(name) and last.get(name):
                self.asked[name] = last[name]
        self._replan()

    def _replan(self) -> None:
        self.plan = None
        self._draw()
        self._verdict("looking", "dim")
        self._look(again=True)

    def _look(self, again: bool = False) -> None:
        def arrived(plan: dict[str, Any]) -> None:
            if plan.get("working"):
                self.set_timer(_ASK_SECONDS, self._look)
            elif "error" in plan:
                self._verdict(plan["error"], "error")
            else:
                self.plan = plan
                self.asked["backend"] = next(
                    (text for head, text in plan["lines"] if head == "backend"), None
                )
                self._verdict(plan["verdict"], "green" if plan["ok"] else "error")
                self._draw()

        self.mltrack.live.ask(
            "launch_plan", arrived, self.failed, topic="plan", asked=self._request(), again=again
        )

    def _request(self) -> dict[str, Any]:
        asked = {name: value for name, value in self.asked.items() if value not in (None, "")}
        # What the plan itself chose is no wish: the same question must stay the same question.
        if self.asked.get("backend") and not self.asked.get("backend_chosen"):
            asked.pop("backend", None)
        asked.pop("backend_chosen", None)
        return asked

    # -- drawing

    def _verdict(self, text: str, style: str) -> None:
        self._said = (text, style)
        verdict = self.query_one("#verdict", Lines)
        # Why it cannot work is worth nothing without its end.
        lines = wrap(text, max(10, self.size.width - 2), _VERDICT_LINES)
        verdict.styles.height = len(lines)
        verdict.show([((" " + line, style),) for line in lines])

    def _line(self) -> str:
        """What does the same, with the store that this app is on."""
        line = str(self.plan["line"]) if self.plan else "mltrack run PROJECT"
        return f"mltrack{self.store_option}{line.removeprefix('mltrack')}"

    def _draw(self) -> None:
        form = self.form
        title = form["title"] if form else self.asked["address"]
        code = (
            f"   {form['commit'][:12]}{' changed' if form['dirty'] else ''}"
            if form and form["commit"]
            else ""
        )
        self.query_one("#head", Lines).show([((f" Launch {title}", "bold"), (code, "dim"))])
        tabs: list[Span] = []
        for place, name in enumerate(TABS):
            tabs.append(
                (
                    f" [{name}] " if place == self.tab else f"  {name}  ",
                    "bold" if place == self.tab else "dim",
                )
            )
        self.query_one("#tabs", Lines).show([tuple(tabs)])
        fields = fields_of(self.tab, self.asked, form, self.plan) if form else []
        wide = min(30, max((cell_width(label) for _, label, _, _ in fields), default=0))
        room = max(8, self.size.width - wide - 4)
        # Notes stand under each other, behind the widest value that leaves room for them.
        noted = [cell_width(value) for _, _, value, note in fields if note]
        value_width = min(max(noted, default=0), max(8, room // 2))
        keys: list[str] = []
        rows: list[Line] = []
        for key, label, value, note in fields:
            head = pad(clip(label, wide), wide) + "  "
            if key.startswith("line"):
                # What is only read is there to its end.
                for number, part in enumerate(wrap(value, room, _READ_LINES)):
                    keys.append(f"{key} {number}")
                    rows.append(((head if number == 0 else " " * len(head), "dim"), (part, "")))
                continue
            keys.append(key)
            if note:
                value = pad(clip(value, value_width), value_width)
                note = "  " + clip(note, max(0, room - value_width - 2))
            rows.append(((head, "green" if key == "go" else "bold"), (clip(value, room), ""), (note, "dim")))
        self.rows.fill(keys, rows)
        twin = self.query_one("#twin", Lines)
        parts = wrap(self._line(), max(10, self.size.width - 3), _VERDICT_LINES)
        twin.styles.height = len(parts)
        twin.show([((f" {' ' if number else '$'} {part}", "dim"),) for number, part in enumerate(parts)])

    def _command(self) -> str:
        return next((text for head, text in self.plan["lines"] if head == "command"), "") if self.plan else ""

    def _parameters(self) -> list[dict[str, Any]]:
        return parameters_of(self.form, self.asked["entry"]) if self.form else []

    # -- keys

    def action_next_field(self) -> None:
        self.rows.move(1)

    def action_previous_field(self) -> None:
        self.rows.move(-1)

    def action_first_field(self) -> None:
        self.rows.move(-len(self.rows.keys))

    def action_last_field(self) -> None:
        """The last one that can be changed; what is only read lies below."""
        keys = self.rows.keys
        last = max((place for place, key in enumerate(keys) if not key.startswith("line")), default=0)
        self.rows.move(last - self.rows.cursor)

    def action_next_launch_tab(self) -> None:
        self._turn(1)

    def action_previous_launch_tab(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        self.tab = (self.tab + by) % len(TABS)
        self.rows.cursor = 0
        self._draw()

    async def action_change(self) -> None:
        """Launch, or edit the field under the cursor."""
        key, form = self.rows.current, self.form
        if key is None or form is None:
            return
        if key == "go":
            await self.action_launch()
        elif key in ("entry", "backend"):
            names = [entry["name"] for entry in form["entries"]] if key == "entry" else form["backends"]
            if names:
                place = names.index(self.asked[key]) + 1 if self.asked.get(key) in names else 0
                self.asked[key] = names[place % len(names)]
                if key == "backend":
                    self.asked["backend_chosen"] = True
                self._replan()
        elif key == "queue":
            self.asked["queue"] = not self.asked.get("queue")
            self._replan()
        elif key.startswith("P "):
            self._edit_parameter(key[2:])
        elif key.startswith("S "):
            self._edit_slurm(key[2:])
        elif key == "more":

            def named(text: str | None) -> None:
                name, _, value = (text or "").partition("=")
                if name.strip():
                    self.asked["params"] = {**self.asked["params"], name.strip(): value}
                    self._replan()

            await self.app.push_screen(Prompt("Parameter", "", "name=value"), named)
        elif not key.startswith("line"):
            self._edit(key)

    def _edit_parameter(self, name: str) -> None:
        default = next((one["default"] for one in self._parameters() if one["name"] == name), None)
        value = self.asked["params"].get(name, default)

        def done(text: str | None) -> None:
            if text is None:
                return
            params = dict(self.asked["params"])
            if text == default:
                params.pop(name, None)
            else:
                params[name] = text
            self.asked["params"] = params
            self._replan()

        self.app.push_screen(Prompt(name, value or "", "1,2,3 and 0..4 make a sweep"), done)

    def _edit_slurm(self, name: str) -> None:
        chosen = dict(self.asked.get("slurm") or {})

        def done(text: str | None) -> None:
            if text is not None:
                kept = {**chosen, name: text.strip()}
                self.asked["slurm"] = {key: value for key, value in kept.items() if value}
                self._replan()

        self.app.push_screen(Prompt(name, str(chosen.get(name, "")), SLURM[name]), done)

    def _edit(self, key: str) -> None:
        def done(text: str | None) -> None:
            if text is not None:
                self.asked[key] = text.strip()
                self._replan()

        self.app.push_screen(Prompt(key.replace("_", " "), str(self.asked.get(key) or "")), done)

    def action_copy_line(self) -> None:
        self.copy(self._line() if self.plan else None, "yet")

    def action_dry_run(self) -> None:
        plan = self.plan
        if plan is None:
            self.say("There is no plan yet: the line above says why.")
            return
        room = max(20, self.size.width - 15)
        lines: list[Line] = []
        for head, text in plan["lines"]:
            style = "error" if head == "problem" else ""
            for number, part in enumerate(wrap(text, room, _READ_LINES)):
                lines.append(((f" {'' if number else head:<12} ", "dim"), (part, style)))
        lines.append(())
        lines += [
            ((f" {' ' if number else '$'} {part}", "bold"),)
            for number, part in enumerate(wrap(self._line(), room + 9, _READ_LINES))
        ]
        if plan["dockerfile"]:
            lines.append(())
            for text in plan["dockerfile"].splitlines():
                first, *more = wrap(text, room + 9, _READ_LINES)
                lines += [((" " + first, ""),), *(((f"     {part}", ""),) for part in more)]
        self.app.push_screen(TextScreen("Dry run: what would happen", lines))

    async def action_launch(self) -> None:
        """Start it; strange code only after a question."""
        plan = self.plan
        if plan is None:
            self.say("There is no plan yet: the line above says why.")
        elif not plan["ok"]:
            self.say("This cannot work: see the line above.", "error")
        elif self._starting:
            self.say("It is being started.")
        elif plan["trusted"]:
            self._go(False)
        else:

            def answered(yes: bool | None) -> None:
                if yes:
                    self._go(True)

            await self.app.push_screen(
                Question(
                    f"{plan['source']} at {plan['commit']} is new here. It would run {self._command()} (d shows all). Run its code?"
                ),
                answered,
            )

    def _go(self, trusted: bool) -> None:
        self._starting = True
        ticket, request = str(time.monotonic_ns()), self._request()
        self._verdict("starting", "dim")

        def ask() -> None:
            self.mltrack.live.ask(
                "launch_go", arrived, failed, topic="go", asked=request, trusted=trusted, ticket=ticket
            )

        def failed(error: dict[str, Any]) -> None:
            self._starting = False
            self.failed(error)

        def arrived(answer: dict[str, Any]) -> None:
            if answer.get("working"):
                self.set_timer(_ASK_SECONDS, ask)
                return
            self._starting = False
            if "error" in answer:
                self._verdict(answer["error"], "error")
                return
            # Of the app: this screen goes away in the course of it.
            self.app.run_worker(self._started(answer), exit_on_error=False)

        ask()

    async def _started(self, answer: dict[str, Any]) -> None:
        """A sweep is watched among the jobs, one run on its own screen."""
        from mltrack.tui.screens.run import RunScreen

        if answer["children"]:
            await self.mltrack.show_screen("jobs")
            return
        place = RowList(id="started")
        place.keys, place.names = [answer["run_id"]], [answer["name"]]
        await self.app.switch_screen(RunScreen(place, "Logs"))
