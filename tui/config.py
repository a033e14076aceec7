"""The user's settings for the app: ~/.config/mltrack/config.toml. A wrong entry is said in a sentence and left out.

theme = "light"
ascii = true
mouse = false
pictures = "sixel"
[alerts]
notify = "bell"
kinds = ["failed", "lost", "nan"]
[keys]
sort = "o"
mark_all = "A ctrl+a"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mltrack.tui.alerts import KINDS
from mltrack.tui.keys import KEYS, NAMED_KEYS, TOGETHER

THEMES = ("dark", "light", "contrast", "16", "plain")
# [hooks] is read where they run.
_SETTINGS = ("theme", "ascii", "mouse", "pictures", "keys", "alerts", "hooks")
# How pictures are drawn: as the terminal can, or so whatever it says.
PICTURE_KINDS = ("auto", "kitty", "sixel", "blocks")
PICTURES = "MLTRACK_PICTURES"
NOTIFY = ("off", "bell", "osc9")
_MODIFIERS = ("ctrl", "alt", "shift")


@dataclass(frozen=True)
class Config:
    """What the file says; ``troubles`` are sentences about entries that do not count."""

    theme: str | None = None
    ascii: bool = False
    mouse: bool = True
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys by the id of their action, instead of the built-in ones."""
    troubles: tuple[str, ...] = ()
    notify: str = "off"
    """What an alert does beside its badge: nothing, the terminal's bell, or its notification (OSC 9)."""
    alerts: tuple[str, ...] = KINDS
    """The kinds of alerts that are wanted."""
    pictures: str = "auto"
    """How pictures are drawn: one of PICTURE_KINDS."""


def config_file() -> Path:
    """Where it lies."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.config")) / "mltrack" / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """Read the file; without one everything is as it comes. Raises nothing."""
    path = path or config_file()
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        return Config(troubles=(f"{path} cannot be read: {error.strerror}.",))
    import tomllib  # most people have no such file

    try:
        entries = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return Config(troubles=(f"{path} is not TOML ({error}); nothing of it counts.",))
    troubles: list[str] = []
    for name in entries:
        if name not in _SETTINGS:
            troubles.append(f"{path.name}: there is no setting '{name}'{_near(name, _SETTINGS)}")
    theme = entries.get("theme")
    if theme is not None and theme not in THEMES:
        troubles.append(f"{path.name}: theme = {theme!r} is none of {', '.join(THEMES)}.")
        theme = None
    pictures = entries.get("pictures", "auto")
    if pictures not in PICTURE_KINDS:
        troubles.append(f"{path.name}: pictures = {pictures!r} is none of {', '.join(PICTURE_KINDS)}.")
        pictures = "auto"
    flags = {"ascii": False, "mouse": True}
    for name in flags:
        value = entries.get(name, flags[name])
        if isinstance(value, bool):
            flags[name] = value
        else:
            troubles.append(f"{path.name}: {name} must be true or false, not {value!r}.")
    notify, kinds = _alerts(entries.get("alerts", {}), path.name, troubles)
    keys, more = parse_keys(entries.get("keys", {}), path.name)
    return Config(theme, flags["ascii"], flags["mouse"], keys, (*troubles, *more), notify, kinds, pictures)


def _alerts(entries: object, where: str, troubles: list[str]) -> tuple[str, tuple[str, ...]]:
    if not isinstance(entries, Mapping):
        troubles.append(f'{where}: alerts must be a table: [alerts], then lines such as notify = "bell".')
        return "off", KINDS
    notify, kinds = entries.get("notify", "off"), entries.get("kinds", list(KINDS))
    if notify not in NOTIFY:
        troubles.append(f"{where}: notify = {notify!r} is none of {', '.join(NOTIFY)}.")
        notify = "off"
    if not isinstance(kinds, list) or any(kind not in KINDS for kind in kinds):
        troubles.append(f"{where}: kinds must be some of {', '.join(KINDS)}.")
        kinds = list(KINDS)
    return notify, tuple(kinds)


def parse_keys(entries: object, where: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """(keys by action, sentences about entries that do not count). Two meanings of a key in one place are refused."""
    if not isinstance(entries, Mapping):
        return {}, [f'{where}: keys must be a table: [keys], then lines such as sort = "o".']
    troubles: list[str] = []
    found: dict[str, tuple[str, ...]] = {}
    by_id = {key.id: key for key in KEYS}
    for id, value in entries.items():
        if id not in by_id:
            troubles.append(f"{where}: there is no action '{id}'{_near(id, by_id)}")
            continue
        if not isinstance(value, str) or not value.split():
            troubles.append(f'{where}: {id} must be keys in quotes, such as {id} = "{by_id[id].shown}".')
            continue
        keys = tuple(read_key(word) for word in value.split())
        wrong = [word for word, key in zip(value.split(), keys, strict=True) if key is None]
        if wrong:
            troubles.append(
                f"{where}: {id} = {value!r}: '{wrong[0]}' is no key; keys are o, O, ctrl+o, f5, space, pgdn."
            )
            continue
        found[id] = tuple(key for key in keys if key is not None)
    # Those of the file take precedence in no clash: which of two a person meant cannot be known.
    for id in list(found):
        for focuses in TOGETHER:
            if by_id[id].focus not in focuses:
                continue
            for other in KEYS:
                if other.id == id or other.focus not in focuses:
                    continue
                both = set(found.get(id, ())) & set(found.get(other.id, other.keys))
                if both and id in found:
                    troubles.append(
                        f"{where}: {id} = '{' '.join(found.pop(id))}': {min(both)} is '{other.label}' there already."
                    )
    return found, troubles


def read_key(word: str) -> str | None:
    """A key as Textual calls it, from how people write it; None when there is no such key."""
    if len(word) == 1:
        return NAMED_KEYS.get(word, word if word.isalnum() else None)
    *modifiers, last = word.split("+") if not word.endswith("+") else [*word[:-2].split("+"), "+"]
    if any(modifier not in _MODIFIERS for modifier in modifiers):
        return None
    key = NAMED_KEYS.get(last, last)
    known = (
        len(key) == 1
        or key in NAMED_KEYS.values()
        or (key.startswith("f") and key[1:].isdigit() and 1 <= int(key[1:]) <= 24)
    )
    return "+".join([*modifiers, key]) if known else None


def _near(name: str, known: object) -> str:
    import difflib

    assert isinstance(known, tuple | dict)
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."
