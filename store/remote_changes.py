"""What changes an MLflow server: each operation as the calls of its interface, and what is known when one of them fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mltrack.store.decisions import Operation
from mltrack.store.errors import BadInput, Conflict, Forbidden, MltrackError, NotFound, StoreUnavailable
from mltrack.store.sources.mlflow_http import MlflowClient, NotReached, ServerRefused

NOTE_TAG = "mlflow.note.content"

_WORDS = {"experiment": "runs that move to another experiment", "pinned": "pins", "note": "such a note"}


def no_place(op: str) -> str:
    what = _WORDS.get(op, f"this ('{op}')")
    return f"An MLflow server has no place for {what}. Import its runs (mltrack import) to change them here."


def asked(client: MlflowClient, path: str, **fields: Any) -> dict[str, Any]:
    """An answer of the server to a question, with our errors."""
    try:
        return client.get(path, **fields)
    except ServerRefused as error:
        raise refusal(error) from None
    except OSError as error:
        raise StoreUnavailable(f"{client.shown} {error.strerror}; nothing was changed.") from None


def refusal(error: ServerRefused) -> MltrackError:
    kind = {400: BadInput, 404: NotFound, 401: Forbidden, 403: Forbidden, 409: Conflict}.get(error.status)
    return (kind or StoreUnavailable)(f"The server refused: {error.strerror}")


class Sender:
    """Sends the changes of one decision, and knows how many the server has made: what fails behind them is told otherwise."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self.made = 0
        self.tried = False
        """Whether anything may have been changed."""
        self.answer: dict[str, Any] = {}
        """What the server said last."""

    def __call__(self, method: str, path: str, **fields: Any) -> None:
        """One change. Raises MltrackError with what is known of it."""
        part = f" Only a part was changed ({self.made:,} of the changes)." if self.made else ""
        try:
            self.answer = self.client.call(method, path, **fields)
        except ServerRefused as error:
            refused = refusal(error)
            raise type(refused)(f"{refused.message}{part}") from None
        except NotReached as error:
            nothing = part or " Nothing was changed."
            raise StoreUnavailable(f"{self.client.shown} {error.strerror}.{nothing}") from None
        except OSError as error:
            self.tried = True
            raise StoreUnavailable(
                f"{self.client.shown} {error.strerror}; it is not known whether it was changed: look again.{part}"
            ) from None
        self.tried = True
        self.made += 1


def _tag(send: Sender, operation: Operation) -> None:
    run, key, value = str(operation["run"]), str(operation["key"]), operation.get("value")
    if value is None:
        send("POST", "runs/delete-tag", run_id=run, key=key)
    else:
        send("POST", "runs/set-tag", run_id=run, run_uuid=run, key=key, value=value)


def _field(send: Sender, operation: Operation) -> None:
    run, name, value = str(operation["run"]), str(operation["field"]), operation.get("value")
    if name == "name" and value:
        send("POST", "runs/update", run_id=run, run_uuid=run, run_name=value)
    elif name == "note":
        send("POST", "runs/set-tag", run_id=run, run_uuid=run, key=NOTE_TAG, value=value or "")
    elif name == "lifecycle":
        send("POST", "runs/delete" if value == "trash" else "runs/restore", run_id=run)
    else:
        raise BadInput(no_place(name))


def _stage(send: Sender, operation: Operation) -> None:
    wanted = operation.get("stages") or {operation["version"]: operation["stage"]}
    for version, stage in wanted.items():
        archive = bool(operation.get("archive")) and stage in ("Staging", "Production")
        fields = {"name": operation["name"], "version": str(version), "stage": stage}
        send("POST", "model-versions/transition-stage", **fields, archive_existing_versions=archive)


def _alias(send: Sender, operation: Operation) -> None:
    fields = {"name": operation["name"], "alias": operation["alias"]}
    if operation.get("version") is None:
        send("DELETE", "registered-models/alias", **fields)
    else:
        send("POST", "registered-models/alias", **fields, version=str(operation["version"]))


def _register(send: Sender, operation: Operation) -> None:
    name = str(operation["name"])
    try:
        asked(send.client, "registered-models/get", name=name)
    except NotFound:
        send("POST", "registered-models/create", name=name)
    except Forbidden:
        pass  # what it takes to add a version, and not to look at the model, the server says to the next request
    fields = {"name": name, "source": operation.get("source", ""), "run_id": operation.get("run", "")}
    tags = [{"key": key, "value": value} for key, value in (operation.get("tags") or {}).items()]
    description = operation.get("description", "")
    send("POST", "model-versions/create", **fields, description=description, tags=tags)


def _create_model(send: Sender, operation: Operation) -> None:
    fields = {"name": operation["name"], "description": operation.get("description", "")}
    send("POST", "registered-models/create", **fields)


def _rename_model(send: Sender, operation: Operation) -> None:
    send("POST", "registered-models/rename", name=operation["name"], new_name=operation["to"])


def _delete_model(send: Sender, operation: Operation) -> None:
    send("DELETE", "registered-models/delete", name=operation["name"])


def _delete_version(send: Sender, operation: Operation) -> None:
    send("DELETE", "model-versions/delete", name=operation["name"], version=str(operation["version"]))


def _model_field(send: Sender, operation: Operation) -> None:
    name, version, value = operation["name"], operation.get("version") or 0, operation.get("value") or ""
    if operation.get("field") != "description":
        raise BadInput(no_place(str(operation.get("field"))))
    if version:
        send("PATCH", "model-versions/update", name=name, version=str(version), description=value)
    else:
        send("PATCH", "registered-models/update", name=name, description=value)


def _model_tag(send: Sender, operation: Operation) -> None:
    version, value = operation.get("version") or 0, operation.get("value")
    fields: dict[str, Any] = {"name": operation["name"], "key": operation["key"]}
    if version:
        fields["version"] = str(version)
    kind = "model-versions" if version else "registered-models"
    if value is None:
        send("DELETE", f"{kind}/delete-tag", **fields)
    else:
        send("POST", f"{kind}/set-tag", **fields, value=value)


CALLS: dict[str, Callable[[Sender, Operation], None]] = {
    "tag": _tag,
    "field": _field,
    "stage": _stage,
    "alias": _alias,
    "register": _register,
    "create_model": _create_model,
    "rename_model": _rename_model,
    "delete_model": _delete_model,
    "delete_version": _delete_version,
    "model_field": _model_field,
    "model_tag": _model_tag,
}
