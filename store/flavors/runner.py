"""A model in a process of its own: ``python -m mltrack.store.flavors.runner FOLDER`` answers requests on its standard streams.

Whoever starts it never loads the model. First line in: the MLmodel file as JSON. First answer: ``{"ready": ...}`` or
``{"error": ...}``. Then frames: 4 bytes of length, one letter for the kind (j JSON, c CSV, e the stored example) and the body; answers are
4 bytes of length, 3 digits of an HTTP status and a JSON body. Needs the standard library and the model's own libraries.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mltrack.store.flavors.kinds import ModelError, inside
from mltrack.store.flavors.loading import LoadedModel, environment_problems, load_folder
from mltrack.store.flavors.payload import PayloadError, parse_csv, parse_request, plain, read_json
from mltrack.store.flavors.plain_rows import PlainRows, plain_rows
from mltrack.store.flavors.schema import SchemaError

LENGTH = struct.Struct(">I")
_SHOWN = 300


class Runner:
    """One loaded model that answers one request after the other."""

    def __init__(self, folder: Path, document: Mapping[str, Any]) -> None:
        self._folder = folder
        self._document = document
        self._model: LoadedModel = load_folder(folder, document)
        signature = self._model.signature
        self._inputs = signature.inputs if signature else None
        self._short = self._find_short_way()

    def _find_short_way(self) -> PlainRows | None:
        try:
            example = self.example()
        except PayloadError:
            return None
        if self._inputs is None or not type(self._model.native).__module__.startswith("sklearn."):
            return None

        def ask(request: Any) -> Any:
            data, params = parse_request(request, self._inputs)
            return self._model.predict(data, params)

        return plain_rows(self._model.native, self._inputs, ask, json.loads(example))

    def answer(self, kind: str, body: bytes) -> tuple[int, bytes]:
        """HTTP status and JSON body. Never raises: what the model does wrong is its caller's 500."""
        try:
            if kind == "e":
                body, kind = self.example(), "j"
            if kind == "c":
                predictions = self._model.predict(parse_csv(body, self._inputs))
            else:
                predictions = self._predict_json(body)
            return 200, json.dumps({"predictions": plain(predictions)}).encode()
        except PayloadError as error:
            return 400, error_body("BAD_REQUEST", str(error))
        except SchemaError as error:
            return 400, error_body("INVALID_PARAMETER_VALUE", str(error))
        except MemoryError:
            return 500, error_body("INTERNAL_ERROR", "The model ran out of memory.")
        except Exception as error:  # noqa: BLE001  # the border: the model's own code may raise anything
            # The whole story is for whoever runs this, not for whoever asked.
            traceback.print_exc(file=sys.stderr)
            return 500, error_body(
                "INTERNAL_ERROR",
                f"The model failed on this request: {type(error).__name__}: {str(error)[:_SHOWN]}",
            )

    def _predict_json(self, body: bytes) -> Any:
        request = read_json(body)
        if self._short is not None:
            predictions = self._short.predict(request)
            if predictions is not None:
                return predictions
        data, params = parse_request(request, self._inputs)
        return self._model.predict(data, params)

    def example(self) -> bytes:
        """The stored example as a request. Raises PayloadError where there is none."""
        info = self._document.get("saved_input_example_info")
        if not isinstance(info, Mapping) or not info.get("artifact_path"):
            raise PayloadError("No input example is stored with the model.")
        serving = info.get("serving_input_path")
        if serving and inside(self._folder, serving, "example").is_file():
            return inside(self._folder, serving, "example").read_bytes()
        content = json.loads(inside(self._folder, info["artifact_path"], "example").read_bytes())
        kind = info.get("type")
        if kind == "dataframe":
            return json.dumps({"dataframe_split": content}).encode()
        return json.dumps(
            content if kind == "ndarray" and "inputs" in content else {"inputs": content}
        ).encode()


def error_body(code: str, message: str) -> bytes:
    """An error as MLflow's scoring server puts it."""
    return json.dumps({"error_code": code, "message": message}).encode()


def read_exactly(stream: BinaryIO, size: int) -> bytes | None:
    """That many bytes; None at the end of the stream."""
    parts: list[bytes] = []
    while size:
        part = stream.read(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def main() -> int:
    """Serve one parent until it closes the pipe."""
    # The model may print; the pipe is ours alone.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    os.environ.setdefault("MLFLOW_TRACKING_URI", "file:///nonexistent")
    folder = Path(sys.argv[1])
    document = json.loads(source.readline())

    def say(answer: Mapping[str, Any]) -> None:
        sink.write(json.dumps(answer).encode() + b"\n")
        sink.flush()

    began = time.monotonic()
    problems = environment_problems(folder, document)
    try:
        runner = Runner(folder, document)
    except (ModelError, ImportError) as error:
        say({"error": str(error), "environment": problems})
        return 1
    except Exception as error:  # noqa: BLE001  # the border: reading a model runs its code
        traceback.print_exc(file=sys.stderr)
        say({"error": f"{type(error).__name__}: {str(error)[:_SHOWN]}", "environment": problems})
        return 1
    say({"ready": round(time.monotonic() - began, 3), "environment": problems})
    while True:
        head = read_exactly(source, LENGTH.size)
        if head is None:
            return 0
        body = read_exactly(source, LENGTH.unpack(head)[0])
        if body is None:
            return 0
        status, answer = runner.answer(chr(body[0]), body[1:])
        sink.write(LENGTH.pack(3 + len(answer)) + b"%03d" % status + answer)
        sink.flush()


if __name__ == "__main__":
    sys.exit(main())
