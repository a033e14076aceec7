"""How a version is written at the prompt: NAME/3, NAME/Production, NAME/latest, NAME@alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mltrack.store.errors import BadInput

if TYPE_CHECKING:
    from mltrack.store.registry_reading import ModelVersion
    from mltrack.store.store import Store


def split_reference(store: Store, reference: str) -> ModelVersion:
    """The version that is meant. Raises NotFound and BadInput."""
    return store.registry.resolve(reference)


def target_of(text: str) -> str:
    """A stage as it is stored, or an alias with its @. Raises BadInput."""
    from mltrack.store.registry_reading import stage_name

    return text if text.startswith("@") else stage_name(text)


def expected_holder(text: str | None) -> int | None:
    """What `--expect` says: a version (7 or v7), "none", or nothing (-1)."""
    if text is None:
        return -1
    if text.lower() == "none":
        return None
    number = text.removeprefix("v")
    if not number.isdecimal():
        raise BadInput(f"--expect takes a version or 'none', not '{text}'.")
    return int(number)
