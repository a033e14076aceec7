"""A sweep: a parent run and its children, so many at a time; values that hold several become a grid."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from mltrack.projects.errors import ProjectError
from mltrack.projects.job import Job
from mltrack.projects.jobs import JobLock, create_job, new_state, read_job, write_state
from mltrack.projects.planned_job import redacted_value

MAX_CHILDREN = 1000
# How often ended children are looked for; their own supervisors do the rest.
LOOK_SECONDS = 0.2
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")


def expand(text: str) -> list[str]:
    """The values that ``1,2,3``, ``0..4`` or ``0..100..25`` stand for; one for anything else. ``\\,`` is a comma."""
    found = _RANGE.fullmatch(text)
    if found:
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if step < 1 or abs(last - first) // step >= MAX_CHILDREN:
            raise ProjectError(f"'{text}' stands for more than {MAX_CHILDREN} values.")
        sign = 1 if last >= first else -1
        return [str(value) for value in range(first, last + sign, sign * step)]
    return [part.replace("\\,", ",") for part in re.split(r"(?<!\\),", text)]


def grid(values: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination, the last name varying fastest. Raises ProjectError beyond MAX_CHILDREN."""
    count = 1
    for several in values.values():
        count *= len(several)
    if count > MAX_CHILDREN:
        raise ProjectError(f"The sweep has {count:,} combinations; more than {MAX_CHILDREN} are a mistake.")
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def swept_texts(combinations: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What varies in a grid as it is typed, ``1,2,3``, without secrets."""
    several: dict[str, dict[str, None]] = {}
    for one in combinations:
        for name, value in one.items():
            several.setdefault(name, {})[redacted_value(name, value).replace(",", "\\,")] = None
    return {name: ",".join(values) for name, values in several.items()}


def child_name(base: str, values: Mapping[str, str]) -> str:
    """A name that tells children apart: the values that vary, without secrets."""
    shown = {name: _short(redacted_value(name, value)) for name, value in values.items()}
    return " ".join([base, *(f"{name}={value}" for name, value in shown.items())])[:200]


def _short(value: str) -> str:
    try:
        number = Decimal(value)
    except ArithmeticError:
        return value[:40]
    return f"{float(number):g}" if number.is_finite() else value[:40]


def run_sweep(parent: Job, children: list[Job], at_once: int) -> None:
    """In the sweep's own process: make the parent's run, start the children, ``at_once`` of them at a time."""
    from mltrack.projects.detached import answer, become_quiet
    from mltrack.projects.supervise import Supervisor

    folder = create_job(parent)
    lock = JobLock(folder)
    lock.take()
    keeper = Supervisor(parent, folder)
    keeper.listen()
    keeper.begin()
    for child in children:
        write_state(create_job(child), new_state("queued", text="waits for its turn", sweep=parent.run_id))
    answer(run_id=parent.run_id, folder=str(folder), children=[child.run_id for child in children])
    become_quiet(folder)
    waiting, running = list(children), list[tuple[Job, subprocess.Popen[bytes]]]()
    while waiting or running:
        running = [(job, process) for job, process in running if process.poll() is None]
        while waiting and len(running) < at_once and not keeper.stopped:
            job = waiting.pop(0)
            if (Path(job.root) / "jobs" / job.run_id / "cancel").exists():
                _cancel(job)
                continue
            running.append((job, _start(job)))
        if keeper.stopped:
            while waiting:
                _cancel(waiting.pop(0))
            for _, process in running:
                process.terminate()
        keeper.tell(
            f"{len(children) - len(waiting) - len(running)} of {len(children)} ended, {len(running)} running"
        )
        time.sleep(LOOK_SECONDS)
    keeper.end_sweep([_ended_well(job) for job in children])


def _start(job: Job) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mltrack.projects.supervise", f"--{job.backend}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(job.to_json().encode() + b"\n")
    return process


def _cancel(job: Job) -> None:
    folder = Path(job.root) / "jobs" / job.run_id
    state = new_state(
        "ended", status="KILLED", reason="cancelled in the queue", ended_ms=time.time_ns() // 1_000_000
    )
    write_state(folder, state)


def _ended_well(job: Job) -> bool:
    found = read_job(Path(job.root) / "jobs" / job.run_id)
    return found is not None and found.state.get("status") == "FINISHED"
