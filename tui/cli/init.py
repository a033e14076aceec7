"""`mltrack init`: make a store, for oneself or for a group."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mltrack.store.errors import BadInput, MltrackError
from mltrack.tui.cli.exit_codes import ExitCode
from mltrack.tui.cli.output import warn, write_text
from mltrack.tui.cli.session import Session


@click.command("init")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--group", metavar="NAME", help="Share the store with this Unix group.")
@click.option(
    "--no-site", is_flag=True, help="Leave the machine's settings (/etc/mltrack/config.toml) alone."
)
@click.option(
    "--artifacts", metavar="URL", help="Where files of runs go: s3://bucket/prefix, gs://, sftp://."
)
@click.option(
    "-x",
    "--experiment",
    metavar="NAME",
    help="That address is for this experiment; NAME/ for a folder of them.",
)
@click.option(
    "--drop-local/--keep-local",
    default=None,
    help="Remove files here when their copies are proven, or keep both.",
)
@click.pass_obj
def init_command(
    session: Session,
    folder: str | None,
    group: str | None,
    no_site: bool,
    artifacts: str | None,
    experiment: str | None,
    drop_local: bool | None,
) -> int:
    """Make a store in DIR; without DIR in .mltrack/ here, which everything below this folder then uses.

    With --group the store is shared: its folders and files belong to the group, whatever anybody's umask says, and nobody
    else can look into it. What is there already is kept, so that a store of one person can be shared later.

    With --artifacts the files of runs are sent on to an object store in the background, those that are here already as well.
    --artifacts "" keeps them here from now on. It is also for a store in PostgreSQL, named by --store.
    """
    from mltrack.store.client.location import MARK
    from mltrack.store.sharing import make_store

    named = os.environ.get("MLTRACK_STORE") if artifacts is not None else None
    where = folder or session.where or named or MARK
    if artifacts is None and (experiment is not None or drop_local is not None):
        raise BadInput("--experiment and --drop-local are about --artifacts URL; name that too.")
    if "://" in where:
        if artifacts is None or not where.startswith("postgresql"):
            raise BadInput(
                "A store behind a URL is made when it is first used; `mltrack init` makes folders."
            )
    else:
        where = os.path.abspath(os.path.expanduser(where))
        made = make_store(Path(where), group, site=not no_site)
        for sentence in made.said:
            write_text(sentence, session.terminal)
        for sentence in made.left:
            warn(sentence)
    if artifacts is not None:
        _send_artifacts_to(session, where, artifacts, experiment, drop_local)
    return ExitCode.OK


def _send_artifacts_to(
    session: Session, where: str, url: str, experiment: str | None, drop_local: bool | None
) -> None:
    """Note down where artifacts go, and say at once what is in the way."""
    from mltrack.store.client.destination import Destination, DestinationError, check_address
    from mltrack.store.copies import destination, set_destination
    from mltrack.store.object_store import open_objects
    from mltrack.store.opening import open_store

    try:
        address = check_address(url) if url else ""
    except DestinationError as error:
        raise BadInput(f"{error}.") from None
    with open_store(where) as store:
        before = destination(store.database, store.root)
        drop = before.drop_local if drop_local is None else drop_local
        experiments = dict(before.experiments)
        if experiment is not None:
            experiments[experiment] = address
        chosen = Destination(before.url if experiment is not None else address, drop, experiments)
        set_destination(store.database, store.root, chosen)
    of = f" of {experiment}" if experiment else ""
    if not address:
        write_text(f"Files of runs{of} stay here.", session.terminal)
        return
    after = "; files here go when their copies are proven" if drop else "; files here stay as well"
    write_text(
        f"Files of runs{of} go to {address}{after}. `mltrack ship` sends what is here already.",
        session.terminal,
    )
    try:
        next(open_objects(address).listing("0" * 32), None)
    except MltrackError as error:
        warn(f"That does not work yet: {error.message}")
