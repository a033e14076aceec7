# pyright: reportMissingImports=false
"""Runs inside MLflow's environment: odd things that a client may do with experiments, runs and data sets."""

from __future__ import annotations

import json
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag, ViewType
from tests.mlflow_api.odd_told import (
    NOBODY,
    after,
    client,
    dataset,
    every,
    names,
    pages,
    raw,
    said,
    tell,
    told,
)

EXPERIMENT_FILTERS = """name = 'alpha'|name != 'alpha'|name LIKE 'g%'|name ILIKE 'G%'|attribute.name = 'alpha'|tags.team = 'red'
tags.team != 'red'|tags.team ILIKE 'r%'|tag.team = 'red'|tags.`k.dot` = 'v'|tags."k.dot" = 'v'|tags.k.dot = 'v'|tags.`sp ace` = 'x'
name = "it's"|name = 'q"q'|name LIKE 'gamm_\\_x'|name = alpha|name = 'alpha' AND|AND name = 'alpha'|name = 'alpha' and tags.team = 'red'
name = 'alpha' OR name = 'Beta'|name = 'alpha' AND AND name = 'alpha'|(name = 'alpha')|NOT name = 'alpha'|name == 'alpha'|name = ''
name|name =|name = 'alpha'; x|creation_time > 0|creation_time > '0'|last_update_time > 0|creation_time LIKE '1%'|lifecycle_stage = 'active'
tags.team IS NULL|tags.team IS NOT NULL|tags.team is null|name IN ('alpha')|experiment_id IN ('1','2')|tags.n > '0'|tags.n = 1
NAME = 'alpha'|`name` = 'alpha'|name='alpha'|name = 'al' 'pha'|name RLIKE 'g'|name = 'alpha' AND name = 'Beta'"""
EXPERIMENT_ORDERS = """name|name DESC|name desc|creation_time DESC, name|experiment_id DESC|tags.team|nope|name ASC, name DESC|name foo
attribute.name|`name`"""
RUN_FILTERS = """metrics.acc > 0.5|metrics.acc >= 0.5|metrics.acc = 0.5|metrics.acc != 0.5|metric.acc > 0|metrics.loss = 0|metrics.loss < 1
metrics.loss != 1|metrics.`m space` = 2|metrics."m space" = 2|metrics.acc = 'x'|metrics.acc LIKE '0%'|metrics.acc IN (0.5)
metrics.acc IS NULL
metrics.acc = nan|metrics.acc > -inf|metrics.acc = 5e-1|metrics.acc = .5|metrics.acc = -1|metrics.none > 0|0.5 < metrics.acc
params.lr = '0.1'|params.lr != '0.1'|params.lr > '0'|params.lr = 0.1|params.opt LIKE 'a%'|params.opt ILIKE 'a%'|params.opt NOT LIKE 'a%'
params.opt IN ('sgd')|params.lr IS NULL|params.lr IS NOT NULL|params.`x y` = 'q'|parameters.lr = '0.1'|param.lr = '0.1'|params.empty = ''
params.empty LIKE '%'|params.opt = "sgd"|params.opt = `sgd`|params.opt = sgd|tags.a = 'x'|tags.a != 'x'|tags.a ILIKE 'x'
tags.a LIKE '100\\%'
tags.b = ''|tags.a IS NULL|tags.`user.t` = '1'|tags.user.t = '1'|tags."quote'" = 'q'|tags.a IN ('x')|tags.mlflow.user = 'u0'
tags.`mlflow.runName` = 'r0'|status = 'FINISHED'|status != 'FINISHED'|attribute.status = 'finished'|status LIKE 'FI%'|status IN ('FINISHED')
run_name = 'r0'|`run name` = 'r0'|`Run name` = 'r0'|run name = 'r0'|run_name ILIKE 'R%'|run_name IN ('r0')|start_time > 1020
start_time != 1020|start_time > '1020'|start_time LIKE '1%'|Created > 1020|created > 1020|end_time > 0|end_time IS NULL|user_id LIKE '%'
attributes.user_id = 'u0'|artifact_uri LIKE '%artifacts'|lifecycle_stage = 'active'|experiment_id = '1'|run_id = 'x'|run_id IN ('x')
run_id IN ()|run_id IN ('x',)|attributes.nope = 'x'|nope.x = 'y'|dataset.name = 'ds'|datasets.name = 'ds'|dataset.name != 'ds'
dataset.digest = 'd1'|dataset.context = 'train'|dataset.context != 'train'|dataset.name ILIKE 'DS'|dataset.name IN ('ds','zzz')
dataset.name NOT IN ('ds')|dataset.name = 'ds' AND dataset.digest = 'd2'|dataset.nope = 'x'|dataset.name > 'a'
dataset.context = 'eval' AND dataset.name = 'other'|dataset.source = 's'|params.lr = '0.1' AND|AND params.lr = '0.1'|AND
params.lr = '0.1' and metrics.acc = 0.5|params.lr = '0.1' or metrics.acc = 0.5|NOT params.lr = '0.1'|(params.lr = '0.1')
metrics.acc > 0.5 metrics.acc < 1|params.lr == '0.1'|params.lr<>'0.1'|params.lr|params = '1'|;|params.lr = '0.1';
params.lr = '0.1'; params.lr = '0.1'|params.lr = '0.1|params.lr = '0.1' , metrics.acc = 0.5|params.lr = NULL|Metrics.acc > 0.5
metrics.ACC > 0.5|metrics.acc > 0x1|metrics.acc > 1.|metrics.acc > '0.5'|start_time > 1.5|start_time > -5|model.name = 'x'"""
RUN_ORDERS = """metrics.acc|metrics.acc DESC|metrics.loss|metrics.loss DESC|metrics.nope|metrics.nope DESC|metrics.`m space` DESC
params.lr|params.lr DESC|params.nope, start_time|tags.a|tags.a DESC|start_time DESC|end_time|end_time DESC|status, start_time
run_name DESC|Created|lifecycle_stage|metrics.acc foo|acc|metrics|dataset.name|params.lr ASC, metrics.acc DESC|attr.start_time"""
KEYS = "a b|a/b|a//b|/a|a/|..|.|a/../b|a:b|é|🎉||a\tb|a%|a@b|a\\b|-| a|a=b|a'b|...|..a".split("|")


def experiments() -> None:
    tags = {
        "alpha": {"team": "red", "n": "1"},
        "Beta": {"team": "blue"},
        "gamma_x": {},
        "it's": {"k.dot": "v"},
        'q"q': {"sp ace": "x"},
    }
    ids = {name: client.create_experiment(name, tags=given) for name, given in tags.items()}
    client.delete_experiment(ids["Beta"])

    def found(text: str | None = None, **how: Any) -> Any:
        return told(
            lambda: [
                each.name for each in client.search_experiments(filter_string=text, **how) if each.name in ids
            ]
        )

    for text in every(EXPERIMENT_FILTERS):
        said[f"experiments {text}"] = found(text, order_by=["name"])
    for text in every(EXPERIMENT_ORDERS):
        said[f"experiments by {text}"] = found(order_by=text.split(", "))
    said["experiments deleted"] = found(view_type=ViewType.DELETED_ONLY)
    said["experiments in pages"] = told(
        lambda: pages(
            lambda token: client.search_experiments(max_results=2, page_token=token, order_by=["name"]),
            lambda each: each.name,
        )
    )
    for name, work in {
        "no results": lambda: client.search_experiments(max_results=0),
        "too many results": lambda: client.search_experiments(max_results=50_001),
        "a bad token": lambda: client.search_experiments(page_token="abc"),
        "get deleted": lambda: client.get_experiment_by_name("Beta").lifecycle_stage,
        "create one that was deleted": lambda: client.create_experiment("Beta"),
        "rename to itself": lambda: client.rename_experiment(ids["gamma_x"], "gamma_x"),
        "rename to nothing": lambda: client.rename_experiment(ids["gamma_x"], ""),
        "rename nobody": lambda: client.rename_experiment("99999", "y"),
        "tag deleted": lambda: client.set_experiment_tag(ids["Beta"], "a", "b"),
        "tag nobody": lambda: client.set_experiment_tag("99999", "a", "b"),
        "long tag": lambda: client.set_experiment_tag(ids["alpha"], "a", "b" * 20_001),
        "bad tag": lambda: client.set_experiment_tag(ids["alpha"], "a!", "b"),
        "tag of a number": lambda: after(
            client.set_experiment_tag(ids["alpha"], "a", 3), client.get_experiment(ids["alpha"]).tags
        ),
        "delete a tag twice": lambda: [client.delete_experiment_tag(ids["alpha"], "a") for _ in range(2)],
        "delete and restore Default": lambda: [client.delete_experiment("0"), client.restore_experiment("0")],
        "restore active": lambda: client.restore_experiment("0"),
        "no name": lambda: client.create_experiment(""),
        "unicode": lambda: client.get_experiment(client.create_experiment("日本 é 🎉")).name,
        "another case": lambda: bool(client.create_experiment("ALPHA")),
        "id with zeros": lambda: client.get_experiment("00").name,
        "negative id": lambda: client.get_experiment("-1").name,
        "fractional id": lambda: client.get_experiment("1.0").name,
    }.items():
        said[f"experiments: {name}"] = told(work)


def runs() -> None:
    here = client.create_experiment("odd runs")
    spec: list[tuple[str, str, dict[str, float], dict[str, str], dict[str, str]]] = [
        ("r0", "FINISHED", {"acc": 0.5, "loss": 1.0}, {"lr": "0.1", "opt": "sgd"}, {"a": "x", "user.t": "1"}),
        ("r1", "FAILED", {"acc": 0.9}, {"lr": "0.01", "opt": "Adam"}, {"a": "X"}),
        ("r2", "RUNNING", {"loss": float("nan")}, {"opt": "adam_w", "x y": "q"}, {}),
        ("R3", "KILLED", {"acc": float("inf"), "m space": 2}, {}, {"a": "100%", "b": ""}),
        ("r_4", "SCHEDULED", {"acc": -1, "loss": 0.0}, {"lr": "1e-3"}, {"a": "None", "quote'": "q"}),
        ("r5", "FINISHED", {}, {"empty": ""}, {}),
    ]
    ids: dict[str, str] = {}
    for place, (name, status, metrics, params, tags) in enumerate(spec):
        run = client.create_run(
            here, start_time=1000 + place * 10, run_name=name, tags={"mlflow.user": f"u{place % 2}"}
        )
        ids[name] = run.info.run_id
        client.log_batch(
            ids[name],
            [Metric(key, value, 5, place) for key, value in metrics.items()],
            [Param(key, value) for key, value in params.items()],
            [RunTag(key, value) for key, value in tags.items() if key != "quote'"],
        )
        if status in ("FINISHED", "FAILED", "KILLED"):
            client.set_terminated(ids[name], status, end_time=2000 - place * 10)
        else:
            client.update_run(ids[name], status)
    for name, data in (("r0", [("ds", "d1", "train")]), ("r1", [("ds", "d2", "eval"), ("other", "d1", "")])):
        client.log_inputs(ids[name], [dataset(*each) for each in data])

    def called(found: Any) -> list[str]:
        return [run.info.run_name for run in found]

    for text in every(RUN_FILTERS):
        said[f"runs {text}"] = told(lambda text=text: sorted(called(client.search_runs([here], text))))
    for how in ("=", "!=", "LIKE"):
        text = f"run_id {how} '{ids['r0']}'"
        said[f"runs by id {how}"] = told(lambda text=text: sorted(called(client.search_runs([here], text))))
    for text in every(RUN_ORDERS):
        said[f"runs by {text}"] = told(
            lambda text=text: called(client.search_runs([here], order_by=text.split(", ")))
        )
    for size in (1, 2, 4, 6):
        said[f"runs in pages of {size}"] = told(
            lambda size=size: pages(
                lambda token: client.search_runs(
                    [here], max_results=size, page_token=token, order_by=["metrics.acc DESC"]
                ),
                lambda run: run.info.run_name,
            )
        )
    for name, work in {
        "no results": lambda: client.search_runs([here], max_results=0),
        "too many results": lambda: client.search_runs([here], max_results=50_001),
        "a bad token": lambda: client.search_runs([here], page_token="xyz"),
        "no experiments": lambda: client.search_runs([]),
        "the same experiment twice": lambda: len(client.search_runs([here, here])),
        "columns": lambda: sorted(mlflow.search_runs([here]).columns),
    }.items():
        said[f"runs: {name}"] = told(work)
    client.delete_experiment(here)
    for name, work in {
        "stage": lambda: client.get_run(ids["r0"]).info.lifecycle_stage,
        "metric": lambda: client.log_metric(ids["r0"], "m", 1),
        "param": lambda: client.log_param(ids["r0"], "p", 1),
        "tag": lambda: client.set_tag(ids["r0"], "t", 1),
        "batch": lambda: client.log_batch(ids["r0"], [Metric("m", 1, 1, 1)]),
        "update": lambda: client.update_run(ids["r0"], "FINISHED"),
        "inputs": lambda: client.log_inputs(ids["r0"], [dataset("n", "d", "")]),
        "file": lambda: after(
            client.log_text(ids["r0"], "x", "x.txt"), [file.path for file in client.list_artifacts(ids["r0"])]
        ),
        "new run": lambda: client.create_run(here),
        "restore a run": lambda: after(
            client.restore_run(ids["r1"]), client.get_run(ids["r1"]).info.lifecycle_stage
        ),
        "restore": lambda: after(
            client.restore_experiment(here), client.get_run(ids["r0"]).info.lifecycle_stage
        ),
        "delete twice": lambda: [client.delete_run(ids["r0"]) for _ in range(2)],
        "restore twice": lambda: [client.restore_run(ids["r0"]) for _ in range(2)],
    }.items():
        said[f"deleted: {name}"] = told(work)


def logging() -> None:
    here = client.create_experiment("odd logging")
    run_id = client.create_run(here, run_name="one").info.run_id

    def run() -> Any:
        return client.get_run(run_id)

    for key in [*KEYS, "x" * 250, "x" * 251]:
        said[f"key {key[:9]!r} of {len(key)}"] = [
            told(lambda key=key: client.log_metric(run_id, key, 1)),
            told(lambda key=key: client.log_param(run_id, key, "v")),
            told(lambda key=key: client.set_tag(run_id, key, "v")),
        ]
    for value in (True, "0.5", "abc", None, float("nan"), 2**53 + 1, 10**400, 5e-324, [1]):
        said[f"value {str(value)[:20]!r}"] = told(
            lambda value=value: after(
                client.log_metric(run_id, f"v{len(said)}", value), run().data.metrics[f"v{len(said)}"]
            )
        )
    for step in (-5, 2**63 - 1, 2**63, 1.5, "3", None):
        said[f"step {step!r}"] = told(
            lambda step=step: client.log_metric(run_id, "s", 1, timestamp=1, step=step)
        )
    for value, time, step in ((1, 10, 5), (2, 9, 5), (3, 10, 5), (9, 99, 4), (2.5, 10, 5), (3, 10, 5)):
        client.log_metric(run_id, "latest", value, timestamp=time, step=step)
    for size, (metrics, params, tags) in {
        "most": (800, 100, 100), "one more": (801, 100, 100), "params": (0, 101, 0), "tags": (0, 0, 101), "nothing": (0, 0, 0)
    }.items():  # fmt: skip
        body = {
            "run_id": client.create_run(here).info.run_id,
            "metrics": [
                {"key": f"m{number}", "value": 1, "timestamp": 1, "step": 0} for number in range(metrics)
            ],
            "params": [{"key": f"p{number}", "value": "1"} for number in range(params)],
            "tags": [{"key": f"t{number}", "value": "1"} for number in range(tags)],
        }
        said[f"batch of {size}"] = raw("POST", "mlflow/runs/log-batch", json=body)
    for name, work in {
        "latest": lambda: run().data.metrics["latest"],
        "history": lambda: [
            (point.value, point.timestamp, point.step)
            for point in client.get_metric_history(run_id, "latest")
        ],
        "param again": lambda: [client.log_param(run_id, "p", 1) for _ in range(2)],
        "param anew": lambda: client.log_param(run_id, "p", 2),
        "param as a float": lambda: client.log_param(run_id, "p", 1.0),
        "batch with a param anew": lambda: client.log_batch(
            run_id, [Metric("bm", 1, 1, 1)], [Param("p", "2")], [RunTag("bt", "1")]
        ),
        "nothing of it": lambda: ("bm" in run().data.metrics, "bt" in run().data.tags),
        "param twice": lambda: client.log_batch(run_id, [], [Param("q", "1"), Param("q", "1")]),
        "tag twice": lambda: after(
            client.log_batch(run_id, [], [], [RunTag("tt", "1"), RunTag("tt", "2")]), run().data.tags["tt"]
        ),
        "none": lambda: after(
            client.log_param(run_id, "none", None),
            client.set_tag(run_id, "none", None),
            run().data.params["none"],
        ),
        "spaces": lambda: after(client.log_param(run_id, "ws", "  a\tb\n "), run().data.params["ws"]),
        "delete a tag twice": lambda: [client.delete_tag(run_id, "tt") for _ in range(2)],
        "history of nobody": lambda: client.get_metric_history(NOBODY, "m"),
        "history of nothing": lambda: client.get_metric_history(run_id, "nope"),
        "raw history of nobody": lambda: raw(
            "GET", f"mlflow/metrics/get-history?run_id={NOBODY}&metric_key=h"
        ),
        "history of no key": lambda: raw("GET", f"mlflow/metrics/get-history?run_id={run_id}"),
        "twice encoded": lambda: raw("POST", "mlflow/runs/log-batch", json=json.dumps({"run_id": run_id})),
        "metric of nobody": lambda: client.log_metric(NOBODY, "m", 1),
        "tag of nobody": lambda: client.set_tag(NOBODY, "m", 1),
        "end of nobody": lambda: client.set_terminated(NOBODY),
        "files of nobody": lambda: client.list_artifacts(NOBODY),
        "deleted history": lambda: after(
            client.delete_run(run_id), len(client.get_metric_history(run_id, "latest"))
        ),
    }.items():
        said[f"logging: {name}"] = told(work)


def run_names() -> None:
    here = client.create_experiment("odd names")
    mlflow.set_experiment("odd names")
    run_id = client.create_run(here, run_name="n0").info.run_id
    family = []
    for name in ("parent", "child", "grandchild", "other"):
        family.append(client.create_run(here, run_name=name).info.run_id)
        names[family[-1]] = name
    client.set_tag(family[1], "mlflow.parentRunId", family[0])
    with (
        mlflow.start_run(run_name="nested in it", run_id=family[0]),
        mlflow.start_run(run_name="nested", nested=True) as nested,
    ):
        pass

    def state() -> Any:
        run = client.get_run(run_id)
        return run.info.run_name, run.data.tags.get("mlflow.runName"), run.info.status, run.info.end_time

    def parent(of: str) -> Any:
        found = mlflow.get_parent_run(of)
        return found and found.info.run_name

    for name, work in {
        "both differ": lambda: client.create_run(here, run_name="x", tags={"mlflow.runName": "y"}),
        "by tag": lambda: client.create_run(here, tags={"mlflow.runName": "y"}).info.run_name,
        "update": lambda: after(client.update_run(run_id, name="n1"), state()),
        "update to nothing": lambda: after(client.update_run(run_id, name=""), state()),
        "tag": lambda: after(client.set_tag(run_id, "mlflow.runName", "n2"), state()),
        "tag of nothing": lambda: after(client.set_tag(run_id, "mlflow.runName", ""), state()),
        "batch": lambda: after(client.log_batch(run_id, tags=[RunTag("mlflow.runName", "n3")]), state()),
        "without the tag": lambda: after(client.delete_tag(run_id, "mlflow.runName"), state()),
        "end": lambda: after(client.set_terminated(run_id, "FINISHED", 5), state()),
        "running again": lambda: after(client.update_run(run_id, "RUNNING"), state()),
        "end again": lambda: after(client.set_terminated(run_id, "FAILED", 7), state()),
        "renamed after its end": lambda: after(client.update_run(run_id, name="late"), state()),
        "metric after its end": lambda: after(client.log_metric(run_id, "late", 1), state()),
        "bad tag of a new run": lambda: client.create_run(here, tags={"a!": "b"}).data.tags["a!"],
        "nested": lambda: parent(nested.info.run_id),
        "parent by tag": lambda: parent(family[1]),
        "another parent": lambda: after(
            client.set_tag(family[1], "mlflow.parentRunId", family[3]), parent(family[1])
        ),
        "children": lambda: [
            run.info.run_name
            for run in client.search_runs([here], f"tags.mlflow.parentRunId = '{family[3]}'")
        ],
        "no parent": lambda: after(client.delete_tag(family[1], "mlflow.parentRunId"), parent(family[1])),
    }.items():
        said[f"names: {name}"] = told(work)


def datasets() -> None:
    here = client.create_experiment("odd data")
    run_id = client.create_run(here, run_name="a").info.run_id

    def inputs() -> Any:
        return sorted(
            (each.dataset.name, each.dataset.digest, [(tag.key, tag.value) for tag in each.tags])
            for each in client.get_run(run_id).inputs.dataset_inputs
        )

    for name, work in {
        "one": lambda: after(client.log_inputs(run_id, [dataset("ds", "d", "train", "s1")]), inputs()),
        "the same again": lambda: after(
            client.log_inputs(run_id, [dataset("ds", "d", "again", "s2")]), inputs()
        ),
        "twice in one": lambda: after(
            client.log_inputs(run_id, [dataset("ds", "d2", "x"), dataset("ds", "d2", "y")]), inputs()
        ),
        "search nobody": lambda: raw(
            "POST", "mlflow/experiments/search-datasets", json={"experiment_ids": ["99999"]}
        ),
        "search nothing": lambda: raw(
            "POST", "mlflow/experiments/search-datasets", json={"experiment_ids": []}
        ),
        "long digest": lambda: client.log_inputs(run_id, [dataset("ds", "d" * 37, "")]),
        "nobody's": lambda: client.log_inputs(NOBODY, [dataset("ds", "d", "")]),
    }.items():
        said[f"data: {name}"] = told(work)


tell(experiments, runs, logging, run_names, datasets)
