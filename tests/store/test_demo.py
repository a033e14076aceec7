"""The demo's story holds what docs and screens tell of it, and is the same for the same seed."""

from __future__ import annotations

from pathlib import Path

from mltrack.store import Store, open_store
from mltrack.store.demo.story import Story

NOW = 1_795_000_000_000


def told(root: Path, now_ms: int | None = NOW) -> Store:
    Story(root, 7, now_ms).write()
    store = open_store(str(root))
    store.refresh(None)
    return store


def test_five_models_each_with_a_story_of_its_own(tmp_path: Path) -> None:
    with told(tmp_path, None) as store:  # now: what serves has just been heard
        registry = store.registry
        standing = {each.name: each for each in registry.standings()}
        assert sorted(standing) == ["churn", "fraud", "ocr-lines", "ranker", "tts-small"]
        assert [registry.holder(name, "Production") for name in sorted(standing)] == [7, 4, 1, 4, 4]
        (request,) = registry.requests("open", "churn")
        assert (request.version, request.target, request.actor) == (8, "Production", "bob")
        assert registry.resolve("models:/churn@champion").version == 7
        assert [row.version for row in registry.audit("ocr-lines") if "rolled back" in row.action] == [1]
        served = {each.name: each.version for each in registry.serving()}
        assert served["churn"] == 7 and served["fraud"] == 3 < 4, "fraud is served behind"
        assert {row.actor for row in registry.audit("tts-small")} == {"eve", "alice"}
        assert registry.verify_audit() is None
        times = [row.time_ms for row in registry.audit()]
        assert times == sorted(times)
        # A way back that works: the files of the version are there and are what was registered.
        for version in range(1, 10):
            assert registry.file_problems("churn", version) == []
        run = store.run(registry.version("churn", 8).run_id)
        assert run.metrics["val/auc"].last == 0.912 and run.experiment == "tabular/churn"


def test_files_are_where_artifacts_are_looked_for(tmp_path: Path) -> None:
    with told(tmp_path) as store:
        folder = store.run("calm-elk-12").folder
        assert folder is not None and (folder / "artifacts" / "confusion_matrix.json").is_file()
        assert not (folder / "confusion_matrix.json").exists()


def test_the_same_seed_tells_the_same_story(tmp_path: Path) -> None:
    answers = []
    for number in range(2):
        with told(tmp_path / str(number)) as store:
            ids = store.search("", sort=["name"]).run_ids
            runs = [
                (run.run_id, run.name, run.params, run.tags, repr(run.metrics)) for run in store.runs(ids)
            ]
            answers.append((runs, [row.hash for row in store.registry.audit()]))
    assert answers[0] == answers[1]


def test_one_run_is_only_followed(tmp_path: Path) -> None:
    with told(tmp_path) as store:
        (run_id,) = store.search("name like 'tb:%'").run_ids
        run = store.run(run_id)
        assert run.source and run.damage is None and run.skipped == 0
        assert 0.88 < run.metrics["val/acc"].max < 0.9 and run.metrics["train/loss"].count > 100  # type: ignore[operator]
        assert [state.kind for state in store.sources()] == ["tensorboard"]
