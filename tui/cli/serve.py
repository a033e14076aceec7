"""`mltrack serve`: a model behind MLflow's scoring protocol."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from mltrack.tui.cli.output import write_text
from mltrack.tui.cli.session import Session


@click.command("serve")
@click.argument("model_uri", metavar="MODEL_URI")
@click.option(
    "--backend",
    type=click.Choice(["local", "venv", "docker"]),
    default="local",
    help="This environment, or the model's own, alone or in a container without network [local].",
)
@click.option("--gpu", default="none", metavar="none|free|N|UUID", help="GPUs for the model [none].")
@click.option("--profile", metavar="NAME", help="A profile of profiles.toml, for --backend docker.")
@click.option(
    "--python", default="", metavar="PATH", help="An interpreter of your own to run the model with."
)
@click.option("--host", default="127.0.0.1", help="Where to listen [127.0.0.1]; anything else needs a token.")
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=5000, help="0 takes a free one [5000].")
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Processes that hold the model [1].")
@click.option(
    "--timeout", "seconds", type=click.FloatRange(0.1), default=30.0, help="Seconds for one request [30]."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="Ask for the token in this file; it is made when it is not there.",
)
@click.option("--no-run", is_flag=True, help="Record no run: the models screen cannot say what is served.")
@click.pass_obj
def serve_command(
    session: Session,
    model_uri: str,
    backend: str,
    gpu: str,
    profile: str | None,
    python: str,
    host: str,
    port: int,
    workers: int,
    seconds: float,
    token_file: Path | None,
    no_run: bool,
) -> None:
    """Serve models:/NAME/Production, models:/NAME@alias, models:/NAME/3, runs:/ID/path or a folder.

    A stage or alias is followed: whoever holds it is served, after answering its stored example.
    """
    from mltrack.projects.serving import Options, Server, find

    served = find(session.where, model_uri)
    options = Options(
        backend=backend,
        python=python,
        host=host,
        port=port,
        workers=workers,
        seconds=seconds,
        token_file=token_file,
        record=not no_run,
        gpu=gpu,
        profile=profile,
    )

    def say(sentence: str) -> None:
        write_text(sentence, session.terminal)
        sys.stdout.flush()

    asyncio.run(Server(session.where, served, options, say).serve())
