"""The live batch of `TorchEngine`: samples, prompts computed once, and slots that share one column of the cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from phikit.engine.base import Counter, GenRequest
from phikit.model.transformer import KVCache, Transformer
from phikit.records.types import Finish

PREFILL_TOKENS = 16_384  # prompts computed in one forward pass


@dataclass(eq=False)
class Sample:
    request: int
    number: int
    spec: GenRequest
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish = "length"
    cut: int | None = None


@dataclass
class Prefilled:
    """A prompt's cache, [layers][K, L, H] pairs, and the hidden state after its last token, [D]."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    hidden: torch.Tensor
    length: int


class Prompts:
    """Samples that wait, in order; prompts are computed shortly before they are needed, equal ones once."""

    def __init__(self, model: Transformer, counter: Counter, requests: Sequence[GenRequest]) -> None:
        self.model, self.counter, self.requests = model, counter, requests
        self.queue = deque((i, j) for i, r in enumerate(requests) for j in range(r.n))
        self.ready: dict[tuple[int, ...], Prefilled] = {}

    @property
    def left(self) -> int:
        return len(self.queue)

    def take(self, n: int) -> list[tuple[Sample, Prefilled]]:
        fresh = []
        while self.queue and len(fresh) < n:
            i, j = self.queue[0]
            spec = self.requests[i]
            if spec.prompt not in self.ready:
                if fresh:  # compute the next prompts in one pass, when slots are free again
                    break
                self.prefill()
            self.queue.popleft()
            fresh.append((Sample(i, j, spec, sample_key(spec.seed, j)), self.ready[spec.prompt]))
        return fresh

    def prefill(self) -> None:
        prompts: dict[tuple[int, ...], None] = {}
        tokens = 0
        for i, _ in self.queue:
            p = self.requests[i].prompt
            if p in prompts:
                continue
            tokens += len(p)
            if prompts and tokens > PREFILL_TOKENS:
                break
            prompts[p] = None
        self.ready = {}
        # Sorted by length in groups of similar size: right padding is computed and thrown away.
        for group in by_tokens(sorted(prompts, key=len), PREFILL_TOKENS // 4):
            self.ready.update(_prefill(self.model, group))
            self.counter.prefilled += sum(map(len, group))


def _prefill(model: Transformer, prompts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Prefilled]:
    width = max(map(len, prompts))
    caches = _caches(model, len(prompts), width)
    tokens = torch.tensor([[*p, *[0] * (width - len(p))] for p in prompts])
    mask = torch.ones(width, width, dtype=torch.bool).tril()[None, None]
    hidden = model.extend(tokens, torch.arange(width).expand(len(prompts), width), caches, 0, mask)
    return {
        p: Prefilled(
            [c.k[b, :, : len(p)] for c in caches],
            [c.v[b, :, : len(p)] for c in caches],
            hidden[b, len(p) - 1],
            len(p),
        )
        for b, p in enumerate(prompts)
    }


class Slots:
    """The live batch: caches [B, K, S, H] a layer, all slots at the same column."""

    def __init__(self, model: Transformer, slots: int, longest: int) -> None:
        self.model, self.size, self.longest = model, slots, longest
        self.capacity = 2 * longest + 1  # room to refill before the columns must be moved down
        self.caches = _caches(model, slots, self.capacity)
        self.column = longest  # prompts are placed to end here
        self.live: list[Sample] = []
        self.start = torch.zeros(0, dtype=torch.long)  # first own column of each live slot
        self.position = torch.zeros(0, dtype=torch.long)
        self.hidden = torch.zeros(0, model.config.width)

    def room(self) -> int:
        return self.size - len(self.live)

    def admit(self, fresh: Sequence[tuple[Sample, Prefilled]]) -> None:
        first = len(self.live)
        for b, (_, p) in enumerate(fresh, first):
            for c, k, v in zip(self.caches, p.keys, p.values):
                c.k[b, :, self.column - p.length : self.column] = k
                c.v[b, :, self.column - p.length : self.column] = v
        lengths = torch.tensor([p.length for _, p in fresh])
        self.live += [s for s, _ in fresh]
        self.start = torch.cat([self.start, self.column - lengths])
        self.position = torch.cat([self.position, lengths])
        self.hidden = torch.cat([self.hidden, torch.stack([p.hidden for _, p in fresh])])

    def advance(self, ids: torch.Tensor) -> None:
        """Runs one token for every live slot (finished ones too: they are dropped right after)."""
        if self.column + 1 > self.capacity:
            self._move_down()
        n, low = len(self.live), int(self.start.min())
        caches = [KVCache(c.k[:n, :, low:], c.v[:n, :, low:]) for c in self.caches]
        at = self.column - low
        columns = torch.arange(low, self.column + 1)
        mask = (columns[None] >= self.start[:, None])[:, None, None]
        self.hidden = self.model.extend(ids[:, None], self.position[:, None], caches, at, mask)[:, 0]
        self.column += 1
        self.position = self.position + 1

    def drop(self, finished: Sequence[Sample], *, more: bool) -> None:
        """Frees the slots of finished samples. Live slots move up to stay the first rows."""
        gone = {id(s) for s in finished}
        keep = [b for b, s in enumerate(self.live) if id(s) not in gone]
        n = len(keep)
        holes = [b for b in range(n) if id(self.live[b]) in gone]
        movers = [b for b in keep if b >= n]
        order = list(range(n))
        for hole, mover in zip(holes, movers):
            order[hole] = mover
            for c in self.caches:
                low = int(self.start[mover])
                c.k[hole, :, low : self.column] = c.k[mover, :, low : self.column]
                c.v[hole, :, low : self.column] = c.v[mover, :, low : self.column]
        self.live = [self.live[b] for b in order]
        index = torch.tensor(order, dtype=torch.long)
        self.start, self.position, self.hidden = self.start[index], self.position[index], self.hidden[index]

    def _move_down(self) -> None:
        """Moves the live columns to the low end, with room below the new column for the longest prompt."""
        low, high = int(self.start.min()), self.column
        self.column = max(high - low, self.longest)
        shift = high - self.column
        for c in self.caches:
            for x in (c.k, c.v):
                x[:, :, low - shift : self.column] = x[:, :, low:high].clone()
        self.start = self.start - shift


def _caches(model: Transformer, rows: int, columns: int) -> list[KVCache]:
    c = model.config
    shape = (rows, c.kv_heads, columns, c.head_dim)
    return [KVCache(torch.zeros(shape), torch.zeros(shape)) for _ in range(c.layers)]


def by_tokens(rows: Sequence[tuple[int, ...]], most: int) -> Iterator[list[tuple[int, ...]]]:
    """Runs of rows whose padded size stays under `most` tokens."""
    batch: list[tuple[int, ...]] = []
    longest = 0
    for row in rows:
        if batch and max(longest, len(row)) * (len(batch) + 1) > most:
            yield batch
            batch, longest = [], 0
        batch.append(row)
        longest = max(longest, len(row))
    if batch:
        yield batch


def sample_key(seed: int, number: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
