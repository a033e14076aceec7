"""The keys of the models screen: rows of the one table in keys.py, which checks and shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltrack.tui.keys import Focus

# name, keys, focus, label, short label for the footer, the command line that does the same
MODEL_KEYS: tuple[tuple[str, str, Focus, str, str, str], ...] = (
    (
        "promote",
        "P",
        "models",
        "promote this version to a stage or alias, or answer who asked for it",
        "promote",
        'mltrack models promote NAME/8 Production -m "..."',
    ),
    (
        "rollback",
        "B",
        "models",
        "roll back: Production to the version before, verified first",
        "back",
        "mltrack models rollback NAME",
    ),
    ("open_version", "enter", "models", "all about this version", "open", "mltrack models show NAME/8"),
    ("newer", "h left", "models", "next version", "version", ""),
    ("older", "l right", "models", "version before", "", ""),
    (
        "difference",
        "c",
        "models",
        "compare this version with the one in Production",
        "diff",
        "mltrack models diff NAME/7 NAME/8",
    ),
    ("history", "H", "models", "everything that happened", "history", "mltrack models history NAME"),
    ("try", "t", "models", "ask the model for its stored example", "try", "mltrack models test NAME/8"),
    ("describe", "e", "models", "describe this version", "", "mltrack models describe NAME/8 TEXT"),
    ("delete", "D", "models", "delete this version (asks)", "", "mltrack models delete NAME/8"),
    ("next_model", "j down", "models", "next model", "", ""),
    ("previous_model", "k up", "models", "model before", "", ""),
    ("models_page_down", "pagedown ctrl+d", "models", "a page down", "", ""),
    ("models_page_up", "pageup ctrl+u", "models", "a page up", "", ""),
    ("first_model", "g home", "models", "first model", "", ""),
    ("last_model", "G end", "models", "last model", "", ""),
)
