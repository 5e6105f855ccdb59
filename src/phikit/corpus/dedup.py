"""Exact and near duplicates. The survivor of a group is always its first document in order.

Near duplicates: the sets of word 5-grams are sketched with MinHash, banded (LSH) to find candidate pairs, and
each candidate is verified with the exact Jaccard similarity of the two sets before it joins a group
(union-find). The report says only "standard n-gram deduplication" (section 5); the method is ours. Here are its
parts, and the whole on texts in memory; `compare.py` runs the same parts over shards on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import xxhash

from phikit.text import ngrams

SHINGLE = 5
# Because every candidate is verified, the bands are chosen for recall: a pair at Jaccard 0.8 shares a band
# with probability 1 - (1 - 0.8^6)^20 = 0.998 (14 bands of 8 rows, the usual choice, would give 0.92).
BANDS, ROWS = 20, 6
_SEED = 1
_ALL_PAIRS = 64  # a bucket larger than this is compared along a chain and with its first member only


def digests(texts: Sequence[str]) -> np.ndarray:
    """uint64 [D, 2]: xxh3-128 of each text's words and punctuation, blanks made regular."""
    raw = b"".join(
        xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "surrogatepass")) for text in texts
    )
    return np.frombuffer(raw, "<u8").reshape(-1, 2)


def equal_rows(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number, smallest number with the same key) of each row that is not the first of its key; keys uint64 [N, 2]."""
    order = np.lexsort((numbers, keys[:, 1], keys[:, 0]))
    keys, numbers = keys[order], numbers[order]
    again = np.zeros(len(keys), bool)
    again[1:] = (keys[1:] == keys[:-1]).all(1)
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))
    return numbers[again], numbers[first[again]]


def exact_twins(texts: Sequence[str]) -> np.ndarray:
    """int64 [D]: the first text with the same words and punctuation (blanks aside); itself when it is the
    first."""
    twins = np.arange(len(texts))
    again, first = equal_rows(digests(texts), twins)
    twins[again] = first
    return twins


def shingles(w: ngrams.Words) -> tuple[np.ndarray, np.ndarray]:
    """Each text's set of word 5-grams: (hashes uint64 [S], sorted inside a text; offsets int64 [D+1])."""
    return ngrams.distinct(*ngrams.ngrams(w, SHINGLE))


def bands(grams: np.ndarray, offsets: np.ndarray, bands: int = BANDS, rows: int = ROWS) -> np.ndarray:
    """uint64 [D, bands]: texts with an equal number in a column are candidates; zeros for a text without shingles."""
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]  (a compiled module)

    keys = np.zeros((len(offsets) - 1, bands), np.uint64)
    some = np.flatnonzero(np.diff(offsets))
    if len(some):
        bounds = np.append(offsets[some], offsets[-1]).astype(np.uint64)
        sketch = RMinHash.digest_matrix_from_flat_token_hashes(grams, bounds, bands * rows, _SEED).to_rows()
        sketch = np.array(sketch, np.uint64).reshape(-1, bands, rows)
        keys[some] = ngrams.fold(sketch) ^ ngrams.fold(np.arange(bands, dtype=np.uint64)[:, None])
    return keys


def bucket_pairs(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """int64 [P, 2]: pairs i < j of `numbers` with an equal key, possibly with repeats. Of a bucket of more than 64
    each member is paired with the first one and with its neighbours."""
    if not len(keys):
        return np.zeros((0, 2), np.int64)
    order = np.lexsort((numbers, keys))
    keys, numbers = keys[order], numbers[order].astype(np.int64)
    edges = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    sizes = np.diff(np.append(edges, len(keys)))
    pairs = []
    for first, size in zip(edges[sizes > _ALL_PAIRS].tolist(), sizes[sizes > _ALL_PAIRS].tolist()):
        members = numbers[first : first + size]
        pairs.append(np.column_stack([np.repeat(members[0], size - 1), members[1:]]))
        pairs.append(np.column_stack([members[:-1], members[1:]]))
    small = np.repeat((sizes > 1) & (sizes <= _ALL_PAIRS), sizes)
    keys, numbers = keys[small], numbers[small]
    for step in range(1, len(keys)):
        same = keys[step:] == keys[:-step]
        if not same.any():
            break
        pairs.append(np.column_stack([numbers[:-step][same], numbers[step:][same]]))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)


def distinct_pairs(pairs: np.ndarray) -> np.ndarray:
    """In ascending order, without repeats."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[np.append(True, (pairs[1:] != pairs[:-1]).any(1))] if len(pairs) else pairs


def near_twins(w: ngrams.Words, threshold: float = 0.8) -> np.ndarray:
    """int64 [D]: the first text of each text's group of near duplicates; itself when it is the first.

    Texts with fewer than 5 words are never near duplicates. Raises ValueError unless 0 < threshold <= 1.
    """
    check_threshold(threshold)
    grams, offsets = shingles(w)
    rows = np.flatnonzero(np.diff(offsets))
    keys = bands(grams, offsets)[rows]
    found = [bucket_pairs(keys[:, band], rows) for band in range(BANDS)]
    groups = Groups()
    join_pairs(
        groups,
        distinct_pairs(np.concatenate(found)).tolist(),
        lambda i: grams[offsets[i] : offsets[i + 1]],
        threshold,
    )
    return np.array([groups.find(i) for i in range(len(w))], np.int64)


def check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"the near-duplicate threshold must lie in (0, 1], got {threshold}")


def join_pairs(
    groups: Groups, pairs: Iterable[Sequence[int]], shingles_of: Callable[[int], np.ndarray], threshold: float
) -> None:
    """Joins the pairs whose sets have at least the Jaccard similarity `threshold`; the result does not depend on the
    order of the pairs. A pair that is already in one group is not looked at."""
    for i, j in pairs:
        if groups.find(i) != groups.find(j) and jaccard(shingles_of(i), shingles_of(j)) >= threshold:
            groups.join(i, j)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sorted arrays without repeats."""
    if len(a) > len(b):
        a, b = b, a
    if not len(a):
        return 0.0
    shared = int((b[np.minimum(np.searchsorted(b, a), len(b) - 1)] == a).sum())
    return shared / (len(a) + len(b) - shared)


class Groups:
    """Union-find whose representative is the smallest member; holds only numbers that were joined."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}

    def find(self, i: int) -> int:
        while (up := self.parent.get(i, i)) != i:
            self.parent[i] = self.parent.get(up, up)
            i = up
        return i

    def join(self, i: int, j: int) -> None:
        a, b = sorted((self.find(i), self.find(j)))
        if a != b:
            self.parent[b] = a
