"""Hybrid 13-gram and 7-gram decontamination against evaluation items (report appendix B.1).

A text is contaminated when it shares a 13-gram that is not allowed with any item. Otherwise its distinct
7-grams are compared with each item's: ratio = shared / min(7-grams of the text, 7-grams of the item), and the
largest ratio decides: above `info` it is partial, from `contaminated` on it is contaminated. The report gives
neither threshold nor the text normalization; ours are below and in docs/corpus.md.

A third rule is ours (`numbers_alike.py`): an item whose numbers were changed. The same ratio of 13-grams with numbers
alike makes a text partial, or, where one asks for it, contaminated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phikit.corpus.allow import boilerplate
from phikit.corpus.numbers_alike import NumbersAlike
from phikit.corpus.shared_grams import ItemGrams, Shared, runs, span
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
_PAIRS = 1 << 22  # (n-gram, item) pairs looked at together: bounds memory when items share their phrasing

Verdict = Literal["clean", "partial", "contaminated"]
Rule = Literal["", "13-gram", "7-gram", "13-gram, numbers alike"]
NUMBERS: Rule = "13-gram, numbers alike"


@dataclass(frozen=True, slots=True)
class Match:
    """What a text shares with the evaluation items.

    rule: the n-gram rule that decided, or "". item: the item of that rule. overlap, ratio: distinct 7-grams (13-grams
    with numbers alike, where that is the rule) shared with that item. span: character span, in the text, of the longest
    run of shared n-grams.
    """

    verdict: Verdict = "clean"
    rule: Rule = ""
    item: str = ""
    overlap: int = 0
    ratio: float = 0.0
    span: tuple[int, int] = (0, 0)

    def shown(self) -> str:
        """What was counted, in words."""
        grams = "13-grams with numbers alike" if self.rule == NUMBERS else "7-grams"
        return f"{self.overlap} {grams}, ratio {self.ratio:.3f}"


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
        self._thirteen, self._seven = (ItemGrams.of(n, *ngrams.ngrams(w, n)) for n in (13, 7))
        given = ngrams.ngrams(ngrams.words(list(allowed)), 13)[0]
        self.boilerplate = boilerplate(w)
        parts = [given, self.boilerplate, *([] if common is None else [common])]
        self._allowed = np.unique(np.concatenate(parts))
        self._alike = NumbersAlike(w, self._allowed)
        self.too_short = int((self._seven.sizes == 0).sum())

    def save(self, path: Path) -> None:
        """Arrays alone (.npz)."""
        ids = np.frombuffer(json.dumps(self.ids).encode(), np.uint8)
        tables: dict[str, Any] = {
            **self._thirteen.arrays("13"),
            **self._seven.arrays("7"),
            **self._alike.arrays(),
        }
        with path.open("wb") as f:
            np.savez(f, ids=ids, too_short=self.too_short, allowed=self._allowed, boilerplate=self.boilerplate,
                     items=len(self.ids), **tables)  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> EvalIndex:
        """What `save` wrote."""
        self = cls.__new__(cls)
        with np.load(path) as f:
            arrays = dict(f)
        self.ids = json.loads(arrays["ids"].tobytes())
        self._thirteen, self._seven = (ItemGrams.load(n, str(n), arrays) for n in (13, 7))
        self._alike = NumbersAlike.load(arrays)
        self._allowed, self.boilerplate = arrays["allowed"], arrays["boilerplate"]
        self.too_short = int(arrays["too_short"])
        return self

    def check(
        self,
        w: ngrams.Words,
        *,
        info: float = INFO,
        contaminated: float = CONTAMINATED,
        numbers: bool = False,
    ) -> list[Match]:
        """One Match for each text of `w`. numbers: whether an item with other numbers is contaminated, not partial.
        Raises ValueError unless 0 <= info <= contaminated <= 1."""
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
        for first, end in shared.portions(_PAIRS):
            for text, item, overlap, ratio in shared.best(first, end, wanted):
                if text in hits:
                    verdict, rule, places, n = "contaminated", "13-gram", hits[text][1], 13
                elif ratio > info:
                    verdict = "contaminated" if ratio >= contaminated else "partial"
                    rule, places, n = "7-gram", shared.places(text, item), 7
                else:
                    continue
                matches[text] = Match(verdict, rule, self.ids[item], overlap, ratio, span(w, places, n))
        self._numbers_alike(w, matches, info, contaminated if numbers else np.inf)
        return matches

    def _numbers_alike(self, w: ngrams.Words, matches: list[Match], info: float, contaminated: float) -> None:
        """Puts in what the third rule finds and the first two called clean, or less like an item."""
        shared = self._alike.shared(w)
        any_item = np.full(len(w), -1)
        for first, end in shared.portions(_PAIRS):
            for text, item, overlap, ratio in shared.best(first, end, any_item):
                before = matches[text]
                if before.verdict == "contaminated" or ratio <= max(info, before.ratio):
                    continue
                verdict: Verdict = "contaminated" if ratio >= contaminated else "partial"
                place = span(w, shared.places(text, item), 13)
                matches[text] = Match(verdict, NUMBERS, self.ids[item], overlap, ratio, place)

    def _shared(self, w: ngrams.Words) -> Shared:
        grams = ngrams.runs(w.ids, 7)
        at, left, right = self._seven.table.find(grams)
        text = np.searchsorted(w.offsets, at, side="right") - 1
        inside = at + 7 <= w.offsets[text + 1]
        at, text, left, right = at[inside], text[inside], left[inside], right[inside]
        some = text[np.append(True, text[1:] != text[:-1])] if len(text) else text
        counts = np.diff(w.offsets)[some] - 6
        own = grams[ngrams.ranges(w.offsets[some], counts)]
        sizes = np.zeros(len(w), np.int64)
        sizes[some] = np.diff(ngrams.distinct(own, ngrams.offsets_of(counts))[1])
        return Shared(self._seven, at, text, left, right, sizes)

    def _hits13(self, w: ngrams.Words, shared: Shared) -> dict[int, tuple[int, np.ndarray]]:
        """text -> (item of its first 13-gram that counts, word positions of all that count). A 13-gram of an item
        begins where seven of its 7-grams in a row begin: no other one is looked up."""
        at = shared.at
        begins = np.flatnonzero(at[6:] - at[:-6] == 6)
        grams = ngrams.runs_at(w.ids, at[begins], 13)
        found, left, _ = self._thirteen.table.find(grams)
        keep = ~np.isin(grams[found], self._allowed)
        places, left = begins[found[keep]], left[keep]
        items = self._thirteen.table.items
        return {
            t: (int(items[left[first]]), at[places[first:end]]) for t, first, end in runs(shared.text[places])
        }


def decontaminate(
    texts: Sequence[str],
    references: Iterable[tuple[str, str]],
    *,
    info: float = INFO,
    contaminated: float = CONTAMINATED,
    numbers: bool = False,
    allowed: Iterable[str] = ALLOWED,
) -> list[Match]:
    """One Match for each of `texts`: EvalIndex for callers that check once."""
    index = EvalIndex(references, allowed)
    return index.check(ngrams.words(texts), info=info, contaminated=contaminated, numbers=numbers)
