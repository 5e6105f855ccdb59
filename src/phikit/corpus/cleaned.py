"""A shard of cleaned documents on disk, and the table of keys by which documents are compared.

`documents` and `rejected` are JSONL (.zst), document k in line k; `keys` is a plain array, a row a document.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from phikit.corpus import dedup
from phikit.corpus.heldout import origin_key, source_key
from phikit.records import Document, from_row
from phikit.records.io import open_lines, parse_row
from phikit.text import ngrams

BATCH = 1_000_000  # characters of documents that are looked at together
# Columns of the keys, uint64.
DIGEST, ORIGIN, SOURCE, BYTES, PARTIAL, SHINGLES, BAND = slice(0, 2), 2, 3, 4, 5, 6, slice(7, 7 + dedup.BANDS)
COLUMNS = 7 + dedup.BANDS


def keys_of(documents: Sequence[Document], w: ngrams.Words) -> np.ndarray:
    """uint64 [D, COLUMNS]; `w` are the documents' words."""
    table = np.zeros((len(documents), COLUMNS), np.uint64)
    if documents:
        grams, offsets = dedup.shingles(w)
        table[:, DIGEST] = dedup.digests([d.text for d in documents])
        table[:, ORIGIN] = [origin_key(d) for d in documents]
        table[:, SOURCE] = [source_key(d.source) for d in documents]
        table[:, BYTES] = [len(d.text.encode("utf-8", "surrogatepass")) for d in documents]
        table[:, PARTIAL] = ["contamination" in d.meta for d in documents]
        table[:, SHINGLES] = np.diff(offsets)
        table[:, BAND] = dedup.bands(grams, offsets)
    return table


def lines(path: str | Path) -> Iterator[bytes]:
    with open_lines(Path(path)) as f:
        yield from f


def documents(part_path: str | Path, wanted: Container[int]) -> Iterator[tuple[int, Document]]:
    """(line, document) of the wanted lines; the others are not parsed."""
    for number, line in enumerate(lines(part_path)):
        if number in wanted:
            yield number, from_row(Document, parse_row(line))


def batches(rows: Iterable[tuple[int, Document]]) -> Iterator[tuple[list[int], list[Document]]]:
    """(numbers, documents) of about BATCH characters each."""
    numbers: list[int] = []
    some: list[Document] = []
    size = 0
    for number, document in rows:
        numbers.append(number)
        some.append(document)
        size += len(document.text)
        if size >= BATCH:
            yield numbers, some
            numbers, some, size = [], [], 0
    if some:
        yield numbers, some
