"""console.log of real programs: pipes, files and terminals; cut, full disk, forks, threads; the program notices nothing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mltrack.store.client.console_log import ConsoleLog

BEGIN = """
import os, sys, json
from pathlib import Path
from mltrack.store.client.console import capture
said = []
taken = capture(Path(os.environ["RUN_FOLDER"]), said.append)
"""
TOKEN = "hf_" + "abcDEF1234567890ghij"


def command(program: str) -> list[str]:
    return [sys.executable, "-c", BEGIN + textwrap.dedent(program)]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MLTRACK_CONSOLE", "TMUX_PANE")}
    return {
        **kept,
        "RUN_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **variables,
    }


def piped(folder: Path, program: str, **variables: str) -> tuple[str, str]:
    """Run with both streams as pipes; returns (what the pipes got, console.log)."""
    done = subprocess.run(
        command(program),
        env=environment(folder, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=120,
    )
    path = folder / "console.log"
    return done.stdout.decode(), path.read_text() if path.exists() else ""


def test_a_pipe_is_teed_and_gets_the_very_same_bytes(tmp_path: Path) -> None:
    program = """
        import logging
        print("hällo", 1, 2)
        sys.stderr.write("to stderr\\n")
        logging.warning("by logging")
        print("no newline at the end", end="")
        taken.stop()
        print()
        print("after stop")
    """
    given, kept = piped(tmp_path, program, PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1")
    assert given == "hällo 1 2\nto stderr\nWARNING:root:by logging\nno newline at the end\nafter stop\n"
    assert kept == "hällo 1 2\nto stderr\nWARNING:root:by logging\nno newline at the end\n"
    assert (tmp_path / "console.log").stat().st_mode & 0o777 == 0o600


def test_handlers_made_before_the_capture_are_seen(tmp_path: Path) -> None:
    program = (
        "import logging; logging.basicConfig()\n" + BEGIN + "logging.error('early handler'); taken.stop()"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "console.log").read_text() == "ERROR:root:early handler\n"


def test_the_stream_objects_stay_what_they_are(tmp_path: Path) -> None:
    program = """
        import io
        out = sys.stdout
        facts = [out is sys.__stdout__, isinstance(out, io.TextIOWrapper), out.encoding, out.fileno(), out.isatty()]
        out.buffer.write(b"bytes ")
        out.reconfigure(line_buffering=True)
        out.writelines(["a", "b\\n"])
        try:
            out.write(5)
        except TypeError:
            facts.append("TypeError")
        facts.append(out.write("xyz\\n"))
        taken.stop()
        facts.append("write" in vars(out))
        print(json.dumps(facts))
    """
    given, kept = piped(tmp_path, program, PYTHONIOENCODING="latin-1:replace")
    assert '[true, true, "iso8859-1", 1, false, "TypeError", 4, false]' in given
    assert kept == "ab\nxyz\n"


def test_bars_keep_their_last_state_and_secrets_are_replaced(tmp_path: Path) -> None:
    program = f"""
        for step in range(1000):
            sys.stderr.write(f"\\rtraining {{step}}/1000")
        sys.stderr.write("\\n")
        print("token is {TOKEN}, url https://me:pw@host/x, PASSWORD=hunter2")
        taken.stop()
    """
    _, kept = piped(tmp_path, program)
    assert kept == "training 999/1000\ntoken is hf_***, url https://***@host/x, PASSWORD=***\n"


def test_a_bar_can_be_watched_while_it_runs(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "console.log")
    log.write("begin\n")
    log.write("\r 1%", "stderr")
    log.write("\r 2%", "stderr")
    log._next_paint = 0
    log.write("\r 3%", "stderr")
    assert (tmp_path / "console.log").read_text() == "begin\n 3%"
    log.write("a line of the other stream\n")
    assert (tmp_path / "console.log").read_text() == "begin\na line of the other stream\n"
    assert log.last_lines() == ("begin", "a line of the other stream", " 3%")
    log.close()
    assert (tmp_path / "console.log").read_text() == "begin\na line of the other stream\n 3%\n"


def test_a_regular_file_is_followed_where_it_lies(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("earlier\n")
    with target.open("ab") as file:
        subprocess.run(
            command("print(json.dumps(taken.facts)); taken.stop()"),
            env=environment(tmp_path),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=True,
        )
    assert target.read_text() == f'earlier\n{{"file": "{target}", "offset": 8}}\n'
    assert not (tmp_path / "console.log").exists()


def test_a_deleted_file_is_teed(tmp_path: Path) -> None:
    with open(tmp_path / "gone", "w+b") as file:
        (tmp_path / "gone").unlink()
        subprocess.run(command("print(1); taken.stop()"), env=environment(tmp_path), stdout=file, check=True)
    assert (tmp_path / "console.log").read_text() == "1\n"


def test_closed_streams_and_dev_null(tmp_path: Path) -> None:
    script = f'exec {sys.executable} -c "$0" >&- 2>&-'
    program = BEGIN + "assert sys.stdout is None; assert taken.facts == {}; taken.stop()"
    subprocess.run(["sh", "-c", script, program], env=environment(tmp_path), check=True)
    done = subprocess.run(
        command("print('daemon'); taken.stop()"), env=environment(tmp_path), stdout=subprocess.DEVNULL
    )
    assert done.returncode == 0
    assert (tmp_path / "console.log").read_text() == "daemon\n"


@pytest.mark.parametrize("wanted", ["", "1"])
def test_a_terminal_is_noted_with_its_pane_and_teed_only_on_request(tmp_path: Path, wanted: str) -> None:
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    program = "print(json.dumps(taken.facts), sys.stdout.isatty()); taken.stop()"
    variables = {"TMUX_PANE": "%3", "MLTRACK_CONSOLE": wanted}
    subprocess.run(
        command(program), env=environment(tmp_path, **variables), stdout=theirs, stderr=theirs, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    tee = ', "tee": true' if wanted else ""
    assert shown == f'{{"tty": "{name}", "tmux_pane": "%3"{tee}}} True\r\n'
    assert (tmp_path / "console.log").exists() == bool(wanted)


def test_streams_that_go_to_different_places(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with target.open("wb") as file:
        done = subprocess.run(
            command("print(json.dumps(taken.facts)); print('shown', file=sys.stderr); taken.stop()"),
            env=environment(tmp_path),
            stdout=file,
            stderr=subprocess.PIPE,
            check=True,
        )
    assert target.read_text() == f'{{"file": "{target}", "offset": 0, "stderr": {{"tee": true}}}}\n'
    assert done.stderr == b"shown\n" and (tmp_path / "console.log").read_text() == "shown\n"


def test_threads_signal_handlers_and_forks(tmp_path: Path) -> None:
    program = """
        import signal, threading
        def alarm(*_):
            try:
                sys.stdout.write("alarm\\n")
            except RuntimeError:
                pass  # Python's own buffer refuses to be entered twice
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        def work(name):
            for number in range(500):
                sys.stdout.write(f"{name} {number}\\n")
        threads = [threading.Thread(target=work, args=(f"thread{index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for index in range(4):
            pid = os.fork()
            if pid == 0:
                signal.setitimer(signal.ITIMER_REAL, 0)
                work(f"child{index}")
                sys.stdout.flush()
                os._exit(0)
            children.append(pid)
        for thread in threads:
            thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        taken.stop()
    """
    _, kept = piped(tmp_path, program)
    lines = kept.splitlines()
    for name in [f"{kind}{index}" for kind in ("thread", "child") for index in range(4)]:
        mine = [int(line.split()[1]) for line in lines if re.fullmatch(rf"{name} \d+", line)]
        assert mine == list(range(500)), name


def test_a_kill_loses_no_finished_line(tmp_path: Path) -> None:
    program = "print('last words'); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    subprocess.run(command(program), env=environment(tmp_path), stdout=subprocess.PIPE)
    assert (tmp_path / "console.log").read_text() == "last words\n"


def test_two_captures_and_any_order_of_stopping(tmp_path: Path) -> None:
    program = """
        inner_folder = Path(os.environ["RUN_FOLDER"]) / "inner"
        inner_folder.mkdir()
        print("outer")
        inner = capture(inner_folder)
        print("both")
        taken.stop()
        print("inner only")
        inner.stop()
        inner.stop()
        print("neither")
    """
    given, kept = piped(tmp_path, program)
    assert given == "outer\nboth\ninner only\nneither\n" and kept == "outer\nboth\n"
    assert (tmp_path / "inner" / "console.log").read_text() == "both\ninner only\n"


def test_the_program_gets_its_own_broken_pipe_and_nothing_of_ours(tmp_path: Path) -> None:
    program = """
        import time
        try:
            for number in range(100000):
                print("x" * 1000, flush=True)
        except BrokenPipeError:
            sys.stderr.write("broken as usual\\n")
            os._exit(3)
    """
    child = subprocess.Popen(
        command(program), env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == "broken as usual\n"
    child.stderr.close()
    assert child.wait(60) == 3


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    program = "print('a'); print('b'); taken.stop(); print(len(said), said[0].partition(':')[0])"
    given, kept = piped(tmp_path / "missing", program)
    assert (
        given == "a\nb\n1 the console is not recorded at the moment (No such file or directory)\n"
        and kept == ""
    )


def test_a_full_disk_is_survived_and_what_waited_is_written_later(tmp_path: Path) -> None:
    # A real limit of the kernel: short writes first, then errors, as on a full disk.
    program = """
        import resource, time
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        print("fits")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        for number in range(50):
            print(f"line {number:02}", "x" * 80)
        size = os.path.getsize(os.environ["RUN_FOLDER"] + "/console.log")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        time.sleep(1.1)
        print("room again")
        taken.stop()
        print(size <= 1000, len(said))
    """
    given, kept = piped(tmp_path, program)
    assert given.endswith("room again\nTrue 1\n")
    assert [line[:7] for line in kept.splitlines()] == [
        "fits",
        *(f"line {number:02}" for number in range(50)),
        "room ag",
    ]


def test_what_does_not_fit_into_memory_either_is_counted(tmp_path: Path) -> None:
    program = """
        import resource, time
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        for number in range(3000):
            print("x" * 999)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        taken.stop()
    """
    _, kept = piped(tmp_path, program)
    note = kept.splitlines()[-1]
    lost = re.fullmatch(r"\[mltrack: (\d+) bytes could not be written here\]", note)
    assert lost and int(lost[1]) + kept.count("x") + kept.count("x\n") == 3_000_000


def test_the_middle_of_a_long_log_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    sizes = {"head_bytes": 100_000, "tail_bytes": 100_000, "kept_bytes": 50_000}
    log = ConsoleLog(path, **sizes)  # type: ignore[arg-type]
    for number in range(60_000):
        if number == 30_000:  # another attempt goes on with the file
            log.close()
            log = ConsoleLog(path, **sizes)  # type: ignore[arg-type]
        log.write(f"{number:09}\n")
        if number % 1000 == 0 and path.exists():
            assert path.stat().st_size <= 200_100
    log.close()
    lines = path.read_text().splitlines()
    notes = [index for index, line in enumerate(lines) if "bytes were cut here" in line]
    assert len(notes) == 1
    head, tail = lines[: notes[0]], lines[notes[0] + 1 :]
    assert head == [f"{number:09}" for number in range(len(head))] and 99_000 <= len(head) * 10 <= 100_000
    assert (
        tail == [f"{number:09}" for number in range(60_000 - len(tail), 60_000)] and len(tail) * 10 >= 50_000
    )
    missing = int(re.findall(r"\d+", lines[notes[0]])[0])
    assert missing == (60_000 - len(head) - len(tail)) * 10


def test_an_unfinished_line_of_an_earlier_attempt_ends(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("killed in the middle of a li")
    log = ConsoleLog(path)
    log.write("next attempt\n")
    log.close()
    assert path.read_text() == "killed in the middle of a li\nnext attempt\n"


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "console.log").symlink_to(tmp_path / "victim")
    said: list[str] = []
    log = ConsoleLog(tmp_path / "console.log", said.append)
    log.write("x\n")
    log.close()
    assert not (tmp_path / "victim").exists() and len(said) == 1


def test_printing_costs_little(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "console.log")
    started = time.process_time()
    for number in range(20_000):
        log.write(f"epoch {number} loss 0.1234")
        log.write("\n")
    log.close()
    assert (time.process_time() - started) / 20_000 < 500e-6
