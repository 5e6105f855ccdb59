"""Word ids and n-gram hashes of many texts at once: the index that deduplication and decontamination share.

A word is a maximal run of `\\w` characters, lower-cased character by character, so line wraps, case and
punctuation change nothing. In scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) each
character is a word. A word's id is a 64-bit hash; nothing here depends on the process, the platform or the
order of the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

BATCH_CHARACTERS = 1 << 18  # working arrays of 2 MB, which a core's cache holds
_PLANES = 0x40000  # no letter or digit lies above plane 3
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007),
    (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
_OTHER, _LETTER, _ALONE = 0, 1, 2
_SHORT = 32  # characters of a word that are looked at a place at a time; few words are longer
_BLOCK = 1 << 15  # runs of words that are hashed together: 256 kB an array
_BASE = 0x9E3779B97F4A7C15
_NUMBER = np.uint64(0x6E756D6265727321)


@dataclass(frozen=True)
class Words:
    """Word ids of D texts with W words in all.

    ids: uint64 [W]; offsets: int64 [D+1], text d owns words offsets[d]:offsets[d+1];
    starts, ends: int32 [W], each word's character span in its own text; numbers: bool [W], whether it is decimal
    digits alone.
    """

    ids: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, texts: Sequence[int] | np.ndarray) -> Words:
        """The words of the chosen texts, in the order given."""
        texts = np.asarray(texts, dtype=np.int64)
        counts = np.diff(self.offsets)[texts]
        index = ranges(self.offsets[:-1][texts], counts)
        columns = (self.starts[index], self.ends[index], self.numbers[index])
        return Words(self.ids[index], offsets_of(counts), *columns)

    def alike(self) -> np.ndarray:
        """The ids with one and the same for all numbers: uint64 [W]."""
        return np.where(self.numbers, _NUMBER, self.ids)


def words(texts: Sequence[str]) -> Words:
    """Word ids and spans of `texts`."""
    parts: list[tuple[np.ndarray, ...]] = []
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            parts.append(_words_of_batch(batch))
            batch, size = [], 0
    if batch:
        parts.append(_words_of_batch(batch))
    if not parts:
        none = np.zeros(0, np.int32)
        return Words(np.zeros(0, np.uint64), np.zeros(1, np.int64), none, none, np.zeros(0, bool))
    ids, counts, *columns = (np.concatenate(column) for column in zip(*parts))
    return Words(ids, offsets_of(counts), *columns)


def ngrams(w: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of `n` words that stay inside one text.

    Returns (hashes uint64 [G], offsets int64 [D+1]): gram g of text d starts at word g - offsets[d] of that
    text.
    """
    counts = np.maximum(np.diff(w.offsets) - n + 1, 0)
    if not counts.any():
        return np.zeros(0, np.uint64), offsets_of(counts)
    return runs(w.ids, n)[ranges(w.offsets[:-1], counts)], offsets_of(counts)


def runs(ids: np.ndarray, n: int) -> np.ndarray:
    """The hash of each run of `n` ids, wherever texts begin: uint64 [W - n + 1], or none."""
    total = max(len(ids) - n + 1, 0)
    rolled = np.zeros(total, np.uint64)
    powers = _powers(n)
    term = np.empty(min(total, _BLOCK), np.uint64)
    for first in range(0, total, _BLOCK):
        part = rolled[first : first + _BLOCK]
        for j, power in enumerate(powers):
            one = term[: len(part)]
            part += np.multiply(ids[first + j : first + j + len(part)], power, out=one)
        part[:] = _mix(part)
    return rolled


def runs_at(ids: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """`runs(ids, n)[places]`, without the others."""
    rolled = np.zeros(len(places), np.uint64)
    for j, power in enumerate(_powers(n)):
        rolled += ids[places + j] * power
    return _mix(rolled)


def distinct(hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each text's set of hashes, sorted inside the text: (hashes uint64 [S], offsets int64 [D+1])."""
    hashes = hashes.copy()
    for a, b in pairwise(offsets.tolist()):
        hashes[a:b].sort()
    new = np.ones(len(hashes), bool)
    new[1:] = hashes[1:] != hashes[:-1]
    new[offsets[:-1][offsets[:-1] < len(hashes)]] = True
    return hashes[new], offsets_of(new)[offsets]


def fold(numbers: np.ndarray) -> np.ndarray:
    """One hash for each run of numbers along the last axis: uint64 [..., K] to uint64 [...]."""
    return _mix((numbers * _powers(numbers.shape[-1])).sum(-1, dtype=np.uint64))


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """int64 [D+1] running sums that start at 0."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start+1, ... (count values) for each pair, joined: int64 [sum(counts)]."""
    shift = np.repeat(starts - offsets_of(counts)[:-1], counts)
    return np.arange(len(shift), dtype=np.int64) + shift


def _words_of_batch(texts: list[str]) -> tuple[np.ndarray, ...]:
    """(ids, words per text, starts, ends, numbers) of the texts, which are scanned as one array of code points."""
    kinds, hashes, digits = _characters()
    # The line feed keeps the last word of a text apart from the first of the next.
    points = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    if points.max() >= _PLANES:
        points = np.where(points < _PLANES, points, 0)
    kind = kinds.take(points)
    letter = kind == _LETTER
    joined = letter[1:] & letter[:-1]  # a character goes on with the word of the one before
    begins = kind != _OTHER
    ends = begins.copy()
    begins[1:] &= ~joined
    ends[:-1] &= ~joined
    begin, end = np.flatnonzero(begins), np.flatnonzero(ends) + 1
    length = end - begin
    ids = _mix(_sums(points, hashes, begin, length) + length.astype(np.uint64))
    text_start = offsets_of(np.array([len(t) + 1 for t in texts]))
    counts = np.diff(np.searchsorted(begin, text_start))
    base = np.repeat(text_start[:-1], counts)
    numbers = _numbers(points, digits, begin, length)
    return ids, counts, (begin - base).astype(np.int32), (end - base).astype(np.int32), numbers


def _numbers(points: np.ndarray, digits: np.ndarray, begin: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Which words are digits alone: few begin with one, and only those are looked at."""
    found = digits.take(points.take(begin))
    some = np.flatnonzero(found)
    if len(some):
        characters = digits.take(points[ranges(begin[some], length[some])])
        found[some] = np.logical_and.reduceat(characters, offsets_of(length[some])[:-1])
    return found


def _sums(points: np.ndarray, hashes: np.ndarray, begin: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Of each word the sum of its characters' hashes times the power of their place: uint64 [W].

    Words are taken from the longest to the shortest, so that the k-th characters of all that have one are one slice."""
    short = np.minimum(length, _SHORT)
    order = np.argsort((_SHORT - short).astype(np.uint8), kind="stable")  # by counting
    longer = len(length) - np.cumsum(np.bincount(short, minlength=_SHORT + 1))  # than 0, 1, ... characters
    at = begin[order]
    sums = np.zeros(len(at), np.uint64)
    for power, n in zip(_powers(_SHORT), longer[:_SHORT].tolist()):
        sums[:n] += hashes.take(points.take(at[:n])) * power
        at[:n] += 1
    found = np.empty_like(sums)
    found[order] = sums
    if len(rest := np.flatnonzero(length > _SHORT)):
        more = length[rest] - _SHORT
        first = offsets_of(more)[:-1]
        place = ranges(np.full(len(rest), _SHORT), more)
        terms = hashes[points[ranges(begin[rest] + _SHORT, more)]] * _powers(int(place.max()) + 1)[place]
        found[rest] += np.add.reduceat(terms, first)
    return found


@lru_cache(maxsize=1)
def _characters() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per code point: its kind (uint8), the hash of its lower-case form (uint64), whether it is a decimal digit."""
    kinds = np.zeros(_PLANES, np.uint8)
    digits = np.zeros(_PLANES, bool)
    lower = np.arange(_PLANES, dtype=np.uint64)
    for point in range(_PLANES):
        c = chr(point)
        if c.isalnum() or c == "_":
            kinds[point] = _LETTER
            digits[point] = c.isdecimal()
            lower[point] = ord(c.lower()[0])  # one character for one: spans stay those of the text itself
    for first, last in _UNSPACED:
        span = kinds[first : last + 1]
        span[span == _LETTER] = _ALONE
    return kinds, _mix(lower + np.uint64(1)), digits


def _powers(n: int) -> np.ndarray:
    """Odd 64-bit coefficients, uint64 [n]."""
    return _mix(np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_BASE)) | np.uint64(1)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every input bit changes every output bit."""
    x = x + np.uint64(_BASE)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
