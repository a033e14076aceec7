"""Artifacts in a real S3 API: sent in the background, whole, proven, resumed, read from there, and gone with their run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mltrack
from mltrack.store import open_store
from mltrack.store.client import destination
from mltrack.store.client.destination import (
    Destination,
    DestinationError,
    check_address,
    object_name,
    parse,
    to_text,
)
from mltrack.store.client.journal import run_folder
from mltrack.store.copies import set_destination
from mltrack.store.errors import StoreUnavailable
from mltrack.store.object_owner import MARKER
from mltrack.store.object_store import ObjectStore, open_objects
from mltrack.store.records import RecordedFile
from mltrack.store.upload import Sent, send_now

SERVICES = Path(__file__).parents[1] / "services"


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file here were large enough to be dropped."""
    monkeypatch.setattr("mltrack.store.upload.SMALL_BYTES", -1)


def _go_to(
    root: Path, place: str, drop_local: bool = False, experiments: dict[str, str] | None = None
) -> None:
    with open_store(str(root)) as store:
        set_destination(store.database, store.root, Destination(place, drop_local, experiments or {}))


def _name(run_id: str, path: str, content: bytes) -> str:
    return object_name(run_id, path, hashlib.sha256(content).hexdigest())


def _names(place: str) -> list[str]:
    return sorted(found.name for found in open_objects(place).listing() if found.name != MARKER)


def _files(root: Path, run_id: str) -> dict[str, RecordedFile]:
    with open_store(str(root)) as store:
        store.refresh(None)
        return {file.path: file for file in store.details(run_id).files}


def _logged(name: str, files: dict[str, bytes], experiment: str = "Default") -> str:
    """A run with these artifacts, logged without any companion."""
    with mltrack.start_run(run_name=name, experiment=experiment, system_metrics=False) as run:
        run.sending = float("inf")
        for path, content in files.items():
            source = Path("made", path)
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(content)
            mltrack.log_artifact(source, str(Path(path).parent) if "/" in path else None)
    return run.run_id


def _send(root: Path) -> Sent:
    done = send_now(str(root), print)
    assert done is not None
    return done


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this never came"
        time.sleep(0.05)


def test_what_a_training_logs_is_sent_in_the_background(store_root: Path, object_place: str) -> None:
    _go_to(store_root, object_place, drop_local=True)
    code = (
        "import mltrack, sys\nwith mltrack.start_run(run_name='train') as run:\n"
        " mltrack.log_text('hello' * 20_000, 'notes/a b?c.txt')\n mltrack.log_metric('loss', 1.0)\n print(run.run_id)\n"
        " assert not {'fsspec', 's3fs', 'orjson', 'numpy'} & set(sys.modules)"
    )
    run_id = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    _until(lambda: any(file.copy for file in _files(store_root, run_id).values()))
    (file,) = _files(store_root, run_id).values()
    name = _name(run_id, file.path, b"hello" * 20_000)
    assert file.copy == f"{object_place}/{name}" and name.endswith("/notes/a b?c.txt")
    folder = run_folder(store_root, run_id)
    _until(lambda: not (folder / "artifacts" / file.path).exists())
    assert b"".join(open_objects(object_place).stream(name)) == b"hello" * 20_000


def test_a_broken_off_upload_goes_on_where_it_was(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mltrack.store import object_store

    monkeypatch.setattr(object_store, "PART_BYTES", 5 << 20)
    _go_to(store_root, s3_place)
    content = os.urandom((5 << 20) * 3 + 17)
    run_id = _logged("big", {"model.bin": content})
    objects = open_objects(s3_place)
    name = _name(run_id, "model.bin", content)
    looks = iter([False, False, True])
    with pytest.raises(StoreUnavailable):
        objects.put(
            (run_folder(store_root, run_id) / "artifacts" / "model.bin").open("rb"), name, lambda: next(looks)
        )
    assert not list(objects.listing()), "half of a file is nothing"
    assert [upload.name for upload in objects.unfinished(time.time() + 60)] == [name]
    calls: list[str] = []
    fs = type(objects._fs)  # counted is what goes over the wire, with the real API behind it
    call = fs.call_s3
    monkeypatch.setattr(
        fs, "call_s3", lambda self, method, *a, **k: calls.append(method) or call(self, method, *a, **k)
    )
    assert (_send(store_root).files, calls.count("upload_part")) == (1, 2)
    assert objects.digest(name) == hashlib.sha256(content).hexdigest()
    assert not objects.unfinished(time.time() + 60)
    assert _send(store_root).files == 0, "what is there is not sent again"


def test_another_file_of_the_same_name_does_not_go_on_with_the_old_one(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mltrack.store import object_store

    monkeypatch.setattr(object_store, "PART_BYTES", 5 << 20)
    objects = open_objects(s3_place)
    first, second = Path("first"), Path("second")
    first.write_bytes(b"a" * (12 << 20))
    second.write_bytes(b"b" * (12 << 20))
    looks = iter([False, False, True])
    with pytest.raises(StoreUnavailable):
        objects.put(first.open("rb"), "it", lambda: next(looks))
    digest = objects.put(second.open("rb"), "it")
    assert objects.digest("it") == digest == hashlib.sha256(second.read_bytes()).hexdigest()


@pytest.mark.usefixtures("nothing_is_small")
def test_a_file_that_is_not_what_was_logged_stays_here(
    store_root: Path, object_place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _go_to(store_root, object_place, drop_local=True)
    run_id = _logged("r", {"a.txt": b"as logged", "b.txt": b"other"})
    path = run_folder(store_root, run_id) / "artifacts" / "a.txt"
    path.write_bytes(b"AS LOGGED")
    done = _send(store_root)
    assert (done.files, done.changed, done.dropped) == (1, 1, 1)
    assert "not what was logged" in capsys.readouterr().out
    assert path.read_bytes() == b"AS LOGGED"
    assert _names(object_place) == [_name(run_id, "b.txt", b"other")]


def test_a_copy_that_differs_is_not_believed(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place, drop_local=True)
    run_id = _logged("r", {"a.txt": b"as logged"})
    monkeypatch.setattr(ObjectStore, "digest", lambda self, name, stopped: "0" * 64)
    with pytest.raises(StoreUnavailable, match="other bytes"):
        _send(store_root)
    assert (run_folder(store_root, run_id) / "artifacts" / "a.txt").exists()
    assert not _files(store_root, run_id)["a.txt"].copy


@pytest.mark.usefixtures("nothing_is_small")
def test_a_file_logged_again_is_sent_again(store_root: Path, object_place: str) -> None:
    _go_to(store_root, object_place, drop_local=True)
    with mltrack.start_run(system_metrics=False) as run:
        run.sending = float("inf")
        mltrack.log_text("one", "a.txt")
        assert _send(store_root).files == 1
        mltrack.log_text("two", "a.txt")
        file = _files(store_root, run.run_id)["a.txt"]
        assert not file.copy and file.size == 3
        assert _send(store_root).dropped == 1
    assert b"".join(open_objects(object_place).stream(_name(run.run_id, "a.txt", b"two"))) == b"two"
    assert _files(store_root, run.run_id)["a.txt"].copy


def test_experiments_go_to_places_of_their_own(store_root: Path, object_place: str) -> None:
    _go_to(store_root, object_place, experiments={"vision/": f"{object_place}/v", "vision/secret": ""})
    ids = [_logged("r", {"a.txt": b"x"}, name) for name in ("Default", "vision/cifar", "vision/secret")]
    assert _send(store_root).files == 2
    copies = [_files(store_root, run_id)["a.txt"].copy for run_id in ids]
    names = [_name(run_id, "a.txt", b"x") for run_id in ids]
    assert copies == [f"{object_place}/{names[0]}", f"{object_place}/v/{names[1]}", ""]


def test_what_was_sent_is_known_to_a_database_built_anew(store_root: Path, object_place: str) -> None:
    _go_to(store_root, object_place, drop_local=True)
    run_id = _logged("r", {"a.txt": b"x"})
    _send(store_root)
    (store_root / "mltrack.db").unlink()
    with open_store(str(store_root)) as store:
        store.refresh(None, everything=True)
        assert [file.copy != "" for file in store.details(run_id).files] == [True]


def test_an_object_store_that_is_away_costs_a_sentence(
    store_root: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _go_to(store_root, s3_place, drop_local=True)
    _logged("r", {"a.txt": b"x"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        _send(store_root)
    done = subprocess.run(
        [sys.executable, "-m", "mltrack.tui.cli", "where"], capture_output=True, text=True, check=True
    )
    assert "1 files, 1 B: " in done.stdout.replace("  ", " ")
    monkeypatch.undo()


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/x", "s3://key@bucket", "https://bucket/x", "/folder", "s3:///x", "s3://b/../c",
        "sftp://ann:word@host/x", "sftp://host", "s3://b/x?versionId=3",
    ],
)  # fmt: skip
def test_addresses_that_are_not_taken(address: str) -> None:
    with pytest.raises(DestinationError) as told:
        check_address(address)
    assert "secret" not in str(told.value) and "word@" not in str(told.value)


def test_the_file_says_what_was_chosen() -> None:
    chosen = Destination('s3://b/a\\"c', True, {'a "b"/': "gs://x", "stay": ""})
    assert parse(to_text(chosen), "it") == chosen
    assert parse("", "it") == Destination()
    with pytest.raises(DestinationError, match="Correct it there"):
        parse("url = 'ftp://x'", "it")


def test_without_its_package_one_sentence_names_the_command(
    store_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _go_to(store_root, "gs://bucket")
    monkeypatch.setitem(destination._MODULES, "gs", ("not_installed",))
    with mltrack.start_run(system_metrics=False):
        mltrack.log_text("x", "a.txt")
        mltrack.log_text("x", "b.txt")
    said = capsys.readouterr().err
    assert said.count("pip install 'mltrack-tui[gcs]'") == 1


@pytest.fixture
def sftp_place(tmp_path: Path, store_root: Path, request: pytest.FixtureRequest) -> str:
    """An address at the test machine's own sshd, whose key this user knows."""
    started = {**os.environ, "MLT_SSH_DIR": str(tmp_path / "sshd")}
    done = subprocess.run(
        [SERVICES / "start-sshd.sh"], env=started, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        pytest.skip(f"needs sshd: {done.stderr.strip()}")
    config = dict(line.split("=", 1) for line in done.stdout.split())["MLT_SSH_CONFIG"]
    request.addfinalizer(lambda: subprocess.run([SERVICES / "stop-sshd.sh"], env=started, check=True))
    ssh = Path.home() / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "config").write_text(Path(config).read_text())
    subprocess.run(["ssh", "-F", config, "mltbox", "true"], check=True)
    return f"sftp://mltbox{tmp_path}/far"


@pytest.mark.usefixtures("nothing_is_small")
def test_a_host_by_sftp(store_root: Path, sftp_place: str, tmp_path: Path) -> None:
    _go_to(store_root, sftp_place, drop_local=True)
    content = os.urandom(9 << 20)
    run_id = _logged("r", {"a/model.bin": content, "b.txt": b"x"})
    objects = open_objects(sftp_place)
    name = _name(run_id, "a/model.bin", content)
    looks = iter([False, False, True])
    with pytest.raises(StoreUnavailable):
        objects.put(
            (run_folder(store_root, run_id) / "artifacts" / "a" / "model.bin").open("rb"),
            name,
            lambda: next(looks),
        )
    (part,) = (tmp_path / "far" / run_id).glob(".mltrack-*.part")
    assert part.read_bytes() == content[: 8 << 20] and not list(objects.listing())
    assert [upload.name for upload in objects.unfinished(time.time() + 60)] == [f"{run_id}/{part.name}"]
    assert _send(store_root).dropped == 2
    assert objects.head(name, 10) == (content[:10], len(content))
    assert sorted(found.name for found in objects.listing(run_id)) == sorted(
        [name, _name(run_id, "b.txt", b"x")]
    )
    assert objects.remove_below(run_id) == 2
    assert [path.name for path in (tmp_path / "far").iterdir()] == [MARKER]


def test_no_name_of_an_artifact_is_taken_for_a_part(
    store_root: Path, sftp_place: str, tmp_path: Path
) -> None:
    _go_to(store_root, sftp_place)
    files = {".model.part": b"precious", "model": b"x", f".mltrack-{'0' * 24}.part": b"y"}
    run_id = _logged("r", files)
    others = tmp_path / "far" / "film" / ".film.mkv.part"
    others.parent.mkdir(parents=True)
    others.write_bytes(b"not ours")
    assert _send(store_root).files == 3
    objects = open_objects(sftp_place)
    assert not objects.unfinished(time.time() + 60)
    for path, content in files.items():
        assert b"".join(objects.stream(_name(run_id, path, content))) == content
    assert len(_names(sftp_place)) == 4
    # Two who send the same file have parts of their own.
    objects.writer, other = "one", open_objects(sftp_place)
    name, stops = f"{run_id}/artifacts/big", (iter([False, True]), iter([False, True]))
    Path("big").write_bytes(b"z" * (5 << 20))
    for each, looks in zip((objects, other), stops, strict=True):
        with pytest.raises(StoreUnavailable), Path("big").open("rb") as file:
            each.put(file, name, lambda looks=looks: next(looks))
    assert len(objects.unfinished(time.time() + 60)) == 2
    assert objects.remove_below(run_id) == 3 and not (tmp_path / "far" / run_id).exists()
    assert others.exists()


def test_a_host_that_is_not_known_is_refused(sftp_place: str) -> None:
    config = Path.home() / ".ssh" / "config"
    config.write_text(config.read_text().replace("UserKnownHostsFile ", "UserKnownHostsFile /nowhere/"))
    with pytest.raises(StoreUnavailable, match="not found in known_hosts"):
        open_objects(sftp_place)
