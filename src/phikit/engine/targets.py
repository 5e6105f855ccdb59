"""Log-probabilities of given tokens out of the windows of a prefill: scores and prompt log-probabilities."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from phikit.engine.network import Network
from phikit.model.logprob import logprobs_of

LOGITS = 1 << 24  # logits in memory at once: 64 MB


class Targets:
    """`add` names trie nodes and the token that follows each; `take` reads them off a window's hidden states.
    Nodes that several users want are multiplied with the head once."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.spans: dict[Hashable, slice] = {}
        self._nodes: list[np.ndarray] = []
        self._tokens: list[np.ndarray] = []
        self._count = 0

    def add(self, user: Hashable, nodes: np.ndarray, tokens: Sequence[int]) -> None:
        assert len(nodes) == len(tokens)
        self.spans[user] = slice(self._count, self._count + len(nodes))
        self._nodes.append(nodes)
        self._tokens.append(np.asarray(tokens, dtype=np.int64))
        self._count += len(nodes)

    def ready(self) -> None:
        """All users are added."""
        none = [np.zeros(0, dtype=np.int64)]
        nodes = np.concatenate(self._nodes or none)
        self.order = np.argsort(nodes, kind="stable")
        self.nodes, self.tokens = nodes[self.order], np.concatenate(self._tokens or none)[self.order]
        self.values, self.greedy = np.zeros(self._count), np.zeros(self._count, dtype=bool)

    def take(self, first: int, hidden_nD: torch.Tensor) -> None:
        a, z = np.searchsorted(self.nodes, [first, first + len(hidden_nD)])
        if a == z:
            return
        nodes, where = np.unique(self.nodes[a:z], return_inverse=True)
        step = max(1, LOGITS // self.net.config.vocab)
        for low in range(0, len(nodes), step):
            some = a + np.flatnonzero((where >= low) & (where < low + step))
            chosen, rows, targets = (
                torch.from_numpy(x).to(hidden_nD.device)
                for x in (nodes[low : low + step] - first, where[some - a] - low, self.tokens[some])
            )
            values, greedy = logprobs_of(self.net.logits(hidden_nD[chosen]), rows, targets)
            self.values[self.order[some]] = values.cpu().numpy()
            self.greedy[self.order[some]] = greedy.cpu().numpy()

    def logprobs(self, user: Hashable) -> tuple[float, ...]:
        return tuple(self.values[self.spans[user]].tolist())
