"""runs/*: making, reading, ending and finding runs."""

from __future__ import annotations

import re

import numpy as np

from mltrack.store import filter_parser, search
from mltrack.store.acting import acting_for
from mltrack.store.client.host import user as own_user
from mltrack.store.client.journal import random_hex
from mltrack.store.client.names import run_name as random_name
from mltrack.store.mlflow_api import run_answers
from mltrack.store.mlflow_api.api import Answer, Api, RunRow, artifact_uri
from mltrack.store.mlflow_api.entity_search import offset_of, token_of
from mltrack.store.mlflow_api.experiments import view
from mltrack.store.mlflow_api.run_answers import COMMIT_TAG, NAME_TAG, NOTE_TAG, PARENT_TAG, USER_TAG
from mltrack.store.mlflow_api.validate import check_count, check_key, check_name, check_value
from mltrack.store.mlflow_api.wire import Fields, filled, invalid, missing
from mltrack.store.mlflow_api.writers import RunWriter
from mltrack.store.runs import in_words
from mltrack.store.sort_parser import parse_sort

SEARCH_MOST = 50_000
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_STATUS_NUMBERS: dict[str, str] = dict(
    zip(("1", "2", "3", "4", "5"), ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"), strict=True)
)
_ENDED = frozenset(("FINISHED", "FAILED", "KILLED"))


def run_id_of(fields: Fields) -> str:
    """The run that a request names; old clients say run_uuid."""
    found = fields.text("run_id") or fields.text("run_uuid")
    if not found:
        fields.need("run_id")
    return found


def create(api: Api, fields: Fields) -> Answer:
    experiment = api.experiment(fields.text("experiment_id") or "0")
    if experiment.lifecycle != "active":
        raise invalid(
            f"The experiment {experiment.id} must be in the 'active' state. Current state is deleted."
        )
    tags = {
        check_name("tag", key): check_value("tag", key, value) for key, value in fields.pairs("tags").items()
    }
    name, tagged = fields.text("run_name"), tags.get(NAME_TAG, "")
    if name and tagged and name != tagged:
        raise invalid(
            f"Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values"
            f" (run_name='{name}', mlflow.runName='{tagged}')."
        )
    name = name or tagged or random_name()
    tags[NAME_TAG] = name
    run_id = random_hex(32)
    known = acting_for()
    if known is not None and USER_TAG in tags:
        tags[USER_TAG] = known.name
    user = known.name if known is not None else fields.text("user_id") or tags.get(USER_TAG, "")
    writer = api.writers.new(run_id, api.version())
    api.writers.meta(
        writer,
        "start",
        name=name,
        experiment=experiment.name,
        user=user,
        parent=tags.get(PARENT_TAG) or None,
        at=fields.whole("start_time"),
    )
    _write_tags(api, writer, tags)
    api.writers.fold(run_id)
    api.remember(run_id, RunRow(experiment.id, "active"))
    return {"run": run_answers.one(api, run_id)}


def _write_tags(api: Api, writer: RunWriter, tags: dict[str, str]) -> None:
    """Tags, and beside them what our own screens show from other places."""
    if tags:
        api.writers.set_tags(writer, tags)
    if NOTE_TAG in tags:
        api.writers.meta(writer, "note", v=tags[NOTE_TAG])
    if re.fullmatch(r"[0-9a-f]{7,64}", tags.get(COMMIT_TAG, "")):
        api.writers.meta(writer, "facts", v={"git": {"commit": tags[COMMIT_TAG]}})


def get(api: Api, fields: Fields) -> Answer:
    run_id = run_id_of(fields)
    api.run(run_id)
    api.writers.fold(run_id)
    return {"run": run_answers.one(api, run_id)}


def update(api: Api, fields: Fields) -> Answer:
    run_id = run_id_of(fields)
    writer = api.writer(run_id)
    status = (
        fields.text("status")
        if not isinstance(fields.values.get("status"), int)
        else str(fields.values["status"])
    )
    status = _STATUS_NUMBERS.get(status, status)
    if status and status not in STATUSES:
        raise invalid(
            f"Invalid value '{status[:80]}' for parameter 'status' supplied: use one of {STATUSES}."
        )
    name = fields.text("run_name")
    if name:
        rename(api, run_id, writer, name)
    said = fields.whole("end_time") if fields.values.get("end_time") is not None else None
    if status or said is not None:
        api.writers.fold(run_id)
        before = api.store.runs([run_id], metrics=(), params=(), folders=False)[0]
        status = status or run_answers.STATUS.get(before.status, before.status)
        if status in _ENDED:
            # An end that was said once stays until another one is said; one that nobody said is none.
            api.writers.meta(writer, "end", status=status, at=said if said is not None else before.end_ms)
            api.writers.end(run_id)
        else:
            api.writers.meta(writer, "end", status=status, until=said)
    api.writers.fold(run_id)
    run = api.store.runs([run_id])[0]
    experiment = api.experiment(str(api.run(run_id).experiment_id))
    return {"run_info": run_answers.info(run, artifact_uri(experiment, run_id), experiment.id)}


def rename(api: Api, run_id: str, writer: RunWriter, name: str) -> None:
    """Give a run another name, also where a person gave it one."""
    if not name.strip():
        raise invalid("The name of a run must not be empty.")
    decided = api.database.execute(
        "SELECT 1 FROM edit e JOIN run r ON r.id = e.run WHERE r.run_id = ? AND e.field = 'name'", (run_id,)
    )
    if decided:
        api.decide(
            [{"op": "field", "run": run_id, "field": "name", "value": name}],
            f"Renamed {in_words(api.database, [run_id])} to {name}",
        )
    else:
        api.writers.meta(writer, "name", v=name)
    api.writers.set_tags(writer, {NAME_TAG: name})


def delete(api: Api, fields: Fields) -> Answer:
    return _lifecycle(api, run_id_of(fields), "trash")


def restore(api: Api, fields: Fields) -> Answer:
    return _lifecycle(api, run_id_of(fields), None)


def _lifecycle(api: Api, run_id: str, value: str | None) -> Answer:
    row = api.run(run_id)
    if (row.lifecycle == "active") == (value is None):
        return {}
    api.writers.end(run_id)
    api.writers.fold(run_id)
    named = in_words(api.database, [run_id])
    api.decide(
        [{"op": "field", "run": run_id, "field": "lifecycle", "value": value}],
        f"Moved {named} to the trash" if value else f"Restored {named}",
    )
    return {}


def search_runs(api: Api, fields: Fields) -> Answer:
    api.writers.fold_all()
    most = check_count("max_results", fields.whole("max_results", 1000), SEARCH_MOST)
    offset = offset_of(fields.text("page_token"))
    wanted = api.searched(fields.texts("experiment_ids"))
    expression = filter_parser.parse(fields.text("filter"), mlflow=True)
    sort = parse_sort(fields.texts("order_by"), mlflow=True)
    columns = api.store.columns
    columns.refresh()
    mask = search.evaluate(expression, columns, api.now_ms(), own_user())
    lifecycle = columns.text("attribute", "lifecycle")
    stages = view(fields, "run_view_type")
    allowed = {"active": "active", "deleted": "trash"}
    codes = [lifecycle.values.index(allowed[stage]) for stage in stages if allowed[stage] in lifecycle.values]
    mask = (
        mask & np.isin(lifecycle.codes, codes) & np.isin(api.store.columns.experiment_numbers(), list(wanted))
    )
    page = search.page(columns, mask, sort)
    run_ids = page.run_ids[offset : offset + most]
    more = offset + most < len(page.run_ids)
    return filled(
        runs=run_answers.shown(api, run_ids), next_page_token=token_of(offset + most) if more else None
    )


def set_tag(api: Api, fields: Fields) -> Answer:
    run_id = run_id_of(fields)
    key = check_key("tag", fields.needed("key"))
    value = check_value("tag", key, fields.text("value"))
    write_tags(api, run_id, {key: value})
    return {}


def write_tags(api: Api, run_id: str, tags: dict[str, str]) -> None:
    """Set tags of a run; that of its name names it."""
    writer = api.writer(run_id)
    if tags.get(NAME_TAG):  # an empty one changes nothing, as with MLflow's server
        rename(api, run_id, writer, tags[NAME_TAG])
    if PARENT_TAG in tags:
        api.writers.meta(writer, "parent", v=tags[PARENT_TAG])
    if USER_TAG in tags and acting_for() is not None:
        # With users the server knows whose a run is, whoever tags it; of a run from before them it may know nobody.
        api.writers.fold(run_id)
        owner = api.store.runs([run_id], (), (), folders=False)[0].user
        tags = {**tags, USER_TAG: owner} if owner else {k: v for k, v in tags.items() if k != USER_TAG}
    _write_tags(api, writer, {key: value for key, value in tags.items() if key != NAME_TAG})


def delete_tag(api: Api, fields: Fields) -> Answer:
    run_id, key = run_id_of(fields), fields.needed("key")
    writer = api.writer(run_id)
    api.writers.fold(run_id)
    if key not in api.store.runs([run_id])[0].tags:
        raise missing(f"No tag with name: {key[:200]} in run with id {run_id}")
    if key in writer.decided_tags:
        api.decide(
            [{"op": "tag", "run": run_id, "key": key, "value": None}],
            f"Removed the tag {key} of {in_words(api.database, [run_id])}",
        )
    else:
        api.writers.meta(writer, "untag", k=[key])
    if key == NOTE_TAG:
        api.writers.meta(writer, "note", v="")
    if key == PARENT_TAG:
        api.writers.meta(writer, "parent", v="")
    return {}


ROUTES = {
    ("POST", "runs/create"): create,
    ("GET", "runs/get"): get,
    ("POST", "runs/update"): update,
    ("POST", "runs/delete"): delete,
    ("POST", "runs/restore"): restore,
    ("POST", "runs/search"): search_runs,
    ("POST", "runs/set-tag"): set_tag,
    ("POST", "runs/delete-tag"): delete_tag,
}
