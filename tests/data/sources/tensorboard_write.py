"""Writes a log directory with tensorboard's and tensorboardX's writers. Argument: the folder."""

import sys
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util
from tensorboardX import SummaryWriter

root = Path(sys.argv[1])
random = np.random.default_rng(1)


def old_style() -> None:
    """What torch and tensorboardX write: thousands of points, every kind of number, and things that are none."""
    with SummaryWriter(str(root / "old")) as writer:
        for step in range(1500):
            writer.add_scalar("train/loss", float(random.normal()), step)
            writer.add_scalar("train/acc", step / 1500, step)
            if step % 50 == 0:
                writer.add_scalar("a/long name with spaces and ünïcode", step, step * 1_000_003)
                writer.add_scalar(
                    "odd", [float("nan"), float("inf"), -float("inf"), -0.0, 1e-45][step // 50 % 5], step
                )
        writer.add_scalar("big step", 1.0, 2**40)
        writer.add_scalar("same step", 1.0, 7)
        writer.add_scalar("same step", 2.0, 7)
        writer.add_image("sample", random.integers(0, 255, (3, 8, 8)).astype(np.uint8), 3)
        writer.add_image("sample", random.integers(0, 255, (3, 8, 8)).astype(np.uint8), 9)
        writer.add_histogram("weights", random.normal(size=200), 4)
        writer.add_text("remark", "first", 1)
        writer.add_text("remark", "and *last*", 2)
        writer.add_scalars("pair", {"a": 1.0, "b": 2.0}, 5)
        writer.add_hparams(
            {"lr": 3e-4, "batch": 64, "opt": "adam", "nesterov": True}, {"hparam/accuracy": 0.91}
        )


def new_style() -> None:
    """What TensorFlow 2 writes: tensors with the scalars plugin's name, several numbers of all types."""
    writer = EventFileWriter(str(root / "new" / "train"))

    def add(summary: Summary, step: int) -> None:
        writer.add_event(
            Event(wall_time=time.time(), step=step, summary=Summary.FromString(summary.SerializeToString()))
        )

    add(hparams.hparams_pb({"lr": 0.1, "layers": 3, "name": "wide"}), 0)
    for step in range(600):
        add(scalar_pb("epoch_loss", float(random.normal()), "the loss"), step)
        if step % 3 == 0:
            add(scalar_pb("epoch_accuracy", step / 600), step)
    for number, kind in enumerate((np.float64, np.float16, np.int32, np.int64, np.uint8)):
        summary = scalar_pb("typed", 0.0)
        tensor = summary.value[0].tensor
        tensor.CopyFrom(tensor_util.make_tensor_proto(kind(number * 1.5 + 1), dtype=kind))
        add(summary, number)
    add(histogram_pb("layer", random.normal(size=50)), 1)
    add(text_pb("words", "hello"), 1)
    end = Summary()
    end.value.add(tag="_hparams_/session_end_info").metadata.plugin_data.plugin_name = "hparams"
    content = HParamsPluginData(session_end_info={"status": STATUS_SUCCESS, "end_time_secs": time.time() + 1})
    end.value[0].metadata.plugin_data.content = content.SerializeToString()
    add(end, 600)
    writer.close()


def merged() -> None:
    """What TensorFlow 1 writes: several values in one event; then a new session in the same file."""
    writer = EventFileWriter(str(root / "merged"))
    for step in range(100):
        values = [Summary.Value(tag=f"m{n}", simple_value=step + n / 7) for n in range(6)]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
    writer.close()


def restarted() -> None:
    """Two starts of one training: the second begins below where the first one ended, and a third within its file."""
    for begin, end, shift in ((0, 60, 0.0), (40, 80, 100.0)):
        writer = EventFileWriter(str(root / "restarted"))
        if begin:
            writer.add_event(
                Event(wall_time=time.time(), step=begin, session_log=SessionLog(status=SessionLog.START))
            )
        for step in range(begin, end):
            value = Summary.Value(tag="loss", simple_value=shift + step)
            writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
        writer.close()
        time.sleep(1.1)  # file names tell seconds apart


old_style()
new_style()
merged()
restarted()
