"""The model registry: versions that count without gaps, stages and aliases changed by compare-and-set, an audit chain.

Every change is a decision: one transaction, written to ``decisions.jsonl`` before it commits, with actor, time and reason.
Each leaves audit rows whose hash covers the row before, so that a removed or altered row is noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mltrack.store import decisions
from mltrack.store.database import Database
from mltrack.store.decisions import Operation
from mltrack.store.errors import BadInput, Conflict, NotFound
from mltrack.store.records import Decision
from mltrack.store.registry_operations import chain

STAGES = ("None", "Staging", "Production", "Archived")
_ALIAS = re.compile(r"[\w-]{1,255}\Z")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model. Times are ms since 1970."""

    name: str
    version: int
    stage: str
    source: str
    run_id: str
    description: str
    actor: str
    created_ms: int
    updated_ms: int
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change of the registry. ``hash`` is hex sha256 over the previous hash and this row."""

    time_ms: int
    actor: str
    name: str
    version: int
    action: str
    old_value: str
    new_value: str
    reason: str
    hash: str


class Registry:
    """Commands and questions about models, on an open store's database."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root

    def models(self) -> list[str]:
        """Names of all registered models."""
        return [
            str(row[0]) for row in self._database.execute("SELECT name FROM registered_model ORDER BY name")
        ]

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first. Raises NotFound."""
        self._require_model(name)
        aliases: dict[int, list[str]] = {}
        for alias, version in self._database.execute(
            "SELECT alias, version FROM model_alias WHERE name = ? ORDER BY alias", (name,)
        ):
            aliases.setdefault(int(version), []).append(str(alias))
        rows = self._database.execute(
            "SELECT name, version, stage, source, run_id, description, actor, created_ms, updated_ms FROM model_version"
            " WHERE name = ? ORDER BY version DESC",
            (name,),
        )
        return [
            ModelVersion(
                name,
                version,
                stage,
                source,
                run_id,
                description,
                actor,
                created,
                updated,
                tuple(aliases.get(version, ())),
            )
            for _, version, stage, source, run_id, description, actor, created, updated in rows
        ]

    def audit(self, name: str | None = None) -> list[AuditRow]:
        """History, oldest first, of one model or all."""
        condition, parameters = (" WHERE name = ?", (name,)) if name is not None else ("", ())
        rows = self._database.execute(
            "SELECT time_ms, actor, name, version, action, old_value, new_value, reason, hash FROM audit"
            + condition
            + " ORDER BY id",
            parameters,
        )
        return [AuditRow(*row) for row in rows]

    def verify_audit(self) -> int | None:
        """Check the chain. None when it holds, else the place (from 1) of the first row that does not fit."""
        previous = ""
        for place, row in enumerate(self.audit(), start=1):
            fields = [
                row.time_ms,
                row.actor,
                row.name,
                row.version,
                row.action,
                row.old_value,
                row.new_value,
                row.reason,
            ]
            if chain(previous, fields) != row.hash:
                return place
            previous = row.hash
        return None

    def register(
        self, name: str, source: str, run_id: str = "", description: str = "", reason: str = ""
    ) -> int:
        """Add a version to a model, made when it does not exist. Returns the version: the highest ever given, plus one."""
        if not name or len(name) > 256 or any(character in name for character in "/:\0"):
            raise BadInput(
                f"A model name has 1 to 256 characters without '/' and ':'; {name!r} cannot be used."
            )
        operation = {
            "op": "register",
            "name": name,
            "source": source,
            "run": run_id,
            "description": description,
            "reason": reason,
        }
        with self._database.transaction():
            self._decide(operation, f"Registered a version of {name}")
            return int(
                self._database.execute("SELECT last_version FROM registered_model WHERE name = ?", (name,))[
                    0
                ][0]
            )

    def promote(
        self,
        name: str,
        version: int,
        stage: str,
        reason: str,
        expected_holder: int | None = -1,
        archive: bool = True,
    ) -> Decision:
        """Move a version to a stage; the previous holder is archived unless told not to.

        ``expected_holder``: the version the caller saw holding the stage (None: nobody; -1: whoever it is). When somebody else
        was faster, Conflict says who holds it now, and nothing changes.
        """
        canonical = {known.lower(): known for known in STAGES}.get(stage.lower())
        if canonical is None:
            raise BadInput(f"A stage is one of {', '.join(STAGES)}, not {stage!r}.")
        with self._database.transaction():
            self._require_version(name, version)
            holder = self._holder(name, canonical) if canonical in ("Staging", "Production") else None
            if expected_holder != -1 and holder != expected_holder:
                who = self._database.execute(
                    "SELECT actor FROM audit WHERE name = ? AND new_value = ? ORDER BY id DESC LIMIT 1",
                    (name, canonical),
                )
                by = f" (by {who[0][0]})" if who else ""
                raise Conflict(
                    f"{canonical} of {name} is now {f'v{holder}' if holder else 'empty'}{by}. Look again before you promote."
                )
            operation = {
                "op": "stage",
                "name": name,
                "version": version,
                "stage": canonical,
                "archive": archive,
                "reason": reason,
            }
            return self._decide(operation, f"Moved {name} v{version} to {canonical}")

    def set_alias(self, name: str, alias: str, version: int | None, reason: str = "") -> Decision:
        """Point an alias to a version, or remove it (None)."""
        if not _ALIAS.match(alias) or alias.lower() == "latest" or re.fullmatch(r"v\d+", alias):
            raise BadInput(
                f"An alias has letters, digits, '_' and '-', and is neither 'latest' nor like 'v3'; {alias!r} cannot be used."
            )
        with self._database.transaction():
            if version is not None:
                self._require_version(name, version)
            operation = {"op": "alias", "name": name, "alias": alias, "version": version, "reason": reason}
            return self._decide(operation, f"Set {name}@{alias} to {f'v{version}' if version else 'nothing'}")

    def _decide(self, operation: Operation, sentence: str) -> Decision:
        return decisions.decide(self._database, self._root, [operation], sentence)

    def _require_model(self, name: str) -> None:
        if not self._database.execute("SELECT 1 FROM registered_model WHERE name = ?", (name,)):
            raise NotFound(f"There is no registered model '{name}'.")

    def _require_version(self, name: str, version: int) -> None:
        self._require_model(name)
        if not self._database.execute(
            "SELECT 1 FROM model_version WHERE name = ? AND version = ?", (name, version)
        ):
            raise NotFound(f"The model '{name}' has no version {version}.")

    def _holder(self, name: str, stage: str) -> int | None:
        rows = self._database.execute(
            "SELECT version FROM model_version WHERE name = ? AND stage = ? ORDER BY updated_ms DESC, version DESC",
            (name, stage),
        )
        return int(rows[0][0]) if rows else None
