"""Pages about a model, and what people change: the calls of the models screen beside the list itself."""

from __future__ import annotations

import threading
from typing import Any

from mltrack.store.errors import MltrackError, NotFound
from mltrack.store.mlmodel import read_mlmodel
from mltrack.store.model_checks import require_passed, try_example
from mltrack.store.store import Store
from mltrack.tui.clean import cell_width, clip, pad
from mltrack.tui.cli.models import change_words, request_words
from mltrack.tui.cli.models_diff import differences
from mltrack.tui.cli.run_look import now_ms
from mltrack.tui.draw.numbers import format_bytes, format_number
from mltrack.tui.draw.times import format_moment
from mltrack.tui.worker_calls.models import Line, check_line, checks_of, tried

# -- pages


def model_version_page(store: Store, name: str, version: int, width: int = 80) -> dict[str, Any]:
    """Everything about a version, as lines."""
    now = now_ms()
    registry = store.registry
    found = registry.version(name, version)
    lines: list[Line] = []

    def say(label: str, text: str, style: str = "") -> None:
        if text:
            lines.append([[f" {label:<11}", "dim"], [text, style]])

    run = next(iter(store.runs([found.run_id])), None) if found.run_id else None
    say("stage", f"{found.stage}  since {format_moment(found.staged_ms, now)} by {found.staged_by}", "bold")
    say("aliases", "  ".join(f"@{alias}" for alias in found.aliases))
    say("about", found.description)
    say("tags", "  ".join(f"{key}={value}" if value else key for key, value in found.tags.items()))
    for each in registry.serving():
        if (each.name, each.version) == (name, version):
            say(
                "served",
                f"now, by run {each.run_id[:12]}{f', follows {each.follows}' if each.follows else ''}",
                "green",
            )
    if run is not None:
        data = ", ".join(f"{each['name']} {str(each['digest'])[:8]}" for each in run.inputs)
        git = run.facts.get("git")
        commit = str(git.get("commit", ""))[:10] if isinstance(git, dict) else ""
        path = [f"data {data}" if data else "", f"code {commit}" if commit else "", f"run {run.name}"]
        say("lineage", " → ".join([*filter(None, path), f"v{version}", found.stage]))
    say("source", found.source)
    say("registered", f"{format_moment(found.created_ms, now)} by {found.actor}")
    try:
        model = read_mlmodel(registry.folder_here(found))
        say("flavor", f"{model.main_flavor}   written for MLflow {model.mlflow_version}")
        for part in ("inputs", "outputs", "params"):
            fields = getattr(model.signature, part) if model.signature else None
            for place, field in enumerate(fields or ()):
                say(part if not place else "", field.sentence())
    except MltrackError as error:
        say("trouble", error.message, "error")
    lines.append([])
    lines += [check_line(each, width) for each in checks_of(store, found)]
    if run is not None and run.metrics:
        lines.append([])
        holder = registry.holder(name, "Production")
        other = registry.version(name, holder) if holder not in (None, version) else None
        beside = next(iter(store.runs([other.run_id])), None) if other and other.run_id else None
        lines.append([[f" {'METRIC':<24}{f'v{version}':>12}{f'v{holder}' if beside else '':>12}", "header"]])
        for key in sorted(key for key in run.metrics if not key.startswith("system/")):
            theirs = beside.metrics.get(key) if beside else None
            shown = format_number(theirs.last) if theirs else ""
            lines.append([[f" {clip(key, 23):<24}{format_number(run.metrics[key].last):>12}{shown:>12}", ""]])
    files = registry.files(name, version) or []
    lines.append([])
    lines += [
        [[f" {format_bytes(int(size)):>9}  {path}", ""], [f"  {str(digest)[:12]}", "dim"]]
        for path, size, digest in files
    ]
    lines.append([])
    lines += _history(store, name, now, version)
    return {"lines": lines, "stage": found.stage}


def model_history(store: Store, name: str) -> dict[str, Any]:
    """Everything that happened to a model, newest first, as lines."""
    return {"lines": _history(store, name, now_ms(), None)}


def _history(store: Store, name: str, now: int, version: int | None) -> list[Line]:
    rows = [row for row in store.registry.audit(name) if version in (None, row.version)]
    return [
        [
            [f" {format_moment(row.time_ms, now):<17}", "dim"],
            [f"{row.actor:<12} {change_words(row)}", ""],
            [f'  "{row.reason}"' if row.reason else "", ""],
            [f"  via {row.channel} ({row.identity})" if row.channel else "", "dim"],
        ]
        for row in reversed(rows)
    ]


def model_diff(store: Store, name: str, one: int, other: int, width: int = 79) -> dict[str, Any]:
    """How two versions differ, as lines of ``width`` cells with as much room for one as for the other."""
    rows = differences(store, store.registry.version(name, one), store.registry.version(name, other))
    label = min(31, max((cell_width(clip(key, 29)) for _, key, _, _ in rows), default=0) + 4)
    half = max(8, (width - label) // 2)
    lines: list[Line] = [[[" " * label + pad(f"v{one}", half) + f"v{other}", "header"]]]
    before = ""
    for section, key, first, second in rows:
        if section != before:
            lines.append([[f" {section.upper()}", "header"]])
            before = section
        lines.append(
            [
                [pad("  " + clip(key, label - 4), label), "cyan"],
                [pad(clip(first, half - 2), half), ""],
                [clip(second, half), ""],
            ]
        )
    return {"lines": lines}


def model_inbox(store: Store) -> dict[str, Any]:
    """Requests that wait, as lines."""
    requests = store.registry.requests()
    return {"lines": [[[f" {each.name}  ", "bold"], [request_words(each), ""]] for each in requests]}


# -- changes


def model_move(
    store: Store, name: str, version: int, target: str, reason: str, expected: int | None
) -> dict[str, Any]:
    """Promote, when nobody was faster and the policy's checks pass. ``expected``: who held the target on the screen."""
    found = require_passed(store, name, version, target)
    registry = store.registry
    if target.startswith("@"):
        decision = registry.set_alias(name, target[1:], version, reason, expected, checked=True)
    else:
        decision = registry.promote(name, version, target, reason, expected, checked=True)
    failed = _tell("promote", name, version, target, expected, reason)
    warned = [f"{each.name}: {each.sentence}" for each in found if each.outcome == "warn"]
    return {"sentence": "; ".join([decision.trouble or decision.sentence, *warned[:1], *failed])}


def model_ask(store: Store, name: str, version: int, target: str, reason: str) -> dict[str, Any]:
    """Ask somebody else for it."""
    decision = store.registry.request(name, version, target, reason)
    failed = _tell("request", name, version, target, None, reason)
    return {"sentence": "; ".join([decision.sentence, *failed])}


def model_answer(store: Store, request: str, approve: bool, reason: str) -> dict[str, Any]:
    """Say yes or no to a request."""
    waiting = [each for each in store.registry.requests() if each.id == request]
    if not waiting:
        raise NotFound("The request is not open any more: somebody else answered it.")
    one = waiting[0]
    if approve:
        require_passed(store, one.name, one.version, one.target)
    decision = store.registry.answer(request, approve, reason, checked=True)
    failed = _tell("promote", one.name, one.version, one.target, None, reason) if approve else []
    return {"sentence": "; ".join([decision.sentence, *failed])}


def model_back(store: Store, name: str, to: int, reason: str, expected: int | None) -> dict[str, Any]:
    """Give Production back to a version, whose files are verified first."""
    decision = store.registry.rollback(name, "Production", to, reason, expected)
    failed = _tell("rollback", name, to, "Production", expected, reason)
    return {"sentence": "; ".join([decision.trouble or decision.sentence, *failed])}


def model_delete(store: Store, name: str, version: int) -> dict[str, Any]:
    """Delete a version that nothing points to."""
    return {"sentence": store.registry.delete_version(name, version).sentence}


def model_describe(store: Store, name: str, version: int, text: str) -> dict[str, Any]:
    """Describe a version (0: the model)."""
    return {"sentence": store.registry.describe(name, text, version).sentence}


def model_register(store: Store, uri: str, name: str) -> dict[str, Any]:
    """Register a model of a run, or any other that a URI names."""
    version = store.registry.register_from(uri, name)
    return {"sentence": f"Registered {name} v{version}", "version": version}


def model_folder(store: Store, name: str, version: int) -> dict[str, str]:
    """Where the files of a version lie. Raises NotFound."""
    folder = store.registry.folder_here(store.registry.version(name, version))
    return {"target": str(folder), "what": f"{name} v{version}"}


def model_folders(store: Store, run_id: str) -> list[str]:
    """URIs of the models among a run's artifacts."""
    runs = store.runs([run_id])
    folder = runs[0].artifacts if runs else None
    if folder is None:
        return []
    found = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("MLmodel"))
    return [f"runs:/{run_id}/{path}" for path in found]


def model_try(store: Store, name: str, version: int) -> dict[str, Any]:
    """Begin to ask the version for what it says to its example; the next answer of ``models`` after that has the result."""
    found = store.registry.version(name, version)
    folder = store.registry.folder_here(found)
    model = read_mlmodel(folder)
    key = str(folder)
    if not model.example:
        tried[key] = (False, "no input example is stored with the model")
        return {"sentence": "The model has no stored example"}
    if store.registry.away(found):
        tried[key] = (
            False,
            f"its files lie in an object store: `mltrack models test {name}/{version}` fetches them",
        )
        return {"sentence": f"The files of {name} v{version} lie in an object store"}
    if tried.get(key, ()) is not None:
        tried[key] = None

        def ask() -> None:
            try:
                answer, seconds, problems = try_example(folder, model.document)
                differs = f"; {'; '.join(problems[:2])}" if problems else ""
                tried[key] = (True, f"predicts, {seconds * 1000:.0f} ms, {len(answer):,} bytes{differs}")
            except MltrackError as error:
                tried[key] = (False, error.message)

        threading.Thread(target=ask, name="example", daemon=True).start()
    return {"sentence": f"Asking {name} v{version} for its example"}


def _tell(event: str, name: str, version: int, target: str, before: int | None, reason: str) -> list[str]:
    from mltrack.store.hooks import tell

    return tell(
        event, {"name": name, "version": version, "target": target, "previous": before, "reason": reason}
    )


CALLS = (
    model_version_page,
    model_history,
    model_diff,
    model_inbox,
    model_move,
    model_ask,
    model_answer,
    model_back,
    model_delete,
    model_describe,
    model_register,
    model_folder,
    model_folders,
    model_try,
)
