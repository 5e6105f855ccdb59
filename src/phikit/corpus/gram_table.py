"""Which evaluation items have an n-gram: a table that is asked for every n-gram of a corpus and mostly answers none.

A bit filter of a few MB lets about one n-gram in 20 through that no item has; the rest are looked up in a sorted array
by buckets of the hash. Both are numpy passes over blocks that a core's cache holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phikit.text import ngrams

_BLOCK = 1 << 15  # n-grams that are looked at together
_BITS = 16  # of the filter for each n-gram, at least


@dataclass(frozen=True)
class GramTable:
    """(n-gram, item) pairs sorted by n-gram, then item."""

    grams: np.ndarray  # uint64 [G] distinct, sorted
    starts: np.ndarray  # uint32 [G+1]: gram g has the pairs starts[g]:starts[g+1]
    items: np.ndarray  # uint32 [P]
    seen: np.ndarray  # uint8 [2^k / 8]: a bit for each value of the first k bits of an n-gram
    first: np.ndarray  # uint32 [2^b + 1]: those with the first b bits h are grams[first[h]:first[h+1]]
    shifts: tuple[np.uint64, np.uint64]  # 64 - k, 64 - b

    @classmethod
    def of(cls, grams: np.ndarray, items: np.ndarray) -> GramTable:
        """From pairs whose items ascend."""
        order = np.argsort(grams, kind="stable")
        grams = grams[order]
        new = np.flatnonzero(np.append(True, grams[1:] != grams[:-1])) if len(grams) else np.zeros(0, int)
        return cls.ready(grams[new], np.append(new, len(grams)), items[order])

    @classmethod
    def ready(cls, distinct: np.ndarray, starts: np.ndarray, items: np.ndarray) -> GramTable:
        """From the columns of a table."""
        bits = max((_BITS * len(distinct)).bit_length(), 16)
        buckets = max(len(distinct).bit_length(), 1)
        shifts = np.uint64(64 - bits), np.uint64(64 - buckets)
        chosen = np.zeros(1 << bits, bool)
        chosen[distinct >> shifts[0]] = True
        heads = (distinct >> shifts[1]).astype(np.int64)
        first = ngrams.offsets_of(np.bincount(heads, minlength=1 << buckets)).astype(np.uint32)
        seen = np.packbits(chosen, bitorder="little")
        assert len(items) < 1 << 32
        return cls(distinct, starts.astype(np.uint32), items.astype(np.uint32), seen, first, shifts)

    def find(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(position in `grams`, first pair, end of its pairs: int64) of each gram that is in the table."""
        maybe = [i + self._maybe(grams[i : i + _BLOCK]) for i in range(0, len(grams), _BLOCK)]
        at = np.concatenate([np.zeros(0, np.int64), *maybe])
        hit, place = self._places(grams[at])
        return at[hit], self.starts[place].astype(np.int64), self.starts[place + 1].astype(np.int64)

    def _maybe(self, grams: np.ndarray) -> np.ndarray:
        """Positions of the grams that the filter lets through."""
        bit = (grams >> self.shifts[0]).view(np.int64)
        return np.flatnonzero(self.seen.take(bit >> 3) >> (bit & 7).astype(np.uint8) & 1)

    def _places(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions of the grams that are in the table, their places there)."""
        head = (grams >> self.shifts[1]).view(np.int64)
        place, end = self.first[head].astype(np.int64), self.first[head + 1].astype(np.int64)
        left = np.flatnonzero(place < end)
        found = []
        while len(left):  # as many rounds as the largest bucket has n-grams
            same = self.grams[place[left]] == grams[left]
            found.append(left[same])
            left = left[~same]
            place[left] += 1
            left = left[place[left] < end[left]]
        hit = np.sort(np.concatenate([np.zeros(0, np.int64), *found]))
        return hit, place[hit]
