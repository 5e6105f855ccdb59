"""Samples that wait for a row, in the order of their prompts' trie; prompts are computed shortly before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from phikit.engine.base import Counter, GenRequest
from phikit.engine.network import Network
from phikit.engine.prefill import Kept, Prefill
from phikit.engine.prefixes import Root
from phikit.engine.slots import Sample
from phikit.engine.targets import Targets
from phikit.engine.trie import build_trie

ROOT = 32  # a common beginning this long is kept apart, once for all samples


class Prompts:
    """Prompts of a call, equal ones and shared beginnings computed once."""

    def __init__(self, net: Network, counter: Counter, requests: Sequence[GenRequest], context: int) -> None:
        self.net, self.requests, self.context = net, requests, context
        users: dict[tuple[int, ...], list[int]] = {}
        for i, r in enumerate(requests):
            users.setdefault(r.prompt, []).append(i)
        prompts = list(users)
        echoed = [any(requests[i].prompt_logprobs for i in users[p]) for p in prompts]
        trie = build_trie(prompts, [0 if echo else len(p) - 1 for p, echo in zip(prompts, echoed)])
        self.since = _common(prompts) if len(prompts) > 1 else 0
        kept = [Kept(int(nodes[-1]), self.since) for nodes in trie.nodes]
        self.order = deque(sorted(zip(kept, users.values()), key=lambda x: x[0].node))
        self.root: Root | None = None
        if self.since:
            kept.append(root := Kept(self.since - 1, 0))  # the trie begins with what all share
            self.root = Root(root)
        self.prefill = Prefill(net, trie, counter, kept)
        self.echo = Targets(net)
        for p, nodes, echo in zip(prompts, trie.nodes, echoed):
            if echo:
                self.echo.add(p, nodes[:-1], p[1:])
        self.echo.ready()
        self.ready: deque[tuple[int, int, Kept, torch.Tensor]] = deque()

    @property
    def left(self) -> bool:
        return bool(self.ready or self.order)

    def take(self, n: int) -> list[tuple[Sample, Kept, torch.Tensor]]:
        """At most n samples, each with its prompt and the hidden state after it."""
        fresh = []
        while len(fresh) < n and self.left:
            if not self.ready:
                if fresh:  # the next window when rows are free again
                    break
                self._compute()
                continue
            i, j, kept, hidden = self.ready.popleft()
            spec = self.requests[i]
            limit = min(spec.max_tokens, self.context - len(spec.prompt))
            fresh.append((Sample(i, j, spec, limit), kept, hidden))
        return fresh

    def take_window(self) -> list[tuple[Sample, Kept, torch.Tensor]]:
        """The samples whose prompts the next window completes: often none, for a server's short windows."""
        self._compute()
        return self.take(len(self.ready)) if self.ready else []

    def prompt_logprobs(self, request: GenRequest) -> tuple[float, ...]:
        return self.echo.logprobs(request.prompt) if request.prompt_logprobs else ()

    def _compute(self) -> None:
        first, hidden = self.prefill.next_window()
        self.echo.take(first, hidden)
        while self.order and self.order[0][0].node < first + len(hidden):
            kept, users = self.order.popleft()
            state = hidden[kept.node - first].clone()
            self.ready.extend((i, j, kept, state) for i in users for j in range(self.requests[i].n))


def _common(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of what all prompts begin with, less than each; 0 if it is not worth keeping apart."""
    low, high = np.asarray(min(prompts)), np.asarray(max(prompts))
    n = min(len(low), len(high))
    differ = low[:n] != high[:n]
    n = min(int(differ.argmax()) if differ.any() else n, min(map(len, prompts)) - 1)
    return n if n >= ROOT else 0
