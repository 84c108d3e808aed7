#!/usr/bin/env python3
"""Score a checkpoint on recall questions: the share whose answer it gives word for word.

    tests/oracle/score_recall.py examples/quickstart/model [--recall examples/quickstart/recall.jsonl] [--minic target/release/minic]

Each line of the JSONL file is {"prompt": .., "answer": ..}, encoded with the checkpoint's tokenizer.json. An answer counts if, after the prompt
and the answer's own beginning, each of its tokens (the full stop included) is the most likely next one: what greedy decoding would
write, found with one forward pass. With --minic the logits come from `minic logits` (the packages numpy, safetensors and tokenizers are
enough then), else from transformers.

Two levels of chance are printed: the most frequent answer to each kind of question, and guessing among those answers to it that this
story mentions. A model that has learned only the language reaches the first, one that remembers the words but not what belongs together
the second.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("Who had", "What was", "Where was")
BATCH = 25


def kind_of(prompt):
    """The first words of the prompt's last question."""
    return re.findall("|".join(KINDS), prompt)[-1]


def by_transformers(checkpoint):
    from checkpoints import load, logits, torch

    model = load(checkpoint)
    return lambda ids: logits(model, torch.tensor(ids)).argmax(-1)


def by_minic(minic, checkpoint):
    from safetensors.numpy import load_file

    def predict(ids):
        with tempfile.TemporaryDirectory() as folder:
            asked, answer = Path(folder) / "tokens.json", Path(folder) / "logits.safetensors"
            asked.write_text(json.dumps(ids))
            subprocess.run([minic, "logits", checkpoint, "--tokens", asked, "--output", answer], check=True)
            return load_file(answer)["logits"].argmax(-1)

    return predict


def hits(predict, encode, questions):
    """Whether each question is answered. `predict` gives the likeliest next token at every position of a batch of equal rows;
    rows are padded behind, which a causal model does not see."""
    result = []
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        prompts = [encode(q["prompt"]) for q in batch]
        rows = [encode(q["prompt"] + q["answer"]) for q in batch]
        longest = max(map(len, rows))
        predicted = predict([row + [0] * (longest - len(row)) for row in rows])
        for prompt, row, likely in zip(prompts, rows, predicted):
            if row[: len(prompt)] != prompt:
                raise ValueError("a prompt's tokens change when its answer follows")
            result.append(likely[len(prompt) - 1 : len(row) - 1].tolist() == row[len(prompt) :])
    return result


def chance(questions):
    """(the most frequent answer of the kind, guessing among those of the kind that the prompt mentions), averaged over questions."""
    answers = {kind: Counter(q["answer"].strip(" .") for q in questions if kind_of(q["prompt"]) == kind) for kind in KINDS}
    blind = sum(max(counts.values(), default=0) for counts in answers.values()) / len(questions)
    told = lambda q: answers[kind_of(q["prompt"])].keys() & set(re.findall(r"\w+", q["prompt"]))
    return blind, numpy.mean([1 / len(told(q)) for q in questions])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--recall", type=Path, default=ROOT / "examples/quickstart/recall.jsonl")
    parser.add_argument("--minic", type=Path)
    arguments = parser.parse_args()
    questions = [json.loads(line) for line in arguments.recall.read_text().splitlines()]
    tokenizer = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json"))
    predict = by_minic(arguments.minic, arguments.checkpoint) if arguments.minic else by_transformers(arguments.checkpoint)
    right = hits(predict, lambda text: tokenizer.encode(text).ids, questions)
    for kind in KINDS:
        of_kind = [hit for hit, q in zip(right, questions) if kind_of(q["prompt"]) == kind]
        print(f"{kind:10} {sum(of_kind):4} of {len(of_kind):4}  {100 * numpy.mean(of_kind):5.1f} %")
    blind, seen = chance(questions)
    total = f"all        {sum(right):4} of {len(right):4}  {100 * numpy.mean(right):5.1f} %"
    print(f"{total}   (chance {100 * blind:.1f} %, among the words of the story {100 * seen:.1f} %)")


if __name__ == "__main__":
    main()
