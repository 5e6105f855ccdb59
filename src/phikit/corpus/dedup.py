"""Exact and near duplicates. The survivor of a group is always its first document in order.

Near duplicates: the sets of word 5-grams are sketched with MinHash, banded (LSH) to find candidate pairs, and
each candidate is verified with the exact Jaccard similarity of the two sets before it joins a group
(union-find). The report says only "standard n-gram deduplication" (section 5); the method is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import xxhash

from phikit.text import ngrams

SHINGLE = 5
# Because every candidate is verified, the bands are chosen for recall: a pair at Jaccard 0.8 shares a band
# with probability 1 - (1 - 0.8^6)^20 = 0.998 (14 bands of 8 rows, the usual choice, would give 0.92).
BANDS, ROWS = 20, 6
_SEED = 1
_ALL_PAIRS = 64  # a band bucket larger than this is compared along a chain and with its first member only


def exact_twins(texts: Sequence[str]) -> np.ndarray:
    """int64 [D]: the first text with the same words and punctuation (blanks aside); itself when it is the
    first."""
    first: dict[bytes, int] = {}
    twins = np.empty(len(texts), np.int64)
    for i, text in enumerate(texts):
        key = xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "surrogatepass"))
        twins[i] = first.setdefault(key, i)
    return twins


def near_twins(w: ngrams.Words, threshold: float = 0.8) -> np.ndarray:
    """int64 [D]: the first text of each text's group of near duplicates; itself when it is the first.

    Texts with fewer than 5 words are never near duplicates. Raises ValueError unless 0 < threshold <= 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the near-duplicate threshold must lie in (0, 1], got {threshold}")
    grams, offsets = ngrams.distinct(*ngrams.ngrams(w, SHINGLE))
    groups = _Groups(len(w))
    rows = np.flatnonzero(np.diff(offsets))
    for i, j in _candidates(grams, offsets, rows):
        if groups.find(i) != groups.find(j):
            a, b = grams[offsets[i] : offsets[i + 1]], grams[offsets[j] : offsets[j + 1]]
            if _jaccard(a, b) >= threshold:
                groups.join(i, j)
    return np.array([groups.find(i) for i in range(len(w))], np.int64)


def _candidates(grams: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs i < j of texts that share a band, each pair once, in ascending order."""
    if not len(rows):
        return
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]  (a compiled module)

    bounds = np.append(offsets[rows], offsets[-1]).astype(np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(grams, bounds, BANDS * ROWS, _SEED)
    sketch = np.array(digests.to_rows(), dtype=np.uint64)
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        key = np.ascontiguousarray(sketch[:, band * ROWS : (band + 1) * ROWS])
        _, bucket = np.unique(key.view(np.dtype((np.void, key.itemsize * ROWS))).ravel(), return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        for members in np.split(rows[order], np.flatnonzero(np.diff(bucket[order])) + 1):
            if len(members) > _ALL_PAIRS:
                pairs.update((int(members[0]), int(j)) for j in members[1:])
                pairs.update((int(i), int(j)) for i, j in pairwise(members))
            elif len(members) > 1:
                pairs.update((int(i), int(j)) for k, i in enumerate(members) for j in members[k + 1 :])
    yield from sorted(pairs)


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sorted arrays without repeats."""
    if min(len(a), len(b)) == 0:
        return 0.0
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


class _Groups:
    """Union-find whose representative is the smallest member."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        a, b = sorted((self.find(i), self.find(j)))
        self.parent[b] = a
