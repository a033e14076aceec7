"""No text from data reaches a widget as markup: what Textual would parse is either ours, word for word, or Content or Text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Textual parses the first argument of these as markup, unless told not to.
WIDGETS = frozenset(
    "Static Label Button Link Checkbox RadioButton Collapsible TabPane Select OptionList Option Tree DataTable".split()
)
ATTRIBUTES = frozenset("border_title border_subtitle tooltip".split())


def files() -> list[Path]:
    return [
        path for folder in ("tui/screens", "tui/widgets") for path in sorted((ROOT / folder).glob("*.py"))
    ] + [ROOT / "tui" / "app.py"]


def markup_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of every place where text that is not a literal could be parsed as markup."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textual")
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            off = any(
                keyword.arg == "markup"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is False
                for keyword in node.keywords
            )
            texts = [
                *node.args,
                *(keyword.value for keyword in node.keywords if keyword.arg in ("label", "title")),
            ]
            parsed = (name in WIDGETS and name in imported) or method in ("notify", "from_markup")
            if parsed and not off and any(not isinstance(text, ast.Constant) for text in texts[:1]):
                yield node.lineno, name or method
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute) and target.attr in ATTRIBUTES:
                    yield node.lineno, target.attr
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textual.widgets"):
            for alias in node.names:
                if alias.name in WIDGETS:
                    yield node.lineno, f"{alias.name}: draw with Lines, which parses nothing"


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_nothing_is_parsed_as_markup(path: Path) -> None:
    assert list(markup_uses(ast.parse(path.read_text("utf-8")))) == []


def test_the_check_finds_what_it_is_for() -> None:
    bad = """
from textual.widgets import Static
Static(name)
self.notify(f"deleted {name}")
self.border_title = name
Static("fixed")
self.notify(name, markup=False)
"""
    found = [what for _, what in markup_uses(ast.parse(bad))]
    assert found.count("Static") == 1 and found.count("notify") == 1 and found.count("border_title") == 1
