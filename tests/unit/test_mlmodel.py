"""MLmodel files are data: whatever stands in them, they are read or refused with a sentence, and nothing of them runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.errors import BadInput, NotFound
from mltrack.store.mlmodel import Field, narrowed, parse_mlmodel, pickles, read_mlmodel

WRITTEN_BY_MLFLOW = """
artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    python_version: 3.11.7
  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle, sklearn_version: 1.9.1}
mlflow_version: 2.22.2
run_id: 0123456789abcdef0123456789abcdef
saved_input_example_info: {artifact_path: input_example.json, pandas_orient: split, type: dataframe}
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}, {"type": "long", "name": "b", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]'
  params: '[{"name": "scale", "default": 1.0, "shape": null, "type": "double"}]'
utc_time_created: '2026-11-23 22:43:35.630766'
"""
# Each line twice the one before: 2^60 texts.
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


def test_what_mlflow_writes_is_read() -> None:
    model = parse_mlmodel(WRITTEN_BY_MLFLOW)
    assert model.main_flavor == "sklearn"
    assert model.flavors["python_function"]["loader_module"] == "mlflow.sklearn"
    assert (model.run_id, model.example) == ("0123456789abcdef" * 2, "input_example.json")
    assert model.signature is not None and model.signature.inputs is not None
    assert [field.sentence() for field in model.signature.inputs] == ["a: double", "b: long (optional)"]
    assert model.signature.outputs == (Field("", "float64", True, (-1, 2)),)
    assert model.signature.params == (Field("scale", "double", False),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "flavors: 3",
        "flavors: {a: b}",
        "flavors: {a: {}}\nsignature: {inputs: 'no json'}",
        "flavors: {a: {}}\nsignature: {inputs: '{}'}",
        "flavors: !!python/object/apply:os.system ['touch /tmp/mltrack-owned']",
        "flavors: {a: {b: !!python/name:os.system ''}}",
        BOMB,
        "flavors: " + "{a: " * 60 + "1" + "}" * 60,
        "flavors: {a: {}}" + " " * (1 << 20),
        "\0",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_what_is_no_model_or_wants_to_hurt_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="MLmodel"):
        parse_mlmodel(text)
    assert not Path("/tmp/mltrack-owned").exists()


def test_a_loader_module_is_only_a_text() -> None:
    model = parse_mlmodel(
        "flavors: {python_function: {loader_module: os, code: ../../etc, data: /etc/passwd}}"
    )
    assert model.flavors["python_function"] == {
        "loader_module": "os",
        "code": "../../etc",
        "data": "/etc/passwd",
    }


@given(st.text() | st.text("{}[]:,&*!'\"\n -ab1%@"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_mlmodel(text)
    except BadInput as error:
        assert error.message


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "MLmodel").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="leads out"):
        read_mlmodel(tmp_path / "link")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "MLmodel")
    with pytest.raises((BadInput, NotFound)):
        read_mlmodel(tmp_path / "pipe")
    with pytest.raises(NotFound):
        read_mlmodel(tmp_path / "none")


def test_pickles_are_known_by_name_and_by_their_bytes(tmp_path: Path) -> None:
    import pickle
    import zipfile

    (tmp_path / "weights.bin").write_bytes(pickle.dumps([1]))
    (tmp_path / "empty.pkl").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("pickle")
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", b"{}")
    assert pickles(tmp_path) == ["empty.pkl", "model.ckpt", "weights.bin"]


def tensor(*shape: int) -> Field:
    return Field("", "float32", True, shape)


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ([Field("a", "long")], [Field("a", "double")], []),
        ([Field("a", "double")], [Field("a", "long")], ["a takes long, no longer double"]),
        ([Field("a", "long")], [Field("a", "long"), Field("b", "long")], ["b is new and required"]),
        ([Field("a", "long")], [Field("a", "long"), Field("b", "long", False)], []),
        ([Field("a", "long"), Field("b", "long")], [Field("a", "long")], ["b was removed"]),
        ([Field("a", "long", False)], [Field("a", "long")], ["a is required now"]),
        ([tensor(-1, 3)], [tensor(-1, 4)], ["the input takes float32[any, 4], no longer float32[any, 3]"]),
        ([tensor(-1, 3)], [tensor(-1, -1)], []),
        (None, [Field("a", "long")], []),
    ],
)  # fmt: skip
def test_a_signature_is_compatible_when_no_caller_of_the_old_one_fails(
    old: list[Field] | None, new: list[Field], wrong: list[str]
) -> None:
    assert narrowed(tuple(old) if old is not None else None, tuple(new)) == wrong
