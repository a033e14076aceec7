"""How alembic reaches the database: the connection and its open transaction are given by store/migrate.py."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from mltrack.store import tables

assert tables.SCHEMA_VERSION  # the import is what fills SQLModel.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
