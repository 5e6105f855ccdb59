"""The share of the corpus that is never trained on and measures bits per byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from phikit.records import Document, content_id
from phikit.text import ngrams

MAX_SHARED = 0.05
N = 13
_MORE = (
    4  # candidates are looked at for so many times the bytes that are wanted, and again so many times more
)
_LEAST = 8  # candidates of a source, at least

SharesOf = Callable[[np.ndarray], np.ndarray]


def origin_key(document: Document) -> int:
    """What documents of one file (parts, docstrings) have in common: 64 bits whose order is that of choosing."""
    return int(content_id("heldout", str(document.meta.get("origin") or document.id))[:16], 16)


def source_key(source: str) -> int:
    return xxhash.xxh3_64_intdigest(source.encode())


def hold_out(
    documents: Sequence[Document], words: ngrams.Words, share: float
) -> tuple[list[Document], list[Document]]:
    """(train, held out), each in the order given; `words` are those of the documents. See `choose`."""
    check_share(share)
    if share == 0 or not documents:
        return list(documents), []
    origins = np.array([origin_key(d) for d in documents], np.uint64)
    names = sorted({d.source for d in documents})
    sources = np.array([names.index(d.source) for d in documents])
    sizes = np.array([len(d.text.encode("utf-8", "surrogatepass")) for d in documents])

    def shares_of(candidates: np.ndarray) -> np.ndarray:
        table = Table.of([own_grams(words, origins, candidates)])
        return table.shares(candidates, table.elsewhere(words, origins))

    held = np.isin(origins, choose(origins, sources, sizes, share, shares_of))
    sides: tuple[list[Document], list[Document]] = [], []
    for d, out in zip(documents, held):
        sides[bool(out)].append(d)
    return sides


def check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"corpus.heldout must lie in [0, 1), got {share}")


def choose(
    origins: np.ndarray, sources: np.ndarray, sizes: np.ndarray, share: float, shares_of: SharesOf
) -> np.ndarray:
    """The origins (uint64) to hold out; origins uint64, sources int and sizes (bytes) are columns, a row a document.

    Per source, origins are taken in the order of their hash until `share` of the source's bytes is reached, at least
    one and never the last one; so the sizes hold at any scale, which a threshold on the hash alone would not give a
    small corpus. An origin is eligible only when at most 5 % of its 13-grams occur in another one, which `shares_of`
    is asked: what is measured must be unseen.
    """
    known: dict[int, float] = {}
    factor = 1
    while True:
        factor *= _MORE
        asked = candidates(origins, sources, sizes, share, factor)
        new = np.array([k for k in asked.tolist() if k not in known], np.uint64)
        if len(new):
            known.update(zip(new.tolist(), shares_of(new).tolist()))
        held: set[int] = set()
        if all(_take(*one, held, known) for one in _by_source(origins, sources, sizes, share)):
            return np.array(sorted(held), np.uint64)


def candidates(
    origins: np.ndarray, sources: np.ndarray, sizes: np.ndarray, share: float, factor: int = _MORE
) -> np.ndarray:
    """The origins (uint64, sorted) that come first, up to `factor` times the bytes that are wanted."""
    asked = []
    for keys, size, target in _by_source(origins, sources, sizes, share):
        within = np.cumsum(size) - size < factor * target
        within[: _LEAST * factor] = True
        asked.append(keys[within])
    return np.unique(np.concatenate(asked)) if asked else np.zeros(0, np.uint64)


def _by_source(
    origins: np.ndarray, sources: np.ndarray, sizes: np.ndarray, share: float
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """(origins in the order of their hash, bytes of each, bytes wanted) of each source."""
    for source in np.unique(sources):
        mine = sources == source
        keys, place = np.unique(origins[mine], return_inverse=True)
        size = np.bincount(place, weights=sizes[mine])
        yield keys, size, share * float(size.sum())


def _take(keys: np.ndarray, size: np.ndarray, target: float, held: set[int], known: dict[int, float]) -> bool:
    """Adds a source's origins to `held`; False where it came to one that is not known."""
    here = [k in held for k in keys.tolist()]
    done, left = float(size[here].sum()), len(keys) - sum(here)
    for key, n, out in zip(keys.tolist(), size.tolist(), here):
        if done >= target or left == 1:
            break
        if out:
            continue
        if key not in known:
            return False
        if known[key] <= MAX_SHARED:
            held.add(key)
            done += n
            left -= 1
    return True


def own_grams(words: ngrams.Words, origins: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """uint64 [G, 2]: (13-gram, origin) of the texts whose origin is among `wanted` (sorted)."""
    rows = np.flatnonzero(np.isin(origins, wanted))
    grams, offsets = ngrams.distinct(*ngrams.ngrams(words.take(rows), N))
    return np.column_stack([grams, np.repeat(origins[rows], np.diff(offsets))])


@dataclass(frozen=True)
class Table:
    """The distinct 13-grams of candidates, sorted; `owner` of each, and whether several candidates have it."""

    grams: np.ndarray
    owner: np.ndarray
    several: np.ndarray
    pairs: np.ndarray  # uint64 [P, 2]: distinct (13-gram, origin)

    @classmethod
    def of(cls, pairs: Iterable[np.ndarray]) -> Table:
        """From what `own_grams` gave."""
        rows = np.concatenate([np.zeros((0, 2), np.uint64), *pairs])
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        rows = rows[np.append(True, (rows[1:] != rows[:-1]).any(1))] if len(rows) else rows
        grams, first, counts = np.unique(rows[:, 0], return_index=True, return_counts=True)
        return cls(grams, rows[first, 1], counts > 1, rows)

    def save(self, path: Path) -> None:
        with path.open("wb") as f:
            np.savez(f, grams=self.grams, owner=self.owner, several=self.several, pairs=self.pairs)

    @classmethod
    def load(cls, path: Path) -> Table:
        with np.load(path) as f:
            return cls(f["grams"], f["owner"], f["several"], f["pairs"])

    def elsewhere(self, words: ngrams.Words, origins: np.ndarray) -> np.ndarray:
        """bool [G]: which grams the texts of another origin than their owner have."""
        found = np.zeros(len(self.grams), bool)
        grams, offsets = ngrams.ngrams(words, N)
        if not len(self.grams) or not len(grams):
            return found
        place = np.minimum(np.searchsorted(self.grams, grams), len(self.grams) - 1)
        hit = np.flatnonzero(self.grams[place] == grams)
        text = np.searchsorted(offsets, hit, side="right") - 1
        found[place[hit][origins[text] != self.owner[place[hit]]]] = True
        return found

    def shares(self, candidates: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
        """float [C]: of each candidate's 13-grams the share that occurs in another origin; 0 where it has none."""
        shared = (elsewhere | self.several)[np.searchsorted(self.grams, self.pairs[:, 0])]
        who = np.searchsorted(candidates, self.pairs[:, 1])
        total = np.bincount(who, minlength=len(candidates))
        return np.bincount(who, weights=shared, minlength=len(candidates)) / np.maximum(total, 1)
