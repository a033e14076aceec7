"""One run as the process that logs it sees it: journal, running summaries, heartbeat, end."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from time import monotonic, sleep, time_ns

from mltrack.store.client.journal import AppendFile, Journal, encode_number, now_ms, run_folder
from mltrack.store.client.series_state import SeriesState
from mltrack.store.client.trouble import Trouble
from mltrack.store.client.values import Refused, check_key, check_number, check_param, check_step, check_text

TYPE_CHECKING = False  # not typing's: the import must cost little
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

# Followers call a writer quiet after 75 s without a beat: five missed beats, so that one slow disk is not news.
BEAT_SECONDS = 15.0
SUMMARY_SECONDS = 60.0
# How long the end of a run waits for its remote store before it leaves the rest to the shipper.
SHIP_WAIT_SECONDS = 10.0
# One record stays far below the 64 MB that a reader takes for a line, also when every character is escaped.
RECORD_METRICS = 5000
RECORD_CHARACTERS = 2 << 20


class ActiveRun:
    """A run this process logs to. Made by ``mltrack.start_run``; usable as a context manager.

    Log methods never raise into a training loop: what cannot be stored exactly is refused with one line on stderr and
    a ``refused`` record that every reader counts and shows.
    """

    def __init__(
        self,
        root: Path,
        run_id: str,
        attempt: str,
        rank: int,
        role: str,
        identity: dict[str, object],
        name: str,
        experiment: str,
        next_steps: Mapping[str, int] | None = None,
        fallback: bool = True,
    ) -> None:
        self.run_id = run_id
        self.run_name = name
        self.experiment = experiment
        self.rank = rank
        self.role = role
        self.attempt = attempt
        self.ended = False
        self.pid = os.getpid()
        self.trouble = Trouble()
        self.leave: Callable[[BaseException | None], None] | None = (
            None  # what the end of a `with` block does
        )
        self.on_end: list[Callable[[], None]] = []
        self.signals: list[int] = []  # deadly signals that leave a mark in this run's folder
        self.ship: str | None = None  # the address of a remote store whose spool this run is written to
        self.sending = 0.0  # when the companion that sends artifacts on was last started
        self._identity = identity
        self._series: dict[str, SeriesState] = {}
        self._next_steps = dict(next_steps or {})
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._beat_thread: threading.Thread | None = None
        self._started = monotonic()
        self._fallback = fallback
        self.journal = Journal(root, run_id, attempt, rank, role, identity, self.trouble)
        self._points: AppendFile | None = None

    # -- what people know from MLflow

    @property
    def info(self) -> ActiveRun:
        """MLflow's ``run.info.run_id`` works here too."""
        return self

    @property
    def folder(self) -> Path:
        """The run's folder in the store (or in the spool of a remote store)."""
        return run_folder(self.journal.root, self.run_id)

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.leave is not None:
            self.leave(error)

    # -- points

    def log_metric(
        self, key: str, value: float, step: int | None = None, timestamp: int | None = None
    ) -> None:
        """Append one point. ``step`` defaults to counting from 0; ``timestamp`` is in ms, default now."""
        with self._lock:
            series = self._series.get(key) if type(key) is str else None
            # The fast path takes exactly a known key, a finite float and a plain step; all else is looked at first.
            if (
                series is None
                or type(value) is not float
                or value - value != 0.0
                or type(step) is not int
                or timestamp is not None
                or not -0x8000000000000000 <= step <= 0x7FFFFFFFFFFFFFFF
            ):
                self._log_carefully({key: value}, step, timestamp)
                return
            time_ms = time_ns() // 1_000_000
            line = f"[{step},{time_ms}{series.prefix}{value!r}]\n".encode()
            file = self._points
            assert file is not None
            if file.backlog or file.fd < 0:
                file.append(line)
            else:
                try:
                    written = os.write(file.fd, line)
                except OSError as error:
                    file.wait(line, 0, error)
                else:
                    file.size += written
                    if written != len(line):
                        file.wait(line, written, None)
            # SeriesState.add in line: a method call costs a third of the write itself.
            series.count += 1
            if step > series.last_step:
                series.last_step = step
                series.last_time = time_ms
                series.last = value
                series.next_step = step + 1
                if value < series.min:
                    series.min = value
                    series.min_step = step
                if value > series.max:
                    series.max = value
                    series.max_step = step
                return
            series.count -= 1
            series.add(step, time_ms, value)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, timestamp: int | None = None
    ) -> None:
        """Append one record with all values of one step."""
        with self._lock:
            if (
                type(step) is not int
                or timestamp is not None
                or not -0x8000000000000000 <= step <= 0x7FFFFFFFFFFFFFFF
            ):
                self._log_carefully(metrics, step, timestamp)
                return
            time_ms = time_ns() // 1_000_000
            known = self._series
            parts: list[str] = []
            taken: list[tuple[SeriesState, float]] = []
            if not isinstance(metrics, dict) or len(metrics) > RECORD_METRICS:
                self._log_carefully(metrics, step, timestamp)
                return
            for key, value in metrics.items():
                series = known.get(key) if type(key) is str else None
                if series is None or type(value) is not float or value - value != 0.0:
                    self._log_carefully(metrics, step, timestamp)
                    return
                parts.append(series.prefix)
                parts.append(repr(value))
                taken.append((series, value))
            if not parts:
                return
            file = self._points
            assert file is not None
            file.append(f"[{step},{time_ms}{''.join(parts)}]\n".encode())
            for series, value in taken:
                if step > series.last_step and value - value == 0.0:
                    series.count += 1
                    series.last_step = step
                    series.last_time = time_ms
                    series.last = value
                    series.next_step = step + 1
                    if value < series.min:
                        series.min = value
                        series.min_step = step
                    if value > series.max:
                        series.max = value
                        series.max_step = step
                else:
                    series.add(step, time_ms, value)

    def _log_carefully(self, metrics: Mapping[str, float], step: int | None, timestamp: int | None) -> None:
        """Any input: stores what can be stored exactly, refuses the rest by name. Several steps only when counting."""
        if self.ended:
            self._refuse(
                "metric",
                f"the run {self.run_name} has ended; resume it with start_run(run_id=...)",
                record=False,
            )
            return
        try:
            pairs = list(metrics.items())
        except AttributeError:
            self._refuse("metrics", f"log_metrics takes a dict, not {type(metrics).__name__}")
            return
        try:
            whole_step = None if step is None else check_step(step)
            time_ms = now_ms() if timestamp is None else check_step(timestamp)
        except Refused as error:
            self._refuse(", ".join(str(key) for key, _ in pairs)[:200], str(error))
            return
        by_step: dict[int, list[tuple[SeriesState, float]]] = {}
        for key, value in pairs:
            try:
                series = self._series.get(key) if isinstance(key, str) else None
                number = check_number(value)
                if series is None:
                    series = self._new_series(check_key(key))
                at = check_step(series.next_step) if whole_step is None else whole_step
            except Refused as error:
                self._refuse(f"metric {key!r}", str(error))
                continue
            by_step.setdefault(at, []).append((series, number))
        for at, every in by_step.items():
            for first in range(0, len(every), RECORD_METRICS):
                taken = every[first : first + RECORD_METRICS]
                text = "".join(series.prefix + encode_number(number) for series, number in taken)
                points = self._points if self._points is not None else self._open_points()
                points.append(f"[{at},{time_ms}{text}]\n".encode())
                for series, number in taken:
                    series.add(at, time_ms, number)

    def _new_series(self, key: str) -> SeriesState:
        import json

        series = SeriesState(key, f",{json.dumps(key)},", self._next_steps.get(key, 0))
        self._series[key] = series
        return series

    # -- everything else

    def open(self) -> None:
        """Create the run's folder and first file; in the spool when the store's folder cannot be written at all."""
        try:
            self.journal.open()
        except OSError as error:
            self._move_to_spool(error)
            self.journal.open()

    def record(self, op: str, **fields: object) -> None:
        """Append one meta record."""
        with self._lock:
            self.open()
            self.journal.meta(op, None, **fields)
            self._ensure_beat()

    def log_params(self, params: Mapping[str, object]) -> None:
        """Write-once settings of the run, stored as text."""
        self._texts("param", params)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Changeable labels of the run, stored as text."""
        self._texts("tags", tags)

    def delete_tag(self, key: str) -> None:
        """Remove a tag that was set before."""
        if self._writable("tag"):
            self.record("untag", k=[key])

    def progress(self, step: int, total: int | None = None) -> None:
        """How far the run is; every reader derives rate and remaining time from it."""
        if not self._writable("progress"):
            return
        try:
            fields: dict[str, object] = {"step": check_step(step)}
            if total is not None:
                fields["total"] = check_step(total)
        except Refused as error:
            self._refuse("progress", str(error))
            return
        self.record("progress", **fields)

    def _texts(self, op: str, values: Mapping[str, object]) -> None:
        if not self._writable(op):
            return
        try:
            pairs = list(values.items())
        except AttributeError:
            self._refuse(op, f"takes a dict, not {type(values).__name__}")
            return
        kept: dict[str, str] = {}
        size = 0
        for key, value in pairs:
            try:
                name, text = check_key(key), check_text(value)
            except Refused as error:
                self._refuse(f"{op} {key!r}", str(error))
                continue
            if op == "param":
                text = check_param(name, text, self.trouble)
            size += len(name) + len(text)
            if kept and size > RECORD_CHARACTERS:
                self.record(op, v=kept)
                kept, size = {}, len(name) + len(text)
            kept[name] = text
        if kept:
            self.record(op, v=kept)

    def _writable(self, what: str) -> bool:
        if self.ended:
            self._refuse(
                what, f"the run {self.run_name} has ended; resume it with start_run(run_id=...)", record=False
            )
        return not self.ended

    def _refuse(self, what: str, why: str, record: bool = True) -> None:
        self.trouble(f"{what} was not stored: {why}", about=f"{what.split(' ')[0]}|{why}")
        if record:
            shown = what.encode("utf-8", "backslashreplace").decode("utf-8")[:200]
            self.record(
                "refused", what=shown, why=why.encode("utf-8", "backslashreplace").decode("utf-8")[:300]
            )

    def refuse(self, what: str, why: str) -> None:
        """Say and record that something was not stored."""
        self._refuse(what, why)

    # -- files, beats, end

    def _open_points(self) -> AppendFile:
        try:
            self._points = self.journal.points()
        except OSError as error:
            self._move_to_spool(error)
            self._points = self.journal.points()
        self._ensure_beat()
        return self._points

    def _move_to_spool(self, error: OSError) -> None:
        """The store cannot be written at all (read-only, forbidden): go on in a spool and say where."""
        root = spool_root()
        self.trouble(
            f"the store {self.journal.root} cannot be written ({error.strerror}); this run is kept in {root}: "
            f"'mltrack sync {root}' brings it to the store",
            about="spool",
        )
        self.journal = Journal(
            root, self.run_id, self.attempt, self.rank, self.role, self._identity, self.trouble
        )

    def _ensure_beat(self) -> None:
        if self._beat_thread is None and not self.ended:
            self._beat_thread = threading.Thread(target=self._beat, name="mltrack-heartbeat", daemon=True)
            try:
                self._beat_thread.start()
            except RuntimeError:
                return  # no threads left, or the interpreter is ending: the run is then judged by its process alone

    def _beat(self) -> None:
        last_summary = monotonic()
        while not self._stop.wait(BEAT_SECONDS):
            self.journal.beat()
            with self._lock:
                self.journal.retry()
                if monotonic() - last_summary >= SUMMARY_SECONDS and not self.ended:
                    last_summary = monotonic()
                    self._summarize()

    def _summarize(self) -> None:
        changed = [series for series in self._series.values() if series.count != series.reported]
        if not changed or self._points is None:
            return
        for first in range(0, len(changed), RECORD_METRICS):
            part = changed[first : first + RECORD_METRICS]
            values = {series.key: [_quoted(field) for field in series.summary()] for series in part}
            for series in part:
                series.reported = series.count
            self.record("summary", upto=self._points.size, v=values)

    def finish(
        self, status: str, exit_code: int | None = None, why: Mapping[str, object] | None = None
    ) -> None:
        """Write the end of the run and close the journal. Returns within seconds, also on a full disk."""
        if self.ended:
            return
        for hook in self.on_end:
            try:
                hook()
            except OSError as error:  # a disk that died must not take the end of the run with it
                self.trouble(
                    f"{self.run_name} could not be tidied up ({os.strerror(error.errno or errno.EIO)})"
                )
        with self._lock:
            self._summarize()
            if self.role == "main":
                elapsed = int((monotonic() - self._started) * 1000)
                fields = {key: value for key, value in (why or {}).items() if value is not None}
                if exit_code is not None:
                    fields["exit"] = exit_code
                self.record("end", status=status, elapsed=elapsed, **fields)
            if self.journal.meta_file is not None or self.journal.points_file is not None:
                self.record("close", points=self._points.size if self._points is not None else 0)
            self.ended = True
            if self.ship is not None:
                self._wait_for_shipper()
            self._series = {}  # sends every later call through the careful path, which says that the run has ended
            self._stop.set()
            if not self.journal.retry():
                self._spool_rest()
            self.journal.close()

    def _wait_for_shipper(self) -> None:
        """A remote store: give the shipper a moment to send the end of the run, then leave it to it."""
        deadline = monotonic() + SHIP_WAIT_SECONDS
        marker = self.journal.marker
        while marker.exists() and monotonic() < deadline:
            sleep(0.05)
        if marker.exists():
            self.trouble(
                f"the store did not answer yet; {self.run_name} waits in {self.journal.root}, "
                "'mltrack ship' (already started) or 'mltrack sync' sends it"
            )

    def _spool_rest(self) -> None:
        try:
            root = spool_root()
            folder = self.journal.spool(root)
        except OSError as error:
            self.trouble(
                f"the last records of {self.run_name} could not be written anywhere ({error.strerror})"
            )
            return
        if folder is not None:
            self.trouble(
                f"the last records of {self.run_name} are in {root}: 'mltrack sync {root}' brings them to the store"
            )

    def after_fork(self) -> None:
        """In a forked child: the parent's files stay the parent's; the child opens its own with its first record."""
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._beat_thread = None
        self._points = None
        self.on_end = []
        if self.signals:
            import faulthandler

            for number in self.signals:  # a worker that is terminated must not say that the training was
                faulthandler.unregister(number)
            self.signals = []
        self.role = "fork"
        self.pid = os.getpid()
        journal = self.journal
        journal.forget()
        identity = dict(self._identity)
        identity.update(process_identity())
        self._identity = identity
        self.journal = Journal(
            journal.root, self.run_id, self.attempt, self.rank, "fork", identity, self.trouble
        )
        self._next_steps = {series.key: series.next_step for series in self._series.values()}
        self._series = {}


def process_identity() -> dict[str, object]:
    """Who writes: the fields of a journal's first line that prove whether this process still lives."""
    from mltrack.store.client.host import identity

    return dict(identity())


def spool_root() -> Path:
    """A folder this process can write for records its store does not take. Raises OSError when there is none."""
    import tempfile

    from mltrack.store.client.location import user_data_folder

    chosen = os.environ.get("MLTRACK_SPOOL")
    for candidate in ([Path(chosen)] if chosen else []) + [user_data_folder() / "spool" / "local"]:
        try:
            os.makedirs(candidate, mode=0o700, exist_ok=True)
        except OSError:
            continue
        if os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    return Path(tempfile.mkdtemp(prefix="mltrack-spool-"))


def _quoted(field: object) -> object:
    if isinstance(field, float) and field - field != 0.0:
        return "NaN" if field != field else "Infinity" if field > 0 else "-Infinity"
    return field
