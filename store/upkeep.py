"""Keeping a store healthy: backups, sealed journals, and what can go."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from mltrack.store import model_files
from mltrack.store.client.counting import SEALED
from mltrack.store.client.journal import make_folder, open_file, random_hex, run_folder, share_mode
from mltrack.store.database import Database, file_lock
from mltrack.store.errors import StoreDamaged, StoreUnavailable
from mltrack.store.journal_reader import file_kind
from mltrack.store.summary import unpack

if TYPE_CHECKING:
    from mltrack.store.store import Store

TRASH_DAYS = 30
# A run that ended this long ago will hardly be resumed within the hour, and its journals compress to a third.
SEAL_SECONDS = 3600
# A digest that nobody asked for in this time is computed again.
DIGEST_DAYS = 90
# A half-written file this old belongs to a process that died.
PART_SECONDS = 24 * 3600


@dataclass
class Freed:
    """What a clean-up did or, dry, would do: sizes in bytes by what they were."""

    bytes_by_kind: dict[str, int] = field(default_factory=dict)
    count_by_kind: dict[str, int] = field(default_factory=dict)
    dry: bool = False
    problems: list[str] = field(default_factory=list)

    def add(self, kind: str, size: int) -> None:
        """Count one thing of ``size`` bytes."""
        self.bytes_by_kind[kind] = self.bytes_by_kind.get(kind, 0) + size
        self.count_by_kind[kind] = self.count_by_kind.get(kind, 0) + 1


RESTORED = "restored"
"""Setting of every backup: a store that goes on from one must look into all its journals once. Those that were read when the
backup was made only in part may have lost their markers since."""


def backup(database: Database, root: Path, target: Path | None = None) -> Path:
    """Copy the database while it is in use, check the copy, and move it into place. Returns its path."""
    if database.kind != "sqlite":
        raise StoreUnavailable("A PostgreSQL store is backed up with PostgreSQL's own pg_dump.")
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = target if target is not None else root / "backups" / f"{stamp}-{random_hex(4)}.db"
    part = path.with_name(f".{path.name}.{random_hex(8)}.part")
    try:
        make_folder(path.parent, root)
        os.close(open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, share_mode(root)))
        copy = sqlite3.connect(part)
        try:
            database.connection.backup(copy, pages=4096)
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?, '1')", (RESTORED,))
            copy.commit()
            problems = copy.execute("PRAGMA quick_check(5)").fetchall()
            copy.execute("SELECT count(*) FROM run").fetchone()
        finally:
            copy.close()
        if problems != [("ok",)]:
            raise StoreDamaged(
                f"The database {database.where} is damaged ({problems[0][0]}); run 'mltrack doctor'."
            )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"The backup {path} could not be written ({error}).") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def seal(
    database: Database, root: Path, older_than_seconds: float = SEAL_SECONDS, limit: int = 1000
) -> Freed:
    """Compress the journals of runs that ended a while ago: written, read back, compared, and only then the original removed."""
    freed = Freed()
    until = int((time.time() - older_than_seconds) * 1000)
    rows = database.execute(
        "SELECT r.run_id, j.jid, j.kind, j.position FROM journal j JOIN run r ON r.id = j.run WHERE j.sealed IS NULL"
        " AND r.status IN ('FINISHED', 'FAILED', 'KILLED', 'LOST') AND r.end_ms < ? ORDER BY r.end_ms",
        (until,),
    )
    counted: set[str] = set()
    with file_lock(root, "fold") as _:
        shared = share_mode(root) != 0o600
        for run_id, jid, kind, position in rows:
            if freed.count_by_kind.get("sealed journals", 0) >= limit:
                break
            path = run_folder(root, str(run_id)) / f"{kind}.{jid}.jsonl"
            if (root / "open" / f"{jid}.{run_id}").exists():
                continue
            try:
                facts = path.stat()
                size = facts.st_size
                if shared and os.geteuid() not in (0, facts.st_uid):
                    continue  # whose file it is says whose run it is: everybody seals their own
                if size != position:
                    continue  # something is not folded yet, or its last line is torn: left as it is
                if run_id not in counted:
                    _note_counts(database, run_folder(root, str(run_id)), str(run_id), share_mode(root))
                    counted.add(run_id)
                packed = _seal_file(path, share_mode(root))
                # Before it is noted down: of what was noted, nobody would look for the original again.
                path.unlink()
            except FileNotFoundError:
                packed = path.with_name(path.name + ".zst")
                if not packed.exists():
                    continue  # the run lies elsewhere
                size = packed.stat().st_size  # sealed by a process that died before it could say so
            except OSError as error:
                raise StoreUnavailable(
                    f"The journal {path} could not be sealed ({error.strerror})."
                ) from error
            with database.transaction():
                database.execute(
                    "UPDATE journal SET sealed = ? WHERE jid = ? AND kind = ?", ("zst", jid, kind)
                )
            freed.add("sealed journals", size - packed.stat().st_size)
    return freed


def _note_counts(database: Database, folder: Path, run_id: str, mode: int) -> None:
    """What a resumed run has to know of its sealed journals, where the client can read it."""
    summary, attempts, state = database.execute(
        "SELECT summary, attempts, state FROM run WHERE run_id = ?", (run_id,)
    )[0]
    rows = unpack(attempts or summary)
    names = {int(key): str(name) for key, name in database.execute("SELECT id, key FROM metric_key")}
    steps: dict[str, dict[str, int]] = {}
    for row in rows[rows["whole"] == 1]:
        of_rank = steps.setdefault(str(int(row["rank"])), {})
        key = names[int(row["key"])]
        of_rank[key] = max(of_rank.get(key, 0), int(row["last_step"]) + 1)
    newest = max((name[6:] for name in orjson.loads(state) if name.startswith("begin ")), default="")
    part = folder / f".{SEALED}.{random_hex(8)}.part"
    with os.fdopen(open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as writer:
        writer.write(orjson.dumps({"attempt": newest, "steps": steps}))
        writer.flush()
        os.fsync(writer.fileno())
    os.replace(part, folder / SEALED)


def _seal_file(path: Path, mode: int) -> Path:
    packed = path.with_name(path.name + ".zst")
    part = path.with_name(f".{packed.name}.{random_hex(8)}.part")
    try:
        with (
            path.open("rb") as reader,
            os.fdopen(open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as writer,
        ):
            frame = zstd.ZstdCompressor(
                options={
                    zstd.CompressionParameter.compression_level: 6,
                    zstd.CompressionParameter.checksum_flag: 1,
                }
            )
            while block := reader.read(1 << 20):
                writer.write(frame.compress(block))
            writer.write(frame.flush())
            if os.geteuid() == 0:
                facts = os.fstat(reader.fileno())
                os.fchown(writer.fileno(), facts.st_uid, facts.st_gid)
            writer.flush()
            os.fsync(writer.fileno())
        with path.open("rb") as original, zstd.open(part) as again:
            while block := original.read(1 << 20):
                if again.read(len(block)) != block:
                    raise OSError(5, "the compressed copy differs")
            if again.read(1):
                raise OSError(5, "the compressed copy differs")
        os.replace(part, packed)
    finally:
        part.unlink(missing_ok=True)
    return packed


def unsealed(path: Path, folder: Path) -> Path:
    """A temporary plain copy of a sealed journal below ``folder``; the caller removes it. Raises OSError."""
    plain = folder / f".{random_hex(12)}.{path.name.removesuffix('.zst')}"
    damage = ""
    with path.open("rb") as reader, plain.open("xb") as writer:
        frame = zstd.ZstdDecompressor()
        try:
            while not frame.eof and (block := reader.read(1 << 20)):
                writer.write(frame.decompress(block))
            damage = "" if frame.eof else "it ends too early"
        except zstd.ZstdError as error:
            damage = str(error)
    if damage:
        plain.unlink()
        raise OSError(5, f"it is damaged: {damage}")
    return plain


def collect(database: Database, root: Path, dry: bool = False, journals: bool = False) -> Freed:
    """Remove what nothing needs: half-written files of dead processes, folders of purged runs, bodies no run names.

    ``journals`` also removes sealed journals: after that the database cannot be rebuilt without a backup.
    """
    freed = Freed(dry=dry)
    purged = {str(row[0]) for row in database.execute("SELECT run_id FROM tombstone")}
    old = time.time() - PART_SECONDS
    for folder in _run_folders(root):
        if folder.name in purged:
            freed.add("purged runs", _size(folder))
            if not dry:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        for base, _, names in os.walk(folder):
            for name in names:
                path = Path(base) / name
                half = name.startswith(".") and name.endswith(".part")
                dropped = (
                    journals
                    and name.endswith(".jsonl.zst")
                    and file_kind(name.removesuffix(".zst")) is not None
                )
                try:
                    facts = path.lstat()
                    if (half and facts.st_mtime < old) or dropped:
                        freed.add("half-written files" if half else "sealed journals", facts.st_size)
                        if not dry:
                            path.unlink()
                except OSError:
                    continue  # somebody else removed it, or may not be removed by us
    used = _named_blobs(database)
    for path in sorted((root / "blobs").glob("*/*")):
        if path.name not in used and path.stat().st_mtime < old:
            freed.add("unused code snapshots", path.stat().st_size)
            if not dry:
                path.unlink(missing_ok=True)
    kept = {str(source) for (source,) in database.execute("SELECT DISTINCT source FROM model_version")}
    for folder in sorted((root / model_files.FOLDER).glob("*")):
        ours = model_files.is_kept_name(folder.name)
        if ours and model_files.KEPT + folder.name not in kept and folder.stat().st_mtime < old:
            freed.add("models of no version", _size(folder))
            if not dry:
                shutil.rmtree(folder, ignore_errors=True)
    _prune_digests(root, freed)
    return freed


def _prune_digests(root: Path, freed: Freed) -> None:
    """Forget digests of inputs noted long ago: files change names, and the cache would only ever grow."""
    old = time.time() - DIGEST_DAYS * 86400
    for path in sorted((root / "cache" / "digests").glob("*/*")):
        try:
            facts = path.stat()
            if facts.st_mtime < old:
                freed.add("remembered digests", facts.st_size)
                if not freed.dry:
                    path.unlink()
        except FileNotFoundError:
            continue  # another clean-up was faster


def clean_up(store: Store, dry: bool, journals: bool, trash_days: float) -> Freed:
    """See ``Store.gc``."""
    expired = expired_trash(store.database, trash_days)
    if not dry and expired:
        store.purge(expired)
    freed = collect(store.database, store.root, dry, journals)
    if expired:
        freed.count_by_kind["runs from the trash"] = len(expired)
    if not dry:
        sealed = seal(store.database, store.root)
        freed.bytes_by_kind.update(sealed.bytes_by_kind)
        freed.count_by_kind.update(sealed.count_by_kind)
    return freed


def expired_trash(database: Database, days: float = TRASH_DAYS) -> list[str]:
    """Ids of runs that have been in the trash for longer than ``days``, but for those that a model version is made of."""
    until = int((time.time() - days * 86400) * 1000)
    rows = database.execute("SELECT run_id FROM run WHERE lifecycle = 'trash' AND deleted_ms < ?", (until,))
    held = runs_of_models(database)
    return [str(row[0]) for row in rows if str(row[0]) not in held]


def runs_of_models(database: Database) -> set[str]:
    """Ids of the runs that registered model versions come from: their artifacts are never collected."""
    found: set[str] = set()
    for run_id, source in database.execute("SELECT run_id, source FROM model_version"):
        found |= {str(run_id), model_files.run_of(str(source)) or ""}
    return found - {""}


def _named_blobs(database: Database) -> set[str]:
    used: set[str] = set()
    for (text,) in database.execute("SELECT facts FROM run"):
        facts = orjson.loads(text)
        for body in (facts.get("packages"), (facts.get("git") or {}).get("patch")):
            if isinstance(body, str):
                used.add(body)
    return used


def _run_folders(root: Path) -> Iterator[Path]:
    for shard in sorted((root / "runs").glob("[0-9a-f][0-9a-f]")):
        for folder in sorted(shard.iterdir()):
            if folder.is_dir() and not folder.is_symlink():
                yield folder


def _size(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except OSError:
                continue
    return total
