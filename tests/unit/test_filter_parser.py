"""The filter language as text: what it accepts, what it means, and where it says an error is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mltrack.store.errors import EXCERPT_WIDTH, FilterError
from mltrack.store.filter_parser import MAX_DEPTH, MAX_PATTERN, MAX_TERMS, parse
from mltrack.store.filter_tokens import MAX_TEXT
from mltrack.store.filter_tree import (
    Amount,
    And,
    Compare,
    Everything,
    Expr,
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
from mltrack.store.sort_parser import parse_sort

HOUR_MS = 3_600_000.0


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def brief(node: Node) -> str:
    """The tree in brackets, so that a test can be read."""
    match node:
        case Everything():
            return "all"
        case Mine():
            return "mine"
        case Not(part):
            return f"(not {brief(part)})"
        case And(parts):
            return f"({' and '.join(map(brief, parts))})"
        case Or(parts):
            return f"({' or '.join(map(brief, parts))})"
        case Compare(key, comparator, value):
            return f"{brief_key(key)} {comparator} {brief_value(value)}"
        case OneOf(key, values, negated):
            listed = ", ".join(map(brief_value, values))
            return f"{brief_key(key)} {'not in' if negated else 'in'} ({listed})"
        case Matches(key, how, pattern, negated):
            return f"{brief_key(key)} {'not ' * negated}{how} {brief_value(pattern)}"
        case Missing(key, negated):
            return f"{brief_key(key)} is {'not ' * negated}null"


def brief_key(key: Key) -> str:
    name = f"{key.aggregate}({key.name})" if key.aggregate else key.name
    return name if key.kind == "any" else f"{key.kind}:{name}"


def brief_value(value: Written | Amount | Moment) -> str:
    match value:
        case Written(text, quoted, _):
            return f"'{text}'" if quoted else text
        case Amount(number, _):
            return f"{number:g}"
        case Moment(ms, relative, _, _):
            return f"now{ms:+g}" if relative else f"@{ms:g}"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", "all"),
        ("  \n", "all"),
        ("lr < 1e-3", "lr < 1e-3"),
        ("lr<1e-3", "lr < 1e-3"),
        ("a==1 and b<>2", "(a = 1 and b != 2)"),
        ("a = 1 or b = 2 and c = 3", "(a = 1 or (b = 2 and c = 3))"),
        ("(a = 1 or b = 2) AND c = 3", "((a = 1 or b = 2) and c = 3)"),
        ("not a = 1 and b = 2", "((not a = 1) and b = 2)"),
        ("not (a = 1 and b = 2)", "(not (a = 1 and b = 2))"),
        ("not not a = 1", "a = 1"),
        ("lr < 1e-3 and (opt = adamw or opt = lion)", "(lr < 1e-3 and (opt = adamw or opt = lion))"),
        ("opt in (adam, 'lion')", "opt in (adam, 'lion')"),
        ("opt not in (adam,)", "opt not in (adam)"),
        ("loss in (1, 2)", "loss in (1, 2)"),
        ("metrics.loss not in (1)", "metric:loss not in (1)"),
        ("name ~ ^res", "attribute:run_name regex ^res"),
        ("name =~ '^(a|b)$'", "attribute:run_name regex '^(a|b)$'"),
        ("opt !~ adam", "opt not regex adam"),
        ("opt!~adam", "opt not regex adam"),
        ("opt!=adam", "opt != adam"),
        ("opt LIKE 'a%'", "opt like 'a%'"),
        ("opt not ilike a%", "opt not ilike a%"),
        ("lr is null", "lr is null"),
        ("metrics.loss is not null", "metric:loss is not null"),
        ("resnet", "attribute:run_name contains resnet"),
        ("resnet-50 cifar", "(attribute:run_name contains resnet-50 and attribute:run_name contains cifar)"),
        ("resnet and lr = 1", "(attribute:run_name contains resnet and lr = 1)"),
        ("'my run'", "attribute:run_name contains 'my run'"),
        ("wow!", "attribute:run_name contains wow!"),
        (
            "elk 'contains' x",
            "(attribute:run_name contains elk and attribute:run_name contains 'contains' and attribute:run_name contains x)",
        ),
        ("contains", "attribute:run_name contains contains"),
        ("mine", "mine"),
        ("not mine", "(not mine)"),
        ("mine = 3", "mine = 3"),
        ("'mine'", "attribute:run_name contains 'mine'"),
        ("status = running", "attribute:status = 'RUNNING'"),
        ("status in (Failed, killed)", "attribute:status in ('FAILED', 'KILLED')"),
        ("user = ann", "attribute:user = ann"),
        ("user_id = ann", "attribute:user = ann"),
        ("`run name` = x", "attribute:run_name = x"),
        ("experiment = vision/cifar", "attribute:experiment = vision/cifar"),
        ("step > 10", "attribute:step > 10"),
        ("metric.loss < .5", "metric:loss < 0.5"),
        ("metrics.loss.min < 0.2", "metric:loss.min < 0.2"),
        ("metrics.`loss`.min < 0.2", "metric:min(loss) < 0.2"),
        ("metrics.`a b` < 1", "metric:a b < 1"),
        ('metrics."a b".max < 1', "metric:max(a b) < 1"),
        ("`metrics`.loss < 1", "metric:loss < 1"),
        ("`val loss`.min < 1", "metric:min(val loss) < 1"),
        ("metrics.val/acc.best > .9", "metric:val/acc.best > 0.9"),
        ("best(val/acc) > .9", "metric:best(val/acc) > 0.9"),
        ("Min (metrics.loss) < 1", "metric:min(loss) < 1"),
        ("max(`a b`) < 1", "metric:max(a b) < 1"),
        ("count(loss) = 0 and last(loss) < 1", "(metric:count(loss) = 0 and metric:last(loss) < 1)"),
        ("min > 3", "min > 3"),
        ("loss = nan", "loss = nan"),
        ("metrics.loss = nan", "metric:loss = nan"),
        ("metrics.loss < inf", "metric:loss < inf"),
        ("tags.`mlflow.source.name` = x", "tag:mlflow.source.name = x"),
        ("tags.mlflow.source.name = x", "tag:mlflow.source.name = x"),
        ("params.in = x and params.not = y", "(param:in = x and param:not = y)"),
        ("dataset.name = cifar", "dataset:name = cifar"),
        ("dataset.path = cifar", "dataset.path = cifar"),
        ("run.seed = 3", "run.seed = 3"),
        ("run.start_time > 3", "attribute:start_time > @3"),
        ("opt = 'it''s'", "opt = 'it's'"),
        ('opt = "say ""hi"""', "opt = 'say \"hi\"'"),
        ("path = s3://bucket/a-b_c*", "path = s3://bucket/a-b_c*"),
        ("duration > 2h30m", "attribute:duration > 9e+06"),
        ("duration > 90", "attribute:duration > 90000"),
        ("duration >= 1.5H", "attribute:duration >= 5.4e+06"),
        ("duration < 250ms", "attribute:duration < 250"),
        ("start > -2d", "attribute:start_time > now-1.728e+08"),
        ("start > -1w", "attribute:start_time > now-6.048e+08"),
        ("ended < +1h", "attribute:end_time < now+3.6e+06"),
        ("created > 1700000000000", "attribute:start_time > @1.7e+12"),
    ],
)
def test_what_a_filter_means(text: str, tree: str) -> None:
    assert brief(parse(text).root) == tree


@pytest.mark.usefixtures("new_york")
def test_dates_are_local_and_a_date_alone_is_its_whole_day() -> None:
    def moment(text: str) -> Moment:
        node = parse(text).root
        assert isinstance(node, Compare)
        assert isinstance(node.value, Moment)
        return node.value

    day = moment("start = 2026-07-01")
    assert day.ms == datetime(2026, 7, 1, 4, tzinfo=UTC).timestamp() * 1e3
    assert day.span_ms == 24 * HOUR_MS
    assert moment("start = 2026-11-01").span_ms == 25 * HOUR_MS, "the day on which the clocks go back"
    exact = moment("start > '2026-07-01 13:30'")
    assert (exact.ms - day.ms, exact.span_ms) == (13.5 * HOUR_MS, 0.0)
    assert moment("start > 2026-07-01T13:30").ms == exact.ms
    assert moment("start > 2026-07-01T17:30Z").ms == exact.ms
    assert moment("start > 2026-07-01T19:30+02:00").ms == exact.ms


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("lr <", 4, "ends where a value"),
        ("lr < and opt = x", 5, "Expected a value, found 'and'"),
        ("and lr < 1", 0, "Expected a term"),
        ("lr < 1 and", 10, "ends where a term"),
        ("lr < 1 or or a = 2", 10, "found 'or'"),
        ("lr < 1 opt = x", 7, "Expected 'and' or 'or' before 'opt'"),
        ("lr < 1 && opt = x", 7, "write 'and'"),
        ("resnet adn opt = x", 11, "before 'opt'"),
        ("(lr < 1", 0, "never closed"),
        ("(lr < 1 opt = 2)", 8, "Expected 'and' or 'or'"),
        ("lr < 1)", 6, "never opened"),
        ("opt = 'x", 6, "never closed"),
        ("opt = it's", 8, "quote inside a word"),
        ("opt = 'a'.b", 6, "one word, or stands in quotes"),
        ("opt = ~/data", 6, "stands in quotes"),
        ("lr < 1;", 6, "';'"),
        ("opt in adam", 7, "list in brackets"),
        ("opt in ()", 8, "empty"),
        ("opt in (a b)", 10, "',' or ')'"),
        ("opt in (a", 7, "never closed"),
        ("lr is", 5, "'null' or 'not null'"),
        ("lr is 3", 6, "'null' or 'not null'"),
        ("metrics. < 3", 8, "missing after 'metrics.'"),
        ("metrics.loss = adam", 15, "not one"),
        ("metrics.loss like 'a'", 13, "is a number"),
        ("step ~ 3", 5, "is a number"),
        ("name > a", 5, "is text"),
        ("params.lr < adam", 12, "compares numbers"),
        ("params.lr < nan", 12, "NaN"),
        ("metrics.loss < NaN", 15, "NaN"),
        ("attributes.stats = x", 0, "Did you mean 'status'"),
        ("status = runing", 9, "did you mean running?"),
        ("status = 'no such'", 9, "No status"),
        ("duration > soon", 11, "like 90s, 10m"),
        ("start > 2d", 8, "'-2d' is that long ago"),
        ("start > yesterday", 8, "not a time"),
        ("start > 2026-13-01", 8, "not a time"),
        ("start > 9999-12-31", 8, "not a time"),
        ("run_name contains elk", 9, "like '%text%'"),
        ("mine and name CONTAINS 'a b'", 14, "like '%text%'"),
        ("run_name startswith elk", 9, "like 'text%'"),
        ("lr between 1 and 2", 3, "key >= 1"),
        ("foo(loss) > 1", 0, "no function 'foo'"),
        ("bset(loss) > 1", 0, "Did you mean 'best'"),
        ("best() > 1", 5, "name of a metric"),
        ("best(a b) > 1", 7, "Expected ')'"),
        ("best(a > 1", 7, "Expected ')'"),
        ("best(a", 4, "never closed"),
        ("best(params.x) > 1", 5, "Only metrics"),
        ("best(loss)", 10, "Expected a comparison"),
        ("name ~ '(a'", 8, "Not a regular expression"),
        ("name ~ 'ab(?=c)'", 10, "(?:...)"),
        (r"name ~ '(a)\1'", 11, "not possible"),
        ("name ~ 'a++'", 10, "Possessive"),
        ("name ~ '((a{99}){99}){99}'", 8, "too large"),
    ],
)
def test_an_error_says_what_and_where(text: str, position: int, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert words in caught.value.message
    assert (caught.value.position, caught.value.text) == (position, text)


def test_an_error_is_drawn_with_a_caret_under_the_place() -> None:
    with pytest.raises(FilterError) as caught:
        parse("lr < 1 opt = x")
    assert str(caught.value) == "Expected 'and' or 'or' before 'opt'.\n  lr < 1 opt = x\n         ^"


def test_the_drawing_is_short_harmless_and_knows_wide_characters() -> None:
    long = FilterError("a" * 5000 + "\x1b[31m\n漢字 oops" + "b" * 5000, 5009, "Wrong.").excerpt()
    shown, caret = long.split("\n")
    assert len(shown) <= EXCERPT_WIDTH + 4
    assert "\x1b" not in shown
    assert shown.lstrip()[0] == "…" == shown[-1]
    # Two cells for each of the two wide characters before the place.
    assert caret.index("^") == shown.index("oops") + 2
    assert FilterError("", 7, "Wrong.").excerpt() == "  \n  ^"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * (MAX_TEXT + 1), "characters"),
        (" or ".join(["a = 1"] * (MAX_TERMS + 1)), "terms"),
        (f"a in ({', '.join('x' * (MAX_TERMS + 1))})", "terms"),
        (" ".join(["a"] * (MAX_TERMS + 1)), "terms"),
        ("(" * (MAX_DEPTH + 1) + "a = 1" + ")" * (MAX_DEPTH + 1), "deep"),
        ("not " * (MAX_DEPTH + 1) + "a = 1", "deep"),
        ("(" * MAX_TEXT, "deep"),
        (f"name ~ {'a' * (MAX_PATTERN + 1)}", "pattern"),
        (f"name like {'a' * (MAX_PATTERN + 1)}", "pattern"),
        ("a" * (MAX_PATTERN + 1), "pattern"),
    ],
)
def test_limits(text: str, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        parse(text)


def test_just_within_the_limits() -> None:
    parse(" or ".join(["a = 1"] * MAX_TERMS))
    parse("(" * MAX_DEPTH + "a = 1" + ")" * MAX_DEPTH)
    parse("(a = 1) and " * 60 + "(not b = 2)")
    parse(f"name ~ {'a' * MAX_PATTERN}")
    parse(f"opt = {'a' * (MAX_TEXT - 6)}")


# What MLflow 3.17 takes and refuses, run through its own parser.
MLFLOW_ACCEPTS = [
    ("", "all"),
    ("metrics.a > 1", "metric:a > 1"),
    ("metrics.a > -1", "metric:a > -1"),
    ("metrics.a > 1e-3", "metric:a > 0.001"),
    ("metrics.a > .5", "metric:a > 0.5"),
    ("metrics.a>1", "metric:a > 1"),
    ("metrics.a >1 and metrics.b< 2", "(metric:a > 1 and metric:b < 2)"),
    ("metrics.a.b.c > 1", "metric:a.b.c > 1"),
    ("metrics.loss.min > 1", "metric:loss.min > 1"),
    ("metrics.`a b` > 1", "metric:a b > 1"),
    ('metrics."a b" > 1', "metric:a b > 1"),
    ("metrics.'a b' > 1", "metric:a b > 1"),
    ("`metrics`.`a` > 1", "metric:a > 1"),
    ("metrics.1a > 1", "metric:1a > 1"),
    ("params.a = 'x'", "param:a = 'x'"),
    ('params.a = "x"', "param:a = 'x'"),
    ("params.a = 'it''s'", "param:a = 'it''s'"),
    (r"params.a = 'it\'s'", r"param:a = 'it\'s'"),
    ("params.a = ''", "param:a = ''"),
    ("params.a iLike '%x'", "param:a ilike '%x'"),
    ("params.a IS  NULL", "param:a is null"),
    ("params.a is not null", "param:a is not null"),
    ("parameter.a = 'x' and parameters.b = 'y'", "(param:a = 'x' and param:b = 'y')"),
    ("params.and = 'y'", "param:and = 'y'"),
    ("params.é = 'x'", "param:é = 'x'"),
    ("params.a='x'AND params.b='y'", "(param:a = 'x' and param:b = 'y')"),
    ("tags.mlflow.source.name = 'x'", "tag:mlflow.source.name = 'x'"),
    ("tag.`mlflow.source.name` != 'x'", "tag:mlflow.source.name != 'x'"),
    ("run_name = 'x'", "attribute:run_name = 'x'"),
    ("`run name` = 'x'", "attribute:run_name = 'x'"),
    ("\"run name\" = 'x'", "attribute:run_name = 'x'"),
    ("attribute.`Run name` = 'x'", "attribute:run_name = 'x'"),
    ("status = 'RUNNING'", "attribute:status = 'RUNNING'"),
    ("status = 'whatever'", "attribute:status = 'whatever'"),
    ("user_id = 'x'", "attribute:user = 'x'"),
    ("artifact_uri = 'x'", "attribute:artifact_uri = 'x'"),
    ("run_id IN ('a', \"b\")", "attribute:run_id in ('a', 'b')"),
    ("run_id NOT IN ('a',)", "attribute:run_id not in ('a')"),
    ("attr.start_time > 1 and created > 1", "(attribute:start_time > 1 and attribute:start_time > 1)"),
    ("run.end_time = 2", "attribute:end_time = 2"),
    ("datasets.name = 'x'", "dataset:name = 'x'"),
    ("dataset.digest IN ('a','b')", "dataset:digest in ('a', 'b')"),
    ("dataset.context LIKE '%t'", "dataset:context like '%t'"),
]
MLFLOW_REFUSES = [
    "metrics.a == 1",
    "metrics.a <> 1",
    "metrics.a > 0x10",
    "metrics.a > +1",
    "metrics.a-b > 1",
    "metrics.a/b > 1",
    "metrics.a:b > 1",
    "`metrics.a` > 1",
    "METRICS.a > 1",
    "metrics.a > inf",
    "metrics.a > nan",
    "metrics.a > 'nan'",
    "metrics.a IS NULL",
    "metrics.a > metrics.b",
    "metrics.a BETWEEN 1 AND 2",
    "metrics.a LIKE 'x'",
    "metrics.a >",
    "metrics.a",
    "params.a = x",
    "params.a = 1",
    "params.a = `x`",
    "params.a > 'x'",
    "params.a in ('x')",
    "params.a NOT LIKE '%x'",
    "params.a ~ 'x'",
    "params.a !~ 'x'",
    "params.a = 'x",
    "params.`a = 'x'",
    "params.a-b = 'x'",
    "params.a@b = 'x'",
    "attributes.run_name IS NULL",
    "run name = 'x'",
    "Status = 'RUNNING'",
    "status IN ('a')",
    "status > 'A'",
    "lifecycle_stage = 'x'",
    "experiment_id = '1'",
    "run_id IN ()",
    "run_id IN (a)",
    "run_id IN (1)",
    "run_id IN 'a'",
    "start_time > '1'",
    "start_time IN (1)",
    "start_time > -2d",
    "start_time LIKE '1'",
    "dataset.source = 'x'",
    "metrics.a > 1 OR metrics.b > 2",
    "(metrics.a > 1)",
    "NOT metrics.a > 1",
    "metrics.a > 1;",
    "metrics.a > 1 -- comment",
    "metrics.a > 1 /* c */",
    "1 > metrics.a",
    "'a' = 'b'",
    "foo.a = 'x'",
    "mine",
    "resnet",
    "best(a) > 1",
]


@pytest.mark.parametrize(("text", "tree"), MLFLOW_ACCEPTS)
def test_mlflow_mode_reads_what_mlflow_reads(text: str, tree: str) -> None:
    assert brief(parse(text, mlflow=True).root) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("AND", "all"),
        ("metrics.a > 1 AND", "metric:a > 1"),
        ("AND AND metrics.a > 1 metrics.b < 2", "(metric:a > 1 and metric:b < 2)"),
    ],
)
def test_and_is_a_mere_space_to_mlflow(text: str, tree: str) -> None:
    assert brief(parse(text, mlflow=True).root) == tree
    with pytest.raises(FilterError):
        parse(text)


@pytest.mark.parametrize("text", MLFLOW_REFUSES)
def test_mlflow_mode_refuses_what_mlflow_refuses(text: str) -> None:
    with pytest.raises(FilterError):
        parse(text, mlflow=True)


# Two exceptions: a status is checked, and a backslash before a quote is no escape.
@pytest.mark.parametrize(
    "text", [text for text, _ in MLFLOW_ACCEPTS if "whatever" not in text and "\\" not in text]
)
def test_what_mlflow_reads_we_read_too(text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    ("texts", "keys"),
    [
        ([], []),
        (["-val_acc"], [("val_acc", "desc")]),
        (["metrics.loss DESC"], [("metric:loss", "desc")]),
        (["best(val/acc)"], [("metric:best(val/acc)", "asc")]),
        (["-best(val/acc)"], [("metric:best(val/acc)", "desc")]),
        (["-metrics.`a b`.min"], [("metric:min(a b)", "desc")]),
        (["-`a b`"], [("a b", "desc")]),
        (["start_time", "-lr"], [("attribute:start_time", "asc"), ("lr", "desc")]),
        (["-status, lr asc"], [("attribute:status", "desc"), ("lr", "asc")]),
        (["lr", "-lr"], [("lr", "asc")]),
        (["val-acc"], [("val-acc", "asc")]),
    ],
)
def test_sort_keys(texts: list[str], keys: list[tuple[str, str]]) -> None:
    found = [(brief_key(key.key), "desc" if key.descending else "asc") for key in parse_sort(texts)]
    assert found == keys


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("lr up", 3),
        ("-lr desc", 4),
        ("lr,", 3),
        ("dataset.name", 0),
        ("lr < 3", 3),
        ("foo(a)", 0),
        ("'", 0),
    ],
)
def test_a_wrong_sort_key_says_where(text: str, position: int) -> None:
    with pytest.raises(FilterError) as caught:
        parse_sort([text])
    assert caught.value.position == position


def test_sort_keys_as_mlflow_takes_them() -> None:
    keys = parse_sort(["metrics.`a b` DESC", "created", "params.lr asc"], mlflow=True)
    assert [(brief_key(key.key), key.descending, key.numeric) for key in keys] == [
        ("metric:a b", True, False),
        ("attribute:start_time", False, False),
        ("param:lr", False, False),
    ]
    refused = [["-metrics.a"], ["foo"], ["best(a)"], ["metrics.a, metrics.b"], ["metrics.a DESC NULLS"]]
    for texts in (*refused, ["metrics.a-b"], [""], ["start_time", "created DESC"]):
        with pytest.raises(FilterError):
            parse_sort(texts, mlflow=True)


def test_there_is_a_limit_to_sort_keys() -> None:
    with pytest.raises(FilterError, match="at most"):
        parse_sort([f"a{number}" for number in range(100)])


SCRAPS = (
    "and or not in is null like ilike mine asc desc ( ) , = != < <= > >= ~ !~ =~ == <> ; ! - -2d 2h30m 1e-3 nan -inf "
    "metrics. metrics.loss loss.min best( min( `a b` 'x' \"y\" ' \" ` status running start 2026-11-01 dataset.name "
    "tags.`t` . .. lr (?:a|b)* a++ [ ]] \\ é 漢 \x00 \ud800 \n"
).split(" ")


@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from(SCRAPS), max_size=12).map(" ".join)),
    st.booleans(),
)
@example("metrics.", False)
@example("start > 99999999-01-01", False)
@example("start > +" + "9" * 400 + "d", False)
@example("x = " + "9" * 5000, False)
def test_only_filter_errors_come_out(text: str, mlflow: bool) -> None:
    try:
        assert isinstance(parse(text, mlflow), Expr)
    except FilterError as error:
        assert error.message.endswith((".", "?"))
        assert 0 <= error.position <= len(text)
        assert len(error.excerpt().split("\n")) == 2


@given(
    st.one_of(st.text(max_size=40), st.lists(st.sampled_from(SCRAPS), max_size=6).map(" ".join)),
    st.booleans(),
)
def test_only_filter_errors_come_out_of_a_sort_key(text: str, mlflow: bool) -> None:
    try:
        parse_sort([text], mlflow)
    except FilterError as error:
        assert 0 <= error.position <= len(text)
