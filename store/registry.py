"""The model registry: versions that count without gaps, stages and aliases changed by compare-and-set, an audit chain.

Every change is a decision: one transaction, written to ``decisions.jsonl`` before it commits, with actor, time and reason.
Each leaves audit rows whose hash covers the row before, so that a removed or altered row is noticed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from mltrack.store import copies, decisions, model_files
from mltrack.store.acting import actor
from mltrack.store.decisions import Operation
from mltrack.store.errors import BadInput, Conflict, Forbidden, NotFound
from mltrack.store.policy import Policy, policy_text
from mltrack.store.records import Decision
from mltrack.store.registry_reading import (
    HELD,
    STAGES,
    AuditRow,
    Model,
    ModelVersion,
    RegistryReader,
    Request,
    Serving,
    Standing,
    stage_name,
)

__all__ = [
    "STAGES",
    "AuditRow",
    "Model",
    "ModelVersion",
    "Registry",
    "Request",
    "Serving",
    "Standing",
    "stage_name",
]
_ALIAS = re.compile(r"[\w-]{1,255}\Z")


class Registry(RegistryReader):
    """Commands and questions about models, on an open store's database."""

    remembers = True
    """Whether who held what before is known, and not guessed."""

    # -- models

    def create_model(self, name: str, description: str = "") -> Decision:
        """A model without versions. Raises Conflict when it exists."""
        _check_name(name)
        return self._decide(
            [{"op": "create_model", "name": name, "description": description}], f"Made the model {name}"
        )

    def rename_model(self, name: str, to: str) -> Decision:
        """Give a model another name; versions, tags, aliases and requests follow."""
        _check_name(to)
        with self._database.transaction():
            self._require_model(name)
            return self._decide([{"op": "rename_model", "name": name, "to": to}], f"Renamed {name} to {to}")

    def delete_model(self, name: str, force: bool = False) -> Decision:
        """Delete a model with all its versions. Raises Conflict while anything holds a stage, is an alias' version or is served,
        unless forced."""
        with self._database.transaction():
            for version in self.versions(name):
                if not force:
                    self._require_free(version)
            return self._decide([{"op": "delete_model", "name": name}], f"Deleted the model {name}")

    def describe(self, name: str, description: str, version: int = 0) -> Decision:
        """Describe a model, or one of its versions."""
        with self._database.transaction():
            self._require(name, version)
            operation = {"op": "model_field", "name": name, "version": version, "field": "description"}
            return self._decide([{**operation, "value": description}], f"Described {_shown(name, version)}")

    def set_tag(self, name: str, key: str, value: str | None, version: int = 0) -> Decision:
        """Tag a model or version; None removes the tag. Raises NotFound for removing one that is not there."""
        if not key or len(key) > 250:
            raise BadInput("The key of a tag has 1 to 250 characters.")
        with self._database.transaction():
            self._require(name, version)
            if value is None and not self._database.execute(
                "SELECT 1 FROM model_tag WHERE name = ? AND version = ? AND key = ?", (name, version, key)
            ):
                raise NotFound(f"{_shown(name, version)} has no tag '{key}'.")
            operation = {"op": "model_tag", "name": name, "version": version, "key": key, "value": value}
            what = f"Tagged {_shown(name, version)} {key}" if value is not None else f"Removed {key}"
            return self._decide([operation], what)

    def set_policy(self, name: str, policy: Policy, reason: str = "") -> Decision:
        """Change who may promote and what is checked. With a rule about people in force, only they may change it."""
        with self._database.transaction():
            standing = self.model(name).policy
            people = {*standing.promoters, *standing.approvers}
            who = actor(self._database).name
            if people and who not in people:
                raise Forbidden(
                    f"The policy of {name} names {', '.join(sorted(people))}: only they may change it, not {who}."
                )
            operation = {"op": "model_field", "name": name, "field": "policy", "value": policy_text(policy)}
            return self._decide([{**operation, "reason": reason}], f"Changed the policy of {name}")

    # -- versions

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
        """Add a version to a model, made when it does not exist. Returns the version: the highest ever given, plus one.

        ``files`` is the manifest a rollback is verified against; without it the files are listed here when they are on this machine.
        """
        _check_name(name)
        if files is None:
            files = copies.manifest(self._database, self._root, source)
        if files is None:
            files = model_files.listed_at(self._root, source)
        operation: Operation = {
            "op": "register",
            "name": name,
            "source": source,
            "run": run_id or model_files.run_of(source) or "",
            "description": description,
            "reason": reason,
        }
        if files is not None:
            operation["files"] = files
        if tags:
            operation["tags"] = dict(tags)
        with self._database.transaction():
            self._decide([operation], f"Registered a version of {name}")
            return int(
                self._database.execute("SELECT last_version FROM registered_model WHERE name = ?", (name,))[
                    0
                ][0]
            )

    def register_from(
        self,
        uri: str,
        name: str,
        description: str = "",
        reason: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Register what ``uri`` names: ``runs:/ID/path``, ``models:/…`` or a folder, whose files are then kept by the store."""
        _check_name(name)
        if uri.startswith("models:/"):
            known = self.resolve(uri)
            files = self.files(known.name, known.version)
            return self.register(name, known.source, known.run_id, description, reason, files, tags)
        folder = self.locate(uri)
        files = model_files.list_files(folder)
        if not any(path == "MLmodel" for path, _, _ in files):
            raise BadInput(f"{uri} is no model: there is no file MLmodel in it.")
        source = uri if uri.startswith("runs:/") else model_files.source_of(self._root, folder)
        if source is None:
            source = model_files.keep(self._root, folder, files)
        return self.register(name, source, "", description, reason, files, tags)

    def delete_version(self, name: str, version: int, reason: str = "", force: bool = False) -> Decision:
        """Delete a version. Raises Conflict while it holds a stage, an alias points to it or it is served, unless forced."""
        with self._database.transaction():
            found = self.version(name, version)
            if not force:
                self._require_free(found)
            operation = {"op": "delete_version", "name": name, "version": version, "reason": reason}
            return self._decide([operation], f"Deleted {name} v{version}")

    # -- stages and aliases

    def promote(
        self,
        name: str,
        version: int,
        stage: str,
        reason: str,
        expected_holder: int | None = -1,
        archive: bool = True,
        checked: bool = False,
    ) -> Decision:
        """Move a version to a stage; the previous holder is archived unless told not to.

        ``expected_holder``: the version the caller saw holding the stage (None: nobody; -1: whoever it is). When somebody else
        was faster, Conflict says who holds it now, and nothing changes. ``checked``: the checks of the policy were passed.
        Raises Forbidden when the policy does not let this happen.
        """
        target = stage_name(stage)
        return self._move(name, version, target, reason, expected_holder, archive, checked)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int | None,
        reason: str = "",
        expected_holder: int | None = -1,
        checked: bool = False,
    ) -> Decision:
        """Point an alias to a version, or remove it (None). An alias passes the same gate as a stage."""
        if not _ALIAS.match(alias) or alias.lower() == "latest" or re.fullmatch(r"v\d+", alias.lower()):
            raise BadInput(
                f"An alias has letters, digits, '_' and '-', and is neither 'latest' nor like 'v3'; {alias!r} cannot be used."
            )
        if version is not None:
            return self._move(name, version, f"@{alias}", reason, expected_holder, True, checked)
        with self._database.transaction():
            self._require_model(name)
            self._require_allowed(name, f"@{alias}", True)
            operation = {"op": "alias", "name": name, "alias": alias, "version": None, "reason": reason}
            return self._decide([operation], f"Set {name}@{alias} to nothing")

    def rollback(
        self,
        name: str,
        target: str = "Production",
        to: int | None = None,
        reason: str = "",
        expected_holder: int | None = -1,
        verify: bool = True,
    ) -> Decision:
        """Give a stage or alias back to the version that held it before (or ``to``), whose files are verified first."""
        target = target if target.startswith("@") else stage_name(target)
        back = self.previous(name, target) if to is None else to
        if back is None:
            raise NotFound(f"Nothing held {target} of {name} before: there is no way back.")
        wrong = self.file_problems(name, back) if verify else []
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise Conflict(f"{name} v{back} cannot be gone back to: {wrong[0]}{more}. Nothing was changed.")
        return self._move(name, back, target, reason, expected_holder, True, True, rollback=True)

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
        with self._database.transaction():
            self._require_version(name, version)
            self._require_holder(name, target, expected_holder)
            # Going back is the way out of trouble: whoever may promote may do it without asking again.
            self._require_allowed(name, target, checked, approved=rollback)
            operation = move_operation(name, version, target, reason, archive)
            if rollback:
                operation["rollback"] = True
            did = "Rolled back" if rollback else "Moved"
            return self._decide(
                [operation],
                f"{did} {name} {'to ' if rollback else ''}v{version} {'in' if rollback else 'to'} {target}",
            )

    def _require_holder(self, name: str, target: str, expected: int | None) -> None:
        if expected == -1 or target not in HELD and not target.startswith("@"):
            return
        holder = self.holder(name, target)
        if holder == expected:
            return
        rows = [row for row in self.audit(name) if row.version == holder or holder is None]
        by = ""
        for row in reversed(rows):
            if row.new_value == target or row.action.endswith(f"alias {target[1:]}") or holder is None:
                by = f" (by {row.actor}, {_ago(row.time_ms)})"
                break
        raise Conflict(
            f"{target} of {name} is now {f'v{holder}' if holder else 'empty'}{by}. Look again before you promote."
        )

    def _require_allowed(self, name: str, target: str, checked: bool, approved: bool = False) -> None:
        policy = self.model(name).policy
        if target not in policy.protected:
            return
        who = actor(self._database).name
        if policy.promoters and who not in policy.promoters:
            raise Forbidden(
                f"{target} of {name} is given by {', '.join(policy.promoters)}, not by {who}. Ask: mltrack models request."
            )
        if policy.approvals and not approved:
            raise Forbidden(
                f"{target} of {name} needs the approval of a second person. Ask for it: mltrack models request."
            )
        if policy.blocking and not checked:
            raise Forbidden(
                f"{target} of {name} asks for checks ({', '.join(policy.blocking)}); mltrack models promote runs them."
            )

    # -- requests

    def request(self, name: str, version: int, target: str, reason: str = "") -> Decision:
        """Ask for a promotion to a stage or alias (with its @)."""
        target = target if target.startswith("@") else stage_name(target)
        with self._database.transaction():
            self._require_version(name, version)
            if any(
                (request.version, request.target) == (version, target)
                for request in self.requests("open", name)
            ):
                raise Conflict(f"{name} v{version} to {target} was asked for already.")
            operation = {
                "op": "request",
                "name": name,
                "version": version,
                "target": target,
                "reason": reason,
            }
            return self._decide([operation], f"Asked for {name} v{version} to {target}")

    def answer(self, request_id: str, approve: bool, reason: str = "", checked: bool = False) -> Decision:
        """Approve a request, which promotes, or reject it. Raises Forbidden for the asker's own approval."""
        with self._database.transaction():
            found = [each for each in self.requests("open") if each.id == request_id]
            if not found:
                raise NotFound("The request is not open any more: somebody else answered it.")
            request = found[0]
            operations: list[Operation] = [
                {
                    "op": "answer",
                    "request": request.id,
                    "state": "approved" if approve else "rejected",
                    "reason": reason,
                }
            ]
            said = f"{'Approved' if approve else 'Rejected'} {request.name} v{request.version} to {request.target}"
            if approve:
                self._require_approver(request)
                self._require_version(request.name, request.version)
                policy = self.model(request.name).policy
                if request.target in policy.protected and policy.blocking and not checked:
                    raise Forbidden(
                        f"{request.target} of {request.name} asks for checks; mltrack models approve runs them."
                    )
                why = (
                    f"{request.reason} (asked by {request.actor})"
                    if request.reason
                    else f"asked by {request.actor}"
                )
                operations.append(
                    move_operation(
                        request.name,
                        request.version,
                        request.target,
                        f"{reason}; {why}" if reason else why,
                        True,
                    )
                )
            return self._decide(operations, said)

    def _require_approver(self, request: Request) -> None:
        who = actor(self._database).name
        policy = self.model(request.name).policy
        if policy.approvers and who not in policy.approvers:
            raise Forbidden(f"{request.name} is approved by {', '.join(policy.approvers)}, not by {who}.")
        if policy.approvals and who == request.actor:
            raise Forbidden(f"You asked for this yourself: somebody else than {who} has to approve it.")
        if not policy.approvals and policy.promoters and who not in policy.promoters:
            raise Forbidden(f"{request.name} is promoted by {', '.join(policy.promoters)}, not by {who}.")

    # --

    def _decide(self, operations: Sequence[Operation], sentence: str) -> Decision:
        return decisions.decide(self._database, self._root, operations, sentence)

    def _require(self, name: str, version: int) -> None:
        if version:
            self._require_version(name, version)
        else:
            self._require_model(name)

    def _require_free(self, version: ModelVersion) -> None:
        what = f"{version.name} v{version.version}"
        if version.stage in HELD:
            raise Conflict(f"{what} is in {version.stage}; move it to Archived before deleting it.")
        if version.aliases:
            raise Conflict(
                f"{what} is @{', @'.join(version.aliases)}; point that elsewhere before deleting it."
            )
        for serving in self.serving():
            if (serving.name, serving.version) == (version.name, version.version):
                raise Conflict(
                    f"{what} is served now (run {serving.run_id[:8]}); stop that before deleting it."
                )


def move_operation(name: str, version: int, target: str, reason: str, archive: bool) -> Operation:
    """A version to a stage, or an alias (with its @) to a version."""
    if target.startswith("@"):
        return {"op": "alias", "name": name, "alias": target[1:], "version": version, "reason": reason}
    return {
        "op": "stage",
        "name": name,
        "version": version,
        "stage": target,
        "archive": archive,
        "reason": reason,
    }


def _check_name(name: str) -> None:
    if not name or len(name) > 256 or any(character in name for character in "/:\0"):
        raise BadInput(f"A model name has 1 to 256 characters without '/' and ':'; {name!r} cannot be used.")


def _shown(name: str, version: int) -> str:
    return f"{name} v{version}" if version else name


def _ago(time_ms: int) -> str:
    seconds = max(0, (time.time_ns() // 1_000_000 - time_ms) // 1000)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
