"""The parent of one job: a detached process that outlives terminal and app, and writes down how the job goes and ends.

It is started with a job on its standard input (so that no secret is ever an argument or a file), makes the run, answers
with one line, and looks after the job until its end. A job whose supervisor was killed is taken up again with
``--attach FOLDER``.
"""

from __future__ import annotations

import codecs
import json
import signal
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from mltrack.projects.backends.base import Backend, Outcome, Report
from mltrack.projects.detached import answer, become_quiet, forget_ranks
from mltrack.projects.errors import LaunchError
from mltrack.projects.gpus import Lease
from mltrack.projects.inputs import download, remove
from mltrack.projects.job import Job, job_from
from mltrack.projects.jobs import JobLock, create_job, forget_old, new_state, read_job, write_state
from mltrack.projects.mlflow_bridge import MlflowBridge
from mltrack.store.client import log
from mltrack.store.client.console_log import ConsoleLog
from mltrack.store.client.run import ActiveRun
from mltrack.store.client.secrets import GIVEN, keep_out, redact_text
from mltrack.store.client.shipping import send_artifacts
from mltrack.store.errors import MltrackError

# How often where the output was read up to is written down, for a later supervisor.
NOTE_SECONDS = 1.0


def make_backend(job: Job) -> Backend:
    """The backend of a job; only the one that is needed is loaded."""
    if job.backend == "docker":
        from mltrack.projects.backends.docker import DockerBackend

        return DockerBackend(job)
    if job.backend == "venv":
        from mltrack.projects.backends.venv import VenvBackend

        return VenvBackend(job)
    from mltrack.projects.backends.local import LocalBackend

    return LocalBackend(job)


class Supervisor:
    """One job from its start, or from wherever another supervisor left it, to its end."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.folder = folder
        keep_out(job.environment.get(GIVEN, ""))
        self.backend = make_backend(job)
        self._state: dict[str, Any] = {}
        self._log: ConsoleLog | None = None
        self._run: ActiveRun | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._stop_asked = ""
        self._noting: threading.Timer | None = None
        self._writing = threading.Lock()
        self._unended = ""  # the output's last line has no end yet
        self._lease = Lease()
        self._bridge = MlflowBridge()
        self._taken_gpus = False

    # -- from start to end

    def begin(self) -> None:
        """Make the run. Everything that can go wrong from here on is the run's end, with its reason."""
        job = self.job
        log.set_store(job.store)
        self._run = run = log.start_run(
            run_id=job.run_id,
            run_name=job.run_name,
            experiment=job.experiment,
            tags=job.tags,
            parent_run_id=job.parent,
            system_metrics=False,
        )
        self._record(run)
        run.log_params(job.params)
        self._log = ConsoleLog(run.folder / "console.log", run.trouble)
        self._enter("preparing", text="preparing")

    def take_up(self, handle: dict[str, Any], state: dict[str, Any]) -> bool:
        """Go on with a job that another supervisor started; False when there is nothing to go on with."""
        if not self.backend.attach({**handle, "taken": state.get("taken", 0)}, self._report()):
            return False
        self.resume()
        self._state = {**state, **new_state("running")}
        write_state(self.folder, self._state)
        return True

    def resume(self, phase: str = "", **more: object) -> None:
        """A further start of the run: it and its log go on where they are. ``phase`` is written down when given."""
        job = self.job
        log.set_store(job.store)
        self._run = run = log.start_run(run_id=job.run_id, experiment=job.experiment, system_metrics=False)
        self._record(run)
        self._log = ConsoleLog(run.folder / "console.log", run.trouble)
        if phase:
            self._enter(phase, **more)

    def hand_over(self, text: str, status: str = "SCHEDULED") -> None:
        """The job goes on (or begins) under other eyes: this start of the run ends, the run does not."""
        run = self._run
        assert run is not None
        if self._log is not None:
            self._log.close()
        run.finish(status, None, {"reason": text})
        log.leave_run(run, None)
        self._enter("queued", text=text)

    def take_gpus(self, wait: bool) -> bool:
        """Hold the GPUs of the job as long as this process lives; False when stopped while waiting for them."""
        job = self.job
        if job.gpu in ("", "none"):
            return True
        from mltrack.projects.gpus import take_gpus

        uuids = take_gpus(job.gpu, self._lease, wait, lambda: bool(self._stop_asked))
        if uuids is None:
            return False
        if job.backend == "docker":
            job.docker["gpus"] = uuids
        else:
            job.environment["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
            environment = getattr(self.backend, "environment", None)
            if isinstance(environment, dict):
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
        self._taken_gpus = True
        return True

    def cancelled(self) -> None:
        """The job was taken out of the queue before its run began."""
        self._enter("ended", text="", status="KILLED", reason="cancelled in the queue", ended_ms=_now())

    def _record(self, run: ActiveRun) -> None:
        run.record("facts", v={**self.job.facts, "command": self.job.shown, "script": ""})

    def work(self) -> None:
        """Prepare, start, follow, end."""
        report = self._report()
        outcome: Outcome
        try:
            if not self._taken_gpus:
                self.take_gpus(wait=False)
            for url, place in self.job.inputs:
                download(url, Path(place), self._say, lambda: bool(self._stop_asked))
            facts = self.backend.prepare(report)
            run = self._run
            assert run is not None
            if facts:
                run.record("facts", v={"environment": facts})
                if "image" in facts:
                    tags = {
                        "mlflow.docker.image.uri": facts["image"],
                        "mlflow.docker.image.id": facts["image_id"],
                    }
                    run.set_tags(tags)
            if self._stop_asked:
                outcome = Outcome(143)
            else:
                if self.job.mlflow:
                    environment = getattr(self.backend, "environment", self.job.environment)
                    problem = self._bridge.open(self.job, environment)
                    if problem:
                        self._say(problem)
                self._say("$ " + " ".join(self.job.shown))
                self.backend.start(report)
                self._enter("running", text="")
                if self._stop_asked:
                    self._stop_backend(self._stop_asked == "kill")
                outcome = self.backend.follow(report)
        except Exception as error:  # noqa: BLE001  # the border: whatever went wrong, the run gets its end
            outcome = self._failed(error)
        self.end(outcome)

    def follow_only(self) -> None:
        """Follow a job that was taken up."""
        try:
            outcome = self.backend.follow(self._report())
        except Exception as error:  # noqa: BLE001  # the same border
            outcome = self._failed(error)
        self.end(outcome)

    def _failed(self, error: BaseException) -> Outcome:
        reason = redact_text(
            error.message if isinstance(error, MltrackError) else str(error) or type(error).__name__
        )
        if self._stop_asked:
            return Outcome(143)
        self._say(reason)
        return Outcome(127 if reason.endswith(("command not found", "not found in the image")) else 1, reason)

    def end(self, outcome: Outcome) -> None:
        """Write the end of the run and of the job. The container is removed before anybody is told."""
        if self._noting is not None:
            self._noting.cancel()
        self.backend.close()
        for _, place in self.job.inputs:
            remove(Path(place))
        self._bridge.close()
        logged = self._log
        last: tuple[str, ...] = ()
        if logged is not None:
            logged.write(self._decode(b"", True), "stdout")
            last = logged.last_lines()
            logged.close()
        code, name = outcome.exit_code, outcome.signal
        status, reason = self.verdict(outcome, last)
        run = self._run
        if run is not None:
            if _logged_itself(run):
                # The job's own start of the run is newer than ours; its exit code counts only in a start newer still.
                log.end_run()
                run = log.start_run(run_id=run.run_id, experiment=run.experiment, system_metrics=False)
                self._record(run)
            why: dict[str, object] = {"reason": redact_text(reason)[:300]} if reason else {}
            if name:
                why["signal"] = name
            run.finish(status, code, why)
            # A companion that the job started in its container ended with that.
            if run.ship is None and (run.journal.root / "artifacts.toml").exists():
                send_artifacts(run)
            log.leave_run(run, None)
        if status == "SCHEDULED":
            self._enter("queued", text=redact_text(reason)[:300])
            return
        self._enter(
            "ended", text="", status=status, exit_code=code, reason=redact_text(reason)[:300], ended_ms=_now()
        )

    def verdict(self, outcome: Outcome, last: tuple[str, ...]) -> tuple[str, str]:
        """(status, reason) of the end; SCHEDULED when the job will start again. ``last``: the output's last lines."""
        code, name = outcome.exit_code, outcome.signal
        if outcome.status:
            return outcome.status, outcome.reason
        if self._stop_asked:
            return "KILLED", "stopped by its owner"
        if code == 0:
            return "FINISHED", ""
        status = "KILLED" if name and not outcome.out_of_memory else "FAILED"
        return status, outcome.reason or (name and f"signal {name}") or (
            last[-1] if last else f"exit code {code}"
        )

    # -- a sweep's parent has no process of its own

    @property
    def stopped(self) -> bool:
        """Whether somebody asked for the end."""
        return bool(self._stop_asked)

    def tell(self, text: str) -> None:
        """How far the sweep is; written when it changed."""
        if self._state.get("text") != text:
            self._enter("running", text=text)
            self._say(text)

    def say(self, lines: Iterable[str]) -> None:
        """Lines for the run's log that are not the job's own."""
        for line in lines:
            self._say(line)

    def end_sweep(self, ended_well: list[bool]) -> None:
        """The end of the parent, by how its children ended."""
        bad = ended_well.count(False)
        reason = f"{bad} of {len(ended_well)} did not finish well" if bad else ""
        self.end(Outcome(1 if bad else 0, reason))

    # -- what it tells

    def _report(self) -> Report:
        return Report(self._say, self._output, self._step, self._handle)

    def _say(self, line: str) -> None:
        self._write(("\n" if self._unended else "") + f"[mltrack] {line}\n")
        if self._state.get("phase") == "preparing":
            self._update(text=redact_text(line)[:200])

    def _step(self, number: int, steps: int, what: str) -> None:
        self._update(step=number, steps=steps, text=redact_text(what)[:200])

    def _output(self, piece: bytes) -> None:
        self._write(self._decode(piece))
        # Soon, not now: once a second, and also when nothing more is printed.
        if self._noting is None and getattr(self.backend, "taken", None) is not None:
            self._noting = threading.Timer(NOTE_SECONDS, self._note)
            self._noting.daemon = True
            self._noting.start()

    def _note(self) -> None:
        self._noting = None
        self._update(taken=getattr(self.backend, "taken", None))

    def _write(self, text: str) -> None:
        if self._log is not None and text:
            self._unended = "" if text.endswith("\n") else text[-1:]
            self._log.write(text, "stdout")

    def _handle(self, handle: dict[str, Any]) -> None:
        self._update(handle=handle)

    def _enter(self, phase: str, **more: object) -> None:
        self._update(**new_state(phase), **more)

    def _update(self, **more: object) -> None:
        with self._writing:
            self._state = {**self._state, **more}
            write_state(self.folder, self._state)

    # -- being stopped

    def listen(self) -> None:
        """SIGTERM and SIGINT ask the job to end, SIGQUIT kills it; a hang-up is nothing to us."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        kill = number == signal.SIGQUIT
        self._stop_asked = "kill" if kill else "stop"
        threading.Thread(target=self._stop_backend, args=(kill,), daemon=True).start()

    def _stop_backend(self, kill: bool) -> None:
        try:
            self.backend.stop(kill)
        except (MltrackError, OSError) as error:
            self._say(f"the job could not be stopped: {redact_text(str(error))}")


def _logged_itself(run: ActiveRun) -> bool:
    """Whether the job started the run again, as a script that imports mltrack does."""
    own = run.journal.meta_file
    mine = own.path.name if own is not None else ""
    newest = ""
    for path in run.folder.glob("meta.*.jsonl"):
        if path.name == mine:
            continue
        try:
            with open(path, "rb") as file:
                header = json.loads(file.readline(65536))
            if header.get("role") == "main":
                newest = max(newest, str(header.get("attempt", "")))
        except (OSError, ValueError, AttributeError):
            continue  # a damaged neighbour is not ours to judge
    return newest > run.attempt


def _now() -> int:
    return time.time_ns() // 1_000_000


def supervise(job: Job) -> None:
    """Look after a new job; answers on standard output when its run is there."""
    folder = create_job(job)
    lock = JobLock(folder)
    lock.take()
    supervisor = Supervisor(job, folder)
    supervisor.listen()
    if job.waits:
        # The run begins when the waiting is over: until then there is nothing to record but the wish.
        write_state(folder, new_state("queued", text=f"waits for GPUs: {job.gpu}"))
        answer(run_id=job.run_id, folder=str(folder))
        become_quiet(folder)
        if not supervisor.take_gpus(wait=True):
            supervisor.cancelled()
            return
        supervisor.begin()
    else:
        supervisor.begin()
        answer(run_id=job.run_id, folder=str(folder))
        become_quiet(folder)
    supervisor.work()
    forget_old(job.root)


def take_up(folder: Path) -> None:
    """Look after a job whose supervisor is gone; its end is recorded even when nothing of it is left."""
    found = read_job(folder)
    if found is None or found.ended or not found.own:
        return
    lock = JobLock(folder)
    if not lock.take():
        return
    become_quiet(folder)
    supervisor = Supervisor(found.job, folder)
    supervisor.listen()
    handle = found.state.get("handle")
    try:
        alive = isinstance(handle, dict) and supervisor.take_up(handle, found.state)
    except LaunchError:
        return  # the engine does not answer now; whoever asks next tries again
    if alive:
        supervisor.follow_only()
        return
    reason = "its supervisor was killed, and nothing of the job is left"
    supervisor._state = found.state
    if found.phase != "queued":
        log.set_store(found.job.store)
        supervisor._run = log.start_run(
            run_id=found.job.run_id, experiment=found.job.experiment, system_metrics=False
        )
        supervisor._record(supervisor._run)
    supervisor.end(Outcome(None, reason))


_NEEDED = (
    "mltrack.store.client.facts mltrack.store.client.names mltrack.store.client.secrets mltrack.store.client.host "
    "mltrack.store.client.artifacts hashlib tarfile"
).split()


def warm_up(backend: str) -> None:
    """Load what the job will need, and find the engine, while the person still looks at the plan."""
    import importlib

    for name in _NEEDED:
        importlib.import_module(name)
    if backend != "docker":
        return
    from mltrack.projects.backends import docker
    from mltrack.projects.backends.engine import connect

    try:
        docker.ready_engine = connect()
    except LaunchError:
        return  # the job will say so, if it wants an engine at all


def main() -> None:
    """``python -P -m mltrack.projects.supervise [--attach FOLDER]``."""
    forget_ranks()
    if sys.argv[1:2] == ["--attach"]:
        take_up(Path(sys.argv[2]))
        return
    if len(sys.argv) > 1:
        warm_up(sys.argv[1].removeprefix("--"))
    line = sys.stdin.readline()
    if not line.strip():
        return  # whoever prepared us decided otherwise
    try:
        given = json.loads(line)
        parent = job_from(given["parent"] if "children" in given else given)
        children = [job_from(child) for child in given.get("children", ())]
        if parent.slurm:
            from mltrack.projects.backends.slurm import submit

            submit(parent, children, int(given.get("at_once", 0)))
        elif children:
            from mltrack.projects.sweep import run_sweep

            run_sweep(parent, children, int(given["at_once"]) or 1)
        else:
            supervise(parent)
    except (MltrackError, OSError, ValueError) as error:
        answer(error=redact_text(getattr(error, "message", str(error))))


if __name__ == "__main__":
    main()
