"""Hybrid 13-gram and 7-gram decontamination against evaluation items (report appendix B.1).

A text is contaminated when it shares a 13-gram that is not allowed with any item. Otherwise its distinct
7-grams are compared with each item's: ratio = shared / min(7-grams of the text, 7-grams of the item), and the
largest ratio decides: above `info` it is partial, from `contaminated` on it is contaminated. The report gives
neither threshold nor the text normalization; ours are below and in docs/corpus.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np

from phikit.corpus.allow import boilerplate
from phikit.corpus.gram_table import GramTable
from phikit.text import ngrams

INFO = 0.1  # of an item's 7-grams: shared phrasing, worth a look
CONTAMINATED = 0.4  # of them: the item itself, edited
# Answer-option boilerplate that many items share, as in the report's examples of allowed 13-grams.
ALLOWED = (
    "a. i only b. ii only c. iii only d. i and ii only e. i and iii only f. ii and iii only g. all",
    "(a) i only (b) ii only (c) both i and ii (d) neither i nor ii",
    "a. true, true b. false, false c. true, false d. false, true",
    "a. all of the above b. none of the above c. both a and b d. neither a nor b",
)
_PAIRS = 1 << 22  # (7-gram, item) pairs looked at together: bounds memory when items share their phrasing

Verdict = Literal["clean", "partial", "contaminated"]


@dataclass(frozen=True, slots=True)
class Match:
    """What a text shares with the evaluation items.

    rule: the n-gram rule that decided, or "". item: the item of that rule. overlap, ratio: distinct 7-grams
    shared with that item. span: character span, in the text, of the longest run of shared n-grams.
    """

    verdict: Verdict = "clean"
    rule: Literal["", "13-gram", "7-gram"] = ""
    item: str = ""
    overlap: int = 0
    ratio: float = 0.0
    span: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Shared:
    """The 7-grams of texts that some item has, H of them, in order."""

    at: np.ndarray  # int64 [H]: its first word, counted over all texts
    text: np.ndarray  # int64 [H]
    left: np.ndarray  # int64 [H]: the first of its (7-gram, item) pairs
    right: np.ndarray  # int64 [H]: their end
    sizes: np.ndarray  # int64 [D]: distinct 7-grams of each text; 0 where none is shared


class EvalIndex:
    """The n-grams of evaluation items.

    references: (item id, text) pairs, all of an item's text in one string. allowed: texts whose 13-grams are
    not evidence; `common`, hashes of further ones, such as `allow.common_phrases` gives; the boilerplate that many
    items share is found here. `too_short` counts items with fewer than 7 words, which no n-gram rule can find.
    """

    def __init__(
        self,
        references: Iterable[tuple[str, str]],
        allowed: Iterable[str] = ALLOWED,
        common: np.ndarray | None = None,
    ) -> None:
        pairs = list(references)
        self.ids = [str(item) for item, _ in pairs]
        w = ngrams.words([text for _, text in pairs])
        self._thirteen, _ = _table(w, 13)
        self._seven, self._sizes = _table(w, 7)
        given = ngrams.ngrams(ngrams.words(list(allowed)), 13)[0]
        self.boilerplate = boilerplate(w)
        parts = [given, self.boilerplate, *([] if common is None else [common])]
        self._allowed = np.unique(np.concatenate(parts))
        self.too_short = int((self._sizes == 0).sum())

    def save(self, path: Path) -> None:
        """Arrays alone (.npz); `items` and `too_short` are counts."""
        tables = {f"{name}_{n}": getattr(t, name) for n, t in ((13, self._thirteen), (7, self._seven))
                  for name in ("grams", "starts", "items")}  # fmt: skip
        ids = np.frombuffer(json.dumps(self.ids).encode(), np.uint8)
        with path.open("wb") as f:
            np.savez(f, ids=ids, items=len(self.ids), too_short=self.too_short, sizes=self._sizes,
                     allowed=self._allowed, boilerplate=self.boilerplate, **tables)  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> EvalIndex:
        """What `save` wrote."""
        self = cls.__new__(cls)
        with np.load(path) as f:
            self.ids = json.loads(f["ids"].tobytes())
            self._thirteen, self._seven = (
                GramTable.ready(f[f"grams_{n}"], f[f"starts_{n}"], f[f"items_{n}"]) for n in (13, 7)
            )
            self._sizes, self._allowed, self.boilerplate = f["sizes"], f["allowed"], f["boilerplate"]
            self.too_short = int(f["too_short"])
        return self

    def check(
        self, w: ngrams.Words, *, info: float = INFO, contaminated: float = CONTAMINATED
    ) -> list[Match]:
        """One Match for each text of `w`. Raises ValueError unless 0 <= info <= contaminated <= 1."""
        if not 0 <= info <= contaminated <= 1:
            raise ValueError(
                "decontamination needs 0 <= info <= contaminated <= 1, "
                f"got info {info}, contaminated {contaminated}"
            )
        matches = [Match()] * len(w)
        shared = self._shared(w)
        hits = self._hits13(w, shared)
        wanted = np.full(len(w), -1)
        wanted[list(hits)] = [item for item, _ in hits.values()]
        for first, end in _portions(shared, _PAIRS):
            for text, item, overlap, ratio in self._best7(shared, first, end, wanted):
                if text in hits:
                    verdict, rule, places, n = "contaminated", "13-gram", hits[text][1], 13
                elif ratio > info:
                    verdict = "contaminated" if ratio >= contaminated else "partial"
                    rule, places, n = "7-gram", self._places(shared, text, item), 7
                else:
                    continue
                matches[text] = Match(verdict, rule, self.ids[item], overlap, ratio, _span(w, places, n))
        return matches

    def _shared(self, w: ngrams.Words) -> _Shared:
        grams = ngrams.runs(w.ids, 7)
        at, left, right = self._seven.find(grams)
        text = np.searchsorted(w.offsets, at, side="right") - 1
        inside = at + 7 <= w.offsets[text + 1]
        at, text, left, right = at[inside], text[inside], left[inside], right[inside]
        some = text[np.append(True, text[1:] != text[:-1])] if len(text) else text
        counts = np.diff(w.offsets)[some] - 6
        own = grams[ngrams.ranges(w.offsets[some], counts)]
        sizes = np.zeros(len(w), np.int64)
        sizes[some] = np.diff(ngrams.distinct(own, ngrams.offsets_of(counts))[1])
        return _Shared(at, text, left, right, sizes)

    def _hits13(self, w: ngrams.Words, shared: _Shared) -> dict[int, tuple[int, np.ndarray]]:
        """text -> (item of its first 13-gram that counts, word positions of all that count). A 13-gram of an item
        begins where seven of its 7-grams in a row begin: no other one is looked up."""
        at = shared.at
        begins = np.flatnonzero(at[6:] - at[:-6] == 6)
        grams = ngrams.runs_at(w.ids, at[begins], 13)
        found, left, _ = self._thirteen.find(grams)
        keep = ~np.isin(grams[found], self._allowed)
        places, left = begins[found[keep]], left[keep]
        return {
            t: (int(self._thirteen.items[left[first]]), at[places[first:end]])
            for t, first, end in _runs(shared.text[places])
        }

    def _best7(
        self, shared: _Shared, first: int, end: int, wanted: np.ndarray
    ) -> Iterator[tuple[int, int, int, float]]:
        """(text, item, overlap, ratio) of each text in first:end of `shared`. The item is the one with the largest
        ratio (the first of equals), or the text's item in `wanted` where that is no -1."""
        # A text's 7-gram counts once, however often the text repeats it.
        gram = np.unique(shared.text[first:end] << 32 | shared.left[first:end], return_index=True)[1] + first
        width = shared.right[gram] - shared.left[gram]
        items = self._seven.items[ngrams.ranges(shared.left[gram], width)].astype(np.int64)
        pairs = np.sort(np.repeat(shared.text[gram], width) << 32 | items)
        new = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1]))
        overlap = np.diff(np.append(new, len(pairs)))
        text, item = pairs[new] >> 32, pairs[new] & 0xFFFFFFFF
        ratio = overlap / np.minimum(shared.sizes[text], self._sizes[item])
        order = np.lexsort((-ratio, item != wanted[text], text))
        for t, k, _ in _runs(text[order]):
            best = order[k]
            yield t, int(item[best]), int(overlap[best]), float(ratio[best])

    def _places(self, shared: _Shared, text: int, item: int) -> np.ndarray:
        """Where in the text the 7-grams begin that it shares with the item."""
        a, b = np.searchsorted(shared.text, [text, text + 1])
        width = shared.right[a:b] - shared.left[a:b]
        items = self._seven.items[ngrams.ranges(shared.left[a:b], width)]
        return np.repeat(shared.at[a:b], width)[items == item]


def decontaminate(
    texts: Sequence[str],
    references: Iterable[tuple[str, str]],
    *,
    info: float = INFO,
    contaminated: float = CONTAMINATED,
    allowed: Iterable[str] = ALLOWED,
) -> list[Match]:
    """One Match for each of `texts`: EvalIndex for callers that check once."""
    return EvalIndex(references, allowed).check(ngrams.words(texts), info=info, contaminated=contaminated)


def _table(w: ngrams.Words, n: int) -> tuple[GramTable, np.ndarray]:
    """The table of the items' distinct n-grams, and how many each item has."""
    grams, offsets = ngrams.distinct(*ngrams.ngrams(w, n))
    sizes = np.diff(offsets)
    return GramTable.of(grams, np.repeat(np.arange(len(sizes)), sizes)), sizes


def _portions(shared: _Shared, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole texts that have at most `limit` (7-gram, item) pairs together, or are one text."""
    cost = ngrams.offsets_of(shared.right - shared.left)
    ends = np.append(np.flatnonzero(np.diff(shared.text)) + 1, len(shared.text)) if len(shared.text) else []
    first = 0
    for end, after in zip_longest(ends, ends[1:]):
        if after is None or cost[after] - cost[first] > limit:
            yield first, int(end)
            first = int(end)


def _runs(values: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(value, first, end) of each run of equal values."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    edges = np.concatenate([[0], cuts, [len(values)]]).tolist() if len(values) else []
    yield from zip(values[edges[:-1]].tolist(), edges[:-1], edges[1:])


def _span(w: ngrams.Words, positions: np.ndarray, n: int) -> tuple[int, int]:
    """Characters of the text that the longest run of consecutive n-grams (the first of equals) takes."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(positions) > 1) + 1, [len(positions)]])
    k = int(np.argmax(np.diff(edges)))
    first, last = positions[edges[k]], positions[edges[k + 1] - 1]
    return int(w.starts[first]), int(w.ends[last + n - 1])
