"""`mltrack system`: GPUs and who holds them, CPU, memory, what the store takes on disk."""

from __future__ import annotations

import dataclasses

import click

from mltrack.tui.cli.output import write_json, write_lines
from mltrack.tui.cli.session import Session


@click.command("system")
@click.option("--json", "as_json", is_flag=True, help="Figures instead of a page.")
@click.pass_obj
def system_command(session: Session, as_json: bool) -> None:
    """Show this machine and the disk of the store."""
    import time

    from mltrack.tui.machine import DiskScan, homes_of, read_machine
    from mltrack.tui.system_page import system_lines

    with session.open() as store:
        read_machine(None)  # CPU shares are measured between two looks
        disk = DiskScan(store.root).look(homes_of(store), wait=True)
        time.sleep(0.1)
        machine = read_machine(store)
    if as_json:
        write_json({"machine": dataclasses.asdict(machine), "disk": dataclasses.asdict(disk)})
        return
    terminal = session.terminal
    lines = system_lines(machine, disk, terminal.width - 1)
    write_lines(
        "".join(
            terminal.style(terminal.fold(text), style) if style else terminal.fold(text)
            for text, style in line
        )
        for line in lines
    )
