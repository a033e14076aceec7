"""`mltrack models build-docker`: an image that serves one model and needs nothing else."""

from __future__ import annotations

import re

import click

from mltrack.tui.cli.output import warn, write_json, write_text
from mltrack.tui.cli.session import Session


@click.command("build-docker")
@click.argument("model_uri", metavar="MODEL_URI")
@click.option(
    "-n",
    "--name",
    "image",
    default="",
    metavar="IMAGE",
    help="The image's name, without a tag [mltrack-model/NAME].",
)
@click.option(
    "--profile", metavar="NAME", help="A profile of profiles.toml: network, certificates, base image."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def build_docker_command(
    session: Session, model_uri: str, image: str, profile: str | None, as_json: bool
) -> None:
    """Build an image of models:/NAME/3, models:/NAME@alias, runs:/ID/path or a folder.

    It answers MLflow's scoring protocol on port 8080: docker run -p 127.0.0.1:8080:8080 IMAGE.
    """
    from mltrack.projects.model_image import build_model_image
    from mltrack.projects.serving import find

    served = find(session.where, model_uri)
    plain = re.sub(r"[^a-z0-9]+", "-", served.name.lower()).strip("-") or "model"
    built = build_model_image(served.folder, image or f"mltrack-model/{plain}", warn, profile)
    if as_json:
        write_json(
            {
                "image": built.image,
                "image_id": built.image_id,
                "model": served.name,
                "version": served.version or None,
            }
        )
        return
    write_text(built.image, session.terminal)
