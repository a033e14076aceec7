"""model-versions/*: versions, their stages and where their files lie."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from mltrack.store import model_files
from mltrack.store.client.journal import run_folder
from mltrack.store.errors import BadInput, NotFound
from mltrack.store.mlflow_api.api import Answer, Api, Handler, below
from mltrack.store.mlflow_api.entity_search import Entity, paged, search
from mltrack.store.mlflow_api.logged_models import note_registered
from mltrack.store.mlflow_api.validate import check_count, check_key, check_length
from mltrack.store.mlflow_api.wire import ApiError, Fields, filled, invalid, missing
from mltrack.store.registry import stage_name
from mltrack.store.registry_reading import ModelVersion

SEARCH_MOST = 200_000
TAG_CHARACTERS = 100_000
NAME_CHARACTERS = 256
# MLflow's `run_link` has no place of its own here.
LINK_TAG = "mltrack.run_link"
# Where the files of a version lie that was copied from another one: it stays so when that one goes.
STORED_TAG = "mltrack.stored_at"
_OWN_TAGS = frozenset((LINK_TAG, STORED_TAG))
# What 3.x clients ask of every model: one without the tag is no prompt.
_PROMPT = "mlflow.prompt.is_prompt"
PROMPT_TAG = frozenset((_PROMPT,))
_MODEL_ID = re.compile(r"models:/(m-[0-9a-f]{32})\Z|/models/(m-[0-9a-f]{32})/artifacts")
_KINDS = {"name": "text", "run_id": "text", "source_path": "text", "version_number": "number"}
_ORDERS = {
    "name": "text",
    "version_number": "number",
    "creation_timestamp": "number",
    "last_updated_timestamp": "number",
}


def shown(version: ModelVersion) -> Answer:
    """A version as MLflow's clients know it."""
    tags = {key: value for key, value in version.tags.items() if key not in _OWN_TAGS}
    return filled(
        name=version.name,
        version=str(version.version),
        creation_timestamp=version.created_ms,
        last_updated_timestamp=version.updated_ms,
        user_id=version.actor or None,
        current_stage=version.stage,
        description=version.description,
        source=version.source,
        run_id=version.run_id,
        run_link=version.tags.get(LINK_TAG, ""),
        status="READY",
        model_id=model_id_of(version.source) or None,
        tags=[{"key": key, "value": value} for key, value in tags.items()],
        aliases=list(version.aliases),
    )


def model_id_of(source: str) -> str:
    """The logged model that a source names; "" for none."""
    found = _MODEL_ID.search(source)
    return (found[1] or found[2]) if found else ""


def check_name(fields: Fields) -> str:
    """The name of a model."""
    name = fields.text("name")
    if not name.strip():
        raise invalid("Missing value for required parameter 'name'.")
    if len(name) > NAME_CHARACTERS or any(character in name for character in "/:\0") or name in (".", ".."):
        raise invalid(
            f"Invalid model name '{name[:300]}'. Names cannot contain '/' or ':', be '.' or have more than 256 characters."
        )
    return name


def left_out(tags: Mapping[str, str], fields: Fields) -> bool:
    """Whether a search finds this only when it asks for it: prompts lie in the registry, but are no models."""
    return tags.get(_PROMPT) == "true" and _PROMPT not in fields.text("filter")


def check_registry_tag(key: str) -> str:
    """The key of a tag in the registry, of those that clients may set."""
    if key == STORED_TAG:
        raise invalid(f"The tag '{key}' is the server's own: it says where the files of a version lie.")
    return check_key("tag", key)


def stage_of(stage: str) -> str:
    """A stage by any spelling of it."""
    try:
        return stage_name(stage)
    except BadInput:
        raise invalid(
            f"Invalid Model Version stage: {stage[:80]}. Value must be one of None, Staging, Production, Archived."
        ) from None


def in_stages(versions: Sequence[ModelVersion], stages: Sequence[str]) -> list[ModelVersion]:
    """The newest version of each stage, oldest version first."""
    newest: dict[str, ModelVersion] = {}
    for version in versions:
        if version.stage in stages and version.version > getattr(newest.get(version.stage), "version", 0):
            newest[version.stage] = version
    return sorted(newest.values(), key=lambda version: version.version)


def version_of(api: Api, name: str, fields: Fields) -> ModelVersion:
    """The version that a request names."""
    text = str(fields.needed("version"))
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise invalid(f"Parameter 'version' must be an integer, got '{text[:80]}'.")
    try:
        return api.store.registry.version(name, int(text))
    except NotFound:
        raise missing(f"Model Version (name={name}, version={text}) not found") from None


def named(api: Api, fields: Fields) -> ModelVersion:
    """The version that a request names, with its model."""
    return version_of(api, check_name(fields), fields)


async def create(api: Api, fields: Fields) -> Answer:
    name, source = check_name(fields), fields.needed("source")
    run_id, model_id = fields.text("run_id"), fields.text("model_id")
    try:
        api.store.registry.model(name)
    except NotFound:
        raise missing(f"Registered Model with name={name} not found") from None
    if model_id and not api.database.execute(
        "SELECT 1 FROM logged_model WHERE model_id = ? AND deleted_ms IS NULL", (model_id,)
    ):
        raise missing(f"Logged model with ID '{model_id[:80]}' not found.")
    run_id = _check_source(api, source, run_id, model_id)
    tags = {check_registry_tag(key): value for key, value in fields.pairs("tags").items()}
    if fields.text("run_link"):
        tags[LINK_TAG] = fields.text("run_link")
    stored = stored_at(api, source) if source.startswith("models:/") and not model_id_of(source) else source
    if stored != source:
        tags[STORED_TAG] = stored
    if run_id:
        api.writers.fold(run_id)
    # Hashing a model's files may take seconds: not in the thread that answers everybody.
    files = await asyncio.to_thread(model_files.listed_at, api.store.root, stored)
    version = api.store.registry.register(
        name, source, run_id, fields.text("description"), files=files, tags=tags
    )
    if model_id:
        note_registered(api, model_id, name, version)
    return {"model_version": shown(api.store.registry.version(name, version))}


def _check_source(api: Api, source: str, run_id: str, model_id: str) -> str:
    """The run of a version. A source names files of this store, or a place elsewhere; a path of the client's choice is never
    looked at. Raises ApiError."""
    plain, shown = unquote(source), f"Invalid model version source: '{source[:300]}'."
    scheme = source.partition(":")[0].lower() if ":" in source else ""
    if scheme not in ("", "file", "runs", "models") and (
        ".." in plain.replace("\\", "/").split("/") or "\0" in plain or not urlsplit(source).path
    ):
        raise invalid(
            f"{shown} If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, an"
            " absolute path must be provided without relative path references present. Please provide an absolute path."
        )
    if scheme in ("http", "https"):
        raise invalid(f"{shown} 'source' cannot use the '{scheme}' scheme: it addresses another host.")
    if ".." in plain.replace("\\", "/").split("/") or "\0" in plain:
        raise invalid(f"{shown} It may not contain '..'.")
    owner = f"{shown} The %s request parameter must identify the resource that contains the source."
    if scheme == "runs":
        if source.removeprefix("runs:").lstrip("/").partition("/")[0] != run_id:
            raise invalid(owner % "run_id")
    elif scheme == "models":
        named, _, version = source.removeprefix("models:").lstrip("/").partition("/")
        if version:
            return run_id or _of_version(api, named, version)
        if "@" in named:
            return run_id or _of_alias(api, *named.split("@", 1))
        if named != model_id:
            raise invalid(owner % "model_id")
    elif scheme == "mlflow-artifacts":
        if not (model_id and f"/models/{model_id}/" in source + "/") and not (
            run_id and f"/{run_id}/" in source + "/"
        ):
            raise invalid(owner % ("model_id" if model_id_of(source) else "run_id"))
    if scheme in ("", "file"):
        path = source.removeprefix("file://")
        own = (
            run_folder(api.store.root, run_id) / "artifacts"
            if re.fullmatch(r"[0-9a-f]{32}", run_id)
            else None
        )
        if own is None or not (os.path.realpath(path) + "/").startswith(os.path.realpath(own) + "/"):
            raise invalid(
                f"Invalid model version source: '{source[:300]}'. To use a local path as a model version source,"
                " the run_id request parameter has to be specified and the local path has to be contained within the"
                " artifact directory of the run specified by the run_id."
            )
    return run_id


def _of_alias(api: Api, name: str, alias: str) -> str:
    """The run of the version that `models:/name@alias` names."""
    version = api.store.registry.aliases(name).get(alias)
    if version is None:
        raise invalid(f"Registered model alias {alias[:200]} not found.")
    return api.store.registry.version(name, version).run_id


def _of_version(api: Api, name: str, version: str) -> str:
    """The run of the version that `models:/name/version` names."""
    try:
        api.store.registry.model(name)
    except NotFound:
        raise missing(f"Registered Model with name={name[:300]} not found") from None
    if not version.isdecimal():
        return ""
    return version_of(api, name, Fields({"version": version})).run_id


def get(api: Api, fields: Fields) -> Answer:
    return {"model_version": shown(named(api, fields))}


def update(api: Api, fields: Fields) -> Answer:
    version = named(api, fields)
    if fields.values.get("description") is not None:
        api.store.registry.describe(version.name, fields.text("description"), version.version)
    return {"model_version": shown(named(api, fields))}


def delete(api: Api, fields: Fields) -> Answer:
    version = named(api, fields)
    api.store.registry.delete_version(version.name, version.version, force=True)
    return {}


def transition(api: Api, fields: Fields) -> Answer:
    fields.need("name", "version", "stage")
    archive, stage = fields.flag("archive_existing_versions"), stage_of(fields.needed("stage"))
    version = named(api, fields)
    if archive and stage in ("None", "Archived"):
        raise invalid(
            f"Model version transition cannot archive existing model versions because '{stage}' is not an Active stage."
        )
    api.store.registry.promote(version.name, version.version, stage, "", archive=archive)
    return {"model_version": shown(named(api, fields))}


def search_versions(api: Api, fields: Fields) -> Answer:
    most = check_count("max_results", fields.whole("max_results", SEARCH_MOST), SEARCH_MOST)
    registry = api.store.registry
    entities = [
        Entity(
            version,
            {
                "name": version.name,
                "run_id": version.run_id,
                "source_path": version.source,
                "version_number": version.version,
                "creation_timestamp": version.created_ms,
                "last_updated_timestamp": version.updated_ms,
            },
            version.tags,
        )
        for name in registry.models()
        for version in registry.versions(name)
        if not left_out(version.tags, fields)
    ]
    order = fields.texts("order_by")
    newest = () if order else (("last_updated_timestamp", True),)
    found = search(
        entities,
        fields.text("filter"),
        order,
        _KINDS,
        order_kinds=_ORDERS,
        default=(*newest, ("name", False), ("version_number", True)),
        absent_matches=PROMPT_TAG,
        lists=frozenset(("name", "run_id")),
    )
    page, token = paged(found, most, fields.text("page_token"))
    return filled(model_versions=[shown(entity.row) for entity in page], next_page_token=token)


def download_uri(api: Api, fields: Fields) -> Answer:
    return {"artifact_uri": _place_of(api, named(api, fields))}


def _place_of(api: Api, version: ModelVersion) -> str:
    return stored_at(api, version.tags.get(STORED_TAG) or version.source)


def stored_at(api: Api, source: str) -> str:
    """A source as a place that a client can fetch from; one that names nothing of this store stays as it is."""
    if source.startswith("runs:/"):
        run_id, _, path = source.removeprefix("runs:").lstrip("/").partition("/")
        try:
            experiment = api.experiment(str(api.run(run_id).experiment_id))
        except ApiError:
            return source
        return below(experiment, f"{run_id}/artifacts/{path}")
    named = source.removeprefix("models:/")
    if named != source and ("/" in named or "@" in named):
        try:
            return _place_of(api, api.store.registry.resolve(source))
        except (NotFound, BadInput):
            return source
    model_id = model_id_of(source)
    if source.startswith("models:/") and model_id:
        rows = api.database.execute("SELECT experiment_id FROM logged_model WHERE model_id = ?", (model_id,))
        if rows:
            experiment = api.experiment(str(rows[0][0]))
            return below(experiment, f"models/{model_id}/artifacts")
    return source


def folder_of(api: Api, fields: Fields) -> str:
    """The path, as the artifact proxy has it, of a version's files. Raises ApiError when they do not lie here."""
    stored = _place_of(api, named(api, fields))
    if not stored.startswith("mlflow-artifacts:/"):
        raise missing(f"The files of the version do not lie on this server but at {stored[:200]}.")
    return urlsplit(stored).path.lstrip("/")


def set_tag(api: Api, fields: Fields) -> Answer:
    fields.need("name", "version", "key")
    version = named(api, fields)
    key = check_registry_tag(fields.needed("key"))
    value = check_length("value", fields.text("value"), TAG_CHARACTERS)
    api.store.registry.set_tag(version.name, key, value, version.version)
    return {}


def delete_tag(api: Api, fields: Fields) -> Answer:
    fields.need("name", "version", "key")
    version, key = named(api, fields), fields.needed("key")
    if key in version.tags and key != STORED_TAG:
        api.store.registry.set_tag(version.name, key, None, version.version)
    return {}


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "model-versions/create"): create,
    ("GET", "model-versions/get"): get,
    ("PATCH", "model-versions/update"): update,
    ("DELETE", "model-versions/delete"): delete,
    ("POST", "model-versions/transition-stage"): transition,
    ("GET", "model-versions/search"): search_versions,
    ("GET", "model-versions/get-download-uri"): download_uri,
    ("POST", "model-versions/set-tag"): set_tag,
    ("DELETE", "model-versions/delete-tag"): delete_tag,
}
