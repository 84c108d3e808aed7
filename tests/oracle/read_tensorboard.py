#!/usr/bin/env python3
"""Read the event files of a run folder with TensorBoard's own reader, and compare them with metrics.jsonl.

    python3 -m venv venv && venv/bin/pip install tensorboard
    venv/bin/python tests/oracle/read_tensorboard.py examples/quickstart/.minic/runs/quickstart

Prints each tag with its number of points and its last value, and fails where a point is missing, twice, or another. Checksums are checked by the reader. `tests/golden/records` is such a folder.
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader


def expected(line):
    """Tags and values of one line."""
    if "heldout_loss" in line:
        return {f"heldout/{name}": line[f"heldout_{name}"] for name in ("loss", "top1", "kl") if f"heldout_{name}" in line}
    tags = {f"loss/{term}": value for term, value in line["losses"].items()}
    return tags | {"loss/total": line["loss"]} | {tag: line[tag] for tag in ("rate", "grad_norm", "tokens_per_second")}


def same(found, wanted):
    """Event files hold f32."""
    close = lambda a, b: a[:2] == b[:2] and math.isclose(a[2], b[2], rel_tol=1e-6)
    return found.keys() == wanted.keys() and all(
        len(found[tag]) == len(wanted[tag]) and all(map(close, found[tag], wanted[tag])) for tag in wanted
    )


def main():
    run = Path(sys.argv[1])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for stage in dict.fromkeys(line["stage"] for line in lines):
        folder, wanted = run / "tensorboard" / stage, {}
        own = [line for line in lines if line["stage"] == stage]
        for line in own:
            for tag, value in expected(line).items():
                wanted.setdefault(tag, []).append((line["tokens"], line["time"], value))
        # The loader that checks every checksum, and the one that TensorBoard's pages use.
        records = [record for path in folder.iterdir() for record in RawEventFileLoader(str(path)).Load()]
        if len(records) != 1 + len(own):
            sys.exit(f"{stage}: {len(records)} records, not {1 + len(own)}")
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        reader.Reload()
        found = {tag: [(e.step, e.wall_time, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
        if not same(found, wanted):
            sys.exit(f"{stage}: what TensorBoard reads is not what metrics.jsonl holds")
        for tag, points in sorted(found.items()):
            print(f"{stage} {tag}: {len(points)} points, the last {points[-1][2]:.6g} at step {points[-1][0]}")


if __name__ == "__main__":
    main()
