"""`model.fused` for trees of tokens: projections, rotation and the attention of `model.forest` as one function.

In the last block few nodes ask: keys and values are made of all n, queries and what follows of those m alone.
"""

from __future__ import annotations

from typing import Any

import torch

from phikit.model import forest
from phikit.model.attention import Ragged
from phikit.model.by_hand import as_pairs, inverse_rms, norm_backward, normed, qkv_gradients, scaled_qkv


def slots(block: Any, mask: Any) -> forest.Slots | None:
    """None where this file does not attend with `mask`."""
    if not isinstance(mask, Ragged):
        return None
    a = block.attn
    return forest.slots(mask, a.q.out_features // a.head_dim, a.k.out_features // a.head_dim)


def attend(x_BTD, norm, wq, wk, wv, turn, eps: float, dtype: torch.dtype, slots, read: torch.Tensor | None):
    """One row of nodes x [1, n, D] with rotations `turn` [n, 1, H / 2] -> of the nodes that ask, all or `read` [m],
    x for the residual sum and what their heads see [1, m, N x H]."""
    found = _Attend.apply(x_BTD[0], norm, wq, wk, wv, turn[:, 0], eps, dtype, slots, read)
    return tuple(t[None] for t in found)  # type: ignore[union-attr]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, norm, wq, wk, wv, turn, eps: float, dtype: torch.dtype, slots, read):
        scale = inverse_rms(x, eps)
        w = scaled_qkv(wq, wk, wv, norm, turn.shape[-1], dtype)
        queries, both = len(wq), len(wq) + len(wk)
        x_hat = normed(x, scale, dtype)
        if read is None:
            y = (x_hat @ w.T).float()
            _rotate(y[:, :both], turn)
        else:  # of each node its keys and values, then the queries of those that ask
            kv = (x_hat @ w[queries:].T).float()
            q = (x_hat.index_select(0, read) @ w[:queries].T).float()
            _rotate(kv[:, : len(wk)], turn)
            _rotate(q, turn.index_select(0, read))
            y = torch.cat((kv.view(-1), q.view(-1)))
        out, kept = forest.attend(y.view(-1, 2 * turn.shape[-1]), slots)
        ctx.save_for_backward(*kept, x, scale, norm, wq, wk, wv, turn)
        ctx.dtype, ctx.slots, ctx.read = dtype, slots, read
        return (x.view_as(x) if read is None else x.index_select(0, read)), out.view(-1, queries)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        *kept, x, scale, norm, wq, wk, wv, turn = ctx.saved_tensors
        dtype, read, (residual, grad) = ctx.dtype, ctx.read, grads
        y = forest.attend_backward(grad.reshape(-1, 2 * turn.shape[-1]), kept, ctx.slots)
        w = scaled_qkv(wq, wk, wv, norm, turn.shape[-1], dtype)
        x_hat = normed(x, scale, dtype)
        queries, back = len(wq), turn.conj().resolve_conj()
        if read is None:
            g = y.view(len(x), -1)
            _rotate(g[:, : queries + len(wk)], back)
            g = g.to(dtype)
            grad_w, along = g.T @ x_hat, g @ w
        else:
            kv, q = y.split([len(x) * (len(w) - queries) // y.shape[1], len(read) * queries // y.shape[1]])
            kv, q = kv.view(len(x), -1), q.view(len(read), -1)
            _rotate(kv[:, : len(wk)], back)
            _rotate(q, back.index_select(0, read))
            kv, q = kv.to(dtype), q.to(dtype)
            grad_w = torch.cat((q.T @ x_hat.index_select(0, read), kv.T @ x_hat))
            along = kv @ w[queries:]
            along[read] += q @ w[:queries]
            residual = torch.zeros_like(x).index_copy_(0, read, residual)
        grad_x = norm_backward(along, x, scale, residual)
        own = qkv_gradients(grad_w, (wq, wk, wv), norm, turn.shape[-1])
        return grad_x, *own, *[None] * 5


def _rotate(y_NE: torch.Tensor, turn: torch.Tensor) -> None:
    """Heads, whose pairs lie side by side, in place."""
    as_pairs(y_NE, turn.shape[-1]).mul_(turn[:, None])
