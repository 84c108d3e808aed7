#!/usr/bin/env python3
"""Time minic's fused head and loss beside plain PyTorch, in turns, so that both have the same machine to themselves or not.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0
    venv/bin/python tests/oracle/bench_head.py [--rounds 2]

One step is 1024 positions of a student of width 3072 and a teacher of width 4096, 131072 tokens, in f32: both models'
logits, T^2 KL(teacher || student) at T = 2, and its gradient by the student's hidden states and by its head. PyTorch does
it as one writes it down, with log_softmax and kl_div over whole logits; minic's figure is the row `4B head_loss` of its
benchmark. Both use as many threads as there are cores. Needs 14 GB of memory.
"""

import argparse
import os
import subprocess
import time

import torch
import torch.nn.functional as F

POSITIONS, WIDTH, TEACHER_WIDTH, VOCAB, TEMPERATURE = 1024, 3072, 4096, 131072, 2.0
BENCH = ["cargo", "bench", "-p", "minic-runtime", "--bench", "kernels", "--", "--large", "4B head_loss"]


def minic_seconds():
    """The time on all threads, from the row that the benchmark prints."""
    printed = subprocess.run(BENCH, check=True, capture_output=True, text=True).stdout
    row = next(line for line in printed.splitlines() if "head_loss" in line)
    return float(row.split("L=1024")[1].split()[1]) / 1e6


def operands():
    torch.manual_seed(1)
    draw = lambda rows, columns: torch.rand(rows, columns).mul_(2).sub_(1)
    student = [draw(POSITIONS, WIDTH).requires_grad_(), draw(VOCAB, WIDTH).requires_grad_()]
    return student, [draw(POSITIONS, TEACHER_WIDTH), draw(VOCAB, TEACHER_WIDTH)]


def torch_seconds(student, teacher):
    for x in student:
        x.grad = None
    start = time.perf_counter()
    with torch.no_grad():
        p = F.log_softmax(teacher[0] @ teacher[1].T / TEMPERATURE, dim=-1)
    q = F.log_softmax(student[0] @ student[1].T / TEMPERATURE, dim=-1)
    loss = F.kl_div(q, p, log_target=True, reduction="sum") * TEMPERATURE**2 / POSITIONS
    loss.backward()
    return time.perf_counter() - start


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=2)
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(os.cpu_count())
    times = {"minic": [], "PyTorch": []}
    for _ in range(rounds):
        times["minic"].append(minic_seconds())
        given = operands()
        times["PyTorch"] += [torch_seconds(*given) for _ in range(2)]
        del given
        print(*(f"{name} {min(of):.2f} s" for name, of in times.items()), sep=", ", flush=True)
    print(f"minic / PyTorch, best of each: {min(times['minic']) / min(times['PyTorch']):.2f}, {os.cpu_count()} threads")


if __name__ == "__main__":
    main()
