"""The laptop: the app here, the store and its worker behind a real sshd, and a line that breaks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tui.conftest import COMMAND, command_environment

import mltrack
from mltrack.store import open_store
from mltrack.store.ssh_address import NotRemote, Remote, remote_of

SERVICES = Path(__file__).parents[1] / "services"
OpenApp = Callable[..., Any]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody whose `ssh` knows the host `mltbox`."""
    if not Path("/usr/sbin/sshd").exists() or shutil.which("ssh") is None:
        pytest.skip("needs an sshd and ssh: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    started = {**os.environ, "MLT_SSH_DIR": str(folder / "sshd")}
    lines = subprocess.run(
        [SERVICES / "start-sshd.sh"], env=started, check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    config = dict(line.split("=", 1) for line in lines)["MLT_SSH_CONFIG"]
    # ssh looks for its configuration in the home of the user list, not in $HOME.
    own = folder / "bin" / "ssh"
    own.parent.mkdir()
    own.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    own.chmod(0o755)
    there = (
        f"env PYTHONPATH={os.environ.get('PYTHONPATH', '')} HOME={folder} {sys.executable} -m mltrack.tui.cli"
    )
    yield command_environment(
        PATH=f"{own.parent}:{os.environ['PATH']}",
        MLTRACK_SSH_COMMAND=there,
        XDG_STATE_HOME=str(folder / "state"),
    )
    subprocess.run([SERVICES / "stop-sshd.sh", "--purge"], env=started, check=True, timeout=30)


@pytest.fixture
def store(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with mltrack.start_run(run_name="far away"):
        for step in range(30):
            mltrack.log_metric("loss", 1 / (step + 1), step)
    monkeypatch.delenv("MLTRACK_STORE")
    return store_root


def ssh_below(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if child.name() == "ssh"]


def test_the_app_over_ssh_and_a_line_that_breaks(box: dict[str, str], store: Path, open_app: OpenApp) -> None:
    app = open_app(box, f"ssh://mltbox{store}", columns=100, lines=30)
    app.until("far away")
    (line,) = ssh_below(app.pid)
    # What is changed here is changed there.
    app.press("T").until("Tag|tag")
    app.press("seen=yes\r").until("Tagged")
    with open_store(str(store)) as opened:
        assert opened.run("far away").tags["seen"] == "yes"
    line.kill()
    app.press("").until("No connection to mltbox.*trying again")
    app.until("Connected to mltbox again")
    # It goes on where it was, with what has come meanwhile.
    environment = {**box, "MLTRACK_STORE": str(store)}
    code = "import mltrack\nwith mltrack.start_run(run_name='newcomer'): mltrack.log_metric('loss', 0.5)"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    app.until("newcomer")
    (line,) = ssh_below(app.pid)
    app.press("!").until("on mltbox: `ssh mltbox` has a shell there")
    app.press("Q")
    assert app.finish() == 0 and app.left_as_found()
    assert not line.is_running()


def test_who_is_not_there_is_one_sentence(box: dict[str, str], open_app: OpenApp) -> None:
    app = open_app(
        {**box, "MLTRACK_SSH_COMMAND": "/nowhere/mltrack"}, "--store", "ssh://mltbox/x", columns=120
    )
    app.until("No connection to mltbox .*/nowhere/mltrack.*trying again")
    app.press("Q")
    assert app.finish() == 0
    wrong = subprocess.run(
        [sys.executable, "-m", "mltrack.tui.entry", "--once", "ssh://-oProxyCommand=touch x/"],
        env=box,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert wrong.returncode != 0 and "names no machine" in wrong.stderr and "Traceback" not in wrong.stderr


def test_another_version_over_there_is_named(box: dict[str, str], store: Path, open_app: OpenApp) -> None:
    there = box["MLTRACK_SSH_COMMAND"].replace(
        f"{sys.executable} -m mltrack.tui.cli",
        f"{sys.executable} -c 'import mltrack; mltrack.__version__ = \"0.0.9\"; import mltrack.tui.cli.main as m; m.main()'",
    )
    app = open_app({**box, "MLTRACK_SSH_COMMAND": there}, f"ssh://mltbox{store}", columns=170)
    app.until(f"mltrack is 0.0.9 here and {re.escape(mltrack.__version__)} where the screen is")
    app.press("Q")
    assert app.finish() == 0


def test_the_command_over_ssh(box: dict[str, str], store: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "--store", f"ssh://mltbox{store}", *words],
            env=box,
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = command("note", "far away", "it's; $(touch /nowhere) `x`\n*")
    assert done.returncode == 0, done.stderr
    assert command("note", "far away").stdout == "it's; $(touch /nowhere) `x`\n*\n"


def test_addresses() -> None:
    assert remote_of("ssh://box/srv/mltrack") == Remote("box", None, "/srv/mltrack")
    assert remote_of("ssh://ann@box:2222/~/runs") == Remote("ann@box", 2222, "~/runs")
    assert remote_of("ssh://box") == remote_of("ssh://box/") == Remote("box", None, "")
    assert remote_of("ssh://[::1]:22/x") == Remote("::1", 22, "/x")
    assert remote_of("/a/folder") is None and remote_of(None) is None
    for wrong in ("ssh:///x", "ssh://-oX=y/x", "ssh://ann:secret@box/x", "ssh://box:no/x", "ssh://a b/x"):
        with pytest.raises(NotRemote):
            remote_of(wrong)


@given(
    path=st.text(st.characters(exclude_characters="\0/"), min_size=1), host=st.text("abcX.-_@", min_size=1)
)
def test_no_address_becomes_an_option_or_another_command(path: str, host: str) -> None:
    import shlex

    try:
        remote = remote_of(f"ssh://{host}/x")
    except NotRemote:
        return
    assert remote is not None
    remote = Remote(remote.host, None, path)
    argv = remote.command(["ls", path])
    assert (
        argv[argv.index("--") + 1] == remote.host
        and not remote.host.startswith("-")
        and len(argv) == argv.index("--") + 3
    )
    assert shlex.split(argv[-1]) == ["mltrack", "--store", path, "ls", path]
