"""Colours by what they mean. Every text colour has a contrast of at least 4.5 to its ground; curves differ for colour-blind
eyes too (tests/unit/test_themes.py computes both). Nothing is said by colour alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

Part = Mapping[str, object]
"""Arguments of a Rich style."""


@dataclass(frozen=True)
class Palette:
    """One theme. ``parts`` are styles by name; ``curves`` the colours of lines in charts, taken in turn."""

    name: str
    dark: bool
    ground: str
    bar: str
    field: str
    cursor: str
    text: str
    primary: str
    curves: tuple[str, ...]
    ghosts: tuple[str, ...]
    parts: Mapping[str, Part]
    ansi: bool = False
    """Colours are the terminal's own 16, or none at all."""


def _mix(colour: str, ground: str, share: float) -> str:
    """``share`` of the colour over the ground."""
    pairs = ((int(colour[at : at + 2], 16), int(ground[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(front * share + back * (1 - share)):02x}" for front, back in pairs)


def _palette(
    name: str,
    dark: bool,
    ground: str,
    bar: str,
    field: str,
    cursor: str,
    text: str,
    dim: str,
    faint: str,
    grid: str,
    key: str,
    best: str,
    here: tuple[str, str],
    primary: str,
    colours: Mapping[str, str],
    curves: tuple[str, ...],
) -> Palette:
    parts: dict[str, Part] = {
        "": {},
        "bold": {"bold": True},
        "dim": {"color": dim},
        "faint": {"color": faint},
        "header": {"color": dim, "bold": True},
        "best": {"color": best, "bold": True},
        "key": {"color": key},
        "bar": {"bgcolor": bar},
        "cursor": {"bgcolor": cursor},
        "here": {"bold": True, "color": here[0], "bgcolor": here[1]},
        "error": {"color": colours["red"], "bold": True},
        "link": {"underline": True},
        "grid": {"color": grid},
        "match": {"color": ground, "bgcolor": key},
        "cursor-line": {"color": dim},
        **{name: {"color": colour} for name, colour in colours.items()},
    }
    ghosts = tuple(_mix(colour, ground, 0.45) for colour in curves)
    return Palette(name, dark, ground, bar, field, cursor, text, primary, curves, ghosts, parts)


_DARK = _palette(
    "dark",
    True,
    "#121212",
    "#262626",
    "#262626",
    "#3a3a3a",
    "#d7dce2",
    "#a3acb6",
    "#8f98a3",
    "#343b43",
    "#e8c35a",
    "#8ff0a4",
    ("#ffffff", "#005f87"),
    "#005f87",
    {
        "red": "#ff8f86",
        "green": "#6fd08c",
        "yellow": "#e8c35a",
        "blue": "#7fb4e8",
        "magenta": "#d49be0",
        "cyan": "#64cfd6",
    },
    (
        *("#5cc8ff", "#ffb454", "#d49be0", "#6fd08c", "#ff8f86"),
        *("#e8e36a", "#9aa7ff", "#ff9ecf", "#7fe0c8", "#c9b18a"),
    ),
)
_LIGHT = _palette(
    "light",
    False,
    "#ffffff",
    "#e4e8ec",
    "#eef1f4",
    "#dbe6f2",
    "#1c2128",
    "#4d5661",
    "#59626d",
    "#d5dae0",
    "#6d4c00",
    "#00602a",
    ("#ffffff", "#005f87"),
    "#cfe4f5",
    {
        "red": "#a5140c",
        "green": "#00602a",
        "yellow": "#6d4c00",
        "blue": "#0b4f9e",
        "magenta": "#8a1f86",
        "cyan": "#00595f",
    },
    (
        *("#0066b8", "#a65200", "#8a1f86", "#00752f", "#b3201a"),
        *("#6b6400", "#3d4ac4", "#b0276f", "#00736a", "#76552a"),
    ),
)
_CONTRAST = _palette(
    "contrast",
    True,
    "#000000",
    "#1c1c1c",
    "#1c1c1c",
    "#00305c",
    "#ffffff",
    "#e4e4e4",
    "#c6c6c6",
    "#6c6c6c",
    "#ffd75f",
    "#87ffaf",
    ("#000000", "#ffd75f"),
    "#005fd7",
    {
        "red": "#ffafaf",
        "green": "#87ffaf",
        "yellow": "#ffd75f",
        "blue": "#afd7ff",
        "magenta": "#ffafff",
        "cyan": "#87ffff",
    },
    (
        *("#5fd7ff", "#ffaf00", "#ff5fd7", "#5fff87", "#ff8787"),
        *("#ffff5f", "#afafff", "#ffafd7", "#87ffd7", "#e4c89a"),
    ),
)
# The terminal's own colours: it knows its ground, so text has none of its own, and the cursor is reversed.
_SIXTEEN_CURVES = (
    *("bright_cyan", "bright_yellow", "bright_magenta", "bright_green", "bright_red"),
    *("yellow", "bright_blue", "magenta", "cyan", "white"),
)
_SIXTEEN = Palette(
    "16",
    True,
    "ansi_default",
    "ansi_default",
    "ansi_default",
    "ansi_default",
    "default",
    "ansi_blue",
    _SIXTEEN_CURVES,
    tuple(colour.removeprefix("bright_") for colour in _SIXTEEN_CURVES),
    {
        "": {},
        "bold": {"bold": True},
        "dim": {},
        "faint": {},
        "header": {"bold": True},
        "best": {"color": "bright_green", "bold": True},
        "key": {"color": "bright_yellow"},
        "bar": {"reverse": True},
        "cursor": {"reverse": True},
        "here": {"bold": True, "reverse": True},
        "error": {"color": "bright_red", "bold": True},
        "link": {"underline": True},
        "match": {"reverse": True, "bold": True},
        "grid": {"color": "bright_black"},
        "cursor-line": {"bold": True},
        **{
            name: {"color": f"bright_{name}"}
            for name in ("red", "green", "yellow", "blue", "magenta", "cyan")
        },
    },
    ansi=True,
)
_PLAIN = Palette(
    "plain",
    True,
    "ansi_default",
    "ansi_default",
    "ansi_default",
    "ansi_default",
    "default",
    "ansi_default",
    ("default",),
    ("default",),
    {
        "bold": {"bold": True},
        "header": {"bold": True},
        "best": {"bold": True},
        "key": {"bold": True},
        "bar": {"reverse": True},
        "cursor": {"reverse": True},
        "here": {"bold": True, "reverse": True},
        "error": {"bold": True},
        "link": {"underline": True},
        "match": {"reverse": True, "bold": True},
        "cursor-line": {"bold": True},
    },
    ansi=True,
)
PALETTES: dict[str, Palette] = {
    palette.name: palette for palette in (_DARK, _LIGHT, _CONTRAST, _SIXTEEN, _PLAIN)
}


def choose_theme(wanted: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The theme's name: NO_COLOR before what was asked for, else what the terminal can show."""
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR"):
        return _PLAIN.name
    if wanted in PALETTES:
        return str(wanted)
    many = environ.get("COLORTERM", "") in ("truecolor", "24bit") or "256color" in environ.get("TERM", "")
    known = environ.get("TERM", "") in ("linux", "xterm", "screen", "vt100", "vt220", "ansi", "rxvt", "tmux")
    if known and not many:
        return _SIXTEEN.name
    # Some terminals tell their colours: 7 and 9 to 15 behind the text are light.
    behind = environ.get("COLORFGBG", "").rpartition(";")[2]
    return _LIGHT.name if behind == "7" or (behind.isdigit() and 9 <= int(behind) <= 15) else _DARK.name
