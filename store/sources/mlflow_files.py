"""Files of runs on an MLflow server: listed and fetched by threads, so that nobody waits for a server longer than they want."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from mltrack.store.questions import Questions
from mltrack.store.sources.mlflow_http import MlflowClient

MOST_ENTRIES, MOST_FOLDERS = 20_000, 500
HEAD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """Entries as (path, whether it is a folder, bytes), folders before what is in them. ``waiting``: the server has not
    answered yet; ``more``: not everything was listed."""

    entries: tuple[tuple[str, bool, int], ...] = ()
    waiting: bool = False
    more: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RemoteHead:
    """The beginning of a file and the size of all of it."""

    data: bytes = b""
    size: int = 0
    waiting: bool = False
    problem: str = ""


class ServerFiles:
    """The files of one server. What was asked is kept for ten seconds, the last few answers only."""

    def __init__(self, address: str) -> None:
        self._client = MlflowClient(address)
        self._questions = Questions("mlflow-files", _told)

    def listing(self, place: str, seconds: float) -> RemoteFiles:
        """All files of a run, as far as the server says within ``seconds``."""
        asked = self._questions.ask(("list", place), lambda: _listed(self._client, place), seconds)
        if not asked.done.is_set():
            return RemoteFiles(waiting=True)
        if asked.problem:
            return RemoteFiles(problem=asked.problem)
        entries, more = asked.answer
        return RemoteFiles(entries, more=more)

    def head(self, place: str, path: str, seconds: float) -> RemoteHead:
        """The first HEAD_BYTES of a file, as far as the server sends them within ``seconds``."""
        asked = self._questions.ask(
            ("head", place, path),
            lambda: self._client.stream(f"get-artifact?{_query(place, path)}", HEAD_BYTES),
            seconds,
        )
        if not asked.done.is_set():
            return RemoteHead(waiting=True)
        if asked.problem:
            return RemoteHead(problem=asked.problem)
        data, size = asked.answer
        return RemoteHead(data, size)


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"The server {error.strerror or error}."
    return f"The server's answer is not understood ({error})."


def _listed(client: MlflowClient, place: str) -> tuple[tuple[tuple[str, bool, int], ...], bool]:
    """Depth first, a request per folder."""
    found: list[tuple[str, bool, int]] = []
    asked = 0

    def enter(folder: str, depth: int) -> bool:
        nonlocal asked
        if asked >= MOST_FOLDERS or depth > 60:
            return True
        asked += 1
        fields = {"run_id": place, "run_uuid": place, **({"path": folder} if folder else {})}
        more = False
        for row in client.get("artifacts/list", **fields).get("files") or ():
            path, is_dir = str(row["path"]), bool(row.get("is_dir"))
            if not path.startswith(f"{folder}/" if folder else "") or len(found) >= MOST_ENTRIES:
                more = True
                continue
            found.append((path, is_dir, int(row.get("file_size") or 0)))
            if is_dir:
                more = enter(path, depth + 1) or more
        return more

    more = enter("", 0)
    return tuple(found), more


def _query(place: str, path: str) -> str:
    return urlencode({"run_uuid": place, "path": path})


def run_address(address: str, place: str, experiment: str) -> str:
    """Where a browser shows a run."""
    return f"{address}/#/experiments/{experiment}/runs/{place}"


def file_address(address: str, place: str, path: str) -> str:
    """Where a browser gets a file of a run."""
    return f"{address}/get-artifact?{_query(place, path)}"
