"""Attention of trees of tokens on the CPU, forward and backward by hand.

`attend` of `model.attention` moves q, k and v of `Ragged` rows one by one and turns heads outward with a copy each.
Here one gather takes all heads of all slots to where the products want them, and one takes the gradients back; the
scale is in the products, the mask is what they are added to. n nodes, B rows of T slots, N query and K kv heads of H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phikit.model.attention import SHORT, Ragged


@dataclass(frozen=True)
class Slots:
    """Where heads of nodes are. A head is a row of H numbers: in y all heads of a node, q, k and v, follow one another,
    or where few nodes ask, keys and values of all nodes are before the queries. In the slots queries [B, N, Q] come
    before keys [B, K, T] and values [B, K, T]."""

    sizes: list[int]  # rows of queries, keys and values in the slots
    shape: tuple[int, int, int]  # B x K products, N / K x Q queries in each, T
    taken: torch.Tensor  # which row of y is in each row of the slots
    back: torch.Tensor  # [rows of y] a row of the slots that it is in
    place: torch.Tensor  # [m x N] the row where a query's output is taken
    again: torch.Tensor  # the other rows of keys and values
    again_of: torch.Tensor  # the rows of y that these are
    bias: torch.Tensor  # [B x K, N / K x Q, T]


def slots(rows: Ragged, heads: int, kv_heads: int) -> Slots | None:
    """None where these rows are too long to write out their scores."""
    if rows.token.shape[1] > SHORT:
        return None
    key = "slots", heads, kv_heads
    if key not in rows.made:
        rows.made[key] = _slots(rows, heads, kv_heads)
    return rows.made[key]


def _slots(rows: Ragged, heads: int, kv_heads: int) -> Slots:
    (b, t), n, q = rows.token.shape, len(rows.slot), rows.query.shape[1]
    together = rows.query is rows.token  # each node asks
    every = heads + 2 * kv_heads if together else 2 * kv_heads
    sizes = [b * heads * q, b * kv_heads * t, b * kv_heads * t]
    firsts = [0, sizes[0], sizes[0] + sizes[1]]
    kv = torch.arange(kv_heads) + (heads if together else 0)
    head = torch.arange(heads)

    def taken(of: torch.Tensor, each: int, first: torch.Tensor) -> torch.Tensor:
        return (of[:, None] * each + first[:, None]).flatten()

    def where(slot: torch.Tensor, width: int, number: int, first: int) -> torch.Tensor:
        """[slots, heads]: slot (b, t) of head e is row (b x heads + e) x width + t of its part."""
        row, column = slot[:, None] // width, slot[:, None] % width
        return first + (row * number + torch.arange(number)) * width + column

    place = where(rows.place, q, heads, 0)
    keys, again = (
        torch.cat([where(s, t, kv_heads, f) for f in firsts[1:]], 1) for s in (rows.slot, rows.again)
    )
    if together:
        back, asking = torch.cat((place, keys), 1).flatten(), taken(rows.query, every, head)
    else:
        back = torch.cat((keys.flatten(), place.flatten()))
        asking = n * every + taken(rows.query, heads, head)
    again_of = rows.token.flatten()[rows.again][:, None] * every
    return Slots(
        sizes, (b * kv_heads, heads // kv_heads * q, t),
        torch.cat((asking, *(taken(rows.token, every, x) for x in (kv, kv + kv_heads)))), back, place.flatten(),
        again.flatten(), torch.cat((again_of + kv, again_of + kv + kv_heads), 1).flatten(),
        rows.bias.expand(b, heads, q, t).reshape(b * kv_heads, -1, t),
    )  # fmt: skip


def attend(y: torch.Tensor, where: Slots) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """y [rows, H] fp32: rotated q and k, and v -> [m x N, H], and what `attend_backward` needs."""
    (products, m, t), h = where.shape, y.shape[1]
    q, k, v = y.index_select(0, where.taken).split(where.sizes)
    q, k, v = q.view(products, m, h), k.view(products, t, h), v.view(products, t, h)
    p = torch.baddbmm(where.bias, q, k.mT, alpha=h**-0.5).softmax(-1)
    return torch.bmm(p, v).view(-1, h).index_select(0, where.place), (q, k, v, p)


def attend_backward(grad: torch.Tensor, saved: Sequence[torch.Tensor], where: Slots) -> torch.Tensor:
    """The gradient in y of `grad` [m x N, H] in the output."""
    q, k, v, p = saved
    h = q.shape[-1]
    do = torch.zeros_like(q)  # of slots whose output nobody takes
    do.view(-1, h).index_copy_(0, where.place, grad)
    every = q.new_empty(sum(where.sizes), h)
    dq, dk, dv = (x.view(like.shape) for x, like in zip(every.split(where.sizes), (q, k, v)))
    ds = torch.ops.aten._softmax_backward_data(do @ v.mT, p, -1, p.dtype)
    torch.bmm(p.mT, do, out=dv)
    torch.baddbmm(dq, ds, k, beta=0, alpha=h**-0.5, out=dq)
    torch.baddbmm(dk, ds.mT, q, beta=0, alpha=h**-0.5, out=dk)
    back = every.index_select(0, where.back)
    if len(where.again):
        back.index_add_(0, where.again_of, every.index_select(0, where.again))
    return back
