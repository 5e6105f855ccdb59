"""Evaluation items in other words: windows of a text whose embedding is close to an item's.

No n-gram rule can find these (report appendix B.1 has none for them). A window is a run of whole sentences as long as
an item; only windows that share content words with an item are embedded, against those items alone, since embedding is
a thousand times slower than counting words. What is found is said, with span, item and cosine; nothing is dropped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from phikit.ask.embed import Embed
from phikit.text import ngrams

THRESHOLD = 0.8  # cosine of all-MiniLM-L6-v2; what it finds and misses is in docs/corpus.md
LEAST = 5  # content words of an item: one with fewer is like too many sentences
SHARED = (
    0.4  # of an item's content words, rare ones counting more, that a window must have, and at least _SHARED
)
_SHARED = 3
NEAREST = 4  # windows of a block that are compared with an item: those that share most
_COMMON = 0.05  # a word that more items have, and at least _FEW of them, says nothing about one
_FEW = 8
_CONTENT = re.compile(r"[^\W\d_]{4,}")
_STEM = 5  # characters: plays, played, player
_END = re.compile(r"(?<=[.?!:;])[\"')\]]*\s+|\n+")


@dataclass(frozen=True, slots=True)
class Paraphrase:
    """`span`: characters of the text; `score`: cosine of its embedding with the item's."""

    item: str
    score: float
    span: tuple[int, int]


class ParaphraseIndex:
    """references: (item id, text). `too_short` counts items with fewer than LEAST content words, which are not
    looked for. Items are embedded when a window first resembles them."""

    def __init__(
        self, references: Iterable[tuple[str, str]], embed: Embed, threshold: float = THRESHOLD
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(
                f"decontaminate: the cosine of a paraphrase must lie in (0, 1], got {threshold:g}"
            )
        pairs = list(references)
        long = [(i, t) for i, t in pairs if len(_stems(t)) >= LEAST]
        self.embed, self.threshold = embed, threshold
        self.too_short = len({i for i, _ in pairs} - {i for i, _ in long})
        self.ids, self.texts = [i for i, _ in long], [" ".join(t.split()) for _, t in long]
        stems = [_stems(t) for t in self.texts]
        owner = np.repeat(np.arange(len(stems)), [len(s) for s in stems])
        words, place, count = np.unique(
            np.array([w for s in stems for w in s], dtype=str), return_inverse=True, return_counts=True
        )
        told = count <= max(_COMMON * len(long), _FEW)  # posting lists of these words alone
        kept = told[place]
        order = np.argsort(place[kept], kind="stable")
        self._items = owner[kept][order]
        self._offsets = ngrams.offsets_of(np.bincount(place[kept], minlength=len(words)))
        self._numbers = {str(w): k for k, w in enumerate(words) if told[k]}
        self._weight = np.log(max(len(long), 2) / np.maximum(count, 1)) + 0.1
        self._whole = np.bincount(owner[kept], self._weight[place[kept]], len(long))
        self._own = [{self._numbers[w] for w in some if w in self._numbers} for some in stems]
        self._lengths = [len(t.split()) for t in self.texts]
        self._most = max(self._lengths, default=1)
        self._vectors: dict[int, np.ndarray] = {}

    def check(self, texts: Sequence[str]) -> list[Paraphrase | None]:
        """For each text the window closest to an item, where its cosine reaches the threshold."""
        near = {(k, *found) for k, text in enumerate(texts) for found in self._near(text)}
        spans = sorted({(k, a, b) for k, a, b, _ in near})
        mine = dict(zip(spans, self._embedded([" ".join(texts[k][a:b].split()) for k, a, b in spans])))
        self._learn(sorted({item for *_, item in near}))
        found: list[Paraphrase | None] = [None] * len(texts)
        for k, a, b, item in sorted(near):
            score = round(float(mine[k, a, b] @ self._vectors[item]), 4)
            best = found[k]
            if score >= self.threshold and (best is None or score > best.score):
                found[k] = Paraphrase(self.ids[item], score, (a, b))
        return found

    def _near(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(start, end, item): runs of whole sentences as long as the item, with enough of its content words; of each
        item the few runs that have most. A run begins and ends with a sentence that has some."""
        ends = [m.start() for m in _END.finditer(text)] + [len(text)]
        starts = [0, *(m.end() for m in _END.finditer(text))]
        parts = [text[a:b] for a, b in zip(starts, ends)]
        before = np.cumsum([0, *(len(p.split()) for p in parts)]).tolist()
        content = [{self._numbers[s] for s in _stems(p) if s in self._numbers} for p in parts]
        first = 0
        while first < len(parts):  # blocks twice as long as the longest item, each a half further
            last, half = first, first + 1
            while last < len(parts) and before[last] - before[first] < 2 * self._most:
                last += 1
                half = last if before[last] - before[first] <= self._most else half
            for item in self._alike(set().union(*content[first:last])):
                runs = self._runs(item, content, before, range(first, last))
                for _, a, b in sorted(runs, reverse=True)[:NEAREST]:
                    yield starts[a], ends[b], item
            first = len(parts) if last == len(parts) else half

    def _alike(self, numbers: set[int]) -> list[int]:
        """Items with enough content words among these."""
        if len(numbers) < _SHARED:
            return []
        some = [self._items[self._offsets[n] : self._offsets[n + 1]] for n in sorted(numbers)]
        weights = np.repeat(self._weight[sorted(numbers)], [len(x) for x in some])
        items, place, shared = np.unique(np.concatenate(some), return_inverse=True, return_counts=True)
        share = np.bincount(place, weights, len(items)) / self._whole[items]
        return items[(shared >= _SHARED) & (share >= SHARED)].tolist()

    def _runs(
        self, item: int, content: list[set[int]], before: list[int], block: range
    ) -> Iterator[tuple[float, int, int]]:
        """(share of the item's content words, first sentence, last) of runs about as long as the item."""
        mine, length = self._own[item], self._lengths[item]
        hits = [(k, here) for k in block if (here := content[k] & mine)]
        for at, (a, _) in enumerate(hits):
            have: set[int] = set()
            for b, here in hits[at:]:
                n = before[b + 1] - before[a]
                if n > 1.6 * length:
                    break
                have |= here
                share = sum(self._weight[k] for k in have) / self._whole[item]
                if 1.6 * n >= length and len(have) >= _SHARED and share >= SHARED:
                    yield share, a, b

    def _learn(self, items: Sequence[int]) -> None:
        new = [i for i in items if i not in self._vectors]
        self._vectors.update(zip(new, self._embedded([self.texts[i] for i in new])))

    def _embedded(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed(texts) if texts else np.zeros((0, 1), np.float32)


def _stems(text: str) -> list[str]:
    return sorted({w[:_STEM] for w in _CONTENT.findall(text.lower())})
