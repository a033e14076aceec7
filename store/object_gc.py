"""What can go from the object stores that artifacts went to: everything of purged runs, what no record names, what broke off.

Exactly that. An object goes only when the address is this store's own, and when its run was purged in this store, or is known here,
all of its journals are here and read, and none of its records says that such a file was logged. Runs that this store has never
heard of are somebody else's.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from mltrack.store import copies
from mltrack.store.client.destination import object_name
from mltrack.store.client.journal import run_folder
from mltrack.store.database import Database
from mltrack.store.decisions import REMOVALS
from mltrack.store.errors import MltrackError
from mltrack.store.journal_reader import file_kind
from mltrack.store.object_owner import identity, stranger
from mltrack.store.object_store import ObjectStore, open_objects
from mltrack.store.upkeep import PART_SECONDS, TRASH_DAYS, Freed

if TYPE_CHECKING:
    from mltrack.store.store import Store

_RUN = re.compile(r"([0-9a-f]{32})/")
_REMOVED_AT_ONCE = 1000
_REFRESH_SECONDS = 10.0
# As long as a deleted run: what nothing names may be named by a record that comes late.
UNNAMED_SECONDS = TRASH_DAYS * 86400


@dataclass
class _Known:
    """What the records of a run say: objects that are named, and of those that are not any more what to note down when they go."""

    named: set[str] = field(default_factory=set)
    former: dict[str, tuple[str, str]] = field(default_factory=dict)
    read: bool | None = None


def collect_objects(store: Store, dry: bool) -> Freed:
    """Go through every address that artifacts went to. What cannot be reached is said in ``problems``, and tried again next time."""
    freed = Freed(dry=dry)
    places: set[str] = set()
    try:
        places = copies.destination(store.database, store.root).trusted()
        ours = identity(store.database, store.root) if places else ""
    except MltrackError as error:
        freed.problems.append(error.message)
        return freed
    if not places:
        return freed
    purged = {str(row[0]) for row in store.database.execute("SELECT run_id FROM tombstone")}
    report = store.refresh(_REFRESH_SECONDS)
    whole = not (report.pending_bytes or report.folded_by_other or report.damaged)
    if not whole:
        freed.problems.append(
            "Not all journals are read, or some are damaged: objects that no run names stay. `mltrack fold` says which."
        )
    for place in sorted(places):
        try:
            objects = open_objects(place)
            foreign = stranger(objects, ours, store.root, dry)
            if foreign:
                freed.problems.append(foreign)
                continue
            _Collection(store, objects, purged, freed, whole).collect()
        except MltrackError as error:
            freed.problems.append(error.message)
            continue
        if not dry:
            _done(store.database, place)
    count, size = copies.forget_brought(dry)
    if count:
        freed.count_by_kind["folders fetched long ago"] = count
        freed.bytes_by_kind["folders fetched long ago"] = size
    return freed


class _Collection:
    """What goes below one address. Objects come run by run, so what is known of the last one is kept."""

    def __init__(
        self, store: Store, objects: ObjectStore, purged: set[str], freed: Freed, whole: bool
    ) -> None:
        self._store = store
        self._objects = objects
        self._purged = purged
        self._freed = freed
        self._whole = whole
        self._last: tuple[str, _Known | None] = ("", None)
        self._unread: set[str] = set()

    def collect(self) -> None:
        purged: list[str] = []
        unnamed: dict[str, list[str]] = {}
        old = time.time() - UNNAMED_SECONDS
        for found in self._objects.listing():
            run = _RUN.match(found.name)
            if run is None:
                continue
            if run[1] in self._purged:
                self._freed.add("objects of purged runs", found.size)
                purged.append(found.name)
            elif self._whole and found.changed < old and self._is_unnamed(run[1], found.name):
                self._freed.add("objects that no run names", found.size)
                unnamed.setdefault(run[1], []).append(found.name)
            if len(purged) >= _REMOVED_AT_ONCE and not self._freed.dry:
                self._objects.remove(purged)
                purged = []
        if not self._freed.dry:
            self._objects.remove(purged)
            for run_id, names in unnamed.items():
                self._remove_unnamed(run_id, names)
        for upload in self._objects.unfinished(time.time() - PART_SECONDS):
            run = _RUN.match(upload.name)
            # What others send to the same bucket is theirs to give up.
            if run is not None and (run[1] in self._purged or self._known(run[1]) is not None):
                self._freed.add("uploads that broke off", upload.size)
                if not self._freed.dry:
                    self._objects.abort(upload)
        if self._unread:
            self._freed.problems.append(
                f"Objects of {len(self._unread)} runs that no record names stay: not all journals of those runs are here and read."
            )

    def _known(self, run_id: str) -> _Known | None:
        """None for a run that is not of this store."""
        if self._last[0] != run_id:
            self._last = (run_id, self._ask(run_id))
        return self._last[1]

    def _ask(self, run_id: str) -> _Known | None:
        database = self._store.database
        rows = database.execute("SELECT id FROM run WHERE run_id = ? AND source = ''", (run_id,))
        if not rows:
            return None
        known = _Known()
        # A path that was logged stays, also where its record of the copy has not come yet, but for those removed on purpose.
        logged = database.execute(
            "SELECT a.path, a.sha256 FROM artifact a LEFT JOIN artifact_copy c ON c.run = a.run AND c.path = a.path"
            " AND c.sha256 = a.sha256 WHERE a.run = ? AND (c.run IS NULL OR c.place <> '')",
            rows[0],
        )
        known.named = {object_name(run_id, str(path), str(sha256)) for path, sha256 in logged}
        for path, sha256 in database.execute(
            "SELECT path, sha256 FROM artifact_copy WHERE run = ? AND place <> ''", rows[0]
        ):
            known.former[object_name(run_id, str(path), str(sha256))] = str(path), str(sha256)
        return known

    def _is_unnamed(self, run_id: str, name: str) -> bool:
        known = self._known(run_id)
        if known is None or name in known.named:
            return False
        if known.read is None:
            known.read = self._is_read(run_id)
            if known.read:  # and what was read just now may name it
                self._last = (run_id, fresh := self._ask(run_id))
                if fresh is None:
                    return False
                fresh.read, known = True, fresh
            else:
                self._unread.add(run_id)
        return known.read is True and name not in known.named

    def _is_read(self, run_id: str) -> bool:
        """Whether all journals that the run is made of lie here, and are read to their ends."""
        folder = run_folder(self._store.root, run_id)
        if not folder.is_dir():
            return False
        report = self._store.fold_folder(folder)
        kinds = [file_kind(path.name.removesuffix(".zst")) for path in folder.iterdir()]
        here = {(kind[1], kind[0]) for kind in kinds if kind is not None}
        rows = self._store.database.execute(
            "SELECT j.jid, j.kind FROM journal j JOIN run r ON r.id = j.run WHERE r.run_id = ?", (run_id,)
        )
        have = {(str(jid), str(kind)) for jid, kind in rows}
        return here == have and not (report.pending_bytes or report.folded_by_other or report.damaged)

    def _remove_unnamed(self, run_id: str, names: list[str]) -> None:
        """What was logged here before and written over goes too: first it is noted, so that nobody believes in it any more."""
        known = self._ask(run_id)
        if known is None:
            return
        going = [name for name in names if name not in known.named]
        noted = [known.former[name] for name in going if name in known.former]
        if noted:
            copies.note_removed(self._store, run_id, noted)
        self._objects.remove(going)


def _removals(database: Database) -> list[str]:
    return list(orjson.loads(database.setting(REMOVALS, "[]")))


def _done(database: Database, place: str) -> None:
    """What was to be removed below an address is gone now."""
    if not _removals(database):
        return
    with database.transaction():
        kept = [address for address in _removals(database) if address.rpartition("/")[0] != place]
        database.set_setting(REMOVALS, orjson.dumps(kept).decode())
