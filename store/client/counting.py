"""Where counting goes on when a run is resumed: the steps of metrics that are logged without one."""

from __future__ import annotations

import json
from pathlib import Path

SEALED = "counted.json"
"""Written beside sealed journals, which the standard library cannot read: {"attempt": newest, "steps": {rank: {key: next}}}."""

TYPE_CHECKING = False  # not typing's: the import must cost little
if TYPE_CHECKING:
    from collections.abc import Iterable


def counted_steps(folder: Path, rank: int) -> dict[str, int]:
    """Where counting goes on for metrics logged without a step: from the summaries of earlier attempts and the points
    behind them, at most a minute's worth, that a killed process could not sum up any more."""
    following: dict[str, int] = {}
    summed_up: dict[str, int] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.startswith(("meta.", "points.")))
    except OSError:
        return following
    try:
        sealed = json.loads((folder / SEALED).read_bytes())["steps"].get(str(rank), {})
        following = {str(key): int(step) for key, step in sealed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # nothing is sealed, or the note is damaged
    for path in paths:  # meta files first
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline(65536))
                if head.get("rank") != rank or head.get("role") == "sampler":
                    continue
                if path.name.startswith("points."):
                    file.seek(max(file.tell(), summed_up.get(head["jid"], 0)))
                    _count_points(file, following)
                    continue
                for line in file:
                    if b'"op":"summary"' in line:
                        record = json.loads(line)
                        summed_up[head["jid"]] = int(record["upto"])
                        for key, fields in record["v"].items():
                            following[key] = max(following.get(key, 0), int(fields[1]) + 1)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue  # a damaged neighbour must not stop a training; its counts are simply not known
    return following


def _count_points(lines: Iterable[bytes], following: dict[str, int]) -> None:
    for line in lines:
        try:
            record = json.loads(line)
            after = int(record[0]) + 1
            for key in record[2::2]:
                if after > following.get(key, 0):
                    following[key] = after
        except (ValueError, TypeError, IndexError):
            continue  # torn or damaged: it counts nothing
