"""What must never happen to artifacts in an object store: two writers, two stores, half-read records, and addresses that are away."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fsspec.spec import AbstractBufferedFile

import mltrack
from mltrack.store import object_gc, open_store
from mltrack.store.client.destination import Destination, object_name
from mltrack.store.client.journal import Journal, run_folder
from mltrack.store.copies import ATTEMPT, ROLE, copies, fetch, set_destination
from mltrack.store.errors import StoreUnavailable
from mltrack.store.object_owner import MARKER
from mltrack.store.object_store import ObjectStore, open_objects
from mltrack.store.upkeep import Freed
from mltrack.store.upload import Uploader, _something_waits


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file here were large enough to be dropped."""
    monkeypatch.setattr("mltrack.store.upload.SMALL_BYTES", -1)


def _go_to(root: Path, place: str, drop_local: bool = True) -> None:
    with open_store(str(root)) as store:
        set_destination(store.database, store.root, Destination(place, drop_local))


def _name(run_id: str, path: str, content: bytes) -> str:
    return object_name(run_id, path, hashlib.sha256(content).hexdigest())


def _names(place: str) -> list[str]:
    return sorted(found.name for found in open_objects(place).listing() if found.name != MARKER)


def _sender(root: Path) -> Uploader:
    return Uploader(str(root))


def _log(path: str, content: str) -> None:
    """Log a file into the open run, without any companion."""
    run = mltrack.active_run()
    assert run is not None
    run.sending = float("inf")
    mltrack.log_text(content, path)


def _gc(root: Path, dry: bool = False) -> Freed:
    with open_store(str(root)) as store:
        store.refresh(None)
        return store.gc_objects(dry)


def _away(root: Path, run_id: str, path: str) -> bytes:
    """What the recorded copy of an artifact holds, compared with what was logged."""
    with open_store(str(root)) as store:
        store.refresh(None)
        (copy,) = (copy for copy in copies(store.database, store.root, run_id) if copy.path == path)
    target = Path("fetched")
    target.unlink(missing_ok=True)
    fetch(copy, target)
    return target.read_bytes()


def test_another_machine_cannot_write_over_what_was_proven(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place)
    with mltrack.start_run(system_metrics=False) as run:
        _log("last.ckpt", "one")
        first, second = _sender(store_root), _sender(store_root)
        put, meanwhile = ObjectStore.put, [True]

        def slowly(self: ObjectStore, file: Any, name: str, *more: Any) -> str:
            if name.endswith("last.ckpt") and meanwhile and meanwhile.pop():
                _log("last.ckpt", "two")
                assert second.send().dropped == 1
            return put(self, file, name, *more)

        monkeypatch.setattr(ObjectStore, "put", slowly)
        assert first.send().dropped == 0
        assert _away(store_root, run.run_id, "last.ckpt") == b"two"
        # What was logged before and is logged again is there again.
        _log("last.ckpt", "one")
        _sender(store_root).send()
        assert _away(store_root, run.run_id, "last.ckpt") == b"one"
    assert _names(s3_place) == sorted(_name(run.run_id, "last.ckpt", text) for text in (b"one", b"two"))


def test_a_version_that_gc_removed_is_sent_again_when_it_is_logged_again(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place)
    monkeypatch.setattr(object_gc, "UNNAMED_SECONDS", -60)
    with mltrack.start_run(system_metrics=False) as run:
        for text in ("one", "two"):
            _log("last.ckpt", text)
            _sender(store_root).send()
        assert _gc(store_root).count_by_kind == {"objects that no run names": 1}
        assert _names(s3_place) == [_name(run.run_id, "last.ckpt", b"two")]
        _log("last.ckpt", "one")
        assert _sender(store_root).send().dropped == 1
        assert _away(store_root, run.run_id, "last.ckpt") == b"one"


def test_a_file_that_takes_the_place_of_one_that_is_dropped_stays(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place)
    with mltrack.start_run(system_metrics=False) as run:
        _log("last.ckpt", "one")
        path, rename, meanwhile = run.folder / "artifacts" / "last.ckpt", os.rename, [True]

        def late(source: Any, target: Any) -> None:
            if Path(source) == path and meanwhile and meanwhile.pop():
                _log("last.ckpt", "two")
            rename(source, target)

        monkeypatch.setattr(os, "rename", late)
        assert _sender(store_root).send().dropped == 0
        assert path.read_text() == "two" and [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]
        assert _sender(store_root).send().dropped == 1


def test_gc_takes_nothing_for_unnamed_while_records_are_not_read(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place)
    with mltrack.start_run(system_metrics=False) as run:
        _log("a.bin", "x")
        spare = run_folder(store_root, run.run_id) / "spare"
        spare.write_bytes(b"y")
    _sender(store_root).send()
    with spare.open("rb") as file:
        open_objects(s3_place).put(file, f"{run.run_id}/artifacts/spare")
    spare.unlink()
    assert not _gc(store_root).count_by_kind, "it is too young"
    monkeypatch.setattr(object_gc, "UNNAMED_SECONDS", -60)
    for path in store_root.glob("mltrack.db*"):
        path.unlink()
    monkeypatch.setattr(object_gc, "_REFRESH_SECONDS", 0.0)
    with open_store(str(store_root)) as store:
        freed = store.gc_objects()
    assert not freed.count_by_kind and "Not all journals are read" in freed.problems[0]
    monkeypatch.setattr(object_gc, "_REFRESH_SECONDS", 60.0)
    with open_store(str(store_root)) as store:
        store.refresh(None, everything=True)
        (journal,) = (
            path
            for path in run.folder.glob("meta.*")
            if b"artifact_copy" not in path.read_bytes() and b'"artifact"' in path.read_bytes()
        )
        journal.rename(store_root / journal.name)
        freed = store.gc_objects()
        assert not freed.count_by_kind and "not all journals of those runs are here" in freed.problems[0]
        (store_root / journal.name).rename(journal)
        freed = store.gc_objects()
        assert freed.count_by_kind == {"objects that no run names": 1} and not freed.problems
    assert _names(s3_place) == [_name(run.run_id, "a.bin", b"x")]


def test_a_copy_of_a_store_removes_nothing(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place)
    monkeypatch.setattr(object_gc, "UNNAMED_SECONDS", -60)
    with mltrack.start_run(system_metrics=False) as run:
        _log("a.bin", "x")
        _sender(store_root).send()
        twin = store_root.parent / "twin"
        shutil.copytree(store_root, twin)
        _log("b.bin", "y")
    _sender(store_root).send()
    there = _names(s3_place)
    assert len(there) == 2
    freed = _gc(twin)
    assert not freed.count_by_kind and "belongs to another store" in freed.problems[0]
    with open_store(str(twin)) as store:
        monkeypatch.setattr("mltrack.store.client.shipping.start_uploader", lambda *words: None)
        store.purge([run.run_id])
    sender = _sender(twin)
    assert sender.send().removed == 0 and not _something_waits(sender)
    assert not _gc(twin).count_by_kind and _names(s3_place) == there
    open_objects(s3_place).remove([MARKER])  # a person says that the copy has taken the first one's place
    assert _gc(twin).count_by_kind == {"objects of purged runs": 2}
    assert not _names(s3_place)
    assert "belongs to another store" in _gc(store_root).problems[0]


def test_uploads_of_others_in_the_same_bucket_go_on(store_root: Path, s3_place: str) -> None:
    _go_to(store_root, s3_place)
    with mltrack.start_run(system_metrics=False) as run:
        _log("a.bin", "x")
    _sender(store_root).send()
    objects = open_objects(s3_place)
    bucket, prefix = s3_place.removeprefix("s3://").split("/", 1)
    ours = f"{run.run_id}/artifacts/0123456789abcdef/model.bin"
    for name in ("tool/film.mkv", f"{'0' * 32}/artifacts/x", ours, ours):
        objects._fs.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{prefix}/{name}")
    one, two = objects.unfinished(time.time() + 60, run.run_id)
    objects.abort(one)
    assert objects.unfinished(time.time() + 60, run.run_id) == [two], "just the one that was found"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_gc, "PART_SECONDS", -60)
        assert _gc(store_root).count_by_kind == {"uploads that broke off": 1}
    left = {upload.name for upload in objects.unfinished(time.time() + 60)}
    assert left == {f"{'0' * 32}/artifacts/x", "tool/film.mkv"}


class _Google:
    """A file system whose files appear when they are closed, as those of Google's do."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}

    def open(self, path: str, mode: str, block_size: Any) -> AbstractBufferedFile:
        return _GoogleFile(self, path, mode, block_size=block_size)

    def invalidate_cache(self, path: str) -> None:
        pass

    def _parent(self, path: str) -> str:
        return path


class _GoogleFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> Any:
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.there[self.path] = b"".join(self.parts)
        return True


def test_half_of_a_file_never_appears_at_googles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = _Google()
    monkeypatch.setattr("mltrack.store.object_store._file_system", lambda scheme: system)
    monkeypatch.setattr("mltrack.store.object_store.missing_extra", lambda url: "")
    objects = ObjectStore("gs://bucket/x")
    path = tmp_path / "big"
    path.write_bytes(b"y" * (20 << 20))
    looks = iter([False] * 4 + [True])
    with path.open("rb") as file, pytest.raises(StoreUnavailable):
        objects.put(file, "model", lambda: next(looks))
    assert not system.there
    with path.open("rb") as file:
        objects.put(file, "model", lambda: False, "0" * 64)
        assert not system.there, "other bytes than were promised"
        file.seek(0)
        objects.put(file, "model")
    assert [len(content) for content in system.there.values()] == [20 << 20]


def test_an_address_that_is_away_holds_up_no_other(store_root: Path, s3_place: str) -> None:
    away = "s3://there-is-no-such-bucket/x"
    with open_store(str(store_root)) as store:
        chosen = Destination(s3_place, drop_local=True, experiments={"away": away})
        set_destination(store.database, store.root, chosen)
    ids: list[str] = []
    for experiment in ("away", "Default"):
        with mltrack.start_run(experiment=experiment, system_metrics=False) as run:
            _log("a.bin", "x")
            ids.append(run.run_id)
    with open_store(str(store_root)) as store, store.database.transaction():
        store.database.set_setting("artifact_removals", f'["{away}/{"0" * 32}"]')
    with pytest.raises(StoreUnavailable, match="there-is-no-such-bucket"):
        _sender(store_root).send()
    assert _names(s3_place) == [_name(ids[1], "a.bin", b"x")]


def test_a_file_that_is_not_what_was_logged_is_not_even_sent(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place)
    with mltrack.start_run(system_metrics=False) as run:
        _log("a.bin", "as logged")
    (run.folder / "artifacts" / "a.bin").write_text("AS LOGGED")
    sent: list[str] = []
    put = ObjectStore.put
    monkeypatch.setattr(
        ObjectStore, "put", lambda self, file, name, *more: sent.append(name) or put(self, file, name, *more)
    )
    sender = _sender(store_root)
    assert sender.send().changed == 1
    assert sent == [MARKER] and not _something_waits(sender), "or the companion would never end"
    (run.folder / "artifacts" / "a.bin").write_text("as logged")
    assert sender.send().files == 1, "as it is again"


def test_a_file_that_cannot_be_removed_is_not_read_back_for_ever(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place, drop_local=False)
    with mltrack.start_run(system_metrics=False) as run:
        _log("a.bin", "x")
    _sender(store_root).send()
    _go_to(store_root, s3_place)
    read: list[str] = []
    digest, rename = ObjectStore.digest, os.rename
    path = run.folder / "artifacts" / "a.bin"

    def refused(source: Any, target: Any) -> None:
        if Path(source) == path:
            raise PermissionError(13, "not yours")
        rename(source, target)

    monkeypatch.setattr(
        ObjectStore, "digest", lambda self, name, stopped: read.append(name) or digest(self, name, stopped)
    )
    monkeypatch.setattr(os, "rename", refused)
    sender = _sender(store_root)
    assert [sender.send().dropped for _ in range(3)] == [0, 0, 0]
    assert len(read) == 1 and path.read_text() == "x"


@pytest.mark.parametrize("ahead_ms", [3_600_000, 0])
def test_records_of_copies_that_are_none(store_root: Path, s3_place: str, ahead_ms: int) -> None:
    """A removal in the future, and a copy at an address that nobody named."""
    _go_to(store_root, s3_place)
    with mltrack.start_run(system_metrics=False) as run:
        _log("a.bin", "x")
    journal = Journal(store_root, run.run_id, ATTEMPT, role=ROLE)
    place = "" if ahead_ms else "s3://elsewhere/x"
    now_ms = int(time.time() * 1000) + ahead_ms
    digest = hashlib.sha256(b"x").hexdigest()
    journal.meta("artifact_copy", time_ms=now_ms, path="a.bin", sha256=digest, place=place)
    journal.meta("close", points=0)
    journal.close()
    sender = _sender(store_root)
    assert [sender.send().files for _ in range(3)] == [1, 0, 0]
    assert not _something_waits(sender)
    assert _names(s3_place) == [_name(run.run_id, "a.bin", b"x")]
    assert (run.folder / "artifacts" / "a.bin").exists() == bool(ahead_ms)
