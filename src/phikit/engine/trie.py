"""Token sequences as a trie in preorder: the plan by which a shared prefix is computed once.

Sequences are sorted; each adds the tokens that follow its longest common prefix with the one before. The
tokens then stand in preorder: the ancestors of a token come before it, its descendants right after it. For any
run of consecutive tokens a, a+1, ..., b, all ancestors that lie before a are ancestors of a itself, so a run
needs the keys and values of one root path only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Trie:
    """Preorder arrays over tokens, int64: `tokens`, `depth` (= position) and `end` (one past the subtree, so u
    is an ancestor of t or t itself iff u <= t < end[u]). `nodes[i]` are the trie indices of sequence i from
    position `since[i]` on."""

    tokens: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    nodes: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)


def build_trie(sequences: Sequence[Sequence[int]], since: Sequence[int]) -> Trie:
    """Sequences may be equal, prefixes of one another, and in any order; none is empty."""
    keys = [np.asarray(s, dtype=">u4").tobytes() for s in sequences]  # big-endian bytes sort like the ids
    nodes: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(sequences)
    path = np.zeros(
        max(map(len, sequences), default=0), dtype=np.int64
    )  # depth -> node, of the last sequence
    tokens, depths, ended = [], [], []
    total, last = 0, np.zeros(0, dtype=">u4")
    for i in sorted(range(len(sequences)), key=keys.__getitem__):
        ids = np.frombuffer(keys[i], dtype=">u4")
        shared = common_prefix(last, ids)
        fresh = len(ids) - shared
        ended.append((path[shared : len(last)].copy(), total))
        path[shared : len(ids)] = np.arange(total, total + fresh)
        tokens.append(ids[shared:])
        depths.append(np.arange(shared, len(ids)))
        nodes[i] = path[since[i] : len(ids)].copy()
        total, last = total + fresh, ids
    end = np.full(total, total, dtype=np.int64)
    for some, at in ended:
        end[some] = at
    empty = [np.zeros(0, dtype=np.int64)]
    return Trie(np.concatenate(tokens or empty).astype(np.int64), np.concatenate(depths or empty), end, nodes)


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(differ.argmax()) if differ.any() else n
