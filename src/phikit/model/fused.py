"""A block of the network as two autograd functions around attention, for the CPU.

The same numbers as `Block.forward` up to rounding, forward and backward by hand: q, k and v are one product, gate and
up another; a norm's weight is multiplied into the rows of weights that follow it, so that a norm is one pass; rotation
is one product of complex numbers, since the rows of q and k are put in pairs as their weights are copied. What is
cheap to make again (normalized inputs, the product of gate and up, those copies) is not kept for the backward pass.
N tokens, D width, F ffn; products are in bf16 under autocast, the residual stream and sums in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from phikit.model import fused_trees
from phikit.model.attention import attend
from phikit.model.by_hand import (
    as_pairs,
    inverse_rms,
    norm_backward,
    norm_weight_backward,
    normed,
    qkv_gradients,
    scaled_qkv,
)
from phikit.model.product import product, product_once
from phikit.model.transformer import Block

IN_CACHE = 1 << 17  # elements of the MLP's gate that are worked on at once


def fuse(block: Block) -> Any:
    """A `forward` for this block; its own where a part of it is not the plain module (adapters, divided weights)."""
    linear = (
        block.attn.q,
        block.attn.k,
        block.attn.v,
        block.attn.o,
        block.mlp.gate,
        block.mlp.up,
        block.mlp.down,
    )
    plain = all(type(m) is nn.Linear and not hasattr(m.weight, "device_mesh") for m in linear)
    return partial(_forward, block) if plain else block.forward


def _forward(block: Block, x_BTD: torch.Tensor, rope, mask, read: torch.Tensor | None = None) -> torch.Tensor:
    trees = fused_trees.slots(block, mask)
    if trees is None and read is not None:  # queries and MLP of positions that do not ask are left out
        return Block.forward(block, x_BTD, rope, mask, read)
    a, m = block.attn, block.mlp
    cos, sin = (t[..., : a.head_dim // 2] for t in rope)
    half = torch.is_autocast_enabled(x_BTD.device.type)
    dtype = torch.get_autocast_dtype(x_BTD.device.type) if half else x_BTD.dtype
    with torch.autocast(x_BTD.device.type, enabled=False):
        weights = block.attn_norm.weight, a.q.weight, a.k.weight, a.v.weight
        turn, eps = torch.complex(cos, sin).transpose(1, 2), block.attn_norm.eps
        if trees is not None:
            x, out = fused_trees.attend(x_BTD, *weights, turn.flatten(0, 1), eps, dtype, trees, read)
        else:
            x, q, k, v = _Project.apply(x_BTD, *weights, turn, eps, dtype)  # type: ignore[misc]
            out = attend(q, k, v, mask).transpose(1, 2).flatten(2)
        return _Finish.apply(
            x, out, a.o.weight, block.mlp_norm.weight, m.gate.weight, m.up.weight, m.down.weight,
            block.mlp_norm.eps, dtype, product if trees is None else product_once,
        )  # type: ignore[return-value]  # fmt: skip


class _Project(torch.autograd.Function):
    """x [B, T, D] -> x (for the residual sum), rotated q [B, N, T, H] and k [B, K, T, H] in fp32, v [B, K, T, H]."""

    @staticmethod
    def forward(ctx, x_BTD, norm, wq, wk, wv, turn, eps: float, dtype: torch.dtype):
        b, t, width = x_BTD.shape
        x = x_BTD.reshape(-1, width)
        scale = inverse_rms(x, eps)
        w = scaled_qkv(wq, wk, wv, norm, turn.shape[-1], dtype)
        y = product(normed(x, scale, dtype), w).view(b, t, -1)
        rotated = wq.shape[0] + wk.shape[0]
        qk = torch.view_as_real(as_pairs(y[..., :rotated].float(), turn.shape[-1]) * turn).flatten(-2)
        ctx.save_for_backward(x, scale, norm, wq, wk, wv, turn)
        ctx.dtype = dtype
        heads = wq.shape[0] // (2 * turn.shape[-1])
        q, k = qk[:, :, :heads].transpose(1, 2), qk[:, :, heads:].transpose(1, 2)
        v = y[..., rotated:].unflatten(2, (-1, 2 * turn.shape[-1])).transpose(1, 2)
        return x_BTD.view_as(x_BTD), q, k, v

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        x, scale, norm, wq, wk, wv, turn = ctx.saved_tensors
        dtype, (residual, *parts) = ctx.dtype, grads
        b, t = residual.shape[:2]
        sizes = [w.shape[0] for w in (wq, wk, wv)]
        g = torch.empty(b, t, sum(sizes), dtype=dtype)
        back = turn.conj().resolve_conj()
        for grad, place in zip(parts[:2], g[..., : sum(sizes[:2])].split(sizes[:2], -1)):
            rotated = torch.view_as_complex(grad.transpose(1, 2).unflatten(-1, (-1, 2))) * back
            place.copy_(torch.view_as_real(rotated).flatten(-3))
        g[..., sum(sizes[:2]) :].copy_(parts[2].transpose(1, 2).flatten(2))
        g = g.view(b * t, -1)
        w = scaled_qkv(wq, wk, wv, norm, turn.shape[-1], dtype)
        grad_w = g.T @ normed(x, scale, dtype)
        grad_x = norm_backward(product(g, w.T), x, scale, residual.reshape(x.shape))
        own = qkv_gradients(grad_w, (wq, wk, wv), norm, turn.shape[-1])
        return grad_x.view(residual.shape), *own, None, None, None


class _Finish(torch.autograd.Function):
    """x + o(attended), and to that the MLP of its norm. `times`: what makes products, `product` or `product_once`."""

    @staticmethod
    def forward(ctx, x_BTD, attended, wo, norm, wg, wu, wd, eps: float, dtype: torch.dtype, times: Callable):
        x = x_BTD.reshape(-1, x_BTD.shape[-1])
        o = attended.reshape(len(x), -1).to(dtype)
        middle = _add_product(x, o, wo, times)
        scale = inverse_rms(middle, eps)
        gate_up = times(normed(middle, scale, dtype), _scaled((wg, wu), norm, dtype))
        out = _add_product(middle, _gated(gate_up), wd, times)
        ctx.save_for_backward(o, middle, scale, gate_up, wo, norm, wg, wu, wd)
        ctx.dtype, ctx.times = dtype, times
        return out.view(x_BTD.shape)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        o, middle, scale, gate_up, wo, norm, wg, wu, wd = ctx.saved_tensors
        dtype, times, shape = ctx.dtype, ctx.times, grads[0].shape
        grad = grads[0].reshape(middle.shape)
        half = grad.to(dtype)
        hidden, d = _gated_backward(gate_up, times(half, wd.to(dtype).T))
        grad_down = half.T @ hidden
        del hidden
        grad_w = d.T @ normed(middle, scale, dtype)
        grad = norm_backward(times(d, _scaled((wg, wu), norm, dtype).T), middle, scale, grad)
        del d
        half = grad.to(dtype)
        own = [x.float() for x in grad_w.chunk(2)]
        dnorm, (dg, du) = torch.zeros_like(norm), own
        for x, w in ((dg, wg), (du, wu)):
            norm_weight_backward(x, w, norm, dnorm)
        return (
            grad.view(shape), times(half, wo.to(dtype).T).view(*shape[:-1], -1), (half.T @ o).to(wo.dtype),
            dnorm, dg, du, grad_down.to(wd.dtype), None, None, None,
        )  # fmt: skip


def _parts(gate_up: torch.Tensor, *others: torch.Tensor):
    """(gate, up, others) of a few rows at a time, which caches hold."""
    width = gate_up.shape[1] // 2
    rows = max(1, IN_CACHE // width)
    for x, *more in zip(*(t.split(rows) for t in (gate_up, *others))):
        yield x[:, :width], x[:, width:], *more


def _gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) up, [N, F]."""
    out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    for gate, up, place in _parts(gate_up, out):
        torch.ops.aten.silu.out(gate, out=place).mul_(up)
    return out


def _gated_backward(gate_up: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`_gated` once more, and the gradient in gate_up of `grad` in it, which is overwritten."""
    out, d = torch.empty_like(grad), torch.empty_like(gate_up)
    for gate, up, place, g, both in _parts(gate_up, out, grad, d):
        d_gate, d_up = both.chunk(2, -1)
        torch.ops.aten.silu.out(gate, out=place)
        torch.mul(g, place, out=d_up)
        torch.ops.aten.silu_backward.grad_input(g.mul_(up), gate, grad_input=d_gate)
        place.mul_(up)
    return out, d


def _add_product(x: torch.Tensor, a: torch.Tensor, w: torch.Tensor, times: Callable) -> torch.Tensor:
    """x + a w^T, the sum in x's dtype."""
    return x + times(a, w.to(a.dtype))


def _scaled(weights: tuple[torch.Tensor, ...], norm: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights below one another, each column times the norm's weight."""
    rows = [w.shape[0] for w in weights]
    out = torch.empty(sum(rows), norm.shape[0], dtype=dtype, device=norm.device)
    for w, place in zip(weights, out.split(rows)):
        torch.mul(w, norm, out=place)
    return out
