"""Feeds a reader with what atheris thinks up: fuzz.py READER SECONDS. Ends with a traceback for anything but the errors allowed."""

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mltrack.store.sources"]):
    from mltrack.store.sources import tensorboard_events, tfrecord, wandb_log, wandb_records
    from mltrack.store.sources.protobuf import NotAMessage
    from mltrack.store.sources.tensorboard_hparams import read_session

scratch = tempfile.TemporaryFile()


def file_of(data: bytes) -> int:
    scratch.seek(0)
    scratch.truncate()
    scratch.write(data)
    scratch.flush()
    return scratch.fileno()


def tensorboard(data: bytes) -> None:
    """The first byte says whether the rest is a file, or events whose framing is made here."""
    parts = data[1:].split(b"\xff\xfe") if data[:1] < b"\x80" else []
    content = b"".join(framed(part) for part in parts) if parts else data[1:]
    position = 0
    for chunk in tfrecord.read_chunks(file_of(content), 0):
        events = tensorboard_events.decode(chunk)
        assert chunk.position >= position
        assert len(events.value) == len(events.step) == len(events.tag)
        position = chunk.position
        for other in events.others:
            try:
                read_session(other.content)
            except NotAMessage:
                pass


def framed(data: bytes) -> bytes:
    from mltrack.store.sources.crc32c import crc32c, masked_crc

    length = len(data).to_bytes(8, "little")
    return b"".join(part + masked_crc(crc32c(part)).to_bytes(4, "little") for part in (length, data))


def wandb(data: bytes) -> None:
    """A log, and a record without its framing."""
    log = wandb_log.WandbLog(file_of(b":W&B\xe1\xbe\0" + data))
    for record in (*log.records(), data):
        try:
            for kind, part in wandb_records.split_record(record):
                if kind in (wandb_records.HISTORY, wandb_records.SUMMARY, wandb_records.CONFIG):
                    for _, value in wandb_records.read_items(part):
                        wandb_records.number_of(value)
                elif kind == wandb_records.RUN:
                    wandb_records.read_run(part)
                elif kind == wandb_records.ENVIRONMENT:
                    wandb_records.read_environment(part)
        except NotAMessage:
            pass
    assert log.position <= len(data) + wandb_log.BLOCK


reader, seconds = sys.argv[1], int(sys.argv[2])
corpus = Path(tempfile.mkdtemp())
corpus.joinpath("a").write_bytes(
    b"\x01\x09\0\0\0\0\0\0\0\x40\x10\x07\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\x80\x3f"
)
options = [
    f"-max_total_time={seconds}",
    "-max_len=4096",
    "-timeout=20",
    "-rss_limit_mb=1024",
    "-print_final_stats=1",
]
atheris.Setup([sys.argv[0], *options, str(corpus)], {"tensorboard": tensorboard, "wandb": wandb}[reader])
os.environ["PYTHONHASHSEED"] = "0"
atheris.Fuzz()
