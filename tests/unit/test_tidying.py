"""What tidying would let go: never the best, never what goes on, is pinned or served, never the newest checkpoint."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mltrack.store.records import Run, Summary
from mltrack.tui.tidying import is_checkpoint, judge_checkpoints, keep_best


def run(number: int, value: float | None, status: str = "FINISHED", pinned: bool = False) -> Run:
    metrics = {}
    if value is not None:
        finite = None if math.isnan(value) else value
        metrics["loss"] = Summary("loss", 0, 1, 0, value, finite, 1, finite, 1, 2, 0)
    return Run(f"r{number:02}", f"run-{number}", "e", status, pinned=pinned, metrics=metrics)


VALUES = st.none() | st.floats(allow_nan=True, allow_infinity=False, width=16)
RUNS = st.lists(
    st.tuples(VALUES, st.sampled_from(["FINISHED", "FAILED", "RUNNING"]), st.booleans()), max_size=12
)


@given(RUNS, st.integers(0, 5), st.sampled_from(["min", "max"]))
def test_nothing_better_goes_than_what_is_kept(
    drawn: list[tuple[float | None, str, bool]], count: int, direction: str
) -> None:
    runs = [run(place, *one) for place, one in enumerate(drawn)]
    trimmed = keep_best(runs, "loss", count, direction, {"r00"})  # type: ignore[arg-type]
    parts = [*trimmed.kept, *trimmed.others, *(one for one, _ in trimmed.spared)]
    assert sorted(one.run_id for one in parts) == [one.run_id for one in runs]
    assert len(trimmed.kept) <= count and (len(trimmed.kept) == count or not trimmed.others)
    assert all(one.status != "RUNNING" and not one.pinned and one.run_id != "r00" for one in trimmed.others)

    def good(one: Run) -> float:
        summary = one.metrics.get("loss")
        value = None if summary is None else summary.min
        return -math.inf if value is None else -value if direction == "min" else value

    if trimmed.kept and trimmed.others:
        assert min(map(good, trimmed.kept)) >= max(map(good, trimmed.others))


def test_checkpoints_are_known_by_their_names() -> None:
    names = ["checkpoints/epoch-3.ckpt", "ckpt_100.pt", "model-step200.safetensors", "weights/w.bin"]
    assert all(map(is_checkpoint, names))
    assert not any(
        map(is_checkpoint, ["model.pt", "data/train.bin", "epoch.txt", "checkpoints/readme.md", "plot.png"])
    )


def test_the_newest_and_the_best_of_a_run_that_ended_are_needed() -> None:
    files = [(f"checkpoints/step-{step}.ckpt", 10, step) for step in (9, 100, 20)]
    files += [("checkpoints/best.ckpt", 10, 1), ("model.pt", 10, 1)]
    found = {one.name: one.needed for one in judge_checkpoints(run(1, 1.0), files)}
    assert found == {
        "checkpoints/step-9.ckpt": "",
        "checkpoints/step-20.ckpt": "",
        "checkpoints/step-100.ckpt": "the newest of its run",
        "checkpoints/best.ckpt": "called best",
    }
    for kept in (run(1, 1.0, "RUNNING"), run(1, 1.0, pinned=True)):
        assert all(one.needed for one in judge_checkpoints(kept, files))
    assert all(one.needed for one in judge_checkpoints(run(1, 1.0), files, {"r01"}))
