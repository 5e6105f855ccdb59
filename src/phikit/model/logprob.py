"""The one definition of log-probability: chunked over positions, so that [B, T, V] is never built.

The language-model loss, DPO, the reference cache, scoring and evaluation all call `token_logprobs`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 4096  # positions; at V = 100,352 one fp32 chunk of logits is 1.6 GB


def token_logprobs(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, targets_N: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """log p(targets_N) in fp32, [N], from hidden states that predict them. With gradients, the logits of a
    chunk are computed again in the backward pass when there is more than one chunk."""
    if hidden_ND.shape[0] <= chunk:
        return _logprobs(hidden_ND, head_VD, targets_N)
    parts = []
    for h, t in zip(hidden_ND.split(chunk), targets_N.split(chunk)):
        if torch.is_grad_enabled() and h.requires_grad:
            parts.append(checkpoint(_logprobs, h, head_VD, t, use_reentrant=False))
        else:
            parts.append(_logprobs(h, head_VD, t))
    return torch.cat(parts)  # type: ignore[arg-type]


def _logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = F.linear(hidden, head).float()
    return -F.cross_entropy(logits, targets, reduction="none")
