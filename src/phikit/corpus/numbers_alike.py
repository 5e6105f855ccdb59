"""Evaluation items with other numbers in them: 13-grams in which one number is as good as another.

No part of the report's rule, which lets such an item pass where its numbers are close together. An n-gram counts where
it has a number and at least OTHERS other words, so that sums and tables are not all one item, and where fewer than
`allow.ITEMS` items have it in short runs, so that a family of problems made from one form is none either.
"""

from __future__ import annotations

import numpy as np

from phikit.corpus.allow import boilerplate
from phikit.corpus.shared_grams import ItemGrams, Shared
from phikit.text import ngrams

N = 13
OTHERS = 8  # of the 13 words


class NumbersAlike:
    """items: the words of evaluation items. allowed: hashes of n-grams that are no evidence."""

    def __init__(self, items: ngrams.Words, allowed: np.ndarray) -> None:
        ids = items.alike()
        same = ngrams.Words(ids, items.offsets, items.starts, items.ends, items.numbers)
        self.allowed = np.union1d(boilerplate(same), allowed)
        at = _places(items)
        grams = ngrams.runs_at(ids, at, N)
        keep = ~np.isin(grams, self.allowed)
        self.grams = ItemGrams.of(N, grams[keep], np.searchsorted(at[keep], items.offsets))

    def arrays(self) -> dict[str, np.ndarray]:
        """For an .npz file."""
        return {**self.grams.arrays("alike"), "alike_allowed": self.allowed}

    @classmethod
    def load(cls, arrays: dict[str, np.ndarray]) -> NumbersAlike:
        """What `arrays` gave."""
        self = cls.__new__(cls)
        self.grams, self.allowed = ItemGrams.load(N, "alike", arrays), arrays["alike_allowed"]
        return self

    def shared(self, w: ngrams.Words) -> Shared:
        """What the texts share with the items."""
        places = _places(w)
        grams = ngrams.runs_at(w.alike(), places, N)
        found, left, right = self.grams.table.find(grams)
        at = places[found]
        text = np.searchsorted(w.offsets, at, side="right") - 1
        some = text[np.append(True, text[1:] != text[:-1])] if len(text) else text
        bounds = np.searchsorted(places, w.offsets)
        counts = np.diff(bounds)[some]
        own = grams[ngrams.ranges(bounds[some], counts)]
        own, offsets = ngrams.distinct(own, ngrams.offsets_of(counts))
        sizes = np.zeros(len(w), np.int64)
        sizes[some] = np.diff(ngrams.offsets_of(~np.isin(own, self.allowed))[offsets])
        return Shared(self.grams, at, text, left, right, sizes)


def _places(w: ngrams.Words) -> np.ndarray:
    """Where n-grams begin that count: int64 [G]."""
    if len(w.ids) < N:
        return np.zeros(0, np.int64)
    before = ngrams.offsets_of(w.numbers)
    numbers = before[N:] - before[:-N]
    at = np.flatnonzero((numbers > 0) & (numbers <= N - OTHERS))
    end = w.offsets[np.searchsorted(w.offsets, at, side="right")]  # of the text it begins in
    return at[at + N <= end]
