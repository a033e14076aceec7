"""What is recorded about a run beside what it logs: who, where, with which command, code and packages."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mltrack.store.client.artifacts import store_blob
from mltrack.store.client.journal import Journal
from mltrack.store.client.secrets import redact_command

if TYPE_CHECKING:
    from mltrack.store.client.run import ActiveRun

# Longer than any healthy git or package listing takes; a run's end waits no longer than this for them.
FACTS_SECONDS = 5.0


def start_facts(run: ActiveRun, host: ModuleType) -> dict[str, object]:
    """The cheap facts of the start record; nothing here starts a process or reads more than a few small files."""
    facts: dict[str, object] = {"user": host.user(), "command": _texts(redact_command(_command()))}
    try:
        facts["cwd"] = _text(os.getcwd())
    except OSError:
        facts["cwd"] = ""
    main = sys.modules.get("__main__")
    facts["script"] = _text(getattr(main, "__file__", None) or "")
    facts["python"] = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
    slurm = host.slurm_facts()
    if slurm:
        facts["slurm"] = slurm
    console = _capture_console(run)
    if console:
        facts["console"] = console
    return facts


def _command() -> list[str]:
    original = list(getattr(sys, "orig_argv", [])) or [sys.executable, *sys.argv]
    return [str(part) for part in original]


def _capture_console(run: ActiveRun) -> dict[str, object]:
    if os.environ.get("MLTRACK_CONSOLE") == "0":
        return {}
    from mltrack.store.client.console import capture

    captured = capture(run.folder, run.trouble)
    run.on_end.append(captured.stop)
    return dict(captured.facts)


def follow(run: ActiveRun, system_metrics: bool) -> None:
    """Start what goes on beside the training: slow facts in a thread, the sampler; both end with the run."""
    if os.environ.get("MLTRACK_FACTS") != "0":
        thread = threading.Thread(target=_slow_facts, args=(run,), name="mltrack-facts", daemon=True)
        thread.start()
        run.on_end.append(lambda: thread.join(FACTS_SECONDS))
    follow_machine(run, system_metrics)


def follow_machine(run: ActiveRun, system_metrics: bool) -> None:
    """Start the sampler, which ends with the run."""
    if system_metrics and os.environ.get("MLTRACK_SYSTEM_METRICS") != "0":
        _start_sampler(run)


def _slow_facts(run: ActiveRun) -> None:
    from mltrack.store.client import host
    from mltrack.store.client.git import capture_setting, snapshot

    facts: dict[str, object] = {}
    try:
        folder = Path(os.getcwd())
        # A folder without git is no trouble; whoever misses the code finds the reason with the run.
        said: list[str] = []
        code = snapshot(folder, capture_setting(folder, said.append), FACTS_SECONDS, said.append)
        if said:
            facts["code_note"] = "; ".join(said)
        if code is not None and code.commit is not None:
            patch = store_blob(code.patch, run.journal.root) if code.patch else None
            facts["git"] = {
                "commit": code.commit,
                "branch": code.branch,
                "remote": code.remote,
                "dirty": code.dirty,
                "patch": patch,
                "complete": code.complete,
                "left_out": _texts(list(code.left_out)),
                "root": code.root,
            }
        facts["packages"] = store_blob(host.packages().encode("utf-8", "replace"), run.journal.root)
        gpus = host.gpus()
        if gpus:
            facts["gpus"] = gpus
    except OSError as error:
        run.trouble(f"code and packages were not recorded ({error.strerror})")
    if facts:
        run.record("facts", v=facts)


def _start_sampler(run: ActiveRun) -> None:
    from mltrack.store.client import host
    from mltrack.store.client.journal import now_ms, points_line
    from mltrack.store.client.run import process_identity
    from mltrack.store.client.sampler import Sampler

    journal = Journal(
        run.journal.root, run.run_id, run.attempt, run.rank, "sampler", process_identity(), run.trouble
    )
    step = 0

    def emit(values: dict[str, float]) -> None:
        nonlocal step
        if values:
            journal.points().append(points_line(step, now_ms(), values))
            step += 1

    sampler = Sampler(emit, run.trouble, family=host.family())

    def stop() -> None:
        sampler.stop()
        if journal.points_file is not None:
            journal.meta("close", None, points=journal.points_file.size)
            journal.retry()
            journal.close()

    run.on_end.append(stop)
    sampler.start()


def _texts(parts: list[str]) -> list[str]:
    return [_text(part) for part in parts]


def _text(part: str) -> str:
    """Operating-system text as JSON can hold it: bytes that are not UTF-8 become visible escapes."""
    return os.fsencode(part).decode("utf-8", "backslashreplace")
