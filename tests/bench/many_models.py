"""A big registry within a minute: every version, move and request by the registry's own operations, a decision per model."""

from __future__ import annotations

from pathlib import Path

from mltrack.store import decisions, open_store
from mltrack.store.decisions import Operation


def make_registry(root: Path, models: int, versions: int) -> None:
    """Models whose last version is in Staging and the one before in Production, as the next came to hold it after the last;
    every tenth has a request that waits."""
    with open_store(str(root)) as store:
        # One transaction for all: each decision alone would be on the disk before the next begins.
        with store.database.transaction():
            for number in range(models):
                name = f"model-{number:04}"
                operations = [_register(name, version) for version in range(1, versions + 1)]
                for version in range(1, versions):
                    operations.append(_move(name, version, "Production"))
                operations.append(_move(name, versions, "Staging"))
                operations.append(
                    {"op": "alias", "name": name, "alias": "champion", "version": versions - 1, "reason": ""}
                )
                if number % 10 == 0:
                    operations.append(_request(name, versions))
                decisions.decide(store.database, store.root, operations, f"Made {name}")


def _register(name: str, version: int) -> Operation:
    files = [[f"model-{part}.bin", 10_000_000, f"{version:064x}"] for part in range(3)]
    return {
        "op": "register",
        "name": name,
        "source": f"s3://models/{name}/{version}",
        "run": "",
        "description": "",
        "reason": "",
        "files": files,
        "tags": {"team": "vision", "dataset": f"d{version}"},
    }


def _move(name: str, version: int, stage: str) -> Operation:
    operation: Operation = {"op": "stage", "name": name, "version": version, "stage": stage, "archive": True}
    return {**operation, "reason": f"passes week {version}"}


def _request(name: str, version: int) -> Operation:
    operation: Operation = {"op": "request", "name": name, "version": version, "target": "Production"}
    return {**operation, "reason": "is better"}
