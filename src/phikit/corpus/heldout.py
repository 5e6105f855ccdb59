"""The share of the corpus that is never trained on and measures bits per byte."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phikit.records import Document, content_id
from phikit.text import ngrams

MAX_SHARED = 0.05


def hold_out(
    documents: Sequence[Document], words: ngrams.Words, share: float
) -> tuple[list[Document], list[Document]]:
    """(train, held out), each in the order given; `words` are those of the documents.

    Per source, origins (files, with all that was made of them: parts, docstrings) are taken in the order of a
    hash until `share` of the source's bytes is reached, at least one and never the last one; so the sizes
    hold at any scale, which a threshold on the hash alone would not give a small corpus. An origin is
    eligible only when at most 5 % of its 13-grams occur in another one: what is measured must be unseen.
    Raises ValueError unless 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"corpus.heldout must lie in [0, 1), got {share}")
    if share == 0 or not documents:
        return list(documents), []
    names = [str(d.meta.get("origin") or d.id) for d in documents]
    unseen = _unseen(names, words)
    held: set[str] = set()
    for source in sorted({d.source for d in documents}):
        size: dict[str, int] = {}
        for d, name in zip(documents, names):
            if d.source == source:
                size[name] = size.get(name, 0) + len(d.text.encode("utf-8", "surrogatepass"))
        target = share * sum(size.values())
        done = sum(n for name, n in size.items() if name in held)
        train = len(size) - sum(name in held for name in size)
        for name in sorted((n for n in size if n in unseen - held), key=lambda n: content_id("heldout", n)):
            if done >= target or train == 1:
                break
            held.add(name)
            done += size[name]
            train -= 1
    sides: tuple[list[Document], list[Document]] = [], []
    for d, name in zip(documents, names):
        sides[name in held].append(d)
    return sides


def _unseen(names: Sequence[str], words: ngrams.Words) -> set[str]:
    """Origins of whose distinct 13-grams at most MAX_SHARED occur in another origin."""
    table = {name: i for i, name in enumerate(dict.fromkeys(names))}
    grams, offsets = ngrams.ngrams(words, 13)
    origin = np.repeat([table[name] for name in names], np.diff(offsets))
    order = np.lexsort((origin, grams))
    grams, origin = grams[order], origin[order]
    new = np.ones(len(grams), bool)
    new[1:] = (grams[1:] != grams[:-1]) | (origin[1:] != origin[:-1])
    grams, origin = grams[new], origin[new]
    shared = np.zeros(len(grams), bool)
    same = grams[1:] == grams[:-1]
    shared[1:] |= same
    shared[:-1] |= same
    total = np.bincount(origin, minlength=len(table))
    seen = np.bincount(origin[shared], minlength=len(table))
    return {name for name, i in table.items() if seen[i] <= MAX_SHARED * total[i]}
