"""The Mamba-2 scan in chunks, as batched matrix products, for training on a CPU: a drop-in for transformers' pure PyTorch function.

Within a chunk the scan is a masked product of C B^T with the decays (a "dual" attention form); between chunks only the states pass. B and
C stay per group, where transformers repeats them for every head. Same numbers as transformers within rounding, about twice as fast.
"""

import torch
import torch.nn.functional as F


def chunked_ssd(
    hidden_states, dt, A, B, C, chunk_size, D=None, dt_bias=None, initial_states=None, dt_softplus=False,
    dt_limit=(0.0, float("inf")), return_final_states=False, **unused,
):
    """hidden_states [b, l, H, P], dt [b, l, H], A [H], B and C [b, l, G, N]. Returns [b, l, H, P]; training needs no states."""
    if initial_states is not None or return_final_states:
        raise NotImplementedError("this scan is for full forward passes")
    batch, length, heads, width = hidden_states.shape
    groups, states = B.shape[2:]
    per_group, chunk = heads // groups, min(chunk_size, length)
    dt = dt if dt_bias is None else dt + dt_bias
    dt = (F.softplus(dt) if dt_softplus else dt).clamp(*dt_limit)
    padding = -length % chunk
    chunks = (length + padding) // chunk

    def split(values, *shape):
        padded = F.pad(values, (0, 0) * (values.ndim - 2) + (0, padding))
        return padded.view(batch, chunks, chunk, *shape)

    x = split(hidden_states * dt[..., None], groups, per_group, width).permute(0, 1, 3, 4, 2, 5)  # b c G R Q P
    B, C = (split(values, groups, states).transpose(2, 3) for values in (B, C))  # b c G Q N
    logs = split(dt * A, groups, per_group).permute(0, 1, 3, 4, 2).cumsum(-1)  # b c G R Q
    causal = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    decay = (logs[..., :, None] - logs[..., None, :]).masked_fill(~causal, -torch.inf).exp()
    inside = ((C @ B.transpose(-1, -2))[:, :, :, None] * decay) @ x

    weighted = x * (logs[..., -1:] - logs).exp()[..., None]
    added = B.transpose(-1, -2)[:, :, :, None] @ weighted  # b c G R N P
    state, before = torch.zeros_like(added[:, 0]), []
    for index in range(chunks):
        before.append(state)
        state = state * logs[:, index, ..., -1, None, None].exp() + added[:, index]
    across = (C[:, :, :, None] @ torch.stack(before, dim=1)) * logs.exp()[..., None]

    y = (inside + across).permute(0, 1, 4, 2, 3, 5).reshape(batch, -1, heads, width)[:, :length]
    return y if D is None else y + D[:, None] * hidden_states


def causal_convolution(hidden_states, weight, bias=None, activation=None, **unused):
    """Depthwise causal convolution of [b, channels, l] as shifted multiply-adds."""
    taps, length = weight.shape[-1], hidden_states.shape[-1]
    padded = F.pad(hidden_states, (taps - 1, 0))
    y = sum(padded[:, :, tap : tap + length] * weight[:, tap, None] for tap in range(taps))
    y = y if bias is None else y + bias[:, None]
    return F.silu(y) if activation == "silu" else y
