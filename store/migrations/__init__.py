"""Schema changes after version 1, one alembic revision per schema version: ``0002`` leads to schema 2, and so on."""
