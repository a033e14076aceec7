"""Questions to the model registry: versions, holders, what they were at a date, who waits for an answer, what is served."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltrack.store import copies, model_files
from mltrack.store.database import Database
from mltrack.store.errors import BadInput, NotFound
from mltrack.store.policy import Policy, parse_policy
from mltrack.store.registry_operations import chain
from mltrack.store.runs import followed_place

STAGES = ("None", "Staging", "Production", "Archived")
HELD = ("Staging", "Production")
# Tags of a serving process's run: what it serves now, and the stage or alias it follows.
SERVE_MODEL, SERVE_VERSION, SERVE_FOLLOWS = (
    "mltrack.serve.model",
    "mltrack.serve.version",
    "mltrack.serve.follows",
)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model. Times are ms since 1970; ``staged_ms`` is when it came to its stage."""

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
    tags: dict[str, str] = field(default_factory=dict)
    staged_ms: int = 0
    staged_by: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model without its versions."""

    name: str
    description: str
    created_ms: int
    updated_ms: int
    last_version: int
    tags: dict[str, str]
    policy: Policy


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change of the registry. ``hash`` is hex sha256 over the previous hash and this row.

    ``channel``: tui, cli, rest or python; ``identity``: how the actor is known (kernel, token, claimed). Both are "" in old rows.
    """

    time_ms: int
    actor: str
    name: str
    version: int
    action: str
    old_value: str
    new_value: str
    reason: str
    hash: str
    channel: str = ""
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody asked for a promotion to ``target``: a stage, or an alias with its @."""

    id: str
    name: str
    version: int
    target: str
    actor: str
    reason: str
    time_ms: int
    state: str
    decided_by: str
    decided_ms: int | None
    answer: str


@dataclass(frozen=True, slots=True)
class Serving:
    """A process that serves a version now, by its run. ``follows``: stage, alias with @, or empty for a fixed version."""

    name: str
    version: int
    follows: str
    run_id: str
    heard_ms: int


@dataclass(slots=True)
class Standing:
    """A model at a glance: who holds what, who waits, what is served, what changed last."""

    name: str
    versions: int = 0
    production: list[ModelVersion] = field(default_factory=list)
    staging: list[ModelVersion] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    serving: list[Serving] = field(default_factory=list)
    last: AuditRow | None = None


_VERSION = (
    "name, version, stage, source, run_id, description, actor, created_ms, updated_ms, staged_ms, staged_by"
)
_AUDIT = "time_ms, actor, name, version, action, old_value, new_value, reason, hash, channel, identity"
_REQUEST = "id, name, version, target, actor, reason, time_ms, state, decided_by, decided_ms, answer"


class RegistryReader:
    """Questions about models, on an open store's database."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root

    def models(self) -> list[str]:
        """Names of all registered models."""
        return [
            str(row[0]) for row in self._database.execute("SELECT name FROM registered_model ORDER BY name")
        ]

    def model(self, name: str) -> Model:
        """A model by its name. Raises NotFound."""
        rows = self._database.execute(
            "SELECT description, created_ms, updated_ms, last_version, policy FROM registered_model WHERE name = ?",
            (name,),
        )
        if not rows:
            raise NotFound(f"There is no registered model '{name}'.")
        description, created, updated, last, policy = rows[0]
        tags = self._database.execute(
            "SELECT key, value FROM model_tag WHERE name = ? AND version = 0 ORDER BY key", (name,)
        )
        return Model(name, description, created, updated, last, dict(tags), parse_policy(policy))

    def aliases(self, name: str) -> dict[str, int]:
        """Aliases of a model and the versions they point to."""
        return {
            str(alias): int(version)
            for alias, version in self._database.execute(
                "SELECT alias, version FROM model_alias WHERE name = ? ORDER BY alias", (name,)
            )
        }

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first. Raises NotFound."""
        self._require_model(name)
        return self._read_versions("name = ?", (name,))

    def version(self, name: str, version: int) -> ModelVersion:
        """One version. Raises NotFound."""
        self._require_version(name, version)
        return self._read_versions("name = ? AND version = ?", (name, version))[0]

    def _read_versions(self, condition: str, parameters: tuple[Any, ...]) -> list[ModelVersion]:
        rows = self._database.execute(
            f"SELECT {_VERSION} FROM model_version WHERE {condition} ORDER BY name, version DESC", parameters
        )
        # What belongs to versions that are not asked for stays unread: a registry may have 100,000.
        these = f"SELECT name, version FROM model_version WHERE {condition}"
        aliases: dict[tuple[str, int], list[str]] = {}
        for name, alias, version in self._database.execute(
            f"SELECT name, alias, version FROM model_alias WHERE (name, version) IN ({these}) ORDER BY alias",
            parameters,
        ):
            aliases.setdefault((name, int(version)), []).append(str(alias))
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for name, version, key, value in self._database.execute(
            f"SELECT name, version, key, value FROM model_tag WHERE (name, version) IN ({these}) ORDER BY key",
            parameters,
        ):
            tags.setdefault((name, int(version)), {})[str(key)] = str(value)
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
                tuple(aliases.get((name, version), ())),
                tags.get((name, version), {}),
                staged,
                by,
            )
            for name, version, stage, source, run_id, description, actor, created, updated, staged, by in rows
        ]

    def resolve(self, reference: str) -> ModelVersion:
        """The version that ``models:/NAME/3``, ``models:/NAME/Production``, ``models:/NAME/latest`` or ``models:/NAME@alias``
        means; ``models:/`` may be left out. Raises NotFound and BadInput."""
        text = reference.removeprefix("models:/")
        name, slash, last = text.rpartition("/")
        if not slash:
            name, at, alias = text.rpartition("@")
            if not at:
                raise BadInput(
                    f"'{reference}' names no version: write NAME/3, NAME/Production, NAME/latest or NAME@alias."
                )
            version = self.aliases(name).get(alias)
            if version is None:
                self._require_model(name)
                raise NotFound(f"The model '{name}' has no alias '{alias}'.")
            return self.version(name, version)
        if last.isdecimal():
            return self.version(name, int(last))
        self._require_model(name)
        if last.lower() == "latest":
            newest = self._database.execute("SELECT max(version) FROM model_version WHERE name = ?", (name,))[
                0
            ][0]
            if newest is None:
                raise NotFound(f"The model '{name}' has no versions.")
            return self.version(name, int(newest))
        stage = stage_name(last)
        found = self._database.execute(
            "SELECT max(version) FROM model_version WHERE name = ? AND stage = ?", (name, stage)
        )[0][0]
        if found is None:
            raise NotFound(f"No version of '{name}' is in {stage}.")
        return self.version(name, int(found))

    def folder(self, version: ModelVersion) -> Path:
        """A folder with all its files, those brought here that lie only in an object store. Raises NotFound when there is none,
        StoreUnavailable when the object store cannot be reached."""
        brought = copies.bring(self._database, self._root, version.source)
        return brought if brought is not None else self.folder_here(version)

    def folder_here(self, version: ModelVersion) -> Path:
        """Where its files lie, without those that lie only in an object store: what is large, never the description. Raises
        NotFound when that is not here."""
        return model_files.require(self._place(version.source), f"{version.name} v{version.version}")

    def away(self, version: ModelVersion) -> int:
        """How many of its files lie only in an object store."""
        found = copies.place_of_source(version.source)
        return len(copies.away(self._database, self._root, *found)) if found is not None else 0

    def _place(self, source: str) -> Path | None:
        """Where a source is; of a followed run or logged model with its own tool."""
        theirs = followed_place(self._database, source)
        return theirs if theirs is not None else model_files.locate(self._root, source)

    def locate(self, uri: str) -> Path:
        """The folder of ``models:/…``, ``runs:/ID/name`` or a path. Raises NotFound and BadInput."""
        if uri.startswith("models:/"):
            return self.folder(self.resolve(uri))
        source = (
            uri if "://" in uri or uri.startswith(("runs:/", "mltrack:/", "mlflow-artifacts:/")) else None
        )
        brought = copies.bring(self._database, self._root, source) if source else None
        found = brought or (self._place(source) if source else Path(uri).absolute())
        return model_files.require(found, uri)

    def files(self, name: str, version: int) -> model_files.Files | None:
        """What was registered: path, bytes and digest of each file; None when the files lay out of reach."""
        self._require_version(name, version)
        rows = self._database.execute(
            "SELECT files FROM model_version WHERE name = ? AND version = ?", (name, version)
        )
        return model_files.parse_files(str(rows[0][0]))

    def file_problems(self, name: str, version: int) -> list[str]:
        """Why the version could not be served as it was registered; empty when every file is there with its digest."""
        found = self.version(name, version)
        files = self.files(name, version)
        if files is None:
            return [f"its files at {found.source or 'no place'} lay out of reach when it was registered"]
        try:
            folder = self.folder_here(found)
        except (NotFound, BadInput) as error:
            return [error.message]
        far: set[tuple[object, object]] = set()
        place = copies.place_of_source(found.source)
        if place is not None:
            gone = copies.away(self._database, self._root, *place)
            far = {(copy.path[len(place[1]) + 1 :], copy.sha256) for copy in gone}
        # What lies in an object store was read back before the file here went.
        return model_files.problems(folder, [file for file in files if (file[0], file[2]) not in far])

    # -- who holds what

    def holder(self, name: str, target: str) -> int | None:
        """The version that holds a stage, or that an alias (with its @) points to."""
        if target.startswith("@"):
            return self.aliases(name).get(target[1:])
        rows = self._database.execute(
            "SELECT version FROM model_version WHERE name = ? AND stage = ? ORDER BY staged_ms DESC, version DESC",
            (name, target),
        )
        return int(rows[0][0]) if rows else None

    def previous(self, name: str, target: str) -> int | None:
        """The version to go back to: the one before the holder, of those that still exist. Going back forgets what was left."""
        there = {version.version for version in self.versions(name)}
        stack: list[int] = []
        for row in self.audit(name):
            holds = _came_to_hold(row, target)
            if holds is None or holds not in there:
                continue
            if holds in stack and (row.action.startswith("rolled back") or stack[-2:-1] == [holds]):
                del stack[stack.index(holds) + 1 :]
            elif stack[-1:] != [holds]:
                stack.append(holds)
        holder = self.holder(name, target)
        if stack and stack[-1] == holder:
            stack.pop()
        return stack[-1] if stack else None

    def standings(self, name: str | None = None) -> list[Standing]:
        """Every model (or one) at a glance, by name. A handful of statements, however many there are."""
        only, values = ("WHERE name = ?", (name,)) if name is not None else ("", ())
        found = {
            str(row[0]): Standing(str(row[0]))
            for row in self._database.execute(
                f"SELECT name FROM registered_model {only} ORDER BY name", values
            )
        }
        for model, count in self._database.execute(
            f"SELECT name, count(*) FROM model_version {only} GROUP BY name", values
        ):
            found[model].versions = int(count)
        also = " AND name = ?" if name is not None else ""
        held = self._read_versions(f"stage IN ('Staging', 'Production'){also}", values)
        for version in sorted(held, key=lambda each: -each.staged_ms):
            standing = found[version.name]
            (standing.production if version.stage == "Production" else standing.staging).append(version)
        for request in self.requests("open", name):
            found[request.name].requests.append(request)
        for serving in self.serving():
            if serving.name in found:
                found[serving.name].serving.append(serving)
        for row in self._database.execute(
            f"SELECT {_AUDIT} FROM audit WHERE id IN (SELECT (SELECT max(id) FROM audit WHERE name = registered_model.name)"
            f" FROM registered_model {only})",
            values,
        ):
            if row[2] in found:
                found[row[2]].last = AuditRow(*row)
        return list(found.values())

    def requests(self, state: str | None = "open", name: str | None = None) -> list[Request]:
        """Requests, oldest first; ``state`` None: all."""
        conditions, values = [], []
        for column, value in (("state", state), ("name", name)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._database.execute(
            f"SELECT {_REQUEST} FROM model_request{where} ORDER BY time_ms, id", tuple(values)
        )
        return [Request(*row) for row in rows]

    def serving(self) -> list[Serving]:
        """What serving processes report: their runs that are alive."""
        rows = self._database.execute(
            "SELECT r.run_id, r.heard_ms, t.key, CASE WHEN t.edited = 1 THEN t.edit ELSE t.value END FROM run r"
            " JOIN tag m ON m.run = r.id AND m.key = ? JOIN tag t ON t.run = r.id AND t.key IN (?, ?, ?)"
            " WHERE r.status = 'RUNNING' AND r.lifecycle = 'active' ORDER BY r.start_ms DESC",
            (SERVE_MODEL, SERVE_MODEL, SERVE_VERSION, SERVE_FOLLOWS),
        )
        tags: dict[str, dict[str, Any]] = {}
        for run_id, heard, key, value in rows:
            tags.setdefault(str(run_id), {"heard": heard or 0})[key] = value
        return [
            Serving(
                str(each[SERVE_MODEL]),
                int(each[SERVE_VERSION]),
                str(each.get(SERVE_FOLLOWS) or ""),
                run_id,
                int(each["heard"]),
            )
            for run_id, each in tags.items()
            if each.get(SERVE_MODEL) and str(each.get(SERVE_VERSION) or "").isdecimal()
        ]

    # -- history

    def audit(self, name: str | None = None) -> list[AuditRow]:
        """History, oldest first, of one model or all."""
        condition, parameters = (" WHERE name = ?", (name,)) if name is not None else ("", ())
        rows = self._database.execute(f"SELECT {_AUDIT} FROM audit{condition} ORDER BY id", parameters)
        return [AuditRow(*row) for row in rows]

    def audit_head(self) -> tuple[int, int, str]:
        """Id of the newest change, how many there are, and its hash."""
        rows = self._database.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        count = int(self._database.execute("SELECT count(*) FROM audit")[0][0])
        return (int(rows[0][0]), count, str(rows[0][1])) if rows else (0, 0, "")

    def verify_audit(self, after: int = 0, previous: str = "") -> int | None:
        """Check the chain, or what came after a change whose id and hash are known. None when it holds, else the place (from 1)
        of the first row that does not fit."""
        rows = self._database.execute(f"SELECT {_AUDIT} FROM audit WHERE id > ? ORDER BY id", (after,))
        for place, each in enumerate(rows, start=1):
            row = AuditRow(*each)
            fields = [row.time_ms, row.actor, row.name, row.version, row.action, row.old_value, row.new_value]
            if chain(previous, [*fields, row.reason], [row.channel, row.identity]) != row.hash:
                return place
            previous = row.hash
        return None

    def at(self, name: str, time_ms: int) -> dict[int, tuple[str, tuple[str, ...]]]:
        """Stage and aliases of each version as they were at a moment, by the audit."""
        stages: dict[int, str] = {}
        aliases: dict[str, int] = {}
        for row in self.audit(name):
            if row.time_ms > time_ms:
                break
            if row.action in ("registered", "restored"):
                stages[row.version] = row.new_value if row.action == "restored" else "None"
            elif row.action == "deleted":
                stages.pop(row.version, None)
                aliases = {alias: version for alias, version in aliases.items() if version != row.version}
            elif row.action in ("stage", "rolled back"):
                stages[row.version] = row.new_value
            elif (alias := _alias_of(row.action)) is not None:
                if row.new_value:
                    aliases[alias] = int(row.new_value)
                else:
                    aliases.pop(alias, None)
        return {
            version: (stage, tuple(sorted(alias for alias, to in aliases.items() if to == version)))
            for version, stage in stages.items()
        }

    def _require_model(self, name: str) -> None:
        if not self._database.execute("SELECT 1 FROM registered_model WHERE name = ?", (name,)):
            raise NotFound(f"There is no registered model '{name}'.")

    def _require_version(self, name: str, version: int) -> None:
        self._require_model(name)
        if not self._database.execute(
            "SELECT 1 FROM model_version WHERE name = ? AND version = ?", (name, version)
        ):
            raise NotFound(f"The model '{name}' has no version {version}.")


def stage_name(stage: str) -> str:
    """The stage as it is stored, for any case. Raises BadInput."""
    canonical = {known.lower(): known for known in STAGES}.get(stage.lower())
    if canonical is None:
        raise BadInput(f"A stage is one of {', '.join(STAGES)}, not {stage!r}.")
    return canonical


def _alias_of(action: str) -> str | None:
    action = action.removeprefix("rolled back ")
    return action.removeprefix("alias ") if action.startswith("alias ") else None


def _came_to_hold(row: AuditRow, target: str) -> int | None:
    """The version that a change made the holder of a target."""
    if target.startswith("@"):
        return int(row.new_value) if _alias_of(row.action) == target[1:] and row.new_value else None
    return row.version if row.action in ("stage", "rolled back") and row.new_value == target else None
