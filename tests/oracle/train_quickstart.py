#!/usr/bin/env python3
"""Train the quickstart's parent (examples/quickstart/model) with PyTorch.

    cargo run --release --example stories -- stories --train 40000
    tests/oracle/train_quickstart.py --corpus stories --out trained --steps 1400
    tests/oracle/train_quickstart.py --corpus stories --init trained --seed 1 --steps 400 --decay 400 --out examples/quickstart/model

Those were the commands, but that the first run held its rates to its end (it was stopped by hand at step 1400 of 3000, by its recall). Another
machine gives other bits and about the same figures.

`--corpus` holds train.txt, heldout.txt and recall.jsonl as examples/stories.rs writes them; the oracle's packages are listed in
make_goldens.py. Writes a bf16 checkpoint with its tokenizer. Three choices make recall appear within a million tokens, minutes on two cores:

- Matrices are updated along orthogonalized momentum (Muon, Jordan 2024), everything else by AdamW.
- A word that is drawn afresh cannot be predicted; its gradient is noise. Such first mentions weigh 0.1 in the loss, later mentions of
  the same word 3, all other tokens 0.3. The printed losses are unweighted.
- A window begins at a story three times out of four, and anywhere in it otherwise, so that the model also copes with text that starts
  in the middle.
"""

import argparse
import copy
import json
import math
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import NemotronHConfig, NemotronHForCausalLM
from transformers.models.nemotron_h import modeling_nemotron_h

from chunked_ssd import causal_convolution, chunked_ssd
from score_recall import hits

SPECIALS = ["<pad>", "<bos>", "<eos>"]
PATTERN = "M-M-M*-M-M-"


def train_tokenizer(text):
    """Byte-level BPE over the corpus: any text can be encoded, and every word of a story is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=2, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return tokenizer


def new_model(vocab_size, seed):
    torch.manual_seed(seed)
    return NemotronHForCausalLM(
        NemotronHConfig(
            vocab_size=vocab_size, hidden_size=128, hybrid_override_pattern=PATTERN, mamba_num_heads=16, mamba_head_dim=16, n_groups=4,
            ssm_state_size=16, conv_kernel=4, chunk_size=32, intermediate_size=384, num_attention_heads=4, num_key_value_heads=2,
            head_dim=32, initializer_range=0.08, time_step_limit=(0.001, math.inf), max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )


def encode(tokenizer, path):
    """The tokens of each story, the blank line behind it included."""
    stories = [story + "\n\n" for story in path.read_text().split("\n\n") if story]
    return [encoding.ids for encoding in tokenizer.encode_batch(stories)]


def weights_of(stories):
    """The loss weight of each token: content words are those that stand in less than half of the stories."""
    sample = stories[:2000]
    counts = Counter(token for story in sample for token in set(story))
    weights = []
    for story in stories:
        seen = set()
        for token in story:
            repeated = 3.0 if token in seen else 0.1
            weights.append(repeated if counts[token] < len(sample) / 2 else 0.3)
            seen.add(token)
    return torch.tensor(weights)


def next_token_loss(model, ids, weights=None):
    """Mean cross-entropy over the predicted positions, by the weights of the predicted tokens."""
    values = model(ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(values.reshape(-1, values.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
    if weights is None:
        return losses.mean()
    weights = weights[:, 1:].reshape(-1)
    return (losses * weights).sum() / weights.sum()


class Muon:
    """Momentum, then the nearest orthogonal matrix by five Newton-Schulz steps."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.momenta = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate):
        for parameter, momentum in zip(self.parameters, self.momenta):
            momentum.mul_(0.95).add_(parameter.grad)
            update = orthogonal(parameter.grad + 0.95 * momentum)
            rows, columns = parameter.shape
            parameter.mul_(1 - 0.05 * rate).add_(update, alpha=-rate * max(1, rows / columns) ** 0.5)


def orthogonal(matrix):
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.T if tall else x


@torch.no_grad()
def held_out(model, tokenizer, windows, questions):
    """Loss in nats per token over contiguous windows, and the share of recall questions answered."""
    model.eval()
    loss = sum(next_token_loss(model, window[None]).item() for window in windows) / len(windows)
    predict = lambda ids: model(torch.tensor(ids), use_cache=False).logits.argmax(-1)
    right = hits(predict, lambda text: tokenizer.encode(text).ids, questions)
    model.train()
    return loss, sum(right) / len(right)


def rate(step, options):
    """A factor on both rates: warm up, hold, then fall linearly to 2 % over the last `decay` steps."""
    left = min(1.0, (options.steps - step) / options.decay)
    return min(1.0, (step + 1) / 60) * (0.02 + 0.98 * left)


def optimizers(model, options):
    """AdamW for the embeddings, the head and everything that is not a matrix; Muon for the rest."""
    outer = ("embeddings.weight", "lm_head.weight")
    named = list(model.named_parameters())
    tables = [p for name, p in named if name.endswith(outer)]
    inner = [p for name, p in named if p.ndim == 2 and not name.endswith(outer)]
    kernels = [p for _, p in named if p.ndim == 3]
    vectors = [p for _, p in named if p.ndim < 2]
    groups = [{"params": tables + kernels, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95), fused=True), Muon(inner)


def train(model, tokenizer, options):
    stories = encode(tokenizer, options.corpus / "train.txt")
    stream, weights = torch.tensor([token for story in stories for token in story]), weights_of(stories)
    starts = torch.tensor([0] + [len(story) for story in stories]).cumsum(0)
    starts = starts[starts < len(stream) - options.length - 100]
    held = torch.tensor([token for story in encode(tokenizer, options.corpus / "heldout.txt") for token in story])
    windows = held[: len(held) // 256 * 256].view(-1, 256)[:32]
    questions = [json.loads(line) for line in (options.corpus / "recall.jsonl").read_text().splitlines()]
    adamw, muon = optimizers(model, options)
    generator = torch.Generator().manual_seed(options.seed + 7)
    order, began = torch.randperm(len(starts), generator=generator), time.time()
    model.train()
    for step in range(options.steps + 1):
        if step % 100 == 0 or step == options.steps:
            loss, recall = held_out(model, tokenizer, windows, questions)
            tokens = step * options.batch * options.length
            print(f"step {step} tokens {tokens} loss {loss:.4f} recall {recall:.3f} {time.time() - began:.0f} s", flush=True)
            save(model, tokenizer, options.out)
            if recall >= options.target:
                options.steps = min(options.steps, step + options.decay)
        if step == options.steps:
            return
        at = [starts[order[(step * options.batch + row) % len(order)]].item() for row in range(options.batch)]
        at[::4] = [start + int(torch.randint(0, 100, (1,), generator=generator)) for start in at[::4]]
        ids, weight = (torch.stack([of[start : start + options.length] for start in at]) for of in (stream, weights))
        loss = next_token_loss(model, ids, weight)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = options.lr * rate(step, options)
        adamw.step()
        muon.step(options.matrix_rate * rate(step, options))


def save(model, tokenizer, folder):
    """A bf16 checkpoint with its tokenizer."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = dict(tokenizer_class="PreTrainedTokenizerFast", model_max_length=4096, clean_up_tokenization_spaces=False)
    config |= zip(("pad_token", "bos_token", "eos_token"), SPECIALS)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--decay", type=int, default=300, help="steps over which the rates fall at the end")
    parser.add_argument("--target", type=float, default=1.1, help="begin to end once this share of the questions is answered")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=184)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--init", type=Path, help="go on from this checkpoint and its tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    modeling_nemotron_h.mamba2_chunk_scan = chunked_ssd
    modeling_nemotron_h.causal_conv1d_fn = causal_convolution
    if options.init:
        tokenizer = Tokenizer.from_file(str(options.init / "tokenizer.json"))
        model = NemotronHForCausalLM.from_pretrained(options.init, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer((options.corpus / "train.txt").read_text()[:600_000])
        model = new_model(tokenizer.get_vocab_size(), options.seed)
    train(model, tokenizer, options)


if __name__ == "__main__":
    main()
