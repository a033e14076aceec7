"""`mltrack compare --images`: pictures of runs side by side, where a terminal has colours for them, and which there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mltrack.store.errors import BadInput
from mltrack.tui.clean import clean
from mltrack.tui.cli.output import write_json, write_lines, write_text
from mltrack.tui.draw.numbers import format_step
from mltrack.tui.picture_series import Steps, pictures_of, step_of

if TYPE_CHECKING:
    from mltrack.store.records import Run
    from mltrack.tui.cli.terminal import Terminal

_STEPS_NAMED = 8


def write_images(
    terminal: Terminal, runs: Sequence[Run], name: str, step: int | None, as_json: bool = False
) -> None:
    """Print a step of a series, or which series there are. Raises BadInput."""
    pictures = pictures_of(runs)
    if as_json:
        write_json(
            [
                {
                    "name": each,
                    "runs": [
                        {"run_id": run.run_id, "steps": {str(at): path for at, path in sorted(steps.items())}}
                        for run, steps in zip(runs, found, strict=True)
                    ],
                }
                for each, found in pictures.items()
                if name in each
            ]
        )
        return
    if not name:
        for each, found in pictures.items():
            write_text(f"{each}   {_told(found)}", terminal)
        if not pictures:
            step_of(runs, pictures, name, step, 0, 0)  # says how pictures come to be
        return
    if not terminal.colour or terminal.ascii:
        raise BadInput(
            "Pictures are drawn in colours and half-blocks, which this output has not; --json names their files."
        )
    shown = step_of(runs, pictures, name, step, terminal.width, terminal.height - 2)
    write_text(f"{shown.name}   step {format_step(shown.step)}", terminal, "bold")
    for line in shown.lines:
        write_lines(["".join(_painted(terminal, clean(text, None), style) for text, style in line)])


def _told(found: Sequence[Steps]) -> str:
    steps = sorted({step for each in found for step in each})
    have = sum(bool(each) for each in found)
    named = ", ".join(format_step(step) for step in steps[:_STEPS_NAMED])
    more = f" and {len(steps) - _STEPS_NAMED:,} more" if len(steps) > _STEPS_NAMED else ""
    return f"{have} of {len(found)} runs   steps {named}{more}"


def _painted(terminal: Terminal, text: str, style: str) -> str:
    """Half-blocks in the two colours of their cell, other text in its style."""
    if not style.startswith("fg:#"):
        return terminal.style(terminal.fold(text), style or None)
    upper, lower = (bytes.fromhex(part[4:]) for part in style.split())
    colours = ";".join(map(str, (38, 2, *upper, 48, 2, *lower)))
    return f"\x1b[{colours}m{text}\x1b[0m"
