"""TensorBoard's files, written by its own writers, read by us as by its own reader; and damaged in every way."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrack.store import open_store
from mltrack.store.import_source import import_source
from mltrack.store.records import Run
from mltrack.store.sources import tfrecord
from mltrack.store.sources.crc32c import crc32c, masked
from mltrack.store.sources.protobuf import NotAMessage
from mltrack.store.sources.tensorboard import TensorboardReader, experiment_name
from mltrack.store.sources.tensorboard_events import decode, read_event
from mltrack.store.sources.tensorboard_media import event_files, read_media
from mltrack.store.store import Store
from mltrack.tui.picture_series import pictures_of, step_of
from mltrack.tui.raster import Canvas
from mltrack.tui.worker_calls.files import file_preview, files
from mltrack.tui.worker_calls.overview import overview

DATA = Path(__file__).parent.parent / "data" / "sources"
Follow = Callable[[Path], dict[str, Run]]
Written = dict[str, dict[str, list[list[Any]]]]


@pytest.fixture(scope="session")
def written(tensorboard_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log directory of every kind of event; not to be changed."""
    root = tmp_path_factory.mktemp("tensorboard") / "digits" / "runs"
    write = [tensorboard_python, str(DATA / "tensorboard_write.py"), str(root)]
    subprocess.run(write, check=True, capture_output=True)
    return root


def theirs(python: str, root: Path, *more: str) -> Written:
    read = [python, str(DATA / "tensorboard_read.py"), str(root), *more]
    found: Written = json.loads(subprocess.run(read, check=True, capture_output=True, text=True).stdout)
    return found


def ours(store: Store, run: Run, superseded: bool = False) -> dict[str, list[list[Any]]]:
    found = {}
    for key in run.metrics:
        points = store.points(run.run_id, key, superseded=superseded)
        columns = (points.steps.tolist(), points.times_ms.tolist(), points.values.tolist())
        found[key] = [[step, ms, value.hex()] for step, ms, value in zip(*columns, strict=True)]
    return found


def in_order(series: dict[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    return {key: sorted(map(list, {tuple(point) for point in points})) for key, points in series.items()}


def test_every_point_is_as_tensorboard_reads_it(
    tensorboard_python: str, written: Path, store: Store, follow: Follow
) -> None:
    runs = follow(written)
    purged, every = theirs(tensorboard_python, written), theirs(tensorboard_python, written, "keep")
    for read in (purged, every):  # add_hparams makes a run below the run, which is part of it here
        part = next(name for name in read if name.startswith("old/1"))
        read["old"] |= read.pop(part)
    assert {f"tb:{name}" for name in every} == set(runs)
    for name in every:
        mine = ours(store, runs[f"tb:{name}"])
        assert in_order(mine) == in_order(purged[name]), name
        assert in_order(ours(store, runs[f"tb:{name}"], superseded=True)) == in_order(every[name]), name
    assert len(every["old"]["train/loss"]) == 1500 and len(every["new/train"]["typed"]) == 5
    loss = store.points(runs["tb:restarted"].run_id, "loss", superseded=True)
    assert loss.superseded.sum() == 20 and not loss.superseded[loss.steps < 40].any()
    best = runs["tb:restarted"].metrics["loss"]
    assert (best.count, best.last, best.min) == (80, 179.0, 0.0)


def test_params_outcome_and_everything_else_that_was_logged(
    written: Path, store: Store, follow: Follow
) -> None:
    runs = follow(written)
    old, new = runs["tb:old"], runs["tb:new/train"]
    assert old.params == {"lr": "0.0003", "batch": "64", "opt": "adam", "nesterov": "True"}
    assert new.params == {"lr": "0.1", "layers": "3", "name": "wide"}
    assert new.status == "FINISHED" and runs["tb:merged"].status == "RUNNING"
    assert {run.experiment for name, run in runs.items() if "pair" not in name} == {"digits"}
    assert old.facts["logged"] == {
        "images sample": [2, 3, 9],
        "histograms weights": [1, 4, 4],
        "text remark/text_summary": [2, 1, 2],
    }
    assert old.facts["texts"] == {"remark": "and *last*"} and new.facts["texts"] == {"words": "hello"}
    assert old.artifacts == written / "old" and old.skipped == 0 and old.damage is None
    assert all("derived" not in run.facts for run in runs.values())


def test_a_moved_folder_holds_the_same_runs(
    written: Path, store: Store, follow: Follow, tmp_path: Path
) -> None:
    runs = follow(written)
    copy = tmp_path / "elsewhere"
    shutil.copytree(written, copy)
    ids = {name: run.run_id for name, run in runs.items()}
    assert {name: run.run_id for name, run in follow(copy).items()} == ids
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert store.refresh(None).points == 0
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


LIVE = """
import sys, time
from tensorboardX import SummaryWriter
writer = SummaryWriter(sys.argv[1], flush_secs=1)
for step, line in enumerate(sys.stdin):
    writer.add_scalar("loss", float(line), step)
    writer.flush()
    print(step, flush=True)
"""


def test_a_point_that_a_writer_adds_is_seen(
    tensorboard_python: str, store: Store, follow: Follow, tmp_path: Path
) -> None:
    folder = tmp_path / "live"
    with subprocess.Popen(
        [tensorboard_python, "-c", LIVE, str(folder / "a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for step in range(5):
            print(step / 3, file=writer.stdin, flush=True)
            assert writer.stdout.readline() == f"{step}\n"
            if step == 0:
                follow(folder)
            until = time.monotonic() + 20  # the promise is 2 s
            while True:
                runs = follow(folder)
                if "tb:a" in runs and len(steps_of(store, runs["tb:a"])) == step + 1:
                    break
                assert time.monotonic() < until
                time.sleep(0.05)
        writer.stdin.close()
    run = follow(folder)["tb:a"]
    assert run.metrics["loss"].last == np.float32(4 / 3) and run.skipped == 0


# -- damage


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def part(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def scalar_event(tag: bytes, step: int, value: float, wall: float = 1.7e9, new: bool = False) -> bytes:
    if new:
        tensor = part(8, b"\x08\x01\x12\x00" + part(5, struct.pack("<f", value)))
        number = tensor + part(9, part(1, part(1, b"scalars")))
    else:
        number = b"\x15" + struct.pack("<f", value)
    return (
        b"\x09" + struct.pack("<d", wall) + b"\x10" + varint(step) + part(5, part(1, part(1, tag) + number))
    )


def crc(data: bytes) -> bytes:
    return struct.pack("<I", int(masked(np.array([crc32c(data)], np.uint32))[0]))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + crc(length) + data + crc(data)


def write_file(folder: Path, data: bytes, name: str = "events.out.tfevents.1700000000.host") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    return folder / name


FIRST = record(b"\x09" + struct.pack("<d", 1.7e9) + part(3, b"brain.Event:2"))
NUMBERED = [record(scalar_event(b"loss", step, step / 2)) for step in range(1, 101)]


def steps_of(store: Store, run: Run) -> list[int]:
    return store.points(run.run_id, "loss").steps.tolist() if "loss" in run.metrics else []


def test_damage_costs_only_the_records_it_hits(store: Store, follow: Follow, tmp_path: Path) -> None:
    whole = FIRST + b"".join(NUMBERED)
    at = len(FIRST) + len(b"".join(NUMBERED[:50]))  # where the record of step 51 begins
    size = len(NUMBERED[50])

    def changed(place: int, data: bytes) -> bytes:
        return whole[:place] + data + whole[place + len(data) :]

    cases = {
        "value": (changed(at + size - 8, b"\xaa"), {51}, 1),
        "length": (changed(at, b"\xff\xff"), {51}, 1),
        "huge": (changed(at, struct.pack("<Q", 1 << 62)), {51}, 1),
        "crc of length": (changed(at + 9, b"\0\1"), {51}, 1),
        "zeros": (changed(at, bytes(size)), {51}, 1),
        "missing bytes": (whole[: at + 20] + whole[at + 30 :], {51}, 1),
        "missing record and a half": (whole[: at + 20] + whole[at + size + 10 :], {51, 52}, 1),
        "inserted": (whole[:at] + b"?" * 1000 + whole[at:], set[int](), 1),
        "torn": (whole[: -size + 5], {100}, 0),
        "torn header": (whole[: -size * 2 + 13], {99, 100}, 0),
        "not a message": (whole[:at] + record(b"\x0a\xff\xff\xff") + whole[at:], set[int](), 1),
        "claims to go on": (
            whole[:at] + struct.pack("<Q", 1 << 40) + crc(struct.pack("<Q", 1 << 40)),
            set(range(51, 101)),
            0,
        ),
    }
    for number, (name, (data, _, _)) in enumerate(cases.items()):
        write_file(tmp_path / "logs" / name, data, f"events.out.tfevents.{1_700_000_000 + number}.host")
    write_file(tmp_path / "logs" / "random", os.urandom(5000))
    write_file(tmp_path / "logs" / "other", b"\x7fELF" + bytes(3000))
    write_file(tmp_path / "logs" / "empty", b"")
    (tmp_path / "logs" / "folder" / "events.out.tfevents.1700000000.folder").mkdir(parents=True)
    os.mkfifo(tmp_path / "logs" / "events.out.tfevents.1700000000.pipe")
    (tmp_path / "logs" / "loop").symlink_to(tmp_path / "logs")
    runs = follow(tmp_path / "logs")
    for name, (_, missing, skipped) in cases.items():
        run = runs[f"tb:{name}"]
        assert steps_of(store, run) == sorted(set(range(1, 101)) - missing), name
        assert (run.skipped, run.damage) == (skipped, None), name
    for name in ("random", "other"):
        assert "no event" in str(runs[f"tb:{name}"].damage)
    assert len(runs) == len(cases) + 2 + ("tb:logs" in runs)


def test_a_file_that_cannot_be_read_hides_no_other(store: Store, follow: Follow, tmp_path: Path) -> None:
    write_file(tmp_path / "logs" / "a", FIRST + NUMBERED[0])
    large = FIRST + b"".join(NUMBERED) * 60  # small ones are read together while looking
    write_file(tmp_path / "logs" / "a", large, "events.out.tfevents.1700000009.host")
    write_file(tmp_path / "logs" / "b", FIRST + NUMBERED[2], "events.out.tfevents.1700000002.host")
    reader = TensorboardReader(tmp_path / "logs")
    found = {run.place: run for run in reader.scan({}) if run is not None}
    (
        tmp_path / "logs" / "a" / "events.out.tfevents.1700000009.host"
    ).unlink()  # between the look and the reading
    pieces = list(reader.read(found["a"], ""))
    assert sum(len(piece.points or ()) for piece in pieces) == 1
    assert "1700000009.host: No such file" in str(pieces[-1].damage)
    assert sum(len(piece.points or ()) for piece in reader.read(found["b"], "")) == 1


def test_what_is_torn_now_is_read_when_it_is_whole(store: Store, follow: Follow, tmp_path: Path) -> None:
    whole = FIRST + b"".join(NUMBERED)
    path = write_file(tmp_path / "logs" / "a", whole[:5])
    rng = np.random.default_rng(0)
    edges = sorted(rng.integers(6, len(whole), 12).tolist()) + [len(whole)]
    for number, edge in enumerate(edges):
        path.write_bytes(whole[:edge])
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        run = follow(tmp_path / "logs").get("tb:a")
        if run is not None:
            expected = (edge - len(FIRST)) // len(NUMBERED[0]) if edge >= len(FIRST) else 0
            assert len(steps_of(store, run)) == max(0, expected) and run.skipped == 0
    assert steps_of(store, follow(tmp_path / "logs")["tb:a"]) == list(range(1, 101))


def test_a_hole_in_a_file_being_copied_is_waited_for(store: Store, follow: Follow, tmp_path: Path) -> None:
    whole = FIRST + b"".join(NUMBERED)
    path = write_file(tmp_path / "logs" / "a", whole[:1000] + bytes(len(whole) - 1000))
    os.utime(path)
    run = follow(tmp_path / "logs")["tb:a"]
    assert len(steps_of(store, run)) == (1000 - len(FIRST)) // len(NUMBERED[0]) and run.skipped == 0
    path.write_bytes(whole)
    run = follow(tmp_path / "logs")["tb:a"]
    assert steps_of(store, run) == list(range(1, 101)) and run.skipped == 0


def read_bytes(data: bytes, tmp: Path) -> tuple[list[tuple[str, int, float, float]], int, int]:
    """(tag, step, wall, value) of every scalar, records passed over, and how far it was read."""
    path = tmp / "events"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    found, skipped, position = [], 0, 0
    try:
        for chunk in tfrecord.read_chunks(fd, 0):
            assert chunk.position >= position
            events = decode(chunk)
            names = [events.tags[index] for index in events.tag.tolist()]
            found += list(
                zip(names, events.step.tolist(), events.wall.tolist(), events.value.tolist(), strict=True)
            )
            skipped, position = skipped + events.skipped, chunk.position
    finally:
        os.close(fd)
    return found, skipped, position


@given(data=st.data())
def test_any_bytes_are_read_to_an_end(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kinds = st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(record),
        st.binary(max_size=20).map(lambda body: record(part(5, part(1, body)))),
        st.sampled_from(NUMBERED),
        st.integers(0, (1 << 64) - 1).map(
            lambda length: struct.pack("<Q", length) + crc(struct.pack("<Q", length))
        ),
    )
    content = b"".join(data.draw(st.lists(kinds, max_size=12)))
    found, skipped, position = read_bytes(content, tmp_path_factory.getbasetemp())
    assert position <= len(content)
    assert len(found) + skipped <= len(content)


@given(place=st.integers(0, 4000), value=st.integers(1, 255))
def test_a_wrong_byte_costs_one_record(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    whole = bytearray(b"".join(NUMBERED))
    place %= len(whole)
    whole[place] ^= value
    found, skipped, _ = read_bytes(bytes(whole), tmp_path_factory.getbasetemp())
    hit = place // len(NUMBERED[0]) + 1
    last = (
        hit == 100 and place % len(NUMBERED[0]) < 12
    )  # a damaged last header may look like one that is not whole yet
    assert sorted(step for _, step, _, _ in found) == [step for step in range(1, 101) if step != hit]
    assert skipped == 1 or last


tags = st.sampled_from([b"a", b"loss", b"loss2", b"x" * 40, "ü".encode(), b""])
numbers = st.floats(width=32, allow_nan=False)
scalars = st.builds(
    scalar_event,
    tags,
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300),
    numbers,
    st.floats(0, 2e9),
    st.booleans(),
)


@settings(max_examples=50)
@given(events=st.lists(scalars, min_size=1, max_size=20), repeat=st.integers(1, 30))
def test_templates_read_what_the_careful_way_reads(
    tmp_path_factory: pytest.TempPathFactory, events: list[bytes], repeat: int
) -> None:
    """Records that occur often go through numpy, others one by one: both must give the same numbers."""
    expected = []
    for data in events * repeat:
        event = read_event(data)
        number = event.scalars[0]
        expected.append((data[slice(*number.tag)].decode(), event.step, event.wall, number.value))
    found, skipped, _ = read_bytes(b"".join(map(record, events * repeat)), tmp_path_factory.getbasetemp())
    assert sorted(found) == sorted(expected) and skipped == 0


@given(st.binary(max_size=300))
def test_no_message_is_more_than_not_one(data: bytes) -> None:
    try:
        read_event(data)
    except NotAMessage:
        pass


@given(st.binary(max_size=5000))
def test_crc32c_is_that_of_the_textbook(data: bytes) -> None:
    register = 0xFFFFFFFF
    for byte in data[:1100]:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data[:1100]) == register ^ 0xFFFFFFFF
    assert crc32c(b"123456789") == 0xE3069283


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 200 MB, most of it one record too large to hold, is read in little more than a chunk."""
    path = write_file(tmp_path / "a", b"")
    with path.open("wb") as file:
        file.write(FIRST)
        for _ in range(40):
            file.write(b"".join(NUMBERED) * 100)
        length = struct.pack("<Q", 150 << 20)
        file.write(length + crc(length))
        file.seek((150 << 20) + 4, os.SEEK_CUR)
        file.write(NUMBERED[0])
    read = f"""
import os, resource
from mltrack.store.sources.tensorboard_events import decode
from mltrack.store.sources.tfrecord import read_chunks
fd = os.open({str(path)!r}, os.O_RDONLY)
chunks = read_chunks(fd, 0)
decode(next(chunks))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [(len(events.value), events.skipped) for events in map(decode, chunks)]
print(sum(n for n, _ in found), sum(n for _, n in found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run([sys.executable, "-c", read], check=True, capture_output=True, text=True).stdout
    points, skipped, grown = map(int, answer.split())
    assert points > 370_000 and skipped == 1
    assert grown < 20_000  # kB


# -- what lies beside

# Nine lists, each nine times the one before.
BOMB = "a: &a [x]\n" + "".join(
    f"{below}: &{below} [{','.join(['*' + above] * 9)}]\n"
    for above, below in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_params_lie_beside_the_events_or_in_the_name(store: Store, follow: Follow, tmp_path: Path) -> None:
    root = tmp_path / "sweep"
    write_file(root / "lightning", FIRST + NUMBERED[0], "events.out.tfevents.1700000001.host")
    (root / "lightning" / "hparams.yaml").write_text(
        "lr: 0.02\nmodel:\n  depth: 3\n  sizes: [1, 2]\nname: null\n"
    )
    write_file(
        root / "2026-11-23" / "12-00-00" / "tb", FIRST + NUMBERED[0], "events.out.tfevents.1700000002.host"
    )
    hydra = root / "2026-11-23" / "12-00-00" / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text("optim: {lr: 0.1}\nseed: 3\n")
    (hydra / "overrides.yaml").write_text("- optim.lr=0.1\n- +extra=deep\n")
    write_file(root / "json", FIRST + NUMBERED[0], "events.out.tfevents.1700000003.host")
    (root / "json" / "args.json").write_text('{"lr": 1e-3, "wd": {"bias": false}}')
    write_file(root / "lr3e-4_bs64_seed1", FIRST + NUMBERED[0], "events.out.tfevents.1700000004.host")
    write_file(root / "opt=adam,lr=0.5", FIRST + NUMBERED[0], "events.out.tfevents.1700000005.host")
    write_file(root / "resnet18", FIRST + NUMBERED[0], "events.out.tfevents.1700000006.host")
    bad = {
        "list": "- 1\n- 2\n",
        "bomb": BOMB,
        "deep": "a: " + "[" * 500 + "]" * 500,
        "loop": "a: &a [*a]\n",
        "tag": "a: !!python/object/apply:os.system ['true']\n",
        "binary": "\0\1\2",
        "huge": "a: 1\n" * 400_000,
    }  # fmt: skip
    for number, (name, text) in enumerate(bad.items()):
        write_file(root / f"bad {name}", FIRST + NUMBERED[0], f"events.out.tfevents.170000001{number}.host")
        (root / f"bad {name}" / "config.yaml").write_text(text)
    runs = follow(root)
    assert runs["tb:lightning"].params == {
        "lr": "0.02",
        "model.depth": "3",
        "model.sizes": "[1, 2]",
        "name": "None",
    }
    hydra_run = runs["tb:2026-11-23/12-00-00/tb"]
    assert hydra_run.params == {"optim.lr": "0.1", "seed": "3", "extra": "deep"}
    assert hydra_run.experiment == "sweep"
    assert runs["tb:json"].params == {"lr": "0.001", "wd.bias": "False"}
    named = runs["tb:lr3e-4_bs64_seed1"]
    assert named.params == {"lr": "3e-4", "bs": "64", "seed": "1"}
    assert named.facts["derived"] == ["bs", "lr", "seed"]
    assert runs["tb:opt=adam,lr=0.5"].params == {"opt": "adam", "lr": "0.5"}
    assert runs["tb:resnet18"].params == {}
    for name in bad:
        run = runs[f"tb:bad {name}"]
        assert run.params == {} and "config.yaml" in run.facts["unread"][0], name
        assert steps_of(store, run) == [1]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/data/cifar/runs/lr1", "cifar"),
        ("/data/cifar/runs/big/lr1", "big"),
        ("/data/cifar/lightning_logs/version_3", "cifar"),
        ("/data/cifar/logs/run1/train", "cifar"),
        ("/data/cifar/outputs/2026-11-23/12-00-00", "cifar"),
        ("/runs/x", "TensorBoard"),
    ],
)
def test_experiments_are_named_by_the_folder_that_says_something(folder: str, name: str) -> None:
    assert experiment_name(Path(folder)) == name


# -- what is no number, when somebody looks


def test_media_are_listed_and_read_when_looked_at(written: Path, store: Store, follow: Follow) -> None:
    runs = follow(written)
    old, new = runs["tb:old"], runs["tb:new/train"]
    listed = {path: (kind, detail) for path, kind, _, detail in files(store, old.run_id)["entries"]}
    assert [path for path, (kind, _) in listed.items() if kind == "file"]
    assert listed["(logged)/images/sample"] == ("logged", "2 at steps 3 to 9")
    assert listed["(logged)/histograms/weights"] == ("logged", "1 at step 4")

    def lines(run: Run, path: str) -> list[str]:
        answer = file_preview(store, run.run_id, path, 60, 20)
        return ["".join(text for text, _ in line) for line in answer["lines"]]

    picture = lines(old, "(logged)/images/sample")
    assert picture[0].startswith("the newest, step 9") and "picture, 8 x 8 pixels" in picture[1]
    assert lines(old, "(logged)/text/remark/text_summary") == ["step 2", "  and *last*", "step 1", "  first"]
    assert lines(new, "(logged)/text/words") == ["step 1", "  hello"]
    for run, name, count, step in ((old, "weights", 200, 4), (new, "layer", 50, 1)):
        assert run.artifacts is not None
        ((at, histogram),) = read_media(event_files(run.artifacts), "histograms", name).histograms
        assert at == step and round(sum(histogram.counts)) == count
        assert -5 < histogram.edges[0] < histogram.edges[-1] < 5
        assert set(lines(run, f"(logged)/histograms/{name}")[1][3:]) & set("▃▄▅▆▇█")
    assert lines(old, "(logged)/images/none") == ["Nothing of it can be read any more."]
    page = "\n".join("".join(text for text, _ in line) for line in overview(store, old.run_id, 80)["lines"])
    assert "images sample  2 at 3 to 9" in page and "and *last*" in page


def test_pictures_stand_side_by_side_step_by_step(written: Path, store: Store, follow: Follow) -> None:
    found = follow(written)
    runs = store.runs([found["tb:old"].run_id, found["tb:new/train"].run_id])
    series = pictures_of(runs)
    assert list(series) == ["(logged)/images/sample"] and sorted(series["(logged)/images/sample"][0]) == [
        3,
        9,
    ]
    pages = [step_of(runs, series, "sample", step, 90, 12) for step in (3, 5, 9, None)]
    assert [page.step for page in pages] == [3, 3, 9, 9] and pages[0].steps == [3, 9]
    drawn = [[[pair for pair in line if "▀" in pair[0]] for line in page.lines] for page in pages]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3] and sum(map(len, drawn[0])) > 30
    words = "\n".join("".join(text for text, _ in line) for line in pages[0].lines)
    assert "no such pictures" in words
    canvas = step_of(runs, series, "sample", 9, 90, 12, Canvas((10, 20), 10_000))
    ((line, column, raster),) = canvas.placed
    assert (line, column, raster.across, raster.down) == (1, 0, 8, 8)


def test_of_many_pictures_some_are_kept_and_the_newest_always(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1700000000.many"
    entries = [(step, bytes([step % 256]) * 300_000) for step in range(200)]
    path.write_bytes(
        b"".join(
            record(b"\x10" + varint(step) + part(5, part(1, part(1, b"t") + part(4, part(4, content)))))
            for step, content in entries
        )
    )
    found = read_media([path], "images", "t")
    assert found.count == 200 and (found.step, found.data) == entries[-1] == found.pictures[-1]
    assert 5 < len(found.pictures) < 64 and set(found.pictures) <= set(entries)
    assert sum(len(content) for _, content in found.pictures) <= 8 << 20


@given(data=st.data())
def test_media_of_any_bytes_are_read_to_an_end(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    inner = st.builds(part, st.integers(1, 9), st.binary(max_size=80))
    value = st.lists(inner, max_size=5).map(lambda parts: part(1, b"t") + b"".join(parts))
    body = value.map(lambda content: record(part(5, part(1, content))))
    content = b"".join(data.draw(st.lists(body | st.binary(max_size=30), max_size=6)))
    path = tmp_path_factory.getbasetemp() / "events.out.tfevents.1700000000.media"
    path.write_bytes(content)
    for kind in ("images", "histograms", "text", "audio"):
        found = read_media([path], kind, "t")
        assert found.count <= content.count(b"t") and found.complete


def test_small_files_read_together_give_what_each_gives_alone(tmp_path: Path) -> None:
    """Some with damage, some torn, some with restarts: together or alone, the same points, records and positions."""
    begin = record(b"\x09" + struct.pack("<d", 1.7e9) + part(7, b"\x08\x01"))
    contents = [
        FIRST + b"".join(NUMBERED[:40]),
        FIRST + b"".join(NUMBERED[40:]) + begin + b"".join(NUMBERED[:9]),
        FIRST + record(scalar_event(b"other", 3, 0.5, new=True)) * 30,
        FIRST + b"".join(NUMBERED)[:-5],
        b"junk" * 50,
        b"",
    ]
    for number, content in enumerate(contents):
        write_file(tmp_path / str(number), content, f"events.out.tfevents.{1_700_000_000 + number}.host")

    def pieces(ahead: bool) -> dict[str, list[Any]]:
        reader = TensorboardReader(tmp_path)
        found: dict[str, list[Any]] = {}
        for run in reader.scan({}):
            if run is not None:
                if not ahead:
                    reader._ahead.clear()
                assert bool(reader._ahead) is ahead or run.place not in "012"
                read = list(reader.read(run, ""))
                points = sorted(
                    (piece.attempt, piece.points.names[key], step, value)
                    for piece in read
                    if piece.points is not None
                    for key, step, value in zip(
                        piece.points.key.tolist(),
                        piece.points.step.tolist(),
                        piece.points.value.tolist(),
                        strict=True,
                    )
                )
                found[run.place] = [
                    points,
                    [(piece.position, piece.damage) for piece in read[-1:]],
                    [piece.records for piece in read],
                ]
        return found

    assert pieces(True) == pieces(False)
    assert {place: len(found[0]) for place, found in pieces(True).items()} == {
        "0": 40,
        "1": 69,
        "2": 30,
        "3": 99,
        "4": 0,
        "5": 0,
    }


def test_an_import_copies_each_file_once(written: Path, store: Store, tmp_path: Path) -> None:
    """Runs lie in folders of runs here."""
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    names = [path.name for path in copy.rglob("*tfevents*")]
    for path in copy.rglob("*tfevents*"):
        os.utime(path, (time.time() - 86_400, time.time() - 86_400))
    done = import_source(store, str(copy))
    copied = list(store.root.rglob("*tfevents*"))
    assert sorted(path.name for path in copied) == sorted(names) and done.files == len(names)
    runs = {run.name: run for run in store.runs(store.search("", limit=1000).run_ids)}
    old = runs["tb:old"]
    assert (
        old.source == "" and old.artifacts is not None and len(list(old.artifacts.rglob("*tfevents*"))) == 2
    )
    picture = file_preview(store, old.run_id, "(logged)/images/sample", 60, 20)["lines"]
    assert "step 9" in picture[0][0][0]
    assert import_source(store, str(copy)).runs == 0


def test_slices_of_any_length_lose_nothing(written: Path, store: Store, tmp_path: Path) -> None:
    """A slice may end behind any piece of a run, as it does where somebody is waiting for the screen."""
    with open_store(str(tmp_path / "whole")) as whole:
        whole.add_source(str(written))
        whole.refresh(None)
        expected = {
            run.run_id: (run.params, run.status, ours(whole, run))
            for run in whole.runs(whole.search("", limit=1000).run_ids)
        }
        store.add_source(str(written))
        for _ in range(1000):
            if not store.refresh(1e-9).waiting_runs and store.search("").total == len(expected):
                break
        store.refresh(1e-9)
        found = {
            run.run_id: (run.params, run.status, ours(store, run))
            for run in store.runs(store.search("", limit=1000).run_ids)
        }
        assert found == expected
