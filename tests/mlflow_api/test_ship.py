"""Our own client with a server of ours as its store: journals go by the spool, whoever is killed on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.mlflow_api.conftest import COMMAND, Server, until

from mltrack.store import access, open_store
from mltrack.store.client.destination import Destination
from mltrack.store.client.journal import Journal, run_folder
from mltrack.store.copies import ATTEMPT, ROLE, set_destination
from mltrack.store.ship_http import Shipper
from mltrack.store.sources.mlflow_http import MlflowClient, ServerRefused

TRAIN = """
import sys, mltrack
import mltrack.store.client.run
if "halt" in sys.argv or "absent" in sys.argv:  # nobody will answer: no use in waiting for it at the end
    mltrack.store.client.run.SHIP_WAIT_SECONDS = 0.2
with mltrack.start_run(run_name="far") as run:
    print(run.run_id, flush=True)
    mltrack.log_param("lr", 0.1)
    mltrack.log_text("what was made", "made/text.txt")
    for step in range(int(sys.argv[1])):
        mltrack.log_metric("loss", 1 / (step + 1), step)
        if step == 200 and "halt" in sys.argv:
            sys.stdin.readline()
"""


def environment(where: str, spool: Path) -> dict[str, str]:
    return {**os.environ, "MLTRACK_CONSOLE": "0", "MLTRACK_STORE": where, "MLTRACK_SPOOL": str(spool)}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    """The spool of trainings; its companions, and nobody else's, are ended after the test."""
    place = tmp_path / "spool"
    yield place
    for shipper in shippers(place):
        shipper.kill()


def shippers(spool: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("MLTRACK_SPOOL") == str(spool)
            if mine and "mltrack.store.sync" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def history(server: Server, run_id: str, key: str = "loss") -> list[float]:
    answer = server.call("GET", "metrics/get-history", run_id=run_id, metric_key=key)
    return [point["value"] for point in answer.json.get("metrics", [])] if answer.status == 200 else []


def status(server: Server, run_id: str) -> str:
    answer = server.call("GET", "runs/get", run_id=run_id)
    return str(answer.json["run"]["info"]["status"]) if answer.status == 200 else ""


def test_whose_a_run_is_says_the_token_that_sent_it(new_server: Callable[..., Server], spool: Path) -> None:
    server = new_server()
    access.add_user(server.root, "ann", [access.Grant("editor", access.Scope("store"))])
    _, token = access.create_token(server.root, "ann")
    says = "import mltrack.store.client.host as h; h.user = lambda: 'somebody else'\n"
    tags = "    mltrack.set_tags({'mlflow.user': 'somebody else', 'a': 'b'})\n"
    done = subprocess.run(
        [sys.executable, "-c", says + TRAIN + tags, "5"],
        env=environment(server.address, spool) | {"MLFLOW_TRACKING_TOKEN": token},
        capture_output=True,
        text=True,
        check=True,
    )
    run_id = done.stdout.split()[0]
    with open_store(server.store) as store:

        def owner() -> str:
            store.refresh(None)
            return next((run.user for run in store.runs([run_id]) if run.status == "FINISHED"), "")

        until(lambda: owner() == "ann", 60)
    headers = {"Authorization": f"Bearer {token}"}
    found = server.request("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}", headers=headers).json
    shown = {tag["key"]: tag["value"] for tag in found["run"]["data"]["tags"]}
    assert (shown["mlflow.user"], shown["a"]) == ("ann", "b")
    server.stop()


def test_a_training_logs_to_a_server(new_server: Callable[..., Server], spool: Path) -> None:
    server = new_server()
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, "500"],
        env=environment(server.address, spool),
        capture_output=True,
        text=True,
        check=True,
    )
    run_id = done.stdout.split()[0]
    until(lambda: status(server, run_id) == "FINISHED" and len(history(server, run_id)) == 500, 60)
    assert history(server, run_id) == [1 / (step + 1) for step in range(500)]
    until(lambda: not list(next(spool.iterdir()).glob("open/*")), 60)
    # All that was written is there, byte by byte.
    mine = run_folder(next(spool.iterdir()), run_id)
    theirs = run_folder(server.root, run_id)
    names = [path.relative_to(mine) for path in mine.rglob("*") if path.is_file()]
    assert Path("artifacts/made/text.txt") in names
    assert {name: (mine / name).read_bytes() for name in names} == {
        name: (theirs / name).read_bytes() for name in names
    }
    server.stop()
    with open_store(server.store) as store:
        store.refresh(None)
        run = store.run(run_id)
        assert (run.status, run.params["lr"], run.skipped, run.damage) == ("FINISHED", "0.1", 0, None)
        assert run.metrics["loss"].count == 500


def test_what_a_server_received_is_in_its_postgresql_without_being_asked_for(
    new_server: Callable[..., Server], postgres_url: str, spool: Path
) -> None:
    """Others may open that database directly, on machines that do not see the server's journals."""
    with open_store(postgres_url) as store:
        server = new_server(store=postgres_url)
        process = subprocess.run(
            [sys.executable, "-c", TRAIN, "300"],
            env=environment(server.address, spool),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == 0, process.stderr
        run_id = process.stdout.strip()

        def there() -> bool:
            found = store.runs([run_id])
            return bool(found) and found[0].status == "FINISHED" and found[0].metrics["loss"].count == 300

        until(there, 60)
        # And what MLflow's clients log.
        made = server.new_run()
        server.post("runs/log-metric", run_id=made, key="loss", value=0.5, timestamp=1, step=1)
        until(lambda: bool(store.runs([made])) and "loss" in store.runs([made])[0].metrics, 60)


def test_killing_either_side_loses_and_doubles_nothing(
    new_server: Callable[..., Server], spool: Path
) -> None:
    server = new_server()
    training = subprocess.Popen(
        [sys.executable, "-c", TRAIN, "2000", "halt"],
        env=environment(server.address, spool),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert training.stdin is not None and training.stdout is not None
    try:
        run_id = training.stdout.readline().strip()
        until(lambda: len(history(server, run_id)) > 0, 60)
        server.stop(signal.SIGKILL)
        for shipper in shippers(spool):
            shipper.kill()
        training.stdin.write("\n")
        training.stdin.flush()
        training.wait(60)
        again = new_server()
        server.port = again.port
        # The address of the spool is that of the first server: it is sent on to the second one, twice.
        root = next(spool.iterdir())
        for _ in range(2):
            Shipper(again.address, root).send()
        assert status(again, run_id) == "FINISHED"
        assert history(again, run_id) == [1 / (step + 1) for step in range(2000)]
    finally:
        training.kill()


def test_what_waited_for_an_absent_server_is_sent_by_hand(
    new_server: Callable[..., Server], spool: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", TRAIN, "100", "absent"]
    done = subprocess.run(command, env=environment(where, spool), capture_output=True, text=True, check=True)
    assert "mltrack ship" in done.stderr and str(spool) in done.stderr
    for shipper in shippers(spool):
        shipper.kill()
    ship = [*COMMAND, "--store", where, "ship"]
    refused = subprocess.run(ship, env=environment(where, spool), capture_output=True, text=True, check=False)
    assert refused.returncode == 5 and "does not answer" in refused.stderr
    server = new_server("--port", str(port))
    for expected in ("Sent", "Sent 0 B"):
        sent = subprocess.run(ship, env=environment(where, spool), capture_output=True, text=True, check=True)
        assert expected in sent.stdout, sent
    assert len(history(server, done.stdout.split()[0])) == 100


def test_pieces_in_any_order_and_number_make_the_same_file(server: Server, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "away", "ab" * 16, "1-abc", identity={"host": "far", "boot": "b", "pid": 1})
    for number in range(300):
        journal.points().append(f'[{number},{number},"m",{number}.5]\n'.encode())
    journal.close()
    path = next(journal.folder.glob("points.*"))
    data = path.read_bytes()
    client = MlflowClient(server.address)
    place = f"append/{journal.run_id}/{path.name}"
    rng = random.Random(5)

    def send(begin: int, end: int) -> int:
        piece = data[begin:end]
        answer = client.ours("PUT", f"{place}?offset={begin}", piece, hashlib.sha256(piece).hexdigest())
        return int(answer["size"])

    with pytest.raises(ServerRefused, match="0 bytes here"):
        send(400, 500)
    assert send(0, 400) == 400
    size = 400
    while size < len(data):
        begin = rng.randrange(0, size + 1)
        size = max(size, send(begin, begin + rng.randrange(1, 900)))
    assert run_folder(server.root, journal.run_id).joinpath(path.name).read_bytes() == data
    assert history(server, journal.run_id, "m") == [number + 0.5 for number in range(300)]
    with pytest.raises(ServerRefused, match="not the same file"):
        client.ours("PUT", f"{place}?offset=300", b"other", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ServerRefused, match="sha256"):
        client.ours("PUT", f"{place}?offset={len(data)}", b"x", hashlib.sha256(b"y").hexdigest())


@pytest.mark.parametrize(
    "place",
    [
        f"append/{'cd' * 16}/..%2f..%2fx?offset=0",
        f"append/{'cd' * 16}/.hidden?offset=0",
        f"append/..%2f{'cd' * 15}/x?offset=0",
        f"append/{'cd' * 16}/points.{'0' * 16}.jsonl?offset=0",
        f"append/{'cd' * 16}/console.log?offset=-1",
        f"append/{'cd' * 16}/console.log",
        f"file/runs/{'cd' * 16}/artifacts/..%2f..%2fx",
        f"file/runs/{'cd' * 16}/meta.jsonl",
        "file/blobs/../x",
        "nothing/x",
    ],
)
def test_no_place_leads_out_and_no_stranger_is_taken(server: Server, place: str) -> None:
    body = json.dumps({"mltrack": 1, "kind": "points", "jid": "1" * 16, "run": "ef" * 16}).encode() + b"\n"
    headers = {"X-Content-SHA256": hashlib.sha256(body).hexdigest()}
    answer = server.request("PUT", f"/api/mltrack/1/{place}", body, headers)
    assert answer.status in (400, 404) and "error_code" in answer.json
    assert not run_folder(server.root, "cd" * 16).exists()


def _age(note: Path) -> None:
    """As if it had been written eight days ago."""
    then = note.stat().st_mtime - 8 * 86_400
    os.utime(note, (then, then))


TIDY = """
import os, signal, sys
from pathlib import Path
from mltrack.store.ship_http import Shipper
left, unlink = int(sys.argv[3]), os.unlink
def mortal(*arguments, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(*arguments, **options)
os.unlink = mortal
print(Shipper(sys.argv[1], Path(sys.argv[2])).tidy())
"""


def test_what_the_server_confirmed_goes_from_the_spool_whoever_is_killed(
    new_server: Callable[..., Server], spool: Path
) -> None:
    server = new_server()
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, "20"],
            env=environment(server.address, spool),
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(done.stdout.split()[0])
    runs.sort()  # as they are looked at
    root = next(spool.iterdir())
    until(lambda: all((root / "shipped" / run_id).exists() for run_id in runs), 60)
    folders = [run_folder(root, run_id) for run_id in runs]
    count = len([path for path in folders[0].rglob("*") if path.is_file()])
    said = json.loads((root / "shipped" / runs[0]).read_text())
    assert len(said) == count and {len(digest) for _, _, digest in said} == {64}

    def tidy(most: int = 1000) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TIDY, server.address, str(root), str(most)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert tidy().stdout == "0\n" and all(folder.exists() for folder in folders)  # not old enough
    for run_id in runs:
        _age(root / "shipped" / run_id)
    # One has a file that the server never saw, one is unknown to it by now: both stay.
    (folders[1] / "later.txt").write_text("made here since")
    server.post("runs/delete", run_id=runs[2])
    purge = [*COMMAND, "--store", server.store, "gc", "--days", "0", "--yes"]
    subprocess.run(purge, capture_output=True, check=True)
    assert server.call("GET", "runs/get", run_id=runs[2]).status == 404
    killed = tidy(most=1)
    assert killed.returncode == -signal.SIGKILL
    assert not folders[0].exists()  # out of the way at once: never here in part
    assert tidy().returncode == 0 and not list((root / "shipped").glob(".going-*"))
    assert folders[2].exists() and (folders[1] / "later.txt").exists()
    tidy()
    assert not (root / "shipped" / runs[0]).exists()
    assert history(server, runs[0]) == [1 / (step + 1) for step in range(20)]
    assert Shipper(server.address, root).send() == 0


def test_the_spool_goes_only_while_the_server_still_has_every_byte(
    new_server: Callable[..., Server], spool: Path
) -> None:
    server = new_server()
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, "20"],
        env=environment(server.address, spool),
        capture_output=True,
        text=True,
        check=True,
    )
    run_id = done.stdout.split()[0]
    root = next(spool.iterdir())
    note, folder, theirs = (
        root / "shipped" / run_id,
        run_folder(root, run_id),
        run_folder(server.root, run_id),
    )
    until(note.exists, 60)
    for companion in shippers(spool):
        companion.kill()
        companion.wait()
    _age(note)
    # Put back to an earlier state: the server knows the run, and has less of it.
    (points,) = theirs.glob("points.*.jsonl")
    content = points.read_bytes()
    points.write_bytes(content[:-20])
    assert Shipper(server.address, root).tidy() == 0 and folder.exists()
    points.write_bytes(content)
    # Sealed journals, and artifacts that lie only in an object store by now, are there all the same.
    place = "s3://bucket/prefix"
    made = theirs / "artifacts" / "made" / "text.txt"
    with open_store(server.store) as store:
        set_destination(store.database, store.root, Destination(place))
        journal = Journal(server.root, run_id, ATTEMPT, role=ROLE)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        journal.meta("artifact_copy", path="made/text.txt", sha256=digest, place=place)
        journal.meta("close", points=0)
        journal.close()
        store.fold_folder(theirs)
        made.unlink()
        store.seal(0.0)
    assert not points.exists() and points.with_name(f"{points.name}.zst").exists()
    note.rename(spool / "note")
    shipper = Shipper(server.address, root)
    assert shipper.send() == 0 and not made.exists(), "nothing is sent again"
    assert note.read_bytes() == (spool / "note").read_bytes()
    _age(note)
    assert shipper.tidy() == 1 and not folder.exists()


def test_code_and_packages_go_from_the_spool_when_no_run_in_it_names_them(
    new_server: Callable[..., Server], spool: Path, tmp_path: Path
) -> None:
    server = new_server()

    def train() -> str:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, "5"],
            env=environment(server.address, spool) | {"MLTRACK_FACTS": "1"},
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,  # no repository: the list of packages is the only body
        )
        return done.stdout.split()[0]

    run_id = train()
    root = next(spool.iterdir())
    until((root / "shipped" / run_id).exists, 60)
    for companion in shippers(spool):
        companion.kill()
        companion.wait()
    (packages,) = root.glob("blobs/*/*")
    content, theirs = packages.read_bytes(), server.root / packages.relative_to(root)
    assert theirs.read_bytes() == content
    _age(packages)
    assert Shipper(server.address, root).tidy() == 0 and packages.exists(), "a run here names it"
    # The server was put back to an earlier state: the run may go from here when it has the body again.
    theirs.unlink()
    _age(root / "shipped" / run_id)
    (root / "shipped" / f".going-{packages.name}").write_bytes(content)  # somebody was killed on the way
    assert Shipper(server.address, root).tidy() == 1
    assert theirs.read_bytes() == content
    assert not packages.exists() and not list((root / "shipped").iterdir())
    # One that is named anew meanwhile stays, however old it was.
    again = train()
    assert packages.read_bytes() == content
    _age(packages)
    newer = train()
    until(lambda: all((root / "shipped" / name).exists() for name in (again, newer)), 60)
    for name in (again, newer):
        _age(root / "shipped" / name)
    assert Shipper(server.address, root).tidy() == 2 and packages.exists()
    _age(packages)
    assert Shipper(server.address, root).tidy() == 0 and not packages.exists()
