"""Prompts of the live batch, each kept once for all samples that share it, and attention to them.

Samples of one prompt sit in the lanes of a group; the queries of a group are one matrix against the group's
keys. Partial results carry their log-sum-exp, so that parts of a context can be merged exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F

from phikit.engine.network import Network
from phikit.engine.prefill import Kept

Part = tuple[torch.Tensor, torch.Tensor]  # attended values, log-sum-exp of the scores


def attend_part(
    q_BMH: torch.Tensor, k_BSH: torch.Tensor, v_BSH: torch.Tensor, mask: torch.Tensor | None = None
) -> Part:
    """Softmax attention of (scaled) queries to one part of their keys: [B, M, H] and log-sum-exp [B, M]. `mask`
    broadcasts to [batch, heads x queries, S] where B = batch x kv heads."""
    scores = torch.bmm(q_BMH, k_BSH.transpose(1, 2))
    if mask is not None:
        scores.view(mask.shape[0], -1, scores.shape[2]).add_(mask)
    p = torch.softmax(scores, -1)
    # log-sum-exp from the largest score and its probability: far cheaper than another pass of exponentials
    return torch.bmm(p, v_BSH), scores.amax(-1) - p.amax(-1).log()


def merge(a: Part, b: Part) -> torch.Tensor:
    """Attention over both parts, [..., H]."""
    return torch.lerp(a[0], b[0], torch.sigmoid(b[1] - a[1])[..., None])


class Groups:
    """`lanes` samples share one copy of a prompt. Group g holds keys [K, L, H] at rows g K ... of each layer. There is
    memory for prompts of `longest` tokens, and for more of either kind when they come; `least` groups at a time."""

    def __init__(self, net: Network, lanes: int, longest: int, least: int = 8) -> None:
        self.net, self.lanes, self.longest, self.least = net, lanes, longest, least
        self.capacity, self.active = 0, 0  # groups there is memory for; groups attended to
        self.width = 1  # longest prompt of the groups in use
        zeros = partial(torch.zeros, device=net.device)
        self.keys: list[torch.Tensor] = [zeros(0, longest, net.head_dim) for _ in net.layers]
        self.values = [torch.zeros_like(k) for k in self.keys]
        self.mask = zeros(0, 1, longest)
        self.queries = zeros(0, net.heads // net.kv_heads * net.head_dim)
        self.free: list[int] = []  # heap
        self.used: dict[int, _Group] = {}
        self.open: dict[Kept, list[int]] = {}  # groups of a prompt that have a free lane

    def enter(self, prompt: Kept) -> int:
        """A place for one sample: group x lanes + lane."""
        groups = self.open.setdefault(prompt, [])
        if not groups:
            groups.append(self._new(prompt))
        g = groups[-1]
        lane = self.used[g].lanes.pop()
        if not self.used[g].lanes:
            groups.pop()
        return g * self.lanes + lane

    def leave(self, place: int) -> None:
        g, lane = divmod(place, self.lanes)
        group = self.used[g]
        group.lanes.append(lane)
        groups = self.open.setdefault(group.prompt, [])
        if len(group.lanes) == 1:
            groups.append(g)
        if len(group.lanes) == self.lanes:
            groups.remove(g)
            del self.used[g]
            heapq.heappush(self.free, g)
            self._measure()
        if not groups:
            del self.open[group.prompt]

    def rows(self, places_n: torch.Tensor) -> torch.Tensor:
        """[n x K] rows of the packed queries, one for each (sample, kv head)."""
        k = torch.arange(self.net.kv_heads)
        group, lane = places_n // self.lanes, places_n % self.lanes
        rows = ((group[:, None] * self.net.kv_heads + k) * self.lanes + lane[:, None]).view(-1)
        return rows.to(self.net.device)

    def attend(self, layer: int, q: torch.Tensor, rows: torch.Tensor) -> Part:
        """`q` [n x K, N / K, H] of the samples in `rows`."""
        heads, h = q.shape[1:]
        batch, lanes = self.active * self.net.kv_heads, self.lanes
        self.queries.index_copy_(0, rows, q.view(-1, heads * h))
        packed = self.queries[: batch * lanes].view(batch, lanes * heads, h)
        keys, values = self.keys[layer][:batch, : self.width], self.values[layer][:batch, : self.width]
        out, lse = attend_part(packed, keys, values, self.mask[: self.active, :, : self.width])
        return (
            out.view(-1, heads * h).index_select(0, rows).view(q.shape),
            lse.view(-1, heads).index_select(0, rows),
        )

    def _new(self, prompt: Kept) -> int:
        if not self.free:
            self._grow()
        if (n := prompt.keys[0].shape[1]) > self.longest:
            self._lengthen(n)
        g = heapq.heappop(self.free)
        self.used[g] = _Group(prompt, list(range(self.lanes)))
        at = slice(g * self.net.kv_heads, (g + 1) * self.net.kv_heads)
        for whole, new in ((self.keys, prompt.keys), (self.values, prompt.values)):
            for w, x in zip(whole, new):
                w[at, :n] = x
        self.mask[g, :, :n], self.mask[g, :, n:] = 0.0, float("-inf")
        self._measure()
        return g

    def _measure(self) -> None:
        self.active = max(self.used, default=-1) + 1
        self.width = max((g.prompt.keys[0].shape[1] for g in self.used.values()), default=1)

    def _grow(self) -> None:
        more = max(self.least, self.capacity // 2)
        for g in range(self.capacity, self.capacity + more):
            heapq.heappush(self.free, g)
        self.capacity += more
        rows = self.capacity * self.net.kv_heads
        self.keys, self.values = ([grown(x, rows) for x in some] for some in (self.keys, self.values))
        self.mask = grown(self.mask, self.capacity)
        self.queries = grown(self.queries, rows * self.lanes)

    def _lengthen(self, longest: int) -> None:
        more = longest - self.longest
        for some in (self.keys, self.values):
            for i, x in enumerate(some):  # one after another: the old one's memory is free for the next
                some[i] = F.pad(x, (0, 0, 0, more))
        self.mask, self.longest = F.pad(self.mask, (0, more), value=float("-inf")), longest

    def compact(self, places: Sequence[int]) -> list[int]:
        """Moves groups to the low end when less than half of them are in use; returns the rows' new places."""
        if 2 * len(self.used) >= self.active:
            return list(places)
        moved = {g: g for g in self.used}
        kv = self.net.kv_heads
        for g in sorted(self.used, reverse=True):
            to = self.free[0]
            if to > g:
                break
            heapq.heapreplace(self.free, g)
            for x in (*self.keys, *self.values):
                x[to * kv : (to + 1) * kv, : self.width] = x[g * kv : (g + 1) * kv, : self.width]
            self.mask[to] = self.mask[g]
            self.used[to] = self.used.pop(g)
            groups = self.open.get(self.used[to].prompt, [])
            if g in groups:
                groups[groups.index(g)] = to
            moved[g] = to
        self._measure()
        return [moved[p // self.lanes] * self.lanes + p % self.lanes for p in places]


class _Group:
    def __init__(self, prompt: Kept, lanes: list[int]) -> None:
        self.prompt, self.lanes = prompt, lanes  # free lanes


class Root:
    """What all prompts of a call begin with (few-shot examples, a system turn): one copy for every sample."""

    def __init__(self, prompt: Kept) -> None:
        self.keys, self.values = prompt.keys, prompt.values  # filled by the first window of the prefill

    def attend(self, layer: int, q: torch.Tensor) -> Part:
        """`q` [n x K, N / K, H], all samples."""
        keys, values = self.keys[layer], self.values[layer]
        kv, (_, heads, h) = keys.shape[0], q.shape
        packed = q.view(-1, kv, heads, h).transpose(0, 1).reshape(kv, -1, h)
        out, lse = attend_part(packed, keys, values)
        out = out.view(kv, -1, heads, h).transpose(0, 1).reshape(q.shape)
        return out, lse.view(kv, -1, heads).transpose(0, 1).reshape(-1, heads)


def grown(x: torch.Tensor, rows: int) -> torch.Tensor:
    """`x` with zeros after its rows."""
    bigger = x.new_zeros(rows, *x.shape[1:])
    bigger[: x.shape[0]] = x
    return bigger
