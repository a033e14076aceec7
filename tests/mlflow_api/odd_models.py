# pyright: reportMissingImports=false
"""Runs inside MLflow's environment: odd things that a client may do with models, their registry and files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import mlflow
import requests
from mlflow.entities import LoggedModelOutput
from tests.mlflow_api.odd_told import (
    ADDRESS,
    NOBODY,
    after,
    client,
    every,
    names,
    pages,
    raw,
    said,
    tell,
    told,
)

MODEL_FILTERS = """name = 'm0'|name != 'm0'|name ILIKE 'm%'|name IN ('m0')|attributes.name = 'm0'|source_run_id = 'x'|model_type = 'kind'
creation_timestamp > 0|creation_timestamp = 5|params.lr = '0.1'|params.lr LIKE '0%'|metrics.acc > 0.5|metrics.acc > 0.8|metrics.nope > 0
tags.a = 'new'|tags.a != 'y'|tags.`b c` = 'z'|name = 'm0' AND params.lr = '0.1'|name = 'm0' OR name = 'm1'|name|name = m0|params.lr = 0.1
name = 'm0' AND|experiment_id = '99999'|name > 'a'"""
REGISTRY_FILTERS = """name = 'churn'|name != 'churn'|name ILIKE 'CH%'|name LIKE 'ocr_a'|name LIKE 'ocr\\_a'|tags.a = 'x'|tags.a != 'x'
tags.a ILIKE 'X'|attribute.name = 'churn'|description = 'desc'|name = churn|name = 'churn' OR name = 'ocr_a'|name IN ('churn')
name = 'churn' AND|  |AND|creation_timestamp > 0|name > 'a'|name|name ="""
VERSION_FILTERS = """name = 'churn'|run_id IN ()|run_id IN ('x')|name LIKE 'ch%'|version_number = 2|version_number >= 2 AND name = 'churn'
source_path LIKE 's3%'|tags.k = '1'|tags.k != '1'|current_stage = 'None'|status = 'READY'|name = 'churn' AND
run_id IN ('x', )|user_id = 'x'"""


def logged_models() -> None:
    here = client.create_experiment("odd models")
    run_id = client.create_run(here, run_name="src").info.run_id
    names[run_id] = "src"
    ids: dict[str, str] = {}
    for name, kind, params, tags in (
        ("m0", "kind", {"lr": "0.1"}, {"a": "x"}), ("m1", None, {"lr": "0.2"}, {}), ("M2", "other", {}, {"a": "y", "b c": "z"})
    ):  # fmt: skip
        source = run_id if name != "M2" else None
        made = client.create_logged_model(
            here, name=name, source_run_id=source, tags=tags, params=params, model_type=kind
        )
        ids[name] = made.model_id
        names[made.model_id] = name
    for name, value, step, of in (
        ("m0", 0.5, 1, None),
        ("m0", 0.7, 2, None),
        ("m1", 0.6, 1, None),
        ("m0", 0.9, 3, "ds"),
        ("m1", 0.1, 3, "ds"),
    ):
        data = {"dataset_name": of, "dataset_digest": "d1"} if of else {}
        client.log_metric(run_id, "acc", value, model_id=ids[name], step=step, timestamp=5, **data)

    def model(name: str) -> Any:
        found = client.get_logged_model(ids[name])
        points = [(point.key, point.value, point.step, point.dataset_name) for point in found.metrics or ()]
        return (
            found.name,
            str(found.status),
            found.model_type,
            found.source_run_id,
            found.tags,
            found.params,
            sorted(points, key=str),
        )

    def found(text: str | None = None, **how: Any) -> list[str]:
        return [each.name for each in client.search_logged_models([here], filter_string=text, **how)]

    def other_filter() -> Any:
        token = client.search_logged_models([here], max_results=1).token
        return client.search_logged_models([here], filter_string="name = 'm0'", page_token=token)

    for name, work in {
        "made": lambda: [model(each) for each in ids],
        "ready": lambda: after(
            client.finalize_logged_model(ids["m1"], "FAILED"),
            client.finalize_logged_model(ids["m0"], "READY"),
            model("m0"),
        ),
        "no status": lambda: client.finalize_logged_model(ids["m0"], "NOPE"),
        "of nobody": lambda: client.finalize_logged_model("m-" + NOBODY, "READY"),
        "tags": lambda: after(
            client.set_logged_model_tags(ids["m0"], {"t": "1", "a": "new", "n": 3}), model("m0")
        ),
        "a tag is gone": lambda: [client.delete_logged_model_tag(ids["m0"], "t") for _ in range(2)],
        "tags of nobody": lambda: client.set_logged_model_tags("m-" + NOBODY, {"a": "b"}),
        "params": lambda: after(client.log_model_params(ids["m1"], {"new": "1"}), model("m1")),
        "what touches them": lambda: found(order_by=[{"field_name": "last_updated_timestamp"}]),
        "no results": lambda: found(max_results=0),
        "in pages": lambda: pages(
            lambda token: client.search_logged_models([here], max_results=2, page_token=token),
            lambda each: each.name,
        ),
        "a token of another search": other_filter,
        "nowhere": lambda: [each.name for each in client.search_logged_models(["99999"])],
        "outputs": lambda: after(
            client.log_outputs(run_id, [LoggedModelOutput(ids["m0"], 3)]),
            [(each.model_id, each.step) for each in client.get_run(run_id).outputs.model_outputs],
        ),
    }.items():
        said[f"models: {name}"] = told(work)
    for text in every(MODEL_FILTERS):
        said[f"models {text}"] = told(lambda text=text: sorted(found(text)))
    for order in (
        {"field_name": "name"}, {"field_name": "name", "ascending": False}, {"field_name": "metrics.acc"},
        {"field_name": "metrics.acc", "dataset_name": "ds", "dataset_digest": "d1"}, {"field_name": "metrics.nope"},
        {"field_name": "params.lr"}, {"field_name": "nope"}, {"ascending": True},
    ):  # fmt: skip
        said[f"models by {order}"] = told(lambda order=order: found(order_by=[order]))
    for digest in ("d1", "d9"):
        data = [{"dataset_name": "ds", "dataset_digest": digest}]
        said[f"models of {digest}"] = told(lambda data=data: found("metrics.acc > 0.5", datasets=data))
    for name, work in {
        "delete twice": lambda: [client.delete_logged_model(ids["m0"]) for _ in range(2)],
        "get": lambda: model("m0"),
        "get one that may be deleted": lambda: raw(
            "GET", f"mlflow/logged-models/{ids['m0']}?allow_deleted=true"
        )[0],
        "finalize": lambda: client.finalize_logged_model(ids["m0"], "READY").name,
        "tag": lambda: client.set_logged_model_tags(ids["m0"], {"x": "y"}),
        "search": found,
        "of a deleted run": lambda: after(client.delete_run(run_id), model("m1")[3], found()),
        "of a deleted experiment": lambda: after(client.delete_experiment(here), model("m1")[0], found()),
    }.items():
        said[f"deleted models: {name}"] = told(work)


def registry() -> None:
    run_id = client.create_run("0", run_name="registered").info.run_id
    names[run_id] = "registered"
    for name, tags, text in (
        ("churn", {"a": "x"}, "desc"),
        ("Churn2", {}, None),
        ("ocr_a", {"a": "y"}, ""),
        ("ocr%b", {}, None),
    ):
        client.create_registered_model(name, tags, text)
    for place in range(5):
        client.create_model_version("churn", f"runs:/{run_id}/m{place}", run_id, tags={"k": str(place)})
    client.create_model_version("ocr_a", "s3://b/x")

    def stages() -> Any:
        found = client.search_model_versions("name = 'churn'", order_by=["version_number"])
        return [(each.version, each.current_stage) for each in found], client.get_registered_model(
            "churn"
        ).aliases

    for text in every(REGISTRY_FILTERS):
        said[f"registry {text}"] = told(
            lambda text=text: [each.name for each in client.search_registered_models(filter_string=text)]
        )
    for text in every(VERSION_FILTERS):
        said[f"versions {text}"] = told(
            lambda text=text: [
                (each.name, each.version) for each in client.search_model_versions(filter_string=text)
            ]
        )
    for text in ("version_number", "name DESC", "creation_timestamp", "nope", "run_id"):
        said[f"versions by {text}"] = told(
            lambda text=text: [
                (each.name, each.version) for each in client.search_model_versions(order_by=[text])
            ]
        )
    for alias in ("", "latest", "v1", "1", "a b", "a.b", "é", "x" * 256, "a-b_c"):
        said[f"alias {alias[:9]!r}"] = told(
            lambda alias=alias: client.set_registered_model_alias("churn", alias, "1")
        )
    for name in ("", " ", "a/b", "a:b", ".", "x" * 256, "é 🎉", "a%2fb"):
        said[f"model {name[:9]!r}"] = told(lambda name=name: bool(client.create_registered_model(name).name))
    for method, path in (
        ("POST", "registered-models/alias"), ("DELETE", "registered-models/alias"), ("POST", "registered-models/set-tag"),
        ("DELETE", "registered-models/delete-tag"), ("POST", "model-versions/set-tag"), ("POST", "model-versions/transition-stage"),
    ):  # fmt: skip
        said[f"{method} {path} without its fields"] = raw(method, f"mlflow/{path}", json={"name": "nobody"})
    for name, work in {
        "in pages": lambda: pages(
            lambda token: client.search_model_versions("name = 'churn'", max_results=2, page_token=token),
            lambda each: each.version,
        ),
        "latest": lambda: [each.version for each in client.get_latest_versions("churn", ["none"])],
        "no stage": lambda: client.get_latest_versions("churn", ["foo"]),
        "production": lambda: after(
            client.transition_model_version_stage("churn", 1, "production"), stages()
        ),
        "archived": lambda: after(
            client.transition_model_version_stage("churn", 2, "Production", archive_existing_versions=True),
            stages(),
        ),
        "alias moved": lambda: after(
            client.set_registered_model_alias("churn", "champ", "2"),
            client.set_registered_model_alias("churn", "champ", "3"),
            stages(),
        ),
        "alias of nobody": lambda: client.set_registered_model_alias("nobody", "x", "1"),
        "alias of no version": lambda: client.set_registered_model_alias("churn", "x", "99"),
        "no alias": lambda: client.get_model_version_by_alias("churn", "zz"),
        "alias in another case": lambda: client.get_model_version_by_alias("churn", "CHAMP"),
        "a deleted version's alias": lambda: after(
            client.delete_model_version("churn", "3"), client.get_model_version_by_alias("churn", "champ")
        ),
        "alias on a deleted version": lambda: client.set_registered_model_alias("churn", "again", "3"),
        "delete again": lambda: client.delete_model_version("churn", "3"),
        "a number is given once": lambda: after(
            client.delete_model_version("churn", "5"),
            client.create_model_version("churn", "s3://a/b").version,
        ),
        "renamed": lambda: after(
            client.rename_registered_model("churn", "churned"), client.get_model_version("churned", "1").name
        ),
        "renamed to another's": lambda: client.rename_registered_model("churned", "ocr_a"),
        "copy": lambda: client.copy_model_version("models:/churned/2", "copied").source,
        "delete": lambda: [client.delete_registered_model("churned") for _ in range(2)],
        "versions are gone": lambda: client.search_model_versions("name = 'churned'"),
    }.items():
        said[f"registry: {name}"] = told(work)


def files() -> None:
    here = client.create_experiment("odd files")
    run_id = client.create_run(here, run_name="a").info.run_id
    folder = Path(tempfile.mkdtemp())
    for name, text in (
        ("a.txt", "hello"),
        ("s/b.bin", "0123456789"),
        ("s/t/c.txt", "c"),
        ("ü ñ.txt", "u"),
        (".hidden", "h"),
        ("a&b=c.txt", "&"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    client.log_artifacts(run_id, str(folder))

    def down(path: str) -> Any:
        got = Path(client.download_artifacts(run_id, path, target := tempfile.mkdtemp()))
        if got.is_dir():
            return sorted(file.relative_to(target).as_posix() for file in got.rglob("*") if file.is_file())
        return got.read_text()

    def get(path: str, ranged: str = "") -> Any:
        place = f"{ADDRESS}/api/2.0/mlflow-artifacts/artifacts/{here}/{run_id}/artifacts/{path}"
        answer = requests.get(place, headers={"Range": ranged} if ranged else {})
        return answer.status_code, answer.text if answer.ok else "", answer.headers.get("content-range")

    def loaded(path: str) -> str:
        return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{path}"))

    for path in (
        None,
        "s",
        "s/",
        "s/t",
        "nope",
        "a.txt",
        "nope/deep",
        "./s",
        "s//t",
        "..",
        "/etc",
        "s/../s",
        "ü ñ.txt",
        "%2e%2e",
        "a.txt/x",
    ):
        said[f"list {path!r}"] = told(
            lambda path=path: [
                (file.path, file.is_dir, file.file_size) for file in client.list_artifacts(run_id, path)
            ]
        )
    for path in ("a.txt", "s", "s/t", "ü ñ.txt", ".hidden", "a&b=c.txt", "nope", "nope/x", "../x", "a.txt/x"):
        said[f"download {path!r}"] = told(lambda path=path: down(path))
    for ranged in (
        "bytes=0-3",
        "bytes=5-",
        "bytes=-3",
        "bytes=20-30",
        "bytes=9-100",
        "bytes=5-2",
        "bytes=a-b",
        "chars=0-1",
    ):
        said[f"range {ranged}"] = told(lambda ranged=ranged: get("s/b.bin", ranged))
    for name, work in {
        "over another": lambda: after(client.log_text(run_id, "new", "a.txt"), loaded("a.txt")),
        "a folder is no file": lambda: get("s"),
        "nothing": lambda: get("none")[0],
        "below a folder": lambda: after(
            client.log_artifact(run_id, str(folder / "a.txt"), "dir/deep"), down("dir")
        ),
        "a path that leads out": lambda: client.log_artifact(run_id, str(folder / "a.txt"), "../up"),
        "multipart upload": lambda: raw(
            "POST",
            f"mlflow-artifacts/mpu/create/{here}/{run_id}/artifacts/x",
            json={"path": "x", "num_parts": 2},
        )[0],
        "presigned": lambda: raw("GET", f"mlflow-artifacts/presigned/{here}/{run_id}/artifacts/a.txt")[0],
        "of a deleted run": lambda: after(
            client.delete_run(run_id), client.log_text(run_id, "late", "late.txt"), loaded("late.txt")
        ),
    }.items():
        said[f"files: {name}"] = told(work)


tell(logged_models, registry, files)
