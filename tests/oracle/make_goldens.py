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
from gradients import gradients

# At the seams of chunks, at the start where the convolution is padded, and at the end.
POSITIONS = {"short": [0, 1, 31, 32, 63], "long": [0, 1, 63, 64, 127, 128, 255, 256, 599]}
ROWS = {"short": (2, 64), "long": (1, 600)}

IMPORTANCE = nemotron(50, hybrid_override_pattern="M-*MM-", vocab_size=48, hidden_size=12, mamba_num_heads=6, mamba_head_dim=5, intermediate_size=20)
SLICING = nemotron(60, hybrid_override_pattern="M-M*M-", vocab_size=48, hidden_size=14, mamba_num_heads=8, mamba_head_dim=6, intermediate_size=22)

# Together they hold every kind of weight, biases, a tied head, several groups, and dt clamped on both sides.
GRADIENTS = ["nemotron-plain", "nemotron-biases", "nemotron-dt-floor", "mamba2-biases", "mamba2-tied", "mamba2-dt-limits"]
# Students, and the teachers of the same vocabulary and width they are compared with.
TEACHERS = {"nemotron-biases": "nemotron-no-conv-bias", "mamba2-tied": "mamba2-dt-limits"}
# As recipes write them. With beta = 0.5 the divergence is symmetric, so another beta shows whose share it is.
LOSSES = [
    "forward_kl(temperature = 1)",
    "forward_kl(temperature = 2)",
    "reverse_kl(temperature = 2)",
    "js(beta = 0.5)",
    "js(beta = 0.2, temperature = 2)",
    "mse()",
    "cosine(layers = [0, 2], teacher_layers = [1, 2])",
    "0.7 * forward_kl(temperature = 2) + 0.3 * cross_entropy() + 0.1 * mse(layers = [1])",
]


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


def short_tokens(folder):
    return torch.tensor(json.loads((folder / "tokens-short.json").read_text()))


def gradients_case(folder):
    """The gradient of the cross-entropy of the short tokens for every weight."""
    _, found = gradients(load(folder), folder, short_tokens(folder))
    save_file(found, folder / "gradients.safetensors")


def distillation_case(folder, teacher):
    """Losses beside a teacher on the short tokens, and their gradients."""
    model, beside, ids = load(folder), load(folder.parent / teacher), short_tokens(folder)
    values, all_found = {}, {}
    for i, loss in enumerate(LOSSES):
        values[loss], found = gradients(model, folder, ids, loss, beside)
        all_found.update({f"{i}/{name}": gradient for name, gradient in found.items()})
    save_file(all_found, folder / "distillation.safetensors")
    write_json(folder / "distillation.json", {"teacher": teacher, "losses": values})


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
    for name in GRADIENTS:
        gradients_case(out / name)
    for name, teacher in TEACHERS.items():
        distillation_case(out / name, teacher)
    importance_case(out / "importance")
    slicing_case(out / "slicing")
    print(f"{len(CASES) + 2} folders in {out}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
