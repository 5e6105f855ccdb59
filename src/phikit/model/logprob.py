"""The one definition of log-probability: chunked over positions, so that [B, T, V] is never built.

Scoring and evaluation call `token_logprobs`, and so does the language-model loss through `weighted_nll`, which has
the gradients made while the logits of a chunk are at hand; DPO and its reference cache, where several tokens are
read from one row of logits, call `branch_logprobs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from phikit.model.layout import CHUNK, CPU_CHUNK, CUDA_CHUNK
from phikit.model.nll import nll_with_gradients


def token_logprobs(
    hidden_ND: torch.Tensor, head_VD: torch.Tensor, targets_N: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """log p(targets_N) in fp32, [N], from hidden states that predict them. With gradients, the logits of a
    chunk are computed again in the backward pass when there is more than one chunk. A head whose rows are divided
    among ranks (a DTensor) gives each rank the whole result."""
    hidden_ND, head_VD, vocabulary = _divided(hidden_ND, head_VD)
    if hidden_ND.shape[0] <= chunk:
        return _logprobs(hidden_ND, head_VD, targets_N, vocabulary)
    parts = []
    for h, t in zip(hidden_ND.split(chunk), targets_N.split(chunk)):
        if torch.is_grad_enabled() and h.requires_grad:
            parts.append(checkpoint(_logprobs, h, head_VD, t, vocabulary, use_reentrant=False))
        else:
            parts.append(_logprobs(h, head_VD, t, vocabulary))
    return torch.cat(parts)  # type: ignore[arg-type]


def weighted_nll(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    targets_N: torch.Tensor,
    weight_N: torch.Tensor,
    chunk: int | None = None,
    step: Callable | None = None,
) -> torch.Tensor:
    """-sum(weight x log p(target)), the language-model loss before its division; a scalar. Gradients of a chunk are
    made right after its logits: nothing is computed twice and no logits are kept. `step` in place of what makes loss
    and gradient of a chunk (`_nll_step`; on the CPU `model.nll`)."""
    chunk = chunk or (CUDA_CHUNK if hidden_ND.is_cuda else CPU_CHUNK)
    if not (torch.is_grad_enabled() and hidden_ND.requires_grad) or is_divided(head_VD):
        return -(token_logprobs(hidden_ND, head_VD, targets_N, chunk) * weight_N).sum()
    if hidden_ND.is_cuda:
        step = step or _compiled_step()
    return _WeightedNLL.apply(hidden_ND, head_VD, targets_N, weight_N, chunk, step)  # type: ignore[return-value]


class _WeightedNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, head, targets, weight, chunk: int, step: Callable | None) -> torch.Tensor:
        device = hidden.device.type
        half = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if half else hidden.dtype
        with torch.autocast(device, enabled=False):
            if step is None:
                of_head = ctx.needs_input_grad[1]
                total, grad_x, grad_w = nll_with_gradients(
                    hidden, head, targets, weight, chunk, dtype, of_head
                )
                ctx.save_for_backward(grad_x, *([] if grad_w is None else [grad_w]))
                return total
            x, w = hidden.to(dtype), head.to(dtype)
            grad_x = torch.empty_like(x)
            grad_w = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
            total = torch.zeros((), device=hidden.device)
            for a in range(0, len(x), chunk):
                part = slice(a, a + chunk)
                nll, grad = step(x[part] @ w.T, targets[part], weight[part])
                total += nll
                torch.mm(grad, w, out=grad_x[part])
                if grad_w is not None and grad.dtype == grad_w.dtype:
                    grad_w.addmm_(grad.T, x[part])
                elif grad_w is not None:
                    grad_w += grad.T @ x[part]
        ctx.save_for_backward(grad_x, *([] if grad_w is None else [grad_w]))
        return total

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        grad_x, *grad_w = ctx.saved_tensors
        # In place: they are used once.
        return (
            grad_x.mul_(grads[0]),
            *((w.mul_(grads[0]) for w in grad_w) if grad_w else (None,)),
            *[None] * 4,
        )


def _nll_step(
    logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss sum of one chunk and its gradient in the logits."""
    wide = logits.float()
    below = wide.logsumexp(-1)
    chosen = wide.gather(-1, targets[:, None])[:, 0]
    hit = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    grad = ((wide - below[:, None]).exp() - hit.float()) * weight[:, None]
    return ((below - chosen) * weight).sum(), grad.to(logits.dtype)


@cache
def _compiled_step():
    return torch.compile(_nll_step, dynamic=False)  # one pass over the logits in place of ten


def branch_logprobs(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    at_S: torch.Tensor,
    targets_S: torch.Tensor,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """log p(targets_S) in fp32, [S], where hidden state at_S[j] predicts target j: the tokens that branch off at
    one place share one row of logits. `at_S` ascends. Chunked like `token_logprobs`."""
    hidden_ND, head_VD, vocabulary = _divided(hidden_ND, head_VD)
    if hidden_ND.shape[0] <= chunk:
        return _branch(hidden_ND, head_VD, at_S, targets_S, vocabulary)
    parts = []
    for first in range(0, hidden_ND.shape[0], chunk):
        a, b = torch.searchsorted(at_S, torch.tensor([first, first + chunk], device=at_S.device)).tolist()
        args = hidden_ND[first : first + chunk], head_VD, at_S[a:b] - first, targets_S[a:b], vocabulary
        if torch.is_grad_enabled() and hidden_ND.requires_grad:
            parts.append(checkpoint(_branch, *args, use_reentrant=False))
        else:
            parts.append(_branch(*args))
    return torch.cat(parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Vocabulary:
    """This rank's rows of a head, first .. first + size - 1; the others of `group` have the rest."""

    group: Any
    first: int
    size: int

    def chosen(self, logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        own = targets - self.first
        here = (own >= 0) & (own < self.size)
        return _Total.apply(torch.where(here, logits[rows, own.clamp(0, self.size - 1)], 0.0), self.group)  # type: ignore[return-value]

    def logsumexp(self, logits: torch.Tensor) -> torch.Tensor:
        most = logits.detach().amax(-1)
        dist.all_reduce(most, dist.ReduceOp.MAX, self.group)
        sums = (logits - most[:, None]).exp().sum(-1)
        return most + _Total.apply(sums, self.group).log()  # type: ignore[union-attr]


class _Total(torch.autograd.Function):
    """The sum over ranks. What follows is the same on every rank, and so is its gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, group: Any) -> torch.Tensor:
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        return grads[0], None


class _Shared(torch.autograd.Function):
    """The same x on every rank, of which each uses it for its own part: gradients add up."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        g = grads[0].contiguous()
        dist.all_reduce(g, group=ctx.group)
        return g, None


def shared(x: torch.Tensor, group: Any) -> torch.Tensor:
    return _Shared.apply(x, group)  # type: ignore[return-value]


def is_divided(head: torch.Tensor) -> bool:
    return hasattr(head, "device_mesh")


def _divided(
    hidden: torch.Tensor, head: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, Vocabulary | None]:
    """This rank's part of a head of which each rank of a mesh has a contiguous part."""
    if not is_divided(head):
        return hidden, head, None
    mesh = head.device_mesh  # type: ignore[attr-defined]
    own = head.to_local()  # type: ignore[attr-defined]
    where = Vocabulary(mesh.get_group(), mesh.get_local_rank() * own.shape[0], own.shape[0])
    return shared(hidden, where.group), own, where


def _branch(
    hidden: torch.Tensor,
    head: torch.Tensor,
    at: torch.Tensor,
    targets: torch.Tensor,
    where: Vocabulary | None = None,
) -> torch.Tensor:
    logits = F.linear(hidden, head).float()
    if where:
        return where.chosen(logits, at, targets) - where.logsumexp(logits)[at]
    return logits[at, targets] - logits.logsumexp(-1)[at]


def _logprobs(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, where: Vocabulary | None = None
) -> torch.Tensor:
    logits = F.linear(hidden, head).float()
    if where:
        return where.chosen(
            logits, torch.arange(len(targets), device=targets.device), targets
        ) - where.logsumexp(logits)
    return -F.cross_entropy(logits, targets, reduction="none")


def logprobs_of(
    logits_NV: torch.Tensor, rows_M: torch.Tensor, targets_M: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(targets_M) in float64, [M], where several targets may share one of the N rows of logits, and
    whether each is the arg-max of its row."""
    chosen = logits_NV[rows_M, targets_M].double() - logits_NV.logsumexp(-1).double()[rows_M]
    return chosen, logits_NV.argmax(-1)[rows_M] == targets_M
