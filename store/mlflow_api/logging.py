"""What clients log of a run: metrics, params, batches, inputs, outputs, and the history of a metric."""

from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import orjson

from mltrack.store.errors import NotFound
from mltrack.store.mlflow_api.api import Answer, Api
from mltrack.store.mlflow_api.entity_search import offset_of, token_of
from mltrack.store.mlflow_api.runs import run_id_of, write_tags
from mltrack.store.mlflow_api.validate import check_batch, check_key, check_length, check_value
from mltrack.store.mlflow_api.wire import ApiError, Fields, filled, invalid, missing, number_out
from mltrack.store.mlflow_api.writers import RunWriter
from mltrack.store.records import Points

HISTORY_MOST = 25_000
BULK_RUNS, BULK_POINTS = 100, 2500
DATASET_EXPERIMENTS = 20
_DATASET_CHARACTERS = {"digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
MODEL_HISTORY_TAG = "mlflow.log-model.history"
_Metric = tuple[str, float, int, int]


def log_metric(api: Api, fields: Fields) -> Answer:
    run_id = run_id_of(fields)
    metric = _metric(fields)
    writer = api.writer(run_id)
    _check_models(api, [fields])
    api.writers.points(writer, [metric])
    _model_metrics(api, writer, [(fields, metric)])
    return {}


def _metric(fields: Fields) -> _Metric:
    fields.need("key", "value", "timestamp")
    key, value = check_key("metric", fields.text("key")), fields.number("value")
    step, time_ms = fields.whole("step"), fields.whole("timestamp")
    if time_ms < 0:
        raise invalid(
            f"Invalid value {time_ms} for parameter 'timestamp' supplied: metric '{key}' (value={value})."
            " Timestamp must be a nonnegative long (64-bit integer)"
        )
    if bool(fields.text("dataset_name")) != bool(fields.text("dataset_digest")):
        raise invalid("Both dataset_name and dataset_digest must be provided if one is provided")
    return key, value, step, time_ms


def _check_models(api: Api, metrics: list[Fields]) -> None:
    """Logged models that metrics name must exist."""
    for model_id in {fields.text("model_id") for fields in metrics} - {""}:
        if not api.database.execute("SELECT 1 FROM logged_model WHERE model_id = ?", (model_id,)):
            raise missing(f"Logged model with ID '{model_id[:80]}' not found.")


def _model_metrics(api: Api, writer: RunWriter, metrics: list[tuple[Fields, _Metric]]) -> None:
    """What was logged of a model as well as of the run."""
    rows = [
        [
            fields.text("model_id"),
            key,
            step,
            time_ms,
            number_out(value),
            fields.text("dataset_name"),
            fields.text("dataset_digest"),
        ]
        for fields, (key, value, step, time_ms) in metrics
        if fields.text("model_id")
    ]
    if rows:
        api.writers.meta(writer, "model_metric", v=rows)


def log_param(api: Api, fields: Fields) -> Answer:
    run_id = run_id_of(fields)
    key = check_key("param", fields.needed("key"))
    value = check_value("param", key, fields.text("value"))
    writer = api.writer(run_id)
    _write_params(api, writer, _new_params(writer, {key: value}))
    return {}


def _new_params(writer: RunWriter, params: dict[str, str]) -> dict[str, str]:
    """Those that are not logged yet. A param is written once: another value is an error."""
    for key, value in params.items():
        old = writer.params.get(key, value)
        if old != value:
            raise invalid(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old[:500]}'"
                f" for run ID='{writer.journal.run_id}'. Attempted logging new value '{value[:500]}'."
            )
    return {key: value for key, value in params.items() if key not in writer.params}


def _write_params(api: Api, writer: RunWriter, params: dict[str, str]) -> None:
    if params:
        api.writers.meta(writer, "param", v=params)
        writer.params.update(params)


def log_batch(api: Api, fields: Fields) -> Answer:
    run_id = run_id_of(fields)
    metrics, params, tags = fields.objects("metrics"), fields.objects("params"), fields.objects("tags")
    check_batch(len(metrics), len(params), len(tags))
    points = [(each, _metric(each)) for each in metrics]
    wanted: dict[str, str] = {}
    for each in params:
        key = check_key("param", each.needed("key"))
        value = check_value("param", key, each.text("value"))
        if key in wanted:
            raise invalid(
                f"Duplicate parameter keys have been submitted: ['{key}'].  Please ensure the request contains only one"
                " param value per param key."
            )
        wanted[key] = value
    labels: dict[str, str] = {}
    for each in tags:
        key = check_key("tag", each.needed("key"))
        labels[key] = check_value("tag", key, each.text("value"))
    # Everything is checked before anything is written: a batch is stored whole or not at all.
    writer = api.writer(run_id)
    fresh = _new_params(writer, wanted)
    _check_models(api, metrics)
    if labels:
        write_tags(api, run_id, labels)
    _write_params(api, writer, fresh)
    api.writers.points(writer, [metric for _, metric in points])
    _model_metrics(api, writer, points)
    return {}


def log_inputs(api: Api, fields: Fields) -> Answer:
    """Data that a run read. To MLflow's clients a data set is an input once, as it was logged first; the contexts of later times
    are kept for our screens."""
    run_id = fields.needed("run_id")
    writer = api.writer(run_id)
    datasets = fields.objects("datasets")
    if datasets:
        api.writers.fold(run_id)
    known = {
        (entry["name"], entry["digest"])
        for run in api.store.runs([run_id])
        for entry in run.inputs
        if datasets
    }
    for entry in datasets:
        dataset = entry.object("dataset")
        dataset.need("name", "digest")
        check_length("name", dataset.text("name"), 500)
        for name, most in _DATASET_CHARACTERS.items():
            check_length(name, dataset.text(name), most)
        tags = {
            check_length("key", key, 255): check_length("value", value, 500)
            for key, value in entry.pairs("tags").items()
        }
        api.writers.meta(
            writer,
            "input",
            name=dataset.text("name"),
            digest=dataset.text("digest"),
            context=tags.get("mlflow.data.context", ""),
            source=dataset.text("source"),
            digest_kind="mlflow",
            detail=filled(
                source_type=dataset.text("source_type"),
                schema=dataset.text("schema") or None,
                profile=dataset.text("profile") or None,
                tags=tags,
                again=True if (dataset.text("name"), dataset.text("digest")) in known else None,
            ),
        )
        known.add((dataset.text("name"), dataset.text("digest")))
    for entry in fields.objects("models"):
        api.writers.meta(writer, "model_link", model=entry.needed("model_id"), way="input")
    return {}


def log_outputs(api: Api, fields: Fields) -> Answer:
    writer = api.writer(fields.needed("run_id"))
    if fields.values.get("models") is None:
        fields.need("models")
    for entry in fields.objects("models"):
        api.writers.meta(
            writer, "model_link", model=entry.needed("model_id"), way="output", step=entry.whole("step")
        )
    return {}


def log_model(api: Api, fields: Fields) -> Answer:
    """What 2.x clients say of a model that they put among the run's artifacts."""
    run_id = run_id_of(fields)
    try:
        model = orjson.loads(fields.needed("model_json"))
        if not isinstance(model, dict) or not {
            "artifact_path",
            "flavors",
            "utc_time_created",
            "run_id",
        } <= set(model):
            raise ValueError("fields")
    except ValueError:
        raise invalid(
            "Malformed model info: 'model_json' must be the JSON of an MLmodel with its run_id."
        ) from None
    api.writer(run_id)
    api.writers.fold(run_id)
    old = api.store.runs([run_id])[0].tags.get(MODEL_HISTORY_TAG, "[]")
    try:
        history = orjson.loads(old)
    except orjson.JSONDecodeError:
        history = []
    history = history if isinstance(history, list) else []
    # With the spaces that MLflow's own server puts there: a client may compare the text.
    write_tags(api, run_id, {MODEL_HISTORY_TAG: json.dumps([*history, model])})
    return {}


def search_datasets(api: Api, fields: Fields) -> Answer:
    """The data sets that runs of these experiments read."""
    experiments = fields.texts("experiment_ids")
    if not experiments:
        raise invalid("SearchDatasets request must specify at least one experiment_id.")
    if len(experiments) > DATASET_EXPERIMENTS:
        raise invalid(
            f"SearchDatasets request cannot specify more than {DATASET_EXPERIMENTS} experiment_ids."
            f" Received {len(experiments)} experiment_ids."
        )
    api.writers.fold_all()
    numbers = sorted(api.searched(experiments))
    if not numbers:
        return {}
    rows = api.database.execute(
        "SELECT DISTINCT r.experiment_id, i.name, i.digest, i.context FROM run_input i JOIN run r ON r.id = i.run"
        f" WHERE r.experiment_id IN ({', '.join('?' * len(numbers))}) AND r.lifecycle = 'active'"
        " ORDER BY r.experiment_id, i.name, i.digest, i.context LIMIT 1000",
        numbers,
    )
    return filled(
        dataset_summaries=[
            filled(experiment_id=str(number), name=name, digest=digest, context=context or None)
            for number, name, digest, context in rows
        ]
    )


class _Histories:
    """The last series that were paged through, whole."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int], Points] = OrderedDict()

    def read(self, api: Api, run_id: str, key: str) -> Points:
        """A series in MLflow's order: time, step, value."""
        seq = int(api.database.setting("seq", "0"))
        found = self._kept.get((run_id, key, seq))
        if found is None:
            points = api.store.points(run_id, key)
            order = np.lexsort((points.values, points.steps, points.times_ms))
            found = Points(
                key,
                points.rank,
                points.steps[order],
                points.times_ms[order],
                points.values[order],
                points.superseded[order],
            )
            self._kept[(run_id, key, seq)] = found
            while len(self._kept) > 4:
                self._kept.popitem(last=False)
        return found


_histories = _Histories()


def get_history(api: Api, fields: Fields) -> Answer:
    run_id, key = run_id_of(fields), fields.needed("metric_key")
    points = _known_history(api, run_id, key)
    if points is None:
        return {}
    total = len(points.steps)
    start = offset_of(fields.text("page_token"))
    most = fields.whole("max_results", 0)
    if most <= 0 and fields.values.get("max_results") is not None:
        raise invalid(
            f"Invalid value {most} for parameter 'max_results' supplied. It must be a positive integer."
        )
    end = total if most <= 0 else start + min(most, HISTORY_MOST)
    page = slice(start, end)
    metrics = [
        {"key": key, "value": number_out(value), "timestamp": time_ms, "step": step}
        for value, time_ms, step in zip(
            points.values[page].tolist(),
            points.times_ms[page].tolist(),
            points.steps[page].tolist(),
            strict=True,
        )
    ]
    return filled(metrics=metrics, next_page_token=token_of(end) if end < total else None)


def get_history_bulk(api: Api, fields: Fields) -> Answer:
    """Histories of several runs, whole, by run."""
    run_ids, most = fields.texts("run_id"), fields.whole("max_results", HISTORY_MOST)
    if not run_ids:
        raise invalid("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(run_ids) > BULK_RUNS:
        raise invalid(
            f"GetMetricHistoryBulk request cannot specify more than {BULK_RUNS} run_ids. Received {len(run_ids)} run_ids."
        )
    key = fields.text("metric_key")
    if not key:
        raise invalid("GetMetricHistoryBulk request must specify a metric_key.")
    metrics: list[Answer] = []
    for run_id in sorted(run_ids):
        points = _known_history(api, run_id, key)
        if points is not None:
            metrics += [_with_run(points, place, run_id) for place in range(len(points.steps))]
    return {"metrics": metrics[: max(0, min(most, HISTORY_MOST))]}


def get_history_interval(api: Api, fields: Fields) -> Answer:
    """Histories of several runs at about ``max_results`` of their steps, the ends of each kept."""
    run_ids = fields.texts("run_ids")
    if not run_ids:
        fields.need("run_ids")
    if len(run_ids) > BULK_RUNS:
        raise invalid(f"GetMetricHistoryBulkInterval request must specify at most {BULK_RUNS} run_ids.")
    key = fields.needed("metric_key")
    most = fields.whole("max_results", BULK_POINTS)
    if not 1 <= most <= BULK_POINTS:
        raise invalid(f"max_results must be between 1 and {BULK_POINTS}.")
    bounded = [fields.values.get(name) is not None for name in ("start_step", "end_step")]
    if any(bounded) and not all(bounded):
        raise invalid("If either start step or end step are specified, both must be specified.")
    low, high = fields.whole("start_step"), fields.whole("end_step")
    if low > high:
        raise invalid(
            f"end_step must be greater than start_step. Found start_step={low} and end_step={high}."
        )
    metrics: list[Answer] = []
    for run_id in run_ids:
        points = _known_history(api, run_id, key)
        if points is None:
            continue
        places = np.lexsort((points.times_ms, points.steps))
        if any(bounded):
            steps = points.steps[places]
            places = places[(steps >= low) & (steps <= high)]
        if len(places) > most:
            # The first of each of `most` parts, the larger parts in front; the very last instead of the last part's.
            size, larger = divmod(len(places), most)
            starts = np.arange(most) * size + np.minimum(np.arange(most), larger)
            places = places[np.append(starts[:-1], len(places) - 1)]
        metrics += [_with_run(points, place, run_id) for place in places.tolist()]
    return filled(metrics=metrics)


def _known_history(api: Api, run_id: str, key: str) -> Points | None:
    """A series; None where the run or the metric is unknown."""
    try:
        api.run(run_id)
        api.writers.fold(run_id)
        return _histories.read(api, run_id, key)
    except (NotFound, ApiError):
        return None


def _with_run(points: Points, place: int, run_id: str) -> Answer:
    return {
        "key": points.key,
        "value": number_out(float(points.values[place])),
        "timestamp": int(points.times_ms[place]),
        "step": int(points.steps[place]),
        "run_id": run_id,
    }


ROUTES = {
    ("POST", "runs/log-metric"): log_metric,
    ("POST", "runs/log-parameter"): log_param,
    ("POST", "runs/log-batch"): log_batch,
    ("POST", "runs/log-inputs"): log_inputs,
    ("POST", "runs/outputs"): log_outputs,
    ("POST", "runs/log-model"): log_model,
    ("GET", "metrics/get-history"): get_history,
    ("GET", "metrics/get-history-bulk"): get_history_bulk,
    ("GET", "metrics/get-history-bulk-interval"): get_history_interval,
    ("POST", "experiments/search-datasets"): search_datasets,
}
