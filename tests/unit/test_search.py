"""Which runs match, in what order, page by page: the vectorised search against plain loops over runs."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mltrack.store.column_types import (
    NUMBER_ATTRIBUTES,
    TEXT_ATTRIBUTES,
    Aggregate,
    Kind,
    Number,
    NumberKind,
    Text,
    TextKind,
)
from mltrack.store.direction import guess_direction
from mltrack.store.errors import BadInput, FilterError
from mltrack.store.filter_parser import parse
from mltrack.store.filter_tree import (
    AGGREGATES,
    Amount,
    And,
    Compare,
    Everything,
    Key,
    Matches,
    Mine,
    Missing,
    Moment,
    Node,
    Not,
    OneOf,
    Or,
    Written,
)
from mltrack.store.search import evaluate, order, page, unknown_keys
from mltrack.store.search_order import cut
from mltrack.store.sort_parser import parse_sort

DOCS = Path(__file__).parents[2] / "docs" / "search.md"
NOW_MS = 1_800_000_000_000.0
HOUR_MS = 3_600_000.0
NAN = math.nan


@dataclass(frozen=True)
class Logged:
    """A run as a person would write it down. A metric is the list of its values in the order of logging."""

    run_id: str
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[Mapping[str, str]] = ()

    def number(self, kind: str, key: str, aggregate: str = "last") -> float | None:
        if kind == "attribute":
            value = self.attributes.get(key)
            assert not isinstance(value, str)
            return value
        values = self.metrics.get(key)
        if values is None:
            return None
        numbers = [value for value in values if not math.isnan(value)]
        match aggregate:
            case "last":
                return values[-1]
            case "min":
                return min(numbers, default=NAN)
            case "max":
                return max(numbers, default=NAN)
            case _:
                return float(len(values))

    def texts(self, kind: str, key: str) -> list[str]:
        if kind == "dataset":
            return [dataset[key] for dataset in self.datasets if key in dataset]
        if kind == "attribute":
            found = self.run_id if key == "run_id" else self.attributes.get(key)
        else:
            found = (self.params if kind == "param" else self.tags).get(key)
        return [] if found is None else [str(found)]


class ListColumns:
    """Columns over a list of runs."""

    def __init__(self, runs: Sequence[Logged]) -> None:
        self.runs = runs
        self.n = len(runs)
        self.run_ids = tuple(run.run_id for run in runs)

    def number(self, kind: NumberKind, key: str, aggregate: Aggregate = "last") -> Number:
        values = [run.number(kind, key, aggregate) for run in self.runs]
        present = np.array([value is not None for value in values], dtype=np.bool_)
        # What stands where nothing is present must not matter.
        return Number(
            np.array([7.0 if value is None else value for value in values], dtype=np.float64), present
        )

    def text(self, kind: TextKind, key: str) -> Text:
        known: dict[str, int] = {"a value no run has": 0}
        pairs = [(row, text) for row, run in enumerate(self.runs) for text in run.texts(kind, key)]
        rows = [row for row, _ in pairs]
        coded = [known.setdefault(text, len(known)) for _, text in pairs]
        if kind == "dataset":
            return Text(np.array(coded, dtype=np.int32), tuple(known), np.array(rows, dtype=np.int64))
        codes = np.full(self.n, -1, dtype=np.int32)
        codes[rows] = coded
        return Text(codes, tuple(known))

    def has(self, kind: Kind, key: str) -> bool:
        return key in self.keys(kind)

    def keys(self, kind: Kind) -> list[str]:
        if kind == "attribute":
            return sorted(TEXT_ATTRIBUTES | NUMBER_ATTRIBUTES)
        found = {"metric": [r.metrics for r in self.runs], "param": [r.params for r in self.runs]}.get(
            kind, [r.tags for r in self.runs]
        )
        return sorted({key for keys in found for key in keys})


def found(filter_text: str, runs: Sequence[Logged], user: str = "ann", mlflow: bool = False) -> str:
    """The ids of the runs that match, in the order of the runs, as one string."""
    columns = ListColumns(runs)
    mask = evaluate(parse(filter_text, mlflow), columns, NOW_MS, user)
    assert mask.dtype == np.bool_
    assert mask.shape == (len(runs),)
    return "".join(run.run_id for run, matches in zip(runs, mask, strict=True) if matches)


def sorted_ids(sort: Sequence[str], runs: Sequence[Logged], mlflow: bool = False) -> str:
    rows = order(ListColumns(runs), parse_sort(sort, mlflow), np.arange(len(runs)))
    return "".join(runs[row].run_id for row in rows)


# -- the rules, one by one

RUNS = (
    Logged(
        "a",
        {"run_name": "resnet-50", "status": "FINISHED", "user": "ann", "start_time": NOW_MS - HOUR_MS},
        {"lr": "1e-3", "opt": "adamw", "amp": "True", "layers": "50", "note": "50%"},
        {"loss": [3.0, 0.1, 0.5], "val/acc": [0.8, 0.95, 0.9], "a b": [1.0]},
        {"team": "vision"},
        (
            {"name": "cifar", "digest": "1", "context": "train"},
            {"name": "mnist", "digest": "2", "context": "eval"},
        ),
    ),
    Logged(
        "b",
        {"run_name": "ResNet-18", "status": "RUNNING", "user": "bob", "start_time": NOW_MS - 50 * HOUR_MS},
        {"lr": "0.001", "opt": "lion", "amp": "False", "layers": "9"},
        {"loss": [NAN, NAN], "loss.min": [7.0], "val/acc": [0.5]},
        {"team": "audio"},
        ({"name": "cifar", "digest": "3", "context": "train"},),
    ),
    Logged(
        "c",
        {
            "run_name": "vit",
            "status": "FAILED",
            "user": "ann",
            "start_time": NOW_MS - HOUR_MS,
            "duration": 2.5 * HOUR_MS,
        },
        {"lr": "auto", "opt": "Adamw", "layers": "12"},
        {"loss": [0.2, NAN], "val/acc": [math.inf]},
    ),
    Logged("d", {"status": "LOST"}, {"lr": "nan", "layers": "auto"}, {}, {"lr": "a tag"}),
)


@pytest.mark.parametrize(
    ("filter_text", "ids"),
    [
        ("", "abcd"),
        # NaN satisfies only !=
        ("metrics.loss > 0", "a"),
        ("metrics.loss <= 0.5", "a"),
        ("metrics.loss = 0.5", "a"),
        ("metrics.loss != 0.5", "bc"),
        ("metrics.loss != 99", "abc"),
        ("loss = nan", "bc"),
        ("loss != nan", "a"),
        ("loss in (nan, 0.5)", "abc"),
        ("loss not in (0.5)", "bc"),
        ("val/acc > 1e300", "c"),
        ("val/acc = inf", "c"),
        # absent is not "not equal"
        ("params.opt != adamw", "bc"),
        ("opt not in (adamw, lion)", "c"),
        ("opt not like 'a%'", "bc"),
        ("opt !~ ^a", "bc"),
        ("not opt = adamw", "bcd"),
        ("opt is null", "d"),
        ("opt is not null", "abc"),
        ("metrics.loss is null", "d"),
        ("tags.team is null", "cd"),
        ("duration is not null", "c"),
        ("dataset.name is null", "cd"),
        # text
        ("opt = adamw", "a"),
        ("opt = 'Adamw'", "c"),
        ("opt like 'adam%'", "a"),
        ("opt ilike 'adam%'", "ac"),
        ("opt like '_ion'", "b"),
        ("note like '50%'", ""),
        ("params.note like '50%'", "a"),
        ("opt ~ dam", "ac"),
        ("opt ~ '^(adamw|lion)$'", "ab"),
        ("opt in (lion, Adamw)", "bc"),
        ("name = vit", "c"),
        ("resnet", "ab"),
        ("resnet 50", "a"),
        ("'T-5'", "a"),
        ("not resnet", "cd"),
        # params that spell numbers
        ("lr < 1", "ab"),
        ("lr = 0.001", "ab"),
        ("lr = '0.001'", "b"),
        ("lr != 0.001", "cd"),
        ("lr in (1, 1.0e-3)", "ab"),
        ("lr = auto", "c"),
        ("lr = nan", "d"),
        ("lr >= 0", "ab"),
        ("layers > 10", "ac"),
        ("layers > '10'", "ac"),
        ("amp = true", "a"),
        ("amp = 'true'", ""),
        # aggregates; a key that ends in .min is itself
        ("metrics.loss.max > 1", "a"),
        ("loss.max > 1", "a"),
        ("metrics.loss.min < 99", "b"),
        ("loss.min < 99", "b"),
        ("min(loss) < .2", "a"),
        ("min(loss) <= .2", "ac"),
        ("max(loss) != 3", "bc"),
        ("count(loss) >= 3", "a"),
        ("last(loss) = 0.5", "a"),
        ("best(val/acc) > .92", "ac"),
        ("best(loss) < .15", "a"),
        ("metrics.loss.best < .15", "a"),
        ("metrics.`a b` = 1", "a"),
        ("`a b`.max = 1", "a"),
        # a bare key: attribute, param, metric, tag
        ("team = vision", "a"),
        ("tags.lr = 'a tag'", "d"),
        ("lr = 'a tag'", ""),
        # time
        ("start > -2h", "ac"),
        ("start < -2d", "b"),
        ("duration > 2h30m", ""),
        ("duration >= 2h30m", "c"),
        ("status = running", "b"),
        ("status != running", "acd"),
        ("mine", "ac"),
        ("mine and not vit", "a"),
        # several datasets: one that fits is enough
        ("dataset.name = mnist", "a"),
        ("dataset.name != cifar", "a"),
        ("dataset.name in (cifar)", "ab"),
        ("dataset.digest = '3'", "b"),
        ("dataset.context like '%val'", "a"),
        # nobody has it
        ("nothing = 3", ""),
        ("nothing != 3", ""),
        ("nothing is null", "abcd"),
        ("nothing ~ x", ""),
        ("nothing in (1)", ""),
        ("not nothing = 3", "abcd"),
        ("metrics.nothing < 3", ""),
        ("params.nothing != x", ""),
        # joints
        ("opt = adamw or opt = lion and lr > 5", "a"),
        ("(opt = adamw or opt = lion) and amp = False", "b"),
    ],
)
def test_rules(filter_text: str, ids: str) -> None:
    assert found(filter_text, RUNS) == ids


@pytest.mark.parametrize(
    ("filter_text", "ids"),
    [
        ("metrics.loss != 0.5", "bc"),
        ("metrics.loss.min < 99", "b"),
        ("metrics.loss.max > 0", ""),
        ("params.lr = '0.001'", "b"),
        ("params.lr != '0.001'", "acd"),
        ("params.amp = 'true'", ""),
        ("params.opt LIKE 'adam%'", "a"),
        ("params.opt ILIKE 'adam%'", "ac"),
        ("params.opt IS NULL", "d"),
        ("status = 'running'", ""),
        ("status = 'RUNNING'", "b"),
        ("run_id IN ('a', 'd')", "ad"),
        ("run_id NOT IN ('a', 'd')", "bc"),
        ("`run name` LIKE 'res%'", "a"),
        ("user_id = 'bob'", "b"),
        ("dataset.name != 'cifar'", "a"),
        ("artifact_uri = 'x'", ""),
    ],
)
def test_rules_of_mlflow_mode(filter_text: str, ids: str) -> None:
    assert found(filter_text, RUNS, mlflow=True) == ids


@pytest.mark.parametrize(
    ("filter_text", "position", "words"),
    [
        ("opt = x and loss = adamw", 19, "'adamw' is not one"),
        ("loss ~ 3", 0, "is a metric"),
        ("loss like 3", 0, "is a metric"),
        ("loss > nan", 7, "NaN"),
        ("opt > adamw", 6, "compares numbers"),
    ],
)
def test_a_bare_key_that_turns_out_to_be_of_another_kind(filter_text: str, position: int, words: str) -> None:
    with pytest.raises(FilterError, match=words) as caught:
        found(filter_text, RUNS)
    assert caught.value.position == position
    assert caught.value.text == filter_text


def test_integers_too_large_for_a_float_are_told_apart() -> None:
    runs = [
        Logged("a", params={"seed": "9007199254740992"}),
        Logged("b", params={"seed": "9007199254740993"}),
    ]
    assert found("seed = 9007199254740993", runs) == "b"
    assert found("seed != 9007199254740993", runs) == "a"
    assert found("seed = 9007199254740992.0", runs) == "ab", "a float is what a float can say"
    huge = [Logged("a", params={"seed": "1" * 400}), Logged("b", params={"seed": "2" * 400})]
    assert found(f"seed = +0{'2' * 400}", huge) == "b"


def test_a_date_alone_is_its_day() -> None:
    runs = [
        Logged(name, {"start_time": NOW_MS + hours * HOUR_MS})
        for name, hours in (("a", -48), ("b", 0), ("c", 48))
    ]
    from datetime import datetime

    day = datetime.fromtimestamp(NOW_MS / 1e3).date().isoformat()
    assert found(f"start = {day}", runs) == "b"
    assert found(f"start != {day}", runs) == "ac"
    assert found(f"start >= {day}", runs) == "bc"
    assert found(f"start < {day}", runs) == "a"


def test_no_runs_at_all() -> None:
    assert found("lr < 1 and not resnet or mine and metrics.loss = 3 and name ~ x", []) == ""
    assert sorted_ids(["-lr", "metrics.loss", "name"], []) == ""


def test_unknown_keys_are_named_with_what_may_have_been_meant() -> None:
    columns = ListColumns(RUNS)
    text = "lrr < 1 or (not metrics.los > 1 and LR = 3) or best(val/ac) > 1 or lr = 1 or loss.max = 1 or lrr = 2 or name = x"
    assert [key.phrase for key in unknown_keys(parse(text), columns)] == [
        "a param, metric or tag named 'lrr' (did you mean 'lr'?)",
        "a metric named 'los' (did you mean 'loss'?)",
        "a param, metric or tag named 'LR' (did you mean 'lr'?)",
        "a metric named 'val/ac' (did you mean 'val/acc'?)",
    ]
    assert unknown_keys(parse("nothing_like_it_at_all = 3"), columns)[0].phrase.endswith(
        "named 'nothing_like_it_at_all'"
    )
    assert [key.position for key in unknown_keys(parse("a = 1 and zz = 2"), columns)] == [0, 10]
    assert [key.name for key in unknown_keys(parse_sort(["-lr", "foo"]), columns)] == ["foo"]
    assert unknown_keys(parse("dataset.name = x and mine and resnet and start > 3"), columns) == ()


@pytest.mark.parametrize(
    ("key", "direction"),
    [
        ("loss", "min"),
        ("val/loss", "min"),
        ("trainLoss", "min"),
        ("top1_err", "min"),
        ("RMSE", "min"),
        ("valMAE", "min"),
        ("test_ppl", "min"),
        ("logloss", "min"),
        ("epoch_time_seconds", "min"),
        ("val/acc", "max"),
        ("accuracy", "max"),
        ("f1", "max"),
        ("auc", "max"),
        ("reward", "max"),
        ("gloss", "min"),
        ("images_per_second", "max"),
        ("train_samples_per_second", "max"),
        ("flops_per_second", "max"),
        ("tokens/s", "max"),
        ("samples/sec", "max"),
        ("fps", "max"),
        ("inference_fps", "max"),
        ("throughput_ms", "max"),
        ("seconds_per_step", "min"),
        ("time_per_batch_ms", "min"),
        ("cost_per_hour", "min"),
        ("eval/sec", "min"),
        ("acc_per_class", "max"),
        ("test/per", "min"),
        ("", "max"),
    ],
)
def test_the_guess_of_a_metrics_direction(key: str, direction: str) -> None:
    assert guess_direction(key) == direction


# -- order


def test_numbers_then_nan_then_nothing_in_both_directions() -> None:
    runs = [Logged("a", metrics={"m": [NAN]}), Logged("b"), Logged("c", metrics={"m": [math.inf]})]
    runs += [
        Logged(name, metrics={"m": [value]}) for name, value in (("d", 2.0), ("e", -math.inf), ("f", -1.0))
    ]
    assert sorted_ids(["m"], runs) == "efdcab"
    assert sorted_ids(["-m"], runs) == "cdfeab"
    assert sorted_ids(["metrics.m DESC"], runs, mlflow=True) == "cdfeab"


def test_texts_that_are_numbers_come_first_and_by_size() -> None:
    runs = [
        Logged(name, params={"p": value})
        for name, value in zip("abcdef", ["10", "9", "x", "1e1", "nan", "Y"], strict=True)
    ]
    runs.append(Logged("g"))
    assert sorted_ids(["p"], runs) == "badefcg"
    assert sorted_ids(["-p"], runs) == "adbecfg"
    assert sorted_ids(["params.p"], runs, mlflow=True) == "adbfecg"


def test_ties_go_to_the_newest_and_then_to_the_smaller_id() -> None:
    starts = {"a": 1.0, "b": 2.0, "c": 2.0, "d": None, "e": 1.0}
    runs = [
        Logged(name, {} if start is None else {"start_time": start})
        for name, start in reversed(starts.items())
    ]
    assert sorted_ids([], runs) == "bcaed"
    assert sorted_ids(["status"], runs) == "bcaed"
    assert sorted_ids(["no_such_key"], runs) == "bcaed"
    assert sorted_ids(["start_time"], runs) == "aebcd"


def test_run_ids_of_full_length_sort_as_text() -> None:
    ids = [f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128:032x}" for number in range(50)]
    runs = [Logged(run_id) for run_id in [*ids, *(run_id[:31] + "0" for run_id in ids)]]
    rows = order(ListColumns(runs), (), np.arange(len(runs)))
    assert [runs[row].run_id for row in rows] == sorted(run.run_id for run in runs)


def test_only_the_given_rows_are_ordered() -> None:
    runs = [
        Logged(name, metrics={"m": [value]}) for name, value in zip("abcd", [4.0, 3.0, 2.0, 1.0], strict=True)
    ]
    assert order(ListColumns(runs), parse_sort(["m"]), np.array([2, 0])).tolist() == [2, 0]


# -- random runs, random filters: against plain loops

NUMBERS = [0.0, -0.0, 1.0, -1.5, 0.001, 2.0, NAN, math.inf, -math.inf]
TEXTS = [
    "adam",
    "Adam",
    "1",
    "1.0",
    "0.001",
    "1e-3",
    "-1.5",
    "nan",
    "inf",
    "True",
    "true",
    "",
    "a b",
    "100%",
    "x_y",
    "é",
]
NAMES = ["lr", "loss", "loss.min", "val/acc", "a b", "x"]


def a_mapping(values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


@st.composite
def logged_runs(draw: st.DrawFn) -> list[Logged]:
    texts = st.sampled_from(TEXTS)
    attributes = st.fixed_dictionaries(
        {},
        optional={
            "run_name": texts,
            "status": st.sampled_from(["RUNNING", "FAILED", "LOST"]),
            "user": st.sampled_from(["ann", "bob"]),
            "start_time": st.sampled_from([NOW_MS, NOW_MS - HOUR_MS, NOW_MS - 48 * HOUR_MS]),
            "duration": st.sampled_from([0.0, 60_000.0, 5 * HOUR_MS]),
            "step": st.sampled_from([0.0, 1.0, 2.0]),
        },
    )
    metrics = st.dictionaries(
        st.sampled_from(NAMES), st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3), max_size=4
    )
    datasets = st.lists(
        st.fixed_dictionaries({"name": texts, "digest": texts}, optional={"context": texts}), max_size=2
    )
    runs = st.builds(
        lambda attributes, params, metrics, tags, datasets: (attributes, params, metrics, tags, datasets),
        attributes,
        a_mapping(texts),
        metrics,
        a_mapping(texts),
        datasets,
    )
    ids = draw(st.permutations(list("abcdefghij")))
    found = draw(st.lists(runs, max_size=6))
    return [Logged(run_id, *run) for run_id, run in zip(ids, found, strict=False)]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def filters() -> st.SearchStrategy[str]:
    names = st.sampled_from(
        ["lr", "loss", "loss.min", "loss.max", "val/acc", "x", "`a b`", "`loss`.min", "zzz"]
    )
    metrics = st.one_of(
        names.map("metrics.{}".format),
        st.builds(
            "{}({})".format, st.sampled_from(list(AGGREGATES)), st.sampled_from(["loss", "val/acc", "`a b`"])
        ),
        st.just("step"),
    )
    texts = st.one_of(
        st.sampled_from(["name", "user", "dataset.name", "dataset.context", "tags.lr"]),
        names.map("params.{}".format),
    )
    keys = st.one_of(names, metrics, texts)
    numbers = st.sampled_from(["0", "1", "-1.5", "1e-3", "nan", "inf", "'1'", "2.0"])
    words = st.one_of(
        st.sampled_from(TEXTS).map(quoted), st.sampled_from(["adam", "true", "1", "0.001", "nan", "x_y"])
    )
    equality, size = st.sampled_from(["=", "!=", "=="]), st.sampled_from(["<", "<=", ">", ">="])
    lists = st.lists(st.one_of(numbers, words), min_size=1, max_size=3).map(", ".join)
    patterns = st.sampled_from(["'%a%'", "'A_am'", "'%'", "''", "'1%'", "x_y", "'%0_'"])
    terms = st.one_of(
        st.builds("{} {} {}".format, keys, equality, st.one_of(numbers, words)),
        st.builds("{} {} {}".format, keys, size, numbers),
        st.builds("{} {} ({})".format, keys, st.sampled_from(["in", "not in"]), lists),
        st.builds("{} {} {}".format, keys, st.sampled_from(["like", "ilike", "not like"]), patterns),
        st.builds(
            "{} {} {}".format,
            keys,
            st.sampled_from(["~", "!~"]),
            st.sampled_from(["a", "'^.$'", "'[0-9]+'", "'(a|1)*$'"]),
        ),
        st.builds("{} is {}null".format, keys, st.sampled_from(["", "not "])),
        st.sampled_from(["mine", "adam", "'a b'", "status = running", "status in (lost, failed)"]),
        st.sampled_from(
            ["start > -2h", "start <= -1d", "start = 1800000000000", "duration >= 1m", "duration < 2h"]
        ),
    )
    return st.recursive(
        terms,
        lambda smaller: st.one_of(
            st.builds("({} and {})".format, smaller, smaller),
            st.builds("({} or {})".format, smaller, smaller),
            smaller.map("not ({})".format),
        ),
        max_leaves=5,
    )


class Mismatch(Exception):
    """The plain evaluator meets a term that does not fit the kind of its key."""


class Plain:
    """The rules over one run after another, without arrays."""

    def __init__(self, runs: Sequence[Logged]) -> None:
        self.columns = ListColumns(runs)

    def matches(self, node: Node, run: Logged) -> bool:
        match node:
            case Everything():
                return True
            case Mine():
                return run.attributes.get("user") == "ann"
            case Not(part):
                return not self.matches(part, run)
            case And(parts):
                return all([self.matches(part, run) for part in parts])
            case Or(parts):
                return any([self.matches(part, run) for part in parts])
            case Missing(key, negated):
                return bool(self.values(key, run)[0]) == negated
            case Compare(key, comparator, value):
                values, kind = self.values(key, run)
                if kind == "":
                    return False
                self.check(kind, comparator, value)
                return any([self.compares(one, comparator, value, kind) for one in values])
            case OneOf(key, wanted, negated):
                values, kind = self.values(key, run)
                if kind == "":
                    return False
                for value in wanted:
                    self.check(kind, "=", value)
                return any(
                    [
                        any([self.compares(one, "=", value, kind) for value in wanted]) != negated
                        for one in values
                    ]
                )
            case Matches(key, how, pattern, negated):
                values, kind = self.values(key, run)
                if kind in ("metric", "number"):
                    raise Mismatch
                return any([self.fits(str(one), how, pattern.text) != negated for one in values])

    def values(self, key: Key, run: Logged) -> tuple[Sequence[float | str], str]:
        """The run's values of the key, and the key's kind: metric, number, loose, text, or empty for nobody has it."""
        kind, name, aggregate = key.kind, key.name, key.aggregate or "last"
        if kind == "any":
            kinds = [kind for kind in ("param", "metric", "tag") if self.columns.has(kind, name)]  # type: ignore[arg-type]
            kind = kinds[0] if kinds else "any"  # type: ignore[assignment]
        stem, _, ending = name.rpartition(".")
        suffixed = (
            ending in AGGREGATES
            and self.columns.has("metric", stem)
            and not key.exact
            and key.aggregate is None
        )
        if suffixed and (kind == "any" or (kind == "metric" and not self.columns.has("metric", name))):
            kind, name, aggregate = "metric", stem, AGGREGATES[ending]
        if kind == "any":
            return [], ""
        if kind == "metric" or name in NUMBER_ATTRIBUTES:
            aggregate = guess_direction(name) if aggregate == "best" else aggregate
            number = run.number(kind, name, aggregate)
            return [] if number is None else [number], "metric" if kind == "metric" else "number"
        return run.texts(kind, name), "loose" if kind in ("param", "tag") else "text"

    def check(self, kind: str, comparator: str, value: Written | Amount | Moment) -> None:
        number = as_number(value.text) if isinstance(value, Written) else 0.0
        if kind == "metric" and number is None:
            raise Mismatch
        if comparator not in ("=", "!=") and (number is None or math.isnan(number)):
            raise Mismatch

    def compares(
        self, one: float | str, comparator: str, value: Written | Amount | Moment, kind: str
    ) -> bool:
        if comparator == "!=":
            return not self.compares(one, "=", value, kind)
        if isinstance(one, str):
            assert isinstance(value, Written)
            if comparator == "=":
                if value.quoted or kind == "text":
                    return one == value.text
                if value.text.lower() == "true":
                    return one.lower() == "true"
                if as_number(value.text) is None:
                    return one == value.text
            left, right = as_number(one), as_number(value.text)
        else:
            left = one
            match value:
                case Written(text, _, _):
                    right = as_number(text)
                case Amount(number, _):
                    right = number
                case Moment(ms, relative, _, _):
                    right = ms + (NOW_MS if relative else 0)
        if left is None or right is None:
            return False
        if comparator == "=":
            return left == right or (math.isnan(left) and math.isnan(right))
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[comparator]

    def fits(self, text: str, how: str, pattern: str) -> bool:
        if how == "contains":
            return pattern.lower() in text.lower()
        if how == "regex":
            return re.search(pattern, text) is not None
        source = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern)
        return re.fullmatch(source, text, re.DOTALL | (re.IGNORECASE if how == "ilike" else 0)) is not None


def as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@given(logged_runs(), filters())
@example([Logged("a", params={"loss": "1"}), Logged("b", metrics={"loss": [1.0]})], "loss = 1")
def test_any_filter_finds_what_a_loop_over_the_runs_finds(runs: list[Logged], filter_text: str) -> None:
    try:
        expr = parse(filter_text)
    except FilterError:
        assume(False)
    plain = Plain(runs)
    try:
        expected = "".join([run.run_id for run in runs if plain.matches(expr.root, run)])
        if not runs:
            plain.matches(expr.root, Logged("z"))
    except Mismatch:
        with pytest.raises(FilterError):
            found(filter_text, runs)
        return
    assert found(filter_text, runs) == expected


SORTS = [
    "lr",
    "-lr",
    "loss",
    "-loss",
    "min(loss)",
    "-loss.max",
    "best(val/acc)",
    "name desc",
    "start",
    "-status",
    "x",
    "zzz",
]


def plainly_ordered(runs: Sequence[Logged], sort: Sequence[str]) -> list[str]:
    plain = Plain(runs)
    keys = parse_sort(sort)

    def compare(left: Logged, right: Logged) -> int:
        for sort_key in (*keys, *parse_sort(["-start"])):
            places = []
            for run in (left, right):
                values, kind = plain.values(sort_key.key, run)
                places.append(place_of(values[0] if values else None, kind))
            (left_class, one), (right_class, other) = places
            if left_class != right_class:
                return -1 if left_class < right_class else 1
            if one != other:
                down = sort_key.descending or (sort_key.key.aggregate == "best" and not sort_key.stated)
                return -1 if (one < other) != down else 1  # type: ignore[operator]
        return -1 if left.run_id < right.run_id else 1

    return [run.run_id for run in sorted(runs, key=functools.cmp_to_key(compare))]


def place_of(value: float | str | None, kind: str) -> tuple[int, float | str]:
    number = as_number(value) if isinstance(value, str) and kind == "loose" else value
    match number:
        case float() if math.isnan(number):
            return 1, 0.0
        case float():
            return 0, number
    return (3, 0.0) if value is None else (2, value)


@pytest.mark.parametrize(
    ("sort", "ids"),
    [
        ("best(acc)", "bac"),
        ("metrics.acc.best", "bac"),
        ("acc.best", "bac"),
        ("best(acc) asc", "cab"),
        ("best(acc) desc", "bac"),
        ("-best(acc)", "bac"),
        ("best(loss)", "cba"),
        ("-best(loss)", "abc"),
        ("best(loss) asc", "cba"),
    ],
)
def test_the_best_comes_first_unless_a_direction_is_said(sort: str, ids: str) -> None:
    runs = [
        Logged("a", metrics={"acc": [0.5], "loss": [3.0]}),
        Logged("b", metrics={"acc": [0.9, 0.1], "loss": [2.0]}),
        Logged("c", metrics={"acc": [0.4], "loss": [1.0, 9.0]}),
    ]
    assert sorted_ids([sort], runs) == ids
    columns = ListColumns(runs)
    first = page(columns, np.ones(3, np.bool_), [sort], limit=1)
    rest = page(columns, np.ones(3, np.bool_), [sort], after=first.next)
    assert "".join(first.run_ids + rest.run_ids) == ids


@given(logged_runs(), st.lists(st.sampled_from(SORTS), max_size=3))
def test_any_order_is_what_sorting_the_runs_gives(runs: list[Logged], sort: list[str]) -> None:
    rows = order(ListColumns(runs), parse_sort(sort), np.arange(len(runs)))
    assert [runs[row].run_id for row in rows] == plainly_ordered(runs, sort)


# -- pages


@given(logged_runs(), st.lists(st.sampled_from(SORTS), max_size=2), st.integers(1, 4))
def test_pages_put_together_are_the_whole(runs: list[Logged], sort: list[str], limit: int) -> None:
    columns = ListColumns(runs)
    everything = np.ones(len(runs), dtype=np.bool_)
    whole = page(columns, everything, sort)
    assert (whole.next, whole.total) == (None, len(runs))
    shown: list[str] = []
    after = None
    for _ in range(len(runs) + 1):
        part = page(columns, everything, sort, limit, after)
        assert part.total == len(runs)
        shown += part.run_ids
        after = part.next
        if after is None:
            break
    assert tuple(shown) == whole.run_ids


# No bare keys: what they mean depends on which keys the runs have.
STEADY_SORTS = [
    "metrics.`loss`",
    "-metrics.`x`",
    "-params.lr",
    "params.x",
    "name desc",
    "start",
    "-status",
    "tags.lr",
]


@given(logged_runs(), st.lists(st.sampled_from(STEADY_SORTS), max_size=2), st.data())
def test_runs_that_come_and_go_between_pages_hide_no_other(
    runs: list[Logged], sort: list[str], data: st.DataObject
) -> None:
    before = [run for run in runs if data.draw(st.booleans())]
    later = [run for run in runs if data.draw(st.booleans())]
    first = page(ListColumns(before), np.ones(len(before), dtype=np.bool_), sort, 1)
    if first.next is None:
        return
    rest = page(ListColumns(later), np.ones(len(later), dtype=np.bool_), sort, None, first.next)
    complete = plainly_ordered(runs, sort)
    behind = complete[complete.index(first.run_ids[-1]) + 1 :]
    assert list(rest.run_ids) == [run_id for run_id in behind if any(run.run_id == run_id for run in later)]


def test_a_page_may_begin_behind_a_run() -> None:
    columns = ListColumns(RUNS)
    some = np.array([True, True, False, True])
    assert page(columns, some, ["layers"], after="b").run_ids == ("a", "d")
    assert page(columns, some, ["layers"], after="c").run_ids == ("a", "d"), (
        "a run that does not match is a place too"
    )
    assert page(columns, some, ["layers"], after="d").run_ids == ()


def test_a_page_names_the_keys_that_no_run_has() -> None:
    columns = ListColumns(RUNS)
    unknown = unknown_keys(parse("lrr = 1"), columns)
    answer = page(columns, np.ones(4, dtype=np.bool_), ["-lrr", "los"], unknown=unknown)
    assert len(answer.unknown_keys) == 2
    assert "did you mean 'loss'" in answer.unknown_keys[1]


@pytest.mark.parametrize(
    "after", ["x", "", "é", "W10=", "bnVsbA==", "eyJhIjoxfQ==", "W1tdXQ==", "A" * 100_000, "W" * 20_000]
)
def test_a_mark_that_is_none_is_refused(after: str) -> None:
    with pytest.raises(BadInput, match="page mark"):
        page(ListColumns(RUNS), np.ones(4, dtype=np.bool_), ["lr"], 2, after)


def test_a_mark_of_another_order_and_a_page_of_nothing_are_refused() -> None:
    everything = np.ones(4, dtype=np.bool_)
    mark = page(ListColumns(RUNS), everything, ["-lr"], 2).next
    with pytest.raises(BadInput, match="page mark"):
        page(ListColumns(RUNS), everything, ["lr"], 2, mark)
    with pytest.raises(BadInput, match="at least one"):
        cut(ListColumns(RUNS), (), np.arange(4), 0)


# -- the page for people


def examples(language: str) -> list[str]:
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_the_examples_of_the_docs_are_right() -> None:
    assert len(examples("filter")) > 25
    for text in examples("filter"):
        parse(text)
        found(text, RUNS)
    for text in examples("mlflow"):
        parse(text, mlflow=True)
    for text in examples("sort"):
        parse_sort([text])


def test_the_error_that_the_docs_show_is_the_real_one() -> None:
    text = DOCS.read_text(encoding="utf-8")
    shown = re.search(r"^```error\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert shown is not None
    with pytest.raises(FilterError) as caught:
        parse(shown[1].split("\n")[1].strip())
    assert str(caught.value) == shown[1]


def test_the_docs_name_every_attribute_and_aggregate() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name in TEXT_ATTRIBUTES | NUMBER_ATTRIBUTES:
        assert f"`{name}`" in text
    for name in AGGREGATES:
        assert f"{name}(" in text
