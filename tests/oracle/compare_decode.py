#!/usr/bin/env python3
"""Compare decoding token by token, `minic logits --decode`, with transformers' `use_cache`, on checkpoints of both families.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors tokenizers numpy
    cargo build --release
    venv/bin/python tests/oracle/compare_decode.py [--minic target/release/minic] [--only SUBSTRING] [--first 1 3 40] [--steps 24]
                                                   [--checkpoint DIR ..] [--device cpu] [--tolerance 2e-5]

It takes the checkpoints of tests/golden (or the folders given with --checkpoint). Of three sequences side by side the first tokens are given at
once, and then one token of each at a time; logits are compared at the last of the first tokens and at every step. The table has the largest
absolute differences over all of these positions, in units of logits:

- `PyTorch as is`: transformers' cached logits from those of its own full forward pass. It clamps dt there and in no step, so that the two
  differ wherever the limits of dt matter. For all that follows the clamp is put into its step;
- `PyTorch`: the same with the clamp;
- `difference`: minic's cached logits from transformers' cached ones, which must stay below the tolerance times the largest logit, at least one;
- `minic - whole`: minic's cached logits from those of its own full forward pass;
- `minic - f64`: minic's cached logits from transformers' full forward pass in f64.

transformers has no cache for a nemotron_h without attention: its full forward pass stands in for it, which is told.
Exit code 1 if a difference exceeds the tolerance, a run fails, or nothing was compared.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from checkpoints import exact_logits, load, logits, tokens

ROOT = Path(__file__).resolve().parents[2]
SEQUENCES = 3


def run_minic(arguments, checkpoint, ids, folder, more=()):
    """minic's logits for `ids`."""
    asked, answer = folder / "tokens.json", folder / "logits.safetensors"
    asked.write_text(json.dumps(ids.tolist()))
    answer.unlink(missing_ok=True)
    command = [arguments.minic, "logits", checkpoint, "--tokens", asked, "--output", answer, "--device", arguments.device, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return load_file(answer)["logits"]


@contextlib.contextmanager
def clamped_steps(model):
    """Inside, a step of the scan clamps dt as the scan of many tokens does."""
    module = sys.modules[type(model).__module__]
    step = module.mamba2_selective_state_update
    mixers = [layer for layer in model.modules() if hasattr(layer, "time_step_limit")]
    low, high = mixers[0].time_step_limit if mixers else (0.0, float("inf"))

    def clamped(state, x, dt, A, B, C, D, z=None, dt_bias=None, dt_softplus=True, **more):
        dt = torch.nn.functional.softplus(dt + dt_bias).clamp(low, high)
        return step(state, x, dt, A, B, C, D, z=z, dt_bias=None, dt_softplus=False, **more)

    module.mamba2_selective_state_update = clamped
    try:
        yield
    finally:
        module.mamba2_selective_state_update = step


@torch.no_grad()
def cached_logits(model, ids, first):
    """transformers' logits at the last of the first tokens and at every token after them [batch, steps + 1, vocab]."""
    cache = "cache_params" if model.config.model_type == "mamba2" else "past_key_values"
    done = model(ids[:, :first], use_cache=True)
    rows = [done.logits[:, -1:].float()]
    for position in range(first, ids.shape[1]):
        done = model(ids[:, position : position + 1], use_cache=True, **{cache: done[cache]})
        rows.append(done.logits.float())
    return torch.cat(rows, dim=1)


def has_cache(model):
    types = getattr(model.config, "layers_block_type", None)
    return types is None or any("attention" in kind.replace("linear_attention", "") for kind in types)


def largest_difference(ours, reference):
    if ours.shape != reference.shape or not bool(ours.isfinite().all()):
        raise RuntimeError(f"{list(ours.shape)} for {list(reference.shape)}, or not finite")
    return (ours - reference).abs().max().item()


def compare(checkpoint, arguments, folder):
    """Print one row per number of first tokens. Returns how many failed, and the largest relative difference."""
    failed, worst = 0, 0.0
    for first in arguments.first:
        model = load(checkpoint)
        ids = tokens(model.config.vocab_size, SEQUENCES, first + arguments.steps, seed=first)
        shown = slice(first - 1, None)
        whole = logits(model, ids)[:, shown]
        size = max(1.0, whole.abs().max().item())
        try:
            as_is = cached = whole
            if has_cache(model):
                as_is = cached_logits(model, ids, first)
                with clamped_steps(model):
                    cached = cached_logits(model, ids, first)
            ours = run_minic(arguments, checkpoint, ids, folder, ["--decode", str(arguments.steps)])[:, shown]
            own = largest_difference(ours, run_minic(arguments, checkpoint, ids, folder)[:, shown])
            difference = largest_difference(ours, cached)
            figures = [largest_difference(as_is, whole), largest_difference(cached, whole), difference, own]
            figures.append(largest_difference(ours, exact_logits(model, ids)[:, shown]))
            good = difference < arguments.tolerance * size
            worst = max(worst, difference / size)
            text = " ".join(f"{figure:14.1e}" for figure in figures)
            text += "" if has_cache(model) else "  (no cache)"
        except RuntimeError as error:
            good, text = False, str(error)[:200]
        failed += not good
        print(f"{checkpoint.name:30} {first:6} {size:12.2f} {text}  {'ok' if good else 'FAILED'}", flush=True)
    return failed, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minic", type=Path, default=ROOT / "target/release/minic")
    parser.add_argument("--only", default="", help="golden checkpoints whose name contains this")
    parser.add_argument("--first", type=int, nargs="+", default=[1, 3, 40])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--checkpoint", type=Path, nargs="+", help="compare these folders instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tolerance", type=float, default=2e-5)
    arguments = parser.parse_args()
    if not arguments.minic.exists():
        sys.exit(f"{arguments.minic} does not exist: run `cargo build --release` or give --minic")
    golden = (path.parent for path in (ROOT / "tests/golden").glob("*/golden.json"))
    chosen = arguments.checkpoint or sorted(path for path in golden if arguments.only in path.name)
    titles = ["PyTorch as is", "PyTorch", "difference", "minic - whole", "minic - f64"]
    print(f"{'checkpoint':30} {'first':>6} {'max |logit|':>12} " + " ".join(f"{title:>14}" for title in titles))
    failed, worst = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in chosen:
            bad, off = compare(checkpoint, arguments, Path(folder))
            failed, worst = failed + bad, max(worst, off)
    rows = len(chosen) * len(arguments.first)
    print(f"{rows - failed} of {rows} within {arguments.tolerance:g} of the largest logit, the worst {worst:.1e}")
    sys.exit(failed > 0 or rows == 0)


if __name__ == "__main__":
    main()
