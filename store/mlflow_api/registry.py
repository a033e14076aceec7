"""registered-models/*: models, their tags and aliases."""

from __future__ import annotations

from mltrack.store.errors import BadInput, NotFound
from mltrack.store.mlflow_api import versions
from mltrack.store.mlflow_api.api import Answer, Api, Handler
from mltrack.store.mlflow_api.entity_search import Entity, paged, search
from mltrack.store.mlflow_api.validate import check_count, check_length
from mltrack.store.mlflow_api.versions import (
    PROMPT_TAG,
    check_name,
    check_registry_tag,
    in_stages,
    left_out,
    version_of,
)
from mltrack.store.mlflow_api.wire import ApiError, Fields, filled, invalid, missing
from mltrack.store.registry import STAGES
from mltrack.store.registry_reading import Model, ModelVersion

SEARCH_MOST = 1000
_KINDS = {"name": "text"}
_ORDERS = {"name": "text", "last_updated_timestamp": "number"}


def shown(api: Api, model: Model, every: list[ModelVersion] | None = None) -> Answer:
    """A registered model as MLflow's clients know it."""
    known = api.store.registry.versions(model.name) if every is None else every
    latest = in_stages(known, STAGES)
    return filled(
        name=model.name,
        creation_timestamp=model.created_ms,
        last_updated_timestamp=model.updated_ms,
        description=model.description or None,
        latest_versions=[versions.shown(version) for version in latest],
        tags=[{"key": key, "value": value} for key, value in model.tags.items()],
        aliases=[
            {"alias": alias, "version": str(version)}
            for alias, version in api.store.registry.aliases(model.name).items()
        ],
    )


def model_of(api: Api, fields: Fields) -> Model:
    """The model that a request names."""
    name = check_name(fields)
    try:
        return api.store.registry.model(name)
    except NotFound:
        raise missing(f"Registered Model with name={name} not found") from None


def create(api: Api, fields: Fields) -> Answer:
    name = check_name(fields)
    tags = {check_registry_tag(key): value for key, value in fields.pairs("tags").items()}
    registry = api.store.registry
    if name in registry.models():
        raise ApiError("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists.")
    operations: list[Answer] = [
        {"op": "create_model", "name": name, "description": fields.text("description")}
    ]
    operations += [
        {"op": "model_tag", "name": name, "version": 0, "key": key, "value": tags[key]} for key in tags
    ]
    api.decide(operations, f"Made the model {name}")
    return {"registered_model": shown(api, registry.model(name))}


def get(api: Api, fields: Fields) -> Answer:
    return {"registered_model": shown(api, model_of(api, fields))}


def update(api: Api, fields: Fields) -> Answer:
    model = model_of(api, fields)
    api.store.registry.describe(model.name, fields.text("description"))
    return {"registered_model": shown(api, api.store.registry.model(model.name))}


def rename(api: Api, fields: Fields) -> Answer:
    check_name(fields)
    name, model = fields.needed("new_name"), model_of(api, fields)
    if name != model.name:
        if name in api.store.registry.models():
            raise ApiError("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists.")
        api.store.registry.rename_model(model.name, name)
    return {"registered_model": shown(api, api.store.registry.model(name))}


def delete(api: Api, fields: Fields) -> Answer:
    api.store.registry.delete_model(model_of(api, fields).name, force=True)
    return {}


def search_models(api: Api, fields: Fields) -> Answer:
    most = check_count("max_results", fields.whole("max_results", 100), SEARCH_MOST)
    registry = api.store.registry
    entities: list[Entity] = []
    for name in registry.models():
        model = registry.model(name)
        if left_out(model.tags, fields):
            continue
        attributes = {
            "name": name,
            "last_updated_timestamp": model.updated_ms,
        }
        entities.append(Entity(model, attributes, model.tags))
    found = search(
        entities,
        fields.text("filter"),
        fields.texts("order_by"),
        _KINDS,
        order_kinds=_ORDERS,
        default=(("name", False),),
        aliases={"timestamp": "last_updated_timestamp"},
        absent_matches=PROMPT_TAG,
        order_word="order by",
    )
    page, token = paged(found, most, fields.text("page_token"))
    return filled(registered_models=[shown(api, entity.row) for entity in page], next_page_token=token)


def latest_versions(api: Api, fields: Fields) -> Answer:
    model = model_of(api, fields)
    stages = [versions.stage_of(stage) for stage in fields.texts("stages")] or list(STAGES)
    found = in_stages(api.store.registry.versions(model.name), stages)
    return filled(model_versions=[versions.shown(version) for version in found])


def set_tag(api: Api, fields: Fields) -> Answer:
    fields.need("name", "key")
    model = model_of(api, fields)
    key = check_registry_tag(fields.needed("key"))
    value = check_length("value", fields.text("value"), versions.TAG_CHARACTERS)
    api.store.registry.set_tag(model.name, key, value)
    return {}


def delete_tag(api: Api, fields: Fields) -> Answer:
    fields.need("name", "key")
    model, key = model_of(api, fields), fields.needed("key")
    if key in model.tags:
        api.store.registry.set_tag(model.name, key, None)
    return {}


def set_alias(api: Api, fields: Fields) -> Answer:
    fields.need("name", "alias", "version")
    model = model_of(api, fields)
    alias, version = fields.needed("alias"), version_of(api, model.name, fields)
    api.store.registry.set_alias(model.name, alias, version.version)
    return {}


def get_alias(api: Api, fields: Fields) -> Answer:
    fields.need("name", "alias")
    model, alias = model_of(api, fields), fields.needed("alias")
    found = api.store.registry.aliases(model.name).get(alias)
    if found is None and alias.lower() == "latest":
        found = max((version.version for version in api.store.registry.versions(model.name)), default=None)
    if found is None:
        raise invalid(f"Registered model alias {alias[:200]} not found.")
    return {"model_version": versions.shown(api.store.registry.version(model.name, found))}


def delete_alias(api: Api, fields: Fields) -> Answer:
    fields.need("name", "alias")
    model, alias = model_of(api, fields), fields.needed("alias")
    if alias in api.store.registry.aliases(model.name):
        try:
            api.store.registry.set_alias(model.name, alias, None)
        except BadInput as error:
            raise invalid(error.message) from None
    return {}


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "registered-models/create"): create,
    ("GET", "registered-models/get"): get,
    ("PATCH", "registered-models/update"): update,
    ("POST", "registered-models/rename"): rename,
    ("DELETE", "registered-models/delete"): delete,
    ("GET", "registered-models/search"): search_models,
    ("POST", "registered-models/get-latest-versions"): latest_versions,
    ("GET", "registered-models/get-latest-versions"): latest_versions,
    ("POST", "registered-models/set-tag"): set_tag,
    ("DELETE", "registered-models/delete-tag"): delete_tag,
    ("POST", "registered-models/alias"): set_alias,
    ("GET", "registered-models/alias"): get_alias,
    ("DELETE", "registered-models/alias"): delete_alias,
    **versions.ROUTES,
}
