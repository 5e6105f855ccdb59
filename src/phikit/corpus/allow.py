"""The allow-list of 13-grams, built from data (report appendix B.1: "common in Wikipedia and the train set").

Two kinds of 13-gram are no evidence of contamination: boilerplate that many evaluation items share (answer options,
instructions), and phrases that are common in text known to be free of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phikit.text import ngrams

ITEMS = 5  # evaluation items that share a 13-gram of boilerplate, at least
PASSAGE = 40  # words: a longer run that items share is a passage with several questions, and stays evidence
TEXTS = 3  # trusted texts that hold a common phrase, at least


def boilerplate(items: ngrams.Words, least: int = ITEMS, passage: int = PASSAGE) -> np.ndarray:
    """Hashes (uint64, sorted) of 13-grams in at least `least` of the items, in runs of fewer than `passage` words."""
    grams, offsets = ngrams.ngrams(items, 13)
    if not len(grams):
        return grams
    own, _ = ngrams.distinct(grams, offsets)
    values, counts = np.unique(own, return_counts=True)
    common = values[counts >= least]
    shared = np.isin(grams, common)
    item = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    # Runs of shared 13-grams inside an item; n of them in a row span n + 12 words.
    edge = np.ones(len(grams), bool)
    edge[1:] = (shared[1:] != shared[:-1]) | (item[1:] != item[:-1])
    run = np.cumsum(edge) - 1
    long = (np.bincount(run)[run] + 12 >= passage) & shared
    return np.setdiff1d(common, np.unique(grams[long]))


def common_phrases(texts: Sequence[str], least: int = TEXTS) -> np.ndarray:
    """Hashes (uint64, sorted) of 13-grams, as they stand and with numbers alike, in at least `least` of the texts."""
    w = ngrams.words(texts)
    found = []
    for ids in (w.ids, w.alike()):
        same = ngrams.Words(ids, w.offsets, w.starts, w.ends, w.numbers)
        own, _ = ngrams.distinct(*ngrams.ngrams(same, 13))
        values, counts = np.unique(own, return_counts=True)
        found.append(values[counts >= least])
    return np.union1d(*found)
