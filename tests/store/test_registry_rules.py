"""The registry's rules: the way back is verified, policies hold, nothing that is registered is lost, and no death halves a promotion."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import take_in

from mltrack.store import Store, open_store
from mltrack.store.acting import acting
from mltrack.store.client.journal import run_folder
from mltrack.store.errors import BadInput, Conflict, Forbidden, NotFound
from mltrack.store.hooks import tell
from mltrack.store.policy import change_policy, parse_policy
from mltrack.store.records import Actor

MLMODEL = (
    "flavors: {python_function: {loader_module: os}}\n"
    'signature: {inputs: \'[{"type": "double", "name": "a"}]\'}\n'
)


@pytest.fixture
def store(store_root: Path) -> Iterator[Store]:
    with open_store() as opened:
        yield opened


@contextlib.contextmanager
def person(name: str, channel: str = "cli") -> Iterator[None]:
    with acting(Actor(name, channel, "token")):
        yield


def model_folder(tmp_path: Path, name: str, text: str = "weights") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "weights.bin").write_text(text)
    return folder


def stages(store: Store, name: str = "m") -> dict[int, str]:
    return {version.version: version.stage for version in store.registry.versions(name)}


def test_a_folder_that_is_registered_is_kept_whatever_happens_to_the_original(
    store: Store, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path, "one")
    assert store.registry.register_from(str(folder), "m") == 1
    shutil.rmtree(folder)
    assert store.registry.file_problems("m", 1) == []
    kept = store.registry.locate("models:/m/1")
    assert (kept / "weights.bin").read_text() == "weights"
    store.gc()
    os.utime(kept, (1, 1))
    store.gc()
    assert kept.is_dir()
    store.registry.delete_version("m", 1)
    store.gc()
    assert not kept.exists()


def test_what_is_no_model_is_not_registered(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for uri in (str(tmp_path / "empty"), str(tmp_path / "none"), "runs:/" + "0" * 32 + "/model", "s3://b/m"):
        with pytest.raises((BadInput, NotFound)):
            store.registry.register_from(uri, "m")
    assert store.registry.models() == []


def test_the_way_back_is_the_one_before_and_is_verified_first(store: Store, tmp_path: Path) -> None:
    registry = store.registry
    for number in (1, 2, 3):
        registry.register_from(str(model_folder(tmp_path, f"v{number}", f"weights {number}")), "m")
        registry.promote("m", number, "Production", f"step {number}")
    assert registry.previous("m", "Production") == 2
    weights = registry.locate("models:/m/2") / "weights.bin"
    before = weights.read_text()
    weights.chmod(0o600)
    weights.write_text("weights X")
    with pytest.raises(Conflict, match=r"weights\.bin was changed"):
        registry.rollback("m", reason="latency")
    assert stages(store) == {1: "Archived", 2: "Archived", 3: "Production"}
    weights.write_text(before)
    registry.rollback("m", reason="latency")
    assert stages(store) == {1: "Archived", 2: "Production", 3: "Archived"}
    assert registry.audit("m")[-1].action == "rolled back"
    # The way back from there is what was before, not the version that was just left.
    assert registry.previous("m", "Production") == 1
    registry.rollback("m")
    with pytest.raises(NotFound, match="no way back"):
        registry.rollback("m")


def test_an_alias_has_a_way_back_too(store: Store) -> None:
    registry = store.registry
    for number in (1, 2):
        registry.register("m", "s3://m")
        registry.set_alias("m", "champion", number)
    assert registry.previous("m", "@champion") == 1
    with pytest.raises(Conflict, match="out of reach"):
        registry.rollback("m", "@champion")
    registry.rollback("m", "@champion", verify=False)
    assert registry.aliases("m") == {"champion": 1}


def test_what_the_registry_was_at_a_moment(store: Store) -> None:
    registry = store.registry
    registry.register("m", "a")
    registry.register("m", "b")
    registry.promote("m", 1, "Production", "")
    registry.set_alias("m", "champion", 1)
    then = registry.audit("m")[-1].time_ms
    registry.promote("m", 2, "Production", "")
    registry.set_alias("m", "champion", 2)
    registry.delete_version("m", 1)
    assert registry.at("m", then) == {1: ("Production", ("champion",)), 2: ("None", ())}
    assert registry.at("m", 2**53) == {2: ("Production", ("champion",))}


def test_a_second_person_has_to_approve(store: Store) -> None:
    registry = store.registry
    registry.register("m", "a")
    registry.set_policy("m", change_policy(parse_policy("{}"), "approvals", "1"))
    with person("ann"):
        with pytest.raises(Forbidden, match="second person"):
            registry.promote("m", 1, "Production", "mine")
        asked = registry.request("m", 1, "production", "passes shadow week 46")
        with pytest.raises(Conflict, match="asked for already"):
            registry.request("m", 1, "Production")
        with pytest.raises(Forbidden, match="somebody else than ann"):
            registry.answer(asked.id, True)
        registry.promote("m", 1, "Staging", "not protected")
    assert [request.actor for request in registry.requests()] == ["ann"]
    with person("bob", "rest"):
        registry.answer(asked.id, True, "looks good")
        with pytest.raises(NotFound, match="not open any more"):
            registry.answer(asked.id, False)
    assert stages(store) == {1: "Production"} and registry.requests() == []
    row = registry.audit("m")[-1]
    assert (row.actor, row.channel, row.identity) == ("bob", "rest", "token")
    assert "asked by ann" in row.reason
    assert registry.verify_audit() is None


def test_only_those_who_are_named_promote_and_change_the_policy(store: Store) -> None:
    registry = store.registry
    registry.register("m", "a")
    policy = change_policy(parse_policy("{}"), "protected", "Production,@champion")
    registry.set_policy("m", change_policy(policy, "promoters", "ann"))
    with person("bob"):
        for act in (
            lambda: registry.promote("m", 1, "Production", ""),
            lambda: registry.set_alias("m", "champion", 1),
            lambda: registry.set_policy("m", parse_policy("{}")),
        ):
            with pytest.raises(Forbidden, match="ann"):
                act()
        registry.set_alias("m", "candidate", 1)
    with person("ann"):
        registry.promote("m", 1, "Production", "")
        registry.set_alias("m", "champion", 1)
    with person("bob"), pytest.raises(Forbidden):
        registry.set_alias("m", "champion", None)
    assert registry.aliases("m") == {"candidate": 1, "champion": 1}


def test_a_blocking_check_keeps_versions_out(store: Store, tmp_path: Path) -> None:
    registry = store.registry
    registry.register_from(str(model_folder(tmp_path, "one")), "m")
    registry.promote("m", 1, "Production", "")
    narrower = model_folder(tmp_path, "two", "other")
    (narrower / "MLmodel").write_text(MLMODEL.replace("double", "long"))
    registry.register_from(str(narrower), "m")
    registry.set_policy("m", change_policy(registry.model("m").policy, "signature", "block"))
    from mltrack.store.model_checks import require_passed

    with pytest.raises(Forbidden, match="asks for checks"):
        registry.promote("m", 2, "Production", "")
    with pytest.raises(Forbidden, match="callers of v1 would fail: a takes long, no longer double"):
        require_passed(store, "m", 2, "Production")
    assert stages(store) == {1: "Production", 2: "None"}


def test_what_something_points_to_is_not_deleted(store: Store) -> None:
    registry = store.registry
    for _ in range(3):
        registry.register("m", "a")
    registry.promote("m", 1, "Production", "")
    registry.set_alias("m", "champion", 2)
    for version, why in ((1, "in Production"), (2, "@champion")):
        with pytest.raises(Conflict, match=why):
            registry.delete_version("m", version)
    with pytest.raises(Conflict):
        registry.delete_model("m")
    registry.set_tag("m", "kind", "tree", 3)
    registry.delete_version("m", 3)
    assert registry.register("m", "a") == 4
    store.undo()
    store.undo()
    assert registry.version("m", 3).tags == {"kind": "tree"}
    before = (registry.versions("m"), registry.aliases("m"), registry.model("m"))
    registry.delete_model("m", force=True)
    assert registry.models() == []
    store.undo()
    assert (registry.versions("m"), registry.aliases("m"), registry.model("m")) == before
    assert registry.verify_audit() is None


def test_a_promotion_that_others_built_on_is_not_taken_back(store: Store) -> None:
    registry = store.registry
    for _ in range(3):
        registry.register("m", "a")
    registry.promote("m", 1, "Production", "")
    with person("ann"):
        registry.promote("m", 2, "Production", "")
    with person("bob"):
        registry.promote("m", 3, "Production", "")
    with person("ann"), pytest.raises(Conflict, match="since"):
        store.undo()
    assert stages(store) == {1: "Archived", 2: "Archived", 3: "Production"}


def test_runs_that_versions_are_made_of_are_neither_purged_nor_collected(store: Store) -> None:
    run_id = "a" * 32
    code = f"import mltrack\nwith mltrack.start_run({run_id!r}, system_metrics=False):\n mltrack.log_text({MLMODEL!r}, 'model/MLmodel')"
    subprocess.run([sys.executable, "-c", code], check=True)
    take_in(store)
    store.registry.register_from(f"runs:/{run_id}/model", "m")
    assert store.registry.version("m", 1).run_id == run_id
    store.trash([run_id])
    with pytest.raises(Conflict, match="registered model version"):
        store.purge([run_id])
    store.gc(trash_days=0)
    assert (run_folder(store.root, run_id) / "artifacts" / "model" / "MLmodel").is_file()
    store.registry.delete_version("m", 1)
    store.gc(trash_days=0)
    assert not run_folder(store.root, run_id).exists()


def test_renamed_models_keep_everything_but_their_name(store: Store) -> None:
    registry = store.registry
    registry.create_model("old", "about")
    registry.register("old", "a")
    registry.set_alias("old", "champion", 1)
    registry.set_tag("old", "team", "fraud")
    registry.request("old", 1, "Production")
    registry.create_model("taken")
    with pytest.raises(Conflict, match="already"):
        registry.rename_model("old", "taken")
    registry.rename_model("old", "new@x")
    assert registry.resolve("models:/new@x@champion").version == 1
    assert registry.model("new@x").tags == {"team": "fraud"}
    assert [request.name for request in registry.requests()] == ["new@x"]
    store.undo()
    assert registry.models() == ["old", "taken"]


def test_a_hook_of_mine_hears_of_it_and_cannot_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mltrack").mkdir()
    script = f"import sys; open({str(tmp_path / 'heard')!r}, 'w').write(sys.stdin.read())"
    config = tmp_path / "mltrack" / "config.toml"
    config.write_text(
        f"[hooks]\npromote = {json.dumps([sys.executable, '-c', script])}\nrollback = ['/nonexistent']\n"
    )
    assert tell("promote", {"name": "m", "version": 3}) == []
    assert json.loads((tmp_path / "heard").read_text()) == {"event": "promote", "name": "m", "version": 3}
    assert tell("rollback", {}) == [
        "The hook /nonexistent for rollback cannot be started (No such file or directory)."
    ]
    config.write_text("[hooks\n")
    assert tell("promote", {}) == []


PROMOTER = """
import sys
from mltrack.store import open_store
with open_store(sys.argv[1]) as store:
    print("ready", flush=True)
    while True:
        for version in (1, 2):
            store.registry.promote("m", version, "Production", "again")
            store.registry.set_alias("m", "champion", version)
"""


def test_a_killed_promoter_leaves_a_promotion_done_or_not(store_address: str) -> None:
    with open_store(store_address) as store:
        for _ in range(2):
            store.registry.register("m", "a")
    chance = random.Random(7)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", PROMOTER, store_address], stdout=subprocess.PIPE, env=os.environ
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(chance.random() * 0.3)
            child.send_signal(signal.SIGKILL)
        with open_store(store_address) as store:
            held = [version for version, stage in stages(store).items() if stage == "Production"]
            assert len(held) <= 1
            assert store.registry.verify_audit() is None
            rows = store.registry.audit("m")
            arrived = [row.version for row in rows if row.new_value == "Production"]
            assert held == arrived[-1:]
    with open_store(store_address) as store:
        store.registry.promote("m", 1, "Production", "after all")


# Promotes what it is told to when it is told, as somebody who saw that holder: "won", or why not.
RACER = """
import sys
from mltrack.store import open_store
from mltrack.store.errors import Conflict
with open_store(sys.argv[1]) as store:
    for line in sys.stdin:
        version, holder = map(int, line.split())
        try:
            store.registry.promote("m", version, "Production", "race", expected_holder=holder)
            print("won", flush=True)
        except Conflict as error:
            print(error.message, flush=True)
"""


@pytest.mark.long
def test_a_thousand_races_leave_one_production_each(store_address: str) -> None:
    with open_store(store_address) as store:
        for _ in range(3):
            store.registry.register("m", "a")
        store.registry.promote("m", 1, "Production", "first")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, store_address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    with open_store(store_address) as store:
        holder = 1
        for _ in range(1000):
            others = [version for version in (1, 2, 3) if version != holder]
            answers = _at_once(racers, [f"{version} {holder}" for version in others])
            won = [version for version, answer in zip(others, answers, strict=True) if answer == "won"]
            assert len(won) == 1, answers
            [told] = [answer for answer in answers if answer != "won"]
            # The one who was too late is told who holds it now, since when, and by whose hand.
            assert f"Production of m is now v{won[0]} (by " in told and " ago)" in told, told
            held = [version for version, stage in stages(store).items() if stage == "Production"]
            assert held == won
            holder = won[0]
        rows = store.registry.audit("m")
        assert sum(row.new_value == "Production" for row in rows) == 1001
        assert sum(row.new_value == "Archived" for row in rows) == 1000
        assert store.registry.verify_audit() is None
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0


def _at_once(processes: list[subprocess.Popen[str]], lines: list[str]) -> list[str]:
    """Say something to each before any of them can be done, and what they answer."""
    for process, line in zip(processes, lines, strict=True):
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline().strip())
    return answers


@pytest.mark.long
def test_thirty_two_processes_register_at_once(store_address: str) -> None:
    code = "import sys\nfrom mltrack.store import open_store\nwith open_store(sys.argv[1]) as s: print(s.registry.register('m', 'a'))"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, store_address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(32)
    ]
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(answers, key=int) == [str(number) for number in range(1, 33)]


def test_many_models_are_listed_in_a_handful_of_statements(store: Store) -> None:
    for model in range(50):
        for _ in range(3):
            store.registry.register(f"m{model:02}", "a")
        store.registry.promote(f"m{model:02}", 2, "Production", "")
    statements: list[str] = []
    execute = store.database.execute

    def counted(sql: str, parameters: object = ()) -> list[tuple[object, ...]]:
        statements.append(sql)
        return execute(sql, parameters)  # type: ignore[arg-type]

    store.database.execute = counted  # type: ignore[method-assign, assignment]
    standings = store.registry.standings()
    assert len(standings) == 50 and len(statements) < 12
    assert {(each.versions, each.production[0].version) for each in standings} == {(3, 2)}
