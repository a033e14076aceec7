"""`mltrack` commands that only look, on the whole demo story."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from mltrack.tui.clean import cell_width

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LS_KEYS = [
    "run_id",
    "run_name",
    "experiment",
    "status",
    "user",
    "start_time",
    "end_time",
    "params",
    "metrics",
    "tags",
]
HOSTILE = "Cc", "Cf", "Cs", "Zl", "Zp"


@pytest.fixture
def look(mltrack: Run, demo_store: str) -> Run:
    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return mltrack("--store", demo_store, *arguments, **options)

    return run


def harmless(text: str) -> bool:
    return all(character == "\n" or unicodedata.category(character) not in HOSTILE for character in text)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_and_keeps_names(look: Run, width: int) -> None:
    answer = look("ls", "-x", "vision/cifar", environ={"COLUMNS": str(width)})
    lines = answer.stdout.splitlines()
    assert answer.returncode == 0
    assert max(cell_width(line) for line in lines) <= width
    assert any(line.startswith("sage-owl-41") and "★.9312" in line for line in lines)
    assert any("✗ CUDA OOM" in line for line in lines)
    assert any("! damaged" in line for line in look("ls").stdout.splitlines())


def test_the_header_has_what_fits(look: Run) -> None:
    wide = look("ls", "-x", "vision/cifar", environ={"COLUMNS": "200"}).stdout.splitlines()[0].split()
    assert wide[:4] == ["RUN", "STATUS", "val/acc↑", "@step"]
    assert {"lr", "OWNER", "AGE"} <= set(wide)


def test_json_of_ls_is_the_documented_shape(look: Run) -> None:
    runs = json.loads(look("ls", "--json").stdout)
    assert all(list(run) == LS_KEYS for run in runs)
    best = next(run for run in runs if run["run_name"] == "sage-owl-41")
    assert best["params"]["opt.name"] == "adamw"
    assert best["tags"]["sweep"] == "7"
    broken = next(run for run in runs if run["run_name"] == "numb-bat-19")
    assert broken["metrics"]["train/loss"] == "NaN"
    assert isinstance(best["start_time"], int)


def test_metrics_are_exact(look: Run) -> None:
    answer = json.loads(look("metrics", "sage-owl-41", "train/loss", "--json").stdout)
    assert list(answer) == ["key", "points"]
    steps = [point[0] for point in answer["points"]]
    assert steps == list(range(0, 41_220, 20))
    assert [point[2] for point in answer["points"] if 16_500 <= point[0] < 16_700] == ["NaN"] * 10
    in_csv = list(csv.reader(io.StringIO(look("metrics", "sage-owl-41", "train/loss", "--csv").stdout)))
    assert in_csv[0] == ["step", "timestamp_ms", "value"]
    for row, point in zip(in_csv[1:], answer["points"], strict=True):
        value = float(row[2])
        assert math.isnan(value) if point[2] == "NaN" else value == point[2]


def test_csv_runs_nothing_in_a_spreadsheet(look: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(look("ls", "-x", "scratch", "--csv").stdout)))
    assert {"'=1+1"} <= {row["params.note"] for row in rows}
    raw = list(csv.DictReader(io.StringIO(look("ls", "-x", "scratch", "--csv", "--raw").stdout)))
    assert {"=1+1"} <= {row["params.note"] for row in raw}


def test_filter_sort_and_columns(look: Run) -> None:
    rows = look(
        "ls", "opt.name = lion and lr < 1e-3", "--columns", "run,lr,val/acc.max", "--sort=-val/acc", "-n", "4"
    )
    lines = rows.stdout.splitlines()
    assert lines[0].split() == ["RUN", "lr", "val/acc.max"]
    assert len(lines) == 5
    assert "4 of " in rows.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "no-such-run"), 3, "no-such-run"),
        (("plot", "no/such", "sage-owl-41"), 3, "train/loss"),
        (("ls", "lr <"), 2, "^"),
        (("ls", "--nonsense"), 2, "usage:"),
        (("sow",), 2, "Did you mean `mltrack show`?"),
        (("purge", "calm-elk-12", "-y"), 2, "not in the trash"),
        (("delete", "calm-elk-12"), 2, "--yes"),
        (("stop", "calm-elk-12"), 2, "not running"),
        (("config", "--why", "nonsense"), 2, "store"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_a_code(
    look: Run, arguments: tuple[str, ...], code: int, said: str
) -> None:
    answer = look(*arguments)
    assert answer.returncode == code
    assert answer.stdout == ""
    assert answer.stderr.startswith("mltrack: ")
    assert said in answer.stderr


def test_no_byte_of_data_reaches_the_terminal_as_control(look: Run) -> None:
    hostile = next(
        run["run_id"]
        for run in json.loads(look("ls", "-x", "scratch", "--json").stdout)
        if "owned" in run["run_name"]
    )
    for arguments in (
        ("ls", "-x", "scratch"),
        ("show", hostile),
        ("compare", hostile, "sage-owl-41"),
        ("plot", "train/loss", hostile),
    ):
        answer = look(*arguments, environ={"COLUMNS": "300"})
        assert answer.returncode == 0, answer.stderr
        assert harmless(answer.stdout)
        assert "␛]0;owned" in answer.stdout
    logs = look("logs", "sage-owl-41")
    assert harmless(logs.stdout)


def test_logs_keep_the_last_state_of_a_progress_bar(look: Run) -> None:
    lines = look("logs", "sage-owl-41", "-n", "4").stdout.splitlines()
    assert len(lines) == 4
    assert any("2.1 it/s" in line and "1.8 it/s" not in line for line in lines)
    whole = look("logs", "sage-owl-41").stdout.splitlines()
    assert whole[-4:] == lines
    assert any("WARN loss scale 16384 -> 8192" in line for line in whole)


def test_compare_shows_what_is_to_blame(look: Run) -> None:
    text = look("compare", "sage-owl-41", "calm-elk-12", "dim-ram-23", "--diff").stdout
    crop = next(line for line in text.splitlines() if line.startswith("data.crop"))
    assert crop.split() == ["data.crop", "32", "32", "224"]
    assert "batch_size" not in text
    assert ".9312 ★" in text
    rows = json.loads(look("compare", "sage-owl-41", "calm-elk-12", "--diff", "--json").stdout)["rows"]
    assert all(row["differs"] for row in rows)


def test_a_resumed_run_counts_only_what_stands(look: Run) -> None:
    points = json.loads(look("metrics", "long-jay-02", "val/acc", "--json").stdout)["points"]
    assert [point[0] for point in points] == list(range(0, 20_000, 200))
    with_old = json.loads(look("metrics", "long-jay-02", "val/acc", "--json", "--superseded").stdout)[
        "points"
    ]
    assert len(with_old) > len(points)


def test_a_plot_is_as_wide_as_asked(look: Run) -> None:
    lines = look(
        "plot", "train/loss", "sage-owl-41", "dim-ram-23", "--width", "72", "--height", "14"
    ).stdout.splitlines()
    assert max(cell_width(line) for line in lines[:15]) <= 72
    assert "×" in "".join(lines)
    assert any(line.startswith("a sage-owl-41") for line in lines)


def test_ascii_where_the_locale_asks_for_it(look: Run) -> None:
    for arguments in (
        ("ls",),
        ("show", "sage-owl-41"),
        ("plot", "val/acc", "sage-owl-41"),
        ("compare", "sage-owl-41", "dim-ram-23"),
    ):
        assert look(*arguments, environ={"LC_ALL": "C"}).stdout.isascii()
        assert look(*arguments, environ={"PYTHONIOENCODING": "latin-1"}).stdout.isascii()
        lines = look(*arguments, environ={"MLTRACK_ASCII": "1"}).stdout.splitlines()
        assert all(line.isascii() for line in lines)
        assert max(len(line) for line in lines) <= 80


def test_an_empty_place_says_how_to_begin_and_makes_nothing(mltrack: Run, tmp_path: Path) -> None:
    place = tmp_path / "nothing"
    answer = mltrack("--store", str(place), "ls")
    assert answer.returncode == 0
    assert str(place) in answer.stdout
    assert "import mltrack" in answer.stdout
    assert mltrack("--store", str(place), "ls", "--json").stdout == "[]\n"
    assert mltrack("--store", str(place), "show", "x").returncode == 3
    assert not place.exists()


def test_lists_beside_runs_are_tables_for_programs_too(look: Run) -> None:
    models = list(csv.DictReader(look("models", "list", "--csv").stdout.splitlines()))
    churn = next(model for model in models if model["name"] == "churn")
    assert (churn["production"], churn["staging"]) == ("7", "8")
    assert look("jobs", "--csv").stdout.startswith("run_id,run_name,")


def test_a_column_that_no_run_has_is_named(look: Run) -> None:
    answer = look("ls", "--columns", "run,lr,bogus,valacc.max", "-n", "2")
    assert "none of these runs has bogus, valacc.max" in answer.stderr and answer.returncode == 0


def test_where_says_why(look: Run, demo_store: str) -> None:
    shown = demo_store.replace("mltrack@", "")  # who logs in is left out, as a password would be
    assert shown in look("where").stdout
    where = json.loads(look("where", "--json").stdout)
    assert where["store"] == shown and where["chosen_by"].startswith("asked for") and where["runs"] > 70
    assert "--store" in look("config", "--why", "store").stdout


def test_a_reader_that_leaves_is_no_failure(
    command: tuple[tuple[str, ...], dict[str, str]], demo_store: str
) -> None:
    argv, environ = command
    arguments = [*argv, "--store", demo_store, "metrics", "sage-owl-41", "train/loss"]
    process = subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


def test_closed_and_full_outputs_are_one_sentence(
    command: tuple[tuple[str, ...], dict[str, str]], demo_store: str
) -> None:
    argv, environ = command
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [*argv, "--store", demo_store, "ls"], env=environ, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert answer.returncode == 1
    assert "No space left" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_home_that_cannot_be_written(mltrack: Run, demo_store: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    environ = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "share"),
        "XDG_CONFIG_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
    }
    assert mltrack("--store", demo_store, "ls", "-n", "1", environ=environ).returncode == 0
    assert mltrack("where", environ=environ, cwd=tmp_path).returncode == 0


def test_start_up_loads_nothing_heavy(demo_store: str, tmp_path: Path) -> None:
    script = (
        "import sys, contextlib\n"
        "from mltrack.tui.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main(['--store', {demo_store!r}, 'ls', '-n', '1'])\n"
        "print(sorted({'sqlmodel', 'sqlalchemy', 'alembic', 'textual', 'rich', 'docker', 'git', 'plotext'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command(look: Run) -> None:
    text = look("-h").stdout
    for name in ("ls", "compare", "undo", "doctor", "demo"):
        assert f"  {name} " in text
    assert look("ls", "-h").returncode == 0


def test_the_page_about_commands_is_complete() -> None:
    from mltrack.tui.cli.exit_codes import ExitCode
    from mltrack.tui.cli.main import COMMANDS

    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text("utf-8")
    table = page.split("## Commands")[1].split("## Output")[0]
    for group in COMMANDS.values():
        for name in group:
            assert f"`{name}" in table, name
    for code in ExitCode:
        assert f"| {int(code)} |" in page


def test_the_tree_keeps_children_under_their_parent_in_any_order(look: Run) -> None:
    flat = [run["run_id"] for run in json.loads(look("ls", "--sort", "best(val/acc)", "--json").stdout)]
    tree = json.loads(look("ls", "--tree", "--sort", "best(val/acc)", "--json").stdout)
    assert sorted(run["run_id"] for run in tree) == sorted(flat)
    parents: dict[int, str] = {}
    for run in tree:
        parents[run["depth"]] = run["run_id"]
        assert run["parent_id"] == (parents[run["depth"] - 1] if run["depth"] else None)
    sweep = next(run for run in tree if run["run_name"] == "sweep-7")
    members = [run["run_id"] for run in tree if run["parent_id"] == sweep["run_id"]]
    assert members == [run for run in flat if run in set(members)], "children stand in the order asked for"
    assert sweep["children"]["count"] == len(members) == sum(sweep["children"]["statuses"].values())
    best = sweep["children"]["best"]
    assert best["run_id"] == members[0] and best["value"] == 0.9312
    # A filter that leaves the parent out shows it all the same, above what it found.
    lines = look("ls", "--tree", "name = sage-owl-41").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sweep-7", "└"]
    assert "★.9312" in lines[1] and "sage-owl-41" in lines[2]
    assert look("ls", "--tree", "--ids", "name = sage-owl-41").stdout.split() == [sweep["run_id"], members[0]]


def test_a_mistake_of_ours_is_a_sentence_and_a_file(
    command: tuple[tuple[str, ...], dict[str, str]], demo_store: str, tmp_path: Path
) -> None:
    """Nothing of the program fails on purpose, so a part of it is replaced by one that does."""
    environ = command[1]
    broken = (
        "import mltrack.store.store as s\n"
        "def search(*given, **named): raise RuntimeError('boom \\x1b]0;title\\x07')\n"
        "s.Store.search = search\n"
        "from mltrack.tui.cli.main import main\n"
        f"main(['--store', {demo_store!r}, 'ls'])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", broken],
        capture_output=True,
        text=True,
        env={**environ, "TMPDIR": str(tmp_path)},
    )
    assert answer.returncode == 1 and answer.stdout == ""
    assert answer.stderr.count("\n") == 1 and "RuntimeError: boom ␛]0" in answer.stderr
    (report,) = tmp_path.glob("mltrack-error-*.txt")
    assert str(report) in answer.stderr and report.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in report.read_text() and "in search" in report.read_text()


def test_a_store_that_is_a_file_is_refused(mltrack: Run, tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("mine")
    for words in (("ls",), ("show", "@last")):
        answer = mltrack("--store", str(place), *words)
        assert answer.returncode == 2 and "is a file; a store is a folder or an address" in answer.stderr
    assert place.read_text() == "mine"
