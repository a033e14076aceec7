"""Running a program in the foreground: pipes, ptys, keys, signals, exit codes, closed outputs; on the real thing."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WRAPPER = """
import json, os, sys
from pathlib import Path
from mltrack.store.client.run_command import run_command
result = run_command(sys.argv[1:], console_path=Path(os.environ["CONSOLE"]), env=dict(os.environ))
Path(os.environ["RESULT"]).write_text(json.dumps(result))
sys.exit(result.exit_code)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONSOLE", str(tmp_path / "console.log"))
    monkeypatch.setenv("RESULT", str(tmp_path / "result"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return tmp_path


def wrap(*argv: str) -> list[str]:
    return [sys.executable, "-c", WRAPPER, *argv]


def python(program: str) -> list[str]:
    return wrap(sys.executable, "-c", textwrap.dedent(program))


def log_of(folder: Path) -> str:
    return (folder / "console.log").read_text()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


class Screen:
    """A terminal with the wrapper in its foreground."""

    def __init__(self, command: list[str], **streams: int) -> None:
        names = ["stdin", "stdout", "stderr"]
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
        self.modes = termios.tcgetattr(theirs)
        self.name = os.ttyname(theirs)
        given = {0: theirs, 1: theirs, 2: theirs, **{names.index(name): fd for name, fd in streams.items()}}

        def adopt() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            stdin=given[0],
            stdout=given[1],
            stderr=given[2],
            start_new_session=True,
            preexec_fn=adopt,
        )
        self.theirs = theirs
        self.seen = b""

    def read(self, condition: Callable[[bytes], bool], seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        while not condition(self.seen) and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.seen += os.read(self.ours, 65536)
        return condition(self.seen)

    def end(self) -> int:
        code: list[int | None] = [None]

        def ended(_: bytes) -> bool:
            code[0] = self.process.poll()
            return code[0] is not None

        assert self.read(ended)
        while select.select([self.ours], [], [], 0.05)[0]:
            self.seen += os.read(self.ours, 65536)
        modes = termios.tcgetattr(self.theirs)
        os.close(self.theirs)
        os.close(self.ours)
        assert modes == self.modes, "the terminal has its modes back"
        assert code[0] is not None
        return code[0]


def test_pipes_pass_everything_on_and_keep_it(folder: Path) -> None:
    program = """
        import os, sys
        print("from python", flush=True)
        os.system("echo from a child")
        os.write(2, b"to stderr\\n")
        print(sys.stdout.isatty(), os.environ["MLTRACK_CONSOLE"], input())
        sys.exit(3)
    """
    done = subprocess.run(python(program), input=b"typed\n", capture_output=True)
    assert done.stdout == b"from python\nfrom a child\nFalse 0 typed\n" and done.stderr == b"to stderr\n"
    assert done.returncode == 3
    lines = ["False 0 typed", "from a child", "from python", "to stderr"]
    assert sorted(log_of(folder).splitlines()) == lines
    result = (folder / "result").read_text()
    assert result.startswith("[3, null, [") and '"to stderr"' in result


def test_bytes_are_passed_on_exactly_and_in_order(folder: Path) -> None:
    body = bytes(range(256)) * 4000
    (folder / "body").write_bytes(body)
    done = subprocess.run(wrap("cat", str(folder / "body")), stdout=subprocess.PIPE, check=True)
    assert done.stdout == body
    program = "import os\nfor n in range(500): os.write(1 + n % 2, b'%d\\n' % n)"
    together = subprocess.run(
        python(program), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    ).stdout
    assert together == b"".join(b"%d\n" % number for number in range(500))
    assert log_of(folder).endswith("\n498\n499\n")


def test_a_crash_swallows_nothing(folder: Path) -> None:
    program = "import os, sys; os.write(1, b'last words'); os.kill(os.getpid(), 11)"
    done = subprocess.run(python(program), capture_output=True)
    assert done.returncode == 128 + 11 and done.stdout == b"last words"
    assert log_of(folder) == "last words\n"
    assert (folder / "result").read_text() == '[139, 11, ["last words"]]'


@pytest.mark.parametrize(("name", "code"), [("no-such-program", 127), ("/etc", 126)])
def test_a_program_that_cannot_start(folder: Path, name: str, code: int) -> None:
    done = subprocess.run(wrap(name), capture_output=True)
    assert done.returncode == code
    assert name in log_of(folder) and name in (folder / "result").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program_once(folder: Path, number: signal.Signals) -> None:
    program = f"""
        import signal, sys, time
        got = []
        signal.signal({int(number)}, lambda number, frame: got.append(number))
        print("ready", flush=True)
        while not got:
            time.sleep(0.01)
        time.sleep(0.3)
        print(got, flush=True)
        sys.exit(9)
    """
    child = subprocess.Popen(python(program), stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    # To the whole group, as a terminal and `timeout` do.
    os.killpg(child.pid, number)
    assert child.stdout.read() == f"[{int(number)}]\n".encode()
    child.stdout.close()
    assert child.wait(30) == 9


def test_death_by_a_forwarded_signal(folder: Path) -> None:
    child = subprocess.Popen(wrap("sh", "-c", "echo ready; exec sleep 300"), stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    child.terminate()
    assert child.wait(30) == 128 + 15
    child.stdout.close()
    assert (folder / "result").read_text() == '[143, 15, ["ready"]]'


def test_ignored_signals_stay_ignored(folder: Path) -> None:
    program = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    script = "trap '' HUP; exec \"$@\""
    done = subprocess.run(["sh", "-c", script, "sh", *python(program)], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"True\n"


def test_a_closed_output_does_not_stop_the_program(folder: Path) -> None:
    program = """
        import time
        for number in range(20):
            print("x" * 10000, number, flush=True)
            time.sleep(0.01)
        print("done", flush=True)
    """
    child = subprocess.Popen(python(program), stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(60) == 0
    assert log_of(folder).endswith("x 19\ndone\n")


def test_outputs_that_were_never_open(folder: Path) -> None:
    script = 'exec "$@" >&- 2>&- <&-'
    program = "import os, sys; print('still here'); os.write(2, b'and here\\n'); sys.exit(4)"
    done = subprocess.run(["sh", "-c", script, "sh", *python(program)])
    assert done.returncode == 4
    assert sorted(log_of(folder).splitlines()) == ["and here", "still here"]


def test_a_background_child_that_keeps_the_output_open_is_not_waited_for(folder: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(wrap("sh", "-c", "sleep 60 & echo $!"), stdout=subprocess.PIPE, check=True)
    assert time.monotonic() - started < 30
    os.kill(int(done.stdout), signal.SIGKILL)


def test_a_terminal_stays_a_terminal(folder: Path) -> None:
    program = """
        import os, sys
        print([os.isatty(fd) for fd in (0, 1, 2)], os.get_terminal_size(), os.tcgetpgrp(0) == os.getpgrp())
        for step in range(3):
            print(f"\\rstep {step}", end="", flush=True)
        print()
        sys.exit(6)
    """
    screen = Screen(python(program))
    assert screen.end() == 6
    size = b"os.terminal_size(columns=101, lines=33)"
    assert screen.seen == b"[True, True, True] " + size + b" True\r\n\rstep 0\rstep 1\rstep 2\r\n"
    assert log_of(folder).splitlines()[1:] == ["step 2"]


def test_keys_reach_the_program(folder: Path) -> None:
    screen = Screen(python("print('got', input('name? '))"))
    assert screen.read(lambda seen: b"name? " in seen)
    os.write(screen.ours, b"ann\r")
    assert screen.end() == 0
    assert screen.seen == b"name? ann\r\ngot ann\r\n"
    assert log_of(folder) == "name? ann\ngot ann\n"


@pytest.mark.parametrize("piped", [False, True])
def test_control_c_reaches_the_program_once(folder: Path, piped: bool) -> None:
    program = """
        import signal, sys, time
        got = []
        signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
        print("ready", file=sys.stderr, flush=True)
        end = time.monotonic() + 20
        while not got and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)
        print("count", len(got), flush=True)
        sys.exit(5)
    """
    reader, writer = os.pipe()
    screen = Screen(python(program), **({"stdout": writer} if piped else {}))
    os.close(writer)
    assert screen.read(lambda seen: b"ready" in seen)
    os.write(screen.ours, b"\x03")
    assert screen.end() == 5
    printed = os.read(reader, 1000) if piped else screen.seen
    os.close(reader)
    assert b"count 1" in printed and "count 1" in log_of(folder)


def test_the_size_of_the_terminal_follows(folder: Path) -> None:
    program = """
        import os, signal, time
        sizes = []
        signal.signal(signal.SIGWINCH, lambda *_: sizes.append(tuple(os.get_terminal_size(1))))
        print("ready", flush=True)
        end = time.monotonic() + 20
        while not sizes and time.monotonic() < end:
            time.sleep(0.01)
        print(sizes[-1])
    """
    screen = Screen(python(program))
    assert screen.read(lambda seen: b"ready" in seen)
    fcntl.ioctl(screen.ours, termios.TIOCSWINSZ, struct.pack("4H", 40, 140, 0, 0))
    assert screen.end() == 0
    assert b"(140, 40)" in screen.seen


def test_only_the_keys_come_from_a_terminal(folder: Path) -> None:
    reader, writer = os.pipe()
    program = "import os; print([os.isatty(fd) for fd in (0, 1, 2)], input())"
    screen = Screen(python(program), stdout=writer, stderr=writer)
    os.close(writer)
    time.sleep(0.5)
    os.write(screen.ours, b"typed\r")
    assert screen.end() == 0
    assert screen.seen == b"typed\r\n", "the echo, as without us"
    assert os.read(reader, 1000) == b"[True, False, False] typed\n"
    os.close(reader)
    assert log_of(folder) == "[True, False, False] typed\n"


def test_only_the_output_is_a_terminal(folder: Path) -> None:
    program = "import sys; print(sys.stdout.isatty(), sys.stdin.read(), flush=True); input()"
    screen = Screen(wrap("sh", "-c", "echo ready; exec sleep 20"), stdin=subprocess.DEVNULL)
    assert screen.read(lambda seen: b"ready" in seen)
    os.write(screen.ours, b"\x03")
    assert screen.end() == 130
    assert screen.seen == b"ready\r\n^C"
    screen = Screen(python(program), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert screen.end() == 1
    assert screen.seen == b"True \r\n"


def test_the_terminal_hangs_up(folder: Path) -> None:
    program = """
        import signal, sys, time
        signal.signal(signal.SIGHUP, lambda *_: None)
        print("ready", flush=True)
        for number in range(30):
            try:
                print(number, flush=True)
            except OSError:
                pass
            time.sleep(0.02)
        print("survived", flush=True)
    """
    screen = Screen(python(program))
    assert screen.read(lambda seen: b"ready" in seen)
    os.close(screen.theirs)
    os.close(screen.ours)
    assert screen.process.wait(30) == 0
    assert log_of(folder).endswith("29\nsurvived\n")


def test_outside_the_main_thread(folder: Path) -> None:
    program = """
        import threading, os
        from pathlib import Path
        from mltrack.store.client.run_command import run_command
        found = []
        def work():
            found.append(run_command(["sh", "-c", "echo hi; exit 3"], console_path=Path(os.environ["CONSOLE"]), env={}))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found[0].exit_code == 3, found
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"hi\n" and log_of(folder) == "hi\n"


def test_output_is_seen_by_the_caller_and_secrets_are_not_kept(folder: Path) -> None:
    from mltrack.store.client.run_command import run_command

    token = "ghp_" + "a1B2" * 9
    pieces: list[bytes] = []
    result = run_command(
        ["echo", token], console_path=folder / "console.log", env=dict(os.environ), on_output=pieces.append
    )
    assert b"".join(pieces) == f"{token}\n".encode()
    assert result.exit_code == 0 and result.last_lines == ("ghp_***",) and log_of(folder) == "ghp_***\n"


def test_throughput(folder: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(wrap("sh", "-c", "yes line | head -n 200000"), stdout=subprocess.PIPE, check=True)
    assert len(done.stdout) == 1_000_000
    assert time.monotonic() - started < 60
