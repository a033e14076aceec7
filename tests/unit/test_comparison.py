"""What a comparison says about runs: pure, no store."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.records import Run, Summary
from mltrack.tui.cli.run_look import status_cell, status_sentence
from mltrack.tui.comparison import (
    Row,
    association,
    compare_rows,
    differing_packages,
    find_reasons,
    most_telling,
    other_rows,
    param_effects,
    parse_packages,
    text_diff,
)
from mltrack.tui.widgets.compare_table import fit


def make_run(name: str, acc: float | None, facts: dict[str, object] | None = None, **params: str) -> Run:
    metrics = {}
    if acc is not None:
        metrics["val/acc"] = Summary("val/acc", 0, 9, 0, acc, acc, 9, acc, 9, 10, 0)
    return Run(name, name, "sweep", "FINISHED", params=params, metrics=metrics, facts=facts or {})


def test_nan_and_infinity_are_never_best() -> None:
    row = Row("metrics", "val/loss", (math.nan, 0.5, -math.inf, None))
    assert row.best == 0.5
    assert Row("metrics", "val/loss", (math.nan, math.inf)).best is None
    assert Row("metrics", "val/acc", (0.1, 0.9, math.inf)).best == 0.9
    assert Row("metrics", "lr", (0.1, 0.9)).best is None, "nobody optimises a learning rate"


def test_nan_equals_nan_but_not_a_number() -> None:
    assert not Row("metrics", "loss", (math.nan, float("nan"))).differs
    assert Row("metrics", "loss", (math.nan, 1.0)).differs
    assert Row("params", "lr", ("1", None)).differs


def test_a_value_that_others_do_well_with_is_cleared() -> None:
    good = [
        make_run(f"g{i}", 0.93 + i / 1000, lr=lr, crop="32") for i, lr in enumerate(("1e-4", "9e-4", "9e-4"))
    ]
    bad = make_run("bad", 0.81, lr="1e-3", crop="224")
    reasons = find_reasons(good[2], bad, [*good, bad], "val/acc")
    assert [(reason.key, reason.others) for reason in reasons] == [("crop", 0), ("lr", 2)]
    assert reasons[0].blame == 1.0 and reasons[1].blame < 0.1
    effects = param_effects([good[0], bad], [*good, bad], "val/acc")
    assert effects["crop"] == 1.0 and effects["lr"] < 0.1


def test_seeds_are_never_blamed_first() -> None:
    runs = [make_run("a", 0.9, seed="1", lr="1"), make_run("b", 0.5, seed="2", lr="2")]
    assert [reason.key for reason in find_reasons(runs[0], runs[1], runs, "val/acc")] == ["lr", "seed"]
    assert "seed" not in param_effects(runs, runs, "val/acc")


def test_code_and_data_are_reasons_too() -> None:
    one = make_run("a", 0.9, {"git": {"commit": "a" * 40}, "packages": "1" * 64})
    other = make_run("b", 0.5, {"git": {"commit": "b" * 40}, "packages": "2" * 64})
    keys = {reason.key for reason in find_reasons(one, other, [one, other], "val/acc")}
    assert keys == {"(commit)", "(packages)"}


def test_without_results_there_are_no_reasons() -> None:
    one, other = make_run("a", None, lr="1"), make_run("b", math.nan, lr="2")
    assert find_reasons(one, other, [one, other], "val/acc") == []
    assert param_effects([one, other], [one, other], "val/acc") == {}


def test_params_are_ordered_by_effect_and_metrics_by_the_goal() -> None:
    runs = [make_run("a", 0.9, a_first="1", z_cause="x"), make_run("b", 0.5, a_first="2", z_cause="y")]
    rows = compare_rows(runs, "best", effects={"z_cause": 0.9, "a_first": 0.1})
    assert [row.key for row in rows if row.section == "params"] == ["z_cause", "a_first"]
    metrics = [Row("metrics", key, (1.0, 2.0)) for key in ("a", "val/loss", "val/acc", "lr")]
    assert [row.key for row in most_telling(metrics, "val/acc")] == ["val/acc", "val/loss", "a", "lr"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-5, 5)), min_size=3, max_size=30))
def test_an_association_is_a_share(pairs: list[tuple[str, float]]) -> None:
    share = association([value for value, _ in pairs], [goal for _, goal in pairs])
    assert 0.0 <= share <= 1.0


def test_association_knows_causes_from_noise() -> None:
    chance = random.Random(7)
    numbers = [chance.random() for _ in range(60)]
    goals = [-number + 0.05 * chance.random() for number in numbers]
    noise = [chance.choice("abc") for _ in numbers]
    assert association([repr(number) for number in numbers], goals) > 0.9
    assert association(noise, goals) < 0.2
    assert association([str(place) for place in range(60)][::-1], [0.0] * 60) == 0.0
    assert association([f"own-{place}" for place in range(60)], goals) == 0.0


def test_one_diverged_run_does_not_decide() -> None:
    lr = ["1", "2", "3", "4", "5", "6", "7", "8"]
    goals = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, -1e9]
    assert association(lr, goals) < 1.0
    assert association(lr[:7], goals[:7]) == pytest.approx(1.0)


def test_packages() -> None:
    lists = [
        parse_packages("numpy==2\ntorch==2.14\nzlib==1\n"),
        parse_packages("numpy==2\ntorch==2.15\nabc==1\n"),
    ]
    assert differing_packages(lists) == ["torch", "abc", "zlib"]
    texts = {"1" * 64: "numpy==2\ntorch==2.14\n", "2" * 64: "numpy==2\ntorch==2.15\n"}
    runs = [
        make_run("a", 1.0, {"packages": "1" * 64}),
        make_run("b", 1.0, {"packages": "2" * 64}),
        make_run("c", 1.0),
    ]
    rows = compare_rows(runs, "best", read_blob=texts.get)
    packages = next(row for row in rows if row.key == "packages")
    assert packages.values == ("torch 2.14  1111", "torch 2.15  2222", None)
    lost = compare_rows(runs[:2], "best", read_blob=lambda digest: None)
    assert next(row for row in lost if row.key == "packages").values[0] == "1111111111 (list not here)"


def test_a_diff_is_a_patch_and_equal_texts_have_none() -> None:
    assert text_diff("a\nb", "a\nb", ("x", "y")) == []
    lines = text_diff("a\nb\n", "a\nc\n", ("x", "y"))
    assert ("-b", "red") in lines and ("+c", "green") in lines


def test_a_cell_that_is_too_narrow_keeps_what_it_says() -> None:
    assert fit(".192452  +16.2%", 13) == ".1924  +16.2%"
    assert fit(".9287  -.25%", 13) == ".9287  -.25% "
    assert fit("1.5e-12345  +16.2%", 12) == "1.5e-12345 …"
    assert fit("5ffab92d3a ± e306cc ◄", 14) == "5ffab92d3a … ◄" or fit("5ffab92d3a ± e306cc ◄", 14).endswith(
        "… ◄"
    )


def test_a_signal_has_its_name_where_there_is_no_room_for_more() -> None:
    killed = Run("a", "a", "e", "KILLED", reason="signal 15 (SIGTERM)")
    assert status_cell(killed, 0).text == "✗ SIGTERM"
    assert status_sentence(killed, 0) == "✗ killed: signal 15 (SIGTERM)"


def test_the_script_of_a_command_that_knows_nothing_of_us_is_the_one_it_names() -> None:
    own, other = (
        Run("a", "a", "e", "FINISHED", facts={"script": "/p/train.py", "command": ["python", "train.py"]}),
        Run(
            "b", "b", "e", "FINISHED", facts={"script": "", "command": ["python", "/q/train.py", "--lr", "1"]}
        ),
    )
    rows = {row.key: row.values for row in other_rows([own, other])}
    assert rows["script"] == ("/p/train.py", "/q/train.py")
    nothing = Run("c", "c", "e", "FINISHED", facts={"command": ["make"]})
    assert {row.key: row.values for row in other_rows([own, nothing])}["script"] == ("/p/train.py", None)


def test_what_values_are_measured_against() -> None:
    assert Row("metrics", "val/acc", (0.1, 0.3, None)).reference == 0.3
    assert Row("metrics", "grad_norm", (None, math.nan, 2.0, 3.0)).reference == 2.0
    assert Row("params", "lr", ("1", "2")).reference is None
