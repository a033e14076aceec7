"""The whole schema on one page, as SQLModel tables.

Statements elsewhere in the store are plain SQL with ``?`` marks that SQLite and PostgreSQL both accept; this page is what
they are checked against, what ``schema.sql`` is generated from (``python -m mltrack.store.tables``), what alembic compares
and what creates a PostgreSQL store. Times are ms since 1970. Stamps are ``time.jid.offset``: the order of journal records.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import declared_attr
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

SCHEMA_VERSION = 7

# SQLite gives only INTEGER PRIMARY KEY its row id for free; PostgreSQL wants 64 bits.
_Id = BigInteger().with_variant(Integer(), "sqlite")


def _number(default: int | None = None, **options: Any) -> Any:
    options.setdefault("nullable", default is None and not options.get("primary_key", False))
    return Field(
        default=default,
        sa_column=Column(BigInteger, server_default=None if default is None else str(default), **options),
    )


def _text(default: str | None = None, **options: Any) -> Any:
    options.setdefault("nullable", default is None and not options.get("primary_key", False))
    return Field(default=default, sa_column=Column(Text, server_default=default, **options))


def _blob() -> Any:
    return Field(default=None, sa_column=Column(LargeBinary, nullable=True))


def _key() -> Any:
    return Field(default=None, sa_column=Column(_Id, primary_key=True, autoincrement=True))


def _run(**options: Any) -> Any:
    return Field(
        sa_column=Column(BigInteger, ForeignKey("run.id", ondelete="CASCADE"), nullable=False, **options)
    )


class _Table(SQLModel):
    """Names tables like their classes, in snake case."""

    @declared_attr.directive
    def __tablename__(cls) -> str:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


# An index with all that a search reads of every run, so that the rows themselves, with their long texts and blobs, are not
# looked at. PostgreSQL's pages are not read in the order of rows, and its indexes hold no long texts.
_SQLITE = {"engine": "sqlite"}
# The table is its primary key's index: on SQLite each row is kept once, not twice.
_BY_KEY = {"sqlite_with_rowid": False}
_POSTGRESQL = {"engine": "postgresql"}
_SEARCHED = "id seq run_id lifecycle start_ms status experiment_id name owner host parent_id end_ms heard_ms step".split()


class Setting(_Table, table=True):
    """Facts about the store itself: schema version, store id, change counter."""

    key: str = _text(primary_key=True)
    value: str = _text("")


class Experiment(_Table, table=True):
    """A named group of runs. ``name`` is unique among the active ones."""

    __table_args__ = (Index("experiment_name_index", "name"),)
    id: int | None = _key()
    name: str = _text("")
    lifecycle: str = _text("active")
    note: str = _text("")
    location: str = _text("")
    created_ms: int = _number(0)
    updated_ms: int = _number(0)
    deleted_ms: int | None = _number()


class ExperimentName(_Table, table=True):
    """A name an experiment had until ``until_ms``: late journals that say it still belong to that experiment."""

    name: str = _text(primary_key=True)
    until_ms: int = _number(primary_key=True)
    experiment_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("experiment.id", ondelete="CASCADE"), nullable=False)
    )


class ExperimentTag(_Table, table=True):
    """A label of an experiment."""

    experiment_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("experiment.id", ondelete="CASCADE"), primary_key=True)
    )
    key: str = _text(primary_key=True)
    value: str = _text("")


class Run(_Table, table=True):
    """One run: effective values of everything a table row shows. ``seq`` is the change counter of its last change."""

    __table_args__ = (
        Index("run_seq_index", "seq"),
        Index("run_experiment_index", "experiment_id", "id"),
        Index("run_parent_index", "parent_id"),
        Index("run_status_index", "status"),
        Index("run_columns_index", *_SEARCHED, info=_SQLITE),
    )
    id: int | None = _key()
    run_id: str = _text("", unique=True)
    experiment_id: int = Field(sa_column=Column(BigInteger, ForeignKey("experiment.id"), nullable=False))
    name: str = _text("")
    owner: str = _text("")
    host: str = _text("")
    pid: int | None = _number()
    status: str = _text("RUNNING")
    reason: str = _text("")
    lifecycle: str = _text("active")
    deleted_ms: int | None = _number()
    start_ms: int | None = _number()
    end_ms: int | None = _number()
    heard_ms: int | None = _number()
    parent_id: str | None = _text()
    note: str = _text("")
    pinned: int = _number(0)
    step: int | None = _number()
    total: int | None = _number()
    exit_code: int | None = _number()
    damage: str | None = _text()
    skipped: int = _number(0)
    source: str = _text("")
    seq: int = _number(0)
    # Stamped values of the journals' fields, JSON: what decides when records arrive in any order.
    state: str = _text("{}")
    facts: str = _text("{}")  # command, folder, git, packages: JSON
    summary: bytes | None = _blob()  # packed rows, one per (key, rank): store/summary.py
    attempts: bytes | None = _blob()  # packed rows per (key, rank, attempt)
    pending: str | None = _text()  # summary records whose points are not folded yet, JSON


class Param(_Table, table=True):
    """A write-once setting. ``other`` is a different second value somebody logged: shown as a conflict."""

    __table_args__ = (
        Index("param_key_index", "key", "run", info=_POSTGRESQL),
        Index("param_columns_index", "key", "run", "value", info=_SQLITE),
        _BY_KEY,
    )
    run: int = _run(primary_key=True)
    key: str = _text(primary_key=True)
    value: str = _text("")
    rank: int = _number(0)
    stamp: str = _text("")
    other: str | None = _text()


class Tag(_Table, table=True):
    """A label. ``value`` is what journals say (NULL: deleted); ``edit`` what a person decided, when ``edited`` is 1."""

    __table_args__ = (
        Index("tag_key_index", "key", "run", info=_POSTGRESQL),
        Index("tag_columns_index", "key", "run", "edited", "edit", "value", info=_SQLITE),
        _BY_KEY,
    )
    run: int = _run(primary_key=True)
    key: str = _text(primary_key=True)
    value: str | None = _text()
    stamp: str = _text("")
    edited: int = _number(0)
    edit: str | None = _text()


class RunInput(_Table, table=True):
    """Data a run read."""

    run: int = _run(primary_key=True)
    name: str = _text(primary_key=True)
    digest: str = _text(primary_key=True)
    context: str = _text(primary_key=True)
    source: str = _text("")
    digest_kind: str = _text("")
    size: int | None = _number()
    # What MLflow's clients say of a data set beside that: tags, schema, profile, JSON.
    detail: str = _text("")


class ModelLink(_Table, table=True):
    """A logged model that a run read (way input) or made (output)."""

    __table_args__ = (Index("model_link_model_index", "model_id"),)
    run: int = _run(primary_key=True)
    model_id: str = _text(primary_key=True)
    way: str = _text(primary_key=True)
    step: int = _number(0)


class ModelMetric(_Table, table=True):
    """A metric value that a run logged of a logged model. ``value`` is text that reads back exactly."""

    __table_args__ = (Index("model_metric_model_index", "model_id"),)
    run: int = _run(primary_key=True)
    model_id: str = _text(primary_key=True)
    key: str = _text(primary_key=True)
    dataset_name: str = _text(primary_key=True)
    dataset_digest: str = _text(primary_key=True)
    step: int = _number(primary_key=True)
    time_ms: int = _number(primary_key=True)
    value: str = _text(primary_key=True)


class LoggedModel(_Table, table=True):
    """A model that MLflow's 3.x clients logged: a thing beside runs. ``detail``: params and tags, JSON."""

    __table_args__ = (Index("logged_model_experiment_index", "experiment_id"),)
    model_id: str = _text(primary_key=True)
    experiment_id: int = Field(sa_column=Column(BigInteger, ForeignKey("experiment.id"), nullable=False))
    run_id: str = _text("")
    name: str = _text("")
    status: str = _text("")
    model_type: str = _text("")
    created_ms: int = _number(0)
    updated_ms: int = _number(0)
    deleted_ms: int | None = _number()
    detail: str = _text("{}")


class Artifact(_Table, table=True):
    """What was recorded of a file when it was logged; the files themselves are the listing."""

    run: int = _run(primary_key=True)
    path: str = _text(primary_key=True)
    size: int = _number(0)
    sha256: str = _text("")
    how: str = _text("")
    stamp: str = _text("")


class ArtifactCopy(_Table, table=True):
    """An artifact whose bytes lie in an object store too, read back and compared: below ``place``, or removed again where that is
    empty. The digest is part of the key, so that it does not matter which of two records of one path arrives first."""

    __table_args__ = (_BY_KEY,)
    run: int = _run(primary_key=True)
    path: str = _text(primary_key=True)
    sha256: str = _text(primary_key=True)
    place: str = _text("")
    stamp: str = _text("")


class Journal(_Table, table=True):
    """How far a journal file is folded, keyed by what it is, never by where it lies."""

    __table_args__ = (Index("journal_run_index", "run"), _BY_KEY)
    jid: str = _text(primary_key=True)
    kind: str = _text(primary_key=True)
    run: int = _run()
    position: int = _number(0)
    check_head: str = _text("")  # sha256 of line 1
    # Sha256 of the last bytes before the position: notices a file that was rewritten.
    check_tail: str = _text("")
    skipped: int = _number(0)
    closed: int | None = _number()  # size of the points file its writer closed with
    sealed: str | None = _text()  # how: "zst", or in older stores the name of the file


class Attempt(_Table, table=True):
    """The starts of a run; ``no`` is how blocks name them."""

    __table_args__ = (_BY_KEY,)
    run: int = _run(primary_key=True)
    no: int = _number(primary_key=True)
    name: str = _text("")


class MetricKey(_Table, table=True):
    """Metric names, once."""

    id: int | None = _key()
    key: str = _text("", unique=True)


class Block(_Table, table=True):
    """Points in columns (store/series.py). ``kind``: 0 batch as folded, 1 pack of short series, 2 chunk of one series."""

    __table_args__ = (Index("block_run_index", "run", "key"),)
    id: int | None = _key()
    run: int = _run()
    kind: int = _number(0)
    key: int | None = _number()  # of a chunk; NULL: several series
    rank: int | None = _number()
    attempt: int | None = _number()
    first_step: int | None = _number()
    last_step: int | None = _number()
    count: int = _number(0)
    low: float | None = Field(default=None, sa_column=Column(Float(53), nullable=True))
    high: float | None = Field(default=None, sa_column=Column(Float(53), nullable=True))
    # Of a chunk (store/zoom.py); NULL: made by an older mltrack, or steps come twice. Before the data: of a long row SQLite
    # reads all pages that lie before what it is asked for.
    zoom: bytes | None = _blob()
    data: bytes | None = _blob()


class RunSegment(_Table, table=True):
    """A cache: 1,024 row numbers of runs that lie in the next two tables as of change counter ``seq``."""

    id: int = _number(primary_key=True)
    seq: int = _number(0)
    column_seq: int = _number(-1)  # the same, unless an older mltrack wrote only the metrics anew


class MetricSegment(_Table, table=True):
    """A cache: one metric's aggregates of a segment's runs (store/column_segments.py)."""

    metric: int = _number(primary_key=True)
    segment: int = _number(primary_key=True)
    data: bytes | None = _blob()


class ColumnSegment(_Table, table=True):
    """A cache: one param, tag or attribute of a segment's runs (store/column_blobs.py)."""

    kind: str = _text(primary_key=True)
    key: str = _text(primary_key=True)
    segment: int = _number(primary_key=True)
    data: bytes | None = _blob()


class Edit(_Table, table=True):
    """A person's decision about one field of a run; beats the journals until it is cleared."""

    run: int = _run(primary_key=True)
    field: str = _text(primary_key=True)
    value: str = _text("")


class Decision(_Table, table=True):
    """Every decision that was applied, by its id in decisions.jsonl."""

    __table_args__ = (Index("decision_time_index", "time_ms"),)
    id: str = _text(primary_key=True)
    time_ms: int = _number(0)
    actor: str = _text("")
    sentence: str = _text("")
    record: str = _text("{}")
    undone_by: str | None = _text()


class Source(_Table, table=True):
    """Data of another tool that is followed where it lies (store/sources). ``path``: absolute, or a URL of a database."""

    path: str = _text(primary_key=True)
    kind: str = _text("")
    followed: int = _number(1)  # 0: was read once, or is not followed any more
    hidden: int = _number(0)  # 1: removed by a person; its runs are not shown
    added_ms: int = _number(0)
    state: str = _text(
        "{}"
    )  # the reader's own: how far what belongs to no run (registry, experiments) is taken in


class SourceRun(_Table, table=True):
    """How far one run of a source is taken in. ``place`` is the reader's name for it below the source."""

    __table_args__ = (Index("source_run_index", "run"),)
    source: str = _text(primary_key=True)
    place: str = _text(primary_key=True)
    run: int | None = Field(
        sa_column=Column(BigInteger, ForeignKey("run.id", ondelete="SET NULL"), nullable=True)
    )
    stamp: str = _text(
        ""
    )  # what the reader saw when the run was read to its end: as long as that holds, nothing is new
    position: str = _text("")  # the reader's own
    records: int = _number(0)  # taken so far: their numbers go on where they stopped
    skipped: int = _number(0)


class Tombstone(_Table, table=True):
    """A purged run: its journals are never folded again."""

    run_id: str = _text(primary_key=True)
    time_ms: int = _number(0)


class RegisteredModel(_Table, table=True):
    """A named model."""

    name: str = _text(primary_key=True)
    description: str = _text("")
    created_ms: int = _number(0)
    updated_ms: int = _number(0)
    last_version: int = _number(0)  # the highest number ever given: a deleted one is never reused
    policy: str = _text("{}")  # who may promote, approvals, checks: store/policy.py, JSON
    source: str = _text("")  # path of the source it belongs to: shown here, changed only there


class ModelVersion(_Table, table=True):
    """A version of a registered model."""

    __table_args__ = (Index("model_version_stage_index", "stage"), Index("model_version_run_index", "run_id"))
    name: str = _text(primary_key=True)
    version: int = _number(primary_key=True)
    stage: str = _text("None")
    source: str = _text("")
    run_id: str = _text("")
    description: str = _text("")
    actor: str = _text("")
    created_ms: int = _number(0)
    updated_ms: int = _number(0)
    staged_ms: int = _number(0)  # when it came to its stage, and through whom
    staged_by: str = _text("")
    files: str = _text(
        ""
    )  # [[path, bytes, sha256], ...] when it was registered, JSON; "": they lay out of reach


class ModelTag(_Table, table=True):
    """A label of a model (version 0) or of one version."""

    name: str = _text(primary_key=True)
    version: int = _number(primary_key=True)
    key: str = _text(primary_key=True)
    value: str = _text("")


class ModelAlias(_Table, table=True):
    """A name that points to one version."""

    name: str = _text(primary_key=True)
    alias: str = _text(primary_key=True)
    version: int = _number(0)


class ModelRequest(_Table, table=True):
    """Somebody asked for a promotion. ``target``: a stage, or an alias with its @. ``state``: open, approved, rejected."""

    __table_args__ = (Index("model_request_state_index", "state"),)
    id: str = _text(primary_key=True)  # of the decision that asked
    name: str = _text("")
    version: int = _number(0)
    target: str = _text("")
    actor: str = _text("")
    reason: str = _text("")
    time_ms: int = _number(0)
    state: str = _text("open")
    decided_by: str = _text("")
    decided_ms: int | None = _number()
    answer: str = _text("")


class Audit(_Table, table=True):
    """Append-only history of the registry; ``hash`` covers the row and the hash before it."""

    __table_args__ = (Index("audit_model_index", "name"),)
    id: int | None = _key()
    decision: str = _text("")
    time_ms: int = _number(0)
    actor: str = _text("")
    name: str = _text("")
    version: int = _number(0)
    action: str = _text("")
    old_value: str = _text("")
    new_value: str = _text("")
    reason: str = _text("")
    channel: str = _text("")  # tui, cli, rest, python; "" in rows older than schema 2
    identity: str = _text("")  # kernel, token, claimed
    hash: str = _text("")


def indexes_of(table: Table, engine: str) -> list[Index]:
    """The indexes of a table in stores of this engine ("sqlite", "postgresql"), by name."""
    own = [index for index in table.indexes if index.info.get("engine", engine) == engine]
    return sorted(own, key=lambda index: str(index.name))


def sqlite_schema() -> str:
    """The SQL that creates an SQLite store with the standard library alone."""
    dialect = sqlite.dialect()
    statements: list[str] = []
    for table in SQLModel.metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)).strip())
        for index in indexes_of(table, "sqlite"):
            statements.append(str(CreateIndex(index).compile(dialect=dialect)).strip())
    lines = [line.rstrip().replace("\t", "  ") for line in (";\n\n".join(statements) + ";\n").splitlines()]
    return "-- Generated by python -m mltrack.store.tables. Do not edit.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(sqlite_schema(), end="")
