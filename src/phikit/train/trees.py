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

    def beside(self, other: Tree) -> Tree:
        """Both, `other` after this one."""
        one = zip(
            (self.tokens, self.position, self.until), (other.tokens, other.position, other.until + len(self))
        )
        return Tree(*(np.concatenate(x) for x in one))


def filler(size: int) -> Tree:
    """A chain of nodes that rounds a forest of `size` nodes up, by 3 % on average, to one of 16 sizes an octave:
    on a CPU every further shape of a bf16 product is compiled and kept, 10 MB a step at nano's shape."""
    step = 1 << max(0, size.bit_length() - 5)
    n = -size % step
    return Tree(np.zeros(n, dtype=np.int64), np.arange(n), np.full(n, n))


def grow(sequences: Sequence[np.ndarray]) -> tuple[Tree, list[np.ndarray]]:
    """The tree of `sequences` of token ids, and for each sequence the nodes of its tokens in order.

    In a table of the sequences in order, one a row, a token that is not in the row above is a new node."""
    lengths = np.asarray([len(s) for s in sequences])
    column = np.arange(lengths.max())
    table = np.zeros((len(sequences), len(column)), dtype=">u4")
    table[column < lengths[:, None]] = np.concatenate(sequences) + 1
    # Big-endian bytes sort like the ids, and sorted sequences come in depth-first order.
    order = np.argsort(table.view(f"V{4 * len(column)}")[:, 0], kind="stable")
    table, real = table[order].astype(np.int64), column < lengths[order, None]
    shared = np.zeros(len(table), dtype=np.int64)
    differ = table[1:] != table[:-1]
    shared[1:] = np.where(differ.any(1), differ.argmax(1), len(column))
    np.minimum(shared, lengths[order], out=shared)
    new = real & (column >= shared[:, None])
    sizes = new.sum(1)
    start = np.cumsum(sizes) - sizes
    node = np.where(new, start[:, None] + column - shared[:, None], 0)
    path = np.maximum.accumulate(node)  # a shared token is the newest node above it
    # The descendants of a node end where a row leaves its path: the first below that shares less than its column.
    ends = np.where(shared[:, None] <= column, start[:, None], sizes.sum())
    until = np.full_like(node, sizes.sum())
    until[:-1] = np.minimum.accumulate(ends[:0:-1])[::-1]
    paths = [path[0, :0]] * len(sequences)
    for i, nodes, n in zip(order.tolist(), path, lengths[order].tolist()):
        paths[i] = nodes[:n]
    return Tree(table[new] - 1, np.broadcast_to(column, new.shape)[new], until[new]), paths


@dataclass(frozen=True)
class Rows:
    """The rows in which attention sees a forest of n nodes: row b is a tree of some of its sequences, and nodes
    that several rows begin with are in each of them. See `model.attention.Ragged`."""

    token: np.ndarray  # [B, T] the forest's node in each slot; 0 where there is none
    slot: np.ndarray  # [n]
    again: np.ndarray
    mask: np.ndarray  # [B, T, T]


def lay_rows(forest: Tree, nodes: Sequence[np.ndarray]) -> Rows:
    """`nodes[b]`: the nodes of the forest in row b, ascending, with all that they descend from. A slot of padding sees
    itself."""
    sizes, size = np.asarray([len(n) for n in nodes]), len(forest)
    shape = (len(nodes), int(sizes.max()))
    column = np.arange(shape[1])
    real = column < sizes[:, None]
    token = np.zeros(shape, dtype=np.int64)
    token[real] = np.concatenate(nodes)
    until = np.tile(column + 1, (shape[0], 1))
    until[real] = np.concatenate([np.searchsorted(n, forest.until[n]) for n in nodes])
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
