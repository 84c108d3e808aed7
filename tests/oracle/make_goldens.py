#!/usr/bin/env python3
"""Make every folder of tests/golden again, from transformers alone.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors tokenizers numpy
    venv/bin/python tests/oracle/make_goldens.py [--out tests/golden]

tests/golden/README.md describes the files.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import importance
import slicing
from checkpoints import CASES, load, logits, nemotron, next_token_loss, tokens, write

# At the seams of chunks, at the start where the convolution is padded, and at the end.
POSITIONS = {"short": [0, 1, 31, 32, 63], "long": [0, 1, 63, 64, 127, 128, 255, 256, 599]}
ROWS = {"short": (2, 64), "long": (1, 600)}

IMPORTANCE = nemotron(50, hybrid_override_pattern="M-*MM-", vocab_size=48, hidden_size=12, mamba_num_heads=6, mamba_head_dim=5, intermediate_size=20)
SLICING = nemotron(60, hybrid_override_pattern="M-M*M-", vocab_size=48, hidden_size=14, mamba_num_heads=8, mamba_head_dim=6, intermediate_size=22)


def write_json(path, value):
    path.write_text(json.dumps(value) + "\n")


def logits_case(case, folder):
    """A checkpoint, its token files, and the logits of each at a few positions."""
    write(case, folder)
    model = load(folder)
    sampled, losses = {}, {}
    for name, (rows, length) in ROWS.items():
        ids = tokens(model.config.vocab_size, rows, length, case["seed"])
        write_json(folder / f"tokens-{name}.json", ids.tolist())
        values = logits(model, ids)
        sampled[name] = values[:, POSITIONS[name]].contiguous()
        losses[name] = {"positions": POSITIONS[name], "loss": next_token_loss(values, ids)}
    save_file(sampled, folder / "logits.safetensors")
    write_json(folder / "golden.json", losses)


def importance_case(folder):
    """Scores of every tap on four samples of 40 tokens, and what they keep."""
    write(IMPORTANCE, folder)
    ids = tokens(IMPORTANCE["config"]["vocab_size"], 4, 40, IMPORTANCE["seed"])
    model, measured = importance.measure(folder, ids)
    write_json(folder / "tokens.json", ids.tolist())
    keep = dict(heads_per_group=2, channels=3, neurons=11, hidden=8, layers=4)
    measured["kept"] = {"sizes": keep, **importance.decisions(model, measured, **keep)}
    write_json(folder / "scores.json", measured)


def slicing_case(folder):
    """A parent, its cut along all five axes, and the kept indices."""
    write(SLICING, folder / "parent")
    slicing.write_cut(folder / "parent", folder / "cut", heads_per_group=3, channels=4, neurons=13, hidden=10, drop={1, 4})
    load(folder / "cut")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "golden")
    out = parser.parse_args().out
    for name, case in CASES.items():
        logits_case(case, out / name)
    importance_case(out / "importance")
    slicing_case(out / "slicing")
    print(f"{len(CASES) + 2} folders in {out}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
