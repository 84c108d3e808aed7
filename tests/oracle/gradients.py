"""Losses of trainings and their gradients, from autograd alone.

A loss is written as a recipe writes it, `0.9 * forward_kl(temperature = 2) + 0.1 * cross_entropy()`, which is Python, too: `gradients` evaluates
that text over the terms of `Losses`, each written down from docs/language.md. Means are taken over positions and layers.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss

from checkpoints import widened


def run(model, ids):
    """The logits, and what each layer leaves to the next."""
    streams, hooks = [], []
    keep = lambda module, given, result: streams.append(result[0] if isinstance(result, tuple) else result)
    for layer in model.base_model.layers:
        hooks.append(layer.register_forward_hook(keep))
    try:
        return model(ids, use_cache=False).logits, streams
    finally:
        for hook in hooks:
            hook.remove()


def divergence(p, q):
    """KL(p || q), the mean over positions, of logarithms of probabilities."""
    return (p.exp() * (p - q)).sum(-1).mean()


class Losses:
    """The terms of a loss line, of what `run` gives for a student and, where there is one, a teacher."""

    def __init__(self, ids, student, teacher=None):
        self.ids, self.student, self.teacher = ids, student, teacher

    def distributions(self, temperature):
        return [torch.log_softmax(logits / temperature, -1) for logits in (self.teacher[0], self.student[0])]

    def cross_entropy(self):
        logits = self.student[0][:, :-1]
        return cross_entropy(logits.reshape(-1, logits.shape[-1]), self.ids[:, 1:].reshape(-1))

    def forward_kl(self, temperature=1.0):
        p, q = self.distributions(temperature)
        return temperature**2 * divergence(p, q)

    def reverse_kl(self, temperature=1.0):
        p, q = self.distributions(temperature)
        return temperature**2 * divergence(q, p)

    def js(self, beta=0.5, temperature=1.0):
        p, q = self.distributions(temperature)
        m = torch.log(beta * p.exp() + (1 - beta) * q.exp())
        return temperature**2 * (beta * divergence(p, m) + (1 - beta) * divergence(q, m))

    def streams(self, layers, teacher_layers):
        layers = range(len(self.student[1])) if layers is None else layers
        teacher_layers = layers if teacher_layers is None else teacher_layers
        return [(self.student[1][i], self.teacher[1][j]) for i, j in zip(layers, teacher_layers, strict=True)]

    def mse(self, layers=None, teacher_layers=None):
        pairs = self.streams(layers, teacher_layers)
        return sum(mse_loss(x, y) for x, y in pairs) / len(pairs)

    def cosine(self, layers=None, teacher_layers=None):
        pairs = self.streams(layers, teacher_layers)
        return sum((1 - cosine_similarity(x, y, dim=-1)).mean() for x, y in pairs) / len(pairs)

    def evaluate(self, text):
        terms = ["cross_entropy", "forward_kl", "reverse_kl", "js", "mse", "cosine"]
        return eval(text, {"__builtins__": {}}, {name: getattr(self, name) for name in terms})


def names_on_disk(model, folder):
    """The name in the folder's files of each parameter: transformers renames the first part of some."""
    on_disk = set()
    for path in Path(folder).glob("*.safetensors"):
        if path.name.startswith("model"):
            with safe_open(path, "pt") as file:
                on_disk.update(file.keys())
    names = {}
    for name, _ in model.named_parameters():
        first, rest = name.split(".", 1)
        names[name] = next(known for known in (name, f"backbone.{rest}", f"model.{rest}") if known in on_disk)
    if set(names.values()) != on_disk:
        raise RuntimeError(f"{folder}: {on_disk ^ set(names.values())}")
    return names


def gradients(model, folder, ids, loss="cross_entropy()", teacher=None):
    """The loss, and its gradient for every weight of the model under its name in the folder's files."""
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        beside = run(teacher, ids) if teacher is not None else None
    value = Losses(ids, run(model, ids), beside).evaluate(loss)
    value.backward()
    names, parameters = names_on_disk(model, folder), dict(model.named_parameters())
    zero = lambda parameter: torch.zeros_like(parameter)
    return value.item(), {
        on_disk: zero(parameters[name]) if parameters[name].grad is None else parameters[name].grad.detach().clone()
        for name, on_disk in names.items()
    }


def exact_gradients(model, folder, ids, loss="cross_entropy()", teacher=None):
    """The same in f64 arithmetic. Both models are widened for good."""
    for each in (model, teacher):
        if each is not None:
            each.double()
    with widened():
        value, found = gradients(model, folder, ids, loss, teacher)
    assert all(gradient.dtype == torch.float64 for gradient in found.values())
    return value, found
