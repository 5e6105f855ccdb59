"""What texts share with evaluation items, n-gram by n-gram: the item with the largest share, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from phikit.corpus.gram_table import GramTable
from phikit.text import ngrams


@dataclass(frozen=True, slots=True)
class ItemGrams:
    """The distinct n-grams of evaluation items that count."""

    n: int
    table: GramTable
    sizes: np.ndarray  # int64 [items]: how many each item has

    @classmethod
    def of(cls, n: int, grams: np.ndarray, offsets: np.ndarray) -> ItemGrams:
        """From each item's n-grams, with repeats."""
        own, offsets = ngrams.distinct(grams, offsets)
        sizes = np.diff(offsets)
        return cls(n, GramTable.of(own, np.repeat(np.arange(len(sizes)), sizes)), sizes)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """For an .npz file."""
        parts = {x: getattr(self.table, x) for x in ("grams", "starts", "items")} | {"sizes": self.sizes}
        return {f"{name}_{x}": a for x, a in parts.items()}

    @classmethod
    def load(cls, n: int, name: str, arrays: dict[str, np.ndarray]) -> ItemGrams:
        """What `arrays` gave."""
        *parts, sizes = (arrays[f"{name}_{x}"] for x in ("grams", "starts", "items", "sizes"))
        return cls(n, GramTable.ready(*parts), sizes)


@dataclass(frozen=True, slots=True)
class Shared:
    """The n-grams of texts that some item has, H of them, in order."""

    of: ItemGrams
    at: np.ndarray  # int64 [H]: its first word, counted over all texts
    text: np.ndarray  # int64 [H]
    left: np.ndarray  # int64 [H]: the first of its (n-gram, item) pairs
    right: np.ndarray  # int64 [H]: their end
    sizes: np.ndarray  # int64 [D]: distinct n-grams of each text that count; 0 where none is shared

    def portions(self, limit: int) -> Iterator[tuple[int, int]]:
        """Ranges of whole texts that have at most `limit` (n-gram, item) pairs together, or are one text."""
        cost = ngrams.offsets_of(self.right - self.left)
        ends = np.append(np.flatnonzero(np.diff(self.text)) + 1, len(self.text)) if len(self.text) else []
        first = 0
        for end, after in zip_longest(ends, ends[1:]):
            if after is None or cost[after] - cost[first] > limit:
                yield first, int(end)
                first = int(end)

    def best(self, first: int, end: int, wanted: np.ndarray) -> Iterator[tuple[int, int, int, float]]:
        """(text, item, overlap, ratio) of each text in first:end, ratio = overlap / the smaller side. The item is the
        one with the largest ratio (the first of equals), or the text's item in `wanted` where that is no -1."""
        # A text's n-gram counts once, however often the text repeats it.
        gram = np.unique(self.text[first:end] << 32 | self.left[first:end], return_index=True)[1] + first
        width = self.right[gram] - self.left[gram]
        items = self.of.table.items[ngrams.ranges(self.left[gram], width)].astype(np.int64)
        pairs = np.sort(np.repeat(self.text[gram], width) << 32 | items)
        new = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1]))
        overlap = np.diff(np.append(new, len(pairs)))
        text, item = pairs[new] >> 32, pairs[new] & 0xFFFFFFFF
        ratio = overlap / np.minimum(self.sizes[text], self.of.sizes[item])
        order = np.lexsort((-ratio, item != wanted[text], text))
        for t, k, _ in runs(text[order]):
            best = order[k]
            yield t, int(item[best]), int(overlap[best]), float(ratio[best])

    def places(self, text: int, item: int) -> np.ndarray:
        """Where in the text the n-grams begin that it shares with the item."""
        a, b = np.searchsorted(self.text, [text, text + 1])
        width = self.right[a:b] - self.left[a:b]
        items = self.of.table.items[ngrams.ranges(self.left[a:b], width)]
        return np.repeat(self.at[a:b], width)[items == item]


def runs(values: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(value, first, end) of each run of equal values."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    edges = np.concatenate([[0], cuts, [len(values)]]).tolist() if len(values) else []
    yield from zip(values[edges[:-1]].tolist(), edges[:-1], edges[1:])


def span(w: ngrams.Words, positions: np.ndarray, n: int) -> tuple[int, int]:
    """Characters of the text that the longest run of consecutive n-grams (the first of equals) takes."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(positions) > 1) + 1, [len(positions)]])
    k = int(np.argmax(np.diff(edges)))
    first, last = positions[edges[k]], positions[edges[k + 1] - 1]
    return int(w.starts[first]), int(w.ends[last + n - 1])
