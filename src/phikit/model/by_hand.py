"""Pieces of a block's forward and backward pass by hand, for `model.fused` and `model.fused_trees`."""

from __future__ import annotations

import torch


def inverse_rms(x_ND: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / root mean square, [N, 1]."""
    norm = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True)
    return norm.square_().div_(x_ND.shape[-1]).add_(eps).rsqrt_()


def normed(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x times scale, [N, D] in `dtype`."""
    return torch.mul(x, scale, out=torch.empty(x.shape, dtype=dtype, device=x.device))


def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, residual: torch.Tensor
) -> torch.Tensor:
    """The gradient in x of x * scale(x), added to `residual`."""
    grad = grad.to(x.dtype)
    along = torch.linalg.vecdot(grad, x)[:, None] * scale.pow(3) / -x.shape[-1]
    return torch.addcmul(residual, x, along).addcmul_(grad, scale)


def norm_weight_backward(
    grad: torch.Tensor, w: torch.Tensor, norm: torch.Tensor, along: torch.Tensor
) -> None:
    """From the gradient in weights times norm: that in the weights, in its place, and added to `along` the norm's."""
    along += (grad * w).sum(0)
    grad.mul_(norm)


def scaled_qkv(wq, wk, wv, norm: torch.Tensor, pairs: int, dtype: torch.dtype) -> torch.Tensor:
    """Weights below one another, each column times the norm's weight; in each head of q and k, row i and row i + H / 2,
    which rotate together, lie side by side. Scores do not feel it."""
    rows = [w.shape[0] for w in (wq, wk, wv)]
    out = torch.empty(sum(rows), norm.shape[0], dtype=dtype, device=norm.device)
    q, k, v = out.split(rows)
    for w, place in ((wq, q), (wk, k)):
        torch.mul(
            w.unflatten(0, (-1, 2, pairs)).transpose(1, 2), norm, out=place.unflatten(0, (-1, pairs, 2))
        )
    torch.mul(wv, norm, out=v)
    return out


def qkv_gradients(
    grad_w: torch.Tensor, weights: tuple[torch.Tensor, ...], norm: torch.Tensor, pairs: int
) -> tuple[torch.Tensor, ...]:
    """From the gradient in `scaled_qkv`: those in the norm's weight and in the three weights, in fp32."""
    dq, dk, dv = grad_w.split([len(w) for w in weights])
    own = _unpaired(dq, pairs), _unpaired(dk, pairs), dv.float()
    dnorm = torch.zeros_like(norm)
    for d, w in zip(own, weights):
        norm_weight_backward(d, w, norm, dnorm)
    return dnorm, *own


def _unpaired(grad: torch.Tensor, pairs: int) -> torch.Tensor:
    """Rows in the order of the weight, in fp32."""
    out = torch.empty(grad.shape, device=grad.device)
    out.unflatten(0, (-1, 2, pairs)).copy_(grad.unflatten(0, (-1, pairs, 2)).transpose(1, 2))
    return out


def as_pairs(y: torch.Tensor, pairs: int) -> torch.Tensor:
    """[..., heads x H] -> complex [..., heads, H / 2]."""
    return torch.view_as_complex(y.unflatten(-1, (-1, pairs, 2)))
