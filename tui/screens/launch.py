"""The form to launch a project: parameters, environment, machine, one line that says whether it can work, and enter."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.keys import Focus
from mltrack.tui.screens.base import BaseScreen
from mltrack.tui.screens.dialogs import Prompt, Question
from mltrack.tui.screens.text import TextScreen
from mltrack.tui.widgets.bindings import bindings_of
from mltrack.tui.widgets.lines import Lines
from mltrack.tui.widgets.look import Line, Span
from mltrack.tui.widgets.row_list import RowList

TABS = ("Parameters", "Environment", "Machine")
# How often the worker is asked whether it has fetched, planned or started.
_ASK_SECONDS = 0.1
# Of a Slurm job, with what may stand there; others in profiles.toml and by `mltrack run --slurm`.
_SLURM = {
    "partition": "of the cluster: sinfo lists them",
    "time": "30 (minutes), 2:00:00, 1-12 (days-hours)",
    "cpus": "a number",
    "memory": "16g, of a node",
    "gres": "gpu:2, gpu:a100:1",
}
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
        self.query_one("#verdict", Lines).show([((" " + text, style),)])

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
        fields = self._fields() if form else []
        wide = min(30, max((cell_width(label) for _, label, _, _ in fields), default=0))
        rows: list[Line] = []
        for key, label, value, note in fields:
            style = "green" if key == "go" else "dim" if key.startswith("line") else "bold"
            shown = clip(value, max(8, self.size.width - wide - 5))
            rows.append(
                (
                    (pad(clip(label, wide), wide) + "  ", style),
                    (shown, ""),
                    ("   " + note if note else "", "dim"),
                )
            )
        self.rows.fill([key for key, *_ in fields], rows)
        line = self.plan["line"] if self.plan else "mltrack run PROJECT"
        self.query_one("#twin", Lines).show([((f" $ {line}", "dim"),)])

    def _fields(self) -> list[tuple[str, str, str, str]]:
        """(key, label, value, note) of the tab in front."""
        asked, form, plan = self.asked, self.form, self.plan
        assert form is not None
        lines = plan["lines"] if plan else []
        if self.tab == 1:
            fields = [
                (
                    "backend",
                    "backend",
                    str(asked.get("backend") or "chosen by itself"),
                    ", ".join(form["backends"]),
                )
            ]
            fields.append(("profile", "profile", str(asked.get("profile") or "default"), "profiles.toml"))
            wanted = ("code", "image", "venv", "slurm", "note", "problem")
            fields += [
                (f"line {n}", head, text, "") for n, (head, text) in enumerate(lines) if head in wanted
            ]
            docker = plan["dockerfile"].splitlines() if plan else []
            return fields + [
                (f"line D{n}", "Dockerfile" if n == 0 else "", text, "") for n, text in enumerate(docker)
            ]
        if self.tab == 2:
            slurm = asked.get("backend") == "slurm"
            note = "none or a number: Slurm chooses them" if slurm else "none, free, a number, gpu0"
            fields = [("gpu", "gpu", str(asked.get("gpu") or "none"), note)]
            if not slurm:
                fields += [
                    (f"line G{n}", "", text, "") for n, text in enumerate(form["gpus"] or [form["no_gpu"]])
                ]
            if slurm:
                chosen = dict(asked.get("slurm") or {})
                fields += [(f"S {name}", name, chosen.get(name, ""), note) for name, note in _SLURM.items()]
            fields.append(("experiment", "experiment", str(asked.get("experiment") or form["title"]), ""))
            fields.append(("name", "name of the run", str(asked.get("name") or "made up"), ""))
            usual = "all" if slurm else "1"
            fields.append(("at_once", "of a sweep at a time", str(asked.get("at_once") or usual), ""))
            return fields + [
                (f"line {n}", head, text, "") for n, (head, text) in enumerate(lines) if head == "mount"
            ]
        fields = [("go", "▶ launch", self._command(), "")]
        fields.append(
            (
                "entry",
                "entry point",
                str(asked["entry"]),
                f"{len(form['entries'])} of them" if len(form["entries"]) > 1 else "",
            )
        )
        declared = self._parameters()
        for one in declared:
            value = asked["params"].get(one["name"], one["default"])
            note = "  ".join(
                part
                for part in (
                    one["type"],
                    one["help"],
                    "" if one["name"] in asked["params"] or value is None else "default",
                )
                if part
            )
            fields.append((f"P {one['name']}", one["name"], "needed" if value is None else value, note))
        known = {one["name"] for one in declared}
        fields += [
            (f"P {name}", name, value, "not declared")
            for name, value in asked["params"].items()
            if name not in known
        ]
        fields.append(("more", "+", "another parameter", "1,2,3 and 0..4 make a sweep"))
        return fields

    def _command(self) -> str:
        return next((text for head, text in self.plan["lines"] if head == "command"), "") if self.plan else ""

    def _parameters(self) -> list[dict[str, Any]]:
        entries = self.form["entries"] if self.form else []
        return next((entry["parameters"] for entry in entries if entry["name"] == self.asked["entry"]), [])

    # -- keys

    def action_next_field(self) -> None:
        self.rows.move(1)

    def action_previous_field(self) -> None:
        self.rows.move(-1)

    def action_first_field(self) -> None:
        self.rows.move(-len(self.rows.keys))

    def action_last_field(self) -> None:
        self.rows.move(len(self.rows.keys))

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

        self.app.push_screen(Prompt(name, str(chosen.get(name, "")), _SLURM[name]), done)

    def _edit(self, key: str) -> None:
        def done(text: str | None) -> None:
            if text is not None:
                self.asked[key] = text.strip()
                self._replan()

        self.app.push_screen(Prompt(key.replace("_", " "), str(self.asked.get(key) or "")), done)

    def action_copy_line(self) -> None:
        self.copy(self.plan["line"] if self.plan else None, "yet")

    def action_dry_run(self) -> None:
        plan = self.plan
        if plan is None:
            self.say("There is no plan yet: the line above says why.")
            return
        lines: list[Line] = [
            ((f" {head:<12} ", "dim"), (text, "error" if head == "problem" else ""))
            for head, text in plan["lines"]
        ]
        if plan["dockerfile"]:
            lines += [(), *(((" " + text, ""),) for text in plan["dockerfile"].splitlines())]
        lines += [(), ((" $ " + plan["line"], "bold"),)]
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
                Question(f"Run code of {plan['source']} at {plan['commit']}, new here?"), answered
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
