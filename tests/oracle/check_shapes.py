"""Strict shapes of a checkpoint of any size: python check_shapes.py FOLDER..

Builds the model that config.json describes with transformers on the meta device, which holds no weight, and compares its table of names
and shapes with the headers of the safetensors files: nothing missing, nothing more, no other shape, one dtype, and the index right. The
prefix before `layers.` is `model.` in memory and `backbone.` in files; it is left out of the comparison. Exit code 1 on any difference.
"""

import json
import math
import struct
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.logging.set_verbosity_error()


def plain(name):
    return name.removeprefix("backbone.").removeprefix("model.")


def wanted(folder):
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {plain(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes, sum(math.prod(shape) for shape in shapes.values())


def header(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        table = json.loads(file.read(length))
    table.pop("__metadata__", None)
    end = max(entry["data_offsets"][1] for entry in table.values())
    assert path.stat().st_size == 8 + length + end, f"{path}: its size is not the header's"
    return table


def check(folder):
    files = sorted(folder.glob("model*.safetensors"))
    found, dtypes, where, faults = {}, set(), {}, []
    for path in files:
        for name, entry in header(path).items():
            if plain(name) in found:
                faults.append(f"{name} is there twice")
            found[plain(name)] = tuple(entry["shape"])
            where[name] = path.name
            dtypes.add(entry["dtype"])
    shapes, params = wanted(folder)
    faults += [f"{name} {shape} is missing" for name, shape in shapes.items() if name not in found]
    faults += [f"{name} {shape} belongs to no weight" for name, shape in found.items() if name not in shapes]
    both = shapes.keys() & found.keys()
    faults += [f"{n} is {found[n]}, the model wants {shapes[n]}" for n in sorted(both) if found[n] != shapes[n]]
    index = folder / "model.safetensors.index.json"
    if index.exists() and json.loads(index.read_text())["weight_map"] != where:
        faults.append("the index says otherwise than the files")
    if len(dtypes) != 1:
        faults.append(f"dtypes {sorted(dtypes)}")
    print(f"{folder}: {len(found)} tensors in {len(files)} files, {sorted(dtypes)}, {params:,} parameters wanted")
    for fault in faults:
        print("  " + fault)
    return not faults


if __name__ == "__main__":
    ok = [check(Path(folder)) for folder in sys.argv[1:]]
    print("OK" if ok and all(ok) else "FAILED")
    sys.exit(not (ok and all(ok)))
