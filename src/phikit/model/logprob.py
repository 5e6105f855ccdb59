"""The one definition of log-probability: chunked over positions, so that [B, T, V] is never built.

The language-model loss, scoring and evaluation call `token_logprobs`; DPO and its reference cache, where several
tokens are read from one row of logits, call `branch_logprobs`.
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


def branch_logprobs(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    at_S: torch.Tensor,
    targets_S: torch.Tensor,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """log p(targets_S) in fp32, [S], where hidden state at_S[j] predicts target j: the tokens that branch off at
    one place share one row of logits. `at_S` ascends. Chunked like `token_logprobs`."""
    if hidden_ND.shape[0] <= chunk:
        return _branch(hidden_ND, head_VD, at_S, targets_S)
    parts = []
    for first in range(0, hidden_ND.shape[0], chunk):
        a, b = torch.searchsorted(at_S, torch.tensor([first, first + chunk], device=at_S.device)).tolist()
        args = hidden_ND[first : first + chunk], head_VD, at_S[a:b] - first, targets_S[a:b]
        if torch.is_grad_enabled() and hidden_ND.requires_grad:
            parts.append(checkpoint(_branch, *args, use_reentrant=False))
        else:
            parts.append(_branch(*args))
    return torch.cat(parts)  # type: ignore[arg-type]


def _branch(
    hidden: torch.Tensor, head: torch.Tensor, at: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    logits = F.linear(hidden, head).float()
    return logits[at, targets] - logits.logsumexp(-1)[at]


def _logprobs(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = F.linear(hidden, head).float()
    return -F.cross_entropy(logits, targets, reduction="none")


def logprobs_of(
    logits_NV: torch.Tensor, rows_M: torch.Tensor, targets_M: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(targets_M) in float64, [M], where several targets may share one of the N rows of logits, and
    whether each is the arg-max of its row."""
    chosen = logits_NV[rows_M, targets_M].double() - logits_NV.logsumexp(-1).double()[rows_M]
    return chosen, logits_NV.argmax(-1)[rows_M] == targets_M
