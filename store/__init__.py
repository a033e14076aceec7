"""What is remembered: rows, files, wire formats. SQL only here.

``open_store`` and ``Store`` are loaded when they are asked for: a training process imports ``store.client`` through this
package and must not pay for the database.
"""

from __future__ import annotations

# Not typing's: a training script must not pay for its import, and type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mltrack.store.opening import open_store
    from mltrack.store.store import Store

__all__ = ["Store", "open_store"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mltrack.store import opening

        return getattr(opening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
