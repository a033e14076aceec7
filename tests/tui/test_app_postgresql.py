"""The app on a PostgreSQL store: its screens, what others change at once, and a database that is away for a while."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from tests.tui.conftest import command_environment

from mltrack.store import open_store
from mltrack.store.database import open_postgresql

OpenApp = Callable[..., Any]
TRAINING = """
import os, sys, mltrack
with mltrack.start_run(run_name=sys.argv[1]):
    mltrack.log_param("lr", 0.1)
    for step in range(50):
        mltrack.log_metric("loss", 1 / (step + 1), step)
    print(os.getpid(), flush=True)
    if sys.argv[2:]:
        sys.stdin.readline()
"""


@contextmanager
def server(url: str) -> Iterator[psycopg.Connection[Any]]:
    """The database's server, by another of its databases."""
    other = urlsplit(url)._replace(path="/postgres").geturl()
    with psycopg.connect(other, autocommit=True, connect_timeout=10) as connection:
        yield connection


def connected(url: str) -> int:
    name = urlsplit(url).path[1:]
    with server(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)
        ).fetchone()
        assert row is not None
        return int(row[0])


def away(url: str, gone: bool) -> None:
    """Let nobody in any more, and throw out who is; or let them in again."""
    name = urlsplit(url).path[1:]
    with server(url) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(not gone).lower()}'.encode())
        if gone:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )


@pytest.fixture
def environment(store_root: Path, tmp_path: Path, postgres_url: str) -> dict[str, str]:
    address = postgres_url.replace("mltrack@", "mltrack:a-password@")
    return command_environment(MLTRACK_STORE=address, MLTRACK_SPOOL=str(tmp_path / "spool"))


def train(environment: dict[str, str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, name], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_the_app_on_postgresql(environment: dict[str, str], postgres_url: str, open_app: OpenApp) -> None:
    train(environment, "first")
    app = open_app(environment, columns=100, lines=30)
    app.until("first")
    # A list, a run's screen, a tag; and two connections at most.
    app.press("\r").until("loss")
    app.press("q").until("first")
    app.press("T").until("[Tt]ag")
    app.press("seen=yes\r").until("Tagged")
    assert connected(postgres_url) <= 2
    # What somebody else changes comes by itself.
    with open_store(postgres_url) as store:
        assert store.run("first").tags["seen"] == "yes"
        store.rename(store.run("first").run_id, "renamed elsewhere")
    app.until("renamed elsewhere")
    # Away: one line, the screen stays; there again: it goes on, with what has come.
    away(postgres_url, True)
    app.until("is away")
    away(postgres_url, False)
    app.until("The store is there again")
    train(environment, "second")
    app.until("second")
    app.press("Q")
    assert app.finish() == 0 and app.left_as_found()
    assert "a-password" not in app.output


def test_no_line_shows_the_password_of_an_address(environment: dict[str, str], open_app: OpenApp) -> None:
    train(environment, "first")
    address = environment.pop("MLTRACK_STORE")
    app = open_app(environment, "--store", address, columns=160, lines=30)
    app.until("first")
    # The command that does the same says whom to ask, and the tag that it sets goes to the same store.
    app.until(r"\$ mltrack --store postgresql://mltrack@")
    app.press("T").until("[Tt]ag")
    app.press("seen=yes\r").until("Tagged")
    app.press("\r").until("loss")
    app.press("Q")
    assert app.finish() == 0
    assert "a-password" not in app.output
    with open_store(address) as store:
        assert store.run("first").tags["seen"] == "yes"


def test_a_training_holds_no_connection(environment: dict[str, str], postgres_url: str) -> None:
    open_store(postgres_url).close()
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING, "one", "waits"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        pid = int(process.stdout.readline())
        assert [each for each in psutil.Process(pid).net_connections() if each.raddr] == []
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_a_change_is_told_and_a_broken_connection_made_anew(postgres_url: str) -> None:
    ours, theirs = open_postgresql(postgres_url), open_postgresql(postgres_url)
    assert ours.listen() and not ours.heard()
    with theirs.transaction():
        theirs.next_seq()
    assert ours.heard() and not ours.heard()
    with pytest.raises(RuntimeError), theirs.transaction():
        theirs.next_seq()
        raise RuntimeError  # what is not committed is no change
    assert not ours.heard()
    away(postgres_url, True)
    from mltrack.store.errors import StoreUnavailable

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="is away"):
            ours.setting("seq")
    away(postgres_url, False)
    assert ours.setting("seq") == "1"
    with theirs.transaction():
        theirs.next_seq()
    assert ours.heard()
    # Half a transaction is not continued on another connection.
    with pytest.raises(StoreUnavailable), ours.transaction():
        ours.next_seq()
        away(postgres_url, True)
        away(postgres_url, False)
        ours.set_setting("half", "1")
    assert ours.setting("half") == "" and ours.setting("seq") == "2"
    with pytest.raises(StoreUnavailable), ours.transaction():
        ours.set_setting("half", "1")
        away(postgres_url, True)
        away(postgres_url, False)
    assert ours.setting("half") == ""
    ours.close()
    theirs.close()
