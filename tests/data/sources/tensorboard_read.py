"""Prints what TensorBoard itself reads from a log directory: {run: {tag: [[step, ms, float64 as hex], ...]}}."""

import json
import os
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

root = sys.argv[1]
found = {}
for folder, _, names in os.walk(root):
    if not any("tfevents" in name for name in names):
        continue
    data = EventAccumulator(
        folder, size_guidance={"scalars": 0, "tensors": 0}, purge_orphaned_data="keep" not in sys.argv
    )
    data.Reload()
    tags = data.Tags()
    series = {
        tag: [(e.step, e.wall_time, float(e.value)) for e in data.Scalars(tag)] for tag in tags["scalars"]
    }
    for tag in tags["tensors"]:
        if data.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            series[tag] = [
                (e.step, e.wall_time, float(tensor_util.make_ndarray(e.tensor_proto).item()))
                for e in data.Tensors(tag)
            ]
    found[os.path.relpath(folder, root)] = {
        tag: [[step, round(wall * 1000), value.hex()] for step, wall, value in points]
        for tag, points in series.items()
    }
print(json.dumps(found))
