"""YAML that is deep, repeats itself, is huge or odd: every reader of ours says one sentence of it, and none hangs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mltrack.projects.errors import ProjectError
from mltrack.projects.limited_yaml import parse_yaml
from mltrack.store.errors import BadInput
from mltrack.store.mlmodel import parse_mlmodel
from mltrack.store.sources.yaml_text import load_mapping

HEAD = "flavors: {}\n"


def laughs(levels: int, times: int) -> str:
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * times)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [x, x]", *lines, HEAD])


def merges(levels: int) -> str:
    lines = [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], y{n}: 1}}" for n in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1}", *lines, HEAD])


HOSTILE = {
    "billion laughs": (laughs(20, 9), "line 7: it stands for more than 1,000,000 values"),
    "few aliases": (laughs(50, 2), "line 18: it stands for more than 1,000,000 values"),
    "merged": (merges(50), "line 17: it stands for more than 1,000,000 values"),
    "many aliases": ("a: &a x\nb: [" + "*a, " * 101 + "]\n" + HEAD, "line 2: it has more than 100 aliases"),
    "a list in itself": ("a: &a [*a]\n" + HEAD, "line 1: its alias *a leads back to itself"),
    "a mapping in itself": ("&a {b: [*a], flavors: {}}", "line 1: its alias *a leads back to itself"),
    "merged with itself": ("&a {<<: *a, flavors: {}}", "line 1: its alias *a leads back to itself"),
    "deep": ("a: " + "[" * 60 + "]" * 60, "nested"),
    "very deep": ("a: " + "[" * 100_000, "nest"),
    "deep blocks": ("".join(" " * level + "a:\n" for level in range(200)), "line 51: it is nested deeper"),
    "deep items": ("- " * 5000 + "x", "line 1: it is nested deeper than 50 levels"),
    "a long number": (HEAD + "a: " + "9" * 100_000, "line 2: a number in it has 100,000 characters"),
    # PyYAML reads it in quadratic time: a quarter of a minute for 600 kB.
    "base sixty": (HEAD + "a: " + "1:" * 300_000 + "1", "line 2: a number in it has 600,001 characters"),
    "base sixty with a point": (HEAD + "a: " + "1:" * 9_000 + "1.5", "a number in it has 18,003 characters"),
    "a long hex": (HEAD + "a: 0x" + "f" * 100_000, "a number in it has 100,002 characters"),
    "a long quoted number": (HEAD + "a: !!int '" + "7" * 5_000 + "'", "a number in it has 5,000 characters"),
    "no bool": (HEAD + "a: !!bool foo", "a value is not what its tag says"),
    "no time": (HEAD + "a: !!timestamp foo", "a value is not what its tag says"),
    "no number": (HEAD + "a: !!int foo", "invalid literal"),
    "no date": (HEAD + "a: 2024-13-45", "month must be in 1..12"),
    "code": ("a: !!python/object/apply:os.system ['id']", "could not determine a constructor"),
    "control characters": ("a: \x07", "control characters are not allowed"),
    "a list for a key": ("? [a, b]\n: 1\n", "found unhashable key"),
    "merged with a text": ("<<: 1\n", "for merging"),
    "nobody's alias": ("a: *nope", "undefined alias"),
    "two documents": ("a: 1\n---\nb: 2\n", "another document"),
    "tabs": ("a:\n\tb: 1", "cannot start any token"),
    "no end": ("a: " + "'" * 9_999, "unexpected end of stream"),
}  # fmt: skip
READERS: dict[str, tuple[Callable[[str], object], type[Exception]]] = {
    "MLmodel": (parse_mlmodel, BadInput),
    "project": (lambda text: parse_yaml(text.encode(), "MLproject"), ProjectError),
    "source": (lambda text: load_mapping(text.encode()), ValueError),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_in_one_sentence(name: str, reader: str) -> None:
    (text, reason), (read, refused) = HOSTILE[name], READERS[reader]
    with pytest.raises(refused) as caught:
        read(text)
    said = str(caught.value)
    assert reason in said and "\n" not in said and len(said) < 400


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + "a: &a [1, 2]\nb: *a\nc: {<<: {d: *a}}\n",
        HEAD + "a: " + "[" * 40 + "]" * 40,
        HEAD + "a: '" + "7" * 5_000 + "'",
        HEAD + "a: " + "word 7 " * 5_000,
        HEAD + "a: 190:20:30\nb: 0x1F\nc: 1e400\nd: .inf\n",
        "\ufeff" + HEAD,
        HEAD + "a: >\n" + " x\n" * 50_000,
    ],
)
def test_yaml_that_is_only_large_or_odd_is_read(text: str, reader: str) -> None:
    assert READERS[reader][0](text) is not None
