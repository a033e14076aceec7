"""Many processes at once: creating, writing, forking, ranks, namespaces, and reading while somebody folds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import take_in

from mltrack.store import open_store
from mltrack.store.errors import NotFound
from mltrack.store.records import Run

RUN = "0c" * 16
PATIENCE_SECONDS = 120.0


@pytest.fixture(autouse=True)
def quick(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLTRACK_CONSOLE", "MLTRACK_FACTS", "MLTRACK_SYSTEM_METRICS"):
        monkeypatch.setenv(name, "0")


def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def all_fine(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for all; what each printed. Every one must have ended well and said nothing on stderr."""
    said = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    ends = [(process.returncode, err) for process, (_, err) in zip(processes, said, strict=True)]
    assert ends == [(0, "")] * len(processes)
    return [out for out, _ in said]


def wait_for(right: Callable[[Run], bool], run_id: str = RUN) -> Run:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with open_store() as store:
            take_in(store)
            found = store.runs([run_id])
        if found and right(found[0]):
            return found[0]
        if time.monotonic() > deadline:
            pytest.fail(f"never became so: {found}")
        time.sleep(0.2)


def test_32_processes_open_an_empty_store_at_once(tmp_path: Path, store_root: Path) -> None:
    go = tmp_path / "go"
    code = f"""
import os, sys, time
from mltrack.store import open_store
print("ready", flush=True)
while not os.path.exists({str(go)!r}):
    time.sleep(0.001)
with open_store() as store:
    store.refresh(None)
    assert store.search("").total == 0
    print(store.database.setting("store_id"))
"""
    processes = [start(code) for _ in range(32)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    go.touch()
    assert len(set(all_fine(processes))) == 1, "all have the one store"
    assert [path.name for path in store_root.glob(".*")] == []


def test_64_writers_and_readers_that_fold_meanwhile(tmp_path: Path, store_root: Path) -> None:
    code = """
import sys
import mltrack
with mltrack.start_run(run_name=f"w{sys.argv[1]}") as run:
    mltrack.log_param("number", sys.argv[1])
    for step in range(300):
        mltrack.log_metrics({"loss": step / 3, "number": float(sys.argv[1])}, step=step)
print(run.run_id)
"""
    folding = """
import os
from mltrack.store import open_store
from mltrack.store.errors import NotFound
with open_store() as store:
    while not os.path.exists("STOP"):
        store.refresh(0.1)
        for run in store.runs(store.search("metrics.loss >= 0", sort=["-metrics.loss"]).run_ids[:5]):
            try:
                points = store.points(run.run_id, "loss")
            except NotFound as error:
                assert "only a summary" in error.message  # its writer summed up points that are not read yet
                continue
            assert points.steps.tolist() == list(range(len(points.steps)))
""".replace("STOP", str(tmp_path / "stop"))
    readers = [start(folding) for _ in range(3)]
    ids: list[str] = []
    for first in range(0, 64, 32):
        ids += all_fine([start(code, str(number)) for number in range(first, first + 32)])
    (tmp_path / "stop").touch()
    all_fine(readers)
    with open_store() as store:
        take_in(store)
        runs = store.runs([text.strip() for text in ids])
        assert len(runs) == 64
        for number, run in enumerate(runs):
            assert (run.status, run.params) == ("FINISHED", {"number": str(number)})
            assert run.metrics["loss"].count == 300 and run.skipped == 0
            assert store.points(run.run_id, "loss").values.tolist() == [step / 3 for step in range(300)]
        assert list((store_root / "open").iterdir()) == [], "nothing is open any more"


def test_forked_children_log_to_their_own_journals(store_root: Path) -> None:
    code = f"""
import os, sys
import mltrack
run = mltrack.start_run(run_id={RUN!r})
mltrack.log_metric("parent", 0.0, step=0)
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        for step in range(200):
            mltrack.log_metric(f"child{{child}}", float(step), step=step)
        mltrack.log_param(f"child{{child}}", "here")
        os._exit(0) if child % 2 else sys.exit(0)
    children.append(pid)
for step in range(1, 200):
    mltrack.log_metric("parent", float(step), step=step)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
mltrack.log_metric("parent", 200.0, step=200)
"""
    all_fine([start(code)])
    with open_store() as store:
        take_in(store)
        run = store.run(RUN)
        assert run.status == "FINISHED" and run.exit_code == 0 and run.skipped == 0
        assert run.params == {f"child{child}": "here" for child in range(4)}
        assert store.points(RUN, "parent").steps.tolist() == list(range(201))
        for child in range(4):
            assert store.points(RUN, f"child{child}").steps.tolist() == list(range(200))
    jids = {path.name.split(".")[1] for path in store_root.glob("runs/*/*/points.*")}
    assert len(jids) == 5


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_data_loader_workers_leave_the_run_alone(tmp_path: Path, store_root: Path, method: str) -> None:
    """A pool of workers, one of which dies, as data loaders do: the run goes on and ends as its own process ended."""
    script = tmp_path / "training.py"
    script.write_text(
        f"""
import multiprocessing, os, signal, time
import mltrack

def load(item):
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * 2

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with mltrack.start_run(run_id={RUN!r}):
        with context.Pool(2) as pool:
            for step, value in enumerate(pool.imap(load, [1, 2, 3])):
                mltrack.log_metric("loss", float(value), step=step)
            pool.apply_async(load, (7,))
            time.sleep(0.2)
            pool.terminate()
        workers = [context.Process(target=load, args=(1,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        mltrack.log_metric("loss", 9.0, step=3)
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0 and "mltrack" not in done.stderr, done.stderr
    with open_store() as store:
        take_in(store)
        assert store.search("").run_ids == (RUN,)
        assert store.run(RUN).status == "FINISHED"
        assert store.points(RUN, "loss").values.tolist() == [2.0, 4.0, 6.0, 9.0]
    assert list((store_root / "open").iterdir()) == []


def test_8_ranks_write_one_run(store_root: Path) -> None:
    code = """
import os, time
import mltrack
rank = int(os.environ["RANK"])
if rank == 0:
    time.sleep(0.2)  # the others are first
with mltrack.start_run(run_name="ddp", tags={"from": rank}) as run:
    mltrack.log_params({"lr": 0.1, "rank": rank})
    for step in range(100):
        mltrack.log_metric("loss", rank + step / 7, step=step)
    if rank == 3:
        mltrack.log_metric("only 3", 1.0, step=0)
os.write(1, f"{run.run_id}\\n".encode())
"""
    launcher = """
import os, subprocess, sys
common = {**os.environ, "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8", "MASTER_PORT": "29500"}
ranks = [
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
    for rank in range(8)
]
sys.exit(max(rank.wait() for rank in ranks))
"""
    ids: set[str] = set()
    for said in all_fine([start(launcher, code) for _ in range(2)]):  # two launches are two runs
        assert len(said.split()) == 8 and len(set(said.split())) == 1, "all ranks have one run"
        ids |= set(said.split())
    assert len(ids) == 2
    with open_store() as store:
        take_in(store)
        assert store.search("").total == 2
        for run in store.runs(sorted(ids)):
            assert (run.name, run.status, run.exit_code) == ("ddp", "FINISHED", 0)
            assert run.tags == {"from": "0"} and run.params == {"lr": "0.1", "rank": "0"}
            assert run.conflicts == {} and "only 3" not in run.metrics
            assert run.metrics["loss"].count == 100 and run.metrics["loss"].last == 99 / 7
            for rank in range(8):
                points = store.points(run.run_id, "loss", rank=rank)
                assert points.values.tolist() == [rank + step / 7 for step in range(100)]


def test_each_machine_of_a_training_is_sampled_by_its_first_rank(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLTRACK_SYSTEM_METRICS")
    code = """
import time
import mltrack
with mltrack.start_run():
    mltrack.log_metric("loss", 1.0, step=0)
    time.sleep(1.3)
"""
    common = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    ranks = [start(code, RANK=str(rank), LOCAL_RANK=str(rank % 2), **common) for rank in range(4)]
    all_fine(ranks)
    with open_store() as store:
        take_in(store)
        (run_id,) = store.search("").run_ids
        assert store.run(run_id).status == "FINISHED"
        for rank in (0, 2):
            assert len(store.points(run_id, "system/memory_bytes", rank=rank).steps) > 0
        for rank in (1, 3):
            with pytest.raises(NotFound):
                store.points(run_id, "system/memory_bytes", rank=rank)
    assert list((store_root / "open").iterdir()) == []


@pytest.mark.parametrize("begin", ["before the others", "with the others"])
def test_ranks_that_lightning_starts_join_the_run_of_the_first(
    tmp_path: Path, store_root: Path, begin: str
) -> None:
    """Its launcher: the script itself becomes rank 0 and starts itself anew for the others, who set no RANK."""
    script = tmp_path / "train.py"
    script.write_text("""
import os, subprocess, sys
import mltrack
runs = []
def begin():
    runs.append(mltrack.start_run(run_name="tuned").run_id)
if sys.argv[1] == "before the others":
    begin()
    mltrack.end_run()
    begin()
others = []
if "LOCAL_RANK" not in os.environ:
    os.environ.update(LOCAL_RANK="0", NODE_RANK="0", WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT="29501")
    for rank in "12":
        others.append(subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "LOCAL_RANK": rank}))
if sys.argv[1] != "before the others":
    begin()
rank = int(os.environ["LOCAL_RANK"])
mltrack.log_metric("loss", float(rank), step=0)
for other in others:
    assert other.wait() == 0
mltrack.end_run()
os.write(1, (" ".join(runs) + "\\n").encode())
""")
    starter = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    (said,) = all_fine([start(starter, str(script), begin, **environment)])
    per_rank = [line.split() for line in said.splitlines()]
    assert len(per_rank) == 3 and per_rank[0] == per_rank[1] == per_rank[2]
    with open_store() as store:
        take_in(store)
        assert sorted(store.search("").run_ids) == sorted(per_rank[0])
        run = store.run(per_rank[0][-1])
        assert (run.name, run.status) == ("tuned", "FINISHED")
        assert [store.points(run.run_id, "loss", rank=rank).values.tolist() for rank in range(3)] == [
            [0.0],
            [1.0],
            [2.0],
        ]


def test_a_rank_that_ends_last_does_not_reopen_the_run(store_root: Path) -> None:
    code = f"""
import os, sys, time
import mltrack
mltrack.start_run(run_id={RUN!r})
mltrack.log_metric("loss", 1.0, step=1)
if os.environ["RANK"] == "1":
    time.sleep(1.0)
    mltrack.log_metric("loss", 2.0, step=2)
    os._exit(1)
"""
    ranks = [start(code, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    assert ranks[0].communicate(timeout=PATIENCE_SECONDS) == ("", "")
    wait_for(lambda run: run.status == "FINISHED")
    ranks[1].communicate(timeout=PATIENCE_SECONDS)
    with open_store() as store:
        take_in(store)
        assert store.run(RUN).status == "FINISHED"
        assert store.points(RUN, "loss", rank=1).steps.tolist() == [1, 2], (
            "late points of a rank are not lost"
        )


NAMESPACED = """
import os, sys, time
import mltrack
run = mltrack.start_run(run_id=sys.argv[1])
mltrack.log_metric("loss", 1.0, step=1)
print(os.getpid(), flush=True)
time.sleep(600)
"""
CONTAINER = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
LOOK = """
import time
from mltrack.store import open_store
with open_store() as store:
    while store.refresh(None).folded_by_other:
        time.sleep(0.02)
    print(",".join(sorted(f"{run.run_id[:2]} {run.status}" for run in store.runs(store.search("").run_ids))))
"""


def in_namespace(run_id: str, running: list[subprocess.Popen[str]]) -> int:
    """Start a training that is process 1 of its own PID namespace, as in a container; its number there."""
    process = subprocess.Popen(
        [*CONTAINER, sys.executable, "-c", NAMESPACED, run_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    running.append(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.skip("needs the right to make a PID namespace: run as root in a container with SYS_ADMIN")
    return int(line)


def test_containers_with_equal_names_and_pids_are_told_apart(store_root: Path) -> None:
    one, two, three = "01" * 16, "02" * 16, "03" * 16
    running: list[subprocess.Popen[str]] = []
    try:
        assert in_namespace(one, running) == in_namespace(two, running)
        heads = [json.loads(path.read_bytes().split(b"\n")[0]) for path in store_root.glob("runs/*/*/meta.*")]
        assert len({(head["host"], head["machine"], head["boot"], head["pid"]) for head in heads}) == 1
        assert len({head["pidns"] for head in heads}) == 2
        running[0].kill()
        running[0].wait()
        for where in (CONTAINER, []):  # a third container looks, then the host: neither can prove the death
            done = subprocess.run(
                [*where, sys.executable, "-c", LOOK],
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
            )
            assert done.stdout == "01 RUNNING,02 RUNNING\n", (done.stdout, done.stderr)
        # Silence is what counts then.
        in_namespace(three, running)
        running[2].kill()
        running[2].wait()
        marker = next(path for path in (store_root / "open").iterdir() if path.name.endswith(three))
        os.utime(marker, (time.time() - 1000, time.time() - 1000))
        assert "not heard from" in wait_for(lambda run: run.status == "LOST", three).reason
        assert wait_for(lambda run: True, two).status == "RUNNING"
        os.utime(marker)  # it was only asleep
        assert wait_for(lambda run: run.status == "RUNNING", three).reason == ""
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_a_reused_pid_is_not_the_writer(store_root: Path) -> None:
    process = start(NAMESPACED, RUN)
    assert process.stdout is not None and process.stdout.readline()
    path = next(store_root.glob("runs/*/*/meta.*"))
    process.kill()
    process.communicate()
    head, _, rest = path.read_bytes().partition(b"\n")
    stolen = {**json.loads(head), "pid": os.getpid()}  # a living process got the number
    path.write_bytes(json.dumps(stolen).encode() + b"\n" + rest)
    run = wait_for(lambda run: run.status == "LOST")
    assert run.reason == f"process {os.getpid()} is gone"


def test_points_made_after_the_folder_was_listed_are_not_forgotten(store_root: Path) -> None:
    """Folding as fast as possible while short runs come and go: none is marked done before all of it is read."""
    code = """
import mltrack
for number in range(40):
    with mltrack.start_run(run_name=f"r{number}"):
        mltrack.log_metric("loss", float(number), step=1)
"""
    processes = [start(code) for _ in range(2)]
    with open_store() as store:
        while any(process.poll() is None for process in processes):
            take_in(store)
        all_fine(processes)
        take_in(store)
        assert store.search("metrics.loss >= 0 and status = 'FINISHED'").total == 80
        assert list((store_root / "open").iterdir()) == []
