"""The live batch of `TorchEngine`: one row for each distinct prompt + answer so far, all one token further a step.

A row keeps the keys and values of its own answer; prompts are kept once (`prefixes.py`). Samples whose texts are
equal so far share a row: when they draw different tokens, the row branches.
"""

from __future__ import annotations

import numpy as np
import torch

from phikit.engine.network import Network
from phikit.engine.prefill import Kept
from phikit.engine.prefixes import Groups, Root, attend_part, grown, merge

COLUMNS = 32  # own tokens there is room for at first; doubled when the longest answer needs more


class Rows:
    """Live rows are the first `n`. `hidden` [n, D] predicts each row's next token. Keys, values and hidden states
    are on the network's device; what a row is and where it stands is known to the host."""

    def __init__(self, net: Network, groups: Groups, root: Root | None, most: int, longest: int) -> None:
        """At most `most` rows of `longest` own tokens."""
        self.net, self.groups, self.root, self.most, self.longest = net, groups, root, most, longest
        self.n, self.room, self.columns = 0, 0, min(COLUMNS, longest)
        shape = (0, net.kv_heads, self.columns, net.head_dim)
        self.keys = [torch.zeros(shape, device=net.device) for _ in net.layers]
        self.values = [torch.zeros_like(k) for k in self.keys]
        self.hidden = torch.zeros(0, net.config.width, device=net.device)
        self.own, self.position = torch.zeros(2, 0, dtype=torch.long).unbind()  # own tokens; next position
        self.temperature, self.top_p = torch.zeros(2, 0).unbind()
        self.prompts: list[Kept] = []
        self.places: list[int] = []

    def open(self, prompt: Kept, hidden: torch.Tensor, length: int, temperature: float, top_p: float) -> int:
        """A row for a prompt of `length` tokens with the hidden state after it."""
        row = self.n
        self._reserve(row + 1)
        self.n += 1
        self.hidden[row], self.own[row], self.position[row] = hidden, 0, length
        self.temperature[row], self.top_p[row] = temperature, top_p
        self.prompts.append(prompt)
        self.places.append(self.groups.enter(prompt))
        return row

    def branch(self, parents: np.ndarray) -> np.ndarray:
        """The rows become the children of `parents` (ascending, with repeats; rows not named end). Returns the
        row of each child."""
        n, first = len(parents), np.ones(len(parents), dtype=bool)
        first[1:] = parents[1:] != parents[:-1]
        stays = first & (parents < n)
        rows = np.where(stays, parents, -1)
        rows[~stays] = np.setdiff1d(np.arange(n), parents[stays])
        lives = set(parents[first].tolist())
        for row in range(self.n):
            if row not in lives:
                self.groups.leave(self.places[row])
        prompts, places = [self.prompts[p] for p in parents], [self.places[p] for p in parents]
        for child in np.flatnonzero(~first):
            places[child] = self.groups.enter(prompts[child])
        self._reserve(n)
        self._copy(parents[~stays], rows[~stays])
        self.n = n
        order = np.argsort(rows)
        self.prompts = [prompts[c] for c in order]
        self.places = self.groups.compact([places[c] for c in order])
        return rows

    def advance(self, tokens_n: torch.Tensor) -> None:
        """Runs one token for every row."""
        n, net = self.n, self.net
        kv, shape = net.kv_heads, (-1, net.heads // net.kv_heads, net.head_dim)
        own = self.own[:n]
        wide = int(own.max()) + 1
        if wide > self.columns:
            self._widen()
        to = ((torch.arange(n)[:, None] * kv + torch.arange(kv)) * self.columns + own[:, None]).view(-1)
        to, own = to.to(net.device), own.to(net.device)
        later = torch.arange(wide, device=net.device) > own[:, None, None]
        mask = torch.zeros(n, 1, wide, device=net.device).masked_fill_(later, float("-inf"))
        places = self.groups.rows(torch.tensor(self.places))
        scale = net.head_dim**-0.5

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q = (q * scale).view(shape)
            keys, values = self.keys[layer], self.values[layer]
            for whole, new in ((keys, k), (values, v)):
                whole.view(-1, net.head_dim).index_copy_(0, to, new.reshape(-1, net.head_dim))
            keys, values = (x.view(-1, self.columns, net.head_dim)[: n * kv, :wide] for x in (keys, values))
            part = attend_part(q, keys, values, mask)
            prompt = self.groups.attend(layer, q, places)
            if self.root is not None:
                prompt = merge(prompt, far := self.root.attend(layer, q)), torch.logaddexp(prompt[1], far[1])
            return merge(part, prompt).view(n, -1)

        self.hidden[:n] = net.run(tokens_n, self.position[:n], attend)
        self.position[:n] += 1
        self.own[:n] += 1

    def _copy(self, source: np.ndarray, to: np.ndarray) -> None:
        if not len(to):
            return
        a, z = torch.from_numpy(source), torch.from_numpy(to)
        wide = int(self.own[a].max())
        if wide:
            here, there = a.to(self.net.device), z.to(self.net.device)
            for x in (*self.keys, *self.values):
                x[there, :, :wide] = x[here, :, :wide]
        for x in (self.own, self.position, self.temperature, self.top_p):
            x[z] = x[a]

    def _reserve(self, rows: int) -> None:
        if rows <= self.room:
            return
        self.room = max(rows, min(2 * self.room, self.most))
        for some in (self.keys, self.values):
            for i, x in enumerate(some):  # one after another: the old one's memory is free for the next
                some[i] = grown(x, self.room)
        self.hidden, self.own, self.position, self.temperature, self.top_p = (
            grown(x, self.room) for x in (self.hidden, self.own, self.position, self.temperature, self.top_p)
        )

    def _widen(self) -> None:
        old, self.columns = self.columns, min(2 * self.columns, self.longest)
        for some in (self.keys, self.values):
            for i, x in enumerate(some):
                some[i] = x.new_zeros(x.shape[0], x.shape[1], self.columns, x.shape[3])
                some[i][:, :, :old] = x
