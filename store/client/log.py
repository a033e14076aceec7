"""The logging API behind ``import mltrack``: what people know from MLflow, over journals.

Only this module holds process-wide state: the stack of active runs, the chosen store and experiment.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path

from mltrack.store.client.journal import new_attempt, now_ms, open_file, random_hex, run_folder, share_mode
from mltrack.store.client.run import ActiveRun, process_identity
from mltrack.store.client.values import Refused, check_key, check_step, check_text

# Not typing's: importing a training script must cost little, and type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, NoReturn

    from mltrack.store.client.location import StoreChoice

_stack: list[ActiveRun] = []
_lock = threading.RLock()
_store: str | None = None
_experiment: str | None = None
_launched = 0  # how many runs this process started under the identity of its launcher
_hooked = False
_failure: BaseException | None = None
_leaving: tuple[SystemExit, int] | None = None  # the last sys.exit() and how much had been logged by then


class UsageError(RuntimeError):
    """The API was called in a way that cannot mean anything; the message says what to call instead."""


def set_store(where: str | os.PathLike[str] | None) -> None:
    """Log to this store from the next run on: a folder or a URL; None returns to the usual order."""
    global _store
    _store = None if where is None else os.fspath(where)


def chosen_store() -> StoreChoice:
    """The store the next run goes to."""
    from mltrack.store.client.location import choose_store

    return choose_store(_store)


def set_experiment(name: str) -> str:
    """Runs started from now on belong to this experiment (made when it does not exist). Returns the name."""
    global _experiment
    try:
        _experiment = check_key(name)
    except Refused as error:
        raise UsageError(f"set_experiment: {error}") from None
    return _experiment


def start_run(
    run_id: str | None = None,
    run_name: str | None = None,
    *,
    experiment: str | None = None,
    key: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    description: str | None = None,
    total_steps: int | None = None,
    name: str | None = None,
    system_metrics: bool = True,
) -> ActiveRun:
    """Start a run, or resume one by ``run_id`` or by ``key`` (any text that names it within its experiment).

    Under torchrun, Slurm, MPI or Lightning every rank may call this: they share one run, which only rank 0 creates and ends.
    Raises UsageError when a run is active and ``nested`` is not asked for, or the id is malformed.
    """
    global _launched
    with _lock:
        if _stack and not nested:
            raise UsageError(
                f"The run {_stack[-1].run_name} is active. End it with mltrack.end_run(), or pass nested=True for a child run."
            )
        from mltrack.store.client import host
        from mltrack.store.client.names import run_name as random_name

        ranks = host.ranks()
        choice = chosen_store()
        experiment_name = experiment or _experiment or os.environ.get("MLTRACK_EXPERIMENT") or "Default"
        resume = run_id or (os.environ.get("MLTRACK_RUN_ID") if not _stack else None)
        if resume is None and key is not None:
            resume = derived_id("key", experiment_name, key)
        if resume is None and ranks.source == "lightning" and ranks.rank:
            resume = host.told_by_launcher(_launched)
        if resume is None and ranks.world_size > 1:
            resume = derived_id("launch", host.launch_identity(), str(_launched))
        chosen_id = _valid_id(resume) if resume else random_hex(32)
        if ranks.rank == 0:
            host.tell_children(_launched, chosen_id)
        _launched += 1
        identity = process_identity()
        folder = run_folder(choice.root, chosen_id)
        existed = folder.is_dir()
        started = now_ms()
        attempt = new_attempt(folder, started) if existed else f"{started:013d}-{random_hex(6)}"
        main = ranks.rank == 0
        shown_name = run_name or name or random_name()
        run = ActiveRun(
            choice.root,
            chosen_id,
            attempt,
            ranks.rank,
            "main" if main else "rank",
            identity,
            shown_name,
            experiment_name,
            next_steps=_counted(folder, ranks.rank) if existed else None,
        )
        run.leave = lambda error: leave_run(run, error)
        parent = parent_run_id or (_stack[-1].run_id if _stack and nested else None)
        if main:
            from mltrack.store.client.facts import start_facts

            run.open()  # what follows lies in the run's folder, which may be one of the spool
            fields: dict[str, object] = {
                "experiment": experiment_name,
                "resumed": existed,
                **start_facts(run, host),
            }
            if run_name or name or not existed:
                fields["name"] = shown_name
            fields.update(
                {field: value for field, value in (("parent", parent), ("key", key)) if value is not None}
            )
            wrong: list[tuple[str, str]] = []
            for field, what, value, check in (
                ("total", "total_steps", total_steps, check_step),
                ("note", "description", description, lambda text: check_text(_whole(str(text)))),
            ):
                try:
                    fields.update({field: check(value)} if value is not None else {})
                except Refused as error:
                    wrong.append((what, str(error)))
            run.record("start", **fields)
            for what, why in wrong:
                run.refuse(what, why)
            if tags:
                run.set_tags(tags)
            _watch_signals(run)
        _hook_process()
        _stack.append(run)
    if main:
        from mltrack.store.client.facts import follow

        follow(run, system_metrics)
        if choice.is_remote:
            from mltrack.store.client.shipping import start_shipper

            run.ship = choice.url
            start_shipper(choice.url, choice.root, run.trouble)
    elif ranks.local_rank == 0:
        from mltrack.store.client.facts import follow_machine

        follow_machine(run, system_metrics)  # the first of its node: nobody else sees what that machine does
    return run


def _counted(folder: Path, rank: int) -> dict[str, int]:
    from mltrack.store.client.counting import counted_steps

    return counted_steps(folder, rank)


def _watch_signals(run: ActiveRun) -> None:
    """Let a deadly signal leave its mark without changing what it does: the interpreter's own C handler writes a traceback
    into a file and then lets the signal act, also while the program is stuck in native code. Signals somebody handles or
    ignores are left alone."""
    import faulthandler
    import signal

    if not hasattr(faulthandler, "register"):
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_DFL:
            continue
        path = run.folder / f"signal.{run.journal.jid}.{int(number)}"
        try:
            # Must stay open as long as the handler may write to it.
            fd = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, share_mode(run.folder))
            file = open(fd, "wb", buffering=0)
        except OSError:
            continue
        faulthandler.register(number, file=file, all_threads=False, chain=True)

        def unwatch(number: int = number, path: Path = path, file: Any = file) -> None:
            faulthandler.unregister(number)
            file.close()
            path.unlink(missing_ok=True)

        run.on_end.append(unwatch)
        run.signals.append(int(number))


def derived_id(*parts: str) -> str:
    """A run id computed from texts, the same in every process."""
    import hashlib

    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _valid_id(run_id: str) -> str:
    text = str(run_id).replace("-", "").lower()
    if len(text) != 32 or any(digit not in "0123456789abcdef" for digit in text):
        raise UsageError(
            f"A run id has 32 hexadecimal digits; {run_id!r} has not. To name a run yourself use key=… or run_name=…."
        )
    return text


def end_run(status: str = "FINISHED") -> None:
    """End the active run. ``status``: FINISHED, FAILED or KILLED."""
    if status not in ("FINISHED", "FAILED", "KILLED"):
        raise UsageError(f"A run ends FINISHED, FAILED or KILLED, not {status!r}.")
    with _lock:
        if _stack:
            _stack.pop().finish(status)


def leave_run(run: ActiveRun, error: BaseException | None) -> None:
    """End ``run`` (and children left open in it) with the outcome of its ``with`` block."""
    with _lock:
        while run in _stack:
            _stack.pop().finish(*_outcome(error))
        if not run.ended:
            run.finish(*_outcome(error))


def _outcome(error: BaseException | None) -> tuple[str, int | None, dict[str, object]]:
    if error is None:
        return "FINISHED", 0, {}
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
        return ("FINISHED" if code == 0 else "FAILED"), code, {}
    import traceback

    from mltrack.store.client.secrets import redact_text

    # What could not be reached is often named with its password. Redacted before it is cut: half a token is not known as one.
    text = _whole(redact_text("".join(traceback.format_exception(error)))[-65536:])
    reason = _whole(redact_text(f"{type(error).__name__}: {error}"))[:500]
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", 130, {"signal": 2, "reason": "KeyboardInterrupt", "traceback": text}
    return "FAILED", 1, {"reason": reason, "traceback": text}


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def active_run() -> ActiveRun | None:
    """The run that log calls go to, or None."""
    return _stack[-1] if _stack else None


def _run() -> ActiveRun:
    # As in MLflow: logging without a run starts one.
    return _stack[-1] if _stack else start_run()


def log_metric(key: str, value: float, step: int | None = None, timestamp: int | None = None) -> None:
    """Append one point: written to disk when this returns. ``step`` defaults to counting; ``timestamp`` is in ms."""
    (_stack[-1] if _stack else start_run()).log_metric(key, value, step, timestamp)


def log_metrics(metrics: Mapping[str, float], step: int | None = None, timestamp: int | None = None) -> None:
    """Append the values of one step as one record."""
    (_stack[-1] if _stack else start_run()).log_metrics(metrics, step, timestamp)


def log_param(key: str, value: object) -> None:
    """A setting of the run, stored as text, once: a different second value is shown as a conflict. Of what looks like a
    password or a token ``***`` is stored, and a line says so."""
    _run().log_params({key: value})


def log_params(params: Mapping[str, object]) -> None:
    """Settings of the run, stored as text."""
    _run().log_params(params)


def set_tag(key: str, value: object) -> None:
    """A label of the run; the latest value counts."""
    _run().set_tags({key: value})


def set_tags(tags: Mapping[str, object]) -> None:
    """Labels of the run."""
    _run().set_tags(tags)


def delete_tag(key: str) -> None:
    """Remove a label."""
    _run().delete_tag(key)


def set_note(text: str) -> None:
    """The run's description."""
    run = _run()
    try:
        run.record("note", v=check_text(text))
    except Refused as error:
        run.refuse("note", str(error))


def progress(step: int, total: int | None = None) -> None:
    """How far the run is, for rate and remaining time on every screen."""
    _run().progress(step, total)


def _store_artifact(run: ActiveRun, put: Any) -> None:
    """Run ``put(root, folder)`` and record its result; a refusal is said and recorded, never raised."""
    try:
        stored = put(run.journal.root, run.folder / "artifacts")
    except Refused as error:
        run.refuse("artifact", str(error))
        return
    run.record("artifact", path=stored.path, size=stored.size, sha256=stored.sha256, how=stored.how)
    if run.ship is None and (run.journal.root / "artifacts.toml").exists():
        from mltrack.store.client.shipping import send_artifacts

        send_artifacts(run)


def log_artifact(local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
    """Keep a file with the run, below ``artifact_path``. Visible only when whole; a later change of the file changes nothing."""
    from mltrack.store.client.artifacts import store_file

    source = Path(local_path)
    if source.is_dir():
        log_artifacts(source, artifact_path or source.name)
        return
    target = f"{artifact_path}/{source.name}" if artifact_path else source.name
    _store_artifact(_run(), lambda root, folder: store_file(source, root, folder, target))


def log_artifacts(local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
    """Keep all regular files below a folder with the run."""
    from mltrack.store.client.artifacts import regular_files, store_file

    run = _run()
    source = Path(local_dir)
    if not source.is_dir():
        run.refuse("artifacts", f"{str(source)!r} is not a folder")
        return
    for path, relative in regular_files(source):
        target = f"{artifact_path}/{relative}" if artifact_path else relative

        def put(root: Path, folder: Path, path: Path = path, target: str = target) -> object:
            return store_file(path, root, folder, target)

        _store_artifact(run, put)


def _log_bytes(content: Any, artifact_file: str) -> None:
    from mltrack.store.client.artifacts import store_bytes

    run = _run()

    def put(root: Path, folder: Path) -> object:
        try:
            body = content()
        except Refused:
            raise
        except (TypeError, ValueError, AttributeError, KeyError, OSError) as error:
            raise Refused(f"{artifact_file!r} could not be made ({type(error).__name__}: {error})") from None
        return store_bytes(body, root, folder, artifact_file)

    _store_artifact(run, put)


def log_text(text: str, artifact_file: str) -> None:
    """Keep a text as a UTF-8 file with the run."""
    _log_bytes(lambda: text.encode("utf-8"), artifact_file)


def log_dict(dictionary: Any, artifact_file: str) -> None:
    """Keep a dict or list as JSON (or YAML text when the name ends in .yaml or .yml: JSON is YAML) with the run."""
    import json

    _log_bytes(
        lambda: json.dumps(dictionary, indent=2, ensure_ascii=False, default=str).encode("utf-8"),
        artifact_file,
    )


def log_image(image: Any, artifact_file: str | None = None, *, key: str | None = None, step: int = 0) -> None:
    """Keep an image: a PIL image or an array (height, width[, 1|3|4]). With ``key`` and ``step`` it is one of a series."""
    from mltrack.store.client.media import image_bytes

    target = artifact_file or f"images/{(key or 'image').replace('/', '_')}/{step:09d}.png"
    _log_bytes(lambda: image_bytes(image), target)


def log_figure(figure: Any, artifact_file: str) -> None:
    """Keep a matplotlib or plotly figure in the format of the name's ending."""
    from mltrack.store.client.media import figure_bytes

    _log_bytes(lambda: figure_bytes(figure, artifact_file), artifact_file)


def log_table(data: Any, artifact_file: str) -> None:
    """Keep a table (dict of columns, list of dicts, DataFrame) as JSON with "columns" and "data"."""
    from mltrack.store.client.media import table_bytes

    _log_bytes(lambda: table_bytes(data), artifact_file)


def log_input(
    path: str | os.PathLike[str], name: str | None = None, *, context: str = "", digest: str = "fast"
) -> None:
    """Record the data a run reads: path, size and digest. ``digest``: "fast" (size and samples) or "full" (every byte)."""
    from mltrack.store.client.data import describe_input

    run = _run()
    try:
        fields = describe_input(Path(path), run.journal.root, digest)
    except Refused as error:
        run.refuse("input", str(error))
        return
    run.record("input", name=name or Path(path).name, context=context, **fields)


# -- the end of the process


def _hook_process() -> None:
    global _hooked
    if _hooked:
        return
    _hooked = True
    atexit.register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        global _failure
        _failure = error
        previous(kind, error, trace)

    sys.excepthook = excepthook
    leave = sys.exit

    def exit(status: object = None, /) -> NoReturn:
        # No hook is told of a SystemExit that ends the program, and its code is nowhere to be seen afterwards.
        global _leaving
        _leaving = (SystemExit(status), _logged())
        leave(status)  # type: ignore[arg-type]  # whatever the caller gave, as it would have been without us

    sys.exit = exit


def _logged() -> int:
    """How many bytes this process has written for its runs."""
    files = [file for run in _stack for file in (run.journal.meta_file, run.journal.points_file)]
    return sum(file.size for file in files if file is not None)


def _at_exit() -> None:
    global _failure
    with _lock:
        # Somebody may have caught that SystemExit: a program that logged on did not end by it.
        if _failure is None and _leaving is not None and _leaving[1] == _logged():
            _failure = _leaving[0]
        while _stack:
            run = _stack.pop()
            if run.role == "main" and run.pid == os.getpid():
                run.finish(*_outcome(_failure))
            else:
                run.finish("FINISHED")
    if isinstance(_failure, KeyboardInterrupt):
        # Python dies of the signal itself when an interrupt ends the program, so that shells and launchers see it, unless
        # code that was compiled from text ran since (importing traceback does that). This makes it remember.
        try:
            exec("raise KeyboardInterrupt")
        except KeyboardInterrupt:
            pass


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for run in _stack:
        run.after_fork()
