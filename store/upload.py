"""Artifacts on their way to an object store: sent by a process of their own, read back, noted down, and only then dropped here.

A training never waits for any of this. What is sent is noted in a journal of the run, so that every reader, also of a copy or of
a database built anew, knows where the bytes lie.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import orjson

from mltrack.store.client import host
from mltrack.store.client.destination import (
    Destination,
    object_name,
    problem_file,
)
from mltrack.store.client.journal import Journal, make_folder, open_file, random_hex, run_folder, share_mode
from mltrack.store.client.location import choose_store
from mltrack.store.copies import ATTEMPT, ROLE, destination, is_plain
from mltrack.store.database import Database, file_lock
from mltrack.store.decisions import REMOVALS
from mltrack.store.errors import BadInput, MltrackError, NotFound, StoreUnavailable
from mltrack.store.object_owner import identity, stranger
from mltrack.store.object_store import ObjectStore, open_objects

LOOK_SECONDS = 1.0
# A companion that has had nothing to send for this long ends; the next artifact starts another.
IDLE_SECONDS = 60.0
AGAIN_SECONDS = 10.0
# Files up to this size stay here also where others are dropped: what describes a model, and texts that a page shows at once.
SMALL_BYTES = 64 << 10
# How long one goes on trying when the object store is away; what is left waits for the next one.
PATIENCE_SECONDS = 3600.0
# An address that refuses so many files in a row is left alone until the next round.
_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """An artifact that lies here and not yet in the object store."""

    run_id: str
    path: str
    size: int
    sha256: str
    place: str


@dataclass
class _Plan:
    """What a look found: addresses to be emptied, artifacts to be sent by their runs, and files that can go from here."""

    chosen: Destination
    removals: list[str]
    by_run: dict[str, list[Waiting]] = field(default_factory=dict)
    left: list[Waiting] = field(default_factory=list)


@dataclass
class Sent:
    """What was sent: files and bytes, files that were left out because they are not what was logged, and what went here."""

    files: int = 0
    size: int = 0
    changed: int = 0
    dropped: int = 0
    removed: int = 0


def waiting(
    database: Database, root: Path, chosen: Destination, run_id: str | None = None
) -> Iterator[Waiting]:
    """Artifacts whose files lie here and have no proven copy at an address that this store was told of, oldest run first."""
    trusted = sorted(chosen.trusted())
    rows = database.execute(
        "SELECT r.run_id, e.name, a.path, a.size, a.sha256 FROM artifact a JOIN run r ON r.id = a.run"
        " JOIN experiment e ON e.id = r.experiment_id"
        " LEFT JOIN artifact_copy c ON c.run = a.run AND c.path = a.path AND c.sha256 = a.sha256"
        f" AND c.place IN ({', '.join('?' * len(trusted)) or 'NULL'})"
        " WHERE c.run IS NULL AND r.source = ''"
        + (" AND r.run_id = ?" if run_id else "")
        + " ORDER BY r.id, a.path",
        (*trusted, run_id) if run_id else trusted,
    )
    for owner, experiment, path, size, sha256 in rows:
        place = chosen.of(str(experiment))
        if place and is_plain(str(path), str(sha256)) and _size_here(root, str(owner), str(path)) == size:
            yield Waiting(str(owner), str(path), int(size), str(sha256), place)


def copied_here(
    database: Database, root: Path, trusted: set[str], run_id: str | None = None
) -> Iterator[Waiting]:
    """Artifacts whose files lie here although they have a copy, but for small ones."""
    rows = database.execute(
        "SELECT r.run_id, a.path, a.size, a.sha256, c.place FROM artifact_copy c JOIN artifact a ON a.run = c.run AND a.path = c.path"
        " AND a.sha256 = c.sha256 JOIN run r ON r.id = a.run WHERE c.place <> '' AND r.source = '' AND a.size > ?"
        + (" AND r.run_id = ?" if run_id else ""),
        (SMALL_BYTES, run_id) if run_id else (SMALL_BYTES,),
    )
    for owner, path, size, sha256, place in rows:
        if (
            place in trusted
            and is_plain(str(path), str(sha256))
            and _size_here(root, str(owner), str(path)) == size
        ):
            yield Waiting(str(owner), str(path), int(size), str(sha256), str(place))


class Uploader:
    """Sends what waits in one store, as often as it is asked to. One per store and machine works at a time: see ``send``."""

    def __init__(
        self,
        where: str,
        say: Callable[[str], object] = lambda sentence: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._where = where
        self._root = choose_store(where).root
        self._say = say
        self._stopped = stopped
        self._objects: dict[str, ObjectStore] = {}
        self._strangers: dict[str, str] = {}
        self._identity = ""
        self.busy = False
        """Whether there was something to do when it last looked."""
        self.look_seconds = 0.0
        # What this process leaves alone until the file is another one: it is not what was logged, or cannot be removed or noted down.
        self._left: dict[tuple[str, str, str], tuple[int, int, int] | None] = {}
        self._problems: list[MltrackError] = []
        self._away: dict[str, int] = {}

    def send(self) -> Sent:
        """Send all that waits, and remove what belongs to purged runs. The database is held only to ask and to fold.

        One address or file that is refused holds up no other. Raises the first problem at the end: StoreUnavailable when an
        object store cannot be reached, BadInput when its package is missing.
        """
        from mltrack.store.opening import open_store

        done = Sent()
        self._problems, self._away = [], {}
        plan = self.look()
        for one in plan.left:
            if not self._is_away(one.place):
                with self._going_on(one.place):
                    self._drop_later(one, done)
        self._remove(plan.removals, done)
        for run_id, files in plan.by_run.items():
            sent = self._send_run(run_id, files, done)
            if sent:
                with open_store(self._where) as store:
                    store.fold_folder(run_folder(self._root, run_id))
                    unproven = set(waiting(store.database, self._root, plan.chosen, run_id))
                    proven = set(copied_here(store.database, self._root, plan.chosen.trusted(), run_id))
                for one, facts in sent:
                    if one in unproven:
                        self._leave(
                            one
                        )  # a later record says that it was removed: sending it again would change nothing
                    elif plan.chosen.drop_local and one in proven and not self._drop(one, done, facts):
                        self._leave(one)
            if self._stopped():
                break
        if self._problems:
            raise self._problems[0]
        return done

    def look(self) -> _Plan:
        """What is to be done now."""
        from mltrack.store.opening import open_store

        began = time.process_time()
        with open_store(self._where) as store:
            store.refresh(5.0)
            chosen = destination(store.database, self._root)
            trusted = chosen.trusted()
            removals: list[str] = orjson.loads(store.database.setting(REMOVALS, "[]"))
            plan = _Plan(chosen, [address for address in removals if address.rpartition("/")[0] in trusted])
            for one in waiting(store.database, self._root, chosen):
                if not self._is_left(one):
                    plan.by_run.setdefault(one.run_id, []).append(one)
            if chosen.drop_local:
                here = copied_here(store.database, self._root, trusted)
                plan.left += [one for one in here if not self._is_left(one)]
            if (plan.removals or plan.by_run or plan.left) and not self._identity:
                self._identity = identity(store.database, self._root)
        self.look_seconds = time.process_time() - began
        self.busy = bool(plan.removals or plan.by_run)
        return plan

    def reconnect(self) -> None:
        """Ask with new connections from now on."""
        self._objects.clear()

    def _is_left(self, one: Waiting) -> bool:
        key = one.run_id, one.path, one.sha256
        return key in self._left and self._left[key] == self._mark_here(one)

    def _leave(self, one: Waiting) -> None:
        self._left[one.run_id, one.path, one.sha256] = self._mark_here(one)

    def _mark_here(self, one: Waiting) -> tuple[int, int, int] | None:
        try:
            return _mark(self._path(one.run_id, one.path).lstat())
        except OSError:
            return None

    @contextmanager
    def _going_on(self, place: str) -> Iterator[None]:
        """What goes wrong at one address is kept for the end. An address at which nothing works is left alone in this round."""
        try:
            yield
            self._away[place] = 0
        except MltrackError as error:
            self._problems.append(error)
            self._away[place] = self._away.get(place, 0) + 1

    def _is_away(self, place: str) -> bool:
        return self._away.get(place, 0) >= _REFUSALS

    def _at(self, place: str) -> ObjectStore:
        if place not in self._objects:
            objects = self._objects[place] = open_objects(place)
            objects.writer = f"{host.machine()} {self._identity}"
        return self._objects[place]

    def _stranger(self, place: str) -> str:
        """A sentence when nothing may be removed at an address; the first who comes leaves the store's marker there."""
        if place not in self._strangers:
            self._strangers[place] = stranger(self._at(place), self._identity, self._root)
        return self._strangers[place]

    def _send_run(
        self, run_id: str, files: list[Waiting], done: Sent
    ) -> list[tuple[Waiting, os.stat_result]]:
        journal = Journal(self._root, run_id, ATTEMPT, role=ROLE, identity=host.identity())
        sent: list[tuple[Waiting, os.stat_result]] = []
        try:
            for one in files:
                if self._stopped():
                    break
                facts = None
                if self._is_away(one.place):
                    continue
                with self._going_on(one.place):
                    self._stranger(one.place)
                    facts = self._send_file(one, done)
                if facts is not None:
                    # A second after it was proven, a kill must not make it be sent again.
                    journal.meta("artifact_copy", path=one.path, sha256=one.sha256, place=one.place)
                    sent.append((one, facts))
        finally:
            if journal.meta_file is not None:
                journal.meta("close", points=0)
                if not journal.retry():
                    sent.clear()  # nobody knows of the copies yet, so nothing may go here
                elif sent:
                    os.fsync(journal.meta_file.fd)
                journal.close()
        return sent

    def _send_file(self, one: Waiting, done: Sent) -> os.stat_result | None:
        """Send one file and read it back. None when it is not what was logged any more."""
        path = self._path(one.run_id, one.path)
        objects = self._at(one.place)
        name, there = object_name(one.run_id, one.path, one.sha256), ""
        try:
            with self._open(one) as file:
                before = os.fstat(file.fileno())
                same = hashlib.file_digest(file, "sha256").hexdigest() == one.sha256
                for attempt in range(3):
                    # It may be there already: another machine, or a process that died before it could say so.
                    there = self._digest(objects, name) if same else ""
                    if not same or there == one.sha256 or attempt == 2:
                        break
                    file.seek(0)
                    same = objects.put(file, name, self._stopped, one.sha256) == one.sha256
        except FileNotFoundError:
            return None  # purged or replaced meanwhile
        except OSError as error:
            self._leave(one)
            done.changed += 1
            self._say(f"{path} cannot be read ({error.strerror}); it stays here")
            return None
        if not same:
            self._leave(one)
            done.changed += 1
            self._say(f"{path} is not what was logged; it stays here")
            return None
        if there != one.sha256:
            raise StoreUnavailable(
                f"{objects.shown} hands out other bytes than it was given ({name}); nothing was dropped here."
            )
        done.files += 1
        done.size += one.size
        return before

    def _digest(self, objects: ObjectStore, name: str) -> str:
        try:
            return objects.digest(name, self._stopped)
        except NotFound:
            return ""

    def _remove(self, removals: list[str], done: Sent) -> None:
        """Remove the objects of purged runs, and forget about them when that is done, or is not ours to do."""
        from mltrack.store.opening import open_store

        finished: set[str] = set()
        for address in removals:
            place, _, run_id = address.rpartition("/")
            if self._is_away(place):
                continue
            with self._going_on(place):  # what does not go now waits
                foreign = self._stranger(place)
                if foreign:
                    self._say(foreign)
                else:
                    done.removed += self._at(place).remove_below(run_id)
                finished.add(address)
        if finished:
            with open_store(self._where) as store, store.database.transaction():
                kept = orjson.loads(store.database.setting(REMOVALS, "[]"))
                kept = [address for address in kept if address not in finished]
                store.database.set_setting(REMOVALS, orjson.dumps(kept).decode())

    def _drop_later(self, one: Waiting, done: Sent) -> None:
        """Remove a file whose copy an earlier companion, or a journal of somebody else, speaks of: both are looked at again."""
        try:
            facts = self._path(one.run_id, one.path).lstat()
            with self._open(one) as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == one.sha256
        except OSError:
            self._leave(one)
            return
        name = object_name(one.run_id, one.path, one.sha256)
        if not (
            same and self._digest(self._at(one.place), name) == one.sha256 and self._drop(one, done, facts)
        ):
            self._leave(one)

    def _drop(self, one: Waiting, done: Sent, facts: os.stat_result) -> bool:
        """Remove a file whose copy is proven, unless it changed since: it is moved out of the way, and only then looked at, since
        another may take its place at any moment. False when it is still there."""
        file = self._path(one.run_id, one.path)
        aside = file.with_name(f".{random_hex(12)}.part")
        try:
            os.rename(file, aside)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # not ours to remove
        if _mark(aside.lstat()) == _mark(facts):
            aside.unlink()
            done.dropped += 1
            return True
        with suppress(FileExistsError):  # or a still newer one has come
            os.link(aside, file)
        aside.unlink()
        return True  # what lies there now waits by itself

    def _open(self, one: Waiting) -> BufferedReader:
        """An artifact's file, which is one, and lies where it seems to: others of a group may put links in a path's place. Raises
        OSError."""
        base = run_folder(self._root, one.run_id) / "artifacts"
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = open(os.open(base / one.path, flags), "rb")
        place = Path(f"/proc/self/fd/{file.fileno()}")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or (
            place.exists() and not place.resolve().is_relative_to(base.resolve())
        ):
            file.close()
            raise OSError(errno.ELOOP, "it is a link, or no file")
        return file

    def _path(self, run_id: str, path: str) -> Path:
        return run_folder(self._root, run_id) / "artifacts" / path


def send_now(where: str, say: Callable[[str], object], wait: bool = True) -> Sent | None:
    """Send what waits and note down how that went. None when, not waiting, another process is at it."""
    root = choose_store(where).root
    with file_lock(root, "upload", wait=wait) as mine:
        if not mine:
            return None
        try:
            done = Uploader(where, say).send()
        except MltrackError as error:
            _note(root, error.message)
            raise
        _note(root, "")
        return done


def send_on(where: str) -> None:
    """The detached companion: sends what waits until nothing did for a while."""
    with suppress(OSError):
        os.nice(10)
    root = choose_store(where).root
    uploader, again = Uploader(where), False
    while root.is_dir():  # a store that was removed meanwhile is not made again
        with file_lock(root, "upload", wait=False) as mine:
            if not mine:
                return  # another one of this store is at work, and looks once more after it has let go
            moved = False
            idle_since = began = time.monotonic()
            while time.monotonic() - idle_since < IDLE_SECONDS and root.is_dir():
                try:
                    done = uploader.send()
                    _note(root, "")
                except MltrackError as error:
                    _note(root, error.message)
                    if isinstance(error, BadInput) or time.monotonic() - began > PATIENCE_SECONDS:
                        return
                    if uploader.busy:
                        idle_since = time.monotonic()
                    time.sleep(AGAIN_SECONDS)
                    uploader.reconnect()
                    continue
                if done.files or done.removed:
                    moved = True
                    idle_since = began = time.monotonic()
                # In a store of very many runs a look takes long: no more than a twentieth of the time is spent on it.
                time.sleep(max(LOOK_SECONDS, 20 * uploader.look_seconds))
        # Something may have come between the last look and letting go of the lock. What a whole round could not move is not that.
        if again and not moved or not root.is_dir() or not _something_waits(uploader):
            return
        again = True


def _something_waits(uploader: Uploader) -> bool:
    """Whether there is something that the next round would send or remove."""
    plan = uploader.look()
    return bool(plan.removals or plan.by_run)


def _note(root: Path, problem: str) -> None:
    """Write down why nothing can be sent, where a person looks for it; nothing when it can."""
    path = problem_file(root)
    try:
        if not problem:
            path.unlink(missing_ok=True)
            return
        make_folder(path.parent, root)
        fd = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, share_mode(root))
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(problem)
    except OSError:
        return  # a note, and nothing hangs on it


def _size_here(root: Path, run_id: str, path: str) -> int:
    """Bytes of an artifact's file here, -1 when there is none."""
    try:
        facts = os.lstat(run_folder(root, run_id) / "artifacts" / path)
    except (OSError, ValueError):
        return -1
    return facts.st_size if stat.S_ISREG(facts.st_mode) else -1


def _mark(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


if __name__ == "__main__":
    send_on(sys.argv[1] if len(sys.argv) > 1 else os.environ["MLTRACK_STORE"])
