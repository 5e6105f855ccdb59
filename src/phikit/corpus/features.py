"""Texts as sparse vectors of hashed words and pairs of words, from the word ids that other steps compute anyway."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phikit.text import ngrams

BITS = 18  # 262,144 buckets: 1 MB of float32 a class
WORDS = 1000  # of a text that are looked at: its beginning tells, and a book weighs what a page does


@dataclass(frozen=True)
class Features:
    """Rows of D texts: row d has columns[offsets[d]:offsets[d+1]] (int64) with `values` (float64)."""

    columns: np.ndarray
    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def dot(self, weights: np.ndarray) -> np.ndarray:
        """float64 [D, K] for weights [columns, K]."""
        terms = weights[self.columns] * self.values[:, None]
        sums = np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(terms, 0)])
        return sums[self.offsets[1:]] - sums[self.offsets[:-1]]

    def add(self, rows: np.ndarray, columns: int) -> np.ndarray:
        """The transposed product: float64 [columns, K] for rows [D, K]."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        terms = rows[owner] * self.values[:, None]
        return np.column_stack([np.bincount(self.columns, t, columns) for t in terms.T])

    def take(self, rows: np.ndarray) -> Features:
        counts = np.diff(self.offsets)[rows]
        index = ngrams.ranges(self.offsets[:-1][rows], counts)
        return Features(self.columns[index], self.values[index], ngrams.offsets_of(counts))


def features(w: ngrams.Words) -> Features:
    """Square roots of the counts, scaled so that each row has length 1; a text without words is empty."""
    counts = np.minimum(np.diff(w.offsets), WORDS)
    index = ngrams.ranges(w.offsets[:-1], counts)
    columns = (c[index] for c in (w.starts, w.ends, w.numbers))
    some = ngrams.Words(w.ids[index], ngrams.offsets_of(counts), *columns)
    keys, owner = [], []
    for n in (1, 2):
        hashes, offsets = ngrams.ngrams(some, n)
        keys.append((hashes >> np.uint64(64 - BITS)).astype(np.int64))
        owner.append(np.repeat(np.arange(len(counts)), np.diff(offsets)))
    cells, number = np.unique(np.concatenate(owner) << BITS | np.concatenate(keys), return_counts=True)
    rows, columns = cells >> BITS, cells & ((1 << BITS) - 1)
    total = np.bincount(rows, number, len(counts))  # squared length of the square roots
    values = np.sqrt(number / total[rows])
    return Features(columns, values, ngrams.offsets_of(np.bincount(rows, minlength=len(counts))))
