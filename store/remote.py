"""An MLflow server as a store: what it has is followed into a cache of ours, what a person changes is changed there.

Searching, sorting and drawing work on the cache, at its speed. A change is sent before it is shown; what MLflow has no place
for (pins, moving runs) is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mltrack.store import decisions, model_files
from mltrack.store.acting import actor
from mltrack.store.client.journal import random_hex
from mltrack.store.decisions import Operation
from mltrack.store.errors import BadInput, Conflict, Forbidden, MltrackError, NotFound
from mltrack.store.identity import Identity, told_by
from mltrack.store.policy import Policy
from mltrack.store.questions import Questions
from mltrack.store.records import Decision, Location
from mltrack.store.registry import Registry, move_operation
from mltrack.store.registry_reading import HELD, Standing
from mltrack.store.remote_changes import CALLS, Sender, asked, no_place
from mltrack.store.sources.mlflow_http import MlflowClient
from mltrack.store.store import Store

REASON_TAG = "mltrack.reason"
FIRST_SECONDS = 3.0
_OF_RUNS = frozenset(("tag", "field"))
_FOR_MANAGERS = frozenset(("stage", "alias", "rename_model", "delete_model", "delete_version"))
# How long a change waits to learn who asks, where that is not known yet.
_WHO_SECONDS = 5.0


class RemoteStore(Store):
    """A server behind http(s), opened through its cache."""

    def __init__(self, database: Any, root: Any, location: Location, address: str) -> None:
        super().__init__(database, root, location)
        self._address = address
        self._client = MlflowClient(address, patient=False)
        self.registry = RemoteRegistry(self, self._client)
        self._questions = Questions("who")
        self._known = super().identity()
        self._answered = False
        if not any(state.path == address for state in self.sources()):
            with database.transaction():
                decisions.decide(
                    database,
                    root,
                    [{"op": "source", "path": address, "kind": "mlflow_server", "followed": True}],
                    f"Follow {location.database}",
                )

    def identity(self, seconds: float = 0.0, again: bool = False) -> Identity:
        """What the server says, as far as it does within ``seconds``; else what it said last. An MLflow server knows nobody.

        ``again``: ask now, whatever it said a moment ago: a role may have been given meanwhile."""
        # Else only the first answer is waited for: nobody becomes somebody else while they look.
        local = super().identity()
        answer = self._questions.ask(
            ("who",),
            lambda: told_by(self._client.who(), local),
            0.0 if self._answered and not again else seconds,
            again,
        )
        if answer.done.is_set():
            self._answered = True
            self._known = self._known if answer.problem else answer.answer
        return self._known

    def decide(self, operations: Sequence[Mapping[str, Any]], sentence: str) -> Decision:
        """Carry out the operations on the server. Raises BadInput for what it has no place for."""
        self.send(operations)
        return Decision(random_hex(32), sentence)

    def send(self, operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Carry out the operations; returns what the server said to the last of them."""
        for operation in operations:
            if operation["op"] not in CALLS:
                raise BadInput(no_place(str(operation["op"])))
        for operation in operations:
            self._check_role(operation)
        sender = Sender(self._client)
        try:
            for operation in operations:
                CALLS[str(operation["op"])](sender, dict(operation))
        finally:
            if sender.tried:
                self.look_again(runs=any(operation["op"] in _OF_RUNS for operation in operations))
        return sender.answer

    def _check_role(self, operation: Mapping[str, Any]) -> None:
        """What is certain to be refused is said in the words that the app says it in; about a part of the store only the server
        knows. Raises Forbidden."""
        op = str(operation["op"])
        role = "manager" if op in _FOR_MANAGERS else "editor"
        kind = "experiment" if op in _OF_RUNS else "model"
        if not self.identity(_WHO_SECONDS).refusal(role, kind):
            return
        name = str(operation.get("name", ""))
        if op in _OF_RUNS:
            name = next((run.experiment for run in self.runs([operation["run"]])), "")
        why = self.identity(_WHO_SECONDS, again=True).refusal(role, kind, name)
        if why:
            raise Forbidden(why)

    def undo(self) -> Decision:
        """An MLflow server keeps no history of changes."""
        raise BadInput(
            "Changes on an MLflow server cannot be taken back from here: it keeps no history of them."
        )

    def redo(self) -> Decision:
        """The same."""
        return self.undo()

    def purge(self, run_ids: Sequence[str]) -> Decision:
        """Only the server's own command removes runs for good."""
        raise BadInput("An MLflow server removes deleted runs itself: run `mlflow gc` there.")

    def await_registry(self, seconds: float) -> None:
        """Wait until the registry was read for the first time."""
        self._sources.await_registry(self._address, seconds)

    def look_again(self, runs: bool = True) -> None:
        """See soon what was just changed; the registry alone is quick to read. Waited for only by who has ``patience``."""
        self._sources.look_again(self._address, runs, self.patience)


class RemoteRegistry(Registry):
    """The server's registry: what is about to be changed is read there first, and the change is made there.

    MLflow has no compare-and-set, so between the reading and the change a moment is left in which somebody else can be faster.
    """

    remembers = False

    def __init__(self, store: RemoteStore, client: MlflowClient) -> None:
        super().__init__(store.database, store.root)
        self._store = store
        self._client = client
        self._read = False

    def models(self) -> list[str]:
        """Names of all registered models."""
        self._await_first()
        return super().models()

    def holder(self, name: str, target: str) -> int | None:
        """The version that holds a stage or alias."""
        self._await_first()
        return super().holder(name, target)

    def standings(self, name: str | None = None) -> list[Standing]:
        """Every model at a glance."""
        self._await_first()
        return super().standings(name)

    def _require_model(self, name: str) -> None:
        self._await_first()
        super()._require_model(name)

    def _await_first(self) -> None:
        """The registry comes behind the runs: a command that asks for it at once waits a little for it."""
        if self._read:
            return
        self._read = True
        self._store.refresh(FIRST_SECONDS)
        self._store.await_registry(FIRST_SECONDS)
        self._store.refresh(FIRST_SECONDS)

    # -- what holds now

    def previous(self, name: str, target: str) -> int | None:
        """The server keeps no history of who held what: who was archived last gave way to who holds it now."""
        archived = [version for version in self.versions(name) if version.stage == "Archived"]
        if target != "Production" or self.holder(name, target) is None or not archived:
            return None
        return max(archived, key=lambda version: (version.updated_ms, version.version)).version

    def _now(self, name: str, version: int) -> dict[str, Any]:
        """A version as the server has it at this moment. Raises NotFound when it is gone."""
        found: dict[str, Any] = asked(self._client, "model-versions/get", name=name, version=str(version))
        return dict(found["model_version"])

    def _require_holder(self, name: str, target: str, expected: int | None) -> None:
        if expected == -1 or target not in HELD and not target.startswith("@"):
            return
        model = asked(self._client, "registered-models/get", name=name)["registered_model"]
        held = [
            int(entry["version"])
            for entry in model.get("latest_versions") or ()
            if entry.get("current_stage") == target
        ]
        if target.startswith("@"):
            aliases = model.get("aliases") or ()
            held = [int(entry["version"]) for entry in aliases if entry["alias"] == target[1:]]
        # A stage may have several holders there: the one that was seen is enough.
        if expected in held or not held and expected is None or self._holds(name, target, expected):
            return
        self._store.look_again(runs=False)
        now = f"v{max(held)}" if held else "empty"
        raise Conflict(f"{target} of {name} is now {now} on the server. Look again before you promote.")

    def _holds(self, name: str, target: str, version: int | None) -> bool:
        if version is None or target.startswith("@"):
            return False
        return bool(self._now(name, version).get("current_stage") == target)

    # -- changes

    def _move(
        self,
        name: str,
        version: int,
        target: str,
        reason: str,
        expected_holder: int | None,
        archive: bool,
        checked: bool,
        rollback: bool = False,
    ) -> Decision:
        # Without a transaction: the server may take its time, and the cache goes on being written meanwhile.
        self._now(name, version)
        self._require_holder(name, target, expected_holder)
        did = "Rolled back" if rollback else "Moved"
        decision = self._decide(
            [move_operation(name, version, target, reason, archive)],
            f"{did} {name} {'to ' if rollback else ''}v{version} {'in' if rollback else 'to'} {target}",
        )
        if not reason:
            return decision
        # MLflow has no place for reasons: where its own screens show them is a tag.
        why = f"{target}: {reason} ({actor(self._database).name})"
        noted = {"op": "model_tag", "name": name, "version": version, "key": REASON_TAG, "value": why}
        try:
            self._decide([noted], decision.sentence)
        except MltrackError as error:
            trouble = f"v{version} is {target} now, but the reason could not be noted ({error.message})"
            return replace(decision, trouble=trouble)
        return decision

    def rollback(
        self,
        name: str,
        target: str = "Production",
        to: int | None = None,
        reason: str = "",
        expected_holder: int | None = -1,
        verify: bool = True,
    ) -> Decision:
        """Give a stage back to the version ``to``, which must be said: the server keeps no history of who held what. It has the
        files: it says whether they are there, and nobody here can say whether they are what was registered. Raises BadInput
        without ``to``, NotFound when no version could be meant."""
        if to is None:
            guess = self.previous(name, target)
            if guess is None:
                raise NotFound(
                    f"No version of {name} is archived on the server, and it keeps no history of {target}: promote the one you want."
                )
            raise BadInput(
                f"The server does not say who held {target} of {name} before; v{guess} was archived last."
                f" Say which version it goes back to: to={guess}"
            )
        return self._move(name, to, target, reason, expected_holder, True, True, rollback=True)

    def describe(self, name: str, description: str, version: int = 0) -> Decision:
        """Describe a model or version, unless somebody else did so since it was read."""
        path = "model-versions/get" if version else "registered-models/get"
        fields = {"name": name, **({"version": str(version)} if version else {})}
        (found,) = asked(self._client, path, **fields).values()
        seen = self.version(name, version).description if version else self.model(name).description
        now = str(found.get("description") or "")
        if now not in (seen, description):
            self._store.look_again(runs=False)
            raise Conflict(
                f"Somebody else described it meanwhile: “{now[:200]}”. Nothing was changed; look again, then describe it."
            )
        operation = {"op": "model_field", "name": name, "version": version, "field": "description"}
        what = f"{name} v{version}" if version else name
        return self._decide([{**operation, "value": description}], f"Described {what}")

    def delete_version(self, name: str, version: int, reason: str = "", force: bool = False) -> Decision:
        """Delete a version. Raises Conflict while it holds a stage there or an alias points to it, unless forced."""
        found = self._now(name, version)
        stage, aliases = (
            str(found.get("current_stage") or "None"),
            [str(one) for one in found.get("aliases") or ()],
        )
        if not force and (stage in HELD or aliases):
            self._store.look_again(runs=False)
            held = f"in {stage}" if stage in HELD else f"@{', @'.join(aliases)}"
            raise Conflict(f"{name} v{version} is {held} on the server; change that before deleting it.")
        return self._decide(
            [{"op": "delete_version", "name": name, "version": version}], f"Deleted {name} v{version}"
        )

    def register(
        self,
        name: str,
        source: str,
        run_id: str = "",
        description: str = "",
        reason: str = "",
        files: model_files.Files | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Add a version; its number is the server's. It keeps no list of files, and no reason."""
        operation: Operation = {"op": "register", "name": name, "source": source, "description": description}
        operation["run"] = run_id or model_files.run_of(source) or ""
        operation["tags"] = dict(tags or {})
        said = self._store.send([operation]).get("model_version") or {}
        return int(said.get("version") or 0)

    def register_from(self, uri: str, name: str, *args: Any, **options: Any) -> int:
        """Register ``runs:/ID/path`` as the server has it: its files are looked at there, not here."""
        if not uri.startswith("runs:/"):
            return super().register_from(uri, name, *args, **options)
        description, reason, tags = (*args, "", "", None)[:3]
        run_id = uri.removeprefix("runs:/").partition("/")[0]
        given = {"description": description, "reason": reason, "tags": tags, **options}
        return self.register(name, uri, run_id, **given)

    def request(self, name: str, version: int, target: str, reason: str = "") -> Decision:
        """An MLflow server keeps no requests."""
        raise BadInput("An MLflow server keeps no requests: promote it, or ask those who do by other ways.")

    def set_policy(self, name: str, policy: Policy, reason: str = "") -> Decision:
        """An MLflow server keeps no rules."""
        raise BadInput("An MLflow server keeps no rules about who may promote: they are the server's own.")

    def _decide(self, operations: Sequence[Operation], sentence: str) -> Decision:
        return self._store.decide(operations, sentence)
