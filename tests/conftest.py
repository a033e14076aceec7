"""What every test shares: an environment of its own, the services, and no silent skips under CI."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from hypothesis import settings

import mltrack
from mltrack.store import Store
from mltrack.store.client.location import spool_folder
from mltrack.store.records import FoldReport

BENCHMARKS = Path(__file__).parent / "bench"

# Shared machines stall for seconds: speed is measured in tests/bench, never by the clock of a property test.
settings.register_profile("mltrack", deadline=None)
settings.load_profile("mltrack")

# A runner that works in the background may hand down that interrupts are ignored; every process that tests start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Variables that change which store, run or rank a process takes itself for. Prefixes, because launchers add new ones.
FOREIGN_PREFIXES = (
    "MLTRACK_",
    "MLFLOW_",
    "XDG_",
    "SLURM_",
    "OMPI_",
    "PMI_",
    "PMIX_",
    "TORCHELASTIC_",
    "GIT_",
)
FOREIGN_NAMES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "TMUX",
    "TMUX_PANE",
    "LINES",
    "COLUMNS",
)


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Make `home` the whole world of this process and its children: no store, run, rank or git identity of others."""
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES:
            monkeypatch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    for name, folder in (("DATA", "share"), ("CONFIG", "config"), ("CACHE", "cache"), ("STATE", "state")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / folder))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ann Example")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.org")


@pytest.fixture(scope="session", autouse=True)
def _no_test_touches_the_users_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory.mktemp("home"))
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_kind" in metafunc.fixturenames:
        from tests.databases import kinds_for

        metafunc.parametrize("database_kind", kinds_for(metafunc.definition.nodeid), indirect=True)


@pytest.fixture(scope="module")
def database_kind(request: pytest.FixtureRequest) -> str:
    """`sqlite` or `postgresql`: whatever stores the fixtures give are of it (tests/databases.py).

    Of a module, so that tests of a file may share a store: those of an engine run one after another.
    """
    # Without a parameter where only another fixture asks for a store.
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def store_address(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of an empty store (not created yet): a folder's, or a PostgreSQL database's."""
    if database_kind == "sqlite":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store_root(store_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty store (not created yet) that MLTRACK_STORE names, in a home and folder of its own.

    Of a store on PostgreSQL it is the spool, where journals wait, and artifacts and logs stay: `open_store()` opens either.
    """
    isolate(monkeypatch, tmp_path / "home")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("MLTRACK_STORE", store_address)
    mltrack.set_store(None)  # what another test of this process chose
    return folder_of(store_address)


def folder_of(address: str) -> Path:
    """Where the journals of a store are."""
    return spool_folder(address) if address.startswith("postgresql://") else Path(address)


def take_in(store: Store) -> FoldReport:
    """All that is logged by now, also while a companion of the training is at it: who comes second takes in nothing."""
    deadline = time.monotonic() + 60
    while (report := store.refresh(None)).folded_by_other:
        assert time.monotonic() < deadline, "another one folds all the time"
        time.sleep(0.02)
    return report


@contextmanager
def new_database() -> Iterator[str]:
    """The URL of an empty PostgreSQL database that is dropped in the end."""
    server = os.environ.get("MLT_PG_URL")
    if not server:
        pytest.skip(
            "needs PostgreSQL: run `export $(tests/services/start-postgres.sh)`, or set MLT_PG_URL to a server "
            "where databases may be created"
        )
    import psycopg
    from psycopg import sql

    name = f"mltrack_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True, connect_timeout=10) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database that is dropped after the test."""
    with new_database() as url:
        yield url
        end_companions("MLTRACK_STORE", url)


@pytest.fixture
def s3_place(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address in an empty bucket of an S3 API, whose keys are in the environment."""
    address = os.environ.get("MLT_S3_URL")
    if not address:
        pytest.skip("needs an S3 API: run `export $(tests/services/start-s3.sh)`")
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    import urllib3

    bucket = f"mltrack-{secrets.token_hex(6)}"
    # The API takes any signature; s3fs would be loaded here by every test otherwise.
    signed = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    }
    assert urllib3.request("PUT", f"{address}/{bucket}", headers=signed).status == 200
    yield f"s3://{bucket}/pre fix"
    end_companions("HOME", os.environ["HOME"])


def end_companions(variable: str, value: str) -> None:
    """End those of this test, which go on for a minute after their last work: they have this variable of it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                process.cmdline()[-1:] in (["mltrack.store.upload"], ["mltrack.store.sync"])
                and process.environ().get(variable) == value
            ):
                process.terminate()


@pytest.fixture
def gs_place(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address in an empty bucket of a Google Cloud Storage API, which is in the environment as for Google's own tools."""
    address = os.environ.get("MLT_GCS_URL")
    if not address:
        pytest.skip(
            "needs a Google Cloud Storage API: run `export $(tests/services/start-gcs.sh)`, which installs an emulator with pip"
        )
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # nor ask the network whether this is a machine of theirs
    import urllib3

    bucket = f"mltrack-{secrets.token_hex(6)}"
    assert urllib3.request("POST", f"{address}/storage/v1/b", json={"name": bucket}).status == 200
    yield f"gs://{bucket}/pre fix"
    end_companions("HOME", os.environ["HOME"])


@pytest.fixture(params=["s3", "gs"])
def object_place(request: pytest.FixtureRequest) -> str:
    """An address in an empty bucket, of each kind of object store."""
    return str(request.getfixturevalue(f"{request.param}_place"))


def tool_environment(name: str) -> Path:
    """The interpreter of a virtual environment with other people's tools (tests/services/make-environment.sh)."""
    python = os.environ.get(f"MLT_ENV_{name.upper()}")
    if not python:
        pytest.skip(
            f"needs the environment {name}: run `export $(tests/services/make-environment.sh {name})`, which installs it with pip"
        )
    return Path(python)


@pytest.fixture(scope="session")
def mlflow_python() -> Path:
    """The interpreter of an environment with today's MLflow and scikit-learn."""
    return tool_environment("mlflow")


@pytest.fixture(scope="session")
def flavors_python() -> Path:
    """The interpreter of an environment with today's MLflow and every library whose models we know."""
    return tool_environment("flavors")


@pytest.fixture(scope="session")
def flavors2_python() -> Path:
    """The same with the last MLflow 2.x."""
    return tool_environment("flavors2")


@pytest.fixture(scope="session")
def mlflow2_python() -> Path:
    """The interpreter of an environment with a client of MLflow 2.x."""
    return tool_environment("mlflow2")


@pytest.fixture(scope="session")
def tensorboard_python() -> str:
    """The interpreter of an environment with TensorBoard and tensorboardX."""
    return str(tool_environment("tensorboard"))


@pytest.fixture(scope="session")
def wandb_python() -> str:
    """The interpreter of an environment with W&B's client."""
    return str(tool_environment("wandb"))


@pytest.fixture(scope="session")
def trackio_python() -> str:
    """The interpreter of an environment with trackio."""
    return str(tool_environment("trackio"))


@pytest.fixture(scope="session")
def lightning_python() -> str:
    """The interpreter of an environment with Lightning and torch."""
    return str(tool_environment("lightning"))


@pytest.fixture(scope="session")
def fuzz_python() -> str:
    """The interpreter of an environment with atheris."""
    return str(tool_environment("fuzz"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if BENCHMARKS in item.path.parents:
            item.add_marker("long")


# Under CI a test that does not run is a test that does not hold: a skip, of a test or of a whole file, is a failure.


def _fail_instead(report: pytest.TestReport | pytest.CollectReport) -> None:
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("CI", "").lower() not in ("", "0", "false")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"under CI a skip is a failure: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_instead(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_instead(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a test ran again: passing the second time is no proof that nothing is wrong."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"again: {report.nodeid}", "_")
        terminalreporter.write_line("\n".join(report.longreprtext.splitlines()[-40:]))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs: run the tests as root in a container")
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"needs the right to mount a tmpfs ({done.stderr.strip()}): run in a container with SYS_ADMIN"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
