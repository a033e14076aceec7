"""The parts of the frame that need no screen: files, clipboard, settings, commands, colours, the machine."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.tui.clipboard import copy_text
from mltrack.tui.commands import Typed, complete_command, parse_command
from mltrack.tui.config import THEMES, Config, load_config, read_key
from mltrack.tui.export import (
    CannotWrite,
    Shown,
    free_name,
    to_csv,
    to_html,
    to_json,
    to_markdown,
    to_svg,
    write,
)
from mltrack.tui.machine import DiskScan, read_machine
from mltrack.tui.system_page import plain, system_lines
from mltrack.tui.widgets.look import hex_style
from mltrack.tui.widgets.themes import PALETTES, choose_theme

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b]52;c;aGk=\x07\x9b31m\u202e<script>alert(1)</script>|`x`\n=2+3"
TABLE = Shown(
    "t", ["run", "acc", "note"], [["a", 0.5, "=cmd()"], ["b", float("nan"), None], [HOSTILE, -0.25, "-0.5"]]
)


# -- files


def test_csv_keeps_numbers_and_disarms_formulas() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows[1] == ["a", "0.5", "'=cmd()"]
    assert rows[2] == ["b", "nan", ""]
    assert rows[3][0] == HOSTILE, "a file keeps bytes exactly; only what computes is disarmed"
    assert rows[3][2] == "-0.5", "a number is no formula"


def test_json_is_json_without_nan() -> None:
    rows = json.loads(to_json(TABLE), parse_constant=lambda word: pytest.fail(word))
    assert rows[1] == {"run": "b", "acc": "nan", "note": None}


@given(st.lists(st.lists(st.text(max_size=12), min_size=2, max_size=2), max_size=5))
def test_markdown_is_one_table_whatever_is_in_it(rows: list[list[str]]) -> None:
    text = to_markdown(Shown("t", ["a", "b"], rows))
    lines = text.split("\n")[:-1]
    assert len(lines) == len(rows) + 2
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) == 3
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_pages_load_nothing_and_escape_everything() -> None:
    lines = [[("plain ", ""), (HOSTILE, "red bold")], []]
    for shown in (TABLE, Shown(HOSTILE, lines=lines)):
        for text in (to_html(shown, hex_style), to_svg(shown, hex_style)):
            assert (
                "<script" not in text and "src=" not in text and "url(" not in text and "@import" not in text
            )
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    xml.etree.ElementTree.fromstring(to_svg(Shown(HOSTILE, lines=lines), hex_style))


def test_writing_is_whole_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    assert write(path, TABLE, hex_style) == f"Wrote 3 rows to {path}"
    with pytest.raises(CannotWrite, match="is there already"):
        write(path, TABLE, hex_style)
    with pytest.raises(CannotWrite, match="ends in none of"):
        write(tmp_path / "runs.xlsx", TABLE, hex_style)
    with pytest.raises(CannotWrite, match="No such file"):
        write(tmp_path / "nowhere" / "runs.md", TABLE, hex_style)
    with pytest.raises(CannotWrite, match="no table here"):
        write(tmp_path / "log.csv", Shown("log", lines=[[("x", "")]]), hex_style)
    assert free_name(tmp_path, "runs", "csv").name == "runs-2.csv"
    write(tmp_path / "page.txt", Shown("log", lines=[[("a", ""), ("b", "red")], [("c", "")]]), hex_style)
    assert (tmp_path / "page.txt").read_text() == "ab\nc\n"


# -- the clipboard


def test_copy_claims_only_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sent: list[str] = []
    sentence, done = copy_text("höre", sent.append, {})
    assert done and "not every one takes it" in sentence and "copied.txt" in sentence
    assert sent == ["\x1b]52;c;aMO2cmU=\x07"]
    path = tmp_path / "mltrack" / "copied.txt"
    assert path.read_text() == "höre" and path.stat().st_mode & 0o777 == 0o600
    sentence, done = copy_text("x" * 80_000, sent.append, {})
    assert done and len(sent) == 1 and "more than a terminal's clipboard takes" in sentence
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    sentence, done = copy_text("x" * 80_000, sent.append, {})
    assert not done and "not in a file" in sentence


def test_copy_inside_a_real_tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    socket = tmp_path / "tmux"
    server = ["tmux", "-S", str(socket), "-f", "/dev/null"]
    try:
        subprocess.run(
            [*server, "new-session", "-d", "-x", "80", "-y", "24", "sleep 60"], check=True, timeout=20
        )
    except FileNotFoundError:
        pytest.skip("tmux is not installed: apt-get install tmux")
    try:
        monkeypatch.setenv("TMUX", f"{socket},1,0")
        sent: list[str] = []
        sentence, done = copy_text("two\nlines", sent.append)
        assert done and sentence.startswith("Copied 9 B to tmux's buffer") and sent == []
        shown = subprocess.run([*server, "show-buffer"], capture_output=True, text=True, timeout=20)
        assert shown.stdout == "two\nlines"
    finally:
        subprocess.run([*server, "kill-server"], timeout=20)
    sentence, done = copy_text("x", sent.append)
    assert "tmux did not take it" in sentence and sent[0].startswith("\x1bPtmux;\x1b\x1b]52;c;")


# -- commands


def test_commands() -> None:
    assert parse_command(":q") == parse_command("q") == Typed("q", "")
    assert parse_command(" :w  a b.csv ") == Typed("w", "a b.csv")
    assert parse_command(":42") == Typed("goto", "42")
    assert parse_command(":!ls -l") == Typed("!", "ls -l")
    for text in ("w", "q now", "!", "", "sort", "theme", "-3", "٣"):
        assert parse_command(text) is None
    assert (
        complete_command(":th") == "theme " and complete_command("x") is None and complete_command("") is None
    )


@given(st.text(max_size=20))
def test_any_text_is_a_command_or_none(text: str) -> None:
    typed = parse_command(text)
    assert typed is None or typed.name in ("q", "w", "theme", "mouse", "!", "goto")
    complete_command(text)


# -- settings


def test_settings_and_a_sentence_for_each_wrong_entry(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert load_config(path) == Config()
    path.write_text('theme = "light"\nmouse = false\n[keys]\nsort = "f6"\nquit_now = "ctrl+x f5"\n')
    config = load_config(path)
    assert (config.theme, config.mouse, config.troubles) == ("light", False, ())
    assert config.keys == {"sort": ("f6",), "quit_now": ("ctrl+x", "f5")}
    path.write_text(
        'theme = "neon"\nascii = "yes"\ncolour = 1\n[keys]\nsorrt = "o"\nmark = 3\nsort = "strg+x"\nlogs = "j"\n'
    )
    config = load_config(path)
    assert config.theme is None and config.keys == {} and not config.ascii
    said = " ".join(config.troubles)
    for part in (
        "'neon' is none of dark",
        "ascii must be true or false",
        "no setting 'colour'",
        "did you mean 'sort'?",
        "mark must be keys in quotes",
        "'strg+x' is no key",
        "j is 'next run' there already",
    ):
        assert part in said
    path.write_text("theme = ")
    assert "is not TOML" in load_config(path).troubles[0]
    path.write_bytes(b"\xff\xfe")
    assert "is not TOML" in load_config(path).troubles[0]
    path.write_text('keys = "sort"')
    assert "keys must be a table" in load_config(path).troubles[0]


def test_keys_as_people_write_them() -> None:
    assert [read_key(word) for word in ("?", "esc", "ctrl+p", "$", "F", "f12", "pgdn", "ctrl++")] == [
        *("question_mark", "escape", "ctrl+p", "dollar_sign", "F", "f12", "pagedown", "ctrl+plus")
    ]
    assert [read_key(word) for word in ("strg+x", "f25", "enterr", "hyper+x")] == [None] * 4


# -- colours


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TRUE = [palette for palette in PALETTES.values() if not palette.ansi]


@pytest.mark.parametrize("palette", TRUE, ids=lambda palette: palette.name)
def test_every_text_can_be_read(palette: object) -> None:
    from mltrack.tui.widgets.themes import Palette

    assert isinstance(palette, Palette)
    texts = {"text": palette.text} | {
        name: str(part["color"])
        for name, part in palette.parts.items()
        if "color" in part and name not in ("grid", "here", "match")
    }
    for name, colour in texts.items():
        for ground in (palette.ground, palette.bar):
            assert contrast(colour, ground) >= 4.5, (name, ground)
    for curve in palette.curves:
        assert contrast(curve, palette.ground) >= 4.5
    for name in ("here", "match"):
        part = palette.parts[name]
        assert contrast(str(part["color"]), str(part["bgcolor"])) >= 4.5
    assert contrast(palette.text, palette.cursor) >= 4.5


# How colours look to people without red or green cones (Machado and others, 2009, full strength, linear RGB).
_BLIND = {
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}


def _seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    parts = [(int(colour[at : at + 2], 16) / 255) ** 2.2 for at in (1, 3, 5)]
    return tuple(max(0.0, sum(a * b for a, b in zip(row, parts, strict=True))) ** (1 / 2.2) for row in matrix)


@pytest.mark.parametrize("palette", TRUE, ids=lambda palette: palette.name)
@pytest.mark.parametrize("kind", _BLIND)
def test_the_first_curves_differ_for_colour_blind_eyes(palette: object, kind: str) -> None:
    from mltrack.tui.widgets.themes import Palette

    assert isinstance(palette, Palette)
    seen = [_seen(colour, _BLIND[kind]) for colour in palette.curves[:4]]
    for (one, left), (other, right) in itertools.combinations(enumerate(seen), 2):
        distance = sum((a - b) ** 2 for a, b in zip(left, right, strict=True)) ** 0.5
        assert distance >= 0.1, (palette.curves[one], palette.curves[other])


def test_the_terminal_decides_when_nobody_does() -> None:
    assert tuple(PALETTES) == THEMES
    assert choose_theme(None, {"TERM": "xterm-256color"}) == "dark"
    assert choose_theme(None, {"TERM": "xterm"}) == "16"
    assert choose_theme(None, {"TERM": "linux", "COLORTERM": "truecolor"}) == "dark"
    assert choose_theme("light", {"TERM": "xterm"}) == "light"
    assert choose_theme(None, {"TERM": "xterm-256color", "COLORFGBG": "0;15"}) == "light"
    assert choose_theme(None, {"TERM": "xterm-256color", "COLORFGBG": "15;0"}) == "dark"
    assert choose_theme("light", {"TERM": "xterm", "NO_COLOR": "1"}) == "plain"
    for name in ("16", "plain"):
        assert not any("#" in str(part) for part in PALETTES[name].parts.values())


# -- the machine


def test_the_two_shapes_of_no_gpu() -> None:
    machine = read_machine(None, "libnothing-there.so.9")
    assert machine.gpus == () and machine.memory_total > 0 and machine.cpus >= 1
    page = "\n".join(plain(system_lines(machine, DiskScan(Path("/nonexistent")).look({}, wait=True), 80)))
    assert "this machine has no NVIDIA driver (libnothing-there.so.9 is not installed)" in page
    assert "/nonexistent: No such file" in page

    class Empty:
        """A driver that starts and finds nothing."""

        def __getattr__(self, name: str) -> object:
            return lambda *arguments: 0

    page = "\n".join(plain(system_lines(read_machine(None, Empty()), DiskScan(ROOT).look({}, wait=True), 80)))
    assert "the NVIDIA driver is here, but NVML sees no GPU" in page


def test_the_disk_by_experiment_counts_every_byte(tmp_path: Path) -> None:
    homes = {}
    for number, (experiment, lifecycle) in enumerate((("a", "active"), ("a", "active"), ("b", "trash"))):
        run_id = f"{number:02d}" + "0" * 30
        folder = tmp_path / "runs" / run_id[:2] / run_id
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "model.bin").write_bytes(b"x" * 1000)
        (folder / "points.0.jsonl").write_bytes(b"y" * 200)
        os.symlink("/etc/passwd", folder / "link")
        homes[run_id] = (experiment, lifecycle)
    homes["ff" + "0" * 30] = ("gone", "active")
    disk = DiskScan(tmp_path).look(homes, wait=True)
    assert disk.done and disk.looked == disk.of == 4
    assert disk.experiments == [("a", 2, 2000, 400), ("gone", 1, 0, 0)]
    assert (disk.files, disk.journals, disk.trash, disk.trash_runs) == (3000, 600, 1200, 1)
