"""Path parameters that lie in an object store, from a real S3 API."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.projects.launching import console, launch, wait_for_end, wait_until, write_project

from mltrack.projects.errors import LaunchError, ProjectError
from mltrack.projects.inputs import download, place_for, remove
from mltrack.store import open_store
from mltrack.store.client import destination
from mltrack.store.client.destination import Destination
from mltrack.store.copies import set_destination
from mltrack.store.object_store import open_objects


def _put(place: str, names: dict[str, bytes]) -> None:
    objects = open_objects(place)
    for name, content in names.items():
        Path("it").write_bytes(content)
        objects.put(Path("it").open("rb"), name)


def test_a_file_and_a_folder_come_as_they_lie_there(object_place: str) -> None:
    _put(object_place, {"data/a b.csv": b"1,2", "data/deep/c.csv": b"3", "data.csv": b"other"})
    said: list[str] = []
    file = place_for("table", f"{object_place}/data/a b.csv")
    download(f"{object_place}/data/a b.csv", file, said.append, lambda: False)
    assert file.name == "a b.csv" and file.read_bytes() == b"1,2"
    assert not file.stat().st_mode & stat.S_IWUSR
    folder = place_for("tables", f"{object_place}/data")
    download(f"{object_place}/data", folder, said.append, lambda: False)
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert found == {"a b.csv": b"1,2", "deep/c.csv": b"3"}
    assert said[-1] == "downloaded 4 bytes"
    remove(folder)
    assert not folder.parent.exists()


def test_what_is_not_there_is_one_sentence(s3_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"{s3_place}/nothing", "s3://no-such-bucket-here/x"):
        with pytest.raises(LaunchError, match="could not be downloaded"):
            download(url, place_for("p", url), lambda sentence: None, lambda: False)
    with monkeypatch.context() as nobody:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            nobody.delenv(name)
        nobody.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(LaunchError, match="redentials"):
            download(f"{s3_place}/x", place_for("p", f"{s3_place}/x"), lambda sentence: None, lambda: False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(LaunchError, match="could not be downloaded"):
        download(f"{s3_place}/x", place_for("p", f"{s3_place}/x"), lambda sentence: None, lambda: False)


def test_without_its_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(destination._MODULES, "gs", ("not_installed",))
    with pytest.raises(ProjectError, match=r"pip install 'mltrack-tui\[gcs\]'"):
        place_for("p", "gs://bucket/x")


def test_a_job_reads_from_there_and_its_files_go_there(
    store_root: Path, tmp_path: Path, object_place: str
) -> None:
    _put(object_place, {"in/numbers.txt": b"1 2 3"})
    with open_store(str(store_root)) as store:
        set_destination(store.database, store.root, Destination(f"{object_place}/out"))
    project = write_project(
        tmp_path / "project",
        MLproject="""\
            name: far
            entry_points:
              main:
                parameters: {numbers: path}
                command: python train.py {numbers}
            """,
        # As in a container, where what the job itself starts ends with it.
        train_DOT_py="""\
            import sys, mltrack
            with mltrack.start_run() as run:
                run.sending = float("inf")
                mltrack.log_text(open(sys.argv[1]).read() + " read", "out.txt")
            """,
    )
    run_id = launch(project, "local", params={"numbers": f"{object_place}/in/numbers.txt"})
    assert wait_for_end(run_id).status == "FINISHED", console(run_id)
    objects = open_objects(f"{object_place}/out")

    def sent() -> list[str]:
        return [found.name for found in objects.listing() if found.name.startswith(run_id)]

    (name,) = wait_until(sent, "the companion of the supervisor sent it")
    assert b"".join(objects.stream(name)) == b"1 2 3 read"
