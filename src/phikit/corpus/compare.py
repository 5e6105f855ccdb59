"""The steps that compare documents, over shards on disk: exact duplicates, near duplicates, held-out split.

Each function is a task of the plan that `pipeline.build` makes: `fn(options, reads, writes)`. What needs all documents
at once sees only their keys (about 200 bytes each, grouped on disk by `spill.py`) and the candidates; texts are read
a shard at a time. In memory stay some 50 bytes a document, one part of a spill, and one shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from phikit.corpus import dedup, heldout
from phikit.corpus.cleaned import BAND, BYTES, COLUMNS, DIGEST, ORIGIN, SHINGLES, SOURCE, batches, documents
from phikit.corpus.heldout import Table
from phikit.corpus.spill import Spill
from phikit.records.io import write_json
from phikit.text import ngrams

Paths = Sequence[Path]
Options = Mapping[str, Any]
_CACHED = 512  # sets of shingles held while pairs are verified: those of a bucket follow one another


def candidates(options: Options, reads: Paths, writes: Paths) -> None:
    """keys of every part -> exact twins (int64 [E, 2]), candidate pairs (int64 [P, 2], ascending, raw), and for each
    part the lines whose shingles are needed (int64)."""
    first = _firsts(reads)
    total = int(first[-1])
    spill = Spill(writes[0].with_suffix(".exact"), total, 3)
    for at, table in zip(first, map(_keys, reads)):
        spill.by_hash(table[:, 0], np.column_stack([table[:, DIGEST], at + np.arange(len(table))]))
    again, twin = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rows in spill.read():
        a, b = dedup.equal_rows(rows[:, :2], rows[:, 2].astype(np.int64))
        again.append(a)
        twin.append(b)
    exact = np.column_stack([np.concatenate(again), np.concatenate(twin)])
    exact = exact[np.argsort(exact[:, 0])]
    np.save(writes[0], exact)

    spill = Spill(writes[0].with_suffix(".bands"), total * dedup.BANDS, 2)
    for at, table in zip(first, map(_keys, reads)):
        numbers = at + np.arange(len(table))
        some = (table[:, SHINGLES] > 0) & ~np.isin(numbers, exact[:, 0])
        for keys in table[some, BAND].T:
            spill.by_hash(keys, np.column_stack([keys, numbers[some]]))
    pairs = Spill(writes[0].with_suffix(".pairs"), total * dedup.BANDS, 2)
    for rows in spill.read():
        found = dedup.distinct_pairs(dedup.bucket_pairs(rows[:, 0], rows[:, 1]))
        pairs.by_place(found[:, 0], total, found)
    needed = np.zeros(total, bool)
    with writes[1].open("wb") as f:
        for rows in pairs.read():
            found = dedup.distinct_pairs(rows.astype(np.int64))
            needed[found.ravel()] = True
            found.tofile(f)
    for i, path in enumerate(writes[2:]):
        np.save(path, np.flatnonzero(needed[first[i] : first[i + 1]]))


def shingles(options: Options, reads: Paths, writes: Paths) -> None:
    """A part's documents and needed lines -> their sets of shingles (raw uint64, one after another), their sizes."""
    needed = set(np.load(reads[1]).tolist())
    sizes = [np.zeros(0, np.int64)]
    with writes[0].open("wb") as f:
        for _, some in batches(documents(reads[0], needed)):
            grams, offsets = dedup.shingles(ngrams.words([d.text for d in some]))
            grams.tofile(f)
            sizes.append(np.diff(offsets))
    np.save(writes[1], np.concatenate(sizes))


def join(options: Options, reads: Paths, writes: Paths) -> None:
    """exact twins, pairs, then of every part its keys, needed lines, shingles and their sizes -> near twins (int64
    [N, 2]), the origins that may be held out (uint64), and for each part which of its documents are left (bool)."""
    keys, needed, grams, sizes = (reads[2 + k :: 4] for k in range(4))
    first = _firsts(keys)
    store = _Shingles(grams, [at + np.load(n) for at, n in zip(first, needed)], list(map(np.load, sizes)))
    groups = dedup.Groups()
    with reads[1].open("rb") as f:
        while len(pairs := np.fromfile(f, np.int64, 2 << 16)):
            dedup.join_pairs(groups, pairs.reshape(-1, 2).tolist(), store.of, options["near"])
    near = np.array([(i, groups.find(i)) for i in sorted(groups.parent)], np.int64).reshape(-1, 2)
    np.save(writes[0], near)
    dropped = np.concatenate([np.load(reads[0])[:, 0], near[:, 0]])
    left = [~np.isin(np.arange(a, b), dropped) for a, b in pairwise(first)]
    asked = np.zeros(0, np.uint64)
    if options["heldout"]:
        columns = _columns(keys, left)
        asked = heldout.candidates(*columns, options["heldout"])
    np.save(writes[1], asked)
    for path, mask in zip(writes[2:], left):
        np.save(path, mask)


def own(options: Options, reads: Paths, writes: Paths) -> None:
    """A part's documents, keys, mask, and the origins that may be held out -> their 13-grams (`heldout.own_grams`)."""
    found = [np.zeros((0, 2), np.uint64)]
    origins, asked = _keys(reads[1])[:, ORIGIN], np.load(reads[3])
    lines = set(np.flatnonzero(np.load(reads[2]) & np.isin(origins, asked)).tolist())
    for numbers, some in batches(documents(reads[0], lines)):
        found.append(heldout.own_grams(ngrams.words([d.text for d in some]), origins[numbers], asked))
    np.save(writes[0], np.concatenate(found))


def table(options: Options, reads: Paths, writes: Paths) -> None:
    """What `own` gave of every part -> one table."""
    Table.of(map(np.load, reads)).save(writes[0])


def elsewhere(options: Options, reads: Paths, writes: Paths) -> None:
    """A part's documents, keys, mask, and the table -> which of its 13-grams they have that is not their own."""
    against = Table.load(reads[3])
    origins = _keys(reads[1])[:, ORIGIN]
    lines = set(np.flatnonzero(np.load(reads[2])).tolist())
    found = np.zeros(len(against.grams), bool)
    for numbers, some in batches(documents(reads[0], lines)):
        found |= against.elsewhere(ngrams.words([d.text for d in some]), origins[numbers])
    np.save(writes[0], found)


def fates(options: Options, reads: Paths, writes: Paths) -> None:
    """exact twins, near twins, asked origins, then of every part documents, keys, mask; with a held-out share also the
    table, and what each part has of it -> for each part what becomes of its documents."""
    exact, near, asked = (np.load(p) for p in reads[:3])
    n = len(writes)
    texts, keys, masks = (reads[3 + k : 3 + 3 * n : 3] for k in range(3))
    left = list(map(np.load, masks))
    held = np.zeros(0, np.uint64)
    if options["heldout"]:
        known, seen = Table.load(reads[3 + 3 * n]), reads[4 + 3 * n :]

        def shares_of(origins: np.ndarray) -> np.ndarray:
            if np.array_equal(origins, asked):
                return known.shares(origins, np.logical_or.reduce([np.load(p) for p in seen]))
            return _shares(origins, texts, keys, left)

        held = heldout.choose(*_columns(keys, left), options["heldout"], shares_of)
    first = _firsts(keys)
    names = _names(texts, first, np.unique(np.concatenate([exact[:, 1], near[:, 1]])))
    for i, path in enumerate(writes):
        a, b = first[i], first[i + 1]
        fate = {
            kind: [[int(d - a), *names[int(t)]] for d, t in twins[(twins[:, 0] >= a) & (twins[:, 0] < b)]]
            for kind, twins in (("exact_duplicate", exact), ("near_duplicate", near))
        }
        out = np.flatnonzero(left[i] & np.isin(_keys(keys[i])[:, ORIGIN], held)).tolist()
        write_json(path, {**fate, "heldout": out})


def _shares(asked: np.ndarray, texts: Paths, keys: Paths, left: list[np.ndarray]) -> np.ndarray:
    """`heldout.choose` asks a second time where most of the first candidates repeat other files: here, part by part."""

    def parts(chosen: np.ndarray | None) -> Iterator[tuple[ngrams.Words, np.ndarray]]:
        for path, key, mask in zip(texts, keys, left):
            origins = _keys(key)[:, ORIGIN]
            mask = mask if chosen is None else mask & np.isin(origins, chosen)
            for numbers, some in batches(documents(path, set(np.flatnonzero(mask).tolist()))):
                yield ngrams.words([d.text for d in some]), origins[numbers]

    known = Table.of([heldout.own_grams(w, origins, asked) for w, origins in parts(asked)])
    seen = np.zeros(len(known.grams), bool)
    for w, origins in parts(None):
        seen |= known.elsewhere(w, origins)
    return known.shares(asked, seen)


def _names(texts: Paths, first: np.ndarray, wanted: np.ndarray) -> dict[int, tuple[str, str]]:
    """Number -> (id, path) of documents of which others are duplicates."""
    names = {}
    for at, end, path in zip(first[:-1].tolist(), first[1:].tolist(), texts):
        lines = set((wanted[(wanted >= at) & (wanted < end)] - at).tolist())
        if lines:
            for line, d in documents(path, lines):
                names[at + line] = (d.id, str(d.meta.get("path", "")))
    return names


def _columns(keys: Paths, left: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(origin, source, bytes) of the documents that are left."""
    tables = [_keys(k)[mask][:, [ORIGIN, SOURCE, BYTES]] for k, mask in zip(keys, left)]
    rows = np.concatenate([np.zeros((0, 3), np.uint64), *tables])
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _keys(path: Path) -> np.ndarray:
    return np.fromfile(path, np.uint64).reshape(-1, COLUMNS)


def _firsts(keys: Paths) -> np.ndarray:
    """int64 [parts + 1]: the number of each part's first document."""
    return ngrams.offsets_of(np.array([p.stat().st_size // (8 * COLUMNS) for p in keys], np.int64))


class _Shingles:
    """Sets of shingles on disk, read one at a time."""

    def __init__(self, files: Paths, numbers: list[np.ndarray], sizes: list[np.ndarray]) -> None:
        self.files = files
        self.numbers = np.concatenate(numbers)
        self.file = np.repeat(np.arange(len(files)), [len(n) for n in numbers])
        self.sizes = np.concatenate(sizes)
        starts = [ngrams.offsets_of(s)[:-1] for s in sizes]
        self.starts = np.concatenate(starts)
        self.cached: dict[int, np.ndarray] = {}

    def of(self, number: int) -> np.ndarray:
        if (found := self.cached.pop(number, None)) is None:
            at = int(np.searchsorted(self.numbers, number))
            found = np.fromfile(
                self.files[self.file[at]], np.uint64, int(self.sizes[at]), offset=8 * int(self.starts[at])
            )
            if len(self.cached) >= _CACHED:
                del self.cached[next(iter(self.cached))]
        self.cached[number] = found  # last used, last to go
        return found
