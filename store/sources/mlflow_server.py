"""A running MLflow server, followed through its REST interface (MLflow's, or ours).

A thread asks; ``scan`` and ``read`` only hand on what has arrived, so that a slow or absent server never holds up whoever folds.
Asked are what runs and what is newest every ten seconds, everything every five minutes. With a run comes the newest point of
each metric; a whole history is fetched when somebody looks at it (``want``) and kept.
"""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson

from mltrack.store.client.secrets import redact_url
from mltrack.store.sources.base import Catalogue, Found, ModelRow, Piece, Reader, SourcePoints
from mltrack.store.sources.mlflow_files import ServerFiles, run_address
from mltrack.store.sources.mlflow_http import MlflowClient, ServerRefused
from mltrack.store.sources.mlflow_run import FIELD_TAGS, RunFacts, milliseconds, mlflow_run_id

POLL_SECONDS = 10.0
ALL_SECONDS = 300.0
# What somebody looked at this recently is fetched again while its run goes on.
WANTED_SECONDS = 60.0
# How long the first look waits for the first answer: a command that lists runs should have some.
FIRST_SECONDS = 3.0
_PAGE, _NEWEST, _HISTORY = 1000, 200, 25_000
_POINTS = 20_000
_LIVE = ("RUNNING", "SCHEDULED")
_History = tuple[str, list[int], list[int], list[float]]


@dataclass
class _Wanted:
    asked: float
    fetched: str = ""
    at: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


class _Poller:
    """The thread, and what it has learnt. Holds no reference to the reader, so that the reader's end is its end."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self.lock = threading.Lock()
        self.runs: dict[str, tuple[str, dict[str, Any]]] = {}
        self.arrived: deque[str] = deque()
        self.histories: dict[str, list[_History]] = {}
        self.experiments: dict[str, tuple[str, bool, dict[str, str]]] = {}
        self.catalogue: Catalogue | None = None
        self.wanted: dict[tuple[str, str], _Wanted] = {}
        self.problem: OSError | None = None
        self.asked = threading.Event()
        self.looked = threading.Event()
        self.stop = threading.Event()
        self.wake = threading.Event()
        self.changed: list[tuple[bool, threading.Event]] = []
        self._all_at = float("-inf")

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._look()
                self.problem = None
            except OSError as error:
                self.problem = error
            self.asked.set()
            self.looked.set()
            until = time.monotonic() + POLL_SECONDS
            while not self.stop.is_set():
                try:
                    self._look_at_changed()
                    self._fetch_wanted()
                except OSError as error:
                    self.problem = error
                self.wake.wait(max(0.0, until - time.monotonic()))
                if self.wake.is_set():
                    self.wake.clear()
                    continue
                break

    def look_again(self, runs: bool) -> threading.Event:
        """Something was just changed there. What is returned is set when it was looked at, in vain or not."""
        done = threading.Event()
        with self.lock:
            self.changed.append((runs, done))
        self.wake.set()
        return done

    def _look_at_changed(self) -> None:
        with self.lock:
            changed, self.changed = self.changed, []
        try:
            if any(runs for runs, _ in changed):
                self._all_at = float("-inf")
                self._look()
            elif changed:
                self.catalogue = self._read_catalogue()
        finally:
            for _, done in changed:
                done.set()

    def _look(self) -> None:
        client = self.client
        every = time.monotonic() - self._all_at > ALL_SECONDS
        self.experiments = {
            str(row["experiment_id"]): (
                str(row.get("name", "")),
                row.get("lifecycle_stage") == "deleted",
                _pairs(row.get("tags")),
            )
            for page in client.pages(
                "POST", "experiments/search", "experiments", max_results=1000, view_type="ALL"
            )
            for row in page
        }
        ids = list(self.experiments)
        common: dict[str, Any] = {"experiment_ids": ids, "run_view_type": "ALL"}
        newest = {"order_by": ["attributes.start_time DESC"], "max_results": _PAGE if every else _NEWEST}
        if ids:
            for page in client.pages("POST", "runs/search", "runs", **common, **newest):
                self._take(page)
                self.asked.set()
                if not every or self.stop.is_set():
                    break
            if not every:
                running = "attributes.status = 'RUNNING'"
                for page in client.pages(
                    "POST", "runs/search", "runs", **common, filter=running, max_results=_PAGE
                ):
                    self._take(page)
        if every:
            self._all_at = time.monotonic()
        self.catalogue = self._read_catalogue()

    def _take(self, page: Sequence[dict[str, Any]]) -> None:
        with self.lock:
            for run in page:
                place = str(run["info"]["run_id"])
                mark = hashlib.blake2b(
                    orjson.dumps(run, option=orjson.OPT_SORT_KEYS), digest_size=10
                ).hexdigest()
                before = self.runs.get(place)
                if before is None or before[0] != mark:
                    self.runs[place] = (mark, run)
                    self.arrived.append(place)

    def want(self, place: str, key: str) -> _Wanted:
        """Somebody looks at a series."""
        with self.lock:
            wanted = self.wanted.get((place, key))
            if wanted is None:
                wanted = self.wanted[(place, key)] = _Wanted(0.0)
            wanted.asked = time.monotonic()
            if wanted.fetched != self._reached(place, key):
                wanted.done.clear()
                self.wake.set()
        return wanted

    def _reached(self, place: str, key: str) -> str:
        """How far a series has come, as the last answer about its run says."""
        _, run = self.runs.get(place, ("", {}))
        for metric in (run.get("data") or {}).get("metrics") or ():
            if metric.get("key") == key:
                return f"{metric.get('step', 0)}.{metric.get('timestamp', 0)}"
        return "-"

    def _fetch_wanted(self) -> None:
        while not self.stop.is_set():
            now = time.monotonic()
            with self.lock:
                due = [
                    (wanted.asked, place, key)
                    for (place, key), wanted in self.wanted.items()
                    if now - wanted.asked < WANTED_SECONDS
                    and wanted.fetched != self._reached(place, key)
                    and (not wanted.fetched or now - wanted.at > POLL_SECONDS)
                ]
            if not due:
                return
            _, place, key = max(due)
            reached = self._reached(place, key)
            try:
                history = self._history(place, key)
            except ServerRefused:
                history = (key, [], [], [])
            with self.lock:
                wanted = self.wanted[(place, key)]
                wanted.fetched, wanted.at = reached, time.monotonic()
                if history[1]:
                    self.histories.setdefault(place, []).append(history)
                    self.arrived.appendleft(place)
            wanted.done.set()

    def _history(self, place: str, key: str) -> _History:
        steps: list[int] = []
        times: list[int] = []
        values: list[float] = []
        fields = {"run_id": place, "run_uuid": place, "metric_key": key, "max_results": _HISTORY}
        for page in self.client.pages("GET", "metrics/get-history", "metrics", **fields):
            for point in page:
                steps.append(int(point.get("step", 0)))
                times.append(int(point["timestamp"]))
                values.append(float(point["value"]))
        return key, steps, times, values

    def _read_catalogue(self) -> Catalogue:
        client = self.client
        rows: list[ModelRow] = []
        by_version: dict[tuple[str, str], list[str]] = {}
        for page in client.pages("GET", "registered-models/search", "registered_models", max_results=_PAGE):
            for model in page:
                name = str(model["name"])
                for alias in model.get("aliases") or ():
                    by_version.setdefault((name, str(alias["version"])), []).append(str(alias["alias"]))
                rows.append(
                    ModelRow(
                        name,
                        description=str(model.get("description") or ""),
                        created_ms=milliseconds(model.get("creation_timestamp")) or 0,
                        updated_ms=milliseconds(model.get("last_updated_timestamp")) or 0,
                        tags=_pairs(model.get("tags")),
                    )
                )
        for page in client.pages("GET", "model-versions/search", "model_versions", max_results=10_000):
            for version in page:
                name, number = str(version["name"]), str(version["version"])
                run = str(version.get("run_id") or "")
                rows.append(
                    ModelRow(
                        name,
                        int(number),
                        str(version.get("current_stage") or "None"),
                        str(version.get("source") or ""),
                        mlflow_run_id(run) if run else "",
                        str(version.get("description") or ""),
                        str(version.get("user_id") or ""),
                        milliseconds(version.get("creation_timestamp")) or 0,
                        milliseconds(version.get("last_updated_timestamp")) or 0,
                        _pairs(version.get("tags")),
                        sorted(by_version.get((name, number), [])),
                    )
                )
        tags = {name: tags for name, _, tags in self.experiments.values()}
        mark = hashlib.blake2b(
            repr((sorted(tags.items()), rows)).encode("utf-8", "surrogatepass"), digest_size=12
        )
        return Catalogue(mark.hexdigest(), tags, rows)


class MlflowServerReader(Reader):
    """Follows one server."""

    kind: ClassVar[str] = "mlflow_server"
    title: ClassVar[str] = "MLflow server"

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._poller: _Poller | None = None
        self.files = ServerFiles(self.where)

    def web_address(self, place: str) -> str:
        _, run = self._asking().runs.get(place, ("", {}))
        experiment = str((run.get("info") or {}).get("experiment_id", "0"))
        return run_address(redact_url(self.where).rstrip("/"), place, experiment)

    @classmethod
    def recognise(cls, path: Path | str) -> bool:
        if not str(path).startswith(("http://", "https://")):
            return False
        try:
            MlflowClient(str(path)).call("POST", "experiments/search", max_results=1)
        except ServerRefused as error:
            return error.code != "ENDPOINT_NOT_FOUND"
        except OSError:
            return False
        return True

    def _asking(self) -> _Poller:
        if self._poller is None:
            self._poller = poller = _Poller(MlflowClient(self.where))
            weakref.finalize(self, _end, poller)
            threading.Thread(target=poller.run, name="mlflow-server", daemon=True).start()
        return self._poller

    # -- looking

    def scan(self, known: Mapping[str, str]) -> Iterator[Found | None]:
        poller = self._asking()
        if not poller.asked.is_set():
            poller.asked.wait(FIRST_SECONDS)
        if poller.problem is not None and not poller.arrived:
            raise OSError(
                poller.problem.errno or 0, poller.problem.strerror or str(poller.problem), self.where
            )
        while True:
            with poller.lock:
                if not poller.arrived:
                    break
                place = poller.arrived.popleft()
                mark, run = poller.runs.get(place, ("", {}))
                histories = poller.histories.pop(place, [])
            if run and (histories or known.get(place) != mark):
                live = run["info"].get("status") in _LIVE
                yield Found(place, mark, live, (run, histories))
            else:
                yield None
        self.total = len(poller.runs)

    def want(self, place: str, key: str, seconds: float) -> bool:
        poller = self._asking()
        poller.asked.wait(min(seconds, FIRST_SECONDS))
        wanted = poller.want(place, key)
        return seconds > 0 and wanted.done.wait(seconds)

    def look_again(self, runs: bool = True, seconds: float = 0.0) -> bool:
        return self._asking().look_again(runs).wait(seconds)

    def await_registry(self, seconds: float) -> bool:
        return self._asking().looked.wait(seconds)

    def catalogue(self, stamp: str) -> Catalogue | None:
        found = self._asking().catalogue
        return None if found is None or found.stamp == stamp else found

    # -- reading

    def read(self, found: Found, position: str) -> Iterator[Piece]:
        run, histories = found.about
        before: dict[str, Any] = orjson.loads(position) if position else {}
        info, data = run["info"], run.get("data") or {}
        at = milliseconds(info.get("start_time")) or 0
        tags, params = _pairs(data.get("tags")), _pairs(data.get("params"))
        marks = {
            key: zlib.crc32(value.encode("utf-8", "surrogatepass")) for key, value in sorted(tags.items())
        }
        old: dict[str, int] = before.get("t", {})
        changed = {key: tags[key] for key, mark in marks.items() if old.get(key) != mark}
        gone = [key for key in old if key not in marks]
        records: list[dict[str, Any]] = []
        if changed:
            records.append({"op": "tags", "t": at, "v": changed})
        if gone:
            records.append({"op": "untag", "t": at, "k": gone})
        if len(params) != before.get("p", 0):
            records.append({"op": "param", "t": at, "v": params})
        inputs = (run.get("inputs") or {}).get("dataset_inputs") or []
        if len(inputs) != before.get("i", 0):
            records += [_input(entry, at) for entry in inputs]
        facts = self._facts(info, at, tags)
        digest = hashlib.blake2b(repr(facts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        if digest != before.get("d"):
            records += facts.records(gone)
        reached = orjson.dumps({"t": marks, "p": len(params), "i": len(inputs), "d": digest}).decode()
        latest = _latest(data.get("metrics") or [])
        newest = int(latest.time_ms.max()) if latest is not None else 0
        heard = max(at, facts.end_ms or 0, newest)
        place = mlflow_run_id(found.place)
        yield Piece(place, reached, records, latest, heard_ms=heard)
        for key, steps, times, values in histories:
            for start in range(0, len(steps), _POINTS):
                part = slice(start, start + _POINTS)
                yield Piece(
                    place,
                    reached,
                    (),
                    _columns([key], steps[part], times[part], values[part]),
                    heard_ms=heard,
                )

    def _facts(self, info: Mapping[str, Any], at: int, tags: Mapping[str, str]) -> RunFacts:
        number = str(info.get("experiment_id", "0"))
        known = self._asking().experiments.get(number)
        name, deleted = (known[0], known[1]) if known is not None else (number, False)
        return RunFacts(
            at,
            milliseconds(info.get("end_time")),
            str(info.get("run_name") or ""),
            str(info.get("user_id") or ""),
            str(info.get("status") or "RUNNING"),
            name,
            deleted or info.get("lifecycle_stage") == "deleted",
            str(info.get("artifact_uri") or ""),
            {key: tags[key] for key in FIELD_TAGS if key in tags},
        )


def _end(poller: _Poller) -> None:
    poller.stop.set()
    poller.wake.set()


def _pairs(items: Any) -> dict[str, str]:
    return {str(item["key"]): str(item.get("value") or "") for item in items or () if "key" in item}


def _input(entry: Mapping[str, Any], at: int) -> dict[str, Any]:
    dataset = entry.get("dataset") or {}
    return {
        "op": "input",
        "t": at,
        "name": str(dataset.get("name", "")),
        "digest": str(dataset.get("digest", "")),
        "context": _pairs(entry.get("tags")).get("mlflow.data.context", ""),
        "source": str(dataset.get("source", ""))[:10_000],
        "digest_kind": "mlflow",
    }


def _latest(metrics: Sequence[Mapping[str, Any]]) -> SourcePoints | None:
    """The newest point of each metric."""
    if not metrics:
        return None
    names = [str(metric["key"]) for metric in metrics]
    return SourcePoints(
        names,
        np.arange(len(names), dtype=np.int32),
        np.array([int(metric.get("step", 0)) for metric in metrics], np.int64),
        np.array([int(metric.get("timestamp", 0)) for metric in metrics], np.int64),
        np.array([float(metric.get("value", "nan")) for metric in metrics], np.float64),
    )


def _columns(names: list[str], steps: list[int], times: list[int], values: list[float]) -> SourcePoints:
    return SourcePoints(
        names,
        np.zeros(len(steps), np.int32),
        np.array(steps, np.int64),
        np.array(times, np.int64),
        np.array(values, np.float64),
    )
