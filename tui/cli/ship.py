"""`mltrack ship`: send what waits in the spool of a remote store, now."""

from __future__ import annotations

import click

from mltrack.store.client.location import LocationError, choose_store
from mltrack.store.copies import destination
from mltrack.store.errors import BadInput, StoreUnavailable
from mltrack.store.upload import send_now
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session
from mltrack.tui.draw.numbers import format_bytes


@click.command("ship")
@click.pass_obj
def ship_command(session: Session) -> int:
    """Send what waits: journals in the spool of a remote store (MLTRACK_STORE or --store), and artifacts that go to an object store.

    Trainings start this by themselves; it is for what was left when the store was away. Doing it again sends only what is new.
    """
    try:
        choice = choose_store(session.where)
    except LocationError as error:
        raise BadInput(str(error)) from None
    if not choice.url.startswith(("http://", "https://")):
        with session.open(refresh=False) as store:
            report = store.refresh(None, everything=choice.is_remote)
            elsewhere = destination(store.database, store.root).addresses()
        if choice.is_remote:
            write_text(f"Sent {report.records} records and {report.points} points.", session.terminal)
        elif not elsewhere:
            raise BadInput(
                f"{choice.url} is a folder, and its artifacts stay in it: nothing waits. --store names a remote store,"
                " and `mltrack init --artifacts URL` another place for artifacts."
            )
        if elsewhere:
            return _send_artifacts(session, choice.url)
        return ExitCode.OK
    from mltrack.store.ship_http import Shipper

    shipper = Shipper(choice.url, choice.root, warn)
    try:
        sent = shipper.send()
        gone = shipper.tidy()
    except OSError as error:
        raise StoreUnavailable(f"{error.strerror}. What waits lies in {choice.root}.") from None
    waiting = len(shipper.waiting())
    left = f"; {waiting} runs go on" if waiting else ""
    old = f"; {gone} runs that the server has had for a week are gone from here" if gone else ""
    write_text(f"Sent {format_bytes(sent)} from {choice.root}{left}{old}.", session.terminal)
    return ExitCode.FAILED if shipper.refused else ExitCode.OK


def _send_artifacts(session: Session, where: str) -> int:
    done = send_now(where, warn)
    assert done is not None
    dropped = f", removed {done.dropped:,} here" if done.dropped else ""
    removed = f", removed {done.removed:,} objects of purged runs" if done.removed else ""
    write_text(
        f"Sent {done.files:,} artifacts ({format_bytes(done.size)}){dropped}{removed}.", session.terminal
    )
    return ExitCode.FAILED if done.changed else ExitCode.OK
