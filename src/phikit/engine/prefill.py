"""Prefill: a trie of token sequences streamed through the network in preorder, every token once.

Linear layers run on windows of up to WINDOW tokens; attention runs on blocks of BLOCK. A block's keys are one
root path (kept by depth in a stack) and its own tokens under the trie's mask. Memory is one window and one root
path, however large the trie.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from phikit.engine.base import Counter
from phikit.engine.network import Network
from phikit.engine.trie import Trie

WINDOW = 1024
BLOCK = 128
# On a CUDA device, where starting a kernel takes longer than a block of 128.
LARGE_WINDOW, LARGE_BLOCK = 8192, 1024


@dataclass(eq=False)
class Kept:
    """Keys and values of one sequence from position `since` on: a [K, L, H] pair a layer."""

    node: int  # its last token
    since: int
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


@dataclass
class _Block:
    """Tokens [a, b) of the trie under a path of `above` tokens. The path of the next block is `stay` tokens of
    this one's and then the tokens `inside` (relative to a) of this block. `ends` are sequences to keep, with how
    much of the path and which tokens of the block are theirs."""

    a: int
    b: int
    above: int
    mask: torch.Tensor  # [b - a, above + b - a], 0 or -inf
    stay: int
    inside: torch.Tensor | None  # None: the whole block, which already lies where it should
    ends: list[tuple[Kept, int, torch.Tensor]]


class Prefill:
    """Iterates over (first trie index, hidden states [n, D]) of windows; fills `keep` on the way."""

    def __init__(self, net: Network, trie: Trie, counter: Counter, keep: Sequence[Kept] = ()) -> None:
        self.net, self.trie, self.counter = net, trie, counter
        self.keep = deque(sorted(keep, key=lambda k: k.node))  # those not yet filled
        self.window, self.block = (WINDOW, BLOCK) if net.device.type == "cpu" else (LARGE_WINDOW, LARGE_BLOCK)
        shape = (net.kv_heads, int(trie.depth.max(initial=0)) + self.block, net.head_dim)
        empty = partial(torch.empty, shape, device=net.device)
        self.stack = [(empty(), empty()) for _ in net.layers]
        self.path = np.zeros(0, dtype=np.int64)  # nodes above the next token
        self.at = 0

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        while self.at < len(self.trie):
            yield self.next_window()

    def next_window(self) -> tuple[int, torch.Tensor]:
        first, last = self.at, min(self.at + self.window, len(self.trie))
        blocks = [self._plan(a, min(a + self.block, last)) for a in range(first, last, self.block)]
        self.at = last
        self.counter.prefilled += last - first
        tokens = torch.from_numpy(self.trie.tokens[first:last])
        positions = torch.from_numpy(self.trie.depth[first:last])

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return self._attend(blocks, first, self.stack[layer], q, k, v)

        return first, self.net.run(tokens, positions, attend)

    def _plan(self, a: int, b: int) -> _Block:
        end, path = self.trie.end, self.path
        own = np.arange(a, b)
        reach = end[path][::-1]  # ascending: the ends of ancestors fall with depth
        above = len(path) - np.searchsorted(reach, own, side="right")  # path tokens each token sees
        sees = (own[None] <= own[:, None]) & (own[:, None] < end[a:b][None])
        mask = torch.zeros(b - a, len(path) + b - a, device=self.net.device)
        mask[:, len(path) :].masked_fill_(torch.from_numpy(~sees).to(mask.device), float("-inf"))
        steps = np.flatnonzero(np.diff(above, prepend=len(path)))  # few: `above` falls where a branch ends
        for t in steps.tolist():
            mask[t:, above[t] : len(path)] = float("-inf")
        ends = []
        while self.keep and self.keep[0].node < b:
            kept = self.keep.popleft()
            t = kept.node - a
            ends.append((kept, int(above[t]), self._index(np.flatnonzero(sees[t]))))
        inside = np.flatnonzero(end[a:b] > b)
        stay = int((end[path] > b).sum())
        whole = len(inside) == b - a and stay == len(path)
        block = _Block(a, b, len(path), mask, stay, None if whole else self._index(inside), ends)
        self.path = np.concatenate([path[:stay], a + inside])
        return block

    def _index(self, nodes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(nodes).to(self.net.device)

    def _attend(
        self,
        blocks: Sequence[_Block],
        first: int,
        stack: tuple[torch.Tensor, torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> torch.Tensor:
        n, heads, h = q.shape
        out = torch.empty(n, heads, h, device=q.device)
        q_NnH, fresh = q.transpose(0, 1)[None], (k.transpose(0, 1), v.transpose(0, 1))
        for block in blocks:
            rows = slice(block.a - first, block.b - first)
            wide = block.above + block.b - block.a
            for whole, new in zip(stack, fresh):
                whole[:, block.above : wide] = new[:, rows]
            keys, values = (x[None, :, :wide] for x in stack)
            gqa = heads > k.shape[1]
            got = F.scaled_dot_product_attention(
                q_NnH[:, :, rows], keys, values, attn_mask=block.mask, enable_gqa=gqa
            )
            out[rows] = got[0].transpose(0, 1)
            for kept, above, inside in block.ends:
                for whole, new, to in zip(stack, fresh, (kept.keys, kept.values)):
                    mine = new[:, rows].index_select(1, inside)
                    if above > kept.since:
                        mine = torch.cat((whole[:, kept.since : above], mine), 1)
                    else:
                        mine = mine[:, kept.since - above :]
                    to.append(mine)
            if block.inside is not None and len(block.inside):
                for whole, new in zip(stack, fresh):
                    whole[:, block.stay : block.stay + len(block.inside)] = new[:, rows].index_select(
                        1, block.inside
                    )
        return out.view(n, heads * h)
