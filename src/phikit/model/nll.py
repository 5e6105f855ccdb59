"""The language-model loss on the CPU with its gradients, made right after the logits of a chunk of tokens.

The gradient takes the place of the logits. Weights of tokens are multiplied into what it is multiplied with, which is
smaller by the ratio of vocabulary to width; gradients of the head are added a few rows at a time.
"""

from __future__ import annotations

import torch

from phikit.model.product import product

IN_CACHE = 1 << 18  # logits that are turned into gradients at once: 1 MB
ROWS = 8192  # of the head's gradient, added at once
RARE = 1e-30  # below, a probability in fp32 has too few digits for its logarithm


def nll_with_gradients(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    targets_N: torch.Tensor,
    weight_N: torch.Tensor,
    chunk: int,
    dtype: torch.dtype,
    of_head: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(-sum(weight x log p), its gradient in `hidden`, and in `head` where `of_head`); products in `dtype`."""
    w = head_VD.to(dtype)
    grad_x, grad_w = torch.empty_like(hidden_ND), torch.empty_like(head_VD) if of_head else None
    total = torch.zeros(())
    split = (y.split(chunk) for y in (hidden_ND, targets_N[:, None], weight_N[:, None], grad_x))
    for i, (part, targets, weight, place) in enumerate(zip(*split)):
        x = part.to(dtype)
        logits = product(x, w)
        total += _in_place(logits, targets, weight)
        torch.mul(product(logits, w.T), weight, out=place)
        if grad_w is not None:
            _add_gradient(grad_w, logits, x * weight.to(dtype), new=i == 0)
    return total, grad_x, grad_w


def _in_place(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The loss sum of these tokens; their logits become its gradient, but for the weight."""
    total, size = torch.zeros(()), max(1, IN_CACHE // logits.shape[1])
    wide = torch.empty(min(size, len(logits)), logits.shape[1])
    for x, t, w in zip(*(y.split(size) for y in (logits, targets, weight))):
        p = torch.softmax(x, -1, dtype=torch.float32, out=wide[: len(x)])
        chosen = p.gather(-1, t)
        nll = -chosen.log()
        if (chosen < RARE).any():
            # The denominator of a softmax is its largest numerator over its largest probability.
            below = x.amax(-1, keepdim=True).float() - p.amax(-1, keepdim=True).log_()
            nll = below - x.gather(-1, t)
        total += (nll * w).sum()
        x.copy_(p.scatter_add_(1, t, torch.full_like(chosen, -1)))
    return total


def _add_gradient(out: torch.Tensor, g: torch.Tensor, x: torch.Tensor, *, new: bool) -> None:
    """g^T x added to `out`, or in its place where it is new."""
    if g.dtype == out.dtype:
        torch.addmm(out, g.T, x, beta=0 if new else 1, out=out)
        return
    for place, some in zip(out.split(ROWS), g.split(ROWS, 1)):
        made = some.T @ x
        if new:
            place.copy_(made)
        else:
            place += made
