"""Hybrid 13-gram and 7-gram decontamination against evaluation items (report appendix B.1).

A text is contaminated when it shares a 13-gram that is not allowed with any item. Otherwise its distinct
7-grams are compared with each item's: ratio = shared / min(7-grams of the text, 7-grams of the item), and the
largest ratio decides: above `info` it is partial, from `contaminated` on it is contaminated. The report gives
neither threshold nor the text normalization; ours are below and in docs/corpus.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from phikit.corpus.allow import boilerplate
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
class _Table:
    """(n-gram, item) pairs sorted by n-gram, then item, behind a filter that lets one other n-gram in 16 through."""

    grams: np.ndarray  # uint64 [G] distinct, sorted
    starts: np.ndarray  # int64 [G+1]: gram g has the pairs starts[g]:starts[g+1]
    items: np.ndarray  # int64 [P]
    seen: np.ndarray  # bool [2^k], by the first k bits of an n-gram
    shift: np.uint64  # 64 - k

    @classmethod
    def of(cls, grams: np.ndarray, items: np.ndarray) -> _Table:
        order = np.argsort(grams, kind="stable")  # items ascend
        distinct, counts = np.unique(grams, return_counts=True)
        return cls.ready(distinct, ngrams.offsets_of(counts), items[order])

    @classmethod
    def ready(cls, distinct: np.ndarray, starts: np.ndarray, items: np.ndarray) -> _Table:
        """From the columns of a table, behind a new filter."""
        shift = np.uint64(64 - min(max((16 * len(distinct)).bit_length(), 16), 28))
        seen = np.zeros(1 << int(64 - shift), bool)
        seen[distinct >> shift] = True
        return cls(distinct, starts, items, seen, shift)

    def find(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(position in `grams`, first pair, end of its pairs) of each gram that is in the table."""
        at = np.flatnonzero(self.seen[grams >> self.shift])
        place = np.searchsorted(self.grams, grams[at])
        hit = place < len(self.grams)
        hit[hit] = self.grams[place[hit]] == grams[at[hit]]
        place = place[hit]
        return at[hit], self.starts[place], self.starts[place + 1]


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
                _Table.ready(f[f"grams_{n}"], f[f"starts_{n}"], f[f"items_{n}"]) for n in (13, 7)
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
        thirteen = self._hits13(w)
        for text, at, item, overlap, ratio in self._best7(w, {t: item for t, (item, _) in thirteen.items()}):
            if text in thirteen:
                span = _span(w, text, thirteen[text][1], 13)
                matches[text] = Match("contaminated", "13-gram", self.ids[item], overlap, ratio, span)
            elif ratio > info:
                verdict = "contaminated" if ratio >= contaminated else "partial"
                matches[text] = Match(
                    verdict, "7-gram", self.ids[item], overlap, ratio, _span(w, text, at, 7)
                )
        return matches

    def _hits13(self, w: ngrams.Words) -> dict[int, tuple[int, np.ndarray]]:
        """text -> (item of its first 13-gram that counts, word positions of all that count)."""
        grams, offsets = ngrams.ngrams(w, 13)
        at, left, _ = self._thirteen.find(grams)
        keep = ~np.isin(grams[at], self._allowed)
        at, left = at[keep], left[keep]
        text = np.searchsorted(offsets, at, side="right") - 1
        hits = {}
        for t, first, last in _runs(text):
            item = int(self._thirteen.items[left[first]])
            hits[t] = (item, at[first:last] - offsets[t])
        return hits

    def _best7(self, w: ngrams.Words, fixed: dict[int, int]):
        """(text, word positions of the shared 7-grams, item, overlap, ratio) of each text that shares one.

        The item is the one with the largest ratio (the first of equals), or the text's item in `fixed`.
        """
        grams, offsets = ngrams.ngrams(w, 7)
        at, left, right = self._seven.find(grams)
        text = np.searchsorted(offsets, at, side="right") - 1
        runs = list(_runs(text))
        total = _sizes_of(grams, offsets, [t for t, _, _ in runs])
        cost = ngrams.offsets_of(right - left)
        while runs:
            # Take texts until the pairs to count reach the bound: at least one.
            n = 1
            while n < len(runs) and cost[runs[n][2]] - cost[runs[0][1]] <= _PAIRS:
                n += 1
            some, runs = runs[:n], runs[n:]
            lo, hi = some[0][1], some[-1][2]
            width = right[lo:hi] - left[lo:hi]
            every_item = item = self._seven.items[ngrams.ranges(left[lo:hi], width)]
            every_place = place = np.repeat(np.arange(lo, hi), width)
            # Distinct 7-grams: count a (text, gram, item) once however often the text repeats the gram.
            order = np.lexsort((place, item, left[place], text[place]))
            item, place = item[order], place[order]
            first = np.ones(len(item), bool)
            first[1:] = (item[1:] != item[:-1]) | (left[place][1:] != left[place][:-1])
            first[1:] |= text[place][1:] != text[place][:-1]
            item, place = item[first], place[first]
            key = text[place] * len(self.ids) + item
            keys, overlap = np.unique(key, return_counts=True)
            texts, items = keys // len(self.ids), keys % len(self.ids)
            ratio = overlap / np.minimum(total[texts], self._sizes[items])
            for (t, a, b), (_, x, y) in zip(some, _runs(texts)):
                best = x + int(np.argmax(ratio[x:y]))
                if t in fixed:
                    best = x + int(np.searchsorted(items[x:y], fixed[t]))
                pairs = slice(cost[a] - cost[lo], cost[b] - cost[lo])
                where = at[every_place[pairs][every_item[pairs] == items[best]]] - offsets[t]
                yield t, where, int(items[best]), int(overlap[best]), float(ratio[best])


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


def _table(w: ngrams.Words, n: int) -> tuple[_Table, np.ndarray]:
    """The table of the items' distinct n-grams, and how many each item has."""
    grams, offsets = ngrams.distinct(*ngrams.ngrams(w, n))
    sizes = np.diff(offsets)
    return _Table.of(grams, np.repeat(np.arange(len(sizes)), sizes)), sizes


def _sizes_of(grams: np.ndarray, offsets: np.ndarray, texts: list[int]) -> np.ndarray:
    """How many distinct n-grams each of `texts` has; 0 for the others: int64 [D]."""
    counts = np.diff(offsets)[texts]
    some = grams[ngrams.ranges(offsets[:-1][texts], counts)]
    sizes = np.zeros(len(offsets) - 1, np.int64)
    sizes[texts] = np.diff(ngrams.distinct(some, ngrams.offsets_of(counts))[1])
    return sizes


def _runs(values: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """(value, first, end) of each run of equal values."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    edges = np.concatenate([[0], cuts, [len(values)]]) if len(values) else np.zeros(1, int)
    for first, end in pairwise(edges):
        yield int(values[first]), int(first), int(end)


def _span(w: ngrams.Words, text: int, positions: np.ndarray, n: int) -> tuple[int, int]:
    """Character span of the longest run of consecutive n-grams (the first of equals)."""
    cuts = np.flatnonzero(np.diff(positions) > 1) + 1
    runs = np.split(positions, cuts)
    longest = max(runs, key=len)
    base = w.offsets[text]
    return int(w.starts[base + longest[0]]), int(w.ends[base + longest[-1] + n - 1])
