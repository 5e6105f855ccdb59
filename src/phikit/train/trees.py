"""Sequences with common beginnings as one tree: each shared token is computed once.

A node is an input token and sees its ancestors, which are the tokens before it in any sequence through it. Nodes
are in depth-first order, so the descendants of node s are s + 1 .. until[s] - 1, and "t may see s" is
s <= t < until[s] (as a FlexAttention mask it is the same line). Sequences with nothing
in common are trees side by side: all sequences of a forward pass are one forest. Attention sees it in rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from phikit.mixture.pack import pack


@dataclass(frozen=True)
class Tree:
    """n nodes in depth-first order; `position` counts from 0 at the root, `until` is explained above."""

    tokens: np.ndarray
    position: np.ndarray
    until: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


def filler(size: int) -> Tree:
    """A chain of nodes that rounds a forest of `size` nodes up, by 3 % on average, to one of 16 sizes an octave:
    on a CPU every further shape of a bf16 product is compiled and kept, 10 MB a step at nano's shape."""
    step = 1 << max(0, size.bit_length() - 5)
    n = -size % step
    return Tree(np.zeros(n, dtype=np.int64), np.arange(n), np.full(n, n))


def grow(sequences: Sequence[np.ndarray]) -> tuple[Tree, list[np.ndarray]]:
    """The tree of `sequences` of token ids, and for each sequence the nodes of its tokens in order."""
    # Big-endian bytes sort like the ids, and sorted sequences come in depth-first order.
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u4").tobytes())
    paths: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(sequences)
    tokens: list[np.ndarray] = []
    position: list[np.ndarray] = []
    closed: list[tuple[np.ndarray, int]] = []  # (nodes, the first node after their descendants)
    before, path, size = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), 0
    for i in order:
        ids = sequences[i]
        shared = _common(before, ids)
        closed.append((path[shared:], size))
        new = len(ids) - shared
        path = np.concatenate((path[:shared], np.arange(size, size + new)))
        tokens.append(ids[shared:])
        position.append(np.arange(shared, len(ids)))
        paths[i], before, size = path, ids, size + new
    closed.append((path, size))
    until = np.empty(size, dtype=np.int64)
    for nodes, end in closed:
        until[nodes] = end
    return Tree(np.concatenate(tokens), np.concatenate(position), until), paths


@dataclass(frozen=True)
class Rows:
    """The rows in which attention sees a forest of n nodes: row b is a tree of some of its sequences, and nodes
    that several rows begin with are in each of them. See `model.attention.Ragged`."""

    token: np.ndarray  # [B, T] the forest's node in each slot; 0 where there is none
    slot: np.ndarray  # [n]
    again: np.ndarray
    mask: np.ndarray  # [B, T, T]


def lay_rows(trees: Sequence[Tree], nodes: Sequence[np.ndarray], size: int) -> Rows:
    """`nodes[b]`: which node of the forest of `size` nodes each node of tree b is. A slot of padding sees itself."""
    sizes = np.asarray([len(t) for t in trees])
    shape = (len(trees), int(sizes.max()))
    column = np.arange(shape[1])
    real = column < sizes[:, None]
    token = np.zeros(shape, dtype=np.int64)
    token[real] = np.concatenate(nodes)
    until = np.tile(column + 1, (shape[0], 1))
    until[real] = np.concatenate([t.until for t in trees])
    filled = np.flatnonzero(real.ravel())
    slot = np.empty(size, dtype=np.int64)
    slot[token.ravel()[filled[::-1]]] = filled[::-1]  # the first of several is written last
    return Rows(token, slot, np.setdiff1d(filled, slot), tree_mask(until))


def tree_mask(until: np.ndarray) -> np.ndarray:
    """[B, T, T] bool from [B, T]: t may see s where s <= t < until[s]."""
    t = np.arange(until.shape[1])
    return (t[:, None] >= t) & (t[:, None] < until[:, None, :])


def lay_queries(rows: Rows, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same rows asked by `nodes` alone: which of them is in each slot [B, Q], the slot b x Q + q of each, and
    the mask [B, Q, T]."""
    b, t = np.divmod(rows.slot[nodes], rows.token.shape[1])
    order = np.argsort(b, kind="stable")
    count = np.bincount(b, minlength=len(rows.token))
    q = np.empty_like(b)
    q[order] = np.arange(len(b)) - np.repeat(np.cumsum(count) - count, count)
    shape = (len(rows.token), int(count.max()))
    query = np.zeros(shape, dtype=np.int64)
    mask = np.zeros((*shape, rows.token.shape[1]), dtype=bool)
    mask[:, :, 0] = True  # a softmax over nothing is no number
    query[b, q], mask[b, q] = np.arange(len(b)), rows.mask[b, t]
    return query, b * shape[1] + q, mask


def plan_rows(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Which trees share a row of at most max(width, the largest tree) nodes: best fit, largest first."""
    lengths = np.asarray(sizes, dtype=np.int64)
    pieces, offsets = pack(lengths, max(width, int(lengths.max())), np.argsort(-lengths, kind="stable"))
    return [[int(d) for d, _, _ in pieces[a:b]] for a, b in pairwise(offsets)]


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
