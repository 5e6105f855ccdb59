"""One attention function, `attend(q, k, v, mask)`: causal, and never across documents of a packed row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from phikit.model.blockwise import Packed, attend_blockwise, packed
from phikit.model.documents import Documents, copied, end_to_end, flex, is_block_mask, of_segments
from phikit.model.layout import Kernel

# Slots of a row up to which scores are written out: torch's CPU kernel takes twice the time at T = 64 and the same
# at T = 128 (forward + backward, masked, 1024 tokens).
SHORT = 128
BLOCKWISE = torch.float32, torch.bfloat16  # of values


def document_mask(segments_BT: torch.Tensor) -> torch.Tensor:
    """[B, 1, T, T] bool: position t may see s where s <= t and both lie in the same document. Segment ids
    differ between neighbours; padding has its own id."""
    t = segments_BT.shape[1]
    same = segments_BT[:, None, :, None] == segments_BT[:, None, None, :]
    return same & torch.ones(t, t, dtype=torch.bool, device=segments_BT.device).tril()


def mask_of(segments_BT: torch.Tensor, kernel: Kernel | None, device: torch.device):
    """The mask of packed rows, whose ids are on the CPU, for `attend` on `device`. On the CPU None where rows are one
    document each; kernel None on another device: the dense one."""
    if kernel is None and device.type == "cpu":
        return packed(segments_BT)
    if kernel is None:
        return document_mask(copied(segments_BT, device))
    return of_segments(segments_BT, kernel, device)


@dataclass(frozen=True)
class Ulysses:
    """Rows whose tokens are divided among the ranks of `group`: for attention the heads are divided instead, and
    each rank sees whole rows with their whole `mask`. The ranks divide the KV heads."""

    mask: Any
    group: Any
    ranks: int


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length over one row of n tokens, so that no other part of the network computes padding, or a
    token that several rows begin with more than once: attention alone sees [B, T] slots. m of the tokens are
    queries, all n or those that are read in the end. Nothing that is read sees padding."""

    token: torch.Tensor  # [B, T] the token in each slot; any one, where the slot is padding
    slot: torch.Tensor  # [n] a slot b x T + t of each token
    again: torch.Tensor  # the other slots that tokens are in
    query: torch.Tensor  # [B, Q] which query is in each query slot; any one, where it is padding
    place: torch.Tensor  # [m] the query slot b x Q + q where a query's output is taken
    bias: torch.Tensor  # [B, 1, Q, T] fp32: 0 where a query sees a slot, else -inf
    # What kernels make of these rows, once a step.
    made: dict[Any, Any] = field(default_factory=dict, init=False, compare=False)


class _Take(torch.autograd.Function):
    """x [n, D] -> x[index], [B x T, D]. The gradient is taken from the slots; index_select's own backward would add
    all of them one by one."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, index: torch.Tensor, slot: torch.Tensor, again: torch.Tensor | None):
        ctx.save_for_backward(index, slot, again)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        index, slot, again = ctx.saved_tensors
        g = grads[0].index_select(0, slot)
        if again is not None and len(again):
            g.index_add_(0, index[again], grads[0].index_select(0, again))
        return g, None, None, None


class _Return(torch.autograd.Function):
    """x [B x Q, D] -> x[place], [m, D]; the gradient of all other slots is 0."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(place)
        ctx.slots = x.shape[0]
        return x.index_select(0, place)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        g = grads[0]
        return g.new_zeros(ctx.slots, g.shape[1]).index_copy_(0, ctx.saved_tensors[0], g), None


def _attend_short(
    q_BNQH: torch.Tensor, k_BKTH: torch.Tensor, v_BKTH: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """`attend` with the scores written out, in fp32; the query heads of a kv head share one product with it."""
    (b, n, m, h), (kv, t) = q_BNQH.shape, k_BKTH.shape[1:3]
    with torch.autocast(q_BNQH.device.type, enabled=False):
        q = (q_BNQH.float() * h**-0.5).reshape(b, kv, n // kv * m, h)
        scores = (q @ k_BKTH.float().transpose(-1, -2)).view(b, kv, n // kv, m, t)
        p = torch.softmax(scores + bias[:, :, None], -1).view(b, kv, -1, t)
        return (p @ v_BKTH.float()).view(b, n, m, h).to(q_BNQH.dtype)


def _attend_ragged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: Ragged) -> torch.Tensor:
    b, h = rows.token.shape[0], q.shape[3]

    def spread(x: torch.Tensor, index: torch.Tensor, slot: torch.Tensor, again=None) -> torch.Tensor:
        flat = x[0].transpose(0, 1).reshape(-1, x.shape[1] * h)  # [1, N, n, H] -> [n, N x H]
        slots = _Take.apply(flat, index.flatten(), slot, again)
        return slots.view(b, -1, x.shape[1], h).transpose(1, 2)  # type: ignore[union-attr]

    keys, values = (spread(x, rows.token, rows.slot, rows.again) for x in (k, v))
    # A query in several slots is taken from one: the gradient of the others is 0.
    queries = spread(q, rows.query, rows.place)
    if rows.token.shape[1] > SHORT:
        out = attend(queries, keys, values, rows.bias.to(q.dtype))
    else:
        out = _attend_short(queries, keys, values, rows.bias)
    flat = _Return.apply(out.transpose(1, 2).reshape(-1, q.shape[1] * h), rows.place)
    return flat.view(1, -1, q.shape[1], h).transpose(1, 2)  # type: ignore[union-attr]


def _exchange(x_BNTH: torch.Tensor, how: Ulysses, *, from_heads: bool) -> torch.Tensor:
    """[B, N, T / ranks, H] -> [B, N / ranks, T, H] in one all-to-all, or back."""
    from torch.distributed._functional_collectives import all_to_all_single_autograd

    b, n, t, h = x_BNTH.shape
    r = how.ranks
    if from_heads:  # to each rank its tokens
        sent = x_BNTH.reshape(b, n, r, t // r, h).permute(2, 0, 1, 3, 4)
    else:  # to each rank its heads
        sent = x_BNTH.reshape(b, r, n // r, t, h).transpose(0, 1)
    got = all_to_all_single_autograd(sent.contiguous(), None, None, how.group)
    if from_heads:
        return got.transpose(0, 1).reshape(b, n * r, t // r, h)
    return got.permute(1, 2, 0, 3, 4).reshape(b, n // r, t * r, h)


def attend(q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor, mask: Any) -> torch.Tensor:
    """Softmax attention with scale H^-0.5; K key/value heads serve N query heads. `mask` None means causal
    over equal lengths; a bool tensor, `Ragged`, `Packed`, or what `mask_of` gives. Returns [B, N, T, H]."""
    if isinstance(mask, Ulysses):
        q, k, v = (_exchange(x, mask, from_heads=False) for x in (q_BNTH, k_BKSH, v_BKSH))
        return _exchange(attend(q, k, v, mask.mask), mask, from_heads=True)
    if isinstance(mask, Ragged):
        return _attend_ragged(q_BNTH, k_BKSH, v_BKSH, mask)
    if isinstance(mask, Documents):
        return end_to_end(q_BNTH, k_BKSH, v_BKSH, mask)
    if is_block_mask(mask):
        return flex(q_BNTH, k_BKSH, v_BKSH, mask)
    if mask is None or isinstance(mask, Packed):
        if q_BNTH.requires_grad and torch.is_grad_enabled() and v_BKSH.dtype in BLOCKWISE and _on_cpu(q_BNTH):
            return attend_blockwise(q_BNTH.float(), k_BKSH.float(), v_BKSH, mask)
        mask = mask.bias if mask else None
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    if groups > 1:
        k_BKSH, v_BKSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    dtype = v_BKSH.dtype
    if _on_cpu(q_BNTH) and dtype == torch.bfloat16:
        # torch's CPU kernel takes 2.2x the time in bf16 at T = 128 and the same at T = 512 (forward + backward).
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.float()
        with torch.autocast("cpu", enabled=False):
            return _sdpa(q_BNTH.float(), k_BKSH.float(), v_BKSH.float(), mask).to(dtype)
    return _sdpa(q_BNTH, k_BKSH, v_BKSH, mask)


def _on_cpu(x: torch.Tensor) -> bool:
    return x.device.type == "cpu"


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
