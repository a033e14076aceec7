"""Sweeps down to their best, the trash by its bytes, spare checkpoints, and notes that two people write at once."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable

from tests.conftest import folder_of

from mltrack.store.errors import Conflict
from mltrack.store.opening import open_store

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_best_of_a_sweep_stay_and_undo_brings_the_others_back(mltrack: Run, own_demo: str) -> None:
    sweep = ("--store", own_demo)
    before = mltrack(*sweep, "ls", "--ids").stdout.split()
    preview = mltrack(*sweep, "keep", "3", "sweep-7", "--dry-run").stdout
    assert preview.startswith("keeps ") and "nothing was changed" in preview
    assert "keeps sage-owl-41: it goes on" in preview or "keeps sage-owl-41  val/acc .9312" in preview
    assert mltrack(*sweep, "ls", "--ids").stdout.split() == before
    assert mltrack(*sweep, "keep", "3", "sweep-7", "--yes").returncode == 0
    left = set(mltrack(*sweep, "ls", "--ids").stdout.split())
    gone = set(before) - left
    assert len(gone) > 25 and left < set(before)
    listing = mltrack(*sweep, "purge", "--all", "--dry-run").stdout.splitlines()
    assert len(listing) >= len(gone) + 1 and listing[-1].endswith("would go; nothing was changed")
    assert mltrack(*sweep, "undo").returncode == 0
    assert set(mltrack(*sweep, "ls", "--ids").stdout.split()) == set(before)


def test_spare_checkpoints_go_and_needed_ones_stay(mltrack: Run, small_store: str) -> None:
    ids = mltrack("--store", small_store, "ls", "--ids").stdout.split()
    folder = next(folder_of(small_store).glob(f"runs/*/{ids[0]}")) / "artifacts" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (1, 2, 10):
        (folder / f"step-{step}.ckpt").write_bytes(b"x" * 1000)
    listed = json.loads(mltrack("--store", small_store, "checkpoints", "--json").stdout)
    assert {one["file"]: one["needed"] for one in listed} == {
        "checkpoints/step-1.ckpt": None,
        "checkpoints/step-2.ckpt": None,
        "checkpoints/step-10.ckpt": "the newest of its run",
    }
    assert mltrack("--store", small_store, "checkpoints", "--delete").returncode == 2
    assert "2 checkpoints" in mltrack("--store", small_store, "checkpoints", "--delete", "--yes").stdout
    assert [path.name for path in folder.iterdir()] == ["step-10.ckpt"]


def test_of_two_who_write_the_same_note_one_is_told_and_no_text_is_lost(small_store: str) -> None:
    with open_store(small_store) as store:
        run_id = store.search().run_ids[0]
    outcomes: list[str] = []

    def write(text: str, ready: threading.Barrier) -> None:
        with open_store(small_store) as mine:
            ready.wait()
            try:
                mine.note(run_id, text, before)
                outcomes.append(text)
            except Conflict:
                outcomes.append("told")

    before = ""
    for turn in range(8):
        outcomes.clear()
        ready = threading.Barrier(2)
        people = [threading.Thread(target=write, args=(f"{who} {turn}", ready)) for who in ("ann", "bob")]
        for person in people:
            person.start()
        for person in people:
            person.join()
        with open_store(small_store) as store:
            note = store.run(run_id).note
        assert sorted(outcomes) == sorted([note, "told"]) and note != before
        before = note


def test_only_what_is_in_the_trash_is_restored(mltrack: Run, own_demo: str) -> None:
    answer = mltrack("--store", own_demo, "restore", "calm-elk-12")
    assert answer.returncode != 0 and "calm-elk-12 is not in the trash" in answer.stderr
    assert mltrack("--store", own_demo, "undo").returncode != 0


def test_few_runs_are_plotted_by_what_differs(mltrack: Run, demo_store: str) -> None:
    runs = ("sage-owl-41", "calm-elk-12", "dim-ram-23")
    for kind, title in (("scatter", "val/acc by data.crop"), ("parallel", "data.crop, lr, opt.name")):
        answer = mltrack("--store", demo_store, "plot", "--kind", kind, "", *runs)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.startswith(title)


def test_a_word_that_is_set_is_told_from_one_that_is_not(mltrack: Run, demo_store: str) -> None:
    rows = mltrack("--store", demo_store, "compare", "calm-elk-12", "dim-ram-23").stdout.splitlines()
    assert next(row.split() for row in rows if row.startswith("paper")) == ["paper", "\u2713", "\u00b7"]


def test_a_run_has_its_letter_in_the_bands_too(mltrack: Run, demo_store: str) -> None:
    names = ("dim-ram-23", "sage-owl-41", "calm-elk-12")
    lines = mltrack("--store", demo_store, "plot", "--kind", "bands", "val/acc", *names).stdout.splitlines()
    crops = {line.split()[0]: line for line in lines if " run " in line}
    assert sorted(crops) == ["a", "b", "c"] and "data.crop=224" in crops["a"] and "lion" in crops["c"]


def test_messages_name_the_run_and_titles_count_what_is_drawn(mltrack: Run, own_demo: str) -> None:
    assert mltrack("--store", own_demo, "pin", "calm-elk-12").stdout.strip() == "Pinned calm-elk-12"
    answer = mltrack("--store", own_demo, "rename", "calm-elk-12", "new")
    assert answer.stdout.strip() == "Renamed calm-elk-12 to new"
    title = mltrack("--store", own_demo, "plot", "--kind", "hist", "val/acc").stdout.splitlines()[0]
    every = mltrack("--store", own_demo, "ls", "--json").stdout
    count = sum("val/acc" in run["metrics"] for run in json.loads(every))
    assert f"{count} of " in title and 0 < count < len(json.loads(every))


def test_a_metric_without_a_good_end_is_measured_against_the_first_run(mltrack: Run, demo_store: str) -> None:
    rows = mltrack("--store", demo_store, "compare", "calm-elk-12", "dim-ram-23", "-m", "last").stdout
    row = next(row.split() for row in rows.splitlines() if row.startswith("grad_norm"))
    assert len(row) == 4 and row[3].endswith("%"), "the first is what the other is measured against"


def test_why_one_is_better_and_the_code_between_can_be_asked_at_the_prompt(
    mltrack: Run, demo_store: str
) -> None:
    runs = ("sage-owl-41", "calm-elk-12", "dim-ram-23")
    why = mltrack("--store", demo_store, "compare", *runs, "--why").stdout
    assert "Why a is better than c" in why and "data.crop" in why and "may be it" in why
    assert "not it" in next(line for line in why.splitlines() if line.startswith("  lr "))
    told = json.loads(mltrack("--store", demo_store, "compare", *runs, "--why", "--json").stdout)
    assert [line.rstrip() for line in told["lines"]] == [line.rstrip() for line in why.splitlines()[1:]]
    code = mltrack("--store", demo_store, "compare", runs[0], runs[2], "--code")
    assert code.returncode == 0 and code.stdout.startswith("code of a and b")
    assert "sage-owl-41" in code.stdout and "uncommitted changes" in code.stdout
    refused = mltrack("--store", demo_store, "compare", *runs, "--code")
    assert refused.returncode != 0 and "about two runs" in refused.stderr
    assert mltrack("--store", demo_store, "compare", runs[0], "--why").returncode != 0
